#include "http/retry.h"

#include <algorithm>

namespace dpa {

bool IsIdempotent(std::string_view method) {
  return method == "GET" || method == "HEAD" || method == "PUT" || method == "DELETE" || method == "OPTIONS" ||
         method == "TRACE";
}

std::optional<RetryCause> MayRetry(const FailedAttempt& attempt) {
  if (attempt.error.source != ErrorSource::kUpstream || attempt.answered) return std::nullopt;
  const ErrorCode code = attempt.error.code;
  const bool ended = code == ErrorCode::kClosed || code == ErrorCode::kReset;
  // Bytes out of turn are found before the first of ours is sent: whatever they were meant for, it was not this.
  const bool out_of_turn = code == ErrorCode::kMalformed && attempt.error.retry_safe;
  if (!ended && !out_of_turn) return std::nullopt;
  if (attempt.error.retry_safe) return RetryCause::kUnsent;
  if (!attempt.reused || !attempt.idempotent || !attempt.body_in_hand) return std::nullopt;
  return RetryCause::kClosed;
}

RetryBudget::Second& RetryBudget::Now(uint64_t now_ms) {
  const uint64_t now = now_ms / 1000;
  const uint64_t passed = std::min(now - second_, kWindowSeconds);
  for (uint64_t i = 1; i <= passed; ++i) {
    Second& oldest = seconds_[(second_ + i) % kWindowSeconds];
    requests_count_ -= oldest.requests;
    retries_count_ -= oldest.retries;
    oldest = {};
  }
  second_ = now;
  return seconds_[now % kWindowSeconds];
}

void RetryBudget::CountRequest(uint64_t now_ms) {
  ++Now(now_ms).requests;
  ++requests_count_;
}

bool RetryBudget::TakeRetry(uint64_t now_ms) {
  Second& now = Now(now_ms);
  const uint64_t retries_max = requests_count_ * options_.percent / 100 + options_.min_per_second * kWindowSeconds;
  if (retries_count_ >= retries_max) return false;
  ++now.retries;
  ++retries_count_;
  return true;
}

}  // namespace dpa
