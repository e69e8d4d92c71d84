#include "grpc_bridge/plugin_metrics.h"

namespace dpa {
namespace {

constexpr std::array<std::string_view, static_cast<size_t>(PluginEndpoint::kCount)> kEndpointNames = {
    "queryData",     "queryChunkedData", "callResource",      "checkHealth",     "collectMetrics", "subscribeStream",
    "publishStream", "runStream",        "validateAdmission", "mutateAdmission", "convertObjects"};
constexpr std::array<std::string_view, static_cast<size_t>(PluginCallStatus::kCount)> kStatusNames = {"ok", "error",
                                                                                                      "cancelled"};
constexpr std::array<std::string_view, static_cast<size_t>(PluginStatusSource::kCount)> kSourceNames = {"plugin",
                                                                                                        "downstream"};

// Grafana's words for "this process did it" and "the plugin runs as a process beside us".
constexpr std::string_view kSource = "grafana-backend";
constexpr std::string_view kTarget = "local";

}  // namespace

std::string_view ToString(PluginEndpoint endpoint) { return kEndpointNames[static_cast<size_t>(endpoint)]; }
std::string_view ToString(PluginCallStatus status) { return kStatusNames[static_cast<size_t>(status)]; }
std::string_view ToString(PluginStatusSource source) { return kSourceNames[static_cast<size_t>(source)]; }

PluginMetrics::~PluginMetrics() {
  for (Record* record = head_.load(std::memory_order_relaxed); record != nullptr;) {
    Record* next = record->next_;
    delete record;
    record = next;
  }
}

PluginMetrics::Record::~Record() {
  for (const std::atomic<Endpoint*>& endpoint : endpoints_) delete endpoint.load(std::memory_order_relaxed);
}

PluginMetrics::Record& PluginMetrics::For(std::string_view plugin_id) {
  for (Record* record = head_.load(std::memory_order_relaxed); record != nullptr; record = record->next_) {
    if (record->plugin_id_ == plugin_id) return *record;
  }
  Record* record = new Record(plugin_id);
  record->next_ = head_.load(std::memory_order_relaxed);
  head_.store(record, std::memory_order_release);
  return *record;
}

void PluginMetrics::Record::CountCall(PluginEndpoint endpoint, PluginCallStatus status, PluginStatusSource source,
                                      double seconds, size_t request_bytes) {
  std::atomic<Endpoint*>& slot = endpoints_[static_cast<size_t>(endpoint)];
  Endpoint* counters = slot.load(std::memory_order_relaxed);
  if (counters == nullptr) {
    counters = new Endpoint;
    slot.store(counters, std::memory_order_release);
  }
  Outcome& outcome = counters->outcomes[static_cast<size_t>(status)][static_cast<size_t>(source)];
  outcome.calls.Add();
  outcome.seconds.Observe(seconds);
  counters->request_bytes.Observe(static_cast<double>(request_bytes));
}

void PluginMetrics::Collect(MetricsPage& page) const {
  for (const Record* record = head_.load(std::memory_order_acquire); record != nullptr; record = record->next_) {
    record->Collect(page);
  }
}

void PluginMetrics::Record::Collect(MetricsPage& page) const {
  const std::string_view id = plugin_id_;
  page.AddGauge("dpa_plugin_connections", "Open HTTP/2 connections to plugins.", {{"plugin_id", id}},
                static_cast<double>(connections.value()));
  page.AddGauge("dpa_plugin_streams_in_flight", "Plugin calls that have not ended, those that wait included.",
                {{"plugin_id", id}}, static_cast<double>(streams_in_flight.value()));
  const std::string_view connects_help = "Connections to plugins that were made or could not be made.";
  page.AddCounter("dpa_plugin_connects_total", connects_help, {{"plugin_id", id}, {"result", "ok"}},
                  static_cast<double>(connects_ok.value()));
  page.AddCounter("dpa_plugin_connects_total", connects_help, {{"plugin_id", id}, {"result", "error"}},
                  static_cast<double>(connects_failed.value()));
  page.AddCounter("dpa_plugin_call_retries_total",
                  "Plugin calls sent once more after the plugin had certainly not seen them.", {{"plugin_id", id}},
                  static_cast<double>(retries.value()));
  for (size_t i = 0; i < kEndpoints; ++i) {
    const Endpoint* endpoint = endpoints_[i].load(std::memory_order_acquire);
    if (endpoint != nullptr) CollectEndpoint(page, kEndpointNames[i], *endpoint);
  }
}

void PluginMetrics::Record::CollectEndpoint(MetricsPage& page, std::string_view endpoint_name,
                                            const Endpoint& endpoint) const {
  const std::string_view id = plugin_id_;
  for (size_t status = 0; status < kStatuses; ++status) {
    for (size_t source = 0; source < kSources; ++source) {
      const Outcome& outcome = endpoint.outcomes[status][source];
      if (outcome.calls.value() == 0) continue;
      page.AddCounter("grafana_plugin_request_total", "The total amount of plugin requests.",
                      {{"plugin_id", id},
                       {"endpoint", endpoint_name},
                       {"status", kStatusNames[status]},
                       {"target", kTarget},
                       {"status_source", kSourceNames[source]}},
                      static_cast<double>(outcome.calls.value()));
      page.AddHistogram("grafana_plugin_request_duration_seconds", "Plugin request duration in seconds.",
                        {{"source", kSource},
                         {"plugin_id", id},
                         {"endpoint", endpoint_name},
                         {"status", kStatusNames[status]},
                         {"target", kTarget},
                         {"status_source", kSourceNames[source]}},
                        outcome.seconds);
    }
  }
  page.AddHistogram("grafana_plugin_request_size_bytes", "Histogram of plugin request sizes in bytes.",
                    {{"source", kSource}, {"plugin_id", id}, {"endpoint", endpoint_name}, {"target", kTarget}},
                    endpoint.request_bytes);
}

}  // namespace dpa
