// PluginChannel is one worker's way to one plugin: it keeps a connection to the process that runs now, makes it when a
// call first needs it, and hands calls to it.
//
//     Unary ──▶ a connection that takes streams? ──▶ call ──▶ reply
//                   │ no                              └──▶ certainly not seen by the plugin: once more, on another
//                   ▼                                      connection if need be
//               one connect for all who wait
//
// A connection that the plugin says goodbye to (GOAWAY), or that has run out of stream ids, finishes its calls beside
// its successor. When the process has gone (its incarnation changed, or it is in back-off), its connections end at
// once.
//
// Belongs to its worker.

#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "core/result.h"
#include "core/task.h"
#include "core/worker.h"
#include "grpc_bridge/grpc_call.h"
#include "grpc_bridge/h2_connection.h"
#include "grpc_bridge/plugin_directory.h"
#include "grpc_bridge/plugin_metrics.h"

namespace dpa {

class H2Memory;

struct PluginChannelOptions {
  H2ConnectionOptions connection;
  uint32_t connect_timeout_ms = 1'000;
  uint32_t calls_max = 2'048;  // In flight and waiting. Beyond it: kShed.
  uint32_t attempts_max = 3;   // Of one call, the first included; later ones only if the plugin has not seen it.
};

class PluginChannel {
 public:
  // `worker`, `memory` and `metrics` outlive the channel.
  PluginChannel(Worker& worker, H2Memory& memory, const PluginChannelOptions& options, std::string_view plugin_id,
                PluginMetrics::Record& metrics);
  ~PluginChannel();  // REQUIRES: Drain() has completed.
  PluginChannel(const PluginChannel&) = delete;
  PluginChannel& operator=(const PluginChannel&) = delete;

  // What the directory now says about the plugin; nullptr: it is not there any more.
  void Update(const PluginEntry* entry);

  // Makes a unary call. Errors: as GrpcCall, and kUnavailable (not running, or it cannot be reached) and kShed
  // (calls_max, or too long in a queue), both retry_safe.
  Task<Result<GrpcReply>> Unary(GrpcCall& call, const GrpcRequest& request);

  // No new calls; connections end when idle. Completes when all have. REQUIRES: no call is in flight.
  Task<void> Drain();

  bool installed() const { return installed_; }
  PluginState state() const { return state_; }
  std::string_view failure() const { return failure_; }
  std::string_view plugin_type() const { return plugin_type_; }
  PluginMetrics::Record& metrics() { return metrics_; }
  size_t connections_count() const { return connections_.size(); }

 private:
  struct Waiter;

  bool HasConnection() const { return current_ != nullptr && current_->session().accepts_streams(); }
  Task<Result<H2Session*>> Acquire(GrpcCall& call);
  Task<void> ServeConnection();
  Task<Result<int>> ConnectNow(bool& is_unix);
  void FinishConnecting(Result<void> result);
  void LogEnd(const H2Connection& connection, Error reason);
  void CloseAll(Error reason);
  Error Unavailable() const { return Error{ErrorCode::kUnavailable, ErrorSource::kPlugin, /*retry_safe=*/true}; }

  Worker& worker_;
  H2Memory& memory_;
  const PluginChannelOptions options_;
  const std::string plugin_id_;
  PluginMetrics::Record& metrics_;
  TaskScope scope_;

  bool installed_ = false;
  PluginState state_ = PluginState::kStopped;
  std::string plugin_type_;
  std::string failure_;
  std::string address_;
  uint64_t incarnation_ = 0;

  H2Connection* current_ = nullptr;  // The one that new calls go to; may have stopped taking them.
  std::vector<H2Connection*> connections_;
  bool connecting_ = false;
  uint64_t attempts_begun_ = 0;
  uint64_t attempts_finished_ = 0;
  Result<void> last_attempt_;
  Waiter* waiters_ = nullptr;
  uint32_t calls_count_ = 0;
  bool draining_ = false;
  bool complained_ = false;  // Once per incarnation.
};

}  // namespace dpa
