// DataPlaneService: which requests go to which plugin or HTTP backend, as an operator declares it.
//
//     apiVersion: aggregation.grafana.app/v0alpha1
//     kind: DataPlaneService
//     metadata: {name: v0alpha1.prometheus.grafana.app}     # always <version>.<group>; cluster-scoped
//     spec:
//       pluginID: prometheus
//       pluginType: datasource                              # or app
//       group: prometheus.grafana.app
//       version: v0alpha1
//       backend: {type: http, baseURL: "http://host:8080"}  # optional; default is {type: plugin}
//       services:
//         - type: query
//         - type: route                                     # without a path: …/{uid}/resources[/…]
//         - {type: route, method: GET, path: /things/{id}}
//
// A field keeps where it was written, so that whoever finds it wrong can say file, line and column.

#pragma once

#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "http/route_table.h"

namespace dpa {

inline constexpr std::string_view kAggregationGroup = "aggregation.grafana.app";
inline constexpr std::string_view kAggregationApiVersion = "aggregation.grafana.app/v0alpha1";
inline constexpr std::string_view kDataPlaneServiceKind = "DataPlaneService";

// Both count from 1; 0 means unknown. Columns count bytes.
struct SourcePosition {
  int line = 0;
  int column = 0;

  friend auto operator<=>(const SourcePosition&, const SourcePosition&) = default;
};

// One thing that is wrong, or, in a list of warnings, worth knowing.
struct Problem {
  std::string file;  // Empty when the object did not come from a file.
  int line = 0;
  int column = 0;
  std::string field;    // "spec.services[1].path"; empty when it is about the whole file.
  std::string message;  // Reads on from the field: "must be …". What the file chose is quoted and escaped.

  friend auto operator<=>(const Problem&, const Problem&) = default;
};
// "file:line:column: field: message", without the parts that are unknown.
std::string ToString(const Problem& problem);

// A string field. When it is absent, `at` is where the mapping begins that should have held it.
struct Field {
  std::string value;
  SourcePosition at;
  bool present = false;
};

struct ServiceEntry {
  SourcePosition at;
  Field type;
  Field method;
  Field path;
};

struct BackendSpec {
  SourcePosition at;
  bool present = false;
  Field type;
  Field base_url;
};

struct DataPlaneService {
  std::string file;
  std::string field_prefix;  // "items[3]." for a member of a List, else empty.
  SourcePosition at;

  Field name;
  std::map<std::string, std::string> labels;
  std::map<std::string, std::string> annotations;

  Field plugin_id;
  Field plugin_type;
  Field group;
  Field version;
  std::vector<ServiceEntry> services;
  BackendSpec backend;

  bool http_backend() const { return backend.type.value == "http"; }
};

// A Problem of `service` at `field` ("spec.group").
Problem ProblemAt(const DataPlaneService& service, SourcePosition at, std::string_view field, std::string message);

// What services[].type says, nullopt if it is no known type. `route` is kRoute with a path and kResource without one:
// then it declares …/{uid}/resources[/…]. Both spellings datasource-proxy and datsource-proxy are known.
std::optional<ServiceType> ServiceTypeOf(const ServiceEntry& entry);

// `value` for a message: quoted, escaped, cut after 80 bytes.
std::string Shown(std::string_view value);

}  // namespace dpa
