// Tunnel is what becomes of an exchange once the upstream has answered its Upgrade with 101 (RFC 9110 §7.8): bytes of
// another protocol, both ways, until both sides have ended.
//
//     client --ReadPieces, SendBody--> upstream      each way by itself: one run of pieces is read when the one before
//     client <--ForwardBody, ReadPieces-- upstream   it is out, so a slow reader slows its sender
//
// An end of stream is passed on as one (the other way goes on), a reset as a reset. The tunnel ends when both ways have
// ended, when either side breaks off, after `idle_timeout_ms` without a byte either way, or when the client's
// connection is aborted, which the drain deadline does. The timeouts of plain exchanges do not count here: an upgraded
// connection may be silent, or blocked, for as long as its peers please and the idle timeout allows.

#pragma once

#include <cstdint>

#include "core/result.h"
#include "core/task.h"
#include "core/timer_wheel.h"
#include "http/exchange.h"
#include "http/exchange_relay.h"
#include "http/http_metrics.h"
#include "http/upstream_connection.h"

namespace dpa {

// The upstream may switch: the client asked for an upgrade, and every protocol that the 101 names is one of those
// offered (RFC 9110 §7.8), with `Connection: upgrade` beside them.
bool IsUpgradeAgreed(const RequestHead& request, const ResponseHead& response);

class Tunnel final : public Cancellable, private TimerWheel::Entry {
 public:
  // All outlive the tunnel. REQUIRES: both connections have switched (StartTunnel). `idle_timeout_ms` of 0: no limit.
  Tunnel(Exchange& exchange, UpstreamConnection& upstream, uint64_t idle_timeout_ms, HttpMetrics& metrics);

  // Relays until the tunnel has ended, and tells the exchange how.
  Task<void> Run();

  // The client's connection has been aborted.
  void Cancel(Error reason) override { Break(reason); }

 private:
  Task<void> RelayUp();
  Task<void> RelayDown();
  void CountBytes(Counter& counter, size_t bytes);
  void Break(Error error);
  void OnExpire() override;
  Reason EndReason() const;

  Exchange& exchange_;
  ExchangeRelay& client_;
  UpstreamConnection& upstream_;
  Worker& worker_;
  HttpMetrics& metrics_;
  const uint64_t idle_timeout_ms_;
  uint64_t active_at_ms_;      // When bytes last moved. The timer looks at it when it fires, and is not touched before.
  bool client_ended_ = false;  // In order, and passed on.
  bool upstream_ended_ = false;
  bool broken_ = false;
  Error error_;  // The first one.
};

}  // namespace dpa
