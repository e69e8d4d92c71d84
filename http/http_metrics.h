// HttpMetrics is what one worker counts of its HTTP traffic: plain counters, written by the worker, read by the scrape.
//
// Label values come from closed sets: kinds of route, registered status codes, reason words, causes.

#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "core/metrics.h"
#include "http/access_record.h"

namespace dpa {

// Who answers, for the `route` label.
inline constexpr std::array<std::string_view, 11> kRouteLabels = {
    "delegate", "query", "route",     "resource",   "health",          "stream",
    "local",    "none",  "admission", "conversion", "datasource-proxy"};
inline constexpr size_t kRouteNone = 7;

// Counts per (route, code, reason). One writer; the scrape reads while it is written.
class RequestCounters {
 public:
  void Count(size_t route, int status, Reason reason);
  // Calls `visit(route, status, reason, count)` for each combination that has occurred. Status 0: any not registered,
  // and all that found the table full.
  template <class Visit>
  void ForEach(Visit visit) const {
    for (const Slot& slot : slots_) {
      const uint32_t key = slot.key.load(std::memory_order_acquire);
      if (key == 0) continue;
      visit((key >> 24) - 1, static_cast<int>(key & 0xFFFF), static_cast<Reason>((key >> 16) & 0xFF),
            slot.count.value());
    }
  }

 private:
  // Combinations that occur in practice are a few dozen. When half of the slots are taken, codes are no longer told
  // apart; what is left then has room for every route and reason, so that no request is ever left uncounted.
  static constexpr size_t kSlots = 2048;  // A power of two.
  static_assert(kRouteLabels.size() * kReasonsCount < kSlots / 2);
  struct Slot {
    std::atomic<uint32_t> key{0};  // route + 1, reason, status; 0: free.
    Counter count;
  };
  std::array<Slot, kSlots> slots_;
  uint32_t used_count_ = 0;
};

enum class ConnectResult : uint8_t { kOk, kRefused, kUnreachable, kTimeout, kCancelled, kError, kCount };
enum class UpstreamClose : uint8_t {
  kPeerClosed,  // While idle: the usual end of keep-alive.
  kSurplus,     // Bytes that nobody asked for.
  kIdleTimeout,
  kKeepAlive,    // A second before the end that its peer announced (Keep-Alive: timeout=).
  kMaxAge,       // --delegate-connection-max-age
  kMaxRequests,  // --delegate-connection-max-requests
  kIdleMax,      // More idle connections than --delegate-idle-max.
  kNotReusable,  // The exchange did not end on its framing, or either side said close.
  kDrain,
  kCount
};

// Why a request was sent once more.
enum class RetryCause : uint8_t {
  kUnsent,  // Not a byte of it had left.
  kClosed,  // A reused connection ended before a byte of the answer, and the request may be repeated.
  kCount
};
enum class ShedCause : uint8_t { kConnectionLimit, kClientConnectionLimit, kCount };

struct HttpMetrics {
  HttpMetrics();

  RequestCounters requests;
  std::array<Histogram, kRouteLabels.size()> request_duration_seconds;
  Gauge requests_in_flight;
  Gauge connections;
  Counter connections_accepted;
  std::array<Counter, static_cast<size_t>(ShedCause::kCount)> connections_shed;         // Told so with a 503.
  std::array<Counter, static_cast<size_t>(ShedCause::kCount)> connections_shed_silent;  // Closed without an answer.
  Counter accepts_out_of_descriptors;
  Counter received_bytes;
  Counter sent_bytes;
  Counter sends;
  Gauge tunnels;
  Counter tunnels_started;
  Counter tunnel_bytes_up;    // From clients.
  Counter tunnel_bytes_down;  // To them.

  Gauge upstream_idle;
  Gauge upstream_leased;
  Gauge upstream_connecting;
  Gauge upstream_waiting;  // Exchanges that wait for a connection.
  std::array<Counter, static_cast<size_t>(ConnectResult::kCount)> upstream_connects;
  std::array<Counter, static_cast<size_t>(UpstreamClose::kCount)> upstream_closes;
  Counter upstream_reuses;
  std::array<Counter, static_cast<size_t>(RetryCause::kCount)> upstream_retries;
  Counter upstream_retries_denied;

  Gauge receive_buffers_lent;
  Gauge receive_buffers;
  Counter receive_buffers_starved;

  void CountRequest(const AccessRecord& record);
  void CountShed(ShedCause cause, bool answered) {
    (answered ? connections_shed : connections_shed_silent)[static_cast<size_t>(cause)].Add();
  }
  void CountConnect(ConnectResult result) { upstream_connects[static_cast<size_t>(result)].Add(); }
  void CountRetry(RetryCause cause) { upstream_retries[static_cast<size_t>(cause)].Add(); }
  void CountClose(UpstreamClose cause) { upstream_closes[static_cast<size_t>(cause)].Add(); }

  // Writes all families, for this worker; the page adds up the workers.
  void Collect(MetricsPage& page) const;

 private:
  void CollectDownstream(MetricsPage& page) const;
  void CollectUpstream(MetricsPage& page) const;
};

// Index into kRouteLabels; kRouteNone for anything else.
size_t RouteLabelIndex(std::string_view route);

}  // namespace dpa
