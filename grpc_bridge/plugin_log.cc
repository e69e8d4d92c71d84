#include "grpc_bridge/plugin_log.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <optional>

namespace dpa {
namespace {

using Json = nlohmann::json;

constexpr size_t kFieldsMax = 24;
constexpr size_t kLastWordsBytesMax = 200;

std::optional<LogLevel> LevelOf(std::string_view name) {
  std::string lower(name);
  std::ranges::transform(lower, lower.begin(),
                         [](char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c; });
  if (lower == "trace" || lower == "debug" || lower == "all") return LogLevel::kDebug;
  if (lower == "info") return LogLevel::kInfo;
  if (lower == "warn" || lower == "warning") return LogLevel::kWarn;
  if (lower == "error") return LogLevel::kError;
  return std::nullopt;
}

// "[WARN] text" and the like.
std::optional<LogLevel> LevelByPrefix(std::string_view line) {
  if (!line.starts_with('[')) return std::nullopt;
  return LevelOf(line.substr(1, line.find(']') - 1));
}

// A field name that cannot be mistaken for anything else in `key=value`.
std::string SafeKey(std::string_view key) {
  std::string safe(key.substr(0, 64));
  for (char& c : safe) {
    const bool plain =
        (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' || c == '.' || c == '-';
    if (!plain) c = '_';
  }
  return safe.empty() ? "_" : safe;
}

std::string SafeValue(std::string_view value, size_t bytes_max) {
  return value.size() <= bytes_max ? Quoted(CleanText(value)) : Quoted(CleanText(value.substr(0, bytes_max)) + "…");
}

std::string TextOf(const Json& value) {
  if (value.is_string()) return value.get<std::string>();
  return value.dump(-1, ' ', false, Json::error_handler_t::replace);
}

// Keys go out sorted, and in Go's order "@level" comes first: most lines can be passed over without being parsed.
bool IsDebugLine(std::string_view line) {
  return line.starts_with(R"({"@level":"debug")") || line.starts_with(R"({"@level":"trace")");
}

}  // namespace

std::string CleanText(std::string_view text) {
  return Json::parse(Json(std::string(text)).dump(-1, ' ', false, Json::error_handler_t::replace)).get<std::string>();
}

PluginLog::PluginLog(std::string plugin_id, const PluginLogOptions& options, Sink sink)
    : plugin_id_(std::move(plugin_id)),
      options_(options),
      sink_(std::move(sink)),
      tokens_milli_(options.lines_burst * 1000),
      refilled_(Clock::now()) {}

void PluginLog::Feed(std::string_view bytes) {
  while (!bytes.empty()) {
    const size_t end = bytes.find('\n');
    const size_t take = std::min({end, bytes.size(), options_.line_bytes_max - partial_.size()});
    partial_.append(bytes, 0, take);
    bytes.remove_prefix(take);
    const bool ended = bytes.starts_with('\n');
    if (!ended && partial_.size() < options_.line_bytes_max) return;
    OnLine(partial_, ended && !cut_);
    partial_.clear();
    cut_ = !ended;
    if (ended) bytes.remove_prefix(1);
  }
}

void PluginLog::Finish() {
  if (!partial_.empty()) OnLine(partial_, !cut_);
  partial_.clear();
  cut_ = false;
  ReportDropped();
}

void PluginLog::Reset() {
  panic_ = false;
  last_words_.clear();
}

void PluginLog::OnLine(std::string_view line, bool whole) {
  if (line.ends_with('\r')) line.remove_suffix(1);
  if (line.empty()) return;
  if (!LogEnabled(LogLevel::kDebug) && IsDebugLine(line)) return;
  if (whole && line.starts_with('{') && OnJsonLine(line)) return;
  OnTextLine(line);
}

bool PluginLog::OnJsonLine(std::string_view line) {
  const Json object = Json::parse(line, nullptr, false);
  if (!object.is_object()) return false;
  const auto level_name = object.find("@level");
  if (level_name == object.end() || !level_name->is_string()) return false;
  const auto level = LevelOf(level_name->get_ref<const std::string&>());
  if (!level) return false;
  const std::string message = object.contains("@message") ? TextOf(object["@message"]) : "";
  if (*level == LogLevel::kError && !panic_) SetLastWords(message);
  std::string fields = fmt::format("message={}", SafeValue(message, options_.message_bytes_max));
  size_t count = 0;
  for (const auto& [key, value] : object.items()) {
    if (key == "@level" || key == "@message" || key == "@timestamp" || key == "timestamp") continue;
    if (++count > kFieldsMax) break;
    const std::string_view name = key.starts_with('@') ? std::string_view(key).substr(1) : std::string_view(key);
    fields += fmt::format(" {}={}", SafeKey(name), SafeValue(TextOf(value), options_.message_bytes_max));
  }
  Emit(*level, std::move(fields));
  return true;
}

void PluginLog::OnTextLine(std::string_view line) {
  const bool begins = !panic_ && (line.starts_with("panic: ") || line.starts_with("fatal error: "));
  panic_ = panic_ || begins;
  if (begins || !panic_) SetLastWords(line);
  const LogLevel level = panic_ ? LogLevel::kError : LevelByPrefix(line).value_or(LogLevel::kDebug);
  Emit(level, fmt::format("message={}", SafeValue(line, options_.message_bytes_max)));
}

void PluginLog::Emit(LogLevel level, std::string fields) {
  if (!LogEnabled(level)) return;
  if (!TakeToken()) {
    ++dropped_;
    ++dropped_total_;
    return;
  }
  ReportDropped();
  sink_(level, fmt::format("plugin={} {}", plugin_id_, fields));
}

bool PluginLog::TakeToken() {
  const auto now = Clock::now();
  const auto ms = std::chrono::duration_cast<std::chrono::milliseconds>(now - refilled_).count();
  refilled_ += std::chrono::milliseconds(ms);
  tokens_milli_ = std::min(tokens_milli_ + ms * options_.lines_per_s, options_.lines_burst * 1000);
  if (tokens_milli_ < 1000) return false;
  tokens_milli_ -= 1000;
  return true;
}

void PluginLog::ReportDropped() {
  if (dropped_ == 0) return;
  sink_(LogLevel::kWarn, fmt::format("plugin={} lines_dropped={}", plugin_id_, dropped_));
  dropped_ = 0;
}

void PluginLog::SetLastWords(std::string_view words) { last_words_ = CleanText(words.substr(0, kLastWordsBytesMax)); }

}  // namespace dpa
