// When a request is sent to an upstream once more, and how often that may happen.
//
// A request is repeated at the most once, on a fresh connection, and only if certainly nothing was done for it:
//
//     not a byte of it has left us                                       any method
//     the connection had served another request before, and ended        idempotent methods (RFC 9110 §9.2.2), if every
//     before a byte of the answer: the delegate closed it while idle     byte sent so far is still in hand
//
// Everything else is answered as it is. A POST of which a byte has left is never sent again: the connection's end looks
// the same whether the delegate closed it before it saw the request or died of it.

#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string_view>

#include "core/result.h"
#include "http/http_metrics.h"

namespace dpa {

// RFC 9110 §9.2.2. False for methods that it does not name.
bool IsIdempotent(std::string_view method);

// What is known of an attempt that failed.
struct FailedAttempt {
  Error error;  // retry_safe: not a byte of the request has left.
  bool idempotent = false;
  bool body_in_hand = false;  // Every byte of the body that was sent can be sent again.
  bool reused = false;        // The connection had served another request.
  bool answered = false;      // A byte of an answer came, or the client was sent one.
};

// The rule above; nullopt: the request is not repeated.
std::optional<RetryCause> MayRetry(const FailedAttempt& attempt);

struct RetryBudgetOptions {
  // --delegate-retry-budget-percent: of the requests of the last ten seconds. A delegate in trouble gets a fifth more
  // load at the most, where repeating everything would double it just then.
  uint32_t percent = 20;
  // --delegate-retry-min-per-second: on top of it, so that a quiet worker can repeat its only request.
  uint32_t min_per_second = 10;
};

// RetryBudget bounds the repeats of one worker's requests to one group of upstreams, over a window of ten seconds.
class RetryBudget {
 public:
  explicit RetryBudget(const RetryBudgetOptions& options) : options_(options) {}

  void CountRequest(uint64_t now_ms);
  // Takes one repeat off the budget. False: it is used up. `now_ms` never goes back.
  bool TakeRetry(uint64_t now_ms);

 private:
  static constexpr uint64_t kWindowSeconds = 10;
  struct Second {
    uint32_t requests = 0;
    uint32_t retries = 0;
  };

  Second& Now(uint64_t now_ms);

  const RetryBudgetOptions options_;
  std::array<Second, kWindowSeconds> seconds_;  // By the number of the second, modulo its size.
  uint64_t second_ = 0;                         // The newest of them.
  uint64_t requests_count_ = 0;                 // Sums over seconds_.
  uint64_t retries_count_ = 0;
};

}  // namespace dpa
