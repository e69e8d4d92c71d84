// WorkerThread runs one Worker on a thread of its own, pinned to a CPU, on an io_uring made in that thread (a ring
// belongs to the thread that made it).

#pragma once

#include <cstdint>
#include <expected>
#include <functional>
#include <memory>
#include <optional>
#include <semaphore>
#include <string>
#include <thread>

#include "core/ring_uring.h"
#include "core/worker.h"

namespace dpa {

struct WorkerThreadOptions {
  uint32_t index = 0;
  std::string name = "worker";  // Thread name, at most 15 bytes.
  std::optional<int> cpu;       // CPU to pin to; none: not pinned.
  UringOptions ring;
};

class WorkerThread {
 public:
  // Starts the thread and waits until its Worker stands or has failed to. The error is a sentence.
  static std::expected<std::unique_ptr<WorkerThread>, std::string> Start(const WorkerThreadOptions& options);
  // REQUIRES: Stop() was called or nothing is running on the worker.
  ~WorkerThread();

  // Runs `function` on the worker's thread and returns when it has run; false: it never will, the worker has ended. Not
  // from a worker's thread.
  bool Run(std::move_only_function<void(Worker&)> function);
  // Posts `function` to the worker's thread and returns at once; false: dropped, the worker has ended.
  bool Post(std::move_only_function<void(Worker&)> function);
  // Ends the loop and joins the thread; messages not yet delivered are dropped. REQUIRES: all tasks of the worker are
  // done, and no other thread is in Post(), Run() or Mailbox::Post() of this worker, then or later.
  void Stop();

  Worker& worker() { return *worker_; }

 private:
  WorkerThread() = default;
  std::thread thread_;
  std::binary_semaphore stop_posted_{0};
  Worker* worker_ = nullptr;
};

}  // namespace dpa
