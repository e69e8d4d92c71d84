// Goal: buffers keep what was appended through growth, moves and reuse, and give their memory back.
// Method: plain calls, and random ones beside a std::string.

#include "core/byte_buffer.h"

#include <gtest/gtest.h>

#include <cstring>
#include <string>

#include "tests/sim/sim_random.h"

namespace dpa {
namespace {

TEST(ByteBufferTest, HoldsWhatAStringWouldHold) {
  BytePool pool;
  SimRandom random(1);
  {
    ByteBuffer buffer(pool);
    std::string model;
    for (int step = 0; step < 5000; ++step) {
      switch (random.Below(8)) {
        case 0: buffer.Clear(); model.clear(); break;
        case 1: buffer.Truncate(model.size() / 2); model.resize(model.size() / 2); break;
        case 2: buffer.Release(); model.clear(); break;
        case 3: {
          ByteBuffer other(std::move(buffer));
          EXPECT_TRUE(buffer.empty());
          buffer = std::move(other);
          break;
        }
        case 4: {
          const size_t bytes = random.Below(300);
          std::memset(buffer.Tail(bytes), 't', bytes);
          buffer.Grow(bytes);
          model.append(bytes, 't');
          break;
        }
        default: {
          const std::string bytes(random.Below(5000), static_cast<char>('a' + random.Below(26)));
          buffer.Append(bytes);
          model += bytes;
        }
      }
      ASSERT_EQ(buffer.view(), model);
    }
  }
  EXPECT_EQ(pool.blocks_out(), 0);
}

TEST(ByteBufferTest, AppendingByteByByteMovesOnlyALogarithmOfTimes) {
  BytePool pool;
  ByteBuffer buffer(pool);
  int moves = 0;
  const char* data = nullptr;
  for (int i = 0; i < 1 << 20; ++i) {
    buffer.Append("x");
    if (buffer.data() != data) ++moves;
    data = buffer.data();
  }
  EXPECT_LE(moves, 10);
}

TEST(BytePoolTest, KeepsFreedBlocksForReuseUpToItsLimit) {
  BytePool pool;
  size_t capacity = 0;
  char* const block = pool.Allocate(5000, capacity);
  EXPECT_EQ(capacity, 8192u);
  pool.Free(block, capacity);
  EXPECT_EQ(pool.retained_bytes(), 8192u);
  size_t again = 0;
  char* const reused = pool.Allocate(8192, again);
  EXPECT_EQ(reused, block);
  pool.Free(reused, again);
  // One beyond what may be retained goes back to the system at once, whatever its size.
  char* const huge = pool.Allocate(BytePool::kRetainedBytesMax + 1, capacity);
  pool.Free(huge, capacity);
  EXPECT_LE(pool.retained_bytes(), BytePool::kRetainedBytesMax);
  char* const none = pool.Allocate(0, capacity);
  EXPECT_GE(capacity, 1u);
  pool.Free(none, capacity);
  EXPECT_EQ(pool.blocks_out(), 0);
}

}  // namespace
}  // namespace dpa
