// Task<T> is a coroutine that somebody waits for; TaskScope is the somebody for those that run on their own.
//
// Join, never destroy: a Task is awaited or given to a TaskScope, and both assert at their end that the coroutine is
// done. To end one early, cancel what it waits for (Socket::Cancel, Deadline) and let it return through its error path.
//
// A Task runs its child inline: awaiting resumes the child at once and only suspends if the child did. No tail calls
// are needed, so stack depth is the depth of calls with every compiler and sanitizer, and a child that does not wait
// costs no suspension.
//
// Frames come from a free list per thread; steady state allocates nothing. A frame ends on the thread that began it.

#pragma once

#include <coroutine>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <utility>

#include "core/assert.h"

namespace dpa {

class Worker;

// Free lists of coroutine frames, one set per thread.
class FramePool {
 public:
  static void* Allocate(size_t bytes);
  static void Free(void* frame, size_t bytes);
  // Frames of this thread that are alive. 0 when every coroutine has been joined.
  static int64_t alive_count();
};

namespace internal {

[[noreturn]] void UnhandledException();

struct PromiseBase {
  static void* operator new(size_t bytes) { return FramePool::Allocate(bytes); }
  static void operator delete(void* frame, size_t bytes) { FramePool::Free(frame, bytes); }

  struct FinalAwaiter {
    bool await_ready() noexcept { return false; }
    template <class Promise>
    void await_suspend(std::coroutine_handle<Promise> handle) noexcept {
      if (const std::coroutine_handle<> next = handle.promise().continuation) next.resume();
    }
    void await_resume() noexcept {}
  };

  std::suspend_always initial_suspend() noexcept { return {}; }
  FinalAwaiter final_suspend() noexcept { return {}; }
  void unhandled_exception() { UnhandledException(); }

  std::coroutine_handle<> continuation;
};

template <class T>
struct Promise : PromiseBase {
  std::coroutine_handle<Promise> get_return_object() { return std::coroutine_handle<Promise>::from_promise(*this); }
  template <class U>
  void return_value(U&& value) {
    result.emplace(std::forward<U>(value));
  }
  T Take() { return std::move(*result); }
  std::optional<T> result;
};

template <>
struct Promise<void> : PromiseBase {
  std::coroutine_handle<Promise> get_return_object() { return std::coroutine_handle<Promise>::from_promise(*this); }
  void return_void() {}
  void Take() {}
};

}  // namespace internal

template <class T = void>
class [[nodiscard]] Task {
 public:
  using promise_type = internal::Promise<T>;

  Task(std::coroutine_handle<promise_type> handle) : handle_(handle) {}  // NOLINT: made by the compiler.
  Task(Task&& other) noexcept : handle_(std::exchange(other.handle_, nullptr)) {}
  Task& operator=(Task&&) = delete;
  ~Task() {
    if (!handle_) return;
    DPA_ASSERT(handle_.done());
    handle_.destroy();
  }

  bool await_ready() noexcept { return false; }
  bool await_suspend(std::coroutine_handle<> awaiting) {
    handle_.resume();
    if (handle_.done()) return false;
    handle_.promise().continuation = awaiting;
    return true;
  }
  T await_resume() { return handle_.promise().Take(); }

 private:
  std::coroutine_handle<promise_type> handle_;
};

// Runs Tasks that nobody awaits one by one, and lets one coroutine wait for all of them.
class TaskScope {
 public:
  explicit TaskScope(Worker& worker) : worker_(worker) {}
  ~TaskScope() { DPA_ASSERT(running_count_ == 0 && !joiner_); }
  TaskScope(const TaskScope&) = delete;
  TaskScope& operator=(const TaskScope&) = delete;

  // Starts `task` now, up to its first wait. The arguments of the coroutine must live until it is done.
  void Spawn(Task<void> task);

  // Completes once the last running task is done. One joiner at a time. A task spawned between that and the joiner's
  // turn is not waited for: whoever allows that joins again while running_count() != 0.
  struct JoinAwaiter {
    TaskScope& scope;
    bool await_ready() const { return scope.running_count_ == 0; }
    void await_suspend(std::coroutine_handle<> handle) {
      DPA_ASSERT(!scope.joiner_);
      scope.joiner_ = handle;
    }
    void await_resume() const {}
  };
  JoinAwaiter Join() { return JoinAwaiter{*this}; }

  uint32_t running_count() const { return running_count_; }

 private:
  struct Detached;
  static Detached Run(TaskScope& scope, Task<void> task);
  void OnTaskDone();

  Worker& worker_;
  std::coroutine_handle<> joiner_;
  uint32_t running_count_ = 0;
};

// A wake-up for one waiting coroutine, sent by another. Notify before Wait is not lost; several count as one.
class Signal {
 public:
  explicit Signal(Worker& worker) : worker_(worker) {}
  ~Signal() { DPA_ASSERT(!waiter_); }
  Signal(const Signal&) = delete;
  Signal& operator=(const Signal&) = delete;

  // Wakes the waiter by the worker's ready list, never from inside this call.
  void Notify();

  struct WaitAwaiter {
    Signal& signal;
    bool await_ready() const { return signal.notified_; }
    void await_suspend(std::coroutine_handle<> handle) {
      DPA_ASSERT(!signal.waiter_);
      signal.waiter_ = handle;
    }
    void await_resume() const { signal.notified_ = false; }
  };
  WaitAwaiter Wait() { return WaitAwaiter{*this}; }

 private:
  Worker& worker_;
  std::coroutine_handle<> waiter_;
  bool notified_ = false;
};

}  // namespace dpa
