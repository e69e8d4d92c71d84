#include "http/message_reader.h"

#include <utility>

namespace dpa {

MessageReader::MessageReader(MessageParser::Role role, const ParserLimits& parser_limits, const BodyLimits& body_limits,
                             BytePool& bytes)
    : parser_(role, parser_limits), decoder_(body_limits), role_(role), head_copy_(bytes) {}

MessageReader::~MessageReader() { DPA_ASSERT(socket_ == nullptr && !current_); }

void MessageReader::Attach(Socket& socket) {
  DPA_ASSERT(socket_ == nullptr && rest_.empty());
  socket_ = &socket;
}

void MessageReader::Detach() {
  ReleaseHeld();
  head_lease_.Release();
  current_.Release();
  rest_ = {};
  head_in_current_ = false;
  head_copy_.Release();
  parser_.Reset();
  decoder_.Start(BodyFraming::kNone, 0);
  socket_ = nullptr;
}

void MessageReader::Give(BufferLease lease, size_t skip_bytes) {
  DPA_ASSERT(rest_.empty() && skip_bytes <= lease.size());
  Accept(std::move(lease));
  rest_.remove_prefix(skip_bytes);
}

// `lease` follows current_, whose bytes have been dealt with.
void MessageReader::Accept(BufferLease lease) {
  if (head_in_current_) {
    head_lease_ = std::move(current_);
    head_in_current_ = false;
  }
  current_ = std::move(lease);
  rest_ = {current_.data(), current_.size()};
}

HttpViolation MessageReader::violation() const {
  return parser_.violation() != HttpViolation::kNone ? parser_.violation() : decoder_.violation();
}

// --- Heads ---

Task<Result<void>> MessageReader::ReadHead(ErrorSource source) {
  message_bytes_ = 0;
  parser_.SetRequestMethod(answers_head_ ? "HEAD" : "");
  ParseStatus status = rest_.empty() ? ParseStatus::kNeedMore : FeedInPlace();
  while (status == ParseStatus::kNeedMore) {
    head_copy_.Append(rest_);
    rest_ = {};
    current_.Release();
    Result<BufferLease> lease = co_await socket_->Receive();
    if (!lease) co_return std::unexpected(lease.error());
    Accept(std::move(*lease));
    if (head_copy_.empty()) {
      status = FeedInPlace();
      continue;
    }
    const size_t copied_bytes = head_copy_.size();
    head_copy_.Append(rest_);
    status = parser_.Feed(head_copy_.view());
    if (status == ParseStatus::kComplete) {
      // The head was not whole before this buffer, so what lies behind it is in this buffer.
      rest_.remove_prefix(parser_.head_size() - copied_bytes);
    } else {
      rest_ = {};
    }
  }
  if (status == ParseStatus::kViolation) co_return std::unexpected(ErrorOf(parser_.violation(), source));
  message_bytes_ = parser_.head_size();
  co_return Result<void>();
}

ParseStatus MessageReader::FeedInPlace() {
  const ParseStatus status = parser_.Feed(rest_);
  if (status != ParseStatus::kComplete) return status;
  head_ = rest_.substr(0, parser_.head_size());
  const BufferPool& pool = socket_->worker().ring().buffers();
  if (role_ == MessageParser::Role::kRequest && pool.free_count() * 2 < pool.buffers_count()) {
    MoveHead();
  } else {
    head_in_current_ = true;
  }
  rest_.remove_prefix(parser_.head_size());
  return status;
}

// Parses once more, from memory of our own: about a microsecond, and only under pressure.
void MessageReader::MoveHead() {
  head_copy_.Append(head_);
  parser_.Reset();
  const ParseStatus status = parser_.Feed(head_copy_.view());
  DPA_ASSERT(status == ParseStatus::kComplete);
}

void MessageReader::KeepHead() {
  if (!head_in_current_ && !head_lease_) return;
  MoveHead();
  head_lease_.Release();
  head_in_current_ = false;
  if (rest_.empty()) current_.Release();
}

// --- Bodies ---

void MessageReader::StartBody(BodyFraming framing, uint64_t content_length) {
  decoder_.Start(framing, content_length);
  if (!head_in_current_ && rest_.empty()) current_.Release();
}

// Decodes what is there of the body. False: there may be more room, or more to wait for; true: the run is full or the
// body ended.
bool MessageReader::Decode() {
  while (pieces_count_ < kPiecesMax && decoder_.state() == BodyDecoder::State::kMore && !rest_.empty()) {
    const BodyDecoder::Step step = decoder_.Decode(rest_);
    rest_.remove_prefix(step.consumed);
    message_bytes_ += step.consumed;
    if (step.payload.empty()) continue;
    pieces_[pieces_count_++] = {const_cast<char*>(step.payload.data()), step.payload.size()};
    pieces_bytes_ += step.payload.size();
  }
  return pieces_count_ == kPiecesMax || decoder_.state() != BodyDecoder::State::kMore;
}

BodyPieces MessageReader::Taken() {
  if (decoder_.state() == BodyDecoder::State::kViolation) return {};
  BodyPieces taken{{pieces_.data(), pieces_count_}, pieces_bytes_, decoder_.done(), {}};
  if (taken.last) taken.trailers = decoder_.trailers();
  return taken;
}

void MessageReader::ReleaseHeld() {
  for (size_t i = 0; i < held_count_; ++i) held_[i].Release();
  held_count_ = 0;
  pieces_count_ = 0;
  pieces_bytes_ = 0;
}

BodyPieces MessageReader::TakePieces() {
  ReleaseHeld();
  Decode();
  return Taken();
}

Task<Result<BodyPieces>> MessageReader::ReadPieces(ErrorSource source) {
  ReleaseHeld();
  while (!Decode()) {
    DPA_ASSERT(rest_.empty());
    // What has come is handed on at once; only what is there already joins it.
    if (pieces_count_ != 0 && (!socket_->has_unread() || held_count_ == kHeldMax)) break;
    if (pieces_count_ != 0 && !head_in_current_) {
      held_[held_count_++] = std::move(current_);
    } else if (!head_in_current_) {
      current_.Release();
    }
    Result<BufferLease> lease = co_await socket_->Receive();
    if (!lease && lease.error().code == ErrorCode::kClosed && decoder_.EndOfInput()) break;
    if (!lease) co_return std::unexpected(lease.error());
    Accept(std::move(*lease));
  }
  if (decoder_.state() == BodyDecoder::State::kViolation) {
    co_return std::unexpected(ErrorOf(decoder_.violation(), source));
  }
  co_return Taken();
}

void MessageReader::NextMessage() {
  ReleaseHeld();
  head_lease_.Release();
  head_copy_.Clear();
  head_in_current_ = false;
  if (rest_.empty()) current_.Release();
  parser_.Reset();
}

}  // namespace dpa
