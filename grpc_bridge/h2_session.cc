#include "grpc_bridge/h2_session.h"

#include <nghttp2/nghttp2.h>

#include <algorithm>
#include <array>
#include <utility>

#include "core/assert.h"
#include "grpc_bridge/h2_memory.h"

namespace dpa {
namespace {

constexpr size_t kFieldsPerRequestMax = 32;
constexpr size_t kFrameHeadBytes = 9;
constexpr size_t kComplaintBytesMax = 256;

Error Malformed() { return Error{ErrorCode::kMalformed, ErrorSource::kPlugin}; }
Error NotHere() { return Error{ErrorCode::kClosed, ErrorSource::kPlugin, /*retry_safe=*/true}; }
Error Shed() { return Error{ErrorCode::kShed, ErrorSource::kPlugin, /*retry_safe=*/true}; }

// What a stream's end by RST_STREAM means. RFC 9113 §7, and §8.7 for REFUSED_STREAM: the peer has not looked at it.
Error ErrorFromH2Code(uint32_t code) {
  switch (code) {
    case NGHTTP2_REFUSED_STREAM:
      return Error{ErrorCode::kUnavailable, ErrorSource::kPlugin, /*retry_safe=*/true};
    case NGHTTP2_ENHANCE_YOUR_CALM:
      return Error{ErrorCode::kShed, ErrorSource::kPlugin};
    case NGHTTP2_PROTOCOL_ERROR:
    case NGHTTP2_FLOW_CONTROL_ERROR:
    case NGHTTP2_FRAME_SIZE_ERROR:
    case NGHTTP2_COMPRESSION_ERROR:
    case NGHTTP2_SETTINGS_TIMEOUT:
    case NGHTTP2_INADEQUATE_SECURITY:
    case NGHTTP2_HTTP_1_1_REQUIRED:
      return Malformed();
    default:
      return Error{ErrorCode::kReset, ErrorSource::kPlugin};
  }
}

nghttp2_nv ToNv(const H2Field& field) {
  // NO_COPY: fields stay until the stream has ended, and Drain() writes them right after they are submitted.
  uint8_t flags = NGHTTP2_NV_FLAG_NO_COPY_NAME | NGHTTP2_NV_FLAG_NO_COPY_VALUE;
  if (field.varies) flags |= NGHTTP2_NV_FLAG_NO_INDEX;
  auto bytes = [](std::string_view text) { return reinterpret_cast<uint8_t*>(const_cast<char*>(text.data())); };
  return {bytes(field.name), bytes(field.value), field.name.size(), field.value.size(), flags};
}

std::string_view AsText(const uint8_t* bytes, size_t size) { return {reinterpret_cast<const char*>(bytes), size}; }

}  // namespace

H2Stream::~H2Stream() { DPA_ASSERT(session_ == nullptr); }

void H2Session::List::PushBack(H2Stream& stream) {
  stream.next_ = nullptr;
  stream.previous_ = tail;
  (tail == nullptr ? head : tail->next_) = &stream;
  tail = &stream;
}

void H2Session::List::Remove(H2Stream& stream) {
  (stream.previous_ == nullptr ? head : stream.previous_->next_) = stream.next_;
  (stream.next_ == nullptr ? tail : stream.next_->previous_) = stream.previous_;
  stream.next_ = nullptr;
  stream.previous_ = nullptr;
}

// What nghttp2 calls. A stream that has ended for us has no user data there any more; what still comes for it is
// dropped.
struct H2Session::Callbacks {
  static H2Session& Self(void* self) { return *static_cast<H2Session*>(self); }
  static H2Stream* Find(nghttp2_session* session, int32_t id) {
    return static_cast<H2Stream*>(nghttp2_session_get_stream_user_data(session, id));
  }

  static int OnHeader(nghttp2_session* session, const nghttp2_frame* frame, const uint8_t* name, size_t name_bytes,
                      const uint8_t* value, size_t value_bytes, uint8_t, void* self) {
    H2Stream* stream = Find(session, frame->hd.stream_id);
    if (stream == nullptr) return 0;
    const H2Options& options = Self(self).options_;
    stream->field_bytes_ += static_cast<uint32_t>(std::min<size_t>(name_bytes + value_bytes, options.field_bytes_max));
    if (stream->field_bytes_ >= options.field_bytes_max || ++stream->fields_count_ > options.fields_max) {
      Self(self).End(*stream, std::unexpected(Error{ErrorCode::kTooLarge, ErrorSource::kPlugin}));
      return NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE;  // Makes it reset the stream.
    }
    stream->OnField(AsText(name, name_bytes), AsText(value, value_bytes));
    return 0;
  }

  static int OnData(nghttp2_session* session, uint8_t, int32_t id, const uint8_t* data, size_t bytes, void*) {
    H2Stream* stream = Find(session, id);
    if (stream != nullptr && stream->holds_window_) {
      nghttp2_session_consume_connection(session, bytes);
    } else {
      nghttp2_session_consume(session, id, bytes);
    }
    if (stream != nullptr) stream->OnData(AsText(data, bytes));
    return 0;
  }

  static int OnFrame(nghttp2_session* session, const nghttp2_frame* frame, void* self) {
    if (frame->hd.type == NGHTTP2_GOAWAY) {
      Self(self).Note("the plugin said GOAWAY", frame->goaway.error_code);
      Self(self).draining_ = true;
      Self(self).EndWaiting(NotHere());
      return 0;
    }
    if (frame->hd.type != NGHTTP2_DATA && frame->hd.type != NGHTTP2_HEADERS) return 0;
    // Looked up again after each call: the stream may have been reset in it.
    H2Stream* stream = Find(session, frame->hd.stream_id);
    if (stream != nullptr && frame->hd.type == NGHTTP2_HEADERS) {
      stream->OnFieldsEnd();
      stream = Find(session, frame->hd.stream_id);
    }
    if (stream == nullptr || (frame->hd.flags & NGHTTP2_FLAG_END_STREAM) == 0) return 0;
    // An answer before the whole request went out: nobody will read the rest of it (RFC 9113 §8.1).
    if (!stream->request_sent_) nghttp2_submit_rst_stream(session, NGHTTP2_FLAG_NONE, stream->id_, NGHTTP2_CANCEL);
    Self(self).End(*stream, {});
    return 0;
  }

  static int OnInvalidFrame(nghttp2_session* session, const nghttp2_frame* frame, int, void* self) {
    if (H2Stream* stream = Find(session, frame->hd.stream_id)) Self(self).End(*stream, std::unexpected(Malformed()));
    return 0;
  }

  static int OnFrameNotSent(nghttp2_session* session, const nghttp2_frame* frame, int, void* self) {
    if (frame->hd.type != NGHTTP2_HEADERS) return 0;
    if (H2Stream* stream = Find(session, frame->hd.stream_id)) Self(self).End(*stream, std::unexpected(NotHere()));
    return 0;
  }

  static int OnFrameSent(nghttp2_session*, const nghttp2_frame* frame, void* self) {
    if (frame->hd.type == NGHTTP2_GOAWAY) Self(self).Note("it was told GOAWAY", frame->goaway.error_code);
    return 0;
  }

  static int OnStreamClose(nghttp2_session* session, int32_t id, uint32_t code, void* self) {
    if (H2Stream* stream = Find(session, id)) Self(self).End(*stream, std::unexpected(ErrorFromH2Code(code)));
    Self(self).OnStreamGone();
    return 0;
  }

  static ssize_t ReadBody(nghttp2_session* session, int32_t id, uint8_t*, size_t bytes, uint32_t* flags,
                          nghttp2_data_source*, void*) {
    H2Stream* stream = Find(session, id);
    if (stream == nullptr) return NGHTTP2_ERR_DEFERRED;  // Reset: the RST_STREAM that is queued takes it away.
    *flags = NGHTTP2_DATA_FLAG_NO_COPY;
    if (bytes >= stream->body_rest_bytes_) *flags |= NGHTTP2_DATA_FLAG_EOF;
    return static_cast<ssize_t>(std::min<uint64_t>(bytes, stream->body_rest_bytes_));
  }

  static int SendData(nghttp2_session* session, nghttp2_frame* frame, const uint8_t* frame_head, size_t bytes,
                      nghttp2_data_source*, void* self) {
    H2Session& h2 = Self(self);
    H2Stream* stream = Find(session, frame->hd.stream_id);
    if (stream == nullptr) return NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE;
    h2.output_full_ = !h2.output_->empty() && h2.output_->size() + bytes > h2.output_bytes_max_;
    if (h2.output_full_) return NGHTTP2_ERR_WOULDBLOCK;
    h2.SendBody(stream, frame_head, bytes);
    return 0;
  }

  static int OnComplaint(nghttp2_session*, int, const char* message, size_t bytes, void* self) {
    Self(self).complaint_.assign(message, std::min(bytes, kComplaintBytesMax));
    return 0;
  }

  // One table for all sessions of the process, made once.
  static nghttp2_session_callbacks* Table() {
    static nghttp2_session_callbacks* const table = [] {
      nghttp2_session_callbacks* made = nullptr;
      DPA_ASSERT(nghttp2_session_callbacks_new(&made) == 0);
      nghttp2_session_callbacks_set_on_header_callback(made, &OnHeader);
      nghttp2_session_callbacks_set_on_data_chunk_recv_callback(made, &OnData);
      nghttp2_session_callbacks_set_on_frame_recv_callback(made, &OnFrame);
      nghttp2_session_callbacks_set_on_invalid_frame_recv_callback(made, &OnInvalidFrame);
      nghttp2_session_callbacks_set_on_frame_not_send_callback(made, &OnFrameNotSent);
      nghttp2_session_callbacks_set_on_frame_send_callback(made, &OnFrameSent);
      nghttp2_session_callbacks_set_on_stream_close_callback(made, &OnStreamClose);
      nghttp2_session_callbacks_set_send_data_callback(made, &SendData);
      nghttp2_session_callbacks_set_error_callback2(made, &OnComplaint);
      return made;
    }();
    return table;
  }
};

H2Session::H2Session(H2Memory& memory, const H2Options& options, Owner& owner) : options_(options), owner_(owner) {
  nghttp2_option* made = nullptr;
  DPA_ASSERT(nghttp2_option_new(&made) == 0);
  nghttp2_option_set_no_auto_window_update(made, 1);
  nghttp2_option_set_no_closed_streams(made, 1);  // They would be kept for priorities, which gRPC has no use for.
  nghttp2_mem callbacks = memory.Callbacks();
  DPA_ASSERT(nghttp2_session_client_new3(&session_, Callbacks::Table(), this, made, &callbacks) == 0);
  nghttp2_option_del(made);

  const std::array<nghttp2_settings_entry, 4> settings = {{
      {NGHTTP2_SETTINGS_ENABLE_PUSH, 0},
      {NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, options.stream_window_bytes},
      {NGHTTP2_SETTINGS_MAX_FRAME_SIZE, std::clamp<uint32_t>(options.frame_bytes_max, 1u << 14, (1u << 24) - 1)},
      {NGHTTP2_SETTINGS_MAX_HEADER_LIST_SIZE, options.field_bytes_max},
  }};
  DPA_ASSERT(nghttp2_submit_settings(session_, NGHTTP2_FLAG_NONE, settings.data(), settings.size()) == 0);
  DPA_ASSERT(nghttp2_session_set_local_window_size(session_, NGHTTP2_FLAG_NONE, 0,
                                                   static_cast<int32_t>(options.connection_window_bytes)) == 0);
  if (options.first_stream_id > 1) {
    DPA_ASSERT(nghttp2_session_set_next_stream_id(session_, static_cast<int32_t>(options.first_stream_id)) == 0);
  }
}

H2Session::~H2Session() {
  DPA_ASSERT(waiting_.head == nullptr && open_.head == nullptr);
  nghttp2_session_del(session_);
}

// --- Streams ---

Result<void> H2Session::Open(H2Stream& stream, const H2Request& request, bool holds_window, uint64_t now_ms) {
  DPA_ASSERT(stream.session_ == nullptr && request.fields.size() <= kFieldsPerRequestMax);
  if (!accepts_streams()) return std::unexpected(NotHere());
  if (open_count_ + waiting_count_ >= StreamsAllowed() + options_.waiting_max) return std::unexpected(Shed());
  stream.session_ = this;
  stream.request_ = request;
  stream.body_piece_ = stream.body_offset_ = 0;
  stream.body_rest_bytes_ = 0;
  for (const std::string_view piece : request.body) stream.body_rest_bytes_ += piece.size();
  stream.waiting_since_ms_ = now_ms;
  stream.field_bytes_ = stream.fields_count_ = 0;
  stream.id_ = 0;
  stream.holds_window_ = holds_window;
  stream.request_sent_ = false;
  waiting_.PushBack(stream);
  ++waiting_count_;
  WantOutput();
  return {};
}

void H2Session::Reset(H2Stream& stream) {
  DPA_ASSERT(stream.session_ == this);
  if (stream.id_ != 0) nghttp2_submit_rst_stream(session_, NGHTTP2_FLAG_NONE, stream.id_, NGHTTP2_CANCEL);
  Detach(stream);
  WantOutput();
}

void H2Session::Consume(H2Stream& stream, size_t bytes) {
  DPA_ASSERT(stream.session_ == this && stream.holds_window_ && stream.id_ != 0);
  nghttp2_session_consume_stream(session_, stream.id_, bytes);
  if (nghttp2_session_want_write(session_)) WantOutput();
}

uint32_t H2Session::StreamsAllowed() const {
  // 100 until the peer's SETTINGS have come, no limit if they do not name one.
  const uint32_t by_peer = nghttp2_session_get_remote_settings(session_, NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS);
  return std::min(by_peer, options_.streams_max);
}

void H2Session::StartWaiting() {
  while (waiting_.head != nullptr && open_count_ < StreamsAllowed()) {
    if (!Start(*waiting_.head)) return;
  }
}

// False: no stream can be started any more. Those that wait have then been ended.
bool H2Session::Start(H2Stream& stream) {
  std::array<nghttp2_nv, kFieldsPerRequestMax> fields;
  for (size_t i = 0; i < stream.request_.fields.size(); ++i) fields[i] = ToNv(stream.request_.fields[i]);
  const nghttp2_data_provider provider{.source = {.ptr = nullptr}, .read_callback = &Callbacks::ReadBody};
  const int32_t id = nghttp2_submit_request(session_, nullptr, fields.data(), stream.request_.fields.size(),
                                            stream.body_rest_bytes_ == 0 ? nullptr : &provider, &stream);
  if (id < 0) {  // NGHTTP2_ERR_STREAM_ID_NOT_AVAILABLE: 2^30 calls have been made on this connection.
    CloseWhenIdle();
    return false;
  }
  waiting_.Remove(stream);
  --waiting_count_;
  stream.id_ = id;
  open_.PushBack(stream);
  ++open_count_;
  if (stream.body_rest_bytes_ != 0) return true;
  stream.request_sent_ = true;
  stream.OnRequestSent();
  return true;
}

// Leaves no trace of `stream` here. nghttp2 may go on with it for a while, without us.
void H2Session::Detach(H2Stream& stream) {
  if (stream.id_ == 0) {
    waiting_.Remove(stream);
    --waiting_count_;
  } else {
    open_.Remove(stream);
    nghttp2_session_set_stream_user_data(session_, stream.id_, nullptr);
  }
  stream.session_ = nullptr;
}

void H2Session::End(H2Stream& stream, Result<void> result) {
  Detach(stream);
  stream.OnEnd(result);
}

void H2Session::EndWaiting(Error error) {
  error.retry_safe = true;
  while (waiting_.head != nullptr) End(*waiting_.head, std::unexpected(error));
}

void H2Session::OnStreamGone() {
  DPA_ASSERT(open_count_ > 0);
  --open_count_;
  if (waiting_.head != nullptr || close_when_idle_) WantOutput();
}

uint64_t H2Session::ExpireWaiting(uint64_t now_ms) {
  while (waiting_.head != nullptr) {
    const uint64_t expires_ms = waiting_.head->waiting_since_ms_ + options_.waiting_timeout_ms;
    if (expires_ms > now_ms) return expires_ms;
    End(*waiting_.head, std::unexpected(Shed()));
  }
  return UINT64_MAX;
}

// --- Bytes ---

Result<void> H2Session::Feed(std::string_view bytes) {
  if (failed_) return std::unexpected(Malformed());
  const ssize_t taken =
      nghttp2_session_mem_recv(session_, reinterpret_cast<const uint8_t*>(bytes.data()), bytes.size());
  if (taken < 0) {
    failed_ = true;
    if (complaint_.empty()) complaint_ = nghttp2_strerror(static_cast<int>(taken));
    return std::unexpected(Malformed());
  }
  if (nghttp2_session_want_write(session_) || waiting_.head != nullptr || finished()) WantOutput();
  return {};
}

Result<bool> H2Session::Drain(ByteBuffer& output, size_t output_bytes_max) {
  DPA_ASSERT(output.empty() && output_ == nullptr);
  if (failed_) return std::unexpected(Malformed());
  output_ = &output;
  output_bytes_max_ = output_bytes_max;
  output_full_ = false;
  ssize_t taken = 0;
  for (;;) {
    StartWaiting();
    if (close_when_idle_ && !goodbye_said_ && open_count_ == 0 && waiting_.head == nullptr) {
      goodbye_said_ = true;
      nghttp2_session_terminate_session(session_, NGHTTP2_NO_ERROR);
    }
    const uint8_t* bytes = nullptr;
    taken = nghttp2_session_mem_send(session_, &bytes);
    if (taken <= 0) break;
    output.Append(AsText(bytes, static_cast<size_t>(taken)));
  }
  output_ = nullptr;
  if (taken < 0) {
    failed_ = true;
    complaint_ = nghttp2_strerror(static_cast<int>(taken));
    return std::unexpected(Error{ErrorCode::kInternal, ErrorSource::kInternal});
  }
  return output_full_;
}

void H2Session::SendBody(H2Stream* stream, const uint8_t* frame_head, size_t bytes) {
  output_->Append(AsText(frame_head, kFrameHeadBytes));
  stream->body_rest_bytes_ -= bytes;
  while (bytes != 0) {
    const std::string_view rest = stream->request_.body[stream->body_piece_].substr(stream->body_offset_, bytes);
    output_->Append(rest);
    bytes -= rest.size();
    stream->body_offset_ += rest.size();
    if (stream->body_offset_ < stream->request_.body[stream->body_piece_].size()) continue;
    ++stream->body_piece_;
    stream->body_offset_ = 0;
  }
  if (stream->body_rest_bytes_ != 0) return;
  stream->request_sent_ = true;
  stream->OnRequestSent();
}

// --- Ending ---

void H2Session::Fail(Error error) {
  failed_ = true;
  EndWaiting(error);
  while (open_.head != nullptr) End(*open_.head, std::unexpected(error));
}

void H2Session::CloseWhenIdle() {
  draining_ = true;
  close_when_idle_ = true;
  EndWaiting(NotHere());
  WantOutput();
}

bool H2Session::finished() const {
  return failed_ || (!nghttp2_session_want_read(session_) && !nghttp2_session_want_write(session_));
}

// A GOAWAY for an error, unless the reason is known better already.
void H2Session::Note(std::string_view what, uint32_t h2_code) {
  if (h2_code == NGHTTP2_NO_ERROR || !complaint_.empty()) return;
  complaint_.append(what).append(" with ").append(nghttp2_http2_strerror(h2_code));
}

void H2Session::WantOutput() {
  if (output_ == nullptr && !failed_) owner_.OnOutputWanted();
}

}  // namespace dpa
