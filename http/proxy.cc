#include "http/proxy.h"

#include <utility>

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
    case Reason::kDelegateTimeout:
      return "the next API server did not answer in time";
    case Reason::kDelegateReset:
      return "the next API server closed the connection without an answer";
    case Reason::kDelegateMalformed:
      return "the next API server's answer breaks HTTP";
    case Reason::kDelegatePoolFull:
      return "too many requests are waiting for the next API server";
    default:
      return "the request could not be forwarded";
  }
}

// RFC 9110 §9.2.2.
bool IsIdempotent(std::string_view method) {
  return method == "GET" || method == "HEAD" || method == "PUT" || method == "DELETE" || method == "OPTIONS";
}

// A reused connection may have been closed by its peer just as the request went out. The same request may go once more
// if not a byte of it has left, or if it can be repeated (RFC 9112 §9.3.1) and is still ours in full.
bool MayRetry(const Exchange& exchange, const UpstreamConnection& upstream, Error error) {
  const RequestHead& request = exchange.request();
  const bool died = error.code == ErrorCode::kClosed || error.code == ErrorCode::kReset;
  if (!died || error.source != ErrorSource::kUpstream) return false;
  if (!upstream.reused() || upstream.answered() || exchange.response_started()) return false;
  return error.retry_safe || (!request.has_body() && IsIdempotent(request.method));
}

}  // namespace

ProxyHandler::ProxyHandler(Worker& worker, const SnapshotPublisher<RouteTable>& routes,
                           const std::vector<UpstreamUrl>& delegates, PluginHost* plugins, LocalPaths* local,
                           const ProxyOptions& options, HttpMetrics& metrics)
    : worker_(worker), routes_(routes), plugins_(plugins), local_(local), options_(options), metrics_(metrics) {
  if (!delegates.empty()) {
    delegates_ = std::make_unique<UpstreamGroup>(worker, delegates, options_.upstream, metrics);
  }
  worker_.AddTurnObserver(*this);
}

ProxyHandler::~ProxyHandler() { worker_.RemoveTurnObserver(*this); }

// --- The story ---

Task<void> ProxyHandler::Handle(Exchange& exchange) {
  const RequestHead& request = exchange.request();
  if (local_ != nullptr && local_->Owns(request.path)) co_return co_await local_->Handle(exchange);

  ExchangeRelay::RoutesPin routes = routes_.PinCurrent();
  routes->Match(request.method, request.path, exchange.match());
  exchange.relay()->HoldRoutes(std::move(routes));

  if (const RouteTarget* target = exchange.match().target) {
    AccessRecord& record = exchange.record();
    record.service = target->service_name;
    record.plugin = target->plugin_id;
    record.route = ToString(target->type);
    if (!target->backend_url.empty()) co_return co_await ServeBackend(exchange, *target);
    if (plugins_ != nullptr && options_.implements(target->type)) co_return co_await plugins_->Serve(exchange);
  }
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

// One request to one of `upstreams`, sent a second time at the most.
Task<void> ProxyHandler::Delegate(Exchange& exchange, UpstreamGroup& upstreams) {
  AccessRecord& record = exchange.record();
  auto freshness = UpstreamPool::Freshness::kAny;
  BodyPieces first;
  for (bool first_attempt = true;; first_attempt = false) {
    Result<UpstreamGroup::Choice> choice = co_await upstreams.Acquire(freshness);
    if (!choice) co_return co_await Fail(exchange, choice.error());
    UpstreamConnection& upstream = choice->lease.connection();
    record.upstream_ready_ns = worker_.now_ns();
    record.upstream = choice->endpoint->pool.name();
    record.upstream_reused = upstream.reused();
    if (first_attempt) {
      const Result<void> invited = co_await exchange.relay()->SendContinue();
      if (!invited) co_return co_await Fail(exchange, invited.error());
      first = exchange.relay()->TakePieces();
    }
    const Result<void> forwarded = co_await Forward(exchange, *choice, first, options_.forward);
    if (forwarded) co_return;
    if (!first_attempt || !MayRetry(exchange, upstream, forwarded.error())) {
      co_return co_await Fail(exchange, forwarded.error());
    }
    ++record.retries_count;
    metrics_.upstream_retries.Add();
    freshness = UpstreamPool::Freshness::kNew;
  }
}

Task<void> ProxyHandler::Fail(Exchange& exchange, Error error) {
  Reason reason = ReasonFromError(error);
  if (exchange.response_started() && error.source == ErrorSource::kUpstream) {
    reason = error.code == ErrorCode::kTimeout ? Reason::kDelegateBodyTimeout : Reason::kDelegateTruncated;
  }
  const std::string_view message = MessageOf(reason);
  static_cast<void>(co_await exchange.RespondError(reason, message));
}

ProxyHandler::Backend& ProxyHandler::FindBackend(const std::string& url) {
  const auto found = backends_.find(url);
  if (found != backends_.end()) return found->second;
  Backend& backend = backends_[url];
  std::expected<UpstreamUrl, std::string> parsed = ParseUpstreamUrl(url, Names::kLiteral);
  if (parsed) {
    backend.group = std::make_unique<UpstreamGroup>(worker_, std::vector{*parsed}, options_.upstream, metrics_);
  } else {
    backend.error = parsed.error();
  }
  return backend;
}

Task<void> ProxyHandler::Drain() {
  if (delegates_) co_await delegates_->Drain();
  for (auto& [url, backend] : backends_) {
    if (backend.group) co_await backend.group->Drain();
  }
}

}  // namespace dpa
