#include "http/server.h"

#include <utility>

namespace dpa {
namespace {

// Ready to be sent: at the limit there is no room for a request of its own. The body's shape is that of every error of
// ours.
constexpr std::string_view kShedResponse =
    "HTTP/1.1 503 Service Unavailable\r\n"
    "Content-Type: application/json\r\n"
    "Content-Length: 218\r\n"
    "Retry-After: 1\r\n"
    "Connection: close\r\n"
    "\r\n"
    R"({"kind":"Status","apiVersion":"v1","metadata":{},"status":"Failure","message":"too many connections",)"
    R"("reason":"ServiceUnavailable","details":{"causes":[{"reason":"connection_limit"}],"retryAfterSeconds":1},)"
    R"("code":503})"
    "\n";
static_assert(kShedResponse.size() - kShedResponse.find("\r\n\r\n") - 4 == 218);

constexpr uint64_t kShedLingerMs = 500;
constexpr uint64_t kShedLingerBytes = 64 << 10;

}  // namespace

HttpServer::HttpServer(Worker& worker, ExchangeHandler& handler, const HttpServerOptions& options, HttpMetrics& metrics,
                       AccessLog* access_log)
    : worker_(worker),
      options_(options),
      metrics_(metrics),
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
}

void HttpServer::Listen(int fd, bool is_unix, Distribute distribute) {
  Listener::OnAccept on_accept;
  if (distribute) {
    on_accept = std::move(distribute);
  } else {
    on_accept = [this, is_unix](int accepted_fd) { Adopt(accepted_fd, is_unix); };
  }
  listeners_.push_back(std::make_unique<Listener>(worker_, fd, options_.listener, std::move(on_accept)));
  listeners_.back()->Start();
}

void HttpServer::Adopt(int fd, bool is_unix) {
  metrics_.connections_accepted.Add();
  const bool full = options_.connections_max != 0 && connections_count_ >= options_.connections_max;
  if (!full && !context_.draining) return tasks_.Spawn(ServeConnection(fd, is_unix));
  metrics_.connections_shed.Add();
  if (shedding_count_ < kSheddingMax && !context_.draining) return tasks_.Spawn(Shed(fd, is_unix));
  worker_.ring().Close(fd);
}

Task<void> HttpServer::ServeConnection(int fd, bool is_unix) {
  // In the frame: it comes from the worker's free list, and so does the connection with it.
  DownstreamConnection connection(context_, fd, is_unix);
  Link(connection);
  co_await connection.Serve();
  Unlink(connection);
}

Task<void> HttpServer::Shed(int fd, bool is_unix) {
  ++shedding_count_;
  Socket socket(worker_, fd, is_unix, ErrorSource::kDownstream);
  std::array<iovec, 1> pieces = {iovec{const_cast<char*>(kShedResponse.data()), kShedResponse.size()}};
  const std::span<iovec> message = pieces;
  const Result<void> sent = co_await socket.Send(message);
  if (sent) {
    co_await socket.LingerAndClose(kShedLingerMs, kShedLingerBytes);
  } else {
    co_await socket.Close();
  }
  --shedding_count_;
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
}

// Aborting wakes what waits, by the ready list; nothing ends inside of this loop.
void HttpServer::Abort() {
  for (DownstreamConnection* connection = first_; connection != nullptr; connection = connection->next_) {
    connection->Abort(Error{ErrorCode::kCancelled});
  }
}

}  // namespace dpa
