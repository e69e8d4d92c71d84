#include "http/forward.h"

#include "http/tunnel.h"

namespace dpa {
namespace {

constexpr Error kUpstreamMalformed{ErrorCode::kMalformed, ErrorSource::kUpstream};

// A deadline on it ends the wait for a head, not the connection.
struct ReceiveInterrupter final : Cancellable {
  explicit ReceiveInterrupter(Socket& s) : socket(s) {}
  void Cancel(Error reason) override { socket.InterruptReceive(reason); }
  Socket& socket;
};

}  // namespace

// What both halves of a relay know. Lives in Forward's frame, which joins them.
struct Forwarder::RequestRelay {
  Exchange& exchange;
  UpstreamConnection& upstream;
  bool stopping = false;  // The response has ended first.
  bool sent = false;      // The request, in full.
  bool upgraded = false;
};

// The request goes out while its answer may already be coming back: two halves, joined here.
Task<Result<void>> Forwarder::Forward(Exchange& exchange, UpstreamGroup::Choice& choice, const BodyPieces& first) {
  UpstreamConnection& upstream = choice.lease.connection();
  ExchangeRelay& client = *exchange.relay();
  // TODO(security): X-Remote-* for HTTP backends, once callers are authenticated here.
  RequestForwarding forward = client.forwarding();
  forward.path_prefix = choice.endpoint->url.path_prefix;
  forward.default_host = choice.endpoint->url.authority;
  const bool upgrade = !exchange.request().upgrade.empty();
  upgrades_count_ += upgrade;
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
    result = co_await RelayResponse(relay);
  }
  exchange.CancelWhenClientGone(nullptr);
  if (body.running_count() != 0) {
    // The answer is complete, or has failed, before the request: the rest of the request is not wanted there.
    relay.stopping = true;
    client.InterruptRead(Error{ErrorCode::kCancelled});
    upstream.socket().Cancel(Error{ErrorCode::kCancelled, ErrorSource::kUpstream});
    co_await body.Join();
  }
  upgrades_count_ -= upgrade;
  if (result && relay.sent && !relay.upgraded) choice.lease.MarkReusable();
  co_return result;
}

// --- The request's half ---

void Forwarder::RequestSent(RequestRelay& relay) {
  relay.sent = true;
  relay.exchange.record().request_sent_ns = relay.exchange.worker().now_ns();
  relay.upstream.ExpectResponse();
}

Task<void> Forwarder::RelayRequestBody(RequestRelay& relay) {
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

// --- The response's half ---

Task<Result<void>> Forwarder::RelayResponse(RequestRelay& relay) {
  UpstreamConnection& upstream = relay.upstream;
  ExchangeRelay& client = *relay.exchange.relay();
  const bool expecting = relay.exchange.request().expect_continue;
  for (uint32_t interim_count = 0;; ++interim_count) {
    Result<void> head;
    if (expecting) {
      head = co_await ReadHeadOrInvite(relay);
    } else {
      head = co_await upstream.ReadHead();
    }
    if (!head) co_return head;
    const ResponseHead& response = upstream.response();
    if (interim_count == options_.interim_max) co_return std::unexpected(kUpstreamMalformed);
    if (!response.interim()) break;
    Result<void> sent;
    if (response.status != 100) {
      sent = co_await client.ForwardInterim(response);
    } else if (expecting) {
      sent = co_await client.SendContinue();
    }
    if (!sent) co_return sent;
    upstream.NextHead();
  }
  relay.exchange.record().response_head_ns = relay.exchange.worker().now_ns();
  const ResponseHead& response = upstream.response();
  if (response.status == 101) co_return co_await ServeTunnel(relay);
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

// The next head. A client that waits for `100 Continue` does so only for a while without a word from the upstream; then
// we invite it and read on.
Task<Result<void>> Forwarder::ReadHeadOrInvite(RequestRelay& relay) {
  ExchangeRelay& client = *relay.exchange.relay();
  constexpr Error kNoWord{ErrorCode::kCancelled, ErrorSource::kInternal};
  if (client.awaits_continue() && options_.expect_continue_timeout_ms != 0) {
    ReceiveInterrupter interrupter(relay.upstream.socket());
    Deadline patience(relay.exchange.worker().timers(), interrupter, kNoWord);
    patience.ArmAfter(options_.expect_continue_timeout_ms);
    const Result<void> head = co_await relay.upstream.ReadHead();
    const bool no_word = !head && patience.fired() && head.error() == kNoWord && !relay.upstream.socket().cancelled();
    if (!no_word) co_return head;
  }
  const Result<void> invited = co_await client.SendContinue();
  if (!invited) co_return invited;
  co_return co_await relay.upstream.ReadHead();
}

// RFC 9110 §15.2.2: a switch that nobody asked for, or to something else, leaves no protocol that both sides speak.
Task<Result<void>> Forwarder::ServeTunnel(RequestRelay& relay) {
  ExchangeRelay& client = *relay.exchange.relay();
  const ResponseHead& response = relay.upstream.response();
  if (!IsUpgradeAgreed(relay.exchange.request(), response)) co_return std::unexpected(kUpstreamMalformed);
  const Result<void> started = co_await client.StartTunnel(response);
  if (!started) {
    // The upstream has switched already; to it the client's stream must not seem to have ended in order.
    relay.exchange.worker().ring().Reset(relay.upstream.socket().fd());
    co_return started;
  }
  relay.upstream.StartTunnel();
  relay.upgraded = true;
  Tunnel tunnel(relay.exchange, relay.upstream, options_.tunnel_idle_timeout_ms, metrics_);
  co_await tunnel.Run();
  co_return Result<void>();
}

}  // namespace dpa
