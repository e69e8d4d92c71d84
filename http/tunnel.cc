#include "http/tunnel.h"

namespace dpa {
namespace {

bool IsOffered(std::string_view offers, std::string_view protocol) {
  std::string_view offer;
  while (NextListElement(offers, offer)) {
    if (EqualsIgnoreCase(offer, protocol)) return true;
  }
  return false;
}

bool NamesUpgrade(std::span<const HeaderField> fields) {
  for (const HeaderField& field : fields) {
    if (EqualsIgnoreCase(field.name, "connection") && IsOffered(field.value, "upgrade")) return true;
  }
  return false;
}

}  // namespace

bool IsUpgradeAgreed(const RequestHead& request, const ResponseHead& response) {
  if (request.upgrade.empty() || !NamesUpgrade(response.fields)) return false;
  bool named = false;
  for (const HeaderField& field : response.fields) {
    if (!EqualsIgnoreCase(field.name, "upgrade")) continue;
    std::string_view protocols = field.value;
    std::string_view protocol;
    while (NextListElement(protocols, protocol)) {
      if (!IsOffered(request.upgrade, protocol)) return false;
      named = true;
    }
  }
  return named;
}

Tunnel::Tunnel(Exchange& exchange, UpstreamConnection& upstream, uint64_t idle_timeout_ms, HttpMetrics& metrics)
    : exchange_(exchange),
      client_(*exchange.relay()),
      upstream_(upstream),
      worker_(exchange.worker()),
      metrics_(metrics),
      idle_timeout_ms_(idle_timeout_ms),
      active_at_ms_(worker_.timers().now_ms()) {}

Task<void> Tunnel::Run() {
  TaskScope up(worker_);
  metrics_.tunnels.Add(1);
  metrics_.tunnels_started.Add();
  if (idle_timeout_ms_ != 0) worker_.timers().Arm(*this, active_at_ms_ + idle_timeout_ms_);
  exchange_.CancelWhenClientGone(this);
  up.Spawn(RelayUp());
  co_await RelayDown();
  co_await up.Join();
  exchange_.CancelWhenClientGone(nullptr);
  worker_.timers().Disarm(*this);
  metrics_.tunnels.Add(-1);
  const Reason reason = EndReason();
  client_.EndTunnel(reason);
}

Task<void> Tunnel::RelayUp() {
  for (;;) {
    const Result<BodyPieces> pieces = co_await client_.ReadPieces();
    if (!pieces) co_return Break(pieces.error());
    const BodyPieces& run = *pieces;
    CountBytes(metrics_.tunnel_bytes_up, run.bytes);
    const bool last = run.last;
    const Result<void> sent = co_await upstream_.SendBody(run);
    if (!sent) co_return Break(sent.error());
    CountBytes(metrics_.tunnel_bytes_up, 0);
    if (!last) continue;
    client_ended_ = true;
    co_return;
  }
}

Task<void> Tunnel::RelayDown() {
  for (;;) {
    const Result<BodyPieces> pieces = co_await upstream_.ReadPieces();
    if (!pieces) co_return Break(pieces.error());
    const BodyPieces& run = *pieces;
    CountBytes(metrics_.tunnel_bytes_down, run.bytes);
    const bool last = run.last;
    const Result<void> sent = co_await client_.ForwardBody(run);
    if (!sent) co_return Break(sent.error());
    CountBytes(metrics_.tunnel_bytes_down, 0);
    if (!last) continue;
    upstream_ended_ = true;
    co_return;
  }
}

// Bytes have come, or have gone out.
void Tunnel::CountBytes(Counter& counter, size_t bytes) {
  counter.Add(bytes);
  active_at_ms_ = worker_.timers().now_ms();
}

// Ends both ways; the first error is what the record tells.
void Tunnel::Break(Error error) {
  if (broken_) return;
  broken_ = true;
  error_ = error;
  // What broke off on one side must not look like an end in order on the other.
  const Reason reason = EndReason();
  if (reason == Reason::kClientClosed) worker_.ring().Reset(upstream_.socket().fd());
  upstream_.socket().Cancel(error);
  client_.CancelClient(error, reason == Reason::kDelegateTruncated);
}

void Tunnel::OnExpire() {
  const uint64_t idle_until_ms = active_at_ms_ + idle_timeout_ms_;
  if (worker_.timers().now_ms() < idle_until_ms) return worker_.timers().Arm(*this, idle_until_ms);
  Break(Error{ErrorCode::kTimeout, ErrorSource::kInternal});
}

Reason Tunnel::EndReason() const {
  if (!broken_) return Reason::kOk;
  if (error_.code == ErrorCode::kCancelled) return Reason::kShuttingDown;
  if (error_.source == ErrorSource::kInternal) return Reason::kTunnelIdleTimeout;
  // A peer that has ended its stream and closed its connection answers what still comes with a reset: the usual end.
  if (error_.source == ErrorSource::kDownstream) return client_ended_ ? Reason::kOk : Reason::kClientClosed;
  return upstream_ended_ ? Reason::kOk : Reason::kDelegateTruncated;
}

}  // namespace dpa
