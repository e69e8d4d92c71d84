#include "http/http_metrics.h"

#include <fmt/format.h>

#include <utility>

#include "http/status.h"

namespace dpa {
namespace {

constexpr std::array<std::string_view, static_cast<size_t>(ConnectResult::kCount)> kConnectLabels = {
    "ok", "refused", "unreachable", "timeout", "cancelled", "error"};
constexpr std::array<std::string_view, static_cast<size_t>(UpstreamClose::kCount)> kCloseLabels = {
    "peer_closed",  "surplus",  "idle_timeout", "keep_alive", "max_age",
    "max_requests", "idle_max", "not_reusable", "drain"};
constexpr std::array<std::string_view, static_cast<size_t>(RetryCause::kCount)> kRetryLabels = {"unsent", "closed"};

constexpr std::array<std::string_view, static_cast<size_t>(ShedCause::kCount)> kShedLabels = {
    "connection_limit", "client_connection_limit"};

// 499 is nobody's status on the wire, but stands in the record of clients that left.
bool IsKnownStatus(int status) { return status == 499 || ReasonPhrase(status) != "Unknown"; }

template <size_t... I>
std::array<Histogram, sizeof...(I)> MakeDurations(std::index_sequence<I...>) {
  return {((void)I, Histogram(kDurationBoundsSeconds))...};
}

}  // namespace

void RequestCounters::Count(size_t route, int status, Reason reason) {
  const auto key_of = [&](int code) {
    return static_cast<uint32_t>((route + 1) << 24) | static_cast<uint32_t>(reason) << 16 | static_cast<uint32_t>(code);
  };
  uint32_t key = key_of(status);
  for (uint32_t probe = (key * 2654435761u) >> 16;; ++probe) {
    Slot& slot = slots_[probe % kSlots];
    const uint32_t found = slot.key.load(std::memory_order_relaxed);
    if (found == key) return slot.count.Add();
    if (found != 0) continue;
    // A new combination: checked once, here. Past half only codes of 0 are added, one per route and reason.
    if (key != key_of(0) && (!IsKnownStatus(status) || used_count_ >= kSlots / 2)) {
      key = key_of(0);
      probe = ((key * 2654435761u) >> 16) - 1;
      continue;
    }
    DPA_ASSERT(used_count_ < kSlots - 1);
    ++used_count_;
    slot.key.store(key, std::memory_order_release);
    return slot.count.Add();
  }
}

size_t RouteLabelIndex(std::string_view route) {
  for (size_t i = 0; i < kRouteLabels.size(); ++i) {
    if (kRouteLabels[i] == route) return i;
  }
  return kRouteNone;
}

HttpMetrics::HttpMetrics() : request_duration_seconds(MakeDurations(std::make_index_sequence<kRouteLabels.size()>())) {}

void HttpMetrics::CountRequest(const AccessRecord& record) {
  const size_t route = RouteLabelIndex(record.route);
  requests.Count(route, record.status, record.reason);
  // What a tunnel's peers do with it is no matter of latency: its request ends with the 101.
  const uint64_t ended_ns = record.upgraded_ns != 0 ? record.upgraded_ns : record.finished_ns;
  request_duration_seconds[route].Observe(static_cast<double>(ended_ns - record.started_ns) * 1e-9);
}

void HttpMetrics::Collect(MetricsPage& page) const {
  CollectDownstream(page);
  CollectUpstream(page);
}

void HttpMetrics::CollectDownstream(MetricsPage& page) const {
  requests.ForEach([&page](size_t route, int status, Reason reason, uint64_t count) {
    const std::string code = status == 0 ? "other" : fmt::format("{}", status);
    page.AddCounter("dpa_http_requests_total", "Requests that have ended, by who answered, status and reason.",
                    {{"route", kRouteLabels[route]}, {"code", code}, {"reason", Info(reason).word}},
                    static_cast<double>(count));
  });
  for (size_t i = 0; i < kRouteLabels.size(); ++i) {
    page.AddHistogram("dpa_http_request_duration_seconds",
                      "From the first byte of a request to the last of its response.", {{"route", kRouteLabels[i]}},
                      request_duration_seconds[i]);
  }
  const auto gauge = [&page](std::string_view name, std::string_view help, const Gauge& value) {
    page.AddGauge(name, help, {}, static_cast<double>(value.value()));
  };
  const auto counter = [&page](std::string_view name, std::string_view help, const Counter& value) {
    page.AddCounter(name, help, {}, static_cast<double>(value.value()));
  };
  gauge("dpa_http_requests_in_flight", "Requests whose response has not ended.", requests_in_flight);
  gauge("dpa_http_connections", "Client connections that are open.", connections);
  counter("dpa_http_connections_total", "Client connections accepted.", connections_accepted);
  for (size_t i = 0; i < kShedLabels.size(); ++i) {
    constexpr std::string_view kHelp = "Client connections refused, by reason; answered by a 503 or only closed.";
    page.AddCounter("dpa_http_connections_shed_total", kHelp, {{"reason", kShedLabels[i]}, {"answered", "yes"}},
                    static_cast<double>(connections_shed[i].value()));
    page.AddCounter("dpa_http_connections_shed_total", kHelp, {{"reason", kShedLabels[i]}, {"answered", "no"}},
                    static_cast<double>(connections_shed_silent[i].value()));
  }
  counter("dpa_http_accepts_out_of_descriptors_total",
          "Times that accepting paused because the process had no file descriptor left.", accepts_out_of_descriptors);
  counter("dpa_http_received_bytes_total", "Bytes received from clients.", received_bytes);
  counter("dpa_http_sent_bytes_total", "Bytes sent to clients.", sent_bytes);
  counter("dpa_http_sends_total", "Sends to clients: answers to pipelined requests share them.", sends);
  gauge("dpa_tunnels", "Upgraded connections that are open.", tunnels);
  counter("dpa_tunnels_total", "Exchanges that became tunnels.", tunnels_started);
  constexpr std::string_view kTunnelBytes = "Bytes relayed by tunnels, by the side that they came from.";
  page.AddCounter("dpa_tunnel_bytes_total", kTunnelBytes, {{"from", "client"}},
                  static_cast<double>(tunnel_bytes_up.value()));
  page.AddCounter("dpa_tunnel_bytes_total", kTunnelBytes, {{"from", "delegate"}},
                  static_cast<double>(tunnel_bytes_down.value()));

  gauge("dpa_receive_buffers", "Receive buffers of the workers.", receive_buffers);
  gauge("dpa_receive_buffers_lent", "Receive buffers that hold bytes not yet dealt with.", receive_buffers_lent);
  counter("dpa_receive_buffers_starved_total", "Times that a receiver found every buffer lent.",
          receive_buffers_starved);
}

void HttpMetrics::CollectUpstream(MetricsPage& page) const {
  const auto counter = [&page](std::string_view name, std::string_view help, const Counter& value) {
    page.AddCounter(name, help, {}, static_cast<double>(value.value()));
  };
  constexpr std::string_view kStates = "Connections to the delegate and to HTTP backends.";
  const auto state = [&](std::string_view label, const Gauge& value) {
    page.AddGauge("dpa_upstream_connections", kStates, {{"state", label}}, static_cast<double>(value.value()));
  };
  state("idle", upstream_idle);
  state("leased", upstream_leased);
  state("connecting", upstream_connecting);
  page.AddGauge("dpa_upstream_waiting_requests", "Requests that wait for a connection.", {},
                static_cast<double>(upstream_waiting.value()));
  for (size_t i = 0; i < kConnectLabels.size(); ++i) {
    page.AddCounter("dpa_upstream_connects_total", "Attempts to connect upstream, by result.",
                    {{"result", kConnectLabels[i]}}, static_cast<double>(upstream_connects[i].value()));
  }
  for (size_t i = 0; i < kCloseLabels.size(); ++i) {
    page.AddCounter("dpa_upstream_closes_total", "Upstream connections closed, by cause.", {{"cause", kCloseLabels[i]}},
                    static_cast<double>(upstream_closes[i].value()));
  }
  counter("dpa_upstream_reuses_total", "Requests sent on a connection that had served another before.",
          upstream_reuses);
  for (size_t i = 0; i < kRetryLabels.size(); ++i) {
    page.AddCounter("dpa_upstream_retries_total", "Requests sent a second time, by cause.",
                    {{"cause", kRetryLabels[i]}}, static_cast<double>(upstream_retries[i].value()));
  }
  counter("dpa_upstream_retries_denied_total", "Requests not sent a second time because the retry budget was used up.",
          upstream_retries_denied);
}

}  // namespace dpa
