// MessageReader takes HTTP/1 messages off a Socket, one after another: head, body, and what the peer sent ahead of its
// turn.
//
//     Attach --> ReadHead --> StartBody --> (TakePieces | ReadPieces)* --> NextMessage --> ReadHead …
//
// A head that came in one piece is parsed where it lies, in the receive buffer, and pins that buffer until NextMessage.
// One that came in several is moved to memory of our own as it grows, and so is a request's head when half of the
// worker's receive buffers are lent: requests that wait long for their answer must not own the shared pool. Bodies are
// handed out as views of the receive buffers, several at a time, without copying.
//
// Not thread safe; one coroutine at a time.

#pragma once

#include <sys/uio.h>

#include <array>
#include <cstdint>
#include <span>
#include <string_view>

#include "core/buffer_pool.h"
#include "core/byte_buffer.h"
#include "core/result.h"
#include "core/socket.h"
#include "core/task.h"
#include "http/body_framing.h"
#include "http/message.h"
#include "http/message_parser.h"

namespace dpa {

// A run of body payload, in order. The views and the array are good until the reader is read again.
struct BodyPieces {
  std::span<const iovec> pieces;
  size_t bytes = 0;
  bool last = false;                      // Nothing follows.
  std::span<const HeaderField> trailers;  // Only with `last`.
};

class MessageReader {
 public:
  MessageReader(MessageParser::Role role, const ParserLimits& parser_limits, const BodyLimits& body_limits,
                BytePool& bytes);
  ~MessageReader();  // REQUIRES: detached.
  MessageReader(const MessageReader&) = delete;
  MessageReader& operator=(const MessageReader&) = delete;

  // `socket` outlives the attachment.
  void Attach(Socket& socket);
  // Gives back every buffer and forgets what was read.
  void Detach();

  // Bytes that were received outside of the reader come before all that it receives itself; the first `skip_bytes` of
  // them are none of its own. REQUIRES: nothing unread, skip_bytes <= lease.size().
  void Give(BufferLease lease, size_t skip_bytes = 0);

  // Reads until a head is complete. Errors: those of Socket::Receive; ErrorOf(violation()) with the source given.
  Task<Result<void>> ReadHead(ErrorSource source);
  // A byte of the next head has come.
  bool head_started() const { return !rest_.empty() || parser_.started(); }
  const RequestHead& request() const { return parser_.request(); }
  const ResponseHead& response() const { return parser_.response(); }
  size_t head_bytes() const { return parser_.head_size(); }
  // What has come of a head that failed to become whole. REQUIRES: ReadHead has just failed.
  std::string_view head_so_far() const { return head_copy_.empty() ? rest_ : head_copy_.view(); }
  // Bytes of this message that have been read: its head, and its body with framing.
  uint64_t message_bytes() const { return message_bytes_; }
  // What was wrong with the head or the body. kNone if nothing was.
  HttpViolation violation() const;
  // The answers that are read from now on are to a request with `method`; for responses, before each ReadHead.
  void SetRequestMethod(std::string_view method) { answers_head_ = method == "HEAD"; }

  // Moves the head to memory of our own, for a message that lasts: request() stays, what it views moves.
  void KeepHead();

  // Begins the body of the head just read.
  void StartBody(BodyFraming framing, uint64_t content_length);
  // What has come of the body, without waiting; maybe nothing. After a violation: nothing, and ReadPieces tells.
  BodyPieces TakePieces();
  // At least one byte of the body, or its end. Errors: as ReadHead; kClosed, kReset: the body is truncated.
  Task<Result<BodyPieces>> ReadPieces(ErrorSource source);
  bool body_done() const { return decoder_.done(); }
  const BodyDecoder& body() const { return decoder_; }

  // Ends a message: its views die, bytes behind it are kept for the next ReadHead. REQUIRES: the body is done, or the
  // message was an interim response.
  void NextMessage();
  // Bytes have come that belong to no message read so far.
  bool has_surplus() const { return !rest_.empty() || socket_->has_unread(); }
  // The same, but only those that the reader has taken off the socket.
  bool has_rest() const { return !rest_.empty(); }

 private:
  // Receive buffers that one run of pieces may span, and pieces in it: enough for a send of 64 KiB, and for small
  // chunks.
  static constexpr size_t kHeldMax = 4;
  static constexpr size_t kPiecesMax = 16;

  ParseStatus FeedInPlace();
  void MoveHead();
  void Accept(BufferLease lease);
  void ReleaseHeld();
  bool Decode();
  BodyPieces Taken();

  MessageParser parser_;
  BodyDecoder decoder_;
  const MessageParser::Role role_;
  Socket* socket_ = nullptr;
  bool answers_head_ = false;
  uint64_t message_bytes_ = 0;
  bool head_in_current_ = false;  // The head lies in current_, which must stay.

  BufferLease current_;                     // Where rest_ lies.
  std::string_view rest_;                   // Received and not dealt with.
  std::string_view head_;                   // The head's bytes, where they lie in a receive buffer.
  BufferLease head_lease_;                  // Where the head lies, when current_ has moved on.
  ByteBuffer head_copy_;                    // Where the head lies otherwise.
  std::array<BufferLease, kHeldMax> held_;  // Buffers of pieces handed out, before current_.
  size_t held_count_ = 0;
  std::array<iovec, kPiecesMax> pieces_;
  size_t pieces_count_ = 0;
  size_t pieces_bytes_ = 0;
};

}  // namespace dpa
