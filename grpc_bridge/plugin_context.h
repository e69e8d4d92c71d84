// PluginContext is the first field of every request to a plugin: for whom, with which settings, from which host.
// Everything of it that does not change from request to request is serialized once per snapshot; a request only copies
// bytes:
//
//     PluginContexts (immutable, one per change of data sources or plugins)
//        (org id, uid) ──▶ PluginContextEntry { source, body }     body: PluginContext without user and namespace
//
//     AppendPluginContext(*entry, ns, user, out)   ──▶   0A <length> body namespace? user?
//
// The namespace is not part of what is kept because clients choose it (`stacks-1`, `stacks-2`, … all mean org 1).
// Maps are written in order of their keys, so equal settings give equal bytes: a plugin compares grafanaConfig and
// throws its instance away when it differs.

#pragma once

#include <cstdint>
#include <expected>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "grpc_bridge/datasources.h"
#include "grpc_bridge/plugin_directory.h"

namespace dpa {

struct NamespaceInfo {
  int64_t org_id = 0;
  int64_t stack_id = 0;  // 0 if the namespace names no stack.
};

// `default` → org 1, `org-N` → N (N ≥ 2), `stacks-N` and the older `stack-N` → org 1.
// Errors: a sentence for the client; every other name is one (there is no organisation that it could mean).
std::expected<NamespaceInfo, std::string> ParseNamespace(std::string_view name);

struct PluginContextOptions {
  // Sent as `Grafana/<version> (<os>; <arch>)`, the only form that the Go SDK accepts.
  std::string grafana_version = "13.0.0";
  // Sent as it is; see DefaultGrafanaConfig.
  std::map<std::string, std::string> grafana_config;
};

// The keys that plugins insist on (the SQL ones), with Grafana's defaults.
std::map<std::string, std::string> DefaultGrafanaConfig();

// Errors: a sentence if `version` is not MAJOR.MINOR.PATCH with an optional suffix without spaces.
std::expected<std::string, std::string> GrafanaUserAgent(std::string_view version);

// The user of a request; empty members are left out.
struct PluginUser {
  std::string_view login, name, email, role;
};

struct PluginContextEntry {
  const DataSource* source = nullptr;
  std::string body;
};

class PluginContexts {
 public:
  PluginContexts();
  // Keeps `sources` alive. A data source whose plugin is not in `plugins` has an entry with an empty pluginVersion.
  // REQUIRES: GrafanaUserAgent(options.grafana_version) is no error.
  PluginContexts(std::shared_ptr<const DataSourceSet> sources, const PluginDirectory& plugins,
                 const PluginContextOptions& options);

  // nullptr if the organisation has no such data source. The pointer is good while this object lives.
  const PluginContextEntry* Find(int64_t org_id, std::string_view uid) const;
  std::span<const PluginContextEntry> entries() const { return entries_; }

 private:
  std::shared_ptr<const DataSourceSet> sources_;
  std::vector<PluginContextEntry> entries_;  // Sorted by (org_id, uid).
};

// Appends field 1 (tag, length, message) of any plugin request. `user` may be nullptr (a call on the host's own
// behalf). Text that is not UTF-8 is repaired (U+FFFD): one such byte would make a Go plugin refuse the whole call.
void AppendPluginContext(const PluginContextEntry& entry, std::string_view namespace_name, const PluginUser* user,
                         std::string& out);
// The same without a data source (CollectMetrics and CheckHealth of an app): only what every plugin needs.
void AppendPluginContext(std::string_view plugin_id, std::string_view plugin_version, int64_t org_id,
                         std::string_view namespace_name, const PluginContextOptions& options, std::string& out);

}  // namespace dpa
