// EndpointHealth is what one worker thinks of one endpoint: whether requests should go there, and how many.
//
//     usable --failures in a row--> ejected --time--> usable, on probation: the next failure ejects it again, longer
//       |                                                  `-- an answer --> usable
//       `--failed checks--> down --passed checks--> usable
//
// An endpoint that comes back, or is new, gets a share of the requests that grows (slow start): its caches are cold.
// Pure: no clock, no timers, no ring. Each worker judges by what it has seen itself, so nothing is shared.

#pragma once

#include <cstdint>

namespace dpa {

// How an attempt ended, as far as it says something about the endpoint.
enum class UpstreamOutcome : uint8_t {
  kAnswered,  // Any status: a 503 may be that of one path of many, and is the delegate's to say.
  kConnectFailed,
  kTimeout,    // No response head in time, or a body that stalled.
  kReset,      // Ended before an answer, on a connection that had not been idle.
  kMalformed,  // Broke HTTP.
  kTruncated,  // Ended inside the answer.
  kNothing,    // The client left, or an idle connection had just been closed: nobody's failure.
  kCount
};

struct BalanceOptions {
  // --delegate-eject-after: failures in a row. One may be chance; more than a handful are seen by clients. 0: never.
  uint32_t eject_after = 5;
  uint64_t eject_ms = 10'000;       // --delegate-eject-time: times the ejections in a row,
  uint64_t eject_ms_max = 300'000;  // --delegate-eject-time-max: but no longer.
  // --delegate-eject-max-percent: of the endpoints; one may always be ejected if there are two. A fault that all share
  // is not mended by sending everything to the last.
  uint32_t eject_percent_max = 50;
  uint64_t slow_start_ms = 10'000;  // --delegate-slow-start. 0: the full share at once.
  uint32_t fall = 3;                // --delegate-health-fall: failed checks in a row until it is down,
  uint32_t rise = 2;                // --delegate-health-rise: passed ones until it is up again.
};

class EndpointHealth {
 public:
  static constexpr uint32_t kFullShare = 1000;
  // How long one that could not be connected to is passed over.
  static constexpr uint64_t kAvoidMs = 1'000;

  // `options` outlives it.
  explicit EndpointHealth(const BalanceOptions& options) : options_(options) {}

  // The share grows from now on.
  void BeginSlowStart(uint64_t now_ms) { slow_start_ms_ = now_ms + 1; }

  // True: it has failed often enough to be ejected; whether it is depends on the others.
  bool CountOutcome(UpstreamOutcome outcome, uint64_t now_ms);
  // Returns for how long, in milliseconds.
  uint64_t Eject(uint64_t now_ms);
  // The result of an active check. True: `up()` has changed.
  bool CountCheck(bool passed, uint64_t now_ms);

  bool up() const { return up_; }
  bool ejected(uint64_t now_ms) const { return now_ms < ejected_until_ms_; }
  bool usable(uint64_t now_ms) const { return up_ && !ejected(now_ms) && now_ms >= avoid_until_ms_; }
  // Of kFullShare.
  uint32_t share(uint64_t now_ms) const;
  uint32_t failures_count() const { return failures_count_; }

 private:
  const BalanceOptions& options_;
  bool up_ = true;
  uint32_t failures_count_ = 0;   // In a row.
  uint32_t ejections_count_ = 0;  // In a row: without an answer between them.
  uint32_t checks_count_ = 0;     // In a row, against `up_`.
  uint64_t avoid_until_ms_ = 0;
  uint64_t ejected_until_ms_ = 0;
  uint64_t slow_start_ms_ = 0;  // When it began, plus one; 0: not at all.
};

}  // namespace dpa
