// The data sources that plugins are called for, read from Grafana's provisioning YAML (--datasources, files and
// folders).
//
//     apiVersion: 1                       # absent or 0: the old form, with snake_case keys (org_id, json_data, …)
//     datasources:
//       - name: Metrics                   # required, unique in its organisation
//         type: prometheus                # required, the plugin id
//         uid: metrics                    # default: "P" + upper-case hex of the first 8 bytes of SHA-256(name); unique
//         orgId: 1                        # default 1
//         url: http://$HOST:9090
//         jsonData: {timeout: 30}
//         secureJsonData: {password: $__file{/run/secrets/metrics}}
//
// Strings are interpolated: $VAR, ${VAR}, $__env{VAR}, $__file{path} (trimmed), $$ for a dollar. What a variable or
// file holds is taken as it is and not interpolated again, so a password may hold dollars. Unset variables are empty,
// with a warning. `deleteDatasources` and `prune` say what Grafana's database should forget; there is none here, so
// they have no effect.
//
// Identity. Plugins keep one instance (connections, caches) per numeric `id` and rebuild it when `last_updated_ms`
// changes:
//   * id: 53 bits of SHA-256 over (org id, uid), the same in every process and replica. Should two collide, the later
//     one in order of (org id, uid) takes the next hash of its chain; on a reload, an entry that was there keeps its
//     id.
//   * last_updated_ms: 40 bits of SHA-256 over all that the plugin is told (secrets in clear), as a time between 1990
//     and 2024. It changes when the content does (a secret behind $__file included) and survives restart, `touch` and
//     reordering. It says nothing about when.
//
// Thread safety: a DataSourceSet is immutable once published.

#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace dpa {

struct DataSource {
  int64_t org_id = 1;
  std::string uid;
  std::string name;
  std::string type;  // The plugin id.
  std::string access = "proxy";
  std::string url;
  std::string user;
  std::string database;
  bool basic_auth = false;
  std::string basic_auth_user;
  bool with_credentials = false;
  bool is_default = false;
  std::string json_data = "{}";  // A JSON object.
  std::map<std::string, std::string> secure_json_data;

  int64_t id = 0;               // Positive.
  int64_t last_updated_ms = 0;  // Positive.
  std::string file;             // Where it was declared.
  int line = 0;
};

class DataSourceSet {
 public:
  DataSourceSet() = default;
  // Sorts `sources`, gives ids and last_updated_ms. `previous` may be nullptr.
  // REQUIRES: (org_id, uid) is unique.
  DataSourceSet(std::vector<DataSource> sources, const DataSourceSet* previous);

  // nullptr if the organisation has no such data source.
  const DataSource* Find(int64_t org_id, std::string_view uid) const;
  // Sorted by (org_id, uid).
  std::span<const DataSource> sources() const { return sources_; }

 private:
  std::vector<DataSource> sources_;
};

struct DataSourceProblem {
  enum class Severity : uint8_t { kWarning, kError };
  Severity severity = Severity::kError;
  std::string file;
  int line = 0;  // From 1; 0 when the file as a whole is meant.
  std::string message;

  std::string ToString() const;  // "file:12: message"
};

struct DataSourceLoad {
  // Never null. Holds every entry without an error; a caller that wants all or nothing looks at has_errors().
  std::shared_ptr<const DataSourceSet> set;
  std::vector<DataSourceProblem> problems;  // In order of files and lines.

  bool has_errors() const;
};

struct DataSourceLoadOptions {
  // The value of an environment variable, nothing if unset. Default: the process's environment.
  std::function<std::optional<std::string>(const std::string& name)> environment;
  size_t file_bytes_max = 8 << 20;  // Of one YAML file, and of one $__file{}.
  size_t nodes_max = 200'000;       // Of one YAML file with its aliases expanded.
  size_t json_depth_max = 64;       // Of jsonData.
};

// Reads every path: a file, or the *.yaml and *.yml files of a folder in alphabetical order (not deeper). The same
// entry twice (uid or name in one organisation) and a second isDefault in one organisation are errors; the first one
// stands. `previous` is the set in force, nullptr at start.
DataSourceLoad LoadDataSources(std::span<const std::string> paths, const DataSourceLoadOptions& options,
                               const DataSourceSet* previous);

// The same for one text, as if it were the only file. For tests and --check of a manifest from elsewhere.
DataSourceLoad LoadDataSourcesFromText(std::string_view yaml, const std::string& file,
                                       const DataSourceLoadOptions& options, const DataSourceSet* previous);

}  // namespace dpa
