// UpstreamEndpoint is one address of an upstream on one worker: its connections, what is thought of it, its counters.
//
// Belongs to an UpstreamGroup. When its address is no longer in the directory it retires: no new request, idle
// connections closed, the rest finished; it is deleted when the last exchange that names it has been recorded.

#pragma once

#include <array>
#include <memory>
#include <string>
#include <utility>

#include "core/metrics.h"
#include "core/task.h"
#include "core/timer_wheel.h"
#include "core/worker.h"
#include "http/endpoint_health.h"
#include "http/upstream_check.h"
#include "http/upstream_pool.h"
#include "http/upstream_url.h"

namespace dpa {

// Written by the worker, read by the scrape.
struct EndpointMetrics {
  EndpointMetrics(std::string u, std::string a) : url(std::move(u)), address(std::move(a)) {}
  const std::string url;  // As configured.
  const std::string address;
  std::array<Counter, static_cast<size_t>(UpstreamOutcome::kCount)> outcomes;
  Counter ejections;
  Counter checks_passed;
  Counter checks_failed;
  Gauge usable;  // 1: this worker sends it requests.

  void Collect(MetricsPage& page) const;
};

class UpstreamEndpoint final : private TimerWheel::Entry {
 public:
  // `worker`, the options and `metrics` outlive it. `configured` is the URL as the operator wrote it.
  UpstreamEndpoint(Worker& worker, std::string configured, UpstreamUrl address, const UpstreamPoolOptions& pool_options,
                   const BalanceOptions& balance, const UpstreamCheckOptions& check, HttpMetrics& metrics);
  ~UpstreamEndpoint();

  // Requests under way and waiting.
  uint32_t load() const { return pool.leased_count() + pool.waiting_count(); }
  bool usable() const { return health_.usable(worker_.now_ms()); }
  bool ejected() const { return health_.ejected(worker_.now_ms()); }
  uint32_t share() const { return health_.share(worker_.now_ms()); }
  void BeginSlowStart() { health_.BeginSlowStart(worker_.now_ms()); }

  // True: it should be ejected, if the others allow. Never once it retires.
  bool Report(UpstreamOutcome outcome);
  void Eject();

  // Closes everything. Completes when the last lease has come back.
  Task<void> Drain();

  std::shared_ptr<const EndpointMetrics> metrics() const { return metrics_; }

  const std::string configured;
  const UpstreamUrl url;
  UpstreamPool pool;

 private:
  friend class EndpointPin;
  void OnExpire() override;
  void OnCheck(bool passed);
  // What lasts: that it is passed over for a moment after it refused has no end that anything would report.
  void ShowUsable() { metrics_->usable.Set(health_.up() && !ejected() ? 1 : 0); }

  Worker& worker_;
  EndpointHealth health_;
  const std::shared_ptr<EndpointMetrics> metrics_;
  std::unique_ptr<UpstreamCheck> check_;  // nullptr: none is wanted.
  uint32_t pins_count_ = 0;
  bool retiring_ = false;
};

// Keeps an endpoint alive. Move-only; belongs to the worker's thread.
class EndpointPin {
 public:
  EndpointPin() = default;
  explicit EndpointPin(UpstreamEndpoint* endpoint) : endpoint_(endpoint) { ++endpoint_->pins_count_; }
  EndpointPin(EndpointPin&& other) noexcept : endpoint_(std::exchange(other.endpoint_, nullptr)) {}
  EndpointPin& operator=(EndpointPin&& other) noexcept {
    std::swap(endpoint_, other.endpoint_);
    return *this;
  }
  ~EndpointPin() {
    if (endpoint_ != nullptr && --endpoint_->pins_count_ == 0) delete endpoint_;
  }
  EndpointPin Share() const { return EndpointPin(endpoint_); }
  UpstreamEndpoint* get() const { return endpoint_; }
  UpstreamEndpoint* operator->() const { return endpoint_; }
  UpstreamEndpoint& operator*() const { return *endpoint_; }
  explicit operator bool() const { return endpoint_ != nullptr; }

 private:
  UpstreamEndpoint* endpoint_ = nullptr;
};

}  // namespace dpa
