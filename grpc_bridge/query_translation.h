// An HTTP query, `{"from": …, "to": …, "queries": [{…}, …]}`, turned into a serialized pluginv2.QueryDataRequest.
//
// Every query object goes to the plugin byte for byte as the client wrote it, minus its `timeRange` member; the fields
// that the protocol wants beside it (refId, maxDataPoints, intervalMs, time range, queryType) are read out of it. All
// of the body is checked to be JSON, also what is only passed on.
//
// Checks, in this order; every failure is a 400 with one Reason and a sentence that says where:
//   the body is JSON (bad_json, too_deep) · members have their types (bad_query) · later data sources equal the first
//   one's (datasource_mismatch) · times can be read (bad_time) · the first query names a data source
//   (datasource_missing) · its type is the service's plugin, its uid the path's (datasource_mismatch) · refIds differ
//   (duplicate_ref_id)
//
// What Grafana's aggregator does and is kept: top-level keys in any case, bytes after the JSON value ignored, `hide`
// not acted on, a data source given as a string taken as a uid (and so refused by type), an empty refId allowed (once).

#pragma once

#include <cstddef>
#include <cstdint>
#include <expected>
#include <memory>
#include <span>
#include <string>
#include <string_view>

#include "grpc_bridge/plugin_context.h"
#include "http/reason.h"

namespace dpa {

struct QueryError {
  using Reason =
      dpa::Reason;  // One list for body, access record and metrics; those used here: kBadJson … kDuplicateRefId.
  int http_status = 400;
  Reason reason = Reason::kBadJson;
  std::string message;
};

// Bytes that must be readable (their value does not matter) after the end of a body.
inline constexpr size_t kQueryBodyPadding = 64;

struct QueryLimits {
  size_t depth_max = 256;           // Of the body's nesting.
  size_t queries_max = 1000;        // In one request.
  size_t kept_bytes_max = 1 << 20;  // Working memory is given back after a body larger than this.
};

// A request header for the plugin, in the spelling in which the plugin shall see it.
struct QueryHeader {
  std::string_view name;
  std::string_view value;
};

// The spelling of a request header that Grafana passes on to plugins (X-Dashboard-Uid, X-Panel-Id, X-Rule-Uid,
// FromAlert, …), found by `name` in any case; empty if it is not one of them. Never one that authenticates the client
// to the host.
std::string_view ForwardedHeaderName(std::string_view name);

struct QueryTarget {
  std::string_view plugin_id;       // What datasource.type must be.
  std::string_view uid;             // What datasource.uid must be; percent-decoded.
  std::string_view namespace_name;  // As in the path; percent-decoded.
  const PluginContextEntry* context = nullptr;
  const PluginUser* user = nullptr;      // May be nullptr.
  std::span<const QueryHeader> headers;  // Empty values are left out; of a repeated name the last one counts.
};

struct QuerySummary {
  size_t query_count = 0;
};

// One per worker; keeps its working memory between calls, so that the steady state does not allocate.
class QueryTranslator {
 public:
  explicit QueryTranslator(const QueryLimits& limits = {});
  ~QueryTranslator();
  QueryTranslator(QueryTranslator&&) noexcept;
  QueryTranslator& operator=(QueryTranslator&&) noexcept;

  // Appends the message to `out` (which may already hold a frame prefix); appends nothing on an error.
  // REQUIRES: kQueryBodyPadding bytes after the end of `body` are readable; target.context is set.
  std::expected<QuerySummary, QueryError> Translate(std::string_view body, const QueryTarget& target, int64_t now_ms,
                                                    std::string& out);

  // Bytes of working memory held, for tests and metrics.
  size_t held_bytes() const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace dpa
