// ControlPlane keeps what the workers read: which routes there are, which plugins run, and the contexts that plugins
// are called with. It loads them, watches their sources, and publishes every change as a Snapshot.
//
//     --services DIR  ──ManifestWatcher──▶ RouteTable
//     --plugins DIR   ──PluginSupervisor─▶ PluginDirectory ─┐
//     --datasources   ──LoadDataSources──▶ DataSourceSet ───┴─▶ PluginContexts
//     --delegate, backends' URLs ──UpstreamResolver──▶ UpstreamDirectory
//
// A source with problems never replaces what is in force. Its state is told by Status(), for /readyz, /status and
// /metrics.
//
// Thread safety: Reload, Status and Collect from any thread; the rest from the owner's.

#pragma once

#include <functional>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <vector>

#include "core/metrics.h"
#include "core/snapshot.h"
#include "grpc_bridge/datasources.h"
#include "grpc_bridge/plugin_context.h"
#include "grpc_bridge/plugin_directory.h"
#include "grpc_bridge/plugin_supervisor.h"
#include "http/route_table.h"
#include "http/upstream_resolver.h"
#include "registry/manifest_watcher.h"
#include "tools/aggregator/options.h"

namespace dpa {

class ControlPlane {
 public:
  // `implemented`: service types that the data path answers; others fall through to the delegate.
  ControlPlane(const Options& options, std::span<const ServiceType> implemented);
  ~ControlPlane();

  // Reads all sources. Every problem as one line, `file:line: …`; empty if all is well. For --check nothing is started.
  std::vector<std::string> Load();
  // Starts plugins and watchers. `wake` is called after every publication, from any thread, to make workers adopt it.
  // Errors: one line.
  std::expected<void, std::string> Start(std::function<void()> wake);
  // Reads data sources and manifests again (SIGHUP).
  void Reload();
  // Ends watchers and plugins; no process of theirs is left.
  void Stop();

  const SnapshotPublisher<RouteTable>& routes() const { return routes_; }
  const SnapshotPublisher<PluginDirectory>& plugins() const { return plugins_; }
  const SnapshotPublisher<PluginContexts>& contexts() const { return contexts_; }
  const SnapshotPublisher<UpstreamDirectory>& upstreams() const { return resolver_.directory(); }

  // Failure texts for /readyz, nothing when well.
  std::optional<std::string> CheckServices() const;
  std::optional<std::string> CheckDataSources() const;
  std::optional<std::string> CheckPlugin(std::string_view id) const;
  std::vector<std::string> PluginIds() const;
  // Upstreams whose names could not be resolved the last time, a line each.
  std::vector<std::string> UnresolvedUpstreams() const;

  // The sources' part of /status, a JSON object's members.
  std::string StatusJson() const;
  void Collect(MetricsPage& page) const;

 private:
  void LoadSources();
  void PublishContexts();
  void Wake();

  const Options& options_;
  SnapshotPublisher<RouteTable> routes_;
  SnapshotPublisher<PluginDirectory> plugins_;
  SnapshotPublisher<PluginContexts> contexts_;
  UpstreamResolver resolver_;
  std::unique_ptr<ManifestWatcher> manifests_;
  std::unique_ptr<PluginSupervisor> supervisor_;

  mutable std::mutex mutex_;  // Guards what follows: several threads publish.
  std::function<void()> wake_;
  std::shared_ptr<const DataSourceSet> sources_;
  std::vector<DataSourceProblem> source_problems_;
  uint64_t source_loads_good_ = 0;
  uint64_t source_loads_bad_ = 0;
};

}  // namespace dpa
