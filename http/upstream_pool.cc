#include "http/upstream_pool.h"

#include <coroutine>

namespace dpa {
namespace {

// A pool's own refusals: no byte of the request has left.
constexpr Error Refusal(ErrorCode code) { return Error{code, ErrorSource::kUpstream, true}; }

ConnectResult ResultOf(ErrorCode code) {
  switch (code) {
    case ErrorCode::kRefused:
      return ConnectResult::kRefused;
    case ErrorCode::kUnreachable:
      return ConnectResult::kUnreachable;
    case ErrorCode::kTimeout:
      return ConnectResult::kTimeout;
    default:
      return ConnectResult::kError;
  }
}

// Goes on later in this turn: out of the call that it was started from.
struct LaterAwaiter {
  Worker& worker;
  bool await_ready() const { return false; }
  void await_suspend(std::coroutine_handle<> handle) { worker.Schedule(handle); }
  void await_resume() const {}
};

}  // namespace

// One exchange that waits for a slot, in the pool's queue. Granted, refused or timed out exactly once.
class UpstreamPool::Waiter final : private TimerWheel::Entry {
 public:
  explicit Waiter(UpstreamPool& pool) : pool_(pool) {}

  bool await_ready() const { return false; }
  void await_suspend(std::coroutine_handle<> handle) {
    handle_ = handle;
    previous_ = pool_.waiting_last_;
    (previous_ != nullptr ? previous_->next_ : pool_.waiting_first_) = this;
    pool_.waiting_last_ = this;
    ++pool_.waiting_count_;
    pool_.metrics_.upstream_waiting.Add(1);
    if (pool_.options_.waiting_timeout_ms == 0) return;
    TimerWheel& timers = pool_.worker_.timers();
    timers.Arm(*this, timers.now_ms() + pool_.options_.waiting_timeout_ms);
  }
  Result<void> await_resume() const { return result_; }

  void Finish(Result<void> result) {
    (previous_ != nullptr ? previous_->next_ : pool_.waiting_first_) = next_;
    (next_ != nullptr ? next_->previous_ : pool_.waiting_last_) = previous_;
    --pool_.waiting_count_;
    pool_.metrics_.upstream_waiting.Add(-1);
    pool_.worker_.timers().Disarm(*this);
    result_ = result;
    pool_.worker_.Schedule(handle_);
  }

 private:
  void OnExpire() override { Finish(std::unexpected(Refusal(ErrorCode::kShed))); }

  UpstreamPool& pool_;
  Waiter* next_ = nullptr;
  Waiter* previous_ = nullptr;
  std::coroutine_handle<> handle_;
  Result<void> result_;
};

// --- Lease ---

UpstreamPool::Lease::~Lease() {
  if (connection_ != nullptr) connection_->pool_.Return(*connection_, reusable_);
}

void UpstreamPool::Lease::MarkReusable() { reusable_ = connection_->response_ended(); }

// --- Lending ---

UpstreamPool::UpstreamPool(Worker& worker, const Address& address, const UpstreamPoolOptions& options,
                           HttpMetrics& metrics)
    : worker_(worker),
      address_(address),
      name_(address.ToString()),
      options_(options),
      metrics_(metrics),
      closing_(worker),
      slots_returned_(worker) {}

UpstreamPool::~UpstreamPool() { DPA_ASSERT(leased_count_ == 0 && idle_count_ == 0 && waiting_count_ == 0); }

Task<Result<UpstreamPool::Lease>> UpstreamPool::Acquire(Freshness freshness, UpstreamWaits& waits) {
  if (draining_) co_return std::unexpected(Refusal(ErrorCode::kCancelled));
  if (leased_count_ >= options_.leases_max) {
    const uint64_t began_ns = worker_.now_ns();
    const Result<void> slot = co_await TakeSlot();
    waits.queue_ns += worker_.now_ns() - began_ns;
    if (!slot) co_return std::unexpected(slot.error());
  } else {
    CountSlots(1);
  }
  UpstreamConnection* connection = freshness == Freshness::kAny ? TakeIdle() : nullptr;
  if (connection == nullptr) co_return co_await ConnectNew(waits);
  metrics_.upstream_reuses.Add();
  connection->BeginExchange();
  co_return Lease(*connection);
}

void UpstreamPool::CountSlots(int change) {
  leased_count_ = static_cast<uint32_t>(static_cast<int>(leased_count_) + change);
  metrics_.upstream_leased.Add(change);
}

// The one who returns a slot leaves it counted and hands it over, so nobody can overtake the queue.
Task<Result<void>> UpstreamPool::TakeSlot() {
  if (waiting_count_ >= options_.waiting_max) co_return std::unexpected(Refusal(ErrorCode::kShed));
  Waiter waiter(*this);
  const Result<void> slot = co_await waiter;
  co_return slot;
}

void UpstreamPool::ReleaseSlot() {
  if (waiting_first_ != nullptr) return waiting_first_->Finish({});
  CountSlots(-1);
  if (leased_count_ == 0) slots_returned_.Notify();
}

Task<Result<UpstreamPool::Lease>> UpstreamPool::ConnectNew(UpstreamWaits& waits) {
  metrics_.upstream_leased.Add(-1);
  metrics_.upstream_connecting.Add(1);
  const uint64_t began_ns = worker_.ReadClockNs();
  const Result<int> fd = co_await Connect(worker_, address_, options_.connect_timeout_ms, ErrorSource::kUpstream);
  waits.connect_ns += worker_.ReadClockNs() - began_ns;
  metrics_.upstream_connecting.Add(-1);
  metrics_.upstream_leased.Add(1);
  metrics_.CountConnect(fd ? ConnectResult::kOk : ResultOf(fd.error().code));
  if (!fd) {
    ReleaseSlot();
    co_return std::unexpected(fd.error());
  }
  auto* connection = new UpstreamConnection(*this, worker_, *fd, address_.is_unix(), options_.connection);
  connection->BeginExchange();
  co_return Lease(*connection);
}

UpstreamConnection* UpstreamPool::TakeIdle() {
  while (idle_newest_ != nullptr) {
    UpstreamConnection& connection = *idle_newest_;
    if (!connection.socket_.peer_closed() && !connection.socket_.has_unread()) {
      Unlink(connection);
      return &connection;
    }
    // Its observer has not been told yet, but will be no more.
    CloseIdle(connection, UpstreamClose::kPeerClosed);
  }
  return nullptr;
}

// --- Returning ---

void UpstreamPool::Return(UpstreamConnection& connection, bool reusable) {
  connection.EndExchange();
  if (reusable && !draining_) {
    PutIdle(connection);
  } else {
    Discard(connection, draining_ ? UpstreamClose::kDrain : UpstreamClose::kNotReusable);
  }
  ReleaseSlot();
}

void UpstreamPool::PutIdle(UpstreamConnection& connection) {
  connection.idle_ = true;
  connection.idle_since_ms_ = worker_.timers().now_ms();
  connection.previous_ = nullptr;
  connection.next_ = idle_newest_;
  (idle_newest_ != nullptr ? idle_newest_->previous_ : idle_oldest_) = &connection;
  idle_newest_ = &connection;
  ++idle_count_;
  metrics_.upstream_idle.Add(1);
  // One timer for all, for the oldest; it is not touched while connections come and go.
  if (!armed() && options_.idle_timeout_ms != 0) {
    worker_.timers().Arm(*this, connection.idle_since_ms_ + options_.idle_timeout_ms);
  }
  if (idle_count_ > options_.idle_max) CloseIdle(*idle_oldest_, UpstreamClose::kIdleMax);
  if (connection.idle_) connection.socket_.Watch(connection);
}

void UpstreamPool::Unlink(UpstreamConnection& connection) {
  DPA_ASSERT(connection.idle_);
  connection.idle_ = false;
  (connection.previous_ != nullptr ? connection.previous_->next_ : idle_newest_) = connection.next_;
  (connection.next_ != nullptr ? connection.next_->previous_ : idle_oldest_) = connection.previous_;
  --idle_count_;
  metrics_.upstream_idle.Add(-1);
}

void UpstreamPool::OnExpire() {
  const uint64_t now_ms = worker_.timers().now_ms();
  while (idle_oldest_ != nullptr && idle_oldest_->idle_since_ms_ + options_.idle_timeout_ms <= now_ms) {
    CloseIdle(*idle_oldest_, UpstreamClose::kIdleTimeout);
  }
  if (idle_oldest_ != nullptr) worker_.timers().Arm(*this, idle_oldest_->idle_since_ms_ + options_.idle_timeout_ms);
}

// --- Closing ---

void UpstreamPool::CloseIdle(UpstreamConnection& connection, UpstreamClose cause) {
  connection.socket_.StopWatching();
  Unlink(connection);
  Discard(connection, cause);
}

void UpstreamPool::Discard(UpstreamConnection& connection, UpstreamClose cause) {
  metrics_.CountClose(cause);
  closing_.Spawn(CloseConnection(connection));
}

Task<void> UpstreamPool::CloseConnection(UpstreamConnection& connection) {
  // This may have been started from a callback of the very socket that ends here.
  LaterAwaiter later{worker_};
  co_await later;
  co_await connection.socket_.Close();
  delete &connection;
}

Task<void> UpstreamPool::Drain() {
  draining_ = true;
  worker_.timers().Disarm(*this);
  while (idle_oldest_ != nullptr) CloseIdle(*idle_oldest_, UpstreamClose::kDrain);
  while (waiting_first_ != nullptr) waiting_first_->Finish(std::unexpected(Refusal(ErrorCode::kCancelled)));
  while (leased_count_ != 0) co_await slots_returned_.Wait();
  while (closing_.running_count() != 0) co_await closing_.Join();
}

}  // namespace dpa
