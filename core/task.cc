#include "core/task.h"

#include <array>
#include <cstdlib>
#include <exception>
#include <new>

#include "core/log.h"
#include "core/worker.h"

#if defined(__SANITIZE_ADDRESS__)
#define DPA_FRAMES_PLAIN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define DPA_FRAMES_PLAIN 1
#endif
#endif

namespace dpa {
namespace {

// Frames of an exchange are a few hundred bytes; classes of 64 bytes up to 4 KiB, larger ones come from the allocator.
constexpr size_t kClassBytes = 64;
constexpr size_t kClassesCount = 64;

struct FreeFrame {
  FreeFrame* next;
};

struct FrameLists {
  std::array<FreeFrame*, kClassesCount + 1> heads{};
  int64_t alive_count = 0;

  ~FrameLists() {
    for (FreeFrame* head : heads) {
      while (head != nullptr) ::operator delete(std::exchange(head, head->next));
    }
  }
};

thread_local FrameLists t_frames;

[[maybe_unused]] size_t ClassOf(size_t bytes) { return (bytes + kClassBytes - 1) / kClassBytes; }

}  // namespace

void* FramePool::Allocate(size_t bytes) {
  ++t_frames.alive_count;
#ifndef DPA_FRAMES_PLAIN
  const size_t index = ClassOf(bytes);
  if (index <= kClassesCount) {
    if (FreeFrame* frame = t_frames.heads[index]) {
      t_frames.heads[index] = frame->next;
      return frame;
    }
    return ::operator new(index * kClassBytes);
  }
#endif
  return ::operator new(bytes);
}

void FramePool::Free(void* frame, size_t bytes) {
  --t_frames.alive_count;
#ifndef DPA_FRAMES_PLAIN
  const size_t index = ClassOf(bytes);
  if (index <= kClassesCount) {
    t_frames.heads[index] = new (frame) FreeFrame{t_frames.heads[index]};
    return;
  }
#else
  static_cast<void>(bytes);  // Under AddressSanitizer a freed frame must look freed.
#endif
  ::operator delete(frame);
}

int64_t FramePool::alive_count() { return t_frames.alive_count; }

namespace internal {

void UnhandledException() {
  try {
    throw;
  } catch (const std::exception& exception) {
    LogError("coroutine_exception", "what={}", Quoted(exception.what()));
  } catch (...) {
    LogError("coroutine_exception", "what=unknown");
  }
  StopLog();
  std::abort();
}

}  // namespace internal

struct TaskScope::Detached {
  struct promise_type {
    static void* operator new(size_t bytes) { return FramePool::Allocate(bytes); }
    static void operator delete(void* frame, size_t bytes) { FramePool::Free(frame, bytes); }
    Detached get_return_object() { return {}; }
    std::suspend_never initial_suspend() noexcept { return {}; }
    std::suspend_never final_suspend() noexcept { return {}; }
    void return_void() {}
    void unhandled_exception() { internal::UnhandledException(); }
  };
};

TaskScope::Detached TaskScope::Run(TaskScope& scope, Task<void> task) {
  co_await task;
  scope.OnTaskDone();
}

void TaskScope::Spawn(Task<void> task) {
  ++running_count_;
  Run(*this, std::move(task));
}

void TaskScope::OnTaskDone() {
  DPA_ASSERT(running_count_ > 0);
  if (--running_count_ == 0 && joiner_) worker_.Schedule(std::exchange(joiner_, nullptr));
}

void Signal::Notify() {
  if (notified_) return;
  notified_ = true;
  if (waiter_) worker_.Schedule(std::exchange(waiter_, nullptr));
}

}  // namespace dpa
