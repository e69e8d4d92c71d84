// UpstreamGroup is a set of endpoints that serve the same thing: the delegates (--delegate, repeatable), or one HTTP
// backend.
//
// An exchange gets the least loaded endpoint, in turn among equals; if connecting fails the next one is tried, since
// nothing has been sent yet, and the failed one is avoided for a moment.

#pragma once

#include <cstdint>
#include <expected>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "core/address.h"
#include "http/upstream_pool.h"

namespace dpa {

struct UpstreamUrl {
  Address address;
  std::string authority;    // host[:port], for requests that came without Host.
  std::string path_prefix;  // "" or "/a/b": put before each request's path.
};

enum class Names : uint8_t { kLiteral, kResolve };

// `http://HOST[:PORT][/prefix]` or `unix:PATH`. With kLiteral, HOST is an IP address or `localhost`; kResolve also asks
// the resolver, so it blocks: for start-up, not for a worker's thread. The error is a sentence.
std::expected<UpstreamUrl, std::string> ParseUpstreamUrl(std::string_view url, Names names);

class UpstreamGroup {
 public:
  static constexpr size_t kEndpointsMax = 64;
  // How long an endpoint that could not be connected to is passed over, while there are others.
  static constexpr uint64_t kAvoidMs = 1'000;

  struct Endpoint {
    Endpoint(UpstreamUrl u, Worker& worker, const UpstreamPoolOptions& options, HttpMetrics& metrics)
        : url(std::move(u)), pool(worker, url.address, options, metrics) {}
    const UpstreamUrl url;
    UpstreamPool pool;
    uint64_t avoid_until_ms = 0;
  };
  struct Choice {
    const Endpoint* endpoint;
    UpstreamPool::Lease lease;
  };

  // REQUIRES: 1..kEndpointsMax urls. `worker`, `options` and `metrics` outlive the group; Drain() has completed at its
  // end.
  UpstreamGroup(Worker& worker, const std::vector<UpstreamUrl>& urls, const UpstreamPoolOptions& options,
                HttpMetrics& metrics);

  // Errors: those of UpstreamPool::Acquire, of the endpoint tried last.
  // What it waited for is added to `waits`.
  Task<Result<Choice>> Acquire(UpstreamPool::Freshness freshness, UpstreamWaits& waits);
  Task<void> Drain();

  size_t size() const { return endpoints_.size(); }

 private:
  Endpoint* Choose(uint64_t tried);

  Worker& worker_;
  std::vector<std::unique_ptr<Endpoint>> endpoints_;
  size_t turn_ = 0;
};

}  // namespace dpa
