#include "http/forward.h"

namespace dpa {
namespace {

// The request's half of a relay. Lives in Forward's frame, which joins it.
struct RequestRelay {
  Exchange& exchange;
  UpstreamConnection& upstream;
  bool stopping = false;  // The response has ended first.
  bool sent = false;      // In full.
};

void RequestSent(RequestRelay& relay) {
  relay.sent = true;
  relay.exchange.record().request_sent_ns = relay.exchange.worker().now_ns();
  relay.upstream.ExpectResponse();
}

Task<void> RelayRequestBody(RequestRelay& relay) {
  ExchangeRelay& client = *relay.exchange.relay();
  while (!relay.sent) {
    const Result<BodyPieces> pieces = co_await client.ReadPieces();
    if (relay.stopping) co_return;
    if (!pieces) {
      // Ends the other half as well, which reports it.
      relay.upstream.socket().Cancel(pieces.error());
      co_return;
    }
    const BodyPieces& run = *pieces;
    const Result<void> sent = co_await relay.upstream.SendBody(run);
    if (!sent) {
      // An upstream may answer, and close, before it has read everything. What it said is what counts.
      relay.upstream.ExpectResponse();
      co_return;
    }
    if (run.last) RequestSent(relay);
  }
}

Task<Result<void>> RelayResponse(Exchange& exchange, UpstreamConnection& upstream, const ForwardOptions& options) {
  ExchangeRelay& client = *exchange.relay();
  for (uint32_t interim_count = 0;; ++interim_count) {
    const Result<void> head = co_await upstream.ReadHead();
    if (!head) co_return head;
    const ResponseHead& response = upstream.response();
    const bool refused = response.status == 101 || interim_count == options.interim_max;
    if (refused) co_return std::unexpected(Error{ErrorCode::kMalformed, ErrorSource::kUpstream});
    if (!response.interim()) break;
    // 100 is for the one who asked, which was us.
    if (response.status != 100) {
      const Result<void> sent = co_await client.ForwardInterim(response);
      if (!sent) co_return sent;
    }
    upstream.NextHead();
  }
  exchange.record().response_head_ns = exchange.worker().now_ns();
  const ResponseHead& response = upstream.response();
  upstream.StartBody();
  BodyPieces pieces = upstream.TakePieces();
  Result<void> sent = co_await client.ForwardHead(response, pieces);
  while (sent && !pieces.last) {
    const Result<BodyPieces> next = co_await upstream.ReadPieces();
    if (!next) co_return std::unexpected(next.error());
    pieces = *next;
    sent = co_await client.ForwardBody(pieces);
  }
  co_return sent;
}

}  // namespace

// The request goes out while its answer may already be coming back: two halves, joined here.
Task<Result<void>> Forward(Exchange& exchange, UpstreamGroup::Choice& choice, const BodyPieces& first,
                           const ForwardOptions& options) {
  UpstreamConnection& upstream = choice.lease.connection();
  ExchangeRelay& client = *exchange.relay();
  // TODO(cleanup): Upgrade is taken out, so that every request stays a plain one; tunnels come with the stream
  // services.
  // TODO(security): X-Remote-* for HTTP backends, once callers are authenticated here.
  RequestForwarding forward = client.forwarding();
  forward.path_prefix = choice.endpoint->url.path_prefix;
  forward.default_host = choice.endpoint->url.authority;
  forward.forward_upgrade = false;
  forward.forward_expect = false;
  RequestRelay relay{exchange, upstream};
  TaskScope body(exchange.worker());
  exchange.CancelWhenClientGone(&upstream.socket());
  Result<void> result = co_await upstream.SendHead(exchange.request(), forward, first);
  if (result) {
    if (first.last) {
      RequestSent(relay);
    } else {
      body.Spawn(RelayRequestBody(relay));
    }
    result = co_await RelayResponse(exchange, upstream, options);
  }
  exchange.CancelWhenClientGone(nullptr);
  if (body.running_count() != 0) {
    // The answer is complete, or has failed, before the request: the rest of the request is not wanted there.
    relay.stopping = true;
    client.InterruptRead(Error{ErrorCode::kCancelled});
    upstream.socket().Cancel(Error{ErrorCode::kCancelled, ErrorSource::kUpstream});
    co_await body.Join();
  }
  if (result && relay.sent) choice.lease.MarkReusable();
  co_return result;
}

}  // namespace dpa
