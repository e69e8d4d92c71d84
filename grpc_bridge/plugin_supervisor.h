// PluginSupervisor owns the plugin processes: it finds plugins, launches them, shakes hands, checks health, carries
// their logs into ours, starts them again when they end, and stops them all. What the workers need to know it publishes
// as a new PluginDirectory at every change.
//
// One plugin's life; each round is one incarnation:
//
//   kStarting ──handshake, health──▶ kRunning ──exit──▶ kBackoff ──pause──▶ kStarting …
//       └───────exit, timeout, garbage──────────────────▶┘            any ──Stop──▶ kStopped
//
// The pause begins at backoff_first_ms, doubles with each round up to backoff_max_ms, and begins anew after a round
// that ran for backoff_reset_ms. There is no limit on rounds: a plugin that was mended comes back by itself.
//
// One thread per plugin: it launches the process, reads its pipes, waits for its end and buries it (why one thread must
// do all of it: plugin_supervisor_process.h). Each incarnation has a private directory (mode 0700) for its socket below
// one of the supervisor's own, which is removed at Stop; what a supervisor left behind that was killed is removed by
// the next.

#pragma once

#include <cstdint>
#include <expected>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "grpc_bridge/plugin_directory.h"

namespace dpa {

struct PluginSupervisorOptions {
  std::vector<std::string> dirs;      // Searched for plugin.json.
  int64_t start_timeout_ms = 60'000;  // From launch to a good health answer; go-plugin's own limit.
  int64_t stop_timeout_ms = 2'000;    // From Shutdown to SIGKILL; go-plugin's own limit.
  int64_t backoff_first_ms = 100;
  int64_t backoff_max_ms = 30'000;
  int64_t backoff_reset_ms = 10'000;
  // Where the directory for the sockets is made; empty: the system's directory for temporary files. It should be short:
  // a socket's path has 107 bytes in all.
  std::string run_dir;
  // Given to every plugin, after our own environment and before what the protocol demands.
  std::vector<std::pair<std::string, std::string>> extra_environment;
  std::string grafana_version = "12.0.0";  // GF_VERSION: which Grafana plugins believe to talk to.
  int64_t log_lines_burst = 1000;          // Lines of one plugin that are passed on at once …
  int64_t log_lines_per_s = 200;           // … and in the long run; the rest is counted.
};

// Counts since the start; they only grow.
struct PluginCounts {
  std::string id;
  uint64_t starts = 0;          // Processes launched, or tried to.
  uint64_t start_failures = 0;  // Of these, which never came to run.
  uint64_t exits = 0;           // Ends of a running plugin that nobody asked for.
  uint64_t restarts = 0;        // Starts after the first.
  uint64_t log_lines_dropped = 0;
};

class PluginSupervisor {
 public:
  // Called with each new directory, one call at a time and in order, from the supervisor's threads (and from Start and
  // Stop). It must be quick and must not call back into the supervisor.
  using OnChange = std::function<void(std::shared_ptr<const PluginDirectory>)>;

  PluginSupervisor(PluginSupervisorOptions options, OnChange on_change);
  ~PluginSupervisor();  // Stops.

  // Finds the plugins and begins to launch them; does not wait for them. A plugin.json that cannot be used is in the
  // directory as kStopped with its failure. Errors: one line; a directory of `dirs` cannot be read, or no place for the
  // sockets. REQUIRES: called once.
  std::expected<void, std::string> Start();
  // Ends all plugins, side by side: Shutdown, stop_timeout_ms, then SIGKILL to the process group. When it returns no
  // process, socket or directory of theirs is left. May be called again.
  void Stop();

  // The newest; never null. Thread-safe.
  std::shared_ptr<const PluginDirectory> directory() const;
  // Thread-safe. Sorted by id.
  std::vector<PluginCounts> counts() const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace dpa
