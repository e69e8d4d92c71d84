// DataPlane is everything that one worker needs to answer clients, wired together: its servers, the proxy, the plugin
// client, its counters and its end of the access log. Made, used and destroyed on the worker's thread.
//
//     HttpServer ─▶ ProxyHandler ─┬▶ LocalPaths     /livez /readyz /healthz /version
//                                 ├▶ PluginClient   plugin services
//                                 └▶ UpstreamGroup  the delegate, HTTP backends

#pragma once

#include <memory>
#include <vector>

#include "core/metrics.h"
#include "core/worker.h"
#include "grpc_bridge/plugin_client.h"
#include "http/access_log.h"
#include "http/http_metrics.h"
#include "http/local_paths.h"
#include "http/proxy.h"
#include "http/server.h"
#include "http/upstream_group.h"
#include "tools/aggregator/control_plane.h"
#include "tools/aggregator/options.h"

namespace dpa {

// What all workers share; outlives every DataPlane.
struct DataPlaneShared {
  const Options& options;
  const ControlPlane& control;
  LocalPaths& local;
  AccessLogWriter* access_log = nullptr;  // nullptr: off.
  uint32_t workers_count = 1;
  ConnectionLimiter* connections = nullptr;  // nullptr: no limit.
};

// What --max-… and the timeouts towards clients say. Nothing that bounds connections.
HttpServerOptions MakeServerOptions(const Options& options);

class DataPlane {
 public:
  DataPlane(Worker& worker, DataPlaneShared& shared);
  ~DataPlane();  // REQUIRES: Drain() has completed.

  HttpServer& server() { return server_; }

  // Ends the exchanges, then the connections to upstreams and plugins. Calls `done` when nothing is left.
  Task<void> Drain(uint64_t timeout_ms, std::function<void()> done);

  // Any thread, while the DataPlane lives.
  void Collect(MetricsPage& page) const;

 private:
  HttpMetrics metrics_;
  std::unique_ptr<WorkerAccessLog> access_log_;
  PluginClient plugins_;
  ProxyHandler proxy_;
  HttpServer server_;
};

}  // namespace dpa
