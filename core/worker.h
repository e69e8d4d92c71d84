// Worker is one thread's world: its Ring, timers, memory, mailbox and tasks. Everything here is touched by that thread
// only, save the mailbox.
//
// One turn of its loop:
//
//     ring: submit, wait for a completion or the next deadline
//     clock read · turn observers (adopt snapshots)
//     completions called
//     timers due · mailbox · receivers that waited for buffers
//     ready list, until empty
//     end-of-turn hooks (sends gathered and flushed), which may make more ready: then again the ready list, within a
//     limit
//
// The worker's thread makes the Ring first and the Worker on it (core/worker_thread.h); tests make both in place.

#pragma once

#include <coroutine>
#include <cstdint>
#include <vector>

#include "core/byte_buffer.h"
#include "core/mailbox.h"
#include "core/ring.h"
#include "core/task.h"
#include "core/timer_wheel.h"

namespace dpa {

// Something to do once at the end of this turn. Intrusive; queued at most once; called after being taken off the queue.
class TurnHook {
 public:
  virtual void OnEndOfTurn() = 0;

 protected:
  ~TurnHook();  // Asserts that it is not queued.

 private:
  friend class Worker;
  TurnHook* next_ = nullptr;
  bool queued_ = false;
};

// Told once per turn, when the ring has woken and before anything of that turn runs: the place to adopt snapshots.
class TurnObserver {
 public:
  virtual void OnTurn() = 0;

 protected:
  ~TurnObserver() = default;
};

class Worker {
 public:
  // `ring` outlives the worker. `index` is this worker's number, from 0.
  Worker(Ring& ring, uint32_t index);
  ~Worker();  // REQUIRES: every task is done, nothing is in flight.
  Worker(const Worker&) = delete;
  Worker& operator=(const Worker&) = delete;

  // Takes turns until Stop(). REQUIRES: called on the ring's thread.
  void Run();
  // Run() returns when this turn is done. Worker's thread; from elsewhere post it to the mailbox.
  void Stop() { stopping_ = true; }
  // One turn; waits for events only if `wait` and nothing is ready. For tests and Run().
  void RunTurn(bool wait);

  // Resumes `handle` later in this turn, from the loop: stack depth stays the depth of calls.
  void Schedule(std::coroutine_handle<> handle) { ready_.push_back(handle); }
  void AtEndOfTurn(TurnHook& hook);
  void AddTurnObserver(TurnObserver& observer) { observers_.push_back(&observer); }
  void RemoveTurnObserver(TurnObserver& observer);

  Ring& ring() { return ring_; }
  TimerWheel& timers() { return timers_; }
  BytePool& bytes() { return bytes_; }
  Mailbox& mailbox() { return mailbox_; }
  // For tasks that belong to nobody smaller: connections, watchers.
  TaskScope& tasks() { return tasks_; }
  uint32_t index() const { return index_; }

  // The clock, read once per turn (monotonic).
  uint64_t now_ms() const { return now_ns_ / 1'000'000; }
  uint64_t now_ns() const { return now_ns_; }
  // The clock, read now. For measurements.
  uint64_t ReadClockNs() { return ring_.NowNs(); }

  uint64_t turns_count() const { return turns_count_; }

  // Suspends the caller for `milliseconds`.
  Task<void> Sleep(uint64_t milliseconds);

 private:
  static void OnMailboxPoll(Completion& completion, int32_t value, bool more, BufferLease buffer);
  void ArmMailbox();
  void RunReady();
  void RunHooks();

  struct MailboxPoll : Completion {
    explicit MailboxPoll(Worker& w) : Completion(&Worker::OnMailboxPoll), worker(w) {}
    Worker& worker;
  };

  Ring& ring_;
  const uint32_t index_;
  uint64_t now_ns_;
  TimerWheel timers_;
  BytePool bytes_;
  Mailbox mailbox_;
  MailboxPoll mailbox_poll_;
  std::vector<std::coroutine_handle<>> ready_;
  std::vector<std::coroutine_handle<>> running_;
  std::vector<TurnObserver*> observers_;
  TurnHook* hooks_head_ = nullptr;
  TurnHook* hooks_tail_ = nullptr;
  bool stopping_ = false;
  uint64_t turns_count_ = 0;
  TaskScope tasks_;
};

}  // namespace dpa
