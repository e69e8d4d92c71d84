#include "http/upstream_group.h"

#include <utility>

namespace dpa {
namespace {

bool IsPrefix(std::string_view path) {
  for (const char c : path) {
    if (c <= 0x20 || c >= 0x7F || c == '?' || c == '#') return false;
  }
  return true;
}

}  // namespace

std::expected<UpstreamUrl, std::string> ParseUpstreamUrl(std::string_view url, Names names) {
  const std::string quoted = "\"" + std::string(url) + "\"";
  UpstreamUrl parsed;
  if (url.starts_with("unix:")) {
    std::expected<Address, std::string> address = Address::Parse(url);
    if (!address) return std::unexpected(address.error());
    parsed.address = *address;
    parsed.authority = "localhost";
    return parsed;
  }
  constexpr std::string_view kScheme = "http://";
  if (url.starts_with("https://"))
    return std::unexpected(quoted + ": https is not supported yet, use http:// or unix:");
  if (!url.starts_with(kScheme)) return std::unexpected(quoted + ": expected http://HOST:PORT[/prefix] or unix:PATH");
  url.remove_prefix(kScheme.size());
  const size_t slash = std::min(url.find('/'), url.size());
  std::string_view path = url.substr(slash);
  while (path.ends_with('/')) path.remove_suffix(1);
  if (!IsPrefix(path)) return std::unexpected(quoted + ": the path may hold neither a query nor a fragment nor blanks");
  const std::string_view authority = url.substr(0, slash);
  if (authority.empty()) return std::unexpected(quoted + ": the host is missing");
  parsed.authority = authority;
  parsed.path_prefix = path;

  const size_t colon = authority.rfind(':');
  const bool has_port = colon != std::string_view::npos && authority.find(']', colon) == std::string_view::npos;
  std::string host(has_port ? authority.substr(0, colon) : authority);
  const std::string port = has_port ? std::string(authority.substr(colon)) : ":80";
  if (host == "localhost" && names == Names::kLiteral) host = "127.0.0.1";
  std::expected<Address, std::string> address =
      names == Names::kResolve ? Address::Resolve(host + port) : Address::Parse(host + port);
  if (!address) return std::unexpected(quoted + ": " + address.error());
  parsed.address = *address;
  return parsed;
}

UpstreamGroup::UpstreamGroup(Worker& worker, const std::vector<UpstreamUrl>& urls, const UpstreamPoolOptions& options,
                             HttpMetrics& metrics)
    : worker_(worker) {
  DPA_ASSERT(!urls.empty() && urls.size() <= kEndpointsMax);
  for (const UpstreamUrl& url : urls) endpoints_.push_back(std::make_unique<Endpoint>(url, worker, options, metrics));
}

Task<Result<UpstreamGroup::Choice>> UpstreamGroup::Acquire(UpstreamPool::Freshness freshness,
                                                              UpstreamWaits& waits) {
  uint64_t tried = 0;
  for (size_t count = 1;; ++count) {
    Endpoint* endpoint = Choose(tried);
    Result<UpstreamPool::Lease> lease = co_await endpoint->pool.Acquire(freshness, waits);
    if (lease) co_return Choice{endpoint, std::move(*lease)};
    const ErrorCode code = lease.error().code;
    if (code != ErrorCode::kShed) endpoint->avoid_until_ms = worker_.now_ms() + kAvoidMs;
    if (count == endpoints_.size() || code == ErrorCode::kCancelled) co_return std::unexpected(lease.error());
    for (size_t i = 0; i < endpoints_.size(); ++i) {
      if (endpoints_[i].get() == endpoint) tried |= uint64_t{1} << i;
    }
  }
}

// The least loaded one not tried; those to avoid only if there is no other.
UpstreamGroup::Endpoint* UpstreamGroup::Choose(uint64_t tried) {
  if (endpoints_.size() == 1) return endpoints_[0].get();
  Endpoint* best = nullptr;
  bool best_avoided = false;
  const size_t first = turn_++;
  for (size_t i = 0; i < endpoints_.size(); ++i) {
    const size_t index = (first + i) % endpoints_.size();
    if (tried >> index & 1) continue;
    Endpoint& endpoint = *endpoints_[index];
    const bool avoided = endpoint.avoid_until_ms > worker_.now_ms();
    const bool better = best == nullptr || (best_avoided && !avoided) ||
                        (best_avoided == avoided && endpoint.pool.leased_count() < best->pool.leased_count());
    if (!better) continue;
    best = &endpoint;
    best_avoided = avoided;
  }
  DPA_ASSERT(best != nullptr);
  return best;
}

Task<void> UpstreamGroup::Drain() {
  for (const std::unique_ptr<Endpoint>& endpoint : endpoints_) co_await endpoint->pool.Drain();
}

}  // namespace dpa
