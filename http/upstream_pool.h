// UpstreamPool keeps the connections of one worker to one endpoint and lends them to exchanges.
//
// Every connection here was opened by, and is only ever touched by, that worker's thread, so the pool has no locks. A
// connection is always in exactly one place:
//
//     connecting --> leased <--> idle --> closing
//
// Idle connections are lent last in, first out: the warmest one, and the others reach their timeout. An idle one keeps
// one receive in flight; if that completes, the peer has closed it or sent bytes that nobody asked for, and it is
// closed, never lent. It is also closed, before its peer would, when the peer has said how long it keeps it, and when
// it is old or has served enough; only idle connections are, so that no request ever meets its end.
//
// At leases_max exchanges wait in a bounded queue, first in, first out; what is returned goes to the first of them.

#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <utility>

#include "core/address.h"
#include "core/cancellation.h"
#include "core/result.h"
#include "core/task.h"
#include "core/timer_wheel.h"
#include "core/worker.h"
#include "http/http_metrics.h"
#include "http/retry.h"
#include "http/upstream_connection.h"

namespace dpa {

struct UpstreamPoolOptions {
  uint32_t leases_max = 1024;           // Leased plus connecting, per endpoint and worker. Beyond it exchanges wait.
  uint32_t waiting_max = 1024;          // --pool-queue-per-worker. Beyond it: kShed at once.
  uint64_t waiting_timeout_ms = 1'000;  // --pool-queue-timeout. Then: kQueueTimeout.
  // Beyond it the one that has been idle longest is closed. As many as leases: the answers of one turn make as many
  // idle at once, and an idle one costs a descriptor and no buffer.
  uint32_t idle_max = 1024;
  uint64_t idle_timeout_ms = 55'000;    // --delegate-idle-timeout. Below the upstream's own keep-alive timeout.
  uint64_t connect_timeout_ms = 1'000;  // --delegate-connect-timeout
  // --delegate-post-reuse-idle: a request that cannot be repeated gets a connection that has been idle for less, or a
  // new one: many servers close idle connections after two to five seconds, and where even the warmest has been
  // idle for a second, a connect a second is nothing.
  uint64_t recent_idle_max_ms = 1'000;
  // --delegate-connection-max-age, give or take a tenth so that those of one moment do not end in one moment; then load
  // balancers in between can choose anew. 0: no limit.
  uint64_t age_max_ms = 3'600'000;
  uint32_t exchanges_max = 0;  // --delegate-connection-max-requests. 0: no limit.
  RetryBudgetOptions retries;
  UpstreamConnectionOptions connection;
};

class UpstreamPool final : private TimerWheel::Entry {
 public:
  // Borrows one connection for one exchange. Move-only; gives it back when destroyed: to the idle ones after
  // MarkReusable(), closed otherwise, so an early return is always safe.
  class Lease {
   public:
    Lease(Lease&& other) noexcept
        : connection_(std::exchange(other.connection_, nullptr)), reusable_(other.reusable_) {}
    Lease& operator=(Lease&&) = delete;
    ~Lease();

    UpstreamConnection& connection() const { return *connection_; }
    // Both sides agreed to keep-alive and the request was sent in full. Whether the response ended exactly on its
    // framing is checked here once more. REQUIRES: nothing waits on the connection.
    void MarkReusable();

   private:
    friend class UpstreamPool;
    explicit Lease(UpstreamConnection& connection) : connection_(&connection) {}
    UpstreamConnection* connection_;
    bool reusable_ = false;
  };

  enum class Freshness : uint8_t {
    kAny,
    kRecent,  // Idle for less than recent_idle_max_ms: for a request that cannot be repeated.
    kNew,     // Connects: for a second attempt.
  };

  // `worker`, `options` and `metrics` outlive the pool. REQUIRES: Drain() has completed before destruction.
  UpstreamPool(Worker& worker, const Address& address, const UpstreamPoolOptions& options, HttpMetrics& metrics);
  ~UpstreamPool();
  UpstreamPool(const UpstreamPool&) = delete;
  UpstreamPool& operator=(const UpstreamPool&) = delete;

  // Lends an idle connection, or connects; `cancel` ends the waiting for either.
  // Errors, all retry_safe, source upstream: kShed (queue full), kQueueTimeout, kRefused, kUnreachable, kTimeout,
  // kCancelled (draining). Besides: the reason of `cancel`.
  // What it waited for is added to `waits`.
  Task<Result<Lease>> Acquire(Freshness freshness, UpstreamWaits& waits, Cancellation& cancel);

  // Closes idle connections and turns waiting exchanges away. Completes when the last lease has come back.
  Task<void> Drain();

  const Address& address() const { return address_; }
  const std::string& name() const { return name_; }  // The address, for log and record.
  uint32_t leased_count() const { return leased_count_; }
  uint32_t idle_count() const { return idle_count_; }
  uint32_t waiting_count() const { return waiting_count_; }

 private:
  friend class UpstreamConnection;
  class Waiter;

  // A slot, or what stands against it. The slot is counted in leased_count_.
  Task<Result<void>> TakeSlot(Cancellation& cancel);
  void ReleaseSlot();
  Task<Result<Lease>> ConnectNew(UpstreamWaits& waits, Cancellation& cancel);
  UpstreamConnection* TakeIdle(Freshness freshness);
  void Return(UpstreamConnection& connection, bool reusable);
  std::optional<UpstreamClose> WhyNotKept(const UpstreamConnection& connection, bool reusable) const;
  std::optional<UpstreamClose> WhyNotIdle(const UpstreamConnection& connection) const;
  uint64_t IdleEndMs(const UpstreamConnection& connection) const;
  uint64_t RetiresAtMs();
  void ArmAt(uint64_t expires_ms);
  void PutIdle(UpstreamConnection& connection);
  void Unlink(UpstreamConnection& connection);
  void CloseIdle(UpstreamConnection& connection, UpstreamClose cause);
  void Discard(UpstreamConnection& connection, UpstreamClose cause);
  Task<void> CloseConnection(UpstreamConnection& connection);
  void OnExpire() override;
  void CountSlots(int change);

  Worker& worker_;
  const Address address_;
  const std::string name_;
  const UpstreamPoolOptions& options_;
  HttpMetrics& metrics_;
  TaskScope closing_;
  Signal slots_returned_;

  UpstreamConnection* idle_newest_ = nullptr;
  UpstreamConnection* idle_oldest_ = nullptr;
  uint32_t idle_count_ = 0;
  uint64_t idle_end_ms_ = TimerWheel::kNever;  // The timer is armed for then.
  Waiter* waiting_first_ = nullptr;
  Waiter* waiting_last_ = nullptr;
  uint32_t waiting_count_ = 0;
  uint32_t leased_count_ = 0;  // Connecting ones included.
  uint64_t connections_count_ = 0;
  bool draining_ = false;
};

}  // namespace dpa
