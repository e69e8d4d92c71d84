#include "grpc_bridge/plugin_directory.h"

#include <algorithm>

namespace dpa {

std::string_view ToString(PluginState state) {
  switch (state) {
    case PluginState::kStarting:
      return "starting";
    case PluginState::kRunning:
      return "running";
    case PluginState::kBackoff:
      return "backoff";
    case PluginState::kStopped:
      return "stopped";
  }
  return "unknown";
}

const PluginEntry* PluginDirectory::Find(std::string_view id) const {
  const auto found =
      std::ranges::lower_bound(plugins, id, {}, [](const PluginEntry& entry) { return std::string_view(entry.id); });
  return found != plugins.end() && found->id == id ? &*found : nullptr;
}

}  // namespace dpa
