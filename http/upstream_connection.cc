#include "http/upstream_connection.h"

#include <charconv>
#include <optional>

#include "http/retry.h"
#include "http/upstream_pool.h"

namespace dpa {
namespace {

constexpr Error kUpstreamTimeout{ErrorCode::kTimeout, ErrorSource::kUpstream};

// The field that HTTP/1.0 servers made up and most still send: `Keep-Alive: timeout=5, max=100`. RFC 9110 §7.6.1 only
// says not to forward it; RFC 2068 §19.7.1.1 has its syntax.
std::optional<uint64_t> KeepAliveSeconds(const ResponseHead& head) {
  const HeaderField* field = head.FindField("keep-alive");
  if (field == nullptr) return std::nullopt;
  constexpr std::string_view kTimeout = "timeout=";
  std::string_view list = field->value;
  std::string_view parameter;
  while (NextListElement(list, parameter)) {
    if (!EqualsIgnoreCase(parameter.substr(0, kTimeout.size()), kTimeout)) continue;
    const std::string_view digits = parameter.substr(kTimeout.size());
    uint32_t seconds = 0;
    const auto read = std::from_chars(digits.data(), digits.data() + digits.size(), seconds);
    if (read.ec == std::errc() && read.ptr == digits.data() + digits.size()) return seconds;
  }
  return std::nullopt;
}

}  // namespace

UpstreamConnection::UpstreamConnection(UpstreamPool& pool, Worker& worker, int fd, bool is_unix,
                                       const UpstreamConnectionOptions& options)
    : pool_(pool),
      options_(options),
      socket_(worker, fd, is_unix, ErrorSource::kUpstream),
      reader_(MessageParser::Role::kResponse, options.parser, options.body, worker.bytes()),
      receive_deadline_(worker.timers(), socket_, kUpstreamTimeout),
      send_deadline_(worker.timers(), socket_, kUpstreamTimeout),
      head_out_(worker.bytes()),
      trailers_out_(worker.bytes()) {
  reader_.Attach(socket_);
}

UpstreamConnection::~UpstreamConnection() { reader_.Detach(); }

void UpstreamConnection::BeginExchange() {
  socket_.StopWatching();
  ++exchanges_count_;
  received_before_ = socket_.received_bytes();
  head_sent_ = false;
  head_read_ = false;
}

void UpstreamConnection::EndExchange() {
  receive_deadline_.Disarm();
  reader_.NextMessage();
  head_out_.Release();
  trailers_out_.Release();
}

// A second before the peer would close it, so that its end and our next request do not meet; half of what it keeps it,
// if that is less than two seconds. REQUIRES: the response has ended and its head is still there.
void UpstreamConnection::NoteKeepAlive() {
  const std::optional<uint64_t> seconds = KeepAliveSeconds(response());
  if (seconds) peer_idle_max_ms_ = *seconds < 2 ? *seconds * 500 : (*seconds - 1) * 1000;
}

// --- The request ---

Task<Result<void>> UpstreamConnection::SendHead(const RequestHead& head, const RequestForwarding& forward,
                                                const BodyPieces& first) {
  chunked_ = head.framing == BodyFraming::kChunked;
  reader_.SetRequestMethod(head.method);
  head_out_.Clear();
  const size_t capacity = RequestHeadBytesMax(head, forward);
  HeadWriter writer(head_out_.Tail(capacity), capacity);
  WriteRequestHead(writer, head, forward);
  DPA_ASSERT(!writer.failed());
  out_.Clear();
  out_.Add(writer.written());
  if (head.has_body()) out_.AddBody(first, chunked_, trailers_out_);
  const SendCheck check = !reused()                   ? SendCheck::kNone
                          : IsIdempotent(head.method) ? SendCheck::kQuiet
                                                      : SendCheck::kAsked;
  const uint64_t sent_before = socket_.sent_bytes();
  Result<void> sent = co_await Send(check);
  head_sent_ = socket_.sent_bytes() != sent_before;
  if (sent) co_return sent;
  if (!head_sent_) {
    sent.error().retry_safe = true;
  } else if (sent.error().code == ErrorCode::kReset) {
    sent = {};
  }
  co_return sent;
}

Task<Result<void>> UpstreamConnection::SendBody(const BodyPieces& pieces) {
  out_.Clear();
  out_.AddBody(pieces, chunked_, trailers_out_);
  const bool ends_stream = tunnel_ && pieces.last;
  Result<void> sent;
  if (!out_.empty()) sent = co_await Send(SendCheck::kNone);
  if (sent && ends_stream) socket_.ShutdownSend();
  co_return sent;
}

Task<Result<void>> UpstreamConnection::Send(SendCheck check) {
  send_deadline_.ArmAfter(tunnel_ ? 0 : options_.send_timeout_ms);
  const std::span<iovec> pieces = out_.pieces();
  const Result<void> sent = co_await socket_.Send(pieces, check);
  send_deadline_.Disarm();
  broken_ = broken_ || !sent;
  co_return sent;
}

void UpstreamConnection::ExpectResponse() {
  if (!head_read_) receive_deadline_.ArmAfter(options_.header_timeout_ms);
}

// --- The response ---

Task<Result<void>> UpstreamConnection::ReadHead() {
  const Result<void> head = co_await reader_.ReadHead(ErrorSource::kUpstream);
  const bool interrupted = !head && head.error().code == ErrorCode::kCancelled && !socket_.cancelled();
  if (interrupted) co_return head;
  if (!head || !reader_.response().interim()) {
    head_read_ = true;
    receive_deadline_.Disarm();
  }
  co_return head;
}

void UpstreamConnection::StartBody() { reader_.StartBody(response().framing, response().content_length); }

Task<Result<BodyPieces>> UpstreamConnection::ReadPieces() {
  receive_deadline_.ArmAfter(tunnel_ ? 0 : options_.body_timeout_ms);
  const Result<BodyPieces> pieces = co_await reader_.ReadPieces(ErrorSource::kUpstream);
  receive_deadline_.Disarm();
  co_return pieces;
}

void UpstreamConnection::StartTunnel() {
  tunnel_ = true;
  chunked_ = false;
  reader_.NextMessage();
  reader_.StartBody(BodyFraming::kUntilClose, 0);
}

bool UpstreamConnection::response_ended() const {
  return head_read_ && reader_.body_done() && response().keep_alive && !reader_.has_surplus() &&
         !socket_.peer_closed() && !socket_.cancelled() && !broken_;
}

// --- Idle ---

void UpstreamConnection::OnPeerClosed(Socket&, Error) { pool_.CloseIdle(*this, UpstreamClose::kPeerClosed); }

void UpstreamConnection::OnUnreadBytes(Socket&) { pool_.CloseIdle(*this, UpstreamClose::kSurplus); }

}  // namespace dpa
