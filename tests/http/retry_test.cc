#include "http/retry.h"

#include <gtest/gtest.h>

namespace dpa {
namespace {

constexpr Error Upstream(ErrorCode code, bool unsent = false) { return Error{code, ErrorSource::kUpstream, unsent}; }

FailedAttempt Attempt(Error error, bool idempotent, bool reused = true, bool body_in_hand = true,
                      bool answered = false) {
  return {error, idempotent, body_in_hand, reused, answered};
}

TEST(Retry, KnowsTheIdempotentMethods) {
  for (const std::string_view method : {"GET", "HEAD", "PUT", "DELETE", "OPTIONS", "TRACE"}) {
    EXPECT_TRUE(IsIdempotent(method)) << method;
  }
  for (const std::string_view method : {"POST", "PATCH", "CONNECT", "get", "PROPFIND", ""}) {
    EXPECT_FALSE(IsIdempotent(method)) << method;
  }
}

TEST(Retry, RepeatsWhatHasCertainlyHadNoEffect) {
  for (const ErrorCode ended : {ErrorCode::kClosed, ErrorCode::kReset}) {
    EXPECT_EQ(MayRetry(Attempt(Upstream(ended), true)), RetryCause::kClosed);
    for (const bool idempotent : {false, true}) {
      for (const bool reused : {false, true}) {
        EXPECT_EQ(MayRetry(Attempt(Upstream(ended, true), idempotent, reused, false)), RetryCause::kUnsent);
      }
    }
  }
  // Bytes out of turn, found before the request went out.
  EXPECT_EQ(MayRetry(Attempt(Upstream(ErrorCode::kMalformed, true), false)), RetryCause::kUnsent);
}

TEST(Retry, LeavesEverythingElseAsItIs) {
  const Error closed = Upstream(ErrorCode::kClosed);
  EXPECT_FALSE(MayRetry(Attempt(closed, false))) << "a POST that has left";
  EXPECT_FALSE(MayRetry(Attempt(closed, true, /*reused=*/false))) << "a fresh connection is not closed for idling";
  EXPECT_FALSE(MayRetry(Attempt(closed, true, true, /*body_in_hand=*/false)));
  EXPECT_FALSE(MayRetry(Attempt(closed, true, true, true, /*answered=*/true)));
  EXPECT_FALSE(MayRetry(Attempt(Upstream(ErrorCode::kMalformed), true)));
  for (const ErrorCode code : {ErrorCode::kTimeout, ErrorCode::kCancelled, ErrorCode::kShed, ErrorCode::kInternal}) {
    EXPECT_FALSE(MayRetry(Attempt(Upstream(code, true), true)));
  }
  EXPECT_FALSE(MayRetry(Attempt(Error{ErrorCode::kClosed, ErrorSource::kDownstream, true}, true)));
}

// How many repeats in a row the budget grants.
int Granted(RetryBudget& budget, uint64_t now_ms) {
  int granted = 0;
  while (granted < 1'000'000 && budget.TakeRetry(now_ms)) ++granted;
  return granted;
}

TEST(RetryBudget, GrantsAShareOfTheRequestsOfTheLastTenSecondsAndAFloor) {
  RetryBudget budget({.percent = 20, .min_per_second = 2});
  EXPECT_EQ(Granted(budget, 100'000), 20);
  for (int i = 0; i < 1000; ++i) budget.CountRequest(100'900);
  EXPECT_EQ(Granted(budget, 100'999), 200);
  EXPECT_EQ(Granted(budget, 109'999), 0) << "still the same ten seconds";
  EXPECT_EQ(Granted(budget, 110'000), 20) << "requests and repeats are forgotten together";
  EXPECT_EQ(Granted(budget, 500'000), 20) << "a long silence saves nothing up";
}

TEST(RetryBudget, SlidesByTheSecond) {
  RetryBudget budget({.percent = 50, .min_per_second = 0});
  for (uint64_t second = 0; second < 10; ++second) {
    for (int i = 0; i < 10; ++i) budget.CountRequest(second * 1000);
  }
  EXPECT_EQ(Granted(budget, 9'999), 50);
  // The first two seconds' requests leave the window; the repeats, all of the tenth, stay.
  EXPECT_EQ(Granted(budget, 11'000), 0);
  for (int i = 0; i < 30; ++i) budget.CountRequest(11'000);
  EXPECT_EQ(Granted(budget, 11'500), 5);
}

TEST(RetryBudget, CanBeNothing) {
  RetryBudget budget({.percent = 0, .min_per_second = 0});
  for (int i = 0; i < 1000; ++i) budget.CountRequest(5'000);
  EXPECT_FALSE(budget.TakeRetry(5'000));
}

}  // namespace
}  // namespace dpa
