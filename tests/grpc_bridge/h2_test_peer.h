// H2TestPeer is the server side of an HTTP/2 connection in memory, as a test wants it: it notes what arrives, answers
// when told to, and can be told to misbehave. Made with nghttp2's server session; no socket, no thread.

#pragma once

#include <gtest/gtest.h>
#include <nghttp2/nghttp2.h>

#include <cstring>
#include <deque>
#include <map>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "grpc_bridge/grpc_framing.h"

namespace dpa {

// `bytes` as one message with its prefix.
inline std::string GrpcMessage(std::string_view bytes) {
  const auto prefix = GrpcPrefix(bytes.size());
  return std::string(prefix.data(), prefix.size()) + std::string(bytes);
}

class H2TestPeer {
 public:
  using Fields = std::vector<std::pair<std::string, std::string>>;

  struct Request {
    int32_t id = 0;
    std::map<std::string, std::string> fields;
    std::string body;
    bool complete = false;
    bool closed = false;
    uint32_t close_code = 0;
    std::string reply;
    size_t reply_offset = 0;
    Fields trailers;
    bool end = true;
  };

  explicit H2TestPeer(std::vector<nghttp2_settings_entry> settings = {}) {
    nghttp2_session_callbacks* table = nullptr;
    nghttp2_session_callbacks_new(&table);
    nghttp2_session_callbacks_set_on_begin_headers_callback(table, &OnBeginHeaders);
    nghttp2_session_callbacks_set_on_header_callback(table, &OnHeader);
    nghttp2_session_callbacks_set_on_data_chunk_recv_callback(table, &OnData);
    nghttp2_session_callbacks_set_on_frame_recv_callback(table, &OnFrame);
    nghttp2_session_callbacks_set_on_stream_close_callback(table, &OnClose);
    nghttp2_session_server_new(&session_, table, this);
    nghttp2_session_callbacks_del(table);
    nghttp2_submit_settings(session_, NGHTTP2_FLAG_NONE, settings.data(), settings.size());
  }
  ~H2TestPeer() { nghttp2_session_del(session_); }
  H2TestPeer(const H2TestPeer&) = delete;
  H2TestPeer& operator=(const H2TestPeer&) = delete;

  // False: the client broke the protocol.
  bool Feed(std::string_view bytes) {
    return nghttp2_session_mem_recv(session_, reinterpret_cast<const uint8_t*>(bytes.data()), bytes.size()) >= 0;
  }
  std::string TakeOutput() {
    std::string out;
    const uint8_t* bytes = nullptr;
    for (ssize_t n = 0; (n = nghttp2_session_mem_send(session_, &bytes)) > 0;) {
      out.append(reinterpret_cast<const char*>(bytes), static_cast<size_t>(n));
    }
    return out;
  }

  // Requests in the order of their heads.
  std::deque<Request>& requests() { return requests_; }
  int pings_count() const { return pings_count_; }
  bool goaway_received() const { return goaway_received_; }

  // A whole answer: head, `body` as DATA, trailers.
  void Answer(size_t index, std::string body, Fields trailers = {{"grpc-status", "0"}},
              Fields head = {{":status", "200"}, {"content-type", "application/grpc"}}) {
    Request& request = requests_.at(index);
    request.reply = std::move(body);
    request.trailers = std::move(trailers);
    SubmitHead(request, head, /*has_body=*/true);
  }
  // Head and trailers in one block that ends the stream.
  void AnswerTrailersOnly(size_t index, Fields fields) { SubmitHead(requests_.at(index), fields, /*has_body=*/false); }
  // A head and a first piece of a body; More() and Answer's trailers end it.
  void Begin(size_t index, std::string body) {
    Request& request = requests_.at(index);
    request.reply = std::move(body);
    request.end = false;
    SubmitHead(request, {{":status", "200"}, {"content-type", "application/grpc"}}, /*has_body=*/true);
  }
  void More(size_t index, std::string_view body, bool end, Fields trailers = {{"grpc-status", "0"}}) {
    Request& request = requests_.at(index);
    request.reply.append(body);
    request.end = end;
    request.trailers = std::move(trailers);
    nghttp2_session_resume_data(session_, request.id);
  }
  void Interim(size_t index) {
    Request& request = requests_.at(index);
    const Fields fields = {{":status", "103"}, {"content-type", "text/plain"}};
    const auto nvs = ToNvs(fields);
    nghttp2_submit_headers(session_, NGHTTP2_FLAG_NONE, request.id, nullptr, nvs.data(), nvs.size(), nullptr);
  }
  void Reset(size_t index, uint32_t code) {
    nghttp2_submit_rst_stream(session_, NGHTTP2_FLAG_NONE, requests_.at(index).id, code);
  }
  void Goaway(int32_t last_id, uint32_t code = NGHTTP2_NO_ERROR) {
    nghttp2_submit_goaway(session_, NGHTTP2_FLAG_NONE, last_id, code, nullptr, 0);
  }
  void Ping() { nghttp2_submit_ping(session_, NGHTTP2_FLAG_NONE, nullptr); }

 private:
  static H2TestPeer& Self(void* self) { return *static_cast<H2TestPeer*>(self); }
  Request* Find(int32_t id) {
    for (Request& request : requests_) {
      if (request.id == id) return &request;
    }
    return nullptr;
  }
  static std::vector<nghttp2_nv> ToNvs(const Fields& fields) {
    std::vector<nghttp2_nv> nvs;
    for (const auto& [name, value] : fields) {
      nvs.push_back({reinterpret_cast<uint8_t*>(const_cast<char*>(name.data())),
                     reinterpret_cast<uint8_t*>(const_cast<char*>(value.data())), name.size(), value.size(),
                     NGHTTP2_NV_FLAG_NONE});
    }
    return nvs;
  }
  void SubmitHead(Request& request, const Fields& fields, bool has_body) {
    const auto nvs = ToNvs(fields);
    nghttp2_data_provider provider{.source = {.ptr = this}, .read_callback = &ReadReply};
    ASSERT_EQ(nghttp2_submit_response(session_, request.id, nvs.data(), nvs.size(), has_body ? &provider : nullptr), 0);
  }

  static int OnBeginHeaders(nghttp2_session*, const nghttp2_frame* frame, void* self) {
    Self(self).requests_.emplace_back().id = frame->hd.stream_id;
    return 0;
  }
  static int OnHeader(nghttp2_session*, const nghttp2_frame* frame, const uint8_t* name, size_t name_bytes,
                      const uint8_t* value, size_t value_bytes, uint8_t, void* self) {
    Self(self).Find(frame->hd.stream_id)->fields[{reinterpret_cast<const char*>(name), name_bytes}] = {
        reinterpret_cast<const char*>(value), value_bytes};
    return 0;
  }
  static int OnData(nghttp2_session*, uint8_t, int32_t id, const uint8_t* data, size_t bytes, void* self) {
    if (Request* request = Self(self).Find(id)) request->body.append(reinterpret_cast<const char*>(data), bytes);
    return 0;
  }
  static int OnFrame(nghttp2_session*, const nghttp2_frame* frame, void* self) {
    H2TestPeer& peer = Self(self);
    if (frame->hd.type == NGHTTP2_PING && (frame->hd.flags & NGHTTP2_FLAG_ACK) != 0) ++peer.pings_count_;
    if (frame->hd.type == NGHTTP2_GOAWAY) peer.goaway_received_ = true;
    if (frame->hd.type != NGHTTP2_DATA && frame->hd.type != NGHTTP2_HEADERS) return 0;
    Request* request = peer.Find(frame->hd.stream_id);
    if (request != nullptr && (frame->hd.flags & NGHTTP2_FLAG_END_STREAM) != 0) request->complete = true;
    return 0;
  }
  static int OnClose(nghttp2_session*, int32_t id, uint32_t code, void* self) {
    if (Request* request = Self(self).Find(id)) {
      request->closed = true;
      request->close_code = code;
    }
    return 0;
  }
  static ssize_t ReadReply(nghttp2_session* session, int32_t id, uint8_t* out, size_t bytes, uint32_t* flags,
                           nghttp2_data_source* source, void*) {
    Request& request = *Self(source->ptr).Find(id);
    const size_t count = std::min(bytes, request.reply.size() - request.reply_offset);
    std::memcpy(out, request.reply.data() + request.reply_offset, count);
    request.reply_offset += count;
    if (request.reply_offset < request.reply.size()) return static_cast<ssize_t>(count);
    if (!request.end) return count == 0 ? static_cast<ssize_t>(NGHTTP2_ERR_DEFERRED) : static_cast<ssize_t>(count);
    *flags |= NGHTTP2_DATA_FLAG_EOF;
    if (!request.trailers.empty()) {
      *flags |= NGHTTP2_DATA_FLAG_NO_END_STREAM;
      const auto nvs = ToNvs(request.trailers);
      nghttp2_submit_trailer(session, id, nvs.data(), nvs.size());
    }
    return static_cast<ssize_t>(count);
  }

  nghttp2_session* session_ = nullptr;
  std::deque<Request> requests_;
  int pings_count_ = 0;
  bool goaway_received_ = false;
};

}  // namespace dpa
