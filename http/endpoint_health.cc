#include "http/endpoint_health.h"

#include <algorithm>

namespace dpa {

bool EndpointHealth::CountOutcome(UpstreamOutcome outcome, uint64_t now_ms) {
  switch (outcome) {
    case UpstreamOutcome::kNothing:
    case UpstreamOutcome::kCount:
      return false;
    case UpstreamOutcome::kAnswered:
      failures_count_ = 0;
      // What was sent before it was ejected may still be answered; that does not bring it back.
      if (!ejected(now_ms)) ejections_count_ = 0;
      return false;
    case UpstreamOutcome::kConnectFailed:
      avoid_until_ms_ = now_ms + kAvoidMs;
      break;
    default:
      break;
  }
  if (ejected(now_ms)) return false;
  ++failures_count_;
  return options_.eject_after != 0 && failures_count_ >= options_.eject_after;
}

uint64_t EndpointHealth::Eject(uint64_t now_ms) {
  ++ejections_count_;
  const uint64_t longest = std::max(options_.eject_ms, options_.eject_ms_max);
  const uint64_t eject_ms = std::min(options_.eject_ms * ejections_count_, longest);
  ejected_until_ms_ = now_ms + eject_ms;
  BeginSlowStart(ejected_until_ms_);
  // On probation: clients need not suffer as many failures again to learn the same.
  failures_count_ = options_.eject_after - 1;
  return eject_ms;
}

bool EndpointHealth::CountCheck(bool passed, uint64_t now_ms) {
  if (passed == up_) {
    checks_count_ = 0;
    return false;
  }
  if (++checks_count_ < (passed ? options_.rise : options_.fall)) return false;
  checks_count_ = 0;
  up_ = passed;
  if (up_) BeginSlowStart(now_ms);
  return true;
}

uint32_t EndpointHealth::share(uint64_t now_ms) const {
  // Never nothing: without requests nothing would warm up.
  constexpr uint32_t kLeastShare = kFullShare / 20;
  if (slow_start_ms_ == 0 || options_.slow_start_ms == 0) return kFullShare;
  const uint64_t begin_ms = slow_start_ms_ - 1;
  if (now_ms <= begin_ms) return kLeastShare;
  const uint64_t passed_ms = now_ms - begin_ms;
  if (passed_ms >= options_.slow_start_ms) return kFullShare;
  return std::max(kLeastShare, static_cast<uint32_t>(kFullShare * passed_ms / options_.slow_start_ms));
}

}  // namespace dpa
