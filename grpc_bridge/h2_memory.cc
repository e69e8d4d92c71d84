#include "grpc_bridge/h2_memory.h"

#include <algorithm>
#include <bit>
#include <cstdlib>
#include <cstring>
#include <utility>

#include "core/assert.h"

namespace dpa {

H2Memory::~H2Memory() {
  DPA_ASSERT(blocks_out_ == 0);
  for (Header* head : free_) {
    while (head != nullptr) std::free(std::exchange(head, head->next));
  }
}

void* H2Memory::Allocate(size_t bytes) {
  const size_t whole_bytes = bytes + sizeof(Header);
  const int bits = bytes > kBlockBytesMax ? 0 : std::max(kBitsMin, static_cast<int>(std::bit_width(whole_bytes - 1)));
  Header* header = bits == 0 ? nullptr : free_[bits];
  if (header != nullptr) {
    free_[bits] = header->next;
    retained_bytes_ -= size_t{1} << bits;
  } else {
    header = static_cast<Header*>(std::malloc(bits == 0 ? whole_bytes : size_t{1} << bits));
    if (header == nullptr) return nullptr;
  }
  header->bits = static_cast<uint64_t>(bits);
  header->bytes = bytes;
  ++blocks_out_;
  return header + 1;
}

void H2Memory::Free(void* block) {
  if (block == nullptr) return;
  --blocks_out_;
  Header* header = static_cast<Header*>(block) - 1;
  const size_t class_bytes = size_t{1} << header->bits;
  if (header->bits == 0 || retained_bytes_ + class_bytes > kRetainedBytesMax) return std::free(header);
  header->next = free_[header->bits];
  free_[header->bits] = header;
  retained_bytes_ += class_bytes;
}

void* H2Memory::Reallocate(void* block, size_t bytes) {
  if (block == nullptr) return Allocate(bytes);
  const Header* header = static_cast<Header*>(block) - 1;
  void* larger = Allocate(bytes);
  if (larger == nullptr) return nullptr;
  std::memcpy(larger, block, std::min<size_t>(bytes, header->bytes));
  Free(block);
  return larger;
}

nghttp2_mem H2Memory::Callbacks() {
  nghttp2_mem memory{};
  memory.mem_user_data = this;
  memory.malloc = [](size_t bytes, void* self) { return static_cast<H2Memory*>(self)->Allocate(bytes); };
  memory.free = [](void* block, void* self) { static_cast<H2Memory*>(self)->Free(block); };
  memory.calloc = [](size_t count, size_t bytes, void* self) -> void* {
    if (bytes != 0 && count > SIZE_MAX / bytes) return nullptr;
    void* block = static_cast<H2Memory*>(self)->Allocate(count * bytes);
    if (block != nullptr) std::memset(block, 0, count * bytes);
    return block;
  };
  memory.realloc = [](void* block, size_t bytes, void* self) {
    return static_cast<H2Memory*>(self)->Reallocate(block, bytes);
  };
  return memory;
}

}  // namespace dpa
