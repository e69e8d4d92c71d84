// ByteBuffer is a growable, contiguous run of bytes out of a worker's BytePool: assembled heads, request bodies that
// must be whole, gRPC messages, queued output. Its memory goes back to the pool's free lists, so steady state allocates
// nothing.
//
// Not thread safe: pool and buffers belong to one worker.

#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string_view>
#include <utility>
#include <vector>

#include "core/assert.h"

namespace dpa {

// Free lists of memory blocks, one per power of two from 4 KiB to 64 MiB; larger ones are not kept.
class BytePool {
 public:
  // Bytes that the free lists keep at the most: enough for a worker's usual bursts, little beside the receive buffers.
  static constexpr size_t kRetainedBytesMax = 32u << 20;
  static constexpr int kBlockBitsMin = 12;
  static constexpr int kBlockBitsMax = 26;

  BytePool() = default;
  ~BytePool();  // REQUIRES: every buffer has been released.
  BytePool(const BytePool&) = delete;
  BytePool& operator=(const BytePool&) = delete;

  // A block of at least `bytes`; its real size is stored to `capacity`.
  char* Allocate(size_t bytes, size_t& capacity);
  void Free(char* block, size_t capacity);

  size_t retained_bytes() const { return retained_bytes_; }
  int64_t blocks_out() const { return blocks_out_; }

 private:
  std::array<std::vector<char*>, kBlockBitsMax + 1> free_;
  size_t retained_bytes_ = 0;
  int64_t blocks_out_ = 0;
};

class ByteBuffer {
 public:
  explicit ByteBuffer(BytePool& pool) : pool_(&pool) {}
  ByteBuffer(ByteBuffer&& other) noexcept
      : pool_(other.pool_),
        data_(std::exchange(other.data_, nullptr)),
        size_(std::exchange(other.size_, 0)),
        capacity_(std::exchange(other.capacity_, 0)) {}
  ByteBuffer& operator=(ByteBuffer&& other) noexcept;
  ~ByteBuffer() { Release(); }

  char* data() { return data_; }
  const char* data() const { return data_; }
  size_t size() const { return size_; }
  size_t capacity() const { return capacity_; }
  bool empty() const { return size_ == 0; }
  std::string_view view() const { return {data_, size_}; }

  // Makes room for `bytes` in all; contents are kept, views into the buffer are not.
  void Reserve(size_t bytes);
  void Append(std::string_view bytes);
  // Room for `bytes` more at the end, to be written and then counted by Grow().
  char* Tail(size_t bytes) {
    Reserve(size_ + bytes);
    return data_ + size_;
  }
  void Grow(size_t bytes) {
    DPA_ASSERT(size_ + bytes <= capacity_);
    size_ += bytes;
  }
  // Drops bytes at the end.
  void Truncate(size_t size) {
    DPA_ASSERT(size <= size_);
    size_ = size;
  }
  void Clear() { size_ = 0; }  // Keeps the memory.
  void Release();              // Gives the memory back.

 private:
  BytePool* pool_;
  char* data_ = nullptr;
  size_t size_ = 0;
  size_t capacity_ = 0;
};

}  // namespace dpa
