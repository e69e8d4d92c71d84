// H2Memory is where nghttp2's own records (streams, frames, header table entries) of one worker come from: free lists
// per size, so that a call in the steady state goes to no allocator. A block is always in exactly one place:
//
//     heap --> lent to nghttp2 <--> free list --> heap (when this object ends)
//
// Not thread safe: belongs to its worker. It outlives every session that was given it.

#pragma once

#include <nghttp2/nghttp2.h>

#include <array>
#include <cstddef>
#include <cstdint>

namespace dpa {

class H2Memory {
 public:
  // Larger blocks (big header blocks) go straight to the heap.
  static constexpr size_t kBlockBytesMax = 4096;
  // Of all free lists together: about a thousand streams with their frames.
  static constexpr size_t kRetainedBytesMax = 4u << 20;

  H2Memory() = default;
  ~H2Memory();  // REQUIRES: every block has been freed.
  H2Memory(const H2Memory&) = delete;
  H2Memory& operator=(const H2Memory&) = delete;

  void* Allocate(size_t bytes);
  void Free(void* block);
  void* Reallocate(void* block, size_t bytes);
  // For nghttp2_session_client_new3; refers to this object.
  nghttp2_mem Callbacks();

  int64_t blocks_out() const { return blocks_out_; }
  size_t retained_bytes() const { return retained_bytes_; }

 private:
  static constexpr int kBitsMin = 5;
  static constexpr int kBitsMax = 13;  // With its header, a block of kBlockBytesMax fits.

  // In front of every block: its size class, or 0 for one from the heap, and the bytes asked for.
  struct alignas(16) Header {
    union {
      Header* next;  // While on a free list.
      uint64_t bytes;
    };
    uint64_t bits;
  };

  std::array<Header*, kBitsMax + 1> free_{};
  int64_t blocks_out_ = 0;
  size_t retained_bytes_ = 0;
};

}  // namespace dpa
