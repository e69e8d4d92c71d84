#include "http/upstream_pool.h"

#include <algorithm>
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
    case ErrorCode::kCancelled:
      return ConnectResult::kCancelled;
    default:
      return ConnectResult::kError;
  }
}

// Never, if either is.
uint64_t Later(uint64_t from_ms, uint64_t span_ms) {
  return span_ms > TimerWheel::kNever - from_ms ? TimerWheel::kNever : from_ms + span_ms;
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
class UpstreamPool::Waiter final : public Cancellable, private TimerWheel::Entry {
 public:
  explicit Waiter(UpstreamPool& pool) : pool_(pool) {}

  bool await_ready() const { return false; }
  void await_suspend(std::coroutine_handle<> handle) {
    handle_ = handle;
    waiting_ = true;
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

  // No-op once it has been granted or refused.
  void Cancel(Error reason) override {
    if (waiting_) Finish(std::unexpected(reason));
  }

  void Finish(Result<void> result) {
    waiting_ = false;
    (previous_ != nullptr ? previous_->next_ : pool_.waiting_first_) = next_;
    (next_ != nullptr ? next_->previous_ : pool_.waiting_last_) = previous_;
    --pool_.waiting_count_;
    pool_.metrics_.upstream_waiting.Add(-1);
    pool_.worker_.timers().Disarm(*this);
    result_ = result;
    pool_.worker_.Schedule(handle_);
  }

 private:
  void OnExpire() override { Finish(std::unexpected(Refusal(ErrorCode::kQueueTimeout))); }

  UpstreamPool& pool_;
  Waiter* next_ = nullptr;
  Waiter* previous_ = nullptr;
  std::coroutine_handle<> handle_;
  bool waiting_ = false;
  Result<void> result_;
};

// --- Lease ---

UpstreamPool::Lease::~Lease() {
  if (connection_ != nullptr) connection_->pool_.Return(*connection_, reusable_);
}

void UpstreamPool::Lease::MarkReusable() {
  reusable_ = connection_->response_ended();
  if (reusable_) connection_->NoteKeepAlive();
}

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

Task<Result<UpstreamPool::Lease>> UpstreamPool::Acquire(Freshness freshness, UpstreamWaits& waits,
                                                        Cancellation& cancel) {
  if (draining_) co_return std::unexpected(Refusal(ErrorCode::kCancelled));
  if (leased_count_ >= options_.leases_max) {
    const uint64_t began_ns = worker_.now_ns();
    const Result<void> slot = co_await TakeSlot(cancel);
    waits.queue_ns += worker_.now_ns() - began_ns;
    if (!slot) co_return std::unexpected(slot.error());
  } else {
    CountSlots(1);
  }
  UpstreamConnection* connection = TakeIdle(freshness);
  if (connection == nullptr) co_return co_await ConnectNew(waits, cancel);
  metrics_.upstream_reuses.Add();
  connection->BeginExchange();
  co_return Lease(*connection);
}

void UpstreamPool::CountSlots(int change) {
  leased_count_ = static_cast<uint32_t>(static_cast<int>(leased_count_) + change);
  metrics_.upstream_leased.Add(change);
}

// The one who returns a slot leaves it counted and hands it over, so nobody can overtake the queue.
Task<Result<void>> UpstreamPool::TakeSlot(Cancellation& cancel) {
  if (cancel.cancelled()) co_return std::unexpected(cancel.reason());
  if (waiting_count_ >= options_.waiting_max) co_return std::unexpected(Refusal(ErrorCode::kShed));
  Waiter waiter(*this);
  cancel.Guard(&waiter);
  const Result<void> slot = co_await waiter;
  cancel.Guard(nullptr);
  co_return slot;
}

void UpstreamPool::ReleaseSlot() {
  if (waiting_first_ != nullptr) return waiting_first_->Finish({});
  CountSlots(-1);
  if (leased_count_ == 0) slots_returned_.Notify();
}

Task<Result<UpstreamPool::Lease>> UpstreamPool::ConnectNew(UpstreamWaits& waits, Cancellation& cancel) {
  metrics_.upstream_leased.Add(-1);
  metrics_.upstream_connecting.Add(1);
  const uint64_t began_ns = worker_.ReadClockNs();
  const Result<int> fd =
      co_await Connect(worker_, address_, options_.connect_timeout_ms, ErrorSource::kUpstream, &cancel);
  waits.connect_ns += worker_.ReadClockNs() - began_ns;
  metrics_.upstream_connecting.Add(-1);
  metrics_.upstream_leased.Add(1);
  const ErrorCode failure = cancel.cancelled() ? ErrorCode::kCancelled : fd ? ErrorCode::kInternal : fd.error().code;
  metrics_.CountConnect(fd ? ConnectResult::kOk : ResultOf(failure));
  if (!fd) {
    ReleaseSlot();
    co_return std::unexpected(fd.error());
  }
  auto* connection = new UpstreamConnection(*this, worker_, *fd, address_.is_unix(), options_.connection);
  connection->retires_at_ms_ = RetiresAtMs();
  connection->BeginExchange();
  co_return Lease(*connection);
}

UpstreamConnection* UpstreamPool::TakeIdle(Freshness freshness) {
  if (freshness == Freshness::kNew) return nullptr;
  const uint64_t now_ms = worker_.timers().now_ms();
  while (idle_newest_ != nullptr) {
    UpstreamConnection& connection = *idle_newest_;
    // Timers fire after completions, so that what is overdue may still be here; and its observer may not have been told
    // yet, but will be no more.
    if (const std::optional<UpstreamClose> cause = WhyNotIdle(connection)) {
      CloseIdle(connection, *cause);
      continue;
    }
    const bool recent = now_ms - connection.idle_since_ms_ < options_.recent_idle_max_ms;
    if (freshness == Freshness::kRecent && !recent) return nullptr;
    Unlink(connection);
    return &connection;
  }
  return nullptr;
}

// A tenth more or less, by a number that looks random (SplitMix64) and is the same in every run of a simulated ring.
uint64_t UpstreamPool::RetiresAtMs() {
  const uint64_t now_ms = worker_.timers().now_ms();
  if (options_.age_max_ms == 0) return TimerWheel::kNever;
  const uint64_t seed = now_ms ^ uint64_t { worker_.index() } << 48;
  uint64_t mixed = seed + ++connections_count_ * 0x9E3779B97F4A7C15;
  mixed = (mixed ^ mixed >> 30) * 0xBF58476D1CE4E5B9;
  mixed = (mixed ^ mixed >> 27) * 0x94D049BB133111EB;
  const uint64_t spread_ms = options_.age_max_ms / 5;
  return now_ms + options_.age_max_ms - spread_ms / 2 + (mixed ^ mixed >> 31) % (spread_ms + 1);
}

// --- Returning ---

void UpstreamPool::Return(UpstreamConnection& connection, bool reusable) {
  connection.EndExchange();
  connection.idle_since_ms_ = worker_.timers().now_ms();
  if (const std::optional<UpstreamClose> cause = WhyNotKept(connection, reusable)) {
    Discard(connection, *cause);
  } else {
    PutIdle(connection);
  }
  ReleaseSlot();
}

std::optional<UpstreamClose> UpstreamPool::WhyNotKept(const UpstreamConnection& connection, bool reusable) const {
  if (draining_) return UpstreamClose::kDrain;
  // One that was found ended, or out of turn, before a byte of the request had left, was no better than idle.
  if (!reusable && !connection.head_sent()) return WhyNotIdle(connection).value_or(UpstreamClose::kNotReusable);
  if (!reusable) return UpstreamClose::kNotReusable;
  const bool served_enough = options_.exchanges_max != 0 && connection.exchanges_count_ >= options_.exchanges_max;
  return served_enough ? UpstreamClose::kMaxRequests : WhyNotIdle(connection);
}

std::optional<UpstreamClose> UpstreamPool::WhyNotIdle(const UpstreamConnection& connection) const {
  if (connection.socket_.peer_closed()) return UpstreamClose::kPeerClosed;
  if (connection.socket_.has_unread()) return UpstreamClose::kSurplus;
  const uint64_t now_ms = worker_.timers().now_ms();
  if (IdleEndMs(connection) > now_ms) return std::nullopt;
  if (connection.retires_at_ms_ <= now_ms) return UpstreamClose::kMaxAge;
  const bool peer_first = Later(connection.idle_since_ms_, connection.peer_idle_max_ms_) <= now_ms;
  return peer_first ? UpstreamClose::kKeepAlive : UpstreamClose::kIdleTimeout;
}

// When it is to be closed, if nobody has taken it by then.
uint64_t UpstreamPool::IdleEndMs(const UpstreamConnection& connection) const {
  const uint64_t ours_ms = options_.idle_timeout_ms != 0 ? options_.idle_timeout_ms : TimerWheel::kNever;
  const uint64_t idle_max_ms = std::min(ours_ms, connection.peer_idle_max_ms_);
  return std::min(connection.retires_at_ms_, Later(connection.idle_since_ms_, idle_max_ms));
}

void UpstreamPool::PutIdle(UpstreamConnection& connection) {
  connection.idle_ = true;
  connection.previous_ = nullptr;
  connection.next_ = idle_newest_;
  (idle_newest_ != nullptr ? idle_newest_->previous_ : idle_oldest_) = &connection;
  idle_newest_ = &connection;
  ++idle_count_;
  metrics_.upstream_idle.Add(1);
  // One timer for all, for the first to end; it is hardly touched while connections come and go.
  const uint64_t end_ms = IdleEndMs(connection);
  if (!armed() || end_ms < idle_end_ms_) ArmAt(end_ms);
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

void UpstreamPool::ArmAt(uint64_t expires_ms) {
  idle_end_ms_ = expires_ms;
  if (expires_ms != TimerWheel::kNever) worker_.timers().Arm(*this, expires_ms);
}

void UpstreamPool::OnExpire() {
  uint64_t next_ms = TimerWheel::kNever;
  for (UpstreamConnection* at = idle_oldest_; at != nullptr;) {
    UpstreamConnection& connection = *std::exchange(at, at->previous_);
    if (const std::optional<UpstreamClose> cause = WhyNotIdle(connection)) {
      CloseIdle(connection, *cause);
    } else {
      next_ms = std::min(next_ms, IdleEndMs(connection));
    }
  }
  ArmAt(next_ms);
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
