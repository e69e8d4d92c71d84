#include "http/proxy.h"

#include <array>
#include <optional>
#include <utility>

#include "core/cancellation.h"
#include "http/header_rewrite.h"
#include "http/retry.h"

namespace dpa {
namespace {

constexpr std::string_view kRouteDelegate = "delegate";

// What the client is told. Addresses and the like are for the access record.
std::string_view MessageOf(Reason reason) {
  switch (reason) {
    case Reason::kBadRequest:
      return "the request's body breaks HTTP";
    case Reason::kBodyTimeout:
      return "the request's body did not arrive in time";
    case Reason::kBodyTooLarge:
      return "the request's body is too large";
    case Reason::kShuttingDown:
      return "the aggregator is shutting down";
    case Reason::kDelegateRefused:
      return "the next API server refused the connection";
    case Reason::kDelegateUnreachable:
      return "the next API server cannot be reached";
    case Reason::kDelegateConnectTimeout:
      return "connecting to the next API server took too long";
    case Reason::kDelegateSendTimeout:
      return "the next API server did not take the request in time";
    case Reason::kDelegateTimeout:
      return "the next API server did not answer in time";
    case Reason::kDelegateRequestTimeout:
      return "the request took longer than requests to the next API server may";
    case Reason::kDelegateReset:
      return "the next API server closed the connection without an answer";
    case Reason::kDelegateClosedIdle:
      return "a reused connection to the next API server was closed before any answer; the request may have been "
             "processed, so it was not repeated";
    case Reason::kDelegateMalformed:
      return "the next API server's answer breaks HTTP";
    case Reason::kDelegateQueueTimeout:
      return "no connection to the next API server came free in time";
    case Reason::kDelegatePoolFull:
      return "too many requests are waiting for the next API server";
    case Reason::kOutOfDescriptors:
      return "no file descriptor is left to connect to the next API server";
    default:
      return "the request could not be forwarded";
  }
}

// What a failed attempt on `upstream` is called.
Reason ReasonOfFailure(const Exchange& exchange, const UpstreamConnection& upstream, Error error) {
  if (error.source != ErrorSource::kUpstream) return ReasonFromError(error);
  const bool timed_out = error.code == ErrorCode::kTimeout;
  if (timed_out && upstream.send_timed_out()) return Reason::kDelegateSendTimeout;
  if (exchange.response_started()) return timed_out ? Reason::kDelegateBodyTimeout : Reason::kDelegateTruncated;
  const Reason reason = ReasonFromError(error);
  const bool silent = upstream.reused() && !upstream.answered();
  return reason == Reason::kDelegateReset && silent ? Reason::kDelegateClosedIdle : reason;
}

// What an attempt on `upstream` says about its endpoint.
UpstreamOutcome OutcomeOf(const Exchange& exchange, const UpstreamConnection& upstream, const Result<void>& forwarded) {
  if (forwarded) return UpstreamOutcome::kAnswered;
  const bool theirs = forwarded.error().source == ErrorSource::kUpstream;
  switch (forwarded.error().code) {
    case ErrorCode::kTimeout:
      if (theirs) return UpstreamOutcome::kTimeout;
      break;
    case ErrorCode::kTooLarge:
    case ErrorCode::kMalformed:
    case ErrorCode::kUnsupported:
      if (theirs) return UpstreamOutcome::kMalformed;
      break;
    case ErrorCode::kClosed:
    case ErrorCode::kReset:
      if (!theirs || (upstream.reused() && !upstream.answered())) break;
      return exchange.response_started() ? UpstreamOutcome::kTruncated : UpstreamOutcome::kReset;
    default:
      break;
  }
  return exchange.response_started() ? UpstreamOutcome::kAnswered : UpstreamOutcome::kNothing;
}

// RFC 9110 §7.6.2, §9.3.7: an OPTIONS that may pass no further proxy is answered by the one that it has come to.
Task<void> AnswerOptions(Exchange& exchange) {
  exchange.record().route = "local";
  const std::array<HeaderField, 1> fields = {HeaderField{"Allow", "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"}};
  const Response response{200, "", fields};
  const std::span<iovec> nothing;
  // A client that has left is noted by the exchange.
  static_cast<void>(co_await exchange.Respond(response, nothing));
}

// What the whole-request timeout ends: whatever the exchange waits for, towards the upstream or towards the client.
class RequestEnd final : public Cancellable {
 public:
  RequestEnd(Exchange& exchange, Cancellation& waiting) : exchange_(exchange), waiting_(waiting) {}
  void Cancel(Error reason) override {
    if (exchange_.record().status == 101) return;  // A tunnel has limits of its own.
    if (exchange_.response_started()) exchange_.relay()->CancelClient(reason, /*reset=*/true);
    waiting_.Cancel(reason);
  }

 private:
  Exchange& exchange_;
  Cancellation& waiting_;
};

}  // namespace

ProxyHandler::ProxyHandler(Worker& worker, const SnapshotPublisher<RouteTable>& routes,
                           const SnapshotPublisher<UpstreamDirectory>& directory,
                           const std::vector<std::string>& delegates, PluginHost* plugins, LocalPaths* local,
                           const ProxyOptions& options, HttpMetrics& metrics)
    : worker_(worker),
      routes_(routes),
      directory_(&directory),
      plugins_(plugins),
      local_(local),
      options_(options),
      metrics_(metrics),
      forwarder_(options.forward, metrics),
      groups_(std::make_shared<const Groups>()) {
  if (!delegates.empty()) {
    delegates_ =
        std::make_unique<UpstreamGroup>(worker, directory, delegates, options_.upstream, options_.group, metrics);
  }
  PublishGroups();
  worker_.AddTurnObserver(*this);
}

ProxyHandler::ProxyHandler(Worker& worker, const SnapshotPublisher<RouteTable>& routes,
                           const std::vector<UpstreamUrl>& delegates, PluginHost* plugins, LocalPaths* local,
                           const ProxyOptions& options, HttpMetrics& metrics)
    : worker_(worker),
      routes_(routes),
      directory_(nullptr),
      plugins_(plugins),
      local_(local),
      options_(options),
      metrics_(metrics),
      forwarder_(options.forward, metrics),
      groups_(std::make_shared<const Groups>()) {
  if (!delegates.empty()) {
    delegates_ = std::make_unique<UpstreamGroup>(worker, delegates, options_.upstream, options_.group, metrics);
  }
  PublishGroups();
  worker_.AddTurnObserver(*this);
}

ProxyHandler::~ProxyHandler() { worker_.RemoveTurnObserver(*this); }

// --- The story ---

Task<void> ProxyHandler::Handle(Exchange& exchange) {
  const RequestHead& request = exchange.request();
  ExchangeRelay::RoutesPin routes = routes_.PinCurrent();
  RouteMatch& match = exchange.match();
  routes->Match(request.method, request.path, match);
  const PathFault fault = judge_.Judge(*routes, local_, request.method, request.path, match);
  exchange.relay()->HoldRoutes(std::move(routes));
  if (fault != PathFault::kNone) {
    const std::string_view message = ToString(fault);
    static_cast<void>(co_await exchange.RespondError(Reason::kAmbiguousPath, message));
    co_return;
  }
  if (local_ != nullptr && local_->Owns(request.path)) co_return co_await local_->Handle(exchange);

  const RouteTarget* target = match.target;
  if (target != nullptr) {
    AccessRecord& record = exchange.record();
    record.service = target->service_name;
    record.plugin = target->plugin_id;
    record.route = ToString(target->type);
  }
  const bool has_backend = target != nullptr && !target->backend_url.empty();
  const bool is_plugins = target != nullptr && !has_backend && options_.implements(target->type);
  if (is_plugins && plugins_ != nullptr) co_return co_await plugins_->Serve(exchange);
  if (MaxForwards(request) == 0) co_return co_await AnswerOptions(exchange);
  if (has_backend) co_return co_await ServeBackend(exchange, *target);
  exchange.record().route = kRouteDelegate;
  if (delegates_) co_return co_await Delegate(exchange, *delegates_);
  constexpr std::string_view kNoRoute = "no service is registered for this path, and there is no delegate";
  static_cast<void>(co_await exchange.RespondError(Reason::kNotFound, kNoRoute));
}

Task<void> ProxyHandler::ServeBackend(Exchange& exchange, const RouteTarget& target) {
  Backend& backend = FindBackend(target.backend_url);
  if (backend.group) co_return co_await Delegate(exchange, *backend.group);
  const std::string message = "the service's backend cannot be used: " + backend.error;
  static_cast<void>(co_await exchange.RespondError(Reason::kDelegateUnreachable, message));
}

// One request to one of `upstreams`, sent a second time at the most (http/retry.h has the rule).
Task<void> ProxyHandler::Delegate(Exchange& exchange, UpstreamGroup& upstreams) {
  constexpr Error kTimeout{ErrorCode::kTimeout, ErrorSource::kUpstream};
  AccessRecord& record = exchange.record();
  Cancellation waiting;
  RequestEnd end(exchange, waiting);
  Deadline deadline(worker_.timers(), end, kTimeout);
  deadline.ArmAfter(options_.request_timeout_ms);
  const bool idempotent = IsIdempotent(exchange.request().method);
  // An upgraded connection serves nothing else afterwards: a new one is lost as little as an idle one, and cannot be
  // closed by its peer at the very moment that a POST (kubectl exec) goes out on it.
  const bool upgrade = !exchange.request().upgrade.empty();
  if (upgrade && forwarder_.tunnels_full()) {
    constexpr std::string_view kFull = "too many upgraded connections are open";
    co_return static_cast<void>(co_await exchange.RespondError(Reason::kTunnelLimit, kFull));
  }
  auto freshness = upgrade      ? UpstreamPool::Freshness::kNew
                   : idempotent ? UpstreamPool::Freshness::kAny
                                : UpstreamPool::Freshness::kRecent;
  upstreams.retries().CountRequest(worker_.now_ms());
  BodyPieces first;
  EndpointPin failed;
  if (!exchange.relay()->LimitBody(options_.request_body_bytes_max)) {
    co_return co_await Fail(exchange, Reason::kBodyTooLarge);
  }
  for (bool first_attempt = true;; first_attempt = false) {
    exchange.CancelWhenClientGone(&waiting);
    Result<UpstreamGroup::Choice> choice = co_await upstreams.Acquire(freshness, record.waits, waiting, failed.get());
    exchange.CancelWhenClientGone(nullptr);
    if (!choice) {
      const Reason reason = deadline.fired() ? Reason::kDelegateRequestTimeout : ReasonFromError(choice.error());
      co_return co_await Fail(exchange, reason);
    }
    UpstreamConnection& upstream = choice->lease.connection();
    record.upstream_ready_ns = worker_.now_ns();
    record.upstream = choice->endpoint->pool.name();
    exchange.relay()->HoldUpstream(choice->endpoint.Share());
    record.upstream_reused = upstream.reused();
    if (first_attempt) first = exchange.relay()->TakePieces();
    waiting.Guard(&upstream.socket());
    const Result<void> forwarded = co_await forwarder_.Forward(exchange, *choice, first);
    waiting.Guard(nullptr);
    upstreams.Report(*choice->endpoint, OutcomeOf(exchange, upstream, forwarded));
    if (forwarded) co_return;
    const FailedAttempt attempt{.error = forwarded.error(),
                                .idempotent = idempotent,
                                // What is read after the first pieces takes their place.
                                .body_in_hand = first.last || !upstream.head_sent(),
                                .reused = upstream.reused(),
                                .answered = upstream.answered() || exchange.response_started()};
    const bool again = first_attempt && !deadline.fired() && TakeRetry(attempt, upstreams.retries());
    if (!again) {
      const Reason reason =
          deadline.fired() ? Reason::kDelegateRequestTimeout : ReasonOfFailure(exchange, upstream, forwarded.error());
      co_return co_await Fail(exchange, reason);
    }
    ++record.retries_count;
    freshness = UpstreamPool::Freshness::kNew;
    // Mostly only its idle connection was closed, and it is none the worse for it. But it may be on its way out: a
    // process that is killed still accepts for a moment, only to reset that as well.
    failed = choice->endpoint.Share();
  }
}

// Whether the request goes out once more; counted, if so, and if only the budget stood against it.
bool ProxyHandler::TakeRetry(const FailedAttempt& attempt, RetryBudget& budget) {
  const std::optional<RetryCause> cause = MayRetry(attempt);
  if (!cause) return false;
  const bool granted = budget.TakeRetry(worker_.now_ms());
  granted ? metrics_.CountRetry(*cause) : metrics_.upstream_retries_denied.Add();
  return granted;
}

Task<void> ProxyHandler::Fail(Exchange& exchange, Reason reason) {
  const std::string_view message = MessageOf(reason);
  static_cast<void>(co_await exchange.RespondError(reason, message));
}

ProxyHandler::Backend& ProxyHandler::FindBackend(const std::string& url) {
  const auto found = backends_.find(url);
  if (found != backends_.end()) return found->second;
  Backend& backend = backends_[url];
  std::expected<std::unique_ptr<UpstreamGroup>, std::string> made = MakeBackend(url);
  if (made) {
    backend.group = std::move(*made);
    PublishGroups();
  } else {
    backend.error = made.error();
  }
  return backend;
}

std::expected<std::unique_ptr<UpstreamGroup>, std::string> ProxyHandler::MakeBackend(const std::string& url) {
  const std::expected<UpstreamName, std::string> name = ParseUpstreamName(url);
  if (!name) return std::unexpected(name.error());
  if (!name->literal && directory_ != nullptr) {
    return std::make_unique<UpstreamGroup>(worker_, *directory_, std::vector{url}, options_.upstream, options_.group,
                                           metrics_);
  }
  const std::expected<UpstreamUrl, std::string> address = ParseUpstreamUrl(url, Names::kLiteral);
  if (!address) return std::unexpected(address.error());
  return std::make_unique<UpstreamGroup>(worker_, std::vector{*address}, options_.upstream, options_.group, metrics_);
}

void ProxyHandler::PublishGroups() {
  auto groups = std::make_shared<Groups>();
  if (delegates_) groups->push_back(delegates_.get());
  for (const auto& [url, backend] : backends_) {
    if (backend.group) groups->push_back(backend.group.get());
  }
  groups_.Publish(std::move(groups));
}

void ProxyHandler::Collect(MetricsPage& page) const {
  for (const UpstreamGroup* group : *groups_.Current()) group->Collect(page);
}

Task<void> ProxyHandler::Drain() {
  if (delegates_) co_await delegates_->Drain();
  for (auto& [url, backend] : backends_) {
    if (backend.group) co_await backend.group->Drain();
  }
}

}  // namespace dpa
