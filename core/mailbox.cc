#include "core/mailbox.h"

#include <sys/eventfd.h>
#include <unistd.h>

#include <cstdint>
#include <utility>

#include "core/assert.h"

namespace dpa {

struct Mailbox::Node {
  Message message;
  Node* next;
};

Mailbox::Mailbox() : event_fd_(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) { DPA_ASSERT(event_fd_ >= 0); }

Mailbox::~Mailbox() {
  Node* node = head_.exchange(nullptr, std::memory_order_acquire);
  while (node != nullptr) delete std::exchange(node, node->next);
  close(event_fd_);
}

bool Mailbox::Post(Message message) {
  if (closed_.load(std::memory_order_acquire)) return false;
  Node* head = head_.load(std::memory_order_relaxed);
  Node* const node = new Node{std::move(message), head};
  while (!head_.compare_exchange_weak(head, node, std::memory_order_release, std::memory_order_relaxed))
    node->next = head;
  // From here on the node is the worker's, which may have run and freed it already: only `head` may be looked at.
  // Only who finds the list empty wakes, since the worker takes it whole.
  if (head == nullptr) Wake();
  return true;
}

void Mailbox::Wake() {
  const uint64_t one = 1;
  // A full counter (EAGAIN) is a wake-up that is pending already.
  [[maybe_unused]] const ssize_t written = write(event_fd_, &one, sizeof one);
}

void Mailbox::Close() { closed_.store(true, std::memory_order_release); }

size_t Mailbox::Deliver() {
  Node* taken = head_.exchange(nullptr, std::memory_order_acquire);
  Node* in_order = nullptr;
  while (taken != nullptr) {
    Node* next = taken->next;
    taken->next = in_order;
    in_order = taken;
    taken = next;
  }
  size_t count = 0;
  for (; in_order != nullptr; ++count) {
    Node* node = std::exchange(in_order, in_order->next);
    node->message();
    delete node;
  }
  return count;
}

}  // namespace dpa
