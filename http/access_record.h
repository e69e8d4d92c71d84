// AccessRecord is what is known of one exchange when it ends: one JSON line in the access log (--access-log), and what
// the metrics count. Times are nanoseconds of the worker's clock; 0 = did not happen.

#pragma once

#include <cstdint>
#include <string_view>

#include "http/reason.h"

namespace dpa {

// What an exchange spent on getting a connection to its upstream, all attempts together. Nanoseconds; 0: nothing.
struct UpstreamWaits {
  uint64_t queue_ns = 0;    // In the pool's queue.
  uint64_t connect_ns = 0;  // Connecting, whether it succeeded or not.
};

struct AccessRecord {
  uint64_t connection_id = 0;
  uint64_t exchange_id = 0;
  uint64_t started_ns = 0;         // First byte of the head.
  uint64_t head_ns = 0;            // Head complete and in order; 0 for one that was refused.
  uint64_t upstream_ready_ns = 0;  // Connection to the delegate leased, or plugin call handed to its session.
  uint64_t request_sent_ns = 0;    // Request head (delegate) or whole message (plugin) sent.
  uint64_t response_head_ns = 0;   // Response head came from upstream.
  uint64_t upgraded_ns = 0;        // 101 sent: the exchange became a tunnel.
  uint64_t finished_ns = 0;        // Last byte handed to the kernel, or given up.
  UpstreamWaits waits;             // Both lie between head_ns and upstream_ready_ns.

  // Views into the request's head and its identity; good until the record is written. Of a head that never became
  // whole: as much as was read.
  std::string_view method;
  std::string_view target;
  std::string_view host;
  std::string_view user_agent;
  std::string_view client;      // Its address: the peer's, with port, or what a trusted proxy says.
  std::string_view request_id;  // X-Request-Id.
  std::string_view trace_id;    // Of traceparent.
  std::string_view route;       // Service type, "delegate", "local", or "" before it is known.
  std::string_view service;     // metadata.name of the DataPlaneService.
  std::string_view plugin;      // Plugin id.
  std::string_view upstream;    // Address of the delegate chosen.

  int status = 0;  // Sent to the client; 499 when it left first.
  Reason reason = Reason::kOk;
  ErrorSource ended_by = ErrorSource::kInternal;  // Which side ended a failed exchange.
  // Heads and bodies as such; then what went over the client's connection, with framing and interim responses.
  uint64_t request_head_bytes = 0;
  uint64_t request_body_bytes = 0;
  uint64_t response_head_bytes = 0;
  uint64_t response_body_bytes = 0;
  uint64_t received_bytes = 0;
  uint64_t sent_bytes = 0;
  uint32_t retries_count = 0;
  bool upstream_reused = false;
  bool downstream_reused = false;  // Not the first exchange on its connection.
};

// How far an exchange had come when it ended, as a word: "head" (of the request), "route" (with us, nothing was sent
// on), "queue", "connect", "request" (sending it on), "response_head" (waiting for it), "response".
std::string_view PhaseOf(const AccessRecord& record);

// Takes finished records. One per worker; Write must not block (the implementation hands lines to a writing thread).
class AccessLog {
 public:
  virtual ~AccessLog() = default;
  virtual void Write(const AccessRecord& record) = 0;
};

}  // namespace dpa
