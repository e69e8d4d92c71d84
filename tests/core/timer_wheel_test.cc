// Goal: every timer fires at the first advance that reaches it, once, and never early; disarmed ones never.
// Method: random operations on the wheel and on a sorted map beside it, over steps from one millisecond to months.

#include "core/timer_wheel.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <functional>
#include <map>
#include <memory>
#include <vector>

#include "tests/sim/sim_random.h"

namespace dpa {
namespace {

struct Timer final : TimerWheel::Entry {
  void OnExpire() override {
    ++fired_count;
    if (on_fire) on_fire();
  }
  std::function<void()> on_fire;
  int fired_count = 0;
};

TEST(TimerWheelTest, FiresExactlyWhatASortedMapWould) {
  for (uint64_t seed = 1; seed <= 30; ++seed) {
    SimRandom random(seed);
    uint64_t now_ms = random.Below(uint64_t{1} << random.Between(1, 40));
    TimerWheel wheel(now_ms);
    std::vector<std::unique_ptr<Timer>> timers;
    std::map<Timer*, uint64_t> model;  // Armed, and when.
    for (int i = 0; i < 200; ++i) timers.push_back(std::make_unique<Timer>());
    for (int step = 0; step < 3000; ++step) {
      Timer& timer = *timers[random.Below(timers.size())];
      switch (random.Below(4)) {
        case 0:
        case 1: {
          // From the past to far away, with a preference for the edges of slots.
          uint64_t expires_ms = now_ms + random.Below(uint64_t{1} << random.Between(1, 38));
          if (random.Chance(200)) expires_ms = (expires_ms >> 6) << 6;
          if (random.Chance(50)) expires_ms = now_ms - std::min<uint64_t>(now_ms, random.Below(100));
          wheel.Arm(timer, expires_ms);
          model[&timer] = std::max(expires_ms, now_ms + 1);
          break;
        }
        case 2:
          wheel.Disarm(timer);
          model.erase(&timer);
          break;
        default: {
          for (const auto& one : timers) one->fired_count = 0;
          uint64_t earliest_ms = UINT64_MAX;
          for (const auto& [armed, expires_ms] : model) earliest_ms = std::min(earliest_ms, expires_ms);
          ASSERT_LE(wheel.next_expiry_ms(), earliest_ms) << "a sleep until then would be late";
          now_ms += random.Chance(500) ? random.Below(100) : random.Below(uint64_t{1} << random.Between(1, 34));
          wheel.Advance(now_ms);
          for (const auto& one : timers) {
            const auto found = model.find(one.get());
            const bool due = found != model.end() && found->second <= now_ms;
            ASSERT_EQ(one->fired_count, due ? 1 : 0) << "seed " << seed << " step " << step;
            ASSERT_EQ(one->armed(), found != model.end() && !due);
            if (due) model.erase(found);
          }
        }
      }
      ASSERT_EQ(wheel.armed_count(), model.size());
    }
    for (const auto& one : timers) wheel.Disarm(*one);
    EXPECT_EQ(wheel.next_expiry_ms(), TimerWheel::kNever);
  }
}

TEST(TimerWheelTest, SleepingUntilTheNextExpiryWakesForEveryTimerInFewSteps) {
  TimerWheel wheel(12'345);
  Timer timer;
  wheel.Arm(timer, 12'345 + 90'000'000);  // 25 hours.
  int wakes = 0;
  while (timer.fired_count == 0) {
    ASSERT_LT(++wakes, 10);
    wheel.Advance(wheel.next_expiry_ms());
  }
  EXPECT_EQ(wheel.now_ms(), 90'012'345u);
}

TEST(TimerWheelTest, AHandlerMayArmItselfAndDisarmOthersOfTheSameTick) {
  TimerWheel wheel(0);
  Timer first, second, third;
  int rearmed = 0;
  first.on_fire = [&] {
    wheel.Disarm(second);
    if (++rearmed < 3) wheel.Arm(first, wheel.now_ms() + 64);
  };
  wheel.Arm(first, 10);
  wheel.Arm(second, 10);
  wheel.Arm(third, 10);
  wheel.Advance(10);
  EXPECT_EQ(first.fired_count, 1);
  EXPECT_EQ(second.fired_count, 0);
  EXPECT_EQ(third.fired_count, 1);
  wheel.Advance(200);
  EXPECT_EQ(first.fired_count, 2);  // Its relative time counts from the clock, not from the tick that was late.
  wheel.Advance(264);
  EXPECT_EQ(first.fired_count, 3);
  EXPECT_EQ(wheel.armed_count(), 0u);
}

struct Target final : Cancellable {
  void Cancel(Error reason) override {
    ++cancelled_count;
    last = reason;
  }
  int cancelled_count = 0;
  Error last;
};

TEST(DeadlineTest, CancelsWithItsReasonUnlessDisarmedInTime) {
  TimerWheel wheel(1000);
  Target target;
  const Error reason{ErrorCode::kTimeout, ErrorSource::kDownstream};
  Deadline deadline(wheel, target, reason);
  deadline.ArmAfter(50);
  wheel.Advance(1049);
  EXPECT_EQ(target.cancelled_count, 0);
  wheel.Advance(1050);
  EXPECT_EQ(target.cancelled_count, 1);
  EXPECT_EQ(target.last, reason);
  EXPECT_TRUE(deadline.fired());
  deadline.ArmAfter(10);
  EXPECT_FALSE(deadline.fired());
  deadline.ArmAfter(0);  // No limit.
  wheel.Advance(5000);
  EXPECT_EQ(target.cancelled_count, 1);
}

TEST(DeadlineTest, CountsFromTheClockThatTheTurnBeganWith) {
  TimerWheel wheel(0);
  Target target;
  Deadline deadline(wheel, target, Error{ErrorCode::kTimeout});
  wheel.SetClock(60'000);  // The ring slept for a minute; now its completions run.
  deadline.ArmAfter(1000);
  wheel.Advance(60'000);
  EXPECT_EQ(target.cancelled_count, 0);
  wheel.Advance(61'000);
  EXPECT_EQ(target.cancelled_count, 1);
}

}  // namespace
}  // namespace dpa
