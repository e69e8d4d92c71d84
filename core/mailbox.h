// Mailbox takes messages for one worker from any thread: the one way in, besides Snapshot. Delivery is in order of
// posting per sender, between two turns of the worker's loop.
//
// A lock-free list that posters push to and the worker takes whole; the poster that finds it empty writes the eventfd
// that the worker's ring polls, so a burst costs one wake-up.

#pragma once

#include <atomic>
#include <cstddef>
#include <functional>

namespace dpa {

class Mailbox {
 public:
  using Message = std::move_only_function<void()>;

  Mailbox();
  ~Mailbox();  // Messages not delivered are dropped.
  Mailbox(const Mailbox&) = delete;
  Mailbox& operator=(const Mailbox&) = delete;

  // Any thread. `message` runs on the worker's thread. Returns false, and drops it, once the mailbox is closed.
  // REQUIRES: the mailbox outlives the call, also when `message` is what ends the worker.
  bool Post(Message message);
  // Any thread: makes the worker take a turn, with no message.
  void Wake();
  // Worker's thread: later posts are refused.
  void Close();

  // Worker's thread: runs what has been posted. Returns the count of messages run.
  size_t Deliver();
  int event_fd() const { return event_fd_; }

 private:
  struct Node;
  std::atomic<Node*> head_{nullptr};
  std::atomic<bool> closed_{false};
  int event_fd_;
};

}  // namespace dpa
