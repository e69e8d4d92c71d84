#include "core/worker_thread.h"

#include <pthread.h>
#include <sched.h>

#include <cstring>
#include <future>

#include "core/log.h"

namespace dpa {
namespace {

void PinTo(int cpu) {
  cpu_set_t set;
  CPU_ZERO(&set);
  CPU_SET(cpu, &set);
  const int failed = pthread_setaffinity_np(pthread_self(), sizeof set, &set);
  if (failed != 0) LogWarn("cpu_pin_failed", "cpu={} error={}", cpu, Quoted(std::strerror(failed)));
}

}  // namespace

std::expected<std::unique_ptr<WorkerThread>, std::string> WorkerThread::Start(const WorkerThreadOptions& options) {
  std::unique_ptr<WorkerThread> self(new WorkerThread);
  std::promise<std::expected<Worker*, std::string>> ready;
  std::future<std::expected<Worker*, std::string>> made = ready.get_future();
  self->thread_ = std::thread([&ready, options, raw = self.get()] {
    pthread_setname_np(pthread_self(), options.name.substr(0, 15).c_str());
    if (options.cpu) PinTo(*options.cpu);
    std::expected<std::unique_ptr<UringRing>, std::string> ring = UringRing::Create(options.ring);
    if (!ring) return ready.set_value(std::unexpected(ring.error()));
    Worker worker(**ring, options.index);
    ready.set_value(&worker);
    worker.Run();
    // The one that posted the end still touches the mailbox until Post() returns: the worker must not be gone before.
    raw->stop_posted_.acquire();
  });
  const std::expected<Worker*, std::string> worker = made.get();
  if (!worker) {
    self->thread_.join();
    return std::unexpected(worker.error());
  }
  self->worker_ = *worker;
  return self;
}

WorkerThread::~WorkerThread() {
  if (thread_.joinable()) Stop();
}

bool WorkerThread::Post(std::move_only_function<void(Worker&)> function) {
  DPA_ASSERT(worker_ != nullptr);
  Worker* worker = worker_;
  return worker->mailbox().Post([worker, function = std::move(function)]() mutable { function(*worker); });
}

bool WorkerThread::Run(std::move_only_function<void(Worker&)> function) {
  // The message owns the promise: dropped unrun, it breaks the promise and ends the wait.
  std::promise<bool> done;
  std::future<bool> ran = done.get_future();
  Post([done = std::move(done), &function](Worker& worker) mutable {
    function(worker);
    done.set_value(true);
  });
  try {
    return ran.get();
  } catch (const std::future_error&) {
    return false;
  }
}

void WorkerThread::Stop() {
  Post([](Worker& worker) { worker.Stop(); });
  stop_posted_.release();
  thread_.join();
  worker_ = nullptr;
}

}  // namespace dpa
