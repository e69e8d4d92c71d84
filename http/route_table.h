// RouteTable says who answers a request: a compiled radix trie over path segments, immutable once built.
//
// A pattern is a path of segments, each a literal, a capture `{name}` (exactly one non-empty segment), or, last only, a
// trailing wildcard `{name...}` (the rest of the path, possibly empty, slashes included):
//
//     /apis/{group}/{version}/namespaces/{ns}/datasources/{uid}/query        (group and version literal in practice)
//     /apis/g.example/v1/namespaces/{ns}/datasources/{uid}/resources/{path...}
//
// Precedence at each segment: literal, then capture, then wildcard; a dead end backs up to the next choice, so the most
// specific pattern that matches wins whatever the order of registration. Methods: a pattern registered for GET also
// answers HEAD; an empty method answers every method; a method of its own wins over the empty one.
//
// Matching is bytewise on the path that it is given, split at '/' before any percent-decoding, so an encoded slash
// never makes a segment; http/target_judge.h sees to it that nobody reads the path differently. A literal with escapes
// matches as it is written and decoded. A trailing slash is an empty last segment and matches neither a literal nor a
// capture; a wildcard needs the slash before it (`/a/{rest...}` answers `/a/` and `/a/b`, not `/a`: register both where
// both are meant). An empty, `.` or `..` segment in a pattern is malformed, and so is a literal that no request could
// name without ambiguity: with ';', or with an encoded separator or NUL. A pattern whose methods all differ from the
// request's is a dead end like any other.
//
// Cost: a node of the trie lies at one depth, so one Match visits it at most once: backing up is bounded by the count
// of nodes, whatever the path, and literal siblings are found by hash.
//
// Thread safety: a RouteTable is immutable; any number of threads may Match at once.

#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <expected>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace dpa {

// What a DataPlaneService declares, and what it becomes on the wire (design: paths served).
enum class ServiceType : uint8_t {
  kQuery,            // Data.QueryData
  kRoute,            // Resource.CallResource, or an HTTP backend
  kResource,         // …/resources/{path...}: Resource.CallResource
  kHealth,           // Diagnostics.CheckHealth
  kStream,           // Stream.*
  kAdmission,        // AdmissionControl.*
  kConversion,       // ResourceConversion.ConvertObjects
  kDatasourceProxy,  // the URL in the data source's settings
};
std::string_view ToString(ServiceType type);

// The answerer of a route. Owned by the RouteTable; pointers to it are good while the table is pinned.
struct RouteTarget {
  ServiceType type = ServiceType::kQuery;
  std::string service_name;  // metadata.name of the DataPlaneService: label of metrics and log.
  std::string group;
  std::string version;
  std::string plugin_id;    // Empty for an HTTP backend.
  std::string plugin_type;  // "datasource" or "app".
  std::string backend_url;  // HTTP backend's base URL; empty for a plugin.
  std::string path;         // services[].path of a `route`, empty otherwise.

  bool operator==(const RouteTarget&) const = default;
};

struct RouteMatch {
  static constexpr size_t kCapturesMax = 8;
  struct Capture {
    std::string_view name;   // Owned by the table.
    std::string_view value;  // Raw bytes of the path given to Match; not percent-decoded.
  };

  const RouteTarget* target = nullptr;  // nullptr: nothing matches, delegate.
  // The path matches a pattern but no method of it does. The request is delegated all the same; this is for the log.
  bool method_mismatch = false;
  uint8_t captures_count = 0;
  bool has_wildcard = false;  // The last capture is a wildcard's: the rest of the path.
  std::array<Capture, kCapturesMax> captures;

  // The raw value of the capture `name`, empty if there is none.
  std::string_view capture(std::string_view name) const {
    for (uint8_t i = 0; i < captures_count; ++i) {
      if (captures[i].name == name) return captures[i].value;
    }
    return {};
  }
};

class RouteTable {
 public:
  RouteTable();  // Empty: nothing matches.
  ~RouteTable();
  RouteTable(RouteTable&&) noexcept;
  RouteTable& operator=(RouteTable&&) noexcept;

  // One walk of the trie. `path` is the request target up to '?'. Neither allocates nor waits.
  // `match` is overwritten; its views point into the table and into `path`.
  void Match(std::string_view method, std::string_view path, RouteMatch& match) const noexcept;

  size_t route_count() const;
  // Of all targets, each once, sorted.
  std::vector<std::string> BackendUrls() const;
  // A version that the publisher gives: larger is newer. For the status page and metrics.
  uint64_t generation = 0;

 private:
  friend class RouteTableBuilder;
  struct Trie;
  std::unique_ptr<Trie> trie_;
};

class RouteTableBuilder {
 public:
  RouteTableBuilder();
  ~RouteTableBuilder();

  static constexpr size_t kSegmentsMax = 64;

  // Adds one pattern. The error is a sentence for people: a malformed pattern (what and where), more than kSegmentsMax
  // segments or RouteMatch::kCapturesMax captures, a duplicate capture name, or the same pattern and method twice
  // (naming the service that has it). Patterns that differ only in their capture names are the same pattern.
  std::expected<void, std::string> Add(std::string_view method, std::string_view pattern, RouteTarget target);

  // REQUIRES: called once; the builder is empty afterwards.
  RouteTable Build();

 private:
  struct Node;
  std::unique_ptr<Node> root_;
  std::vector<RouteTarget> targets_;
};

}  // namespace dpa
