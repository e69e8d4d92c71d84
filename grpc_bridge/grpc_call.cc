#include "grpc_bridge/grpc_call.h"

#include <cstring>
#include <string>
#include <utility>

#include "core/assert.h"
#include "core/version.h"

namespace dpa {
namespace {

// Read bytes at the front of the inbox are moved out of the way when there are this many, and more than unread ones.
constexpr size_t kInboxCompactBytes = 64u << 10;

const std::string kUserAgent = std::string("dataplane-aggregator/") + kVersion;

}  // namespace

GrpcCall::GrpcCall(Worker& worker, const GrpcCallOptions& options)
    : worker_(worker),
      wake_(worker),
      deadline_(worker.timers(), *this, Error{ErrorCode::kTimeout, ErrorSource::kPlugin}),
      reader_(worker.bytes(), options.message_bytes_max),
      inbox_(worker.bytes()) {}

GrpcCall::~GrpcCall() {
  if (session() != nullptr) session()->Reset(*this);
}

void GrpcCall::ArmDeadline(uint64_t timeout_ms) {
  deadline_at_ms_ = timeout_ms == 0 ? 0 : worker_.now_ms() + timeout_ms;
  deadline_.ArmAfter(timeout_ms);
}

void GrpcCall::Cancel(Error reason) {
  if (cancelled_) return;
  cancelled_ = true;
  cancel_reason_ = reason;
  if (session() != nullptr) session()->Reset(*this);
  reader_.Clear();
  inbox_.Release();
  inbox_offset_ = 0;
  // An answer that is complete stays; whoever waits for more gets the reason.
  if (state_ == State::kActive) Finish(reason);
  wake_.Notify();
}

Task<Result<GrpcReply>> GrpcCall::Unary(H2Session& session, const GrpcRequest& request) {
  const Result<void> begun = Begin(session, request, /*streaming=*/false);
  if (!begun) co_return std::unexpected(begun.error());
  while (state_ == State::kActive) co_await wake_.Wait();
  if (error_) co_return std::unexpected(*error_);
  GrpcReply reply{std::move(fields_.status()), ByteBuffer(worker_.bytes())};
  if (reply.status.code == GrpcCode::kOk) reply.message = reader_.TakeMessage();
  co_return reply;
}

Result<void> GrpcCall::Start(H2Session& session, const GrpcRequest& request) {
  return Begin(session, request, /*streaming=*/true);
}

Task<Result<std::optional<ByteBuffer>>> GrpcCall::Read() {
  for (;;) {
    if (cancelled_) co_return std::unexpected(cancel_reason_);
    const Result<bool> complete = TakeFromInbox();
    if (!complete) co_return std::unexpected(complete.error());
    if (*complete) co_return std::optional<ByteBuffer>(reader_.TakeMessage());
    if (state_ == State::kEnded) break;
    co_await wake_.Wait();
  }
  if (error_) co_return std::unexpected(*error_);
  if (!reader_.empty() && fields_.status().code == GrpcCode::kOk) {
    fault_ = GrpcFault::kTruncated;
    co_return std::unexpected(ErrorOf(fault_));
  }
  co_return std::optional<ByteBuffer>();
}

// --- Beginning ---

Result<void> GrpcCall::Begin(H2Session& session, const GrpcRequest& request, bool streaming) {
  DPA_ASSERT(state_ != State::kActive);
  if (cancelled_) return std::unexpected(cancel_reason_);
  streaming_ = streaming;
  fault_ = GrpcFault::kNone;
  error_.reset();
  fields_ = GrpcResponseFields();
  reader_.Clear();
  inbox_.Release();
  inbox_offset_ = 0;
  ++attempts_count_;
  begun_ns_ = worker_.now_ns();
  request_sent_ns_ = response_head_ns_ = 0;
  const Result<void> opened = session.Open(*this, Assemble(request), /*holds_window=*/streaming, worker_.now_ms());
  if (opened) state_ = State::kActive;
  return opened;
}

H2Request GrpcCall::Assemble(const GrpcRequest& request) {
  DPA_ASSERT(request.pieces.size() <= GrpcRequest::kPiecesMax && request.metadata.size() <= GrpcRequest::kMetadataMax);
  size_t fields_count = 0;
  auto add = [&](const H2Field& field) { head_[fields_count++] = field; };
  add({":method", "POST"});
  add({":scheme", "http"});
  add({":path", request.path});
  add({":authority", "localhost"});
  add({"content-type", "application/grpc"});
  add({"te", "trailers"});
  add({"user-agent", kUserAgent});
  if (deadline_at_ms_ != 0) {
    const uint64_t now_ms = worker_.now_ms();
    const uint64_t rest_ms = deadline_at_ms_ > now_ms ? deadline_at_ms_ - now_ms : 1;
    add({"grpc-timeout", EncodeGrpcTimeout(rest_ms, timeout_text_)});
  }
  for (const H2Field& field : request.metadata) add(field);

  size_t message_bytes = 0;
  size_t pieces_count = 1;
  for (const std::string_view piece : request.pieces) {
    message_bytes += piece.size();
    if (!piece.empty()) body_[pieces_count++] = piece;
  }
  prefix_ = GrpcPrefix(message_bytes);
  body_[0] = {prefix_.data(), prefix_.size()};
  return {{head_.data(), fields_count}, {body_.data(), pieces_count}};
}

// --- What the session tells ---

void GrpcCall::OnField(std::string_view name, std::string_view value) { fields_.OnField(name, value); }

void GrpcCall::OnFieldsEnd() {
  const GrpcFault fault = fields_.OnFieldsEnd();
  if (response_head_ns_ == 0 && fields_.head_complete()) response_head_ns_ = worker_.now_ns();
  if (fault != GrpcFault::kNone) return GiveUp(fault);
  if (!fields_.http_refusal()) return;
  session()->Reset(*this);
  Finish(std::nullopt);
}

void GrpcCall::OnData(std::string_view bytes) {
  if (!streaming_) return TakeUnary(bytes);
  if (inbox_offset_ >= kInboxCompactBytes && inbox_offset_ * 2 > inbox_.size()) {
    const size_t unread_bytes = inbox_.size() - inbox_offset_;
    std::memmove(inbox_.data(), inbox_.data() + inbox_offset_, unread_bytes);
    inbox_.Truncate(unread_bytes);
    inbox_offset_ = 0;
  }
  inbox_.Append(bytes);
  wake_.Notify();
}

void GrpcCall::TakeUnary(std::string_view bytes) {
  if (bytes.empty()) return;
  if (reader_.complete()) return GiveUp(GrpcFault::kTwoMessages);
  const GrpcFault fault = reader_.Take(bytes);
  if (fault != GrpcFault::kNone) return GiveUp(fault);
  if (!bytes.empty()) GiveUp(GrpcFault::kTwoMessages);
}

void GrpcCall::OnRequestSent() { request_sent_ns_ = worker_.now_ns(); }

void GrpcCall::OnEnd(Result<void> result) {
  if (!result) return Finish(result.error());
  if (!fields_.has_status()) {
    fault_ = GrpcFault::kNoStatus;
  } else if (!streaming_ && fields_.status().code == GrpcCode::kOk && !reader_.complete()) {
    fault_ = reader_.empty() ? GrpcFault::kNoMessage : GrpcFault::kTruncated;
  }
  Finish(fault_ == GrpcFault::kNone ? std::nullopt : std::optional(ErrorOf(fault_)));
}

// --- Reading and ending ---

// Moves bytes of the inbox to the reader, up to the end of one message; true if it is complete.
Result<bool> GrpcCall::TakeFromInbox() {
  const std::string_view unread = inbox_.view().substr(inbox_offset_);
  if (unread.empty()) return false;
  std::string_view rest = unread;
  const GrpcFault fault = reader_.Take(rest);
  const size_t taken_bytes = unread.size() - rest.size();
  inbox_offset_ += taken_bytes;
  if (rest.empty()) {
    inbox_.Release();
    inbox_offset_ = 0;
  }
  if (fault != GrpcFault::kNone) {
    GiveUp(fault);
    return std::unexpected(ErrorOf(fault));
  }
  if (session() != nullptr) session()->Consume(*this, taken_bytes);
  return reader_.complete();
}

void GrpcCall::GiveUp(GrpcFault fault) {
  if (session() != nullptr) session()->Reset(*this);
  fault_ = fault;
  Finish(ErrorOf(fault));
}

void GrpcCall::Finish(std::optional<Error> error) {
  error_ = error;
  state_ = State::kEnded;
  wake_.Notify();
}

}  // namespace dpa
