#include "http/upstream_check.h"

#include <array>
#include <utility>

namespace dpa {
namespace {

constexpr Error kTooSlow{ErrorCode::kTimeout, ErrorSource::kUpstream};
constexpr Error kStopped{ErrorCode::kCancelled, ErrorSource::kUpstream};
constexpr int kInterimMax = 16;

UpstreamPoolOptions OneConnection(const UpstreamCheckOptions& options) {
  UpstreamPoolOptions pool;
  pool.leases_max = 1;
  pool.idle_max = 0;
  pool.connect_timeout_ms = options.timeout_ms;
  pool.connection.header_timeout_ms = options.timeout_ms;
  pool.connection.send_timeout_ms = options.timeout_ms;
  return pool;
}

}  // namespace

UpstreamCheck::UpstreamCheck(Worker& worker, const UpstreamUrl& url, const UpstreamCheckOptions& options,
                             OnResult on_result)
    : worker_(worker),
      url_(url),
      options_(options),
      pool_options_(OneConnection(options)),
      pool_(worker, url.address, pool_options_, uncounted_),
      on_result_(std::move(on_result)),
      tasks_(worker) {
  DPA_ASSERT(!options.path.empty());
  // The workers do not all ask in the same moment.
  worker_.timers().Arm(*this, worker_.timers().now_ms() + 1 + worker_.index() * 37 % 250);
}

UpstreamCheck::~UpstreamCheck() { DPA_ASSERT(stopping_ && tasks_.running_count() == 0); }

void UpstreamCheck::OnExpire() { tasks_.Spawn(Run()); }

Task<void> UpstreamCheck::Run() {
  Cancellation cancel;
  Deadline deadline(worker_.timers(), cancel, kTooSlow);
  deadline.ArmAfter(options_.timeout_ms);
  asking_ = &cancel;
  const bool passed = co_await Ask(cancel);
  asking_ = nullptr;
  if (stopping_) co_return;
  worker_.timers().Arm(*this, worker_.timers().now_ms() + options_.interval_ms);
  on_result_(passed);
}

Task<bool> UpstreamCheck::Ask(Cancellation& cancel) {
  UpstreamWaits waits;
  Result<UpstreamPool::Lease> lease = co_await pool_.Acquire(UpstreamPool::Freshness::kNew, waits, cancel);
  if (!lease) co_return false;
  UpstreamConnection& connection = lease->connection();
  const std::array<HeaderField, 2> fields = {HeaderField{"User-Agent", "dataplane-aggregator/health-check"},
                                             HeaderField{"Connection", "close"}};
  RequestHead request;
  request.method = "GET";
  request.target = request.path = options_.path;
  request.fields = fields;
  RequestForwarding forward;
  forward.path_prefix = url_.path_prefix;
  forward.default_host = url_.authority;
  const BodyPieces no_body{.last = true};
  cancel.Guard(&connection.socket());
  Result<void> done = co_await connection.SendHead(request, forward, no_body);
  connection.ExpectResponse();
  bool passed = false;
  for (int interim_count = 0; done && interim_count < kInterimMax; ++interim_count) {
    done = co_await connection.ReadHead();
    if (!done) break;
    const ResponseHead& response = connection.response();
    passed = response.status >= 200 && response.status < 400;
    if (!response.interim()) break;
    connection.NextHead();
  }
  cancel.Guard(nullptr);
  co_return passed;
}

Task<void> UpstreamCheck::Stop() {
  stopping_ = true;
  worker_.timers().Disarm(*this);
  if (asking_ != nullptr) asking_->Cancel(kStopped);
  while (tasks_.running_count() != 0) co_await tasks_.Join();
  co_await pool_.Drain();
}

}  // namespace dpa
