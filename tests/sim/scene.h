// Scene is a whole simulated run: clients, a server with its proxy, and delegates, on one worker and one SimRing; what
// is drawn from the seed, and what is compared at its end.

#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "core/snapshot.h"
#include "http/proxy.h"
#include "http/server.h"
#include "tests/sim/scene_books.h"
#include "tests/sim/scene_client.h"
#include "tests/sim/scene_delegate.h"
#include "tests/sim/sim_world.h"

namespace dpa {

struct SceneOptions {
  uint32_t clients_count = 8;
  ClientManners clients;
  DelegateManners delegates;
  bool network_faults = false;
  // Chances out of 1000 of, for the whole scene:
  uint32_t short_timeouts = 0;     // Each timeout is short enough to fire in the middle of things.
  uint32_t pool_limits = 0;        // Few leases, a short queue, and a connection limit.
  uint32_t connection_limits = 0;  // Few requests per connection, few connections, few requests in flight.
  uint32_t drains = 0;             // In the middle; with a deadline, and sometimes an abort before it.
  uint64_t drain_ms_max = 5000;
  uint64_t drain_ms_min = 0;
};

class Scene {
 public:
  Scene(SimWorld& world, const SceneOptions& options);
  ~Scene();

  // All of it, to the end.
  void Run();

  const SceneBooks& books() const { return books_; }
  const HttpMetrics& metrics() const { return metrics_; }

 private:
  DownstreamOptions DrawDownstream();
  UpstreamPoolOptions DrawUpstream();
  void MakeDelegates();
  Task<void> Drain();
  Task<void> AbortLater();
  Task<void> DrainInTheMiddle();
  Task<void> End();
  void Compare();

  SimWorld& world_;
  const SceneOptions options_;
  const Address address_;
  SceneBooks books_;
  SceneCauses causes_;
  HttpMetrics metrics_;
  SnapshotPublisher<RouteTable> routes_;
  std::vector<UpstreamUrl> urls_;
  std::vector<std::unique_ptr<SceneDelegate>> delegates_;
  std::vector<std::unique_ptr<SceneClient>> clients_;
  std::unique_ptr<ProxyHandler> proxy_;
  std::unique_ptr<HttpServer> server_;
  TaskScope running_;
  bool draining_ = false;
};

}  // namespace dpa
