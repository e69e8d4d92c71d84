// AdminHandler answers the admin listener (--admin-listen): metrics and state for operators, beside the local paths.
//
//     /metrics    Prometheus text of all workers
//     /status     JSON: what the program says of itself
//     /livez /readyz /healthz /version    as LocalPaths, with causes

#pragma once

#include <functional>
#include <string>

#include "core/metrics.h"
#include "http/exchange.h"
#include "http/local_paths.h"
#include "http/target_readings.h"

namespace dpa {

class AdminHandler final : public ExchangeHandler {
 public:
  // A JSON object: version, uptime, workers, routes' generation, plugins … Called on the worker's thread; must not
  // wait.
  using StatusWriter = std::function<std::string()>;

  // `metrics` and `checks` outlive the handler.
  AdminHandler(const MetricsRegistry& metrics, const HealthChecks& checks, std::string_view version,
               StatusWriter status);

  Task<void> Handle(Exchange& exchange) override;

 private:
  const MetricsRegistry& metrics_;
  LocalPaths local_;
  PathReadings readings_;
  StatusWriter status_;
};

}  // namespace dpa
