#include "http/upstream_endpoint.h"

#include "core/log.h"

namespace dpa {
namespace {

constexpr std::array<std::string_view, static_cast<size_t>(UpstreamOutcome::kCount)> kOutcomeLabels = {
    "answered", "connect_failed", "timeout", "reset", "malformed", "truncated", "none"};

}  // namespace

void EndpointMetrics::Collect(MetricsPage& page) const {
  for (size_t i = 0; i < outcomes.size(); ++i) {
    page.AddCounter("dpa_upstream_endpoint_attempts_total", "Requests sent to an endpoint, by how they ended there.",
                    {{"upstream", url}, {"address", address}, {"outcome", kOutcomeLabels[i]}},
                    static_cast<double>(outcomes[i].value()));
  }
  page.AddCounter("dpa_upstream_endpoint_ejections_total", "Times that a worker ejected an endpoint for its failures.",
                  {{"upstream", url}, {"address", address}}, static_cast<double>(ejections.value()));
  page.AddCounter("dpa_upstream_endpoint_checks_total", "Health checks of an endpoint, by result.",
                  {{"upstream", url}, {"address", address}, {"result", "passed"}},
                  static_cast<double>(checks_passed.value()));
  page.AddCounter("dpa_upstream_endpoint_checks_total", "Health checks of an endpoint, by result.",
                  {{"upstream", url}, {"address", address}, {"result", "failed"}},
                  static_cast<double>(checks_failed.value()));
  page.AddGauge("dpa_upstream_endpoint_usable_workers", "Workers that take an endpoint to be well.",
                {{"upstream", url}, {"address", address}}, static_cast<double>(usable.value()));
}

UpstreamEndpoint::UpstreamEndpoint(Worker& worker, std::string configured_url, UpstreamUrl address,
                                   const UpstreamPoolOptions& pool_options, const BalanceOptions& balance,
                                   const UpstreamCheckOptions& check, HttpMetrics& metrics)
    : configured(std::move(configured_url)),
      url(std::move(address)),
      pool(worker, url.address, pool_options, metrics),
      worker_(worker),
      health_(balance),
      metrics_(std::make_shared<EndpointMetrics>(configured, url.address.ToString())) {
  metrics_->usable.Set(1);
  if (check.path.empty()) return;
  check_ = std::make_unique<UpstreamCheck>(worker, url, check, [this](bool passed) { OnCheck(passed); });
}

UpstreamEndpoint::~UpstreamEndpoint() { DPA_ASSERT(pins_count_ == 0); }

bool UpstreamEndpoint::Report(UpstreamOutcome outcome) {
  metrics_->outcomes[static_cast<size_t>(outcome)].Add();
  return health_.CountOutcome(outcome, worker_.now_ms()) && !retiring_;
}

void UpstreamEndpoint::Eject() {
  const uint32_t failures = health_.failures_count();
  const uint64_t eject_ms = health_.Eject(worker_.now_ms());
  metrics_->ejections.Add();
  ShowUsable();
  worker_.timers().Arm(*this, worker_.timers().now_ms() + eject_ms);
  LogWarn("upstream_ejected", "upstream={} address={} worker={} failures={} for_ms={}", configured, pool.name(),
          worker_.index(), failures, eject_ms);
}

void UpstreamEndpoint::OnExpire() {
  ShowUsable();
  LogInfo("upstream_returned", "upstream={} address={} worker={}", configured, pool.name(), worker_.index());
}

void UpstreamEndpoint::OnCheck(bool passed) {
  (passed ? metrics_->checks_passed : metrics_->checks_failed).Add();
  const bool changed = health_.CountCheck(passed, worker_.now_ms());
  ShowUsable();
  if (!changed) return;
  if (passed) LogInfo("upstream_up", "upstream={} address={} worker={}", configured, pool.name(), worker_.index());
  if (!passed) LogWarn("upstream_down", "upstream={} address={} worker={}", configured, pool.name(), worker_.index());
}

Task<void> UpstreamEndpoint::Drain() {
  retiring_ = true;
  worker_.timers().Disarm(*this);
  if (check_) co_await check_->Stop();
  co_await pool.Drain();
}

}  // namespace dpa
