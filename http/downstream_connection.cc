#include "http/downstream_connection.h"

#include <arpa/inet.h>
#include <sys/socket.h>

#include <algorithm>
#include <string>
#include <utility>

#include "core/address.h"

namespace dpa {
namespace {

constexpr Error kClientTimeout{ErrorCode::kTimeout, ErrorSource::kDownstream};
constexpr Error kClientLeft{ErrorCode::kClosed, ErrorSource::kDownstream};

const RequestHead kNoRequest;

// What is known of a request whose head never became whole. For its record; nothing is done by it.
void NoteStartLine(std::string_view head, size_t target_bytes_max, AccessRecord& record) {
  constexpr size_t kMethodBytesMax = 32;
  while (head.starts_with("\r\n")) head.remove_prefix(2);
  const std::string_view line = head.substr(0, head.find_first_of("\r\n"));
  const size_t space = std::min(line.find(' '), line.size());
  record.method = line.substr(0, std::min(space, kMethodBytesMax));
  if (space == line.size()) return;
  const std::string_view target = line.substr(space + 1);
  record.target = target.substr(0, std::min(target.find(' '), target_bytes_max));
}

}  // namespace

DownstreamConnection::DownstreamConnection(DownstreamContext& context, int fd, bool is_unix)
    : context_(context),
      socket_(context.worker, fd, is_unix, ErrorSource::kDownstream),
      interrupter_(socket_),
      half_close_target_(*this),
      receive_deadline_(context.worker.timers(), interrupter_, kClientTimeout),
      send_deadline_(context.worker.timers(), socket_, kClientTimeout),
      half_close_deadline_(context.worker.timers(), half_close_target_, kClientLeft),
      connection_id_(context.NextConnectionId()),
      request_(&kNoRequest) {
  IpAddress address = is_unix ? IpAddress::Unix() : IpAddress();
  uint16_t port = 0;
  sockaddr_storage name;
  socklen_t name_bytes = sizeof name;
  if (!is_unix && getpeername(fd, reinterpret_cast<sockaddr*>(&name), &name_bytes) == 0) {
    address = IpAddress::FromSocketAddress(reinterpret_cast<const sockaddr*>(&name), name_bytes);
    port = Address(reinterpret_cast<const sockaddr*>(&name), name_bytes).port();
  }
  peer_.Set(address, port, context.options.identity.trusted_proxies.Contains(address));
}

DownstreamConnection::~DownstreamConnection() { DPA_ASSERT(!memory_); }

// --- The life of a connection ---

Task<void> DownstreamConnection::Serve() {
  Exchange& exchange = *this;
  Ending ending = Ending::kKeep;
  if (context_.options.identity.proxy_protocol_from.Contains(peer_.address())) {
    const bool announced = co_await ReadProxyHeader();
    if (!announced) ending = Ending::kClose;
  }
  while (ending == Ending::kKeep) {
    const Result<void> request = co_await WaitForRequest();
    if (!request) break;
    const Result<void> head = co_await ReadHead();
    if (!head) {
      ending = co_await RefuseHead(head.error());
      break;
    }
    BeginExchange(reader().request());
    if (Overloaded()) {
      constexpr std::string_view kMessage = "too many requests are under way";
      static_cast<void>(co_await RespondError(Reason::kOverloaded, kMessage));
    } else {
      co_await context_.handler.Handle(exchange);
    }
    ending = co_await EndExchange();
  }
  if (memory_) {
    reader().Detach();
    context_.GiveMemory(std::move(memory_));
  }
  if (socket_.has_posted()) static_cast<void>(co_await FlushPosted());
  CountBytes();
  if (ending == Ending::kAbort && response_framing_ == BodyFraming::kUntilClose) {
    // An orderly end would make a truncated body look whole.
    context_.worker.ring().Reset(socket_.fd());
  }
  if (ending == Ending::kLinger) {
    co_await socket_.LingerAndClose(context_.options.linger_timeout_ms, context_.options.linger_bytes_max);
  } else {
    co_await socket_.Close();
  }
}

// Until a byte of the next request is there. Errors end the connection silently: nothing was asked.
Task<Result<void>> DownstreamConnection::WaitForRequest() {
  if (memory_ && reader().has_rest()) co_return Result<void>();
  if (memory_) {
    reader().Detach();
    context_.GiveMemory(std::move(memory_));
  }
  const bool fresh = exchanges_count_ == 0;
  if (draining_ && !fresh) co_return std::unexpected(Error{ErrorCode::kCancelled});
  idle_ = true;
  receive_deadline_.ArmAfter(draining_ ? context_.options.drain_first_request_ms
                                       : context_.options.keep_alive_timeout_ms);
  Result<BufferLease> lease = co_await socket_.Receive();
  receive_deadline_.Disarm();
  idle_ = false;
  if (!lease) co_return std::unexpected(lease.error());
  memory_ = context_.TakeMemory();
  reader().Attach(socket_);
  reader().Give(std::move(*lease));
  co_return Result<void>();
}

Task<Result<void>> DownstreamConnection::ReadHead() {
  record_ = {};
  record_.started_ns = context_.worker.now_ns();
  receive_deadline_.ArmAfter(context_.options.header_timeout_ms);
  const Result<void> head = co_await reader().ReadHead(ErrorSource::kDownstream);
  receive_deadline_.Disarm();
  co_return head;
}

// A head that never became whole, or broke HTTP: an exchange all the same, for record and metrics.
Task<DownstreamConnection::Ending> DownstreamConnection::RefuseHead(Error error) {
  if (!reader().head_started()) co_return Ending::kClose;
  const HttpViolation violation = reader().violation();
  const bool timed_out = receive_deadline_.fired();
  const std::string_view head = reader().head_so_far();
  BeginExchange(kNoRequest);
  record_.head_ns = 0;
  record_.request_head_bytes = head.size();
  NoteStartLine(head, context_.options.parser.target_bytes_max, record_);
  if (violation == HttpViolation::kNone && !timed_out) {
    NoteClientError(error);
  } else {
    std::string message = timed_out ? "the request's header did not arrive in time" : "the request breaks HTTP: ";
    const Reason reason = timed_out ? Reason::kHeaderTimeout : ReasonFromViolation(violation);
    const int status = timed_out ? Info(reason).http_status : StatusOf(violation);
    if (!timed_out) message += ReasonOf(violation);
    // RFC 9110 §15.5.6: a 405 says what is allowed.
    const HeaderField allow{"Allow", "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"};
    const std::span<const HeaderField> fields(&allow, reason == Reason::kMethodNotAllowed ? 1 : 0);
    static_cast<void>(co_await RespondStatus(reason, status, message, fields));
  }
  const bool answered = response_ == ResponseState::kFinished;
  FinishRecord();
  co_return answered ? Ending::kLinger : Ending::kAbort;
}

void DownstreamConnection::BeginExchange(const RequestHead& head) {
  request_ = &head;
  match_ = {};
  response_ = ResponseState::kNone;
  response_framing_ = BodyFraming::kNone;
  keep_alive_ = false;
  tunnel_ = false;
  client_failed_ = false;
  body_bytes_max_ = UINT64_MAX;
  body_waited_ms_ = 0;
  body_refused_ = false;
  unread_pieces_ = {};
  unread_index_ = 0;
  continue_pending_ = head.expect_continue;
  reader().StartBody(head.framing, head.content_length);
  ++exchanges_count_;
  context_.metrics.requests_in_flight.Add(1);
  RequestIdentity& identity = memory_->identity;
  identity.Begin(head, peer_, context_.options.identity, context_.ids);

  record_.connection_id = connection_id_;
  record_.exchange_id = context_.NextExchangeId();
  record_.head_ns = context_.worker.now_ns();
  record_.request_head_bytes = reader().message_bytes();
  record_.client = identity.client_text();
  record_.request_id = identity.ids().request_id;
  record_.trace_id = identity.ids().trace_id;
  record_.downstream_reused = exchanges_count_ > 1;
  DescribeRequest();
}

// The record's views into the head.
void DownstreamConnection::DescribeRequest() {
  record_.method = request_->method;
  record_.target = request_->target;
  record_.host = request_->host;
  if (context_.access_log == nullptr) return;
  if (const HeaderField* field = request_->FindField("user-agent")) record_.user_agent = field->value;
}

Task<DownstreamConnection::Ending> DownstreamConnection::EndExchange() {
  CancelWhenClientGone(nullptr);
  if (response_ == ResponseState::kNone && !client_failed_ && record_.reason == Reason::kOk) {
    constexpr std::string_view kNoAnswer = "the request was not answered";
    static_cast<void>(co_await RespondError(Reason::kInternal, kNoAnswer));
  }
  const bool answered = response_ == ResponseState::kFinished;
  FinishRecord();
  if (!answered) co_return Ending::kAbort;
  if (!keep_alive_) {
    const bool more_to_come = !reader().body_done() || reader().has_surplus();
    co_return more_to_come ? Ending::kLinger : Ending::kClose;
  }
  const bool drained = co_await DrainBody();
  if (!drained) co_return Ending::kLinger;
  request_ = &kNoRequest;
  reader().NextMessage();
  co_return Ending::kKeep;
}

// Reads what the handler left of a request body, up to a limit: cheaper than a new connection.
Task<bool> DownstreamConnection::DrainBody() {
  uint64_t drained_bytes = 0;
  while (!reader().body_done()) {
    const Result<BodyPieces> pieces = co_await ReadPieces();
    if (!pieces) co_return false;
    drained_bytes += pieces->bytes;
    if (drained_bytes > context_.options.drain_body_bytes_max) co_return false;
  }
  co_return true;
}

// Of this worker, the exchange that has just begun included.
bool DownstreamConnection::Overloaded() const {
  const uint32_t in_flight_max = context_.options.in_flight_max;
  return in_flight_max != 0 && context_.metrics.requests_in_flight.value() > in_flight_max;
}

void DownstreamConnection::FinishRecord() {
  record_.finished_ns = context_.worker.ReadClockNs();
  record_.request_body_bytes = reader_body_bytes();
  record_.received_bytes = std::max(reader().message_bytes(), record_.request_head_bytes);
  record_.sent_bytes = socket_.taken_bytes() - std::exchange(taken_recorded_, socket_.taken_bytes());
  // With source upstream it was not the client who failed, but we who gave up; RespondError has said why.
  const bool client_left = client_failed_ && client_error_.source != ErrorSource::kUpstream;
  if (tunnel_) {
    // EndTunnel has said how it ended.
  } else if (client_left && response_ != ResponseState::kFinished) {
    const bool ours = client_error_.code == ErrorCode::kCancelled;
    EndByReason(ours ? Reason::kShuttingDown : write_timed_out_ ? Reason::kClientWriteTimeout : Reason::kClientClosed);
    record_.status = Info(record_.reason).http_status;
  } else if (response_ == ResponseState::kStarted && record_.reason == Reason::kOk) {
    EndByReason(Reason::kInternal);
  }
  context_.metrics.CountRequest(record_);
  context_.metrics.requests_in_flight.Add(-1);
  CountBytes();
  if (context_.access_log != nullptr) context_.access_log->Write(record_);
  routes_ = {};
  upstream_ = EndpointPin();
}

// What posted answers send is counted with the next exchange, or at the end of the connection.
void DownstreamConnection::CountBytes() {
  context_.metrics.received_bytes.Add(socket_.received_bytes() -
                                      std::exchange(received_counted_, socket_.received_bytes()));
  context_.metrics.sent_bytes.Add(socket_.sent_bytes() - std::exchange(sent_counted_, socket_.sent_bytes()));
  context_.metrics.sends.Add(socket_.sends_count() - std::exchange(sends_counted_, socket_.sends_count()));
}

void DownstreamConnection::EndByReason(Reason reason) {
  record_.reason = reason;
  record_.ended_by = SourceOf(reason);
}

// --- Ending from outside ---

void DownstreamConnection::BeginDrain() {
  draining_ = true;
  if (!idle_) return;
  // Who has just connected may have asked already: its first request is still answered.
  if (exchanges_count_ == 0) return receive_deadline_.ArmAfter(context_.options.drain_first_request_ms);
  socket_.InterruptReceive(Error{ErrorCode::kCancelled});
}

void DownstreamConnection::Abort(Error reason) {
  socket_.Cancel(reason);
  TellClientGone(reason);
}

// --- The client's side of the exchange: its body, and whether it is still there ---

Task<Result<void>> DownstreamConnection::SendContinue() {
  if (!std::exchange(continue_pending_, false)) co_return Result<void>();
  // RFC 9110 §10.1.1: a body that is on its way already needs no invitation.
  if (reader().has_surplus() || response_started()) co_return Result<void>();
  memory_->out.Clear();
  memory_->out.Add("HTTP/1.1 100 Continue\r\n\r\n");
  co_return co_await SendOut();
}

bool DownstreamConnection::LimitBody(uint64_t bytes_max) {
  if (bytes_max == 0) return true;
  body_bytes_max_ = bytes_max;
  body_refused_ = request_->content_length > bytes_max;
  return !body_refused_;
}

BodyPieces DownstreamConnection::TakePieces() {
  const BodyPieces pieces = reader().TakePieces();
  body_refused_ = body_refused_ || BodyOverLimit();
  if (body_refused_) return {};  // ReadPieces tells.
  if (pieces.bytes != 0) continue_pending_ = false;
  if (pieces.last) WatchIfWanted();
  return pieces;
}

// How long the client may take for its next bytes.
uint64_t DownstreamConnection::BodyPatienceMs() const {
  const DownstreamOptions& options = context_.options;
  if (options.body_rate_min == 0) return options.body_timeout_ms;
  const uint64_t earned_ms = options.body_grace_ms + reader_body_bytes() * 1000 / options.body_rate_min;
  const uint64_t left_ms = earned_ms > body_waited_ms_ ? earned_ms - body_waited_ms_ : 1;
  return options.body_timeout_ms == 0 ? left_ms : std::min(left_ms, options.body_timeout_ms);
}

Task<Result<BodyPieces>> DownstreamConnection::ReadPieces() {
  constexpr Error kBodyTooLarge{ErrorCode::kTooLarge, ErrorSource::kDownstream};
  if (body_refused_) co_return std::unexpected(kBodyTooLarge);
  const TimerWheel& timers = context_.worker.timers();
  const uint64_t asked_ms = timers.now_ms();
  receive_deadline_.ArmAfter(tunnel_ ? 0 : BodyPatienceMs());
  socket_.StopWatching();
  const Result<BodyPieces> pieces = co_await reader().ReadPieces(ErrorSource::kDownstream);
  receive_deadline_.Disarm();
  body_waited_ms_ += timers.now_ms() - asked_ms;
  if (pieces && BodyOverLimit()) {
    body_refused_ = true;
    co_return std::unexpected(kBodyTooLarge);
  }
  if (!pieces) {
    // A client that stalled, or broke HTTP, can still be told so; and a read that was interrupted says nothing about
    // the client.
    const bool interrupted = pieces.error().code == ErrorCode::kCancelled && !socket_.cancelled();
    const bool reachable = receive_deadline_.fired() || reader().violation() != HttpViolation::kNone || interrupted;
    if (!reachable) NoteClientError(pieces.error());
    co_return pieces;
  }
  // It has not waited for `100 Continue`, or no longer does.
  if (pieces->bytes != 0) continue_pending_ = false;
  if (pieces->last) WatchIfWanted();
  co_return pieces;
}

Task<Result<std::string_view>> DownstreamConnection::ReadBody() {
  while (unread_index_ == unread_pieces_.pieces.size()) {
    if (reader().body_done()) co_return std::string_view();
    const Result<void> invited = co_await SendContinue();
    if (!invited) co_return std::unexpected(invited.error());
    const Result<BodyPieces> pieces = co_await ReadPieces();
    if (!pieces) co_return std::unexpected(pieces.error());
    unread_pieces_ = *pieces;
    unread_index_ = 0;
  }
  const iovec& piece = unread_pieces_.pieces[unread_index_++];
  co_return std::string_view(static_cast<const char*>(piece.iov_base), piece.iov_len);
}

Task<Result<void>> DownstreamConnection::ReadWholeBody(ByteBuffer& into, size_t bytes_max, size_t padding_bytes) {
  constexpr Error kBodyTooLarge{ErrorCode::kTooLarge, ErrorSource::kDownstream};
  const size_t size_before = into.size();
  if (request_->content_length > bytes_max) co_return std::unexpected(kBodyTooLarge);
  into.Reserve(size_before + request_->content_length + padding_bytes);
  for (;;) {
    const Result<std::string_view> piece = co_await ReadBody();
    if (!piece) co_return std::unexpected(piece.error());
    if (piece->empty()) break;
    if (into.size() - size_before + piece->size() > bytes_max) co_return std::unexpected(kBodyTooLarge);
    into.Append(*piece);
  }
  std::fill_n(into.Tail(padding_bytes), padding_bytes, '\0');
  co_return Result<void>();
}

// The client cannot be told anything any more. The first error counts.
void DownstreamConnection::NoteClientError(Error error) {
  if (!client_failed_) client_error_ = error;
  client_failed_ = true;
}

void DownstreamConnection::CancelWhenClientGone(Cancellable* target) {
  gone_target_ = target;
  if (target == nullptr) {
    half_close_deadline_.Disarm();
    half_closed_ = false;
    return socket_.StopWatching();
  }
  if (client_failed_) return target->Cancel(client_error_);
  WatchIfWanted();
}

// While the body is being read, its reader sees the client's end; afterwards nobody would.
void DownstreamConnection::WatchIfWanted() {
  if (gone_target_ != nullptr && reader().body_done() && !tunnel_) socket_.Watch(*this);
}

// An end of stream behind a whole request may be a client that only has nothing more to say (RFC 9112 §9.6 lets it
// close its sending side and read on). A reset, or a unix peer that has closed both sides, has left for certain.
void DownstreamConnection::OnPeerClosed(Socket&, Error error) {
  const uint64_t timeout_ms = context_.options.half_close_timeout_ms;
  const bool gone = error.code != ErrorCode::kClosed || timeout_ms == 0 || worker().ring().HungUp(socket_.fd());
  if (gone) return TellClientGone(error);
  half_closed_ = true;
  half_close_deadline_.ArmAfter(timeout_ms);
}

// Nothing has gone out to it for a while. One that is slow to take what is being sent has not left.
void DownstreamConnection::EndHalfClose(Error error) {
  if (socket_.is_sending()) return half_close_deadline_.ArmAfter(context_.options.half_close_timeout_ms);
  TellClientGone(error);
}

void DownstreamConnection::TellClientGone(Error error) {
  NoteClientError(error);
  if (gone_target_ != nullptr) gone_target_->Cancel(error);
}

}  // namespace dpa
