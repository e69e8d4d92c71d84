// PluginWatch receives a supervisor's directories and lets a test wait for one that satisfies it.

#pragma once

#include <chrono>
#include <condition_variable>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "grpc_bridge/plugin_supervisor.h"

namespace dpa {

class PluginWatch {
 public:
  PluginSupervisor::OnChange Receiver() {
    return [this](std::shared_ptr<const PluginDirectory> directory) {
      const std::lock_guard lock(mutex_);
      history_.push_back(std::move(directory));
      changed_.notify_all();
    };
  }

  // The first entry of plugin `id`, among all that were or will be published, for which `accept` is true. An empty
  // entry (no id) if none came within half a minute.
  PluginEntry Await(const std::string& id, const std::function<bool(const PluginEntry&)>& accept) {
    std::unique_lock lock(mutex_);
    const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(30);
    for (size_t next = 0;;) {
      for (; next < history_.size(); ++next) {
        const PluginEntry* entry = history_[next]->Find(id);
        if (entry != nullptr && accept(*entry)) return *entry;
      }
      if (changed_.wait_until(lock, deadline) == std::cv_status::timeout) return {};
    }
  }
  PluginEntry AwaitState(const std::string& id, PluginState state, uint64_t incarnation_min = 1) {
    return Await(
        id, [=](const PluginEntry& entry) { return entry.state == state && entry.incarnation >= incarnation_min; });
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<std::shared_ptr<const PluginDirectory>> history_;
};

}  // namespace dpa
