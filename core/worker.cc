#include "core/worker.h"

#include <poll.h>
#include <unistd.h>

#include <algorithm>
#include <utility>

namespace dpa {
namespace {

// Batches of the ready list and of hooks in one turn. A task that always has something to do (a sender whose peer reads
// as fast) must not keep the ring from its other connections; what is left runs in the next turn, which does not sleep.
constexpr int kBatchesPerTurnMax = 64;

struct SleepEntry : TimerWheel::Entry {
  explicit SleepEntry(Worker& w) : worker(w) {}
  void OnExpire() override { worker.Schedule(handle); }
  Worker& worker;
  std::coroutine_handle<> handle;
};

struct SleepAwaiter {
  SleepEntry& entry;
  uint64_t expires_ms;
  bool await_ready() const { return false; }
  void await_suspend(std::coroutine_handle<> handle) {
    entry.handle = handle;
    entry.worker.timers().Arm(entry, expires_ms);
  }
  void await_resume() const {}
};

}  // namespace

TurnHook::~TurnHook() { DPA_ASSERT(!queued_); }

Worker::Worker(Ring& ring, uint32_t index)
    : ring_(ring),
      index_(index),
      now_ns_(ring.NowNs()),
      timers_(now_ns_ / 1'000'000),
      mailbox_poll_(*this),
      tasks_(*this) {
  ArmMailbox();
}

Worker::~Worker() {
  DPA_ASSERT(tasks_.running_count() == 0);
  DPA_ASSERT(hooks_head_ == nullptr);
  mailbox_.Close();
  stopping_ = true;
  ring_.Cancel(mailbox_poll_);
  while (mailbox_poll_.in_flight()) ring_.Turn(ring_.NowNs() + 100'000'000);
  DPA_ASSERT(ready_.empty());
}

void Worker::Run() {
  while (!stopping_) RunTurn(true);
}

void Worker::RunTurn(bool wait) {
  ++turns_count_;
  uint64_t deadline_ns = 0;
  if (wait && ready_.empty() && hooks_head_ == nullptr) {
    const uint64_t expiry_ms = timers_.next_expiry_ms();
    deadline_ns = expiry_ms == TimerWheel::kNever ? UINT64_MAX : expiry_ms * 1'000'000;
  }
  ring_.Wait(deadline_ns);

  // Before the completions: a deadline that one of them arms counts from now, and a request that was sent after a
  // snapshot had been published is matched on that snapshot. Timers fire after them: what came in time is in time.
  now_ns_ = ring_.NowNs();
  timers_.SetClock(now_ms());
  for (size_t i = 0; i < observers_.size(); ++i) observers_[i]->OnTurn();
  ring_.Dispatch();
  timers_.Advance(now_ms());
  mailbox_.Deliver();
  ring_.buffers().WakeWaiters();
  for (int batch = 0; batch < kBatchesPerTurnMax; ++batch) {
    if (!ready_.empty()) {
      RunReady();
    } else if (hooks_head_ != nullptr) {
      RunHooks();
    } else {
      return;
    }
  }
}

void Worker::RunReady() {
  running_.swap(ready_);
  for (const std::coroutine_handle<> handle : running_) handle.resume();
  running_.clear();
}

void Worker::RunHooks() {
  TurnHook* hook = std::exchange(hooks_head_, nullptr);
  hooks_tail_ = nullptr;
  while (hook != nullptr) {
    TurnHook* next = std::exchange(hook->next_, nullptr);
    hook->queued_ = false;
    hook->OnEndOfTurn();
    hook = next;
  }
}

void Worker::AtEndOfTurn(TurnHook& hook) {
  if (hook.queued_) return;
  hook.queued_ = true;
  (hooks_tail_ == nullptr ? hooks_head_ : hooks_tail_->next_) = &hook;
  hooks_tail_ = &hook;
}

void Worker::RemoveTurnObserver(TurnObserver& observer) {
  observers_.erase(std::remove(observers_.begin(), observers_.end(), &observer), observers_.end());
}

void Worker::ArmMailbox() { ring_.Poll(mailbox_poll_, mailbox_.event_fd(), POLLIN); }

void Worker::OnMailboxPoll(Completion& completion, int32_t, bool more, BufferLease) {
  Worker& worker = static_cast<MailboxPoll&>(completion).worker;
  uint64_t count = 0;
  [[maybe_unused]] const ssize_t got = read(worker.mailbox_.event_fd(), &count, sizeof count);
  // Delivery itself happens once per turn, after the completions.
  if (!more && !worker.stopping_) worker.ArmMailbox();
}

Task<void> Worker::Sleep(uint64_t milliseconds) {
  SleepEntry entry(*this);
  SleepAwaiter wait{entry, timers_.now_ms() + milliseconds};
  co_await wait;
}

}  // namespace dpa
