// The access log: one JSON line per exchange, formatted on the worker, written by one thread.
//
//     worker: Write --> line appended to the current block --(full, or 100 ms old)--> its queue
//     writer thread: queues --> write(2) --> empty blocks back to the worker
//
// The data path never waits for the disk or the terminal: when a worker's queue is full, its block is dropped and its
// lines are counted (dpa_access_log_dropped_total). Every record is counted once, as a line written or as one dropped.
// The newest lines go then, not the oldest: what is queued is in order and on its way, and taking it back would need a
// lock. Nothing is dropped at an orderly end.
//
// Order: lines of one worker stand in the order in which their exchanges ended; those of several workers are
// interleaved by block.

#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <expected>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "core/metrics.h"
#include "core/timer_wheel.h"
#include "core/worker.h"
#include "http/access_record.h"

namespace dpa {

// A block of lines on its way.
struct LogBlock {
  static constexpr size_t kBytes = 64 << 10;
  std::string text;  // Reserved once; at most kBytes.
  uint32_t lines_count = 0;
};

// A bounded queue from one thread to one other.
template <class T, size_t kCapacity>
class HandoverQueue {
 public:
  bool Push(T item) {
    const uint64_t end = end_.load(std::memory_order_relaxed);
    if (end - begin_.load(std::memory_order_acquire) == kCapacity) return false;
    items_[end % kCapacity] = item;
    end_.store(end + 1, std::memory_order_release);
    return true;
  }
  bool Pop(T& item) {
    const uint64_t begin = begin_.load(std::memory_order_relaxed);
    if (begin == end_.load(std::memory_order_acquire)) return false;
    item = items_[begin % kCapacity];
    begin_.store(begin + 1, std::memory_order_release);
    return true;
  }

 private:
  std::array<T, kCapacity> items_{};
  alignas(64) std::atomic<uint64_t> begin_{0};
  alignas(64) std::atomic<uint64_t> end_{0};
};

class AccessLogWriter;

// One worker's end of the log. Made and destroyed on the worker's thread.
class WorkerAccessLog final : public AccessLog, private TimerWheel::Entry {
 public:
  WorkerAccessLog(Worker& worker, AccessLogWriter& writer);
  // Hands over what is left, waiting for room: the data path is over.
  ~WorkerAccessLog() override;

  void Write(const AccessRecord& record) override;
  uint64_t dropped_count() const { return dropped_.value(); }

 private:
  friend class AccessLogWriter;
  // 16 blocks: a second's lines at 25,000 requests a second, which is what a slow disk may need.
  static constexpr size_t kBlocksMax = 16;
  static constexpr uint64_t kAgeMaxMs = 100;

  void OnExpire() override;
  void HandOver();
  LogBlock* TakeBlock();

  Worker& worker_;
  AccessLogWriter& writer_;
  std::vector<std::unique_ptr<LogBlock>> blocks_;  // All there are.
  LogBlock* current_ = nullptr;
  HandoverQueue<LogBlock*, kBlocksMax> full_;
  HandoverQueue<LogBlock*, kBlocksMax> empty_;
  Counter dropped_;
  // Monotonic to wall clock, compared again every second.
  uint64_t wall_second_ns_ = 0;  // Monotonic time at which second_text_ began.
  std::array<char, 20> second_text_;
};

// The writing thread. Outlives every WorkerAccessLog.
class AccessLogWriter {
 public:
  // `path`: a file, appended to, or "-" for standard output. The error is a sentence that names it.
  static std::expected<std::unique_ptr<AccessLogWriter>, std::string> Open(const std::string& path);
  // Writes what is queued and ends the thread. REQUIRES: no WorkerAccessLog is left.
  ~AccessLogWriter();

  // Any thread: opens the file anew, after a rotation.
  void Reopen();
  void Collect(MetricsPage& page) const;

 private:
  friend class WorkerAccessLog;
  AccessLogWriter(std::string path, int fd);
  void Add(WorkerAccessLog& log);
  void Remove(WorkerAccessLog& log);
  void Wake();
  void Run();
  bool WriteQueued();
  void WriteOut(const LogBlock& block);
  bool WriteAll(std::string_view& text);
  void OpenAgain();

  const std::string path_;
  int fd_;
  // The writer holds write_mutex_ while it writes, so a scrape, which must not wait for that, takes list_mutex_ only.
  // Who changes logs_ holds both, in this order.
  std::mutex write_mutex_;
  mutable std::mutex list_mutex_;
  std::vector<WorkerAccessLog*> logs_;
  uint64_t dropped_before_ = 0;
  Counter written_lines_;
  Counter failed_lines_;
  bool failing_ = false;
  bool torn_ = false;  // The last write ended inside of a line.
  std::atomic<uint32_t> wakes_{0};
  std::atomic<bool> stopping_{false};
  std::atomic<bool> reopen_{false};
  std::thread thread_;
};

// One line, with its newline, appended to `out`. `time` is its RFC 3339 text.
void AppendAccessLine(std::string& out, const AccessRecord& record, std::string_view time);

}  // namespace dpa
