// PluginLog turns what a plugin writes to stderr into lines of our own log:
//
//   plugin_log plugin=ID message="…" key="value" …
//
// Plugins log hclog JSON, one object per line ({"@level":"info","@message":"…",…}); other lines are taken by their
// prefix
// ([INFO] …), and after "panic: " or "fatal error: " everything that is not JSON is an error. The SDK writes two lines
// per request, so both rate and size are bounded; what is left out is counted and said. Not thread-safe.

#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>
#include <string_view>

#include "core/log.h"

namespace dpa {

// `text` as it may stand in a line for people: what is not UTF-8 is replaced.
std::string CleanText(std::string_view text);

struct PluginLogOptions {
  size_t line_bytes_max = 64 * 1024;  // A longer line is cut into pieces, which are not parsed. As go-plugin does.
  size_t message_bytes_max = 4096;    // Of a message or of one value in our log.
  int64_t lines_burst = 1000;         // Lines passed on at once …
  int64_t lines_per_s = 200;          // … and in the long run.
};

class PluginLog {
 public:
  // Takes the finished fields; in the program WriteLog with the event plugin_log.
  using Sink = std::function<void(LogLevel level, std::string_view fields)>;

  PluginLog(std::string plugin_id, const PluginLogOptions& options, Sink sink);

  void Feed(std::string_view bytes);
  // Writes out a last line without its end, and what was left out. The next Feed begins anew (a new process).
  void Finish();

  // The line that most likely says why the process ended: where a panic began, else the last error or plain text.
  // At most 200 bytes; empty if there was none since the last Reset.
  const std::string& last_words() const { return last_words_; }
  void Reset();

  uint64_t lines_dropped() const { return dropped_total_; }

 private:
  using Clock = std::chrono::steady_clock;

  void OnLine(std::string_view line, bool whole);
  bool OnJsonLine(std::string_view line);
  void OnTextLine(std::string_view line);
  void Emit(LogLevel level, std::string fields);
  bool TakeToken();
  void ReportDropped();
  void SetLastWords(std::string_view words);

  const std::string plugin_id_;
  const PluginLogOptions options_;
  const Sink sink_;
  std::string partial_;
  bool cut_ = false;    // The line being read was longer than the limit; its rest is not parsed either.
  bool panic_ = false;  // A Go program has begun to print its end.
  std::string last_words_;
  int64_t tokens_milli_;
  Clock::time_point refilled_;
  uint64_t dropped_ = 0;  // Since the last report.
  uint64_t dropped_total_ = 0;
};

}  // namespace dpa
