// The half of DownstreamConnection that answers: our own responses, and those that come from an upstream.
//
// Everything goes out by SendAll, gathered: head and body of a small response are one send.

#include <algorithm>

#include "http/downstream_connection.h"
#include "http/json_text.h"
#include "http/status.h"

namespace dpa {
namespace {

// What may wait in one send under one deadline: below it no client of use is slower than --client-send-timeout allows.
constexpr size_t kSendBytesMax = 256 << 10;

// What our own fields add to a head at the most: status line, Date, Via, Connection, framing, Content-Type's name, and
// X-Request-Id.
constexpr size_t kAddedBytesMax = 512 + kRequestIdBytesMax;

size_t FieldBytes(std::span<const HeaderField> fields) {
  size_t bytes = 0;
  for (const HeaderField& field : fields) bytes += field.name.size() + field.value.size() + 4;
  return bytes;
}

size_t TotalBytes(std::span<const iovec> pieces) {
  size_t bytes = 0;
  for (const iovec& piece : pieces) bytes += piece.iov_len;
  return bytes;
}

}  // namespace

bool DownstreamConnection::KeepAliveWanted() const {
  const DownstreamOptions& options = context_.options;
  if (!request_->keep_alive || request_->method.empty() || client_failed_) return false;
  if (draining_ || context_.draining) return false;
  if (body_refused_) return false;
  if (options.exchanges_max != 0 && exchanges_count_ >= options.exchanges_max) return false;
  const BodyDecoder& body = memory_->reader.body();
  if (body.done()) return true;
  // Whether a client that was never told to continue sends its body is anybody's guess.
  if (continue_pending_ || body.state() == BodyDecoder::State::kViolation) return false;
  // One that stalled will not hurry now; waiting for the rest would hold the connection a second time as long.
  if (receive_deadline_.fired()) return false;
  return request_->framing == BodyFraming::kChunked || body.remaining() <= options.drain_body_bytes_max;
}

// RFC 9110 §6.4.1: no content in answers to HEAD, and in 204 and 304.
bool DownstreamConnection::SuppressesBody(int status) const {
  return request_->method == "HEAD" || status == 204 || status == 304;
}

// --- Our own ---

std::string_view DownstreamConnection::WriteOwnHead(const Response& response, BodyFraming framing,
                                                    uint64_t content_length) {
  const size_t capacity = FieldBytes(response.fields) + response.content_type.size() + kAddedBytesMax;
  ByteBuffer& buffer = memory_->head;
  buffer.Clear();
  HeadWriter writer(buffer.Tail(capacity), capacity);
  writer.Append("HTTP/1.1 ");
  writer.AppendNumber(static_cast<uint64_t>(response.status));
  writer.Append(" ");
  writer.Append(ReasonPhrase(response.status));
  writer.Append("\r\n");
  writer.AppendField("Date", context_.date.At(context_.worker.now_ms()));
  if (!response.content_type.empty()) writer.AppendField("Content-Type", response.content_type);
  if (framing == BodyFraming::kChunked) writer.AppendField("Transfer-Encoding", "chunked");
  if (framing == BodyFraming::kContentLength && response.status != 204) {
    writer.Append("Content-Length: ");
    writer.AppendNumber(content_length);
    writer.Append("\r\n");
  }
  if (!keep_alive_) {
    writer.AppendField("Connection", "close");
  } else if (request_->version_minor == 0) {
    writer.AppendField("Connection", "keep-alive");
  }
  for (const HeaderField& field : response.fields) writer.AppendField(field.name, field.value);
  for (const HeaderField& field : memory_->identity.answered()) writer.AppendField(field.name, field.value);
  writer.Append("\r\n");
  DPA_ASSERT(!writer.failed());
  record_.status = response.status;
  record_.response_head_bytes = writer.written().size();
  response_ = ResponseState::kStarted;
  return writer.written();
}

Task<Result<void>> DownstreamConnection::Respond(const Response& response, std::span<iovec> body) {
  DPA_ASSERT(response_ == ResponseState::kNone);
  if (client_failed_) co_return std::unexpected(client_error_);
  keep_alive_ = KeepAliveWanted();
  SendPieces& out = memory_->out;
  out.Clear();
  out.Add(WriteOwnHead(response, BodyFraming::kContentLength, TotalBytes(body)));
  if (SuppressesBody(response.status)) body = {};
  record_.response_body_bytes = TotalBytes(body);
  const size_t joined_count = std::min(body.size(), SendPieces::kPayloadMax);
  for (const iovec& piece : body.first(joined_count)) {
    out.Add({static_cast<const char*>(piece.iov_base), piece.iov_len});
  }
  const std::span<iovec> rest = body.subspan(joined_count);
  if (rest.empty() && PostOut()) {
    response_ = ResponseState::kFinished;
    co_return Result<void>();
  }
  Result<void> sent = co_await SendOut();
  if (sent && !rest.empty()) sent = co_await SendAll(rest);
  if (sent) response_ = ResponseState::kFinished;
  co_return sent;
}

Task<Result<void>> DownstreamConnection::RespondError(Reason reason, std::string_view message) {
  const std::span<const HeaderField> fields;
  co_return co_await RespondError(reason, message, fields);
}

Task<Result<void>> DownstreamConnection::RespondError(Reason reason, std::string_view message,
                                                      std::span<const HeaderField> fields) {
  const int status = Info(reason).http_status;
  co_return co_await RespondStatus(reason, status, message, fields);
}

Task<Result<void>> DownstreamConnection::RespondStatus(Reason reason, int status, std::string_view message,
                                                       std::span<const HeaderField> fields) {
  EndByReason(reason);
  if (client_failed_) co_return std::unexpected(client_error_);
  if (response_started()) co_return Result<void>();
  if (status == 499) {
    // Nobody to tell.
    record_.status = status;
    co_return Result<void>();
  }
  ByteBuffer& body = memory_->body;
  body.Clear();
  AppendStatusBody(body, reason, status, message);
  std::array<HeaderField, 8> all_fields;
  size_t fields_count = std::min(fields.size(), all_fields.size() - 1);
  std::copy_n(fields.begin(), fields_count, all_fields.begin());
  if (Info(reason).retry_after) all_fields[fields_count++] = {"Retry-After", "1"};
  const Response response{status, "application/json", {all_fields.data(), fields_count}};
  std::array<iovec, 1> pieces = {iovec{body.data(), body.size()}};
  const std::span<iovec> body_pieces = pieces;
  co_return co_await Respond(response, body_pieces);
}

Task<Result<void>> DownstreamConnection::StartResponse(const Response& response) {
  DPA_ASSERT(response_ == ResponseState::kNone);
  if (client_failed_) co_return std::unexpected(client_error_);
  keep_alive_ = KeepAliveWanted();
  BodyFraming framing = request_->version_minor == 0 ? BodyFraming::kUntilClose : BodyFraming::kChunked;
  if (response.status == 204 || response.status == 304) framing = BodyFraming::kNone;
  if (framing == BodyFraming::kUntilClose) keep_alive_ = false;
  memory_->out.Clear();
  memory_->out.Add(WriteOwnHead(response, framing, 0));
  response_framing_ = SuppressesBody(response.status) ? BodyFraming::kNone : framing;
  co_return co_await SendOut();
}

Task<Result<void>> DownstreamConnection::WriteBody(std::span<iovec> pieces) {
  DPA_ASSERT(response_ == ResponseState::kStarted);
  while (!pieces.empty()) {
    const std::span<iovec> run = pieces.first(std::min(pieces.size(), SendPieces::kPayloadMax));
    const BodyPieces body{run, TotalBytes(run), false, {}};
    const Result<void> sent = co_await ForwardBody(body);
    if (!sent) co_return sent;
    pieces = pieces.subspan(run.size());
  }
  co_return Result<void>();
}

Task<Result<void>> DownstreamConnection::FinishResponse() {
  DPA_ASSERT(response_ == ResponseState::kStarted);
  const BodyPieces end{.last = true};
  co_return co_await ForwardBody(end);
}

// --- From an upstream ---

Task<Result<void>> DownstreamConnection::ForwardInterim(const ResponseHead& head) {
  DPA_ASSERT(head.interim() && response_ == ResponseState::kNone);
  if (request_->version_minor == 0) co_return Result<void>();
  const ResponseFraming framing;
  memory_->out.Clear();
  memory_->out.Add(WriteForwardedHead(head, framing, {}));
  co_return co_await SendOut();
}

std::string_view DownstreamConnection::WriteForwardedHead(const ResponseHead& head, const ResponseFraming& framing,
                                                          std::span<const HeaderField> added) {
  const size_t capacity = FieldBytes(head.fields) + head.reason.size() + kAddedBytesMax;
  memory_->head.Clear();
  HeadWriter writer(memory_->head.Tail(capacity), capacity);
  WriteResponseHead(writer, *request_, head, framing, added);
  DPA_ASSERT(!writer.failed());
  return writer.written();
}

Task<Result<void>> DownstreamConnection::ForwardHead(const ResponseHead& head, const BodyPieces& first) {
  DPA_ASSERT(response_ == ResponseState::kNone);
  if (client_failed_) co_return std::unexpected(client_error_);
  const ResponseFraming framing = ChooseResponseFraming(*request_, head, KeepAliveWanted());
  keep_alive_ = framing.keep_alive;
  response_framing_ = framing.framing;
  std::array<HeaderField, 2> added;
  size_t added_count = 0;
  // RFC 9110 §6.6.1: who forwards a response without a date adds one.
  if (!head.FindField("date")) added[added_count++] = {"Date", context_.date.At(context_.worker.now_ms())};
  for (const HeaderField& field : memory_->identity.answered()) added[added_count++] = field;
  memory_->out.Clear();
  const std::string_view written = WriteForwardedHead(head, framing, std::span(added).first(added_count));
  memory_->out.Add(written);
  record_.status = head.status;
  record_.response_head_bytes = written.size();
  response_ = ResponseState::kStarted;
  co_return co_await ForwardBody(first);
}

// Adds `pieces` to what is laid out already (a head), and sends.
Task<Result<void>> DownstreamConnection::ForwardBody(const BodyPieces& pieces) {
  const bool last = pieces.last;
  if (response_framing_ != BodyFraming::kNone) {
    memory_->out.AddBody(pieces, response_framing_ == BodyFraming::kChunked, memory_->body);
    record_.response_body_bytes += pieces.bytes;
  }
  if (last && PostOut()) {
    response_ = ResponseState::kFinished;
    co_return Result<void>();
  }
  const Result<void> sent = co_await SendOut();
  if (!sent || !last) co_return sent;
  response_ = ResponseState::kFinished;
  if (tunnel_) socket_.ShutdownSend();
  co_return sent;
}

// --- A tunnel ---

Task<Result<void>> DownstreamConnection::StartTunnel(const ResponseHead& head) {
  DPA_ASSERT(head.status == 101 && !request_->upgrade.empty() && response_ == ResponseState::kNone);
  if (client_failed_) co_return std::unexpected(client_error_);
  // From now on the end of the client's stream is read, not watched for.
  CancelWhenClientGone(nullptr);
  keep_alive_ = false;
  tunnel_ = true;
  const ResponseFraming framing;
  memory_->out.Clear();
  const std::string_view written = WriteForwardedHead(head, framing, memory_->identity.answered());
  memory_->out.Add(written);
  record_.status = head.status;
  record_.response_head_bytes = written.size();
  response_ = ResponseState::kStarted;
  response_framing_ = BodyFraming::kUntilClose;
  // A tunnel may live for days: its head moves out of the shared receive buffers.
  reader().KeepHead();
  DescribeRequest();
  reader().StartBody(BodyFraming::kUntilClose, 0);
  const Result<void> sent = co_await SendOut();
  // No tunnel has come of it, so nobody but FinishRecord says why.
  if (!sent) tunnel_ = false;
  if (sent) record_.upgraded_ns = context_.worker.now_ns();
  co_return sent;
}

void DownstreamConnection::CancelClient(Error reason, bool reset) {
  if (reset) context_.worker.ring().Reset(socket_.fd());
  socket_.Cancel(reason);
}

void DownstreamConnection::EndTunnel(Reason reason) {
  if (reason != Reason::kOk) EndByReason(reason);
  response_ = ResponseState::kFinished;
}

// --- Sending ---

// The end of a response joins what is posted to leave at the end of this turn, if the next request is here already:
// answers to pipelined requests go out together, and nothing waits. Not when much is posted: then this send waits, and
// a client that reads slowly is served no faster than it reads.
bool DownstreamConnection::PostOut() {
  if (!reader().has_rest() || !keep_alive_ || !reader().body_done()) return false;
  const std::span<iovec> pieces = memory_->out.pieces();
  if (client_failed_ || !socket_.CanPost(TotalBytes(pieces))) return false;
  socket_.Post(pieces);
  memory_->out.Clear();
  return true;
}

Task<Result<void>> DownstreamConnection::FlushPosted() {
  send_deadline_.ArmAfter(context_.options.send_timeout_ms);
  const std::span<iovec> nothing;
  const Result<void> sent = co_await socket_.Send(nothing);
  send_deadline_.Disarm();
  co_return sent;
}

Task<Result<void>> DownstreamConnection::SendOut() {
  const std::span<iovec> pieces = memory_->out.pieces();
  const Result<void> sent = co_await SendAll(pieces);
  memory_->out.Clear();
  co_return sent;
}

Task<Result<void>> DownstreamConnection::SendAll(std::span<iovec> pieces) {
  while (!pieces.empty()) {
    size_t bytes = 0;
    size_t count = 0;
    while (count < pieces.size() && bytes + pieces[count].iov_len <= kSendBytesMax) bytes += pieces[count++].iov_len;
    iovec part = pieces[0];
    part.iov_len = std::min(part.iov_len, kSendBytesMax);
    const std::span<iovec> batch = count == 0 ? std::span(&part, 1) : pieces.first(count);
    if (count == 0) {
      pieces[0].iov_base = static_cast<char*>(pieces[0].iov_base) + kSendBytesMax;
      pieces[0].iov_len -= kSendBytesMax;
    }
    send_deadline_.ArmAfter(tunnel_ ? 0 : context_.options.send_timeout_ms);
    const Result<void> sent = co_await socket_.Send(batch);
    send_deadline_.Disarm();
    if (half_closed_) half_close_deadline_.ArmAfter(context_.options.half_close_timeout_ms);
    if (!sent) {
      write_timed_out_ = write_timed_out_ || send_deadline_.fired();
      NoteClientError(sent.error());
      co_return sent;
    }
    pieces = pieces.subspan(count);
  }
  co_return Result<void>();
}

}  // namespace dpa
