// PluginMetrics counts one worker's calls to plugins, under the names that Grafana's own plugin client uses, so that
// existing dashboards work:
//
//     grafana_plugin_request_total{plugin_id, endpoint, status, target, status_source}
//     grafana_plugin_request_duration_seconds{source, plugin_id, endpoint, status, target, status_source}
//     grafana_plugin_request_size_bytes{source, plugin_id, endpoint, target}
//
// and what is our own: dpa_plugin_connections, dpa_plugin_streams_in_flight, dpa_plugin_connects_total,
// dpa_plugin_call_retries_total.
//
// Plugin ids come from the plugin directory, never from a client. Written by the worker, read by the scrape: records
// are only ever added, and published by a release store.

#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include "core/metrics.h"

namespace dpa {

enum class PluginEndpoint : uint8_t {
  kQueryData,
  kQueryChunkedData,
  kCallResource,
  kCheckHealth,
  kCollectMetrics,
  kSubscribeStream,
  kPublishStream,
  kRunStream,
  kValidateAdmission,
  kMutateAdmission,
  kConvertObjects,
  kCount,
};
std::string_view ToString(PluginEndpoint endpoint);  // "queryData"

enum class PluginCallStatus : uint8_t { kOk, kError, kCancelled, kCount };
std::string_view ToString(PluginCallStatus status);

// Whose fault an error is, as the plugin says; kPlugin also when there is none.
enum class PluginStatusSource : uint8_t { kPlugin, kDownstream, kCount };
std::string_view ToString(PluginStatusSource source);

// The bounds that Grafana uses.
inline constexpr std::array<double, 12> kPluginDurationBoundsSeconds = {0.005, 0.01, 0.025, 0.05, 0.1, 0.25,
                                                                        0.5,   1,    2.5,   5,    10,  25};
inline constexpr std::array<double, 14> kPluginSizeBoundsBytes = {128,   256,   512,   1024,   2048,   4096,   8192,
                                                                  16384, 32768, 65536, 131072, 262144, 524288, 1048576};

class PluginMetrics {
 public:
  // Of one plugin.
  class Record {
   public:
    explicit Record(std::string_view plugin_id) : plugin_id_(plugin_id) {}
    ~Record();

    void CountCall(PluginEndpoint endpoint, PluginCallStatus status, PluginStatusSource source, double seconds,
                   size_t request_bytes);

    Gauge connections;
    Gauge streams_in_flight;  // Calls handed to a connection or waiting for one.
    Counter connects_ok;
    Counter connects_failed;
    Counter retries;

   private:
    friend class PluginMetrics;
    static constexpr size_t kEndpoints = static_cast<size_t>(PluginEndpoint::kCount);
    static constexpr size_t kStatuses = static_cast<size_t>(PluginCallStatus::kCount);
    static constexpr size_t kSources = static_cast<size_t>(PluginStatusSource::kCount);

    struct Outcome {
      Counter calls;
      Histogram seconds{kPluginDurationBoundsSeconds};
    };
    struct Endpoint {
      std::array<std::array<Outcome, kSources>, kStatuses> outcomes;
      Histogram request_bytes{kPluginSizeBoundsBytes};
    };
    void Collect(MetricsPage& page) const;
    void CollectEndpoint(MetricsPage& page, std::string_view endpoint_name, const Endpoint& endpoint) const;

    const std::string plugin_id_;
    std::array<std::atomic<Endpoint*>, kEndpoints> endpoints_{};  // Made at the first call.
    Record* next_ = nullptr;
  };

  PluginMetrics() = default;
  ~PluginMetrics();
  PluginMetrics(const PluginMetrics&) = delete;
  PluginMetrics& operator=(const PluginMetrics&) = delete;

  // The record of a plugin, made at its first use. Worker's thread; good while this object lives.
  Record& For(std::string_view plugin_id);
  // Any thread.
  void Collect(MetricsPage& page) const;

 private:
  std::atomic<Record*> head_{nullptr};
};

}  // namespace dpa
