// ProxyHandler answers the exchanges of the data listeners: it is the place where one request's way is decided.
//
//     local path --> LocalPaths          (health endpoints, version)
//     plugin service --> PluginHost      (the types that the host implements)
//     HTTP backend --> its own pool      (spec.backend)
//     anything else --> the delegate     (404 without one)
//
// One per worker. Requests are matched on the newest RouteTable at their beginning, and keep it until their record is
// written.

#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <string_view>

#include "core/snapshot.h"
#include "core/worker.h"
#include "http/exchange.h"
#include "http/forward.h"
#include "http/local_paths.h"
#include "http/plugin_host.h"
#include "http/route_table.h"
#include "http/upstream_group.h"
#include "http/upstream_url.h"

namespace dpa {

struct ProxyOptions {
  uint32_t implemented_types = 0;  // Bits 1 << ServiceType: what PluginHost answers. Others are delegated.
  // --delegate-request-timeout: from the request's head to the last byte of its answer, tunnels excepted. 0: none,
  // since watches and log streams live as long as somebody looks.
  uint64_t request_timeout_ms = 0;
  uint64_t request_body_bytes_max = 0;  // --max-request-body-bytes; beyond it: 413. 0: no limit.
  ForwardOptions forward;
  UpstreamGroupOptions group;
  UpstreamPoolOptions upstream;

  bool implements(ServiceType type) const { return implemented_types >> static_cast<uint32_t>(type) & 1; }
};

class ProxyHandler final : public ExchangeHandler, private TurnObserver {
 public:
  // Everything given outlives the handler. nullptr for `plugins` and `local`, and no delegates: there are none.
  // `delegates` are URLs in the directory, whose addresses may change; so do those of HTTP backends.
  ProxyHandler(Worker& worker, const SnapshotPublisher<RouteTable>& routes,
               const SnapshotPublisher<UpstreamDirectory>& directory, const std::vector<std::string>& delegates,
               PluginHost* plugins, LocalPaths* local, const ProxyOptions& options, HttpMetrics& metrics);
  // With delegates at these addresses for ever, and HTTP backends at literal ones only.
  ProxyHandler(Worker& worker, const SnapshotPublisher<RouteTable>& routes, const std::vector<UpstreamUrl>& delegates,
               PluginHost* plugins, LocalPaths* local, const ProxyOptions& options, HttpMetrics& metrics);
  ~ProxyHandler() override;  // REQUIRES: Drain() has completed.

  Task<void> Handle(Exchange& exchange) override;

  // Closes the connections to upstreams. REQUIRES: no exchange is under way; the server has drained.
  Task<void> Drain();

  const RouteTable& routes() const { return routes_.current(); }
  // What is counted per endpoint. Any thread.
  void Collect(MetricsPage& page) const;

 private:
  using Groups = std::vector<const UpstreamGroup*>;
  struct Backend {
    std::unique_ptr<UpstreamGroup> group;
    std::string error;  // Why there is no group.
  };

  void OnTurn() override { routes_.Adopt(); }
  Task<void> ServeBackend(Exchange& exchange, const RouteTarget& target);
  Task<void> Delegate(Exchange& exchange, UpstreamGroup& upstreams);
  bool TakeRetry(const FailedAttempt& attempt, RetryBudget& budget);
  Task<void> Fail(Exchange& exchange, Reason reason);
  Backend& FindBackend(const std::string& url);
  std::expected<std::unique_ptr<UpstreamGroup>, std::string> MakeBackend(const std::string& url);
  void PublishGroups();

  Worker& worker_;
  SnapshotReader<RouteTable> routes_;
  const SnapshotPublisher<UpstreamDirectory>* const directory_;  // nullptr: addresses are fixed.
  PluginHost* const plugins_;
  LocalPaths* const local_;
  const ProxyOptions options_;
  HttpMetrics& metrics_;
  Forwarder forwarder_;
  std::unique_ptr<UpstreamGroup> delegates_;
  std::map<std::string, Backend, std::less<>> backends_;  // By URL.
  SnapshotPublisher<Groups> groups_;                      // All of them, for the scrape.
};

}  // namespace dpa
