#include "http/endpoint_health.h"

#include <gtest/gtest.h>

namespace dpa {
namespace {

constexpr UpstreamOutcome kBad = UpstreamOutcome::kReset;

BalanceOptions ThreeFailures() {
  BalanceOptions options;
  options.eject_after = 3;
  options.eject_ms = 1'000;
  options.eject_ms_max = 2'500;
  options.slow_start_ms = 1'000;
  options.fall = 2;
  options.rise = 2;
  return options;
}

TEST(EndpointHealthTest, IsEjectedAfterFailuresInARowOnly) {
  const BalanceOptions options = ThreeFailures();
  EndpointHealth health(options);
  EXPECT_FALSE(health.CountOutcome(kBad, 1));
  EXPECT_FALSE(health.CountOutcome(kBad, 2));
  EXPECT_FALSE(health.CountOutcome(UpstreamOutcome::kAnswered, 3));
  EXPECT_FALSE(health.CountOutcome(kBad, 4));
  EXPECT_FALSE(health.CountOutcome(UpstreamOutcome::kNothing, 5));
  EXPECT_FALSE(health.CountOutcome(kBad, 6));
  EXPECT_TRUE(health.usable(6));
  EXPECT_TRUE(health.CountOutcome(kBad, 7));
}

TEST(EndpointHealthTest, AnEjectionEndsAndTheNextFailureEjectsLongerUpToALimit) {
  const BalanceOptions options = ThreeFailures();
  EndpointHealth health(options);
  uint64_t now_ms = 100;
  while (!health.CountOutcome(kBad, now_ms)) continue;
  for (const uint64_t expected_ms : {1'000u, 2'000u, 2'500u, 2'500u}) {
    EXPECT_EQ(health.Eject(now_ms), expected_ms);
    EXPECT_FALSE(health.usable(now_ms + expected_ms - 1));
    // Late failures of what was under way do not make it longer.
    EXPECT_FALSE(health.CountOutcome(kBad, now_ms + 1));
    now_ms += expected_ms;
    EXPECT_TRUE(health.usable(now_ms));
    EXPECT_TRUE(health.CountOutcome(kBad, now_ms)) << "on probation one failure is enough";
  }
}

TEST(EndpointHealthTest, AnAnswerAfterAnEjectionForgetsTheOnesBefore) {
  const BalanceOptions options = ThreeFailures();
  EndpointHealth health(options);
  while (!health.CountOutcome(kBad, 100)) continue;
  health.Eject(100);
  // One that was under way when it was ejected says nothing about the time after.
  health.CountOutcome(UpstreamOutcome::kAnswered, 200);
  EXPECT_FALSE(health.usable(200));
  health.CountOutcome(UpstreamOutcome::kAnswered, 1'200);
  EXPECT_FALSE(health.CountOutcome(kBad, 1'201));
  EXPECT_FALSE(health.CountOutcome(kBad, 1'202));
  EXPECT_TRUE(health.CountOutcome(kBad, 1'203));
  EXPECT_EQ(health.Eject(1'203), 1'000u);
}

TEST(EndpointHealthTest, OneThatCannotBeConnectedToIsPassedOverForAMoment) {
  const BalanceOptions options = ThreeFailures();
  EndpointHealth health(options);
  health.CountOutcome(UpstreamOutcome::kConnectFailed, 100);
  EXPECT_FALSE(health.usable(101));
  EXPECT_FALSE(health.ejected(101));
  EXPECT_TRUE(health.usable(100 + EndpointHealth::kAvoidMs));
}

TEST(EndpointHealthTest, ZeroNeverEjects) {
  BalanceOptions options = ThreeFailures();
  options.eject_after = 0;
  EndpointHealth health(options);
  for (int i = 0; i < 1'000; ++i) EXPECT_FALSE(health.CountOutcome(kBad, 1));
}

TEST(EndpointHealthTest, ChecksTakeItDownAndUpOnlyInARow) {
  const BalanceOptions options = ThreeFailures();
  EndpointHealth health(options);
  EXPECT_FALSE(health.CountCheck(false, 1));
  EXPECT_FALSE(health.CountCheck(true, 2));
  EXPECT_FALSE(health.CountCheck(false, 3));
  EXPECT_TRUE(health.usable(3));
  EXPECT_TRUE(health.CountCheck(false, 4));
  EXPECT_FALSE(health.usable(4));
  EXPECT_FALSE(health.CountCheck(true, 5));
  EXPECT_FALSE(health.CountCheck(false, 6));
  EXPECT_FALSE(health.CountCheck(true, 7));
  EXPECT_TRUE(health.CountCheck(true, 8));
  EXPECT_TRUE(health.usable(8));
}

TEST(EndpointHealthTest, TheShareOfOneThatComesBackGrowsWithTime) {
  const BalanceOptions options = ThreeFailures();
  EndpointHealth health(options);
  EXPECT_EQ(health.share(0), EndpointHealth::kFullShare);
  health.BeginSlowStart(1'000);
  EXPECT_GT(health.share(1'000), 0u);
  EXPECT_LT(health.share(1'000), 100u);
  EXPECT_EQ(health.share(1'500), EndpointHealth::kFullShare / 2);
  EXPECT_EQ(health.share(2'000), EndpointHealth::kFullShare);
}

}  // namespace
}  // namespace dpa
