// UpstreamResolver keeps an UpstreamDirectory up to date: it asks the system's resolver for every name among the URLs
// of upstreams, at start and again and again, on a thread of its own, since the resolver blocks as long as it likes.
//
// What a name stood for last stays in force while it cannot be resolved. A name that has never been resolved stands for
// nothing: requests to it are answered 502 delegate_unreachable, and it is asked for again soon.
//
// Thread safety: everything but construction, Start and Stop from any thread.

#pragma once

#include <cstdint>
#include <expected>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "core/address.h"
#include "core/metrics.h"
#include "core/snapshot.h"
#include "http/upstream_url.h"

namespace dpa {

struct UpstreamResolverOptions {
  // --delegate-resolve-interval. Half a minute is what cloud resolvers give as time to live; the system's resolver does
  // not tell it. 0: only until a name has been resolved once.
  uint64_t interval_ms = 30'000;
  uint64_t retry_ms = 1'000;    // A name that has never been resolved.
  uint32_t addresses_max = 64;  // Of one name; the rest is left out, with a warning.
  // How long Add waits for answers: most come at once, and a name server that is down must not keep us from serving.
  uint64_t first_wait_ms = 2'000;
};

class UpstreamResolver {
 public:
  // All addresses of "HOST:PORT"; blocks. The error is a sentence.
  using Lookup = std::function<std::expected<std::vector<Address>, std::string>(const std::string& host_port)>;

  struct Status {
    std::string url;
    std::vector<std::string> addresses;
    std::string error;  // Of the last attempt; empty: it succeeded.
  };

  // `lookup`: Address::ResolveAll, or that of a test.
  UpstreamResolver(const UpstreamResolverOptions& options, Lookup lookup);
  ~UpstreamResolver();  // Stops.

  // Takes `urls` and waits up to first_wait_ms until each name among them has been asked for once. Errors: malformed
  // ones, a sentence each; they are left out.
  std::vector<std::string> Add(const std::vector<std::string>& urls);
  // Takes these URLs in place of those of the last call, besides those of Add; malformed ones are left out. Returns at
  // once: new names are resolved by the thread.
  void SetBackends(std::vector<std::string> urls);

  // `wake` is called after every change from now on, from the resolver's thread.
  void Start(std::function<void()> wake);
  // Returns at once even if the system's resolver does not.
  void Stop();

  const SnapshotPublisher<UpstreamDirectory>& directory() const;
  std::vector<Status> StatusOfAll() const;
  void Collect(MetricsPage& page) const;

 private:
  struct State;
  void StartThread();
  static void Run(const std::shared_ptr<State>& state);

  const std::shared_ptr<State> state_;  // Shared with the thread, which may outlive this.
};

}  // namespace dpa
