// Goal: a buffer is with the ring or lent, never both; waiters are told in order and only when it is worth it; slow
// holders cannot keep the pool.
// Method: a pool over a plain list of free buffers.

#include "core/buffer_pool.h"

#include <gtest/gtest.h>

#include <cstring>
#include <string_view>
#include <vector>

namespace dpa {
namespace {

class ListPool final : public BufferPool {
 public:
  explicit ListPool(uint32_t count) : BufferPool({.buffers_count = count, .buffer_bytes = 64}) {
    for (uint32_t id = 0; id < count; ++id) free.push_back(static_cast<uint16_t>(id));
  }
  BufferLease Take(std::string_view bytes) {
    const uint16_t id = free.back();
    free.pop_back();
    BufferLease lease = Lend(id, static_cast<uint32_t>(bytes.size()));
    std::memcpy(lease.data(), bytes.data(), bytes.size());
    return lease;
  }
  std::vector<uint16_t> free;

 private:
  void Recycle(uint16_t id) override { free.push_back(id); }
};

struct Waiter final : BufferPool::Waiter {
  Waiter(std::vector<int>& o, int n) : order(o), number(n) {}
  void OnBuffersAvailable() override {
    order.push_back(number);
    if (again != nullptr) again->WaitForBuffers(*this);
  }
  std::vector<int>& order;
  const int number;
  BufferPool* again = nullptr;
};

TEST(BufferPoolTest, ALeaseEndsOnceHoweverItIsMoved) {
  ListPool pool(4);
  {
    BufferLease a = pool.Take("aa");
    BufferLease b = std::move(a);
    EXPECT_FALSE(a);
    a = pool.Take("bb");
    b = std::move(a);
    EXPECT_EQ(pool.lent_count(), 1u);
    EXPECT_EQ(std::string_view(b.data(), b.size()), "bb");
    b.Release();
    b.Release();
    EXPECT_FALSE(b);
  }
  EXPECT_EQ(pool.lent_count(), 0u);
  EXPECT_EQ(pool.free.size(), 4u);
}

TEST(BufferPoolTest, WaitersAreToldInOrderOnceAQuarterIsFree) {
  ListPool pool(8);
  std::vector<BufferLease> leases;
  for (int i = 0; i < 8; ++i) leases.push_back(pool.Take("x"));
  std::vector<int> order;
  Waiter first(order, 1), second(order, 2), third(order, 3);
  pool.WaitForBuffers(first);
  pool.WaitForBuffers(second);
  pool.WaitForBuffers(third);
  leases.pop_back();
  pool.WakeWaiters();
  EXPECT_TRUE(order.empty()) << "one of eight is not worth it";
  leases.pop_back();
  pool.StopWaiting(second);
  pool.StopWaiting(second);
  pool.WakeWaiters();
  EXPECT_EQ(order, (std::vector<int>{1, 3}));
  EXPECT_FALSE(pool.is_waiting(third));
  EXPECT_EQ(pool.starved_count(), 3u);
}

TEST(BufferPoolTest, OneThatWaitsAgainAtOnceDoesNotMakeTheRoundEndless) {
  ListPool pool(8);
  std::vector<int> order;
  Waiter first(order, 1), second(order, 2);
  first.again = second.again = &pool;
  pool.WaitForBuffers(first);
  pool.WaitForBuffers(second);
  pool.WakeWaiters();
  EXPECT_EQ(order, (std::vector<int>{1, 2}));
  pool.StopWaiting(first);
  pool.StopWaiting(second);
}

TEST(BufferPoolTest, AnEmptyPoolOfAnySizeWakesNobody) {
  for (const uint32_t count : {1u, 2u, 4u}) {
    ListPool pool(count);
    std::vector<BufferLease> leases;
    for (uint32_t i = 0; i < count; ++i) leases.push_back(pool.Take("x"));
    std::vector<int> order;
    Waiter waiter(order, 1);
    pool.WaitForBuffers(waiter);
    pool.WakeWaiters();
    EXPECT_TRUE(order.empty()) << count;
    pool.StopWaiting(waiter);
  }
}

TEST(BufferPoolTest, ADetachedLeaseKeepsItsBytesAndFreesItsBuffer) {
  ListPool pool(4);
  BufferLease lease = pool.Take("some bytes");
  const BufferLease b = pool.Take("b"), c = pool.Take("c"), d = pool.Take("d");
  EXPECT_TRUE(pool.is_scarce());
  pool.Detach(lease);
  pool.Detach(lease);
  EXPECT_FALSE(pool.is_scarce());
  EXPECT_EQ(pool.lent_count(), 3u);
  EXPECT_EQ(pool.detached_count(), 1u);
  EXPECT_EQ(std::string_view(lease.data(), lease.size()), "some bytes");
  lease.Release();
  EXPECT_EQ(pool.detached_count(), 0u);
}

}  // namespace
}  // namespace dpa
