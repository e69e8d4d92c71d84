// UpstreamConnection is one HTTP/1.1 connection to the delegate or to an HTTP backend: sends requests, reads responses.
//
// Made and owned by an UpstreamPool; used through its Lease by one exchange at a time:
//
//     SendHead --> SendBody* --> ReadHead (interim heads: NextHead, ReadHead) --> StartBody --> TakePieces, ReadPieces*
//
// Sending the request's body and reading the response may go on at once, in two coroutines.

#pragma once

#include <cstdint>

#include "core/byte_buffer.h"
#include "core/result.h"
#include "core/socket.h"
#include "core/task.h"
#include "core/timer_wheel.h"
#include "http/header_rewrite.h"
#include "http/message_reader.h"
#include "http/send_pieces.h"

namespace dpa {

class UpstreamPool;

struct UpstreamConnectionOptions {
  uint64_t header_timeout_ms = 60'000;  // --delegate-header-timeout: from the request's last byte to the response head.
  // --delegate-body-timeout: between two reads of a response body. Long: a watch may be silent for minutes. 0: none.
  uint64_t body_timeout_ms = 600'000;
  uint64_t send_timeout_ms = 30'000;  // --delegate-send-timeout: to take one run of pieces, 64 KiB as a rule.
  ParserLimits parser;
  BodyLimits body;
};

class UpstreamConnection final : private SocketObserver {
 public:
  // Takes over `fd`, connected.
  UpstreamConnection(UpstreamPool& pool, Worker& worker, int fd, bool is_unix,
                     const UpstreamConnectionOptions& options);
  ~UpstreamConnection();  // REQUIRES: Close() has completed.

  // Sends the head, rewritten, and `first` with it in one send; on a reused connection only if the peer has neither
  // ended it nor sent anything since it was lent (SendCheck), for which requests that cannot be repeated pay a look at
  // the kernel. Errors: kClosed, kReset, kMalformed (bytes out of turn), kTimeout, or the reason of Cancel; retry_safe:
  // not a byte has left. Once one has, a connection that ends is no error here: what the upstream said counts, and
  // ReadHead tells.
  Task<Result<void>> SendHead(const RequestHead& head, const RequestForwarding& forward, const BodyPieces& first);
  // More of the request's body, framed as its head said. Errors: as SendHead.
  Task<Result<void>> SendBody(const BodyPieces& pieces);
  // The request has been sent in full: the time for the response head runs from now on.
  void ExpectResponse();

  // The next response head, an interim one included. Errors (source upstream): kClosed, kReset, kTimeout, kMalformed;
  // or the reason of Cancel. One that was interrupted (Socket::InterruptReceive, with kCancelled) can be called again.
  Task<Result<void>> ReadHead();
  const ResponseHead& response() const { return reader_.response(); }
  size_t response_head_bytes() const { return reader_.head_bytes(); }
  void NextHead() { reader_.NextMessage(); }

  void StartBody();
  BodyPieces TakePieces() { return reader_.TakePieces(); }
  // Errors: as ReadHead.
  Task<Result<BodyPieces>> ReadPieces();
  // After a 101, whose head dies: from now on pieces are bytes of another protocol, both ways, unframed and without
  // deadlines; `last` is an end of stream.
  void StartTunnel();
  // The response ended exactly where its framing says, and the peer keeps the connection.
  bool response_ended() const;

  Socket& socket() { return socket_; }
  // The connection has served an exchange before this one.
  bool reused() const { return exchanges_count_ > 1; }
  // A byte of this exchange's request has left.
  bool head_sent() const { return head_sent_; }
  // It was ended because it took nothing for send_timeout_ms.
  bool send_timed_out() const { return send_deadline_.fired(); }
  // A byte of the answer to this exchange has come. What comes before the request has left is none.
  bool answered() const { return head_sent_ && socket_.received_bytes() != received_before_; }

 private:
  friend class UpstreamPool;

  void OnPeerClosed(Socket& socket, Error error) override;
  void OnUnreadBytes(Socket& socket) override;
  void BeginExchange();
  void EndExchange();
  void NoteKeepAlive();
  Task<Result<void>> Send(SendCheck check);

  UpstreamPool& pool_;
  const UpstreamConnectionOptions& options_;
  Socket socket_;
  MessageReader reader_;
  Deadline receive_deadline_;
  Deadline send_deadline_;
  ByteBuffer head_out_;
  ByteBuffer trailers_out_;
  SendPieces out_;
  bool chunked_ = false;
  bool head_sent_ = false;
  bool head_read_ = false;
  bool broken_ = false;  // A send has failed.
  bool tunnel_ = false;
  uint32_t exchanges_count_ = 0;
  uint64_t received_before_ = 0;
  // How long the peer keeps it when idle, less a margin; what it last said in Keep-Alive.
  uint64_t peer_idle_max_ms_ = TimerWheel::kNever;

  // The pool's: when it is too old, and its place in the idle list, since when.
  uint64_t retires_at_ms_ = TimerWheel::kNever;
  UpstreamConnection* next_ = nullptr;
  UpstreamConnection* previous_ = nullptr;
  bool idle_ = false;
  uint64_t idle_since_ms_ = 0;
};

}  // namespace dpa
