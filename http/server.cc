#include "http/server.h"

#include <fmt/format.h>
#include <sys/socket.h>

#include <string>
#include <utility>

#include "http/json_text.h"

namespace dpa {
namespace {

constexpr Reason ReasonOf(ShedCause cause) {
  return cause == ShedCause::kConnectionLimit ? Reason::kConnectionLimit : Reason::kClientConnectionLimit;
}

Address PeerOf(int fd) {
  sockaddr_storage peer;
  socklen_t bytes = sizeof peer;
  if (getpeername(fd, reinterpret_cast<sockaddr*>(&peer), &bytes) != 0) return Address();
  return Address(reinterpret_cast<const sockaddr*>(&peer), bytes);
}

constexpr uint64_t kShedLingerMs = 500;
constexpr uint64_t kShedLingerBytes = 64 << 10;

}  // namespace

// Ready to be sent: at the limit there is no room for a request of its own. The shape is that of every error of ours.
HttpServer::ShedResponse::ShedResponse(BytePool& bytes, ShedCause cause) {
  const bool full = cause == ShedCause::kConnectionLimit;
  ByteBuffer body(bytes);
  AppendStatusBody(body, ReasonOf(cause), 503,
                   full ? "too many connections" : "too many connections from this address");
  text = fmt::format(
      "HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/json\r\nContent-Length: {}\r\n"
      "Retry-After: 1\r\nConnection: close\r\n\r\n",
      body.size());
  head_bytes = text.size();
  text += body.view();
}

HttpServer::HttpServer(Worker& worker, ExchangeHandler& handler, const HttpServerOptions& options, HttpMetrics& metrics,
                       AccessLog* access_log)
    : worker_(worker),
      options_(options),
      metrics_(metrics),
      own_limiter_({.connections_max = options.connections_max}),
      limiter_(options.limiter != nullptr ? *options.limiter : own_limiter_),
      shed_responses_{ShedResponse(worker.bytes(), ShedCause::kConnectionLimit),
                      ShedResponse(worker.bytes(), ShedCause::kClientConnectionLimit)},
      context_(worker, handler, options.downstream, metrics, access_log),
      tasks_(worker) {
  worker_.AddTurnObserver(*this);
}

HttpServer::~HttpServer() {
  DPA_ASSERT(connections_count_ == 0 && listeners_.empty());
  worker_.RemoveTurnObserver(*this);
}

// The pool's own counts are not for the scraping thread.
void HttpServer::OnTurn() {
  const BufferPool& buffers = worker_.ring().buffers();
  metrics_.receive_buffers.Set(buffers.buffers_count());
  metrics_.receive_buffers_lent.Set(buffers.lent_count());
  metrics_.receive_buffers_starved.Add(buffers.starved_count() - metrics_.receive_buffers_starved.value());
  uint64_t pauses = 0;
  for (const std::unique_ptr<Listener>& listener : listeners_) pauses += listener->out_of_descriptors_count();
  Counter& counted = metrics_.accepts_out_of_descriptors;
  if (pauses > counted.value()) counted.Add(pauses - counted.value());
}

void HttpServer::Listen(int fd, bool is_unix, Distribute distribute) {
  Listener::OnAccept on_accept;
  if (distribute) {
    // At the end the other workers may have ended already.
    on_accept = [this, give = std::move(distribute)](int accepted_fd) mutable {
      context_.draining ? Adopt(accepted_fd, true) : give(accepted_fd);
    };
  } else {
    on_accept = [this, is_unix](int accepted_fd) { Adopt(accepted_fd, is_unix); };
  }
  listeners_.push_back(std::make_unique<Listener>(worker_, fd, options_.listener, std::move(on_accept)));
  listeners_.back()->Start();
}

void HttpServer::Adopt(int fd, bool is_unix) {
  metrics_.connections_accepted.Add();
  if (drained_) return worker_.ring().Close(fd);
  const Address peer = limiter_.wants_peer() && !is_unix ? PeerOf(fd) : Address();
  const ConnectionLimiter::Ticket ticket = limiter_.Admit(peer);
  using Verdict = ConnectionLimiter::Verdict;
  if (ticket.verdict == Verdict::kAdmitted) return tasks_.Spawn(ServeConnection(fd, is_unix, ticket));
  const bool full = ticket.verdict == Verdict::kFull;
  const ShedCause cause = full ? ShedCause::kConnectionLimit : ShedCause::kClientConnectionLimit;
  if (shedding_count_ < kSheddingMax) return tasks_.Spawn(Shed(fd, is_unix, cause));
  metrics_.CountShed(cause, false);
  worker_.ring().Close(fd);
}

Task<void> HttpServer::ServeConnection(int fd, bool is_unix, ConnectionLimiter::Ticket ticket) {
  {
    // In the frame: it comes from the worker's free list, and so does the connection with it.
    DownstreamConnection connection(context_, fd, is_unix);
    Link(connection);
    if (context_.draining) connection.BeginDrain();
    co_await connection.Serve();
    Unlink(connection);
  }
  limiter_.Leave(ticket);
}

Task<void> HttpServer::Shed(int fd, bool is_unix, ShedCause cause) {
  ++shedding_count_;
  const uint64_t started_ns = worker_.now_ns();
  Socket socket(worker_, fd, is_unix, ErrorSource::kDownstream);
  std::string& text = shed_responses_[static_cast<size_t>(cause)].text;
  std::array<iovec, 1> pieces = {iovec{text.data(), text.size()}};
  const std::span<iovec> message = pieces;
  const Result<void> sent = co_await socket.Send(message);
  metrics_.CountShed(cause, sent.has_value());
  if (sent) {
    RecordShed(socket, started_ns, cause);
    co_await socket.LingerAndClose(kShedLingerMs, kShedLingerBytes);
  } else {
    co_await socket.Close();
  }
  --shedding_count_;
}

// It is a response like any other of ours, though nobody has read what it answers.
void HttpServer::RecordShed(const Socket& socket, uint64_t started_ns, ShedCause cause) {
  const ShedResponse& response = shed_responses_[static_cast<size_t>(cause)];
  const std::string client = socket.is_unix() ? std::string() : PeerOf(socket.fd()).ToString();
  AccessRecord record;
  record.connection_id = context_.NextConnectionId();
  record.exchange_id = context_.NextExchangeId();
  record.started_ns = started_ns;
  record.finished_ns = worker_.ReadClockNs();
  record.client = client;
  record.reason = ReasonOf(cause);
  record.status = Info(record.reason).http_status;
  record.ended_by = SourceOf(record.reason);
  record.response_head_bytes = response.head_bytes;
  record.response_body_bytes = response.text.size() - response.head_bytes;
  record.sent_bytes = socket.sent_bytes();
  metrics_.CountRequest(record);
  metrics_.sent_bytes.Add(socket.sent_bytes());
  if (context_.access_log != nullptr) context_.access_log->Write(record);
}

void HttpServer::Link(DownstreamConnection& connection) {
  connection.next_ = first_;
  if (first_ != nullptr) first_->previous_ = &connection;
  first_ = &connection;
  ++connections_count_;
  metrics_.connections.Add(1);
}

void HttpServer::Unlink(DownstreamConnection& connection) {
  (connection.previous_ != nullptr ? connection.previous_->next_ : first_) = connection.next_;
  if (connection.next_ != nullptr) connection.next_->previous_ = connection.previous_;
  --connections_count_;
  metrics_.connections.Add(-1);
}

Task<void> HttpServer::Drain(uint64_t timeout_ms) {
  context_.draining = true;
  for (const std::unique_ptr<Listener>& listener : listeners_) co_await listener->Close();
  listeners_.clear();
  for (DownstreamConnection* connection = first_; connection != nullptr; connection = connection->next_) {
    connection->BeginDrain();
  }
  DrainDeadline target(*this);
  Deadline deadline(worker_.timers(), target, Error{ErrorCode::kCancelled});
  deadline.ArmAfter(timeout_ms);
  if (timeout_ms == 0) Abort();
  while (tasks_.running_count() != 0) co_await tasks_.Join();
  drained_ = true;
}

// Aborting wakes what waits, by the ready list; nothing ends inside of this loop.
void HttpServer::Abort() {
  for (DownstreamConnection* connection = first_; connection != nullptr; connection = connection->next_) {
    connection->Abort(Error{ErrorCode::kCancelled});
  }
}

}  // namespace dpa
