#include "http/upstream_group.h"

#include <algorithm>
#include <array>
#include <utility>

#include "core/log.h"

namespace dpa {
namespace {

std::vector<std::string> Numbers(size_t count) {
  std::vector<std::string> names;
  for (size_t i = 0; i < count; ++i) names.push_back(std::to_string(i));
  return names;
}

std::unique_ptr<SnapshotPublisher<UpstreamDirectory>> FixedDirectory(const std::vector<UpstreamUrl>& addresses) {
  auto directory = std::make_shared<UpstreamDirectory>();
  for (size_t i = 0; i < addresses.size(); ++i) directory->addresses[std::to_string(i)] = {addresses[i]};
  return std::make_unique<SnapshotPublisher<UpstreamDirectory>>(std::move(directory));
}

bool IsSame(const UpstreamEndpoint& endpoint, const std::string& configured, const UpstreamUrl& url) {
  return endpoint.configured == configured && endpoint.url.address == url.address;
}

}  // namespace

// The endpoints that one request has been to.
class UpstreamGroup::Tried {
 public:
  void Add(const UpstreamEndpoint* endpoint) {
    DPA_ASSERT(count_ < endpoints_.size());
    endpoints_[count_++] = endpoint;
  }
  bool Has(const UpstreamEndpoint* endpoint) const {
    return std::find(endpoints_.begin(), endpoints_.begin() + count_, endpoint) != endpoints_.begin() + count_;
  }

 private:
  std::array<const UpstreamEndpoint*, kAttemptsMax> endpoints_;
  size_t count_ = 0;
};

UpstreamGroup::UpstreamGroup(Worker& worker, const SnapshotPublisher<UpstreamDirectory>& directory,
                             std::vector<std::string> urls, const UpstreamPoolOptions& pool_options,
                             const UpstreamGroupOptions& options, HttpMetrics& metrics)
    : worker_(worker),
      directory_(directory),
      urls_(std::move(urls)),
      pool_options_(pool_options),
      options_(options),
      metrics_(metrics),
      endpoint_metrics_(std::make_shared<const MetricsList>()),
      retries_(pool_options.retries),
      retiring_(worker),
      random_(worker.index() * 2654435761u + 88675123u) {
  Update(true);
  worker_.AddTurnObserver(*this);
}

UpstreamGroup::UpstreamGroup(Worker& worker, const std::vector<UpstreamUrl>& addresses,
                             const UpstreamPoolOptions& pool_options, const UpstreamGroupOptions& options,
                             HttpMetrics& metrics)
    : UpstreamGroup(worker, FixedDirectory(addresses), Numbers(addresses.size()), pool_options, options, metrics) {}

UpstreamGroup::UpstreamGroup(Worker& worker, std::unique_ptr<SnapshotPublisher<UpstreamDirectory>> directory,
                             std::vector<std::string> urls, const UpstreamPoolOptions& pool_options,
                             const UpstreamGroupOptions& options, HttpMetrics& metrics)
    : UpstreamGroup(worker, *directory, std::move(urls), pool_options, options, metrics) {
  own_directory_ = std::move(directory);
}

UpstreamGroup::~UpstreamGroup() {
  DPA_ASSERT(endpoints_.empty() && retiring_.running_count() == 0);
  worker_.RemoveTurnObserver(*this);
}

// --- The set ---

void UpstreamGroup::OnTurn() {
  if (directory_.Adopt() && !draining_) Update(false);
}

// Keeps what is still named, in place; the others retire.
void UpstreamGroup::Update(bool first) {
  std::vector<EndpointPin> kept;
  for (const std::string& url : urls_) {
    const auto found = directory_.current().addresses.find(url);
    if (found == directory_.current().addresses.end()) continue;
    for (const UpstreamUrl& address : found->second) {
      if (kept.size() == kEndpointsMax) break;
      const auto same = std::find_if(endpoints_.begin(), endpoints_.end(), [&](const EndpointPin& endpoint) {
        return endpoint && IsSame(*endpoint, url, address);
      });
      if (same != endpoints_.end()) {
        kept.push_back(std::move(*same));
        continue;
      }
      kept.emplace_back(
          new UpstreamEndpoint(worker_, url, address, pool_options_, options_.balance, options_.check, metrics_));
      if (!first) kept.back()->BeginSlowStart();
    }
  }
  endpoints_.swap(kept);
  for (EndpointPin& gone : kept) {
    if (gone) Retire(std::move(gone));
  }
  PublishMetrics();
}

void UpstreamGroup::Retire(EndpointPin endpoint) {
  LogInfo("upstream_retired", "upstream={} address={} worker={}", endpoint->configured, endpoint->pool.name(),
          worker_.index());
  retiring_.Spawn(DrainEndpoint(std::move(endpoint)));
}

Task<void> UpstreamGroup::DrainEndpoint(EndpointPin endpoint) { co_await endpoint->Drain(); }

Task<void> UpstreamGroup::Drain() {
  draining_ = true;
  for (EndpointPin& endpoint : endpoints_) retiring_.Spawn(DrainEndpoint(std::move(endpoint)));
  endpoints_.clear();
  while (retiring_.running_count() != 0) co_await retiring_.Join();
}

void UpstreamGroup::PublishMetrics() {
  auto list = std::make_shared<MetricsList>();
  for (const EndpointPin& endpoint : endpoints_) list->push_back(endpoint->metrics());
  endpoint_metrics_.Publish(std::move(list));
}

void UpstreamGroup::Collect(MetricsPage& page) const {
  for (const auto& metrics : *endpoint_metrics_.Current()) metrics->Collect(page);
}

// --- Choosing ---

Task<Result<UpstreamGroup::Choice>> UpstreamGroup::Acquire(UpstreamPool::Freshness freshness, UpstreamWaits& waits,
                                                           Cancellation& cancel, const UpstreamEndpoint* avoid) {
  Tried tried;
  Error error{ErrorCode::kUnreachable, ErrorSource::kUpstream, true};
  for (size_t attempts_count = 0; attempts_count < kAttemptsMax; ++attempts_count) {
    UpstreamEndpoint* chosen = Choose(tried, avoid);
    if (chosen == nullptr) break;
    EndpointPin endpoint(chosen);
    Result<UpstreamPool::Lease> lease = co_await endpoint->pool.Acquire(freshness, waits, cancel);
    if (lease) co_return Choice{std::move(endpoint), std::move(*lease)};
    error = lease.error();
    if (cancel.cancelled() || draining_) break;
    // No room, a pool that retires, no descriptor left: that says nothing about the endpoint, and others may do.
    const bool failed = error.code == ErrorCode::kRefused || error.code == ErrorCode::kUnreachable ||
                        error.code == ErrorCode::kTimeout || error.code == ErrorCode::kReset;
    if (failed) Report(*endpoint, UpstreamOutcome::kConnectFailed);
    tried.Add(endpoint.get());
  }
  co_return std::unexpected(error);
}

// One that is well but to be avoided is still better than one that is not well.
UpstreamEndpoint* UpstreamGroup::Choose(const Tried& tried, const UpstreamEndpoint* avoid) {
  for (const bool usable_only : {true, false}) {
    if (UpstreamEndpoint* chosen = ChooseAmong(tried, avoid, usable_only)) return chosen;
    if (avoid == nullptr) continue;
    if (UpstreamEndpoint* chosen = ChooseAmong(tried, nullptr, usable_only)) return chosen;
  }
  return nullptr;
}

// The power of two choices: drawing two and taking the less loaded one is nearly as even as looking at all of them, and
// many workers that look at once do not all run to the same one.
UpstreamEndpoint* UpstreamGroup::ChooseAmong(const Tried& tried, const UpstreamEndpoint* avoid, bool usable_only) {
  std::array<UpstreamEndpoint*, kEndpointsMax> candidates;
  size_t count = 0;
  UpstreamEndpoint* slow = nullptr;
  for (const EndpointPin& endpoint : endpoints_) {
    if (endpoint.get() == avoid || tried.Has(endpoint.get())) continue;
    if (usable_only && !endpoint->usable()) continue;
    const uint32_t share = endpoint->share();
    const bool passed_over = share < EndpointHealth::kFullShare && Random() % EndpointHealth::kFullShare >= share;
    if (passed_over) slow = endpoint.get();
    if (!passed_over) candidates[count++] = endpoint.get();
  }
  if (count == 0) return slow;
  if (count == 1) return candidates[0];
  const size_t one = Random() % count;
  const size_t other = (one + 1 + Random() % (count - 1)) % count;
  return candidates[one]->load() <= candidates[other]->load() ? candidates[one] : candidates[other];
}

void UpstreamGroup::Report(UpstreamEndpoint& endpoint, UpstreamOutcome outcome) {
  if (!endpoint.Report(outcome)) return;
  size_t ejected_count = 1;
  for (const EndpointPin& other : endpoints_) ejected_count += other->ejected() ? 1 : 0;
  const bool few = ejected_count * 100 <= options_.balance.eject_percent_max * endpoints_.size();
  const bool one_of_several = ejected_count == 1 && endpoints_.size() > 1 && options_.balance.eject_percent_max != 0;
  if (few || one_of_several) endpoint.Eject();
}

// xorshift32: good enough for dice, and free.
uint32_t UpstreamGroup::Random() {
  random_ ^= random_ << 13;
  random_ ^= random_ >> 17;
  random_ ^= random_ << 5;
  return random_;
}

}  // namespace dpa
