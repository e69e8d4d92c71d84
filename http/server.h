// HttpServer is one worker's share of the listening addresses of one kind (data, or admin): it accepts connections,
// serves them, sheds those beyond the limits, and drains.
//
//     listening --Drain--> no new ones; idle ones closed; busy ones finish --deadline--> the rest aborted --> drained
//
// Accepting never stops: a full house answers each new connection with a 503 at once, which costs less than a request
// would, and leaves a record of it. How many of these goodbyes are under way is bounded, too; beyond that a connection
// is only closed, and counted.

#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "core/listener.h"
#include "core/task.h"
#include "core/worker.h"
#include "http/connection_limiter.h"
#include "http/downstream_connection.h"
#include "http/downstream_context.h"

namespace dpa {

struct HttpServerOptions {
  DownstreamOptions downstream;
  ListenerOptions listener;
  // Beyond it a new one gets a 503 and is closed. 0: no limit. Of this server alone: for one that shares no limiter.
  uint32_t connections_max = 0;
  ConnectionLimiter* limiter = nullptr;  // Shared with other workers' servers; outlives this one.
};

class HttpServer final : private TurnObserver {
 public:
  // Connections that are told "503" and lingered for at once; beyond it they are only closed.
  static constexpr uint32_t kSheddingMax = 128;

  // All outlive the server; `access_log` may be nullptr. REQUIRES: on the worker's thread, from here to the end.
  HttpServer(Worker& worker, ExchangeHandler& handler, const HttpServerOptions& options, HttpMetrics& metrics,
             AccessLog* access_log);
  ~HttpServer();  // REQUIRES: Drain() has completed.
  HttpServer(const HttpServer&) = delete;
  HttpServer& operator=(const HttpServer&) = delete;

  // Takes over `fd`, a listening socket, and accepts. `distribute`, if given, gets the accepted descriptors instead: a
  // unix listener lives on one worker, whose connections are for all (hand them to Adopt of the others, by mailbox).
  using Distribute = std::move_only_function<void(int fd)>;
  void Listen(int fd, bool is_unix, Distribute distribute = nullptr);
  // Serves `fd`, a connected socket.
  void Adopt(int fd, bool is_unix);

  // Stops accepting, ends idle connections at once and the others after their exchange; what is still there after
  // `timeout_ms` is aborted. Completes when all are closed. A second call while the first runs is not allowed; see
  // Abort().
  Task<void> Drain(uint64_t timeout_ms);
  // Ends a drain that is under way now.
  void Abort();

  uint32_t connections_count() const { return connections_count_; }
  bool draining() const { return context_.draining; }

 private:
  class DrainDeadline final : public Cancellable {
   public:
    explicit DrainDeadline(HttpServer& server) : server_(server) {}
    void Cancel(Error) override { server_.Abort(); }

   private:
    HttpServer& server_;
  };

  struct ShedResponse {
    ShedResponse(BytePool& bytes, ShedCause cause);
    std::string text;
    size_t head_bytes = 0;
  };

  void OnTurn() override;
  Task<void> ServeConnection(int fd, bool is_unix, ConnectionLimiter::Ticket ticket);
  Task<void> Shed(int fd, bool is_unix, ShedCause cause);
  void RecordShed(const Socket& socket, uint64_t started_ns, ShedCause cause);
  void Link(DownstreamConnection& connection);
  void Unlink(DownstreamConnection& connection);

  Worker& worker_;
  const HttpServerOptions options_;
  HttpMetrics& metrics_;
  ConnectionLimiter own_limiter_;
  ConnectionLimiter& limiter_;
  std::array<ShedResponse, static_cast<size_t>(ShedCause::kCount)> shed_responses_;
  DownstreamContext context_;
  TaskScope tasks_;
  std::vector<std::unique_ptr<Listener>> listeners_;
  DownstreamConnection* first_ = nullptr;
  uint32_t connections_count_ = 0;
  uint32_t shedding_count_ = 0;
  bool drained_ = false;
};

}  // namespace dpa
