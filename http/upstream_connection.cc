#include "http/upstream_connection.h"

#include "http/upstream_pool.h"

namespace dpa {
namespace {

constexpr Error kUpstreamTimeout{ErrorCode::kTimeout, ErrorSource::kUpstream};

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
  head_read_ = false;
}

void UpstreamConnection::EndExchange() {
  receive_deadline_.Disarm();
  reader_.NextMessage();
  head_out_.Release();
  trailers_out_.Release();
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
  const uint64_t sent_before = socket_.sent_bytes();
  Result<void> sent = co_await Send();
  if (!sent && socket_.sent_bytes() == sent_before) sent.error().retry_safe = true;
  co_return sent;
}

Task<Result<void>> UpstreamConnection::SendBody(const BodyPieces& pieces) {
  out_.Clear();
  out_.AddBody(pieces, chunked_, trailers_out_);
  if (out_.empty()) co_return Result<void>();
  co_return co_await Send();
}

Task<Result<void>> UpstreamConnection::Send() {
  send_deadline_.ArmAfter(options_.send_timeout_ms);
  const std::span<iovec> pieces = out_.pieces();
  const Result<void> sent = co_await socket_.Send(pieces);
  send_deadline_.Disarm();
  co_return sent;
}

void UpstreamConnection::ExpectResponse() {
  if (!head_read_) receive_deadline_.ArmAfter(options_.header_timeout_ms);
}

// --- The response ---

Task<Result<void>> UpstreamConnection::ReadHead() {
  const Result<void> head = co_await reader_.ReadHead(ErrorSource::kUpstream);
  if (!head || !reader_.response().interim()) {
    head_read_ = true;
    receive_deadline_.Disarm();
  }
  co_return head;
}

void UpstreamConnection::StartBody() { reader_.StartBody(response().framing, response().content_length); }

Task<Result<BodyPieces>> UpstreamConnection::ReadPieces() {
  receive_deadline_.ArmAfter(options_.body_timeout_ms);
  const Result<BodyPieces> pieces = co_await reader_.ReadPieces(ErrorSource::kUpstream);
  receive_deadline_.Disarm();
  co_return pieces;
}

bool UpstreamConnection::response_ended() const {
  return head_read_ && reader_.body_done() && response().keep_alive && !reader_.has_surplus() &&
         !socket_.peer_closed() && !socket_.cancelled();
}

// --- Idle ---

void UpstreamConnection::OnPeerClosed(Socket&, Error) { pool_.CloseIdle(*this, UpstreamClose::kPeerClosed); }

void UpstreamConnection::OnUnreadBytes(Socket&) { pool_.CloseIdle(*this, UpstreamClose::kSurplus); }

}  // namespace dpa
