#include "grpc_bridge/plugin_channel.h"

#include <algorithm>
#include <utility>

#include "core/address.h"
#include "core/assert.h"
#include "core/log.h"

namespace dpa {
namespace {

// Counts a call while it lasts.
class CallCount {
 public:
  CallCount(uint32_t& count, Gauge& gauge) : count_(count), gauge_(gauge) {
    ++count_;
    gauge_.Add(1);
  }
  ~CallCount() {
    --count_;
    gauge_.Add(-1);
  }
  CallCount(const CallCount&) = delete;
  CallCount& operator=(const CallCount&) = delete;

 private:
  uint32_t& count_;
  Gauge& gauge_;
};

}  // namespace

// A call that waits for a connection, in its coroutine's frame.
struct PluginChannel::Waiter {
  Waiter(PluginChannel& c, GrpcCall& waiting) : channel(c), call(waiting), next(c.waiters_) {
    if (next != nullptr) next->previous = this;
    channel.waiters_ = this;
  }
  ~Waiter() {
    (previous == nullptr ? channel.waiters_ : previous->next) = next;
    if (next != nullptr) next->previous = previous;
  }
  Waiter(const Waiter&) = delete;
  Waiter& operator=(const Waiter&) = delete;

  PluginChannel& channel;
  GrpcCall& call;
  Waiter* next;
  Waiter* previous = nullptr;
};

PluginChannel::PluginChannel(Worker& worker, H2Memory& memory, const PluginChannelOptions& options,
                             std::string_view plugin_id, PluginMetrics::Record& metrics)
    : worker_(worker), memory_(memory), options_(options), plugin_id_(plugin_id), metrics_(metrics), scope_(worker) {}

PluginChannel::~PluginChannel() { DPA_ASSERT(connections_.empty() && waiters_ == nullptr && calls_count_ == 0); }

void PluginChannel::Update(const PluginEntry* entry) {
  const Error gone{ErrorCode::kReset, ErrorSource::kPlugin};
  installed_ = entry != nullptr;
  state_ = entry == nullptr ? PluginState::kStopped : entry->state;
  failure_ = entry == nullptr ? "" : entry->failure;
  if (entry == nullptr || state_ == PluginState::kStopped) {
    // It may be shutting down in good order: what runs may finish, and the end of the socket says when it has gone.
    for (H2Connection* connection : connections_) connection->CloseWhenIdle();
    return;
  }
  plugin_type_ = entry->type;
  if (entry->incarnation != incarnation_) {
    CloseAll(gone);
    incarnation_ = entry->incarnation;
    complained_ = false;
  }
  // Its children may hold the socket open, so the end of the process must not be left to the end of stream.
  if (state_ == PluginState::kBackoff) CloseAll(gone);
  if (state_ == PluginState::kRunning) address_ = entry->address;
}

void PluginChannel::CloseAll(Error reason) {
  for (H2Connection* connection : connections_) connection->Close(reason);
}

// --- Calls ---

Task<Result<GrpcReply>> PluginChannel::Unary(GrpcCall& call, const GrpcRequest& request) {
  if (calls_count_ >= options_.calls_max) {
    co_return std::unexpected(Error{ErrorCode::kShed, ErrorSource::kPlugin, /*retry_safe=*/true});
  }
  const CallCount counted(calls_count_, metrics_.streams_in_flight);
  for (uint32_t attempt = 1;; ++attempt) {
    const Result<H2Session*> session = co_await Acquire(call);
    if (!session) co_return std::unexpected(session.error());
    Result<GrpcReply> reply = co_await call.Unary(**session, request);
    const bool unseen = !reply && reply.error().retry_safe && reply.error().code != ErrorCode::kShed;
    if (!unseen || call.cancelled()) co_return reply;
    // A connection that broke before the call got on to it is as good as none.
    if (attempt == options_.attempts_max) co_return std::unexpected(Unavailable());
    metrics_.retries.Add();
  }
}

// The session for one attempt: the current one, or that of a connection which all who wait share.
Task<Result<H2Session*>> PluginChannel::Acquire(GrpcCall& call) {
  while (!HasConnection()) {
    if (call.cancelled()) co_return std::unexpected(call.cancel_reason());
    if (draining_ || state_ != PluginState::kRunning) co_return std::unexpected(Unavailable());
    if (!connecting_) {
      connecting_ = true;
      ++attempts_begun_;
      scope_.Spawn(ServeConnection());
    }
    const uint64_t attempt = attempts_begun_;
    const Waiter waiting(*this, call);
    while (attempts_finished_ < attempt && !call.cancelled()) co_await call.Wait();
    if (attempts_finished_ >= attempt && !last_attempt_) co_return std::unexpected(last_attempt_.error());
  }
  co_return &current_->session();
}

// --- Connections ---

Task<void> PluginChannel::ServeConnection() {
  const uint64_t incarnation = incarnation_;
  bool is_unix = false;
  const Result<int> fd = co_await ConnectNow(is_unix);
  if (!fd) {
    FinishConnecting(std::unexpected(Unavailable()));
    co_return;
  }
  if (incarnation != incarnation_ || state_ != PluginState::kRunning || draining_) {
    worker_.ring().Close(*fd);  // To a process that has gone meanwhile.
    FinishConnecting(std::unexpected(Unavailable()));
    co_return;
  }
  H2Connection connection(worker_, memory_, options_.connection, *fd, is_unix);
  connections_.push_back(&connection);
  current_ = &connection;
  metrics_.connections.Add(1);
  FinishConnecting({});
  const Error reason = co_await connection.Run();
  LogEnd(connection, reason);
  metrics_.connections.Add(-1);
  if (current_ == &connection) current_ = nullptr;
  std::erase(connections_, &connection);
}

Task<Result<int>> PluginChannel::ConnectNow(bool& is_unix) {
  const std::expected<Address, std::string> address = Address::Parse(address_);
  if (!address) {
    if (!std::exchange(complained_, true)) {
      LogWarn("plugin_address_bad", "plugin={} address={} error={}", Quoted(plugin_id_), Quoted(address_),
              Quoted(address.error()));
    }
    co_return std::unexpected(Unavailable());
  }
  is_unix = address->is_unix();
  const Result<int> fd = co_await Connect(worker_, *address, options_.connect_timeout_ms, ErrorSource::kPlugin);
  if (!fd && !std::exchange(complained_, true)) {
    LogWarn("plugin_connect_failed", "plugin={} address={} error={} errno={}", Quoted(plugin_id_),
            Quoted(address->ToString()), ToString(fd.error().code), fd.error().os_errno);
  }
  co_return fd;
}

void PluginChannel::FinishConnecting(Result<void> result) {
  (result ? metrics_.connects_ok : metrics_.connects_failed).Add();
  connecting_ = false;
  attempts_finished_ = attempts_begun_;
  last_attempt_ = result;
  for (Waiter* waiter = waiters_; waiter != nullptr; waiter = waiter->next) waiter->call.Wake();
}

void PluginChannel::LogEnd(const H2Connection& connection, Error reason) {
  const std::string& complaint = connection.session().complaint();
  if (reason.code == ErrorCode::kMalformed && !std::exchange(complained_, true)) {
    LogWarn("plugin_http2_error", "plugin={} detail={}", Quoted(plugin_id_), Quoted(complaint));
  } else {
    LogDebug("plugin_connection_ended", "plugin={} reason={}", Quoted(plugin_id_), ToString(reason.code));
  }
}

Task<void> PluginChannel::Drain() {
  DPA_ASSERT(calls_count_ == 0);
  draining_ = true;
  for (H2Connection* connection : connections_) connection->CloseWhenIdle();
  co_await scope_.Join();
}

}  // namespace dpa
