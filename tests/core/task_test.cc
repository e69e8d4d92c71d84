// Goal: tasks run at once up to their first wait, results and ends arrive where they are awaited, wake-ups go through
// the ready list, and no frame is left.
// Method: one worker on a simulated ring without faults.

#include "core/task.h"

#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <vector>

#include "tests/sim/sim_world.h"

namespace dpa {
namespace {

class TaskTest : public testing::Test {
 protected:
  static SimRingOptions Quiet() {
    SimRingOptions options;
    options.faults = SimFaults::None();
    return options;
  }
  SimWorld world_{1, Quiet(), /*keep_faults=*/true};
  Worker& worker_ = world_.worker();
};

Task<int> Immediate(int value) { co_return value; }
Task<std::unique_ptr<int>> Later(Worker& worker, int value) {
  co_await worker.Sleep(5);
  co_return std::make_unique<int>(value);
}
Task<int> Sum(Worker& worker, int depth) {
  if (depth == 0) {
    co_await worker.Sleep(1);
    co_return 0;
  }
  const int below = co_await Sum(worker, depth - 1);
  co_return below + 1;
}

TEST_F(TaskTest, ResultsOfWaitingAndNotWaitingChildrenArrive) {
  struct Parent {
    static Task<void> Run(Worker& worker, int& total, int& depth) {
      total += co_await Immediate(1);
      const std::unique_ptr<int> later = co_await Later(worker, 10);
      total += *later;
      depth = co_await Sum(worker, 500);
    }
  };
  int total = 0;
  int depth = 0;
  worker_.tasks().Spawn(Parent::Run(worker_, total, depth));
  EXPECT_EQ(total, 1) << "runs at once up to its first wait";
  world_.RunUntilIdle();
  EXPECT_EQ(total, 11);
  EXPECT_EQ(depth, 500);
}

TEST_F(TaskTest, ALongLoopOfChildrenThatDoNotWaitNeedsNoStack) {
  struct Loop {
    static Task<void> Run(int64_t& sum) {
      for (int i = 0; i < 200'000; ++i) sum += co_await Immediate(1);
    }
  };
  int64_t sum = 0;
  worker_.tasks().Spawn(Loop::Run(sum));
  EXPECT_EQ(sum, 200'000);
}

Task<void> SleepFor(Worker& worker, uint64_t milliseconds, std::vector<int>& order, int number) {
  co_await worker.Sleep(milliseconds);
  order.push_back(number);
}

TEST_F(TaskTest, JoinWaitsForTheLastOne) {
  struct Joiner {
    static Task<void> Run(Worker& worker, std::vector<int>& order) {
      TaskScope scope(worker);
      scope.Spawn(SleepFor(worker, 20, order, 2));
      scope.Spawn(SleepFor(worker, 10, order, 1));
      co_await scope.Join();
      order.push_back(3);
      co_await scope.Join();
    }
  };
  std::vector<int> order;
  worker_.tasks().Spawn(Joiner::Run(worker_, order));
  world_.RunUntilIdle();
  EXPECT_EQ(order, (std::vector<int>{1, 2, 3}));
}

TEST_F(TaskTest, ASignalIsNeitherLostNorCountedTwiceAndNeverRunsTheWaiterInsideNotify) {
  struct Waiter {
    static Task<void> Run(Signal& signal, int& woken) {
      for (int i = 0; i < 2; ++i) {
        co_await signal.Wait();
        ++woken;
      }
    }
  };
  Signal signal(worker_);
  int woken = 0;
  signal.Notify();
  signal.Notify();
  worker_.tasks().Spawn(Waiter::Run(signal, woken));
  EXPECT_EQ(woken, 1) << "the one from before was kept, once";
  signal.Notify();
  EXPECT_EQ(woken, 1) << "not from inside Notify";
  signal.Notify();
  world_.RunUntilIdle();
  EXPECT_EQ(woken, 2);
}

struct Hook final : TurnHook {
  explicit Hook(Worker& w, std::string n, std::string& l) : worker(w), name(std::move(n)), log(l) {}
  void OnEndOfTurn() override {
    log += name;
    if (again-- > 0) worker.AtEndOfTurn(*this);
  }
  Worker& worker;
  const std::string name;
  std::string& log;
  int again = 0;
};

TEST_F(TaskTest, HooksRunOnceAtTheEndOfTheTurnAfterWhatIsReady) {
  struct Ready {
    static Task<void> Run(Signal& signal, std::string& log) {
      co_await signal.Wait();
      log += "ready ";
    }
  };
  std::string log;
  Hook a(worker_, "a ", log), b(worker_, "b ", log);
  Signal signal(worker_);
  worker_.tasks().Spawn(Ready::Run(signal, log));
  worker_.AtEndOfTurn(a);
  worker_.AtEndOfTurn(b);
  worker_.AtEndOfTurn(a);
  signal.Notify();
  worker_.RunTurn(false);
  EXPECT_EQ(log, "ready a b ");
}

TEST_F(TaskTest, ATaskThatIsAlwaysReadyDoesNotKeepTheRingFromItsTurn) {
  std::string log;
  Hook busy(worker_, ".", log);
  busy.again = 100'000;
  worker_.AtEndOfTurn(busy);
  worker_.RunTurn(true);
  EXPECT_LT(log.size(), 1000u);
  const size_t after_one = log.size();
  worker_.RunTurn(true);
  EXPECT_GT(log.size(), after_one) << "what was left runs in the next turn, which does not sleep";
  busy.again = 0;
  worker_.RunTurn(false);
}

TEST_F(TaskTest, ObserversAreToldBeforeTheCompletionsOfTheTurn) {
  struct Observer final : TurnObserver {
    void OnTurn() override { ++turns; }
    int turns = 0;
  };
  struct Receiver {
    static Task<void> Run(Worker& worker, Observer& observer, int& turns_seen) {
      co_await worker.Sleep(3);
      turns_seen = observer.turns;
    }
  };
  Observer observer;
  worker_.AddTurnObserver(observer);
  int turns_seen = 0;
  worker_.tasks().Spawn(Receiver::Run(worker_, observer, turns_seen));
  world_.RunUntilIdle();
  EXPECT_EQ(turns_seen, observer.turns);
  worker_.RemoveTurnObserver(observer);
}

}  // namespace
}  // namespace dpa
