// BufferPool is one worker's shared receive memory: `count` buffers of equal size that the ring fills as bytes arrive.
//
// A connection owns no buffer while it is idle. A filled buffer is lent as a BufferLease and goes back to the ring when
// the lease ends; it is always in exactly one place:
//
//     with the ring --> lent --> with the ring
//
// Slow peers must not own the pool: bytes that are handed out while less than a quarter of it is free are copied to
// memory of their own (Detach), so a quarter always comes back by itself, whatever the holders of leases wait for.
// Memory is then bounded by what each connection may hold, no longer by the pool.
//
// When the pool runs dry all the same, receivers wait in a FIFO and are told when a quarter of it is free again:
// re-arming at once would spin, since an empty pool fails a receive immediately.
//
// Not thread safe: belongs to its worker, as do the leases.

#pragma once

#include <cstddef>
#include <cstdint>
#include <utility>

namespace dpa {

class BufferPool;

// One lent buffer; `data()..data()+size()` are the bytes received. Move-only; ends the loan when destroyed.
class BufferLease {
 public:
  BufferLease() = default;
  BufferLease(BufferPool& pool, uint16_t id, char* data, uint32_t size)
      : pool_(&pool), data_(data), size_(size), id_(id) {}
  BufferLease(BufferLease&& other) noexcept
      : pool_(std::exchange(other.pool_, nullptr)),
        data_(std::exchange(other.data_, nullptr)),
        size_(std::exchange(other.size_, 0)),
        id_(other.id_) {}
  BufferLease& operator=(BufferLease&& other) noexcept {
    if (this != &other) {
      Release();
      pool_ = std::exchange(other.pool_, nullptr);
      data_ = std::exchange(other.data_, nullptr);
      size_ = std::exchange(other.size_, 0);
      id_ = other.id_;
    }
    return *this;
  }
  ~BufferLease() { Release(); }

  char* data() const { return data_; }
  uint32_t size() const { return size_; }
  explicit operator bool() const { return pool_ != nullptr; }
  void Release();

 private:
  friend class BufferPool;
  BufferPool* pool_ = nullptr;
  char* data_ = nullptr;
  uint32_t size_ = 0;
  uint16_t id_ = 0;
};

struct BufferPoolOptions {
  uint32_t buffers_count = 512;  // A power of two, at most 32768. 512 x 16 KiB = 8 MiB per worker, touched lazily.
  uint32_t buffer_bytes =
      16 * 1024;  // A multiple of 8. One TLS record; smaller units double the cost of streaming bodies.
};

class BufferPool {
 public:
  // One that waits for buffers. Intrusive; OnBuffersAvailable may call WaitForBuffers again.
  class Waiter {
   public:
    virtual void OnBuffersAvailable() = 0;

   protected:
    ~Waiter() = default;

   private:
    friend class BufferPool;
    Waiter* next_ = nullptr;
    Waiter* previous_ = nullptr;
    bool waiting_ = false;
  };

  explicit BufferPool(const BufferPoolOptions& options);
  virtual ~BufferPool();  // REQUIRES: no lease is out.
  BufferPool(const BufferPool&) = delete;
  BufferPool& operator=(const BufferPool&) = delete;

  // Called by the ring: buffer `id` holds `size` received bytes. REQUIRES: `id` was with the ring.
  BufferLease Lend(uint16_t id, uint32_t size);
  // Moves the bytes of `lease` to memory of their own and gives the buffer back. The bytes' address changes.
  void Detach(BufferLease& lease);
  // Less than a quarter (and of the smallest pools, none) is free: what is handed out now is to be detached.
  bool is_scarce() const { return free_count() < enough_count(); }

  void WaitForBuffers(Waiter& waiter);
  void StopWaiting(Waiter& waiter);
  bool is_waiting(const Waiter& waiter) const { return waiter.waiting_; }
  // Tells waiters, oldest first, while a quarter of the pool is free. Called by the worker between two turns.
  void WakeWaiters();

  uint32_t buffers_count() const { return options_.buffers_count; }
  uint32_t buffer_bytes() const { return options_.buffer_bytes; }
  uint32_t lent_count() const { return lent_count_; }
  uint32_t detached_count() const { return detached_count_; }  // Leases alive that own their memory.
  uint32_t free_count() const { return options_.buffers_count - lent_count_; }
  uint64_t starved_count() const { return starved_count_; }
  char* memory() const { return memory_; }

 protected:
  // Gives buffer `id` back to the ring.
  virtual void Recycle(uint16_t id) = 0;

 private:
  friend class BufferLease;
  // At least one: waking for an empty pool would fail again at once, for ever.
  uint32_t enough_count() const { return options_.buffers_count < 4 ? 1 : options_.buffers_count / 4; }
  static constexpr uint16_t kDetachedId = UINT16_MAX;
  void Return(uint16_t id, char* data);

  const BufferPoolOptions options_;
  char* memory_ = nullptr;
  uint32_t lent_count_ = 0;
  uint32_t detached_count_ = 0;
  uint64_t starved_count_ = 0;
  Waiter* waiters_head_ = nullptr;
  Waiter* waiters_tail_ = nullptr;
};

inline void BufferLease::Release() {
  if (pool_ == nullptr) return;
  pool_->Return(id_, data_);
  pool_ = nullptr;
  data_ = nullptr;
  size_ = 0;
}

}  // namespace dpa
