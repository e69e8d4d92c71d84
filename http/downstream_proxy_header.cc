// The beginning of a connection whose peer announces its clients by PROXY headers (http/proxy_protocol.h).
//
// Such a peer's connection is worth nothing without one: what came instead may be anybody's, so no byte of it is read
// as HTTP.

#include <utility>

#include "core/log.h"
#include "http/downstream_connection.h"

namespace dpa {

// False: the connection is over. Who says nothing at all and leaves (a health check that only connects) has done
// nothing wrong.
Task<bool> DownstreamConnection::ReadProxyHeader() {
  ByteBuffer before(context_.worker.bytes());  // Of the header, in earlier pieces: a few bytes, and seldom any.
  receive_deadline_.ArmAfter(context_.options.header_timeout_ms);
  for (;;) {
    Result<BufferLease> lease = co_await socket_.Receive();
    if (!lease) {
      const bool timed_out = receive_deadline_.fired();
      receive_deadline_.Disarm();
      const bool ours = draining_ || socket_.cancelled();
      if (!ours && (timed_out || !before.empty())) RefuseProxyHeader(timed_out ? "timeout" : "incomplete");
      co_return false;
    }
    const size_t before_bytes = before.size();
    std::string_view so_far(lease->data(), lease->size());
    if (before_bytes != 0) {
      before.Append(so_far);
      so_far = before.view();
    }
    const ProxyHeader header = ParseProxyHeader(so_far);
    if (header.state == ProxyHeader::State::kNeedMore) {
      if (before_bytes == 0) before.Append(so_far);
      continue;
    }
    receive_deadline_.Disarm();
    if (header.state == ProxyHeader::State::kInvalid) {
      RefuseProxyHeader(ToString(header.violation));
      co_return false;
    }
    TakeProxyHeader(header);
    const size_t taken_bytes = header.size - before_bytes;
    if (taken_bytes < lease->size()) {
      memory_ = context_.TakeMemory();
      reader().Attach(socket_);
      reader().Give(std::move(*lease), taken_bytes);
    }
    co_return true;
  }
}

// Whom the header announces is the peer from here on, and is judged as if it had connected itself.
void DownstreamConnection::TakeProxyHeader(const ProxyHeader& header) {
  if (!header.has_source) return;
  const bool trusted = context_.options.identity.trusted_proxies.Contains(header.source);
  peer_.Set(header.source, header.source_port, trusted);
}

// An exchange all the same, for record and metrics.
void DownstreamConnection::RefuseProxyHeader(std::string_view why) {
  memory_ = context_.TakeMemory();
  reader().Attach(socket_);
  record_ = {};
  record_.started_ns = context_.worker.now_ns();
  BeginExchange(*request_);
  EndByReason(Reason::kBadProxyHeader);
  record_.status = Info(Reason::kBadProxyHeader).http_status;
  FinishRecord();
  if (std::exchange(context_.proxy_header_warned, true)) return;
  LogWarn("bad_proxy_header", "client={} why={} hint=\"others are counted in dpa_http_requests_total\"", peer_.text(),
          why);
}

}  // namespace dpa
