#include "core/log.h"

#include <spdlog/async.h>
#include <spdlog/sinks/stdout_sinks.h>
#include <spdlog/spdlog.h>

#include <atomic>
#include <memory>

namespace dpa {
namespace {

// Lines that may wait for the logging thread; one line is some 200 bytes, so about 2 MB at most.
constexpr size_t kQueueLines = 8192;

std::atomic<LogLevel> g_level{LogLevel::kInfo};
std::atomic<LogFormat> g_format{LogFormat::kText};

std::shared_ptr<spdlog::logger>& Logger() {
  static std::shared_ptr<spdlog::logger> logger = [] {
    auto made = std::make_shared<spdlog::logger>("dpa", std::make_shared<spdlog::sinks::stderr_sink_mt>());
    made->set_level(spdlog::level::trace);
    made->set_pattern("%Y-%m-%dT%H:%M:%S.%eZ %l %v", spdlog::pattern_time_type::utc);
    return made;
  }();
  return logger;
}

spdlog::level::level_enum ToSpdlog(LogLevel level) {
  switch (level) {
    case LogLevel::kDebug: return spdlog::level::debug;
    case LogLevel::kInfo: return spdlog::level::info;
    case LogLevel::kWarn: return spdlog::level::warn;
    case LogLevel::kError: return spdlog::level::err;
    case LogLevel::kOff: return spdlog::level::off;
  }
  return spdlog::level::info;
}

void AppendEscaped(std::string& out, std::string_view value) {
  for (const char raw : value) {
    const auto byte = static_cast<unsigned char>(raw);
    if (byte == '"' || byte == '\\') {
      out += '\\';
      out += raw;
    } else if (byte == '\n') {
      out += "\\n";
    } else if (byte == '\t') {
      out += "\\t";
    } else if (byte < 0x20 || byte == 0x7f) {
      fmt::format_to(std::back_inserter(out), "\\u{:04x}", byte);
    } else {
      out += raw;
    }
  }
}

}  // namespace

void StartLog(LogLevel level, LogFormat format) {
  g_level = level;
  g_format = format;
  spdlog::init_thread_pool(kQueueLines, 1);
  auto logger = std::make_shared<spdlog::async_logger>("dpa", std::make_shared<spdlog::sinks::stderr_sink_mt>(),
                                                       spdlog::thread_pool(),
                                                       spdlog::async_overflow_policy::overrun_oldest);
  logger->set_level(spdlog::level::trace);
  logger->set_pattern(format == LogFormat::kJson ? R"({"time":"%Y-%m-%dT%H:%M:%S.%eZ","level":"%l",%v})"
                                                 : "%Y-%m-%dT%H:%M:%S.%eZ %l %v",
                      spdlog::pattern_time_type::utc);
  logger->flush_on(spdlog::level::info);
  Logger() = std::move(logger);
}

void StopLog() {
  Logger()->flush();
  Logger().reset();
  spdlog::shutdown();
  Logger() = std::make_shared<spdlog::logger>("dpa", std::make_shared<spdlog::sinks::stderr_sink_mt>());
}

bool LogEnabled(LogLevel level) { return level >= g_level.load(std::memory_order_relaxed); }

void WriteLog(LogLevel level, std::string_view event, std::string_view fields) {
  std::string line;
  line.reserve(event.size() + fields.size() + 32);
  if (g_format.load(std::memory_order_relaxed) == LogFormat::kJson) {
    line += "\"event\":\"";
    AppendEscaped(line, event);
    line += "\",\"fields\":\"";
    AppendEscaped(line, fields);
    line += '"';
  } else {
    line += event;
    if (!fields.empty()) {
      line += ' ';
      line += fields;
    }
  }
  Logger()->log(ToSpdlog(level), spdlog::string_view_t(line.data(), line.size()));
}

std::string Quoted(std::string_view value) {
  std::string out = "\"";
  AppendEscaped(out, value);
  out += '"';
  return out;
}

}  // namespace dpa
