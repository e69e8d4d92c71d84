#include "core/byte_buffer.h"

#include <algorithm>
#include <bit>
#include <cstdlib>
#include <cstring>
#include <utility>

#include "core/poison.h"

namespace dpa {

BytePool::~BytePool() {
  DPA_ASSERT(blocks_out_ == 0);
  for (auto& list : free_) {
    for (char* block : list) std::free(block);
  }
}

char* BytePool::Allocate(size_t bytes, size_t& capacity) {
  const int bits = std::max(kBlockBitsMin, static_cast<int>(std::bit_width(std::max(bytes, size_t{1}) - 1)));
  capacity = size_t{1} << bits;
  ++blocks_out_;
  if (bits <= kBlockBitsMax && !free_[bits].empty()) {
    char* block = free_[bits].back();
    free_[bits].pop_back();
    retained_bytes_ -= capacity;
    Unpoison(block, capacity);
    return block;
  }
  char* block = static_cast<char*>(std::malloc(capacity));
  DPA_ASSERT(block != nullptr);
  return block;
}

void BytePool::Free(char* block, size_t capacity) {
  --blocks_out_;
  const int bits = std::countr_zero(capacity);
  if (bits > kBlockBitsMax || retained_bytes_ + capacity > kRetainedBytesMax) return std::free(block);
  Poison(block, capacity);
  free_[bits].push_back(block);
  retained_bytes_ += capacity;
}

ByteBuffer& ByteBuffer::operator=(ByteBuffer&& other) noexcept {
  if (this != &other) {
    Release();
    pool_ = other.pool_;
    data_ = std::exchange(other.data_, nullptr);
    size_ = std::exchange(other.size_, 0);
    capacity_ = std::exchange(other.capacity_, 0);
  }
  return *this;
}

void ByteBuffer::Reserve(size_t bytes) {
  if (bytes <= capacity_) return;
  size_t capacity = 0;
  char* data = pool_->Allocate(bytes, capacity);
  if (size_ != 0) std::memcpy(data, data_, size_);
  const size_t size = size_;
  Release();
  data_ = data;
  size_ = size;
  capacity_ = capacity;
}

void ByteBuffer::Append(std::string_view bytes) {
  if (bytes.empty()) return;
  std::memcpy(Tail(bytes.size()), bytes.data(), bytes.size());
  size_ += bytes.size();
}

void ByteBuffer::Release() {
  if (data_ != nullptr) pool_->Free(data_, capacity_);
  data_ = nullptr;
  size_ = 0;
  capacity_ = 0;
}

}  // namespace dpa
