// PluginDirectory is what the workers know about plugins: which exist, which can be called, and where. The supervisor
// makes a new one at every change of state and publishes it as a Snapshot; it is immutable.

#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace dpa {

enum class PluginState : uint8_t {
  kStarting,  // Launched; no handshake or no health answer yet.
  kRunning,   // Handshake done, answers calls at `address`.
  kBackoff,   // Exited or failed to start; will be started again after a pause.
  kStopped,   // Will not be started again (shutting down, or plugin.json is unusable).
};
std::string_view ToString(PluginState state);

struct PluginEntry {
  std::string id;       // plugin.json `id`, the key everywhere.
  std::string type;     // plugin.json `type`: "datasource", "app", ….
  std::string version;  // plugin.json `info.version`.
  PluginState state = PluginState::kStarting;
  // Where it listens, from its handshake: "unix:PATH" or "HOST:PORT". Good while state is kRunning.
  std::string address;
  // Counts process starts of this plugin; a connection to an older incarnation is of no use.
  uint64_t incarnation = 0;
  int pid = 0;
  // Why it is not running, one line for people; empty while running.
  std::string failure;
};

struct PluginDirectory {
  std::vector<PluginEntry> plugins;  // Sorted by id.

  // nullptr if there is no such plugin.
  const PluginEntry* Find(std::string_view id) const;
};

}  // namespace dpa
