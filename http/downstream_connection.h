// DownstreamConnection is one client connection: it reads requests, hands each as an Exchange to the handler, and sends
// what the handler answers.
//
//     idle --first byte--> head --> exchange --both sides at their end--> idle, or the next pipelined head
//       |                    |          |
//       v                    v          v
//     closed silently    answered    aborted (its response is truncated), or closed after it (lingering, if the
//                                    client still sends)
//
// One exchange at a time: pipelined requests wait in the receive buffer and are answered in order; short answers to
// them leave together. An idle connection holds no buffer and no parser. Every exchange that has begun, a refused head
// included, ends with an access record.

#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <string_view>

#include "core/result.h"
#include "core/socket.h"
#include "core/task.h"
#include "core/timer_wheel.h"
#include "http/downstream_context.h"
#include "http/exchange.h"
#include "http/exchange_relay.h"
#include "http/header_rewrite.h"

namespace dpa {

class DownstreamConnection final : public Exchange, public ExchangeRelay, private SocketObserver {
 public:
  // Takes over `fd`. `context` outlives the connection.
  DownstreamConnection(DownstreamContext& context, int fd, bool is_unix);
  ~DownstreamConnection();  // REQUIRES: Serve() has completed.

  // Serves until either side is done, and closes.
  Task<void> Serve();

  // Shutdown: an idle connection ends now, a busy one after its exchange.
  void BeginDrain();
  // Ends it now, whatever is under way.
  void Abort(Error reason);

  // --- Exchange ---
  Worker& worker() override { return context_.worker; }
  const RequestHead& request() const override { return *request_; }
  RouteMatch& match() override { return match_; }
  AccessRecord& record() override { return record_; }
  Task<Result<std::string_view>> ReadBody() override;
  Task<Result<void>> ReadWholeBody(ByteBuffer& into, size_t bytes_max, size_t padding_bytes) override;
  Task<Result<void>> Respond(const Response& response, std::span<iovec> body) override;
  Task<Result<void>> RespondError(Reason reason, std::string_view message) override;
  Task<Result<void>> RespondError(Reason reason, std::string_view message,
                                  std::span<const HeaderField> fields) override;
  Task<Result<void>> StartResponse(const Response& response) override;
  Task<Result<void>> WriteBody(std::span<iovec> pieces) override;
  Task<Result<void>> FinishResponse() override;
  bool response_started() const override { return response_ != ResponseState::kNone; }
  void CancelWhenClientGone(Cancellable* target) override;
  ExchangeRelay* relay() override { return this; }

  // --- ExchangeRelay ---
  void HoldRoutes(RoutesPin pin) override { routes_ = std::move(pin); }
  std::string_view client_host() const override;
  Task<Result<void>> SendContinue() override;
  bool awaits_continue() const override { return continue_pending_ && !memory_->reader.has_surplus(); }
  BodyPieces TakePieces() override;
  Task<Result<BodyPieces>> ReadPieces() override;
  void InterruptRead(Error reason) override { socket_.InterruptReceive(reason); }
  Task<Result<void>> ForwardInterim(const ResponseHead& head) override;
  Task<Result<void>> ForwardHead(const ResponseHead& head, const BodyPieces& first) override;
  Task<Result<void>> ForwardBody(const BodyPieces& pieces) override;
  Task<Result<void>> StartTunnel(const ResponseHead& head) override;
  void CancelClient(Error reason, bool reset) override;
  void EndTunnel(Reason reason) override;

 private:
  enum class ResponseState : uint8_t { kNone, kStarted, kFinished };
  enum class Ending : uint8_t { kKeep, kClose, kLinger, kAbort };

  // A deadline on it ends the reading, not the connection, so that a client that stalled can still be told.
  struct ReceiveInterrupter final : Cancellable {
    explicit ReceiveInterrupter(Socket& s) : socket(s) {}
    void Cancel(Error reason) override { socket.InterruptReceive(reason); }
    Socket& socket;
  };
  // A client that has ended its sending side may still want its answer, or have left: TCP tells both alike.
  struct HalfCloseTarget final : Cancellable {
    explicit HalfCloseTarget(DownstreamConnection& c) : connection(c) {}
    void Cancel(Error reason) override { connection.EndHalfClose(reason); }
    DownstreamConnection& connection;
  };

  Task<Result<void>> WaitForRequest();
  Task<Result<void>> ReadHead();
  Task<Ending> RefuseHead(Error error);
  void BeginExchange(const RequestHead& head);
  void DescribeRequest();
  Task<Ending> EndExchange();
  Task<bool> DrainBody();
  void FinishRecord();
  void CountBytes();
  void NoteClientError(Error error);
  void EndByReason(Reason reason);

  MessageReader& reader() { return memory_->reader; }
  bool KeepAliveWanted() const;
  bool SuppressesBody(int status) const;
  std::string_view WriteOwnHead(const Response& response, BodyFraming framing, uint64_t content_length);
  Task<Result<void>> RespondStatus(Reason reason, int status, std::string_view message,
                                   std::span<const HeaderField> fields);
  std::string_view WriteForwardedHead(const ResponseHead& head, const ResponseFraming& framing,
                                      std::span<const HeaderField> added);
  bool PostOut();
  Task<Result<void>> SendOut();
  Task<Result<void>> FlushPosted();
  Task<Result<void>> SendAll(std::span<iovec> pieces);

  void OnPeerClosed(Socket& socket, Error error) override;
  void EndHalfClose(Error error);
  void TellClientGone(Error error);
  void WatchIfWanted();

  DownstreamContext& context_;
  Socket socket_;
  ReceiveInterrupter interrupter_;
  HalfCloseTarget half_close_target_;
  Deadline receive_deadline_;
  Deadline send_deadline_;
  Deadline half_close_deadline_;
  const uint64_t connection_id_;
  uint32_t exchanges_count_ = 0;
  bool idle_ = true;
  bool draining_ = false;
  bool write_timed_out_ = false;
  std::array<char, 64> client_text_;  // "192.0.2.1:80", "[::1]:80"; empty for a unix socket.
  uint8_t client_bytes_ = 0;
  uint8_t client_host_bytes_ = 0;

  // One exchange.
  std::unique_ptr<ExchangeMemory> memory_;
  const RequestHead* request_;
  RouteMatch match_;
  RoutesPin routes_;
  AccessRecord record_;
  Cancellable* gone_target_ = nullptr;
  ResponseState response_ = ResponseState::kNone;
  BodyFraming response_framing_ = BodyFraming::kNone;
  bool keep_alive_ = false;        // As the response's head has told the client.
  bool continue_pending_ = false;  // The client waits for `100 Continue`.
  bool half_closed_ = false;       // The client has ended its sending side behind this request.
  bool tunnel_ = false;            // The exchange has become a tunnel.
  bool client_failed_ = false;     // Reading from or sending to the client has failed; client_error_ says how.
  Error client_error_;
  BodyPieces unread_pieces_;  // For ReadBody: handed out one by one.
  size_t unread_index_ = 0;
  uint64_t received_counted_ = 0;  // Of the socket's bytes: already in the metrics.
  uint64_t sent_counted_ = 0;
  uint64_t sends_counted_ = 0;

  // The server's list.
  friend class HttpServer;
  DownstreamConnection* next_ = nullptr;
  DownstreamConnection* previous_ = nullptr;
};

}  // namespace dpa
