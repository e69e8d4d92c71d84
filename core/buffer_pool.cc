#include "core/buffer_pool.h"

#include <sys/mman.h>

#include <bit>
#include <cstdlib>
#include <cstring>

#include "core/assert.h"
#include "core/poison.h"

namespace dpa {

BufferPool::BufferPool(const BufferPoolOptions& options) : options_(options) {
  DPA_ASSERT(std::has_single_bit(options.buffers_count) && options.buffers_count <= 32768);
  DPA_ASSERT(options.buffer_bytes > 0 && options.buffer_bytes % 8 == 0);
  const size_t bytes = size_t{options.buffers_count} * options.buffer_bytes;
  void* memory = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  DPA_ASSERT(memory != MAP_FAILED);
  // Pages are touched lazily; huge pages would make the first few buffers cost 2 MiB each.
  madvise(memory, bytes, MADV_NOHUGEPAGE);
  memory_ = static_cast<char*>(memory);
  Poison(memory_, bytes);
}

BufferPool::~BufferPool() {
  DPA_ASSERT(lent_count_ == 0 && detached_count_ == 0);
  DPA_ASSERT(waiters_head_ == nullptr);
  const size_t bytes = size_t{options_.buffers_count} * options_.buffer_bytes;
  Unpoison(memory_, bytes);
  munmap(memory_, bytes);
}

BufferLease BufferPool::Lend(uint16_t id, uint32_t size) {
  DPA_ASSERT(id < options_.buffers_count && size <= options_.buffer_bytes);
  ++lent_count_;
  char* const data = memory_ + size_t{id} * options_.buffer_bytes;
  Unpoison(data, size);
  return BufferLease(*this, id, data, size);
}

void BufferPool::Detach(BufferLease& lease) {
  DPA_ASSERT(lease.pool_ == this);
  if (lease.id_ == kDetachedId || lease.size_ == 0) return;
  char* const copy = static_cast<char*>(std::malloc(lease.size_));
  DPA_ASSERT(copy != nullptr);
  std::memcpy(copy, lease.data_, lease.size_);
  const uint32_t size = lease.size_;
  lease.Release();
  lease = BufferLease(*this, kDetachedId, copy, size);
  ++detached_count_;
}

void BufferPool::Return(uint16_t id, char* data) {
  if (id == kDetachedId) {
    DPA_ASSERT(detached_count_ > 0);
    --detached_count_;
    return std::free(data);
  }
  DPA_ASSERT(lent_count_ > 0);
  --lent_count_;
  Poison(data, options_.buffer_bytes);
  Recycle(id);
}

void BufferPool::WaitForBuffers(Waiter& waiter) {
  DPA_ASSERT(!waiter.waiting_);
  ++starved_count_;
  waiter.waiting_ = true;
  waiter.next_ = nullptr;
  waiter.previous_ = waiters_tail_;
  (waiters_tail_ == nullptr ? waiters_head_ : waiters_tail_->next_) = &waiter;
  waiters_tail_ = &waiter;
}

void BufferPool::StopWaiting(Waiter& waiter) {
  if (!waiter.waiting_) return;
  waiter.waiting_ = false;
  (waiter.previous_ == nullptr ? waiters_head_ : waiter.previous_->next_) = waiter.next_;
  (waiter.next_ == nullptr ? waiters_tail_ : waiter.next_->previous_) = waiter.previous_;
}

void BufferPool::WakeWaiters() {
  // Each waiter re-arms at most one receive; the last one ends the round, so that those who wait again do not spin.
  Waiter* const last = waiters_tail_;
  while (waiters_head_ != nullptr && !is_scarce()) {
    Waiter& waiter = *waiters_head_;
    StopWaiting(waiter);
    waiter.OnBuffersAvailable();
    if (&waiter == last) return;
  }
}

}  // namespace dpa
