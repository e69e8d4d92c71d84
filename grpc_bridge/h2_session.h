// H2Session is the HTTP/2 client protocol of one connection, by nghttp2: bytes in, bytes out, streams between. It knows
// neither sockets nor time (H2Connection does) nor gRPC (GrpcCall does), so it can be driven by anything that has
// bytes.
//
//     Open ──▶ waiting ──▶ open ──▶ ended        waiting: not one byte has gone out, the peer's or our own limit on
//                └──────────┴────▶ ended         concurrent streams is reached, or Drain() has not come yet
//
// A stream ends exactly once, by OnEnd or by Reset(); after that the session has forgotten it. Streams that were
// waiting, or that the peer says it never looked at, end with a retry_safe error.
//
// Flow control. What arrives is always given back to the connection's window at once, so that one slow reader never
// stops the others; a stream's own window is given back at once too, unless the stream holds it (`holds_window`) and
// calls Consume() as it drains. Memory for a stream that holds its window is bounded by `stream_window_bytes`.
//
// Output of a turn is collected by one Drain(). Heads are always written whole; bodies stop at the limit given and go
// on with the next Drain().
//
// Not thread safe; callbacks come from inside Feed(), Drain(), Fail() and ExpireWaiting() only.

#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include "core/byte_buffer.h"
#include "core/result.h"

struct nghttp2_session;

namespace dpa {

class H2Memory;
class H2Session;

struct H2Options {
  uint32_t stream_window_bytes = 1u << 20;       // Ours, per stream. A unix socket's round trip needs a fraction of it.
  uint32_t connection_window_bytes = 16u << 20;  // Ours, in all: 256 replies of 64 KiB at once.
  uint32_t frame_bytes_max = 64u << 10;          // Largest frame that we accept; fewer frame heads in large replies.
  uint32_t streams_max = 1024;                   // Open at once, unless the peer allows fewer.
  uint32_t waiting_max = 1024;                   // Waiting because of that limit. Beyond it: kShed.
  uint32_t waiting_timeout_ms = 5'000;           // Waiting longer: kShed.
  uint32_t field_bytes_max = 64u << 10;          // Of the fields of one response, names and values.
  uint32_t fields_max = 256;                     // Of one response.
  uint32_t first_stream_id = 1;                  // Odd. Larger only to show what happens when ids run out.
};

struct H2Field {
  std::string_view name;  // Lower case.
  std::string_view value;
  // Differs from call to call: kept out of the peer's and our header table.
  bool varies = false;
};

// A request: `fields` with the pseudo fields first, then the pieces of a body of known length. All of it, the arrays
// included, must stay until the stream has ended.
struct H2Request {
  std::span<const H2Field> fields;
  std::span<const std::string_view> body;
};

// One request and its response, embedded in whoever asks. The callbacks may call Reset() and Consume() of the session,
// and must not resume coroutines (wake by the worker's ready list).
class H2Stream {
 public:
  H2Stream(const H2Stream&) = delete;
  H2Stream& operator=(const H2Stream&) = delete;

 protected:
  H2Stream() = default;
  ~H2Stream();  // Asserts that it has ended.

  virtual void OnField(std::string_view name, std::string_view value) = 0;
  // A block of fields is complete: a response head (interim ones included) or trailers.
  virtual void OnFieldsEnd() = 0;
  virtual void OnData(std::string_view bytes) = 0;
  // The last byte of the request is in the output.
  virtual void OnRequestSent() = 0;
  // No error: the peer ended its side in an orderly way, everything it sent has been handed over.
  virtual void OnEnd(Result<void> result) = 0;

  // Not ended: waiting or open. The session to call Reset() and Consume() of.
  H2Session* session() const { return session_; }

 private:
  friend class H2Session;
  H2Session* session_ = nullptr;
  H2Stream* next_ = nullptr;
  H2Stream* previous_ = nullptr;
  H2Request request_;
  size_t body_piece_ = 0;  // Where sending the body has got to.
  size_t body_offset_ = 0;
  uint64_t body_rest_bytes_ = 0;
  uint64_t waiting_since_ms_ = 0;
  uint32_t field_bytes_ = 0;
  uint32_t fields_count_ = 0;
  int32_t id_ = 0;  // 0 while waiting.
  bool holds_window_ = false;
  bool request_sent_ = false;
};

class H2Session {
 public:
  // Told that Drain() has something to do. May be told several times; not from inside Drain().
  class Owner {
   public:
    virtual void OnOutputWanted() = 0;

   protected:
    ~Owner() = default;
  };

  // `memory` and `owner` outlive the session.
  H2Session(H2Memory& memory, const H2Options& options, Owner& owner);
  ~H2Session();  // REQUIRES: no stream is waiting or open.
  H2Session(const H2Session&) = delete;
  H2Session& operator=(const H2Session&) = delete;

  // Begins a stream. `holds_window`: see flow control above. Errors, both retry_safe, and the stream has not begun:
  // kShed (waiting_max), kClosed (no new streams here: the peer is going away, or ids have run out).
  // REQUIRES: the stream is not active.
  Result<void> Open(H2Stream& stream, const H2Request& request, bool holds_window, uint64_t now_ms);
  // Ends a stream from our side (RST_STREAM CANCEL if it has been opened). No OnEnd follows.
  void Reset(H2Stream& stream);
  // A stream that holds its window has drained `bytes`.
  void Consume(H2Stream& stream, size_t bytes);

  // What came from the peer. Errors: kMalformed; the connection is of no use any more.
  Result<void> Feed(std::string_view bytes);
  // Appends what is to be sent, bodies only up to `output_bytes_max`. True: there is more.
  // Errors: as Feed. REQUIRES: `output` is empty.
  Result<bool> Drain(ByteBuffer& output, size_t output_bytes_max);

  // The connection has gone: every stream ends with `error`, those that waited with it made retry_safe.
  void Fail(Error error);
  // No new streams; once the last has ended, GOAWAY is sent and finished() becomes true.
  void CloseWhenIdle();
  // Ends streams that have waited too long with kShed. Returns when the next one will have, UINT64_MAX if none waits.
  uint64_t ExpireWaiting(uint64_t now_ms);

  bool accepts_streams() const { return !draining_ && !failed_; }
  // Nothing more to read or to write: close the connection.
  bool finished() const;
  uint32_t open_count() const { return open_count_; }
  uint32_t waiting_count() const { return waiting_count_; }
  // What was wrong with the peer or, as it says, with us; a sentence for the log, empty if nothing.
  const std::string& complaint() const { return complaint_; }

 private:
  struct Callbacks;
  struct List {
    H2Stream* head = nullptr;
    H2Stream* tail = nullptr;
    void PushBack(H2Stream& stream);
    void Remove(H2Stream& stream);
  };

  uint32_t StreamsAllowed() const;
  void StartWaiting();
  bool Start(H2Stream& stream);
  void SendBody(H2Stream* stream, const uint8_t* frame_head, size_t bytes);
  void Detach(H2Stream& stream);
  void End(H2Stream& stream, Result<void> result);
  void EndWaiting(Error error);
  void OnStreamGone();
  void Note(std::string_view what, uint32_t h2_code);
  void WantOutput();

  nghttp2_session* session_ = nullptr;
  const H2Options options_;
  Owner& owner_;
  List waiting_;
  List open_;
  uint32_t waiting_count_ = 0;
  uint32_t open_count_ = 0;  // As nghttp2 counts: a stream that we reset counts until that has been sent.
  bool draining_ = false;
  bool close_when_idle_ = false;
  bool goodbye_said_ = false;
  bool failed_ = false;
  ByteBuffer* output_ = nullptr;  // During Drain().
  size_t output_bytes_max_ = 0;
  bool output_full_ = false;
  std::string complaint_;
};

}  // namespace dpa
