#include "http/reason.h"

#include <array>
#include <cerrno>

#include "core/assert.h"

namespace dpa {
namespace {

struct Row {
  Reason reason;
  ReasonInfo info;
};

constexpr bool kRetryLater = true;

// In the order of the enum. The status of log-only reasons is what stands in the record; nothing is sent with it.
// client-go repeats any request, POST included, on a 5xx with Retry-After: kRetryLater only where nothing was done.
constexpr std::array<Row, kReasonsCount> kTable = {{
    {Reason::kOk, {"ok", 200, "", false}},
    {Reason::kBadRequest, {"bad_request", 400, "BadRequest", false}},
    {Reason::kHeaderTimeout, {"header_timeout", 408, "Timeout", false}},
    {Reason::kBodyTimeout, {"body_timeout", 408, "Timeout", false}},
    {Reason::kHeaderTooLarge, {"header_too_large", 431, "BadRequest", false}},
    {Reason::kTargetTooLong, {"target_too_long", 414, "BadRequest", false}},
    {Reason::kBodyTooLarge, {"body_too_large", 413, "RequestEntityTooLarge", false}},
    {Reason::kUnsupportedCoding, {"unsupported_coding", 501, "BadRequest", false}},
    {Reason::kUnsupportedVersion, {"unsupported_version", 505, "BadRequest", false}},
    {Reason::kMethodNotAllowed, {"method_not_allowed", 405, "MethodNotAllowed", false}},
    {Reason::kClientClosed, {"client_closed", 499, "", false}},
    {Reason::kClientWriteTimeout, {"client_write_timeout", 499, "", false}},
    {Reason::kBadProxyHeader, {"bad_proxy_header", 400, "", false}},
    {Reason::kConnectionLimit, {"connection_limit", 503, "ServiceUnavailable", kRetryLater}},
    {Reason::kClientConnectionLimit, {"client_connection_limit", 503, "ServiceUnavailable", kRetryLater}},
    {Reason::kOverloaded, {"overloaded", 503, "ServiceUnavailable", kRetryLater}},
    {Reason::kOutOfDescriptors, {"out_of_descriptors", 503, "ServiceUnavailable", kRetryLater}},
    {Reason::kShuttingDown, {"shutting_down", 503, "ServiceUnavailable", kRetryLater}},
    {Reason::kTunnelLimit, {"tunnel_limit", 503, "ServiceUnavailable", kRetryLater}},
    {Reason::kTunnelIdleTimeout, {"tunnel_idle_timeout", 504, "Timeout", false}},
    {Reason::kNotFound, {"not_found", 404, "NotFound", false}},
    {Reason::kInternal, {"internal", 500, "InternalError", false}},
    {Reason::kDelegateRefused, {"delegate_refused", 502, "ServiceUnavailable", kRetryLater}},
    {Reason::kDelegateUnreachable, {"delegate_unreachable", 502, "ServiceUnavailable", kRetryLater}},
    {Reason::kDelegateConnectTimeout, {"delegate_connect_timeout", 504, "Timeout", kRetryLater}},
    {Reason::kDelegateSendTimeout, {"delegate_send_timeout", 504, "Timeout", false}},
    {Reason::kDelegateTimeout, {"delegate_timeout", 504, "Timeout", false}},
    {Reason::kDelegateRequestTimeout, {"delegate_request_timeout", 504, "Timeout", false}},
    {Reason::kDelegateReset, {"delegate_reset", 502, "InternalError", false}},
    {Reason::kDelegateClosedIdle, {"delegate_closed_idle", 502, "InternalError", false}},
    {Reason::kDelegateMalformed, {"delegate_malformed", 502, "InternalError", false}},
    {Reason::kDelegateTruncated, {"delegate_truncated", 502, "InternalError", false}},
    {Reason::kDelegateBodyTimeout, {"delegate_body_timeout", 504, "Timeout", false}},
    {Reason::kDelegateQueueTimeout, {"delegate_queue_timeout", 503, "ServiceUnavailable", kRetryLater}},
    {Reason::kDelegatePoolFull, {"delegate_pool_full", 503, "ServiceUnavailable", kRetryLater}},
    {Reason::kBadJson, {"bad_json", 400, "BadRequest", false}},
    {Reason::kTooDeep, {"too_deep", 400, "BadRequest", false}},
    {Reason::kTooManyQueries, {"too_many_queries", 400, "BadRequest", false}},
    {Reason::kBadQuery, {"bad_query", 400, "BadRequest", false}},
    {Reason::kBadTime, {"bad_time", 400, "BadRequest", false}},
    {Reason::kDatasourceMissing, {"datasource_missing", 400, "BadRequest", false}},
    {Reason::kDatasourceMismatch, {"datasource_mismatch", 400, "BadRequest", false}},
    {Reason::kDuplicateRefId, {"duplicate_ref_id", 400, "BadRequest", false}},
    {Reason::kDatasourceNotFound, {"datasource_not_found", 404, "NotFound", false}},
    {Reason::kNamespaceNotFound, {"namespace_not_found", 404, "NotFound", false}},
    {Reason::kPluginNotFound, {"plugin_not_found", 404, "NotFound", false}},
    {Reason::kPluginUnavailable, {"plugin_unavailable", 503, "ServiceUnavailable", kRetryLater}},
    {Reason::kPluginOverloaded, {"plugin_overloaded", 503, "ServiceUnavailable", kRetryLater}},
    {Reason::kPluginDied, {"plugin_died", 502, "InternalError", false}},
    {Reason::kPluginTimeout, {"plugin_timeout", 504, "Timeout", false}},
    {Reason::kPluginError, {"plugin_error", 500, "InternalError", false}},
    {Reason::kPluginNotImplemented, {"plugin_not_implemented", 404, "NotFound", false}},
    {Reason::kPluginBadReply, {"plugin_bad_reply", 502, "InternalError", false}},
    {Reason::kPluginReplyTooLarge, {"plugin_reply_too_large", 502, "InternalError", false}},
}};

consteval bool InOrder() {
  for (size_t i = 0; i < kTable.size(); ++i) {
    if (static_cast<size_t>(kTable[i].reason) != i || kTable[i].info.word.empty()) return false;
  }
  return true;
}
static_assert(InOrder(), "one row per Reason, in the order of the enum");

Reason FromDownstream(const Error& error) {
  switch (error.code) {
    case ErrorCode::kTimeout:
      return Reason::kBodyTimeout;
    case ErrorCode::kTooLarge:
      return Reason::kBodyTooLarge;
    case ErrorCode::kMalformed:
      return Reason::kBadRequest;
    case ErrorCode::kUnsupported:
      return Reason::kUnsupportedCoding;
    case ErrorCode::kShed:
      return Reason::kConnectionLimit;
    default:
      return Reason::kClientClosed;
  }
}

Reason FromUpstream(const Error& error) {
  switch (error.code) {
    case ErrorCode::kRefused:
      return Reason::kDelegateRefused;
    case ErrorCode::kUnreachable:
    case ErrorCode::kUnavailable:
      return Reason::kDelegateUnreachable;
    // Before a byte was sent it was the connecting that took too long.
    case ErrorCode::kTimeout:
      return error.retry_safe ? Reason::kDelegateConnectTimeout : Reason::kDelegateTimeout;
    case ErrorCode::kShed:
      return Reason::kDelegatePoolFull;
    case ErrorCode::kQueueTimeout:
      return Reason::kDelegateQueueTimeout;
    case ErrorCode::kTooLarge:
    case ErrorCode::kMalformed:
    case ErrorCode::kUnsupported:
      return Reason::kDelegateMalformed;
    case ErrorCode::kCancelled:
      return Reason::kShuttingDown;
    case ErrorCode::kInternal:
      return Reason::kInternal;
    case ErrorCode::kClosed:
    case ErrorCode::kReset:
      return Reason::kDelegateReset;
  }
  return Reason::kInternal;
}

Reason FromPlugin(const Error& error) {
  switch (error.code) {
    case ErrorCode::kRefused:
    case ErrorCode::kUnreachable:
    case ErrorCode::kUnavailable:
      return Reason::kPluginUnavailable;
    case ErrorCode::kTimeout:
      return Reason::kPluginTimeout;
    case ErrorCode::kShed:
    case ErrorCode::kQueueTimeout:
      return Reason::kPluginOverloaded;
    case ErrorCode::kTooLarge:
      return Reason::kPluginReplyTooLarge;
    case ErrorCode::kMalformed:
      return Reason::kPluginBadReply;
    case ErrorCode::kUnsupported:
      return Reason::kPluginNotImplemented;
    case ErrorCode::kCancelled:
      return Reason::kShuttingDown;
    case ErrorCode::kInternal:
      return Reason::kInternal;
    case ErrorCode::kClosed:
    case ErrorCode::kReset:
      return Reason::kPluginDied;
  }
  return Reason::kInternal;
}

}  // namespace

const ReasonInfo& Info(Reason reason) {
  DPA_ASSERT(static_cast<size_t>(reason) < kReasonsCount);
  return kTable[static_cast<size_t>(reason)].info;
}

ErrorSource SourceOf(Reason reason) {
  if (reason >= Reason::kBadRequest && reason <= Reason::kBadProxyHeader) return ErrorSource::kDownstream;
  if (reason >= Reason::kDelegateRefused && reason <= Reason::kDelegatePoolFull) return ErrorSource::kUpstream;
  if (reason >= Reason::kBadJson && reason <= Reason::kPluginNotFound) return ErrorSource::kDownstream;
  if (reason >= Reason::kPluginUnavailable) return ErrorSource::kPlugin;
  return ErrorSource::kInternal;
}

Reason ReasonFromViolation(HttpViolation violation) {
  switch (violation) {
    case HttpViolation::kHeadTooLarge:
    case HttpViolation::kFieldsTooMany:
    case HttpViolation::kTrailersTooLarge:
      return Reason::kHeaderTooLarge;
    case HttpViolation::kTargetTooLong:
      return Reason::kTargetTooLong;
    case HttpViolation::kMethodTrace:
      return Reason::kMethodNotAllowed;
    case HttpViolation::kVersionUnsupported:
      return Reason::kUnsupportedVersion;
    case HttpViolation::kTransferCodingUnknown:
      return Reason::kUnsupportedCoding;
    default:
      return Reason::kBadRequest;
  }
}

Reason ReasonFromError(const Error& error) {
  // Connecting has failed for want of a descriptor: nobody's fault but ours.
  if (error.os_errno == EMFILE || error.os_errno == ENFILE) return Reason::kOutOfDescriptors;
  switch (error.source) {
    case ErrorSource::kDownstream:
      return FromDownstream(error);
    case ErrorSource::kUpstream:
      return FromUpstream(error);
    case ErrorSource::kPlugin:
      return FromPlugin(error);
    case ErrorSource::kInternal:
      break;
  }
  return error.code == ErrorCode::kCancelled ? Reason::kShuttingDown : Reason::kInternal;
}

}  // namespace dpa
