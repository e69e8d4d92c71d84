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
  uint64_t body_timeout_ms = 600'000;  // Between two reads of a response body. Long: a watch may be silent for minutes.
  uint64_t send_timeout_ms = 30'000;   // A send that makes no progress.
  ParserLimits parser;
  BodyLimits body;
};

class UpstreamConnection final : private SocketObserver {
 public:
  // Takes over `fd`, connected.
  UpstreamConnection(UpstreamPool& pool, Worker& worker, int fd, bool is_unix,
                     const UpstreamConnectionOptions& options);
  ~UpstreamConnection();  // REQUIRES: Close() has completed.

  // Sends the head, rewritten, and `first` with it in one send. Errors: kReset, kTimeout; retry_safe if no byte has
  // left.
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
  // A byte of the answer to this exchange has come.
  bool answered() const { return socket_.received_bytes() != received_before_; }

 private:
  friend class UpstreamPool;

  void OnPeerClosed(Socket& socket, Error error) override;
  void OnUnreadBytes(Socket& socket) override;
  void BeginExchange();
  void EndExchange();
  Task<Result<void>> Send();

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
  bool head_read_ = false;
  bool tunnel_ = false;
  uint32_t exchanges_count_ = 0;
  uint64_t received_before_ = 0;

  // The pool's: place in its idle list, and since when.
  UpstreamConnection* next_ = nullptr;
  UpstreamConnection* previous_ = nullptr;
  bool idle_ = false;
  uint64_t idle_since_ms_ = 0;
};

}  // namespace dpa
