// UpstreamGroup is a set of endpoints that serve the same thing: the delegates (--delegate, repeatable), or one HTTP
// backend. Each address that a URL stands for is an endpoint of its own.
//
// An exchange gets the less loaded of two endpoints drawn at random (with two there are no others), among those that
// are well (http/endpoint_health.h); one in slow start is passed over as often as its share says. If connecting fails
// another one is tried, since nothing has been sent yet. When none is well all are taken: an upstream that may answer
// is better than an answer that certainly fails.
//
// The addresses come from the UpstreamDirectory, adopted between two turns. One that joins starts slowly, one that has
// gone retires.

#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "core/snapshot.h"
#include "core/worker.h"
#include "http/endpoint_health.h"
#include "http/retry.h"
#include "http/upstream_check.h"
#include "http/upstream_endpoint.h"
#include "http/upstream_pool.h"
#include "http/upstream_url.h"

namespace dpa {

struct UpstreamGroupOptions {
  BalanceOptions balance;
  UpstreamCheckOptions check;
};

class UpstreamGroup final : private TurnObserver {
 public:
  // Connections that one request tries to open, one after another: each may take the whole connect timeout.
  static constexpr size_t kAttemptsMax = 4;
  // Of one group; names with more addresses are cut, which the resolver says.
  static constexpr size_t kEndpointsMax = 64;

  // The endpoint outlives the lease: members go in reverse order.
  struct Choice {
    EndpointPin endpoint;
    UpstreamPool::Lease lease;
  };

  // The addresses of `urls` in the directory, now and later. Everything given outlives the group, but for `urls`.
  UpstreamGroup(Worker& worker, const SnapshotPublisher<UpstreamDirectory>& directory, std::vector<std::string> urls,
                const UpstreamPoolOptions& pool_options, const UpstreamGroupOptions& options, HttpMetrics& metrics);
  // These addresses for ever.
  UpstreamGroup(Worker& worker, const std::vector<UpstreamUrl>& addresses, const UpstreamPoolOptions& pool_options,
                const UpstreamGroupOptions& options, HttpMetrics& metrics);
  ~UpstreamGroup();  // REQUIRES: Drain() has completed.

  // `avoid`: an endpoint that has just failed this request; taken only if no other is well, or there is none.
  // Errors: those of UpstreamPool::Acquire, of the endpoint tried last; kUnreachable if no address is known.
  // What it waited for is added to `waits`.
  Task<Result<Choice>> Acquire(UpstreamPool::Freshness freshness, UpstreamWaits& waits, Cancellation& cancel,
                               const UpstreamEndpoint* avoid = nullptr);
  // How an attempt with what Acquire gave has ended. Once per attempt.
  void Report(UpstreamEndpoint& endpoint, UpstreamOutcome outcome);

  Task<void> Drain();

  size_t size() const { return endpoints_.size(); }
  RetryBudget& retries() { return retries_; }
  // Any thread.
  void Collect(MetricsPage& page) const;

 private:
  using MetricsList = std::vector<std::shared_ptr<const EndpointMetrics>>;
  class Tried;

  // With a directory of its own.
  UpstreamGroup(Worker& worker, std::unique_ptr<SnapshotPublisher<UpstreamDirectory>> directory,
                std::vector<std::string> urls, const UpstreamPoolOptions& pool_options,
                const UpstreamGroupOptions& options, HttpMetrics& metrics);
  void OnTurn() override;
  void Update(bool first);
  void Retire(EndpointPin endpoint);
  Task<void> DrainEndpoint(EndpointPin endpoint);
  void PublishMetrics();
  UpstreamEndpoint* Choose(const Tried& tried, const UpstreamEndpoint* avoid);
  UpstreamEndpoint* ChooseAmong(const Tried& tried, const UpstreamEndpoint* avoid, bool usable_only);
  uint32_t Random();

  Worker& worker_;
  std::unique_ptr<SnapshotPublisher<UpstreamDirectory>> own_directory_;
  SnapshotReader<UpstreamDirectory> directory_;
  const std::vector<std::string> urls_;
  const UpstreamPoolOptions& pool_options_;
  const UpstreamGroupOptions& options_;
  HttpMetrics& metrics_;
  std::vector<EndpointPin> endpoints_;
  SnapshotPublisher<MetricsList> endpoint_metrics_;
  RetryBudget retries_;
  TaskScope retiring_;
  bool draining_ = false;
  uint32_t random_;
};

}  // namespace dpa
