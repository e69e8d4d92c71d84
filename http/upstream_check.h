// UpstreamCheck asks one endpoint again and again whether it is well: a GET of its own path on a connection of its own,
// so that it meets the same accept queue as requests do, and neither waits for them nor takes one of their connections.
//
//     waiting --interval--> asking --status 200..399 in time--> passed
//                              `----anything else-------------> failed
//
// Each worker asks for itself: what a worker cannot reach it must not use.

#pragma once

#include <cstdint>
#include <functional>
#include <string>

#include "core/cancellation.h"
#include "core/task.h"
#include "core/timer_wheel.h"
#include "core/worker.h"
#include "http/http_metrics.h"
#include "http/upstream_pool.h"
#include "http/upstream_url.h"

namespace dpa {

struct UpstreamCheckOptions {
  std::string path;              // --delegate-health-path. Empty: nothing is asked.
  uint64_t interval_ms = 5'000;  // --delegate-health-interval: between two questions.
  uint64_t timeout_ms = 1'000;   // --delegate-health-timeout: connecting and answer together.
};

class UpstreamCheck final : private TimerWheel::Entry {
 public:
  using OnResult = std::move_only_function<void(bool passed)>;

  // Asks for the first time a moment from now. All outlive the check. REQUIRES: options.path is not empty.
  UpstreamCheck(Worker& worker, const UpstreamUrl& url, const UpstreamCheckOptions& options, OnResult on_result);
  ~UpstreamCheck();  // REQUIRES: Stop() has completed.

  // No result comes after this call.
  Task<void> Stop();

 private:
  void OnExpire() override;
  Task<void> Run();
  Task<bool> Ask(Cancellation& cancel);

  Worker& worker_;
  const UpstreamUrl& url_;
  const UpstreamCheckOptions& options_;
  const UpstreamPoolOptions pool_options_;
  HttpMetrics uncounted_;  // These connections are not those of requests.
  UpstreamPool pool_;
  OnResult on_result_;
  TaskScope tasks_;
  Cancellation* asking_ = nullptr;
  bool stopping_ = false;
};

}  // namespace dpa
