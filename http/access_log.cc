#include "http/access_log.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <chrono>
#include <cstring>
#include <ctime>
#include <utility>

#include "core/log.h"
#include "http/json_text.h"

namespace dpa {

// --- The line ---

namespace {

// Writes a JSON object's members into memory that is large enough.
class LineWriter {
 public:
  explicit LineWriter(char* out) : out_(out) {}

  void Raw(std::string_view text) {
    std::memcpy(out_, text.data(), text.size());
    out_ += text.size();
  }
  // `key` comes with everything up to the value: `,"status":`.
  void Number(std::string_view key, uint64_t value) {
    Raw(key);
    out_ = std::to_chars(out_, out_ + 20, value).ptr;
  }
  void Text(std::string_view key, std::string_view value) {
    Raw(key);
    *out_++ = '"';
    out_ = WriteJsonString(out_, value);
    *out_++ = '"';
  }
  void TextUnlessEmpty(std::string_view key, std::string_view value) {
    if (!value.empty()) Text(key, value);
  }
  void Flag(std::string_view key, bool value) {
    Raw(key);
    Raw(value ? "true" : "false");
  }
  // Milliseconds with microseconds behind the point; nothing if either end did not happen.
  void Span(std::string_view key, uint64_t begin_ns, uint64_t end_ns) {
    if (begin_ns == 0 || end_ns == 0) return;
    const uint64_t us = end_ns > begin_ns ? (end_ns - begin_ns) / 1000 : 0;
    Number(key, us / 1000);
    const uint64_t fraction = us % 1000;
    const char digits[4] = {'.', static_cast<char>('0' + fraction / 100), static_cast<char>('0' + fraction / 10 % 10),
                            static_cast<char>('0' + fraction % 10)};
    Raw({digits, sizeof digits});
  }
  char* end() const { return out_; }

 private:
  char* out_;
};

// The spans follow one another without a gap, so that they add up to t_total as far as the exchange came. t_queue and
// t_connect are parts of t_upstream.
void AppendSpans(LineWriter& line, const AccessRecord& record) {
  line.Span(R"(,"t_head":)", record.started_ns, record.head_ns);
  line.Span(R"(,"t_upstream":)", record.head_ns, record.upstream_ready_ns);
  if (record.waits.queue_ns != 0) line.Span(R"(,"t_queue":)", 1, 1 + record.waits.queue_ns);
  if (record.waits.connect_ns != 0) line.Span(R"(,"t_connect":)", 1, 1 + record.waits.connect_ns);
  // An answer may come before the request has been sent in full, or instead of the rest of it.
  const bool early =
      record.response_head_ns != 0 && (record.request_sent_ns == 0 || record.request_sent_ns > record.response_head_ns);
  const uint64_t sent_ns = early ? record.response_head_ns : record.request_sent_ns;
  line.Span(R"(,"t_request":)", record.upstream_ready_ns, sent_ns);
  line.Span(R"(,"t_response_head":)", sent_ns, record.response_head_ns);
  line.Span(R"(,"t_response":)", record.response_head_ns, record.finished_ns);
  line.Span(R"(,"t_tunnel":)", record.upgraded_ns, record.finished_ns);
  line.Span(R"(,"t_total":)", record.started_ns, record.finished_ns);
}

// All that is not text of the record: keys, numbers, time.
constexpr size_t kFixedBytesMax = 1024;

size_t LineBytesMax(const AccessRecord& record) {
  size_t bytes = kFixedBytesMax;
  for (const std::string_view text :
       {record.method, record.target, record.host, record.user_agent, record.client, record.route, record.service,
        record.plugin, record.upstream, record.request_id, record.trace_id}) {
    bytes += JsonStringBytesMax(text);
  }
  return bytes;
}

}  // namespace

std::string_view PhaseOf(const AccessRecord& record) {
  if (record.head_ns == 0) return "head";
  if (record.response_head_ns != 0) return "response";
  if (record.request_sent_ns != 0) return "response_head";
  if (record.upstream_ready_ns != 0) return "request";
  if (record.waits.connect_ns != 0) return "connect";
  return record.waits.queue_ns != 0 || SourceOf(record.reason) == ErrorSource::kUpstream ? "queue" : "route";
}

void AppendAccessLine(std::string& out, const AccessRecord& record, std::string_view time) {
  const size_t size_before = out.size();
  out.resize_and_overwrite(size_before + LineBytesMax(record), [&](char* data, size_t) {
    LineWriter line(data + size_before);
    line.Text(R"({"time":)", time);
    line.Number(R"(,"connection":)", record.connection_id);
    line.Number(R"(,"exchange":)", record.exchange_id);
    line.Text(R"(,"client":)", record.client);
    line.Text(R"(,"method":)", record.method);
    line.Text(R"(,"target":)", record.target);
    line.Text(R"(,"host":)", record.host);
    line.Number(R"(,"status":)", static_cast<uint64_t>(record.status));
    line.Text(R"(,"reason":)", Info(record.reason).word);
    if (record.reason != Reason::kOk) {
      line.Text(R"(,"ended_by":)", ToString(record.ended_by));
      line.Text(R"(,"phase":)", PhaseOf(record));
    }
    line.Text(R"(,"route":)", record.route);
    line.TextUnlessEmpty(R"(,"service":)", record.service);
    line.TextUnlessEmpty(R"(,"plugin":)", record.plugin);
    if (!record.upstream.empty()) {
      line.Text(R"(,"upstream":)", record.upstream);
      line.Flag(R"(,"upstream_reused":)", record.upstream_reused);
    }
    if (record.retries_count != 0) line.Number(R"(,"retries":)", record.retries_count);
    line.Flag(R"(,"downstream_reused":)", record.downstream_reused);
    line.Number(R"(,"request_head_bytes":)", record.request_head_bytes);
    line.Number(R"(,"request_bytes":)", record.request_body_bytes);
    line.Number(R"(,"response_head_bytes":)", record.response_head_bytes);
    line.Number(R"(,"response_bytes":)", record.response_body_bytes);
    line.Number(R"(,"received_bytes":)", record.received_bytes);
    line.Number(R"(,"sent_bytes":)", record.sent_bytes);
    AppendSpans(line, record);
    line.TextUnlessEmpty(R"(,"request_id":)", record.request_id);
    line.TextUnlessEmpty(R"(,"trace_id":)", record.trace_id);
    line.TextUnlessEmpty(R"(,"user_agent":)", record.user_agent);
    line.Raw("}\n");
    return static_cast<size_t>(line.end() - data);
  });
}

// --- One worker ---

WorkerAccessLog::WorkerAccessLog(Worker& worker, AccessLogWriter& writer) : worker_(worker), writer_(writer) {
  for (size_t i = 0; i < kBlocksMax; ++i) blocks_.push_back(std::make_unique<LogBlock>());
  for (const std::unique_ptr<LogBlock>& block : blocks_) empty_.Push(block.get());
  writer_.Add(*this);
}

WorkerAccessLog::~WorkerAccessLog() {
  worker_.timers().Disarm(*this);
  if (current_ != nullptr && !current_->text.empty()) {
    while (!full_.Push(current_)) std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  // Waits until the writer is done with this log.
  writer_.Remove(*this);
}

LogBlock* WorkerAccessLog::TakeBlock() {
  LogBlock* block = nullptr;
  if (!empty_.Pop(block)) return nullptr;
  if (block->text.capacity() < LogBlock::kBytes) block->text.reserve(LogBlock::kBytes);
  return block;
}

void WorkerAccessLog::Write(const AccessRecord& record) {
  if (current_ == nullptr) {
    current_ = TakeBlock();
    if (current_ == nullptr) return dropped_.Add();
  }
  // The wall clock is read once a second; within it microseconds are counted on the monotonic one.
  const uint64_t now_ns = record.finished_ns;
  if (wall_second_ns_ == 0 || now_ns - wall_second_ns_ >= 1'000'000'000) {
    timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    wall_second_ns_ = worker_.ReadClockNs() - static_cast<uint64_t>(now.tv_nsec);
    tm utc;
    gmtime_r(&now.tv_sec, &utc);
    strftime(second_text_.data(), second_text_.size(), "%Y-%m-%dT%H:%M:%S", &utc);
  }
  const uint64_t us = std::min<uint64_t>(now_ns > wall_second_ns_ ? (now_ns - wall_second_ns_) / 1000 : 0, 999'999);
  std::array<char, 27> time;
  std::memcpy(time.data(), second_text_.data(), 19);
  time[19] = '.';
  for (uint64_t i = 0, rest = us; i < 6; ++i, rest /= 10) time[25 - i] = static_cast<char>('0' + rest % 10);
  time[26] = 'Z';

  const bool first_line = current_->text.empty();
  AppendAccessLine(current_->text, record, {time.data(), time.size()});
  ++current_->lines_count;
  // A line may be long (headers are bounded, so it is as well); what is left must fit the usual one.
  if (current_->text.size() + 4096 > LogBlock::kBytes) return HandOver();
  if (first_line) worker_.timers().Arm(*this, worker_.timers().now_ms() + kAgeMaxMs);
}

void WorkerAccessLog::OnExpire() {
  if (current_ != nullptr && !current_->text.empty()) HandOver();
}

void WorkerAccessLog::HandOver() {
  worker_.timers().Disarm(*this);
  // There are as many blocks as places, so there is always one.
  const bool pushed = full_.Push(std::exchange(current_, nullptr));
  DPA_ASSERT(pushed);
  writer_.Wake();
}

// --- The writer ---

namespace {

int OpenLog(const std::string& path) {
  if (path == "-") return STDOUT_FILENO;
  return open(path.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0640);
}

}  // namespace

std::expected<std::unique_ptr<AccessLogWriter>, std::string> AccessLogWriter::Open(const std::string& path) {
  const int fd = OpenLog(path);
  if (fd < 0) return std::unexpected("cannot open the access log " + Quoted(path) + ": " + std::strerror(errno));
  return std::unique_ptr<AccessLogWriter>(new AccessLogWriter(path, fd));
}

AccessLogWriter::AccessLogWriter(std::string path, int fd) : path_(std::move(path)), fd_(fd) {
  thread_ = std::thread(&AccessLogWriter::Run, this);
}

AccessLogWriter::~AccessLogWriter() {
  stopping_ = true;
  Wake();
  thread_.join();
  DPA_ASSERT(logs_.empty());
  if (fd_ != STDOUT_FILENO) close(fd_);
}

void AccessLogWriter::Add(WorkerAccessLog& log) {
  const std::scoped_lock lock(write_mutex_, list_mutex_);
  logs_.push_back(&log);
}

void AccessLogWriter::Remove(WorkerAccessLog& log) {
  const std::lock_guard write_lock(write_mutex_);
  LogBlock* block = nullptr;
  while (log.full_.Pop(block)) WriteOut(*block);
  const std::lock_guard list_lock(list_mutex_);
  std::erase(logs_, &log);
  dropped_before_ += log.dropped_.value();
}

void AccessLogWriter::Wake() {
  wakes_.fetch_add(1, std::memory_order_release);
  wakes_.notify_one();
}

void AccessLogWriter::Run() {
  for (;;) {
    const uint32_t seen = wakes_.load(std::memory_order_acquire);
    if (reopen_.exchange(false)) OpenAgain();
    const bool wrote = WriteQueued();
    if (wrote) continue;
    if (stopping_) return;
    wakes_.wait(seen, std::memory_order_acquire);
  }
}

bool AccessLogWriter::WriteQueued() {
  const std::lock_guard lock(write_mutex_);
  bool wrote = false;
  for (WorkerAccessLog* log : logs_) {
    LogBlock* block = nullptr;
    while (log->full_.Pop(block)) {
      WriteOut(*block);
      block->text.clear();
      block->lines_count = 0;
      log->empty_.Push(block);
      wrote = true;
    }
  }
  return wrote;
}

// REQUIRES: write_mutex_ is held, which also keeps lines of two blocks apart.
void AccessLogWriter::WriteOut(const LogBlock& block) {
  std::string_view rest = block.text;
  std::string_view mend = "\n";
  if (torn_ && WriteAll(mend)) torn_ = false;
  if (!torn_ && WriteAll(rest)) {
    failing_ = false;
    return written_lines_.Add(block.lines_count);
  }
  const int error = errno;
  // What is left of a line that was begun counts as that line, lost.
  const auto lost = static_cast<uint64_t>(std::count(rest.begin(), rest.end(), '\n'));
  if (rest.size() < block.text.size()) torn_ = block.text[block.text.size() - rest.size() - 1] != '\n';
  written_lines_.Add(block.lines_count - lost);
  failed_lines_.Add(lost);
  if (std::exchange(failing_, true)) return;
  LogWarn("access_log_failed", "path={} error={}", Quoted(path_), Quoted(std::strerror(error)));
}

// Takes off `text` what was written; false if something is left, and errno says why.
bool AccessLogWriter::WriteAll(std::string_view& text) {
  while (!text.empty()) {
    const ssize_t written = write(fd_, text.data(), text.size());
    if (written > 0) text.remove_prefix(static_cast<size_t>(written));
    if (written < 0 && errno != EINTR) return false;
  }
  return true;
}

void AccessLogWriter::Reopen() {
  reopen_ = true;
  Wake();
}

void AccessLogWriter::OpenAgain() {
  if (path_ == "-") return;
  const int fd = OpenLog(path_);
  if (fd < 0) {
    LogWarn("access_log_reopen_failed", "path={} error={}", Quoted(path_), Quoted(std::strerror(errno)));
    return;
  }
  const std::lock_guard lock(write_mutex_);
  close(std::exchange(fd_, fd));
  torn_ = false;
}

void AccessLogWriter::Collect(MetricsPage& page) const {
  const std::lock_guard lock(list_mutex_);
  uint64_t dropped = dropped_before_ + failed_lines_.value();
  for (const WorkerAccessLog* log : logs_) dropped += log->dropped_.value();
  page.AddCounter("dpa_access_log_lines_total", "Access records written.", {},
                  static_cast<double>(written_lines_.value()));
  page.AddCounter("dpa_access_log_dropped_total",
                  "Access records lost because the log could not be written, or not fast enough.", {},
                  static_cast<double>(dropped));
}

}  // namespace dpa
