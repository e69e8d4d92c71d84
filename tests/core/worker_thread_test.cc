// Goal: a worker's thread starts with its ring, runs what is posted, sleeps and wakes, is pinned, and stops cleanly.
// Method: real threads on real rings; run under ThreadSanitizer as well.

#include "core/worker_thread.h"

#include <gtest/gtest.h>
#include <pthread.h>
#include <sched.h>

#include <atomic>

namespace dpa {
namespace {

WorkerThreadOptions SmallOptions() {
  WorkerThreadOptions options;
  options.name = "worker-with-a-long-name";
  options.ring.submission_entries = 16;
  options.ring.completion_entries = 64;
  options.ring.buffers.buffers_count = 8;
  return options;
}

TEST(WorkerThreadTest, StartsRunsAndStopsManyTimes) {
  for (int i = 0; i < 20; ++i) {
    auto thread = WorkerThread::Start(SmallOptions());
    ASSERT_TRUE(thread) << thread.error();
    uint32_t index = 99;
    EXPECT_TRUE((*thread)->Run([&](Worker& worker) { index = worker.index(); }));
    EXPECT_EQ(index, 0u);
    (*thread)->Stop();
  }
}

TEST(WorkerThreadTest, IsPinnedAndNamed) {
  WorkerThreadOptions options = SmallOptions();
  options.cpu = sched_getcpu();
  auto thread = WorkerThread::Start(options);
  ASSERT_TRUE(thread) << thread.error();
  cpu_set_t set;
  CPU_ZERO(&set);
  char name[16] = "";
  (*thread)->Run([&](Worker&) {
    pthread_getaffinity_np(pthread_self(), sizeof set, &set);
    pthread_getname_np(pthread_self(), name, sizeof name);
  });
  EXPECT_EQ(CPU_COUNT(&set), 1);
  EXPECT_TRUE(CPU_ISSET(*options.cpu, &set));
  EXPECT_STREQ(name, "worker-with-a-l");
}

TEST(WorkerThreadTest, MessagesBetweenWorkersArriveInOrder) {
  auto a = WorkerThread::Start(SmallOptions());
  auto b = WorkerThread::Start(SmallOptions());
  ASSERT_TRUE(a && b);
  constexpr int kMessages = 2000;
  std::atomic<int> received{0};
  std::atomic<bool> in_order{true};
  Worker& to = (*b)->worker();
  (*a)->Run([&](Worker&) {
    for (int i = 0; i < kMessages; ++i) {
      to.mailbox().Post([&, i] {
        if (received++ != i) in_order = false;
      });
    }
  });
  (*b)->Run([](Worker&) {});
  EXPECT_EQ(received, kMessages);
  EXPECT_TRUE(in_order);
}

TEST(WorkerThreadTest, TimersOfASleepingWorkerFire) {
  auto thread = WorkerThread::Start(SmallOptions());
  ASSERT_TRUE(thread) << thread.error();
  struct Sleeper {
    static Task<void> Run(Worker& worker, std::atomic<bool>& done) {
      co_await worker.Sleep(10);
      done = true;
      done.notify_one();
    }
  };
  std::atomic<bool> done{false};
  (*thread)->Run([&](Worker& worker) { worker.tasks().Spawn(Sleeper::Run(worker, done)); });
  done.wait(false);
  (*thread)->Run([](Worker& worker) { EXPECT_EQ(worker.tasks().running_count(), 0u); });
}

TEST(WorkerThreadTest, AMessageBehindTheEndIsDroppedAndNobodyWaitsForIt) {
  auto thread = WorkerThread::Start(SmallOptions());
  ASSERT_TRUE(thread) << thread.error();
  (*thread)->Post([](Worker& worker) { worker.Stop(); });
  EXPECT_NO_FATAL_FAILURE((*thread)->Stop());
}

TEST(WorkerThreadTest, ARingThatCannotBeMadeIsASentence) {
  WorkerThreadOptions options = SmallOptions();
  options.ring.submission_entries = 0;
  const auto thread = WorkerThread::Start(options);
  ASSERT_FALSE(thread);
  EXPECT_NE(thread.error().find("io_uring"), std::string::npos) << thread.error();
}

}  // namespace
}  // namespace dpa
