// Forwarder sends one request over one leased connection and brings its answer back: the request's body goes out while
// the response may already be coming in. One per worker.
//
//     client --TakePieces, ReadPieces--> Forward --SendHead, SendBody--> upstream
//     client <--ForwardHead, ForwardBody-- Forward <--ReadHead, ReadPieces-- upstream
//
// `Expect: 100-continue` goes on to the upstream (RFC 9110 §10.1.1), and its 100 to the client. A final answer instead
// leaves the body unasked for. Upstreams that say neither would make both wait for each other: after a while we invite
// the client ourselves. A body that comes without waiting is relayed as it comes.
//
// A 101 to a request with Upgrade turns the exchange into a Tunnel (http/tunnel.h); any other answer is a response.

#pragma once

#include <cstdint>

#include "core/result.h"
#include "core/task.h"
#include "http/exchange.h"
#include "http/exchange_relay.h"
#include "http/http_metrics.h"
#include "http/upstream_group.h"

namespace dpa {

struct ForwardOptions {
  bool trust_forwarded = false;  // Peers are proxies of ours: their X-Forwarded-* are believed.
  uint32_t interim_max = 16;     // 1xx answers to one request; beyond it the upstream is taken for broken.
  // --expect-continue-timeout: for the delegate's word; then we send `100 Continue` ourselves. What curl and Go wait
  // for it as clients.
  uint64_t expect_continue_timeout_ms = 1'000;
  // --tunnel-idle-timeout: without a byte either way. Longer than a shell or a dashboard is left alone for, shorter
  // than the 4 h of a kubelet, so that the tunnels of machines that vanished do not pile up.
  uint64_t tunnel_idle_timeout_ms = 3'600'000;
  // --tunnels-per-worker: each holds a connection of the pool for as long as it lives; some must be left for requests.
  uint32_t tunnels_max = 512;
};

class Forwarder {
 public:
  // `metrics` outlives the forwarder.
  Forwarder(const ForwardOptions& options, HttpMetrics& metrics) : options_(options), metrics_(metrics) {}

  // `first` is what has come of the request's body so far. On success the response has been given in full, and the
  // lease is marked for reuse if both sides allow it; after a tunnel, too, whatever its end.
  // Errors: of either side, by source; what the client is told about them is the caller's.
  Task<Result<void>> Forward(Exchange& exchange, UpstreamGroup::Choice& choice, const BodyPieces& first);

  // As many upgrades are under way as may be; another is to be refused before it gets a connection.
  bool tunnels_full() const { return upgrades_count_ >= options_.tunnels_max; }

 private:
  struct RequestRelay;
  static void RequestSent(RequestRelay& relay);
  static Task<void> RelayRequestBody(RequestRelay& relay);
  Task<Result<void>> RelayResponse(RequestRelay& relay);
  Task<Result<void>> ReadHeadOrInvite(RequestRelay& relay);
  Task<Result<void>> ServeTunnel(RequestRelay& relay);

  const ForwardOptions options_;
  HttpMetrics& metrics_;
  uint32_t upgrades_count_ = 0;  // Requests with Upgrade, until they are answered or their tunnel has ended.
};

}  // namespace dpa
