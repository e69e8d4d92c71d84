// Reason is why an exchange ended as it did: the closed list of words that stand, the same, in the body of every error
// that we make ourselves, in the access record and as a metric label.
//
// Adding one: a row in the table of reason.cc (word, HTTP status, Kubernetes reason, whether Retry-After may be sent),
// and one in the README.

#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

#include "core/result.h"
#include "http/message.h"

namespace dpa {

enum class Reason : uint8_t {
  kOk,  // Answered by the delegate, a plugin or a local API, whatever status it chose.
  // The client's request.
  kBadRequest,          // 400: breaks RFC 9110 or 9112; the message says how. The connection is closed.
  kHeaderTimeout,       // 408: no whole head inside --client-header-timeout.
  kBodyTimeout,         // 408: the body stalled for --client-body-timeout, or came below --client-body-min-rate.
  kHeaderTooLarge,      // 431
  kTargetTooLong,       // 414
  kBodyTooLarge,        // 413
  kUnsupportedCoding,   // 501: a transfer coding other than chunked.
  kUnsupportedVersion,  // 505
  kMethodNotAllowed,    // 405
  kClientClosed,        // 499, log only: the client left before the answer was complete.
  kClientWriteTimeout,  // Log only: the client stopped reading the answer.
  kBadProxyHeader,      // Log only: no valid PROXY header from a peer of --proxy-protocol-from; closed at once.
  // Ourselves.
  kConnectionLimit,        // 503: --max-connections.
  kClientConnectionLimit,  // 503: --max-connections-per-client.
  kOverloaded,             // 503: --requests-in-flight-per-worker.
  kOutOfDescriptors,       // 503: no file descriptor was left to connect with.
  kShuttingDown,           // 503; of a tunnel, log only: ended at the drain deadline.
  kTunnelLimit,            // 503: --tunnels-per-worker reached.
  kTunnelIdleTimeout,      // Log only: --tunnel-idle-timeout without a byte either way.
  kNotFound,               // 404: no route and no delegate; or no such local path.
  kInternal,               // 500
  // The delegate, or an HTTP backend.
  kDelegateRefused,         // 502: nobody listens.
  kDelegateUnreachable,     // 502
  kDelegateConnectTimeout,  // 504
  kDelegateSendTimeout,     // 504, log only inside the answer: it took nothing of the request for too long.
  kDelegateTimeout,         // 504: no response head in time.
  kDelegateRequestTimeout,  // 504, log only inside the answer: the whole exchange took too long.
  kDelegateReset,           // 502: closed or reset before a response; the request may have been processed.
  kDelegateClosedIdle,      // 502: the same on a connection that had served others: mostly the end of its keep-alive.
  kDelegateMalformed,       // 502: broke HTTP.
  kDelegateTruncated,       // Log only: broke off inside the body; the client's connection is aborted.
  kDelegateBodyTimeout,     // Log only: stalled inside the body.
  kDelegateQueueTimeout,    // 503: no connection came free in time.
  kDelegatePoolFull,        // 503: too many wait already.
  // Queries and plugins.
  kBadJson,               // 400: not JSON, empty, or not UTF-8.
  kTooDeep,               // 400: JSON nested deeper than QueryLimits::depth_max.
  kTooManyQueries,        // 400: more than QueryLimits::queries_max in one request.
  kBadQuery,              // 400: JSON, but a member has a wrong type or value.
  kBadTime,               // 400: a time that cannot be read.
  kDatasourceMissing,     // 400: the first query names no data source.
  kDatasourceMismatch,    // 400: the body names another data source or type than the path, or several.
  kDuplicateRefId,        // 400: results are keyed by refId; two queries with one could not both be answered.
  kDatasourceNotFound,    // 404
  kNamespaceNotFound,     // 404: the namespace names no organisation.
  kPluginNotFound,        // 404: no such plugin is installed.
  kPluginUnavailable,     // 503: not running (starting, or crashed and coming back).
  kPluginOverloaded,      // 503: too many calls in flight.
  kPluginDied,            // 502: the connection broke during the call.
  kPluginTimeout,         // 504: --plugin-call-timeout.
  kPluginError,           // 500: the plugin answered the call with a gRPC error.
  kPluginNotImplemented,  // 404: the plugin does not have the method.
  kPluginBadReply,        // 502: not what the protocol says.
  kPluginReplyTooLarge,   // 502
  kCount,
};
inline constexpr size_t kReasonsCount = static_cast<size_t>(Reason::kCount);

struct ReasonInfo {
  std::string_view word;               // "plugin_died"
  int http_status;                     // 502
  std::string_view kubernetes_reason;  // Status.reason, "" if Kubernetes has none.
  bool retry_after;                    // The request certainly had no effect: Retry-After: 1 may be sent.
};
const ReasonInfo& Info(Reason reason);
inline std::string_view ToString(Reason reason) { return Info(reason).word; }

// Which side an exchange that ended with `reason` was ended by.
ErrorSource SourceOf(Reason reason);

// What a request that breaks HTTP is refused with. The status that goes with it is StatusOf(violation). REQUIRES: not
// kNone.
Reason ReasonFromViolation(HttpViolation violation);

// The one function from a transport Error to the Reason that the client is told.
Reason ReasonFromError(const Error& error);

}  // namespace dpa
