#include "tools/aggregator/control_plane.h"

#include <nlohmann/json.hpp>
#include <utility>

#include "core/log.h"

namespace dpa {
namespace {

PluginContextOptions ContextOptions() {
  PluginContextOptions options;
  options.grafana_config = DefaultGrafanaConfig();
  return options;
}

UpstreamResolverOptions ResolverOptions(const Options& options) {
  UpstreamResolverOptions made;
  made.interval_ms = static_cast<uint64_t>(options.delegate_resolve_interval.count());
  return made;
}

std::string FirstOf(const std::vector<std::string>& lines) {
  if (lines.size() <= 1) return lines.empty() ? "" : lines.front();
  return fmt::format("{} (and {} more)", lines.front(), lines.size() - 1);
}

}  // namespace

ControlPlane::ControlPlane(const Options& options, std::span<const ServiceType> implemented)
    : options_(options),
      routes_(std::make_shared<const RouteTable>()),
      plugins_(std::make_shared<const PluginDirectory>()),
      contexts_(std::make_shared<const PluginContexts>()),
      resolver_(ResolverOptions(options), Address::ResolveAll),
      sources_(std::make_shared<const DataSourceSet>()) {
  if (!options.services_dir.empty()) {
    ManifestWatcherOptions watcher;
    watcher.folder = options.services_dir;
    watcher.support.types.assign(implemented.begin(), implemented.end());
    watcher.support.http_backends = true;
    manifests_ = std::make_unique<ManifestWatcher>(watcher, [this](std::shared_ptr<const RouteTable> table) {
      // Their addresses first: whoever sees the route shall find them.
      resolver_.SetBackends(table->BackendUrls());
      routes_.Publish(std::move(table));
      Wake();
    });
  }
  if (!options.plugin_dirs.empty()) {
    PluginSupervisorOptions supervisor;
    supervisor.dirs = options.plugin_dirs;
    supervisor.start_timeout_ms = options.plugin_start_timeout.count();
    supervisor.stop_timeout_ms = options.plugin_stop_timeout.count();
    supervisor.backoff_first_ms = options.plugin_restart_backoff_min.count();
    supervisor.backoff_max_ms = options.plugin_restart_backoff_max.count();
    supervisor_ =
        std::make_unique<PluginSupervisor>(supervisor, [this](std::shared_ptr<const PluginDirectory> directory) {
          plugins_.Publish(std::move(directory));
          PublishContexts();
          Wake();
        });
  }
}

ControlPlane::~ControlPlane() { Stop(); }

std::vector<std::string> ControlPlane::Load() {
  std::vector<std::string> problems;
  for (const std::string& problem : resolver_.Add(options_.delegates)) problems.push_back("--delegate " + problem);
  LoadSources();
  for (const DataSourceProblem& problem : source_problems_) {
    if (problem.severity == DataSourceProblem::Severity::kError) problems.push_back(problem.ToString());
  }
  if (manifests_) {
    for (const Problem& problem : manifests_->LoadOnce()) problems.push_back(ToString(problem));
  }
  return problems;
}

std::expected<void, std::string> ControlPlane::Start(std::function<void()> wake) {
  {
    const std::lock_guard lock(mutex_);
    wake_ = std::move(wake);
  }
  if (supervisor_) {
    if (const std::expected<void, std::string> started = supervisor_->Start(); !started) return started;
  }
  if (manifests_) manifests_->Start();
  resolver_.Start([this] { Wake(); });
  return {};
}

void ControlPlane::Reload() {
  LogInfo("reload", "sources=datasources,services");
  LoadSources();
  if (manifests_) manifests_->Rescan();
  Wake();
}

void ControlPlane::Stop() {
  resolver_.Stop();
  if (manifests_) manifests_->Stop();
  if (supervisor_) supervisor_->Stop();
}

void ControlPlane::LoadSources() {
  std::shared_ptr<const DataSourceSet> previous;
  {
    const std::lock_guard lock(mutex_);
    previous = sources_;
  }
  DataSourceLoad load = LoadDataSources(options_.datasources, {}, previous.get());
  for (const DataSourceProblem& problem : load.problems) {
    const bool error = problem.severity == DataSourceProblem::Severity::kError;
    if (error) LogError("datasource_problem", "{}", problem.ToString());
    if (!error) LogWarn("datasource_problem", "{}", problem.ToString());
  }
  {
    const std::lock_guard lock(mutex_);
    source_problems_ = load.problems;
    // One bad file keeps the last good set as a whole: half of a change is a state that nobody has written down.
    if (load.has_errors()) {
      ++source_loads_bad_;
      return;
    }
    ++source_loads_good_;
    sources_ = load.set;
  }
  LogInfo("datasources_loaded", "count={}", load.set->sources().size());
  PublishContexts();
}

void ControlPlane::PublishContexts() {
  // Under the lock as a whole: two threads must not publish in another order than they read.
  const std::lock_guard lock(mutex_);
  contexts_.Publish(std::make_shared<const PluginContexts>(sources_, *plugins_.Current(), ContextOptions()));
}

void ControlPlane::Wake() {
  std::function<void()> wake;
  {
    const std::lock_guard lock(mutex_);
    wake = wake_;
  }
  if (wake) wake();
}

// --- What it says of itself ---

std::optional<std::string> ControlPlane::CheckServices() const {
  if (!manifests_) return std::nullopt;
  std::vector<std::string> lines;
  for (const Problem& problem : manifests_->status().problems) lines.push_back(ToString(problem));
  if (lines.empty()) return std::nullopt;
  return FirstOf(lines);
}

std::optional<std::string> ControlPlane::CheckDataSources() const {
  const std::lock_guard lock(mutex_);
  std::vector<std::string> lines;
  for (const DataSourceProblem& problem : source_problems_) {
    if (problem.severity == DataSourceProblem::Severity::kError) lines.push_back(problem.ToString());
  }
  if (lines.empty()) return std::nullopt;
  return FirstOf(lines);
}

std::optional<std::string> ControlPlane::CheckPlugin(std::string_view id) const {
  const std::shared_ptr<const PluginDirectory> directory = plugins_.Current();
  const PluginEntry* entry = directory->Find(id);
  if (entry == nullptr) return "not installed";
  if (entry->state == PluginState::kRunning) return std::nullopt;
  return entry->failure.empty() ? std::string(ToString(entry->state)) : entry->failure;
}

std::vector<std::string> ControlPlane::PluginIds() const {
  std::vector<std::string> ids;
  for (const PluginEntry& entry : plugins_.Current()->plugins) ids.push_back(entry.id);
  return ids;
}

std::vector<std::string> ControlPlane::UnresolvedUpstreams() const {
  std::vector<std::string> lines;
  for (const UpstreamResolver::Status& upstream : resolver_.StatusOfAll()) {
    if (!upstream.error.empty()) lines.push_back(fmt::format("{}: {}", upstream.url, upstream.error));
  }
  return lines;
}

std::string ControlPlane::StatusJson() const {
  nlohmann::ordered_json json;
  if (manifests_) {
    const ManifestStatus status = manifests_->status();
    auto& services = json["services"];
    services["generation"] = status.generation;
    services["count"] = status.services_count;
    services["routes"] = status.routes_count;
    services["problems"] = nlohmann::json::array();
    for (const Problem& problem : status.problems) services["problems"].push_back(ToString(problem));
    services["warnings"] = nlohmann::json::array();
    for (const Problem& problem : status.warnings) services["warnings"].push_back(ToString(problem));
  }
  json["upstreams"] = nlohmann::json::array();
  for (const UpstreamResolver::Status& upstream : resolver_.StatusOfAll()) {
    json["upstreams"].push_back({{"url", upstream.url}, {"addresses", upstream.addresses}, {"error", upstream.error}});
  }
  json["plugins"] = nlohmann::json::array();
  for (const PluginEntry& entry : plugins_.Current()->plugins) {
    json["plugins"].push_back({{"id", entry.id},
                               {"type", entry.type},
                               {"version", entry.version},
                               {"state", ToString(entry.state)},
                               {"pid", entry.pid},
                               {"incarnation", entry.incarnation},
                               {"address", entry.address},
                               {"failure", entry.failure}});
  }
  const std::lock_guard lock(mutex_);
  auto& sources = json["datasources"];
  sources["count"] = sources_->sources().size();
  sources["problems"] = nlohmann::json::array();
  for (const DataSourceProblem& problem : source_problems_) sources["problems"].push_back(problem.ToString());
  const std::string text = json.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
  return text.substr(1, text.size() - 2);
}

void ControlPlane::Collect(MetricsPage& page) const {
  resolver_.Collect(page);
  if (manifests_) {
    const ManifestStatus status = manifests_->status();
    page.AddGauge("dpa_services", "DataPlaneServices in force.", {}, static_cast<double>(status.services_count));
    page.AddGauge("dpa_routes", "Route patterns in force.", {}, static_cast<double>(status.routes_count));
    page.AddGauge("dpa_routes_generation", "Generation of the route table in force.", {},
                  static_cast<double>(status.generation));
    page.AddCounter("dpa_services_loads_total", "Readings of changed manifests, by result.", {{"result", "good"}},
                    static_cast<double>(status.loads_good));
    page.AddCounter("dpa_services_loads_total", "Readings of changed manifests, by result.", {{"result", "bad"}},
                    static_cast<double>(status.loads_bad));
  }
  for (const PluginEntry& entry : plugins_.Current()->plugins) {
    page.AddGauge("dpa_plugin_up", "Whether the plugin answers calls.", {{"plugin_id", entry.id}},
                  entry.state == PluginState::kRunning ? 1 : 0);
  }
  if (supervisor_) {
    for (const PluginCounts& counts : supervisor_->counts()) {
      page.AddCounter("dpa_plugin_starts_total", "Processes of the plugin that were started.",
                      {{"plugin_id", counts.id}}, static_cast<double>(counts.starts));
      page.AddCounter("dpa_plugin_exits_total", "Ends of the running plugin that nobody asked for.",
                      {{"plugin_id", counts.id}}, static_cast<double>(counts.exits));
      page.AddCounter("dpa_plugin_start_failures_total", "Starts of the plugin that did not come to run.",
                      {{"plugin_id", counts.id}}, static_cast<double>(counts.start_failures));
    }
  }
  const std::lock_guard lock(mutex_);
  page.AddGauge("dpa_datasources", "Data sources in force.", {}, static_cast<double>(sources_->sources().size()));
  page.AddCounter("dpa_datasources_loads_total", "Readings of the data sources, by result.", {{"result", "good"}},
                  static_cast<double>(source_loads_good_));
  page.AddCounter("dpa_datasources_loads_total", "Readings of the data sources, by result.", {{"result", "bad"}},
                  static_cast<double>(source_loads_bad_));
}

}  // namespace dpa
