// The log: one line per event, `event key=value …`, to stderr, as text or as JSON lines (--log-format).
//
// Lines are handed to a logging thread through a bounded queue, so a slow terminal never blocks a caller; when the
// queue is full the oldest line is dropped and counted. Not for the steady state of a request: that is the access
// record.
// Levels: error = somebody must act; warn = once per cause; info = life cycle; debug = for developers.
//
//   LogInfo("plugin_started", "plugin={} pid={}", id, pid);

#pragma once

#include <fmt/format.h>

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>

namespace dpa {

enum class LogLevel : uint8_t { kDebug, kInfo, kWarn, kError, kOff };
enum class LogFormat : uint8_t { kText, kJson };

// REQUIRES: called once, before other threads start. Without it, lines go to stderr as text at level info.
void StartLog(LogLevel level, LogFormat format);
// Writes out what is queued and ends the logging thread.
void StopLog();

bool LogEnabled(LogLevel level);
// `event` is a fixed name that greps; `fields` is the already formatted rest ("key=value key=value").
void WriteLog(LogLevel level, std::string_view event, std::string_view fields);

// `value` in double quotes with control bytes, quotes and backslashes escaped; for values that a peer or a file chose.
std::string Quoted(std::string_view value);

template <class... Args>
void LogError(std::string_view event, fmt::format_string<Args...> format, Args&&... args) {
  if (LogEnabled(LogLevel::kError)) WriteLog(LogLevel::kError, event, fmt::format(format, std::forward<Args>(args)...));
}
template <class... Args>
void LogWarn(std::string_view event, fmt::format_string<Args...> format, Args&&... args) {
  if (LogEnabled(LogLevel::kWarn)) WriteLog(LogLevel::kWarn, event, fmt::format(format, std::forward<Args>(args)...));
}
template <class... Args>
void LogInfo(std::string_view event, fmt::format_string<Args...> format, Args&&... args) {
  if (LogEnabled(LogLevel::kInfo)) WriteLog(LogLevel::kInfo, event, fmt::format(format, std::forward<Args>(args)...));
}
template <class... Args>
void LogDebug(std::string_view event, fmt::format_string<Args...> format, Args&&... args) {
  if (LogEnabled(LogLevel::kDebug)) WriteLog(LogLevel::kDebug, event, fmt::format(format, std::forward<Args>(args)...));
}

}  // namespace dpa
