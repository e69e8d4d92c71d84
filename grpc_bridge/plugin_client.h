// PluginClient answers exchanges whose route names a plugin: the PluginHost of one worker.
//
//     Serve ──▶ query:  body ─ translate ─▶ Data.QueryData ─ render ─▶ {"results":{…}}
//           └─▶ health:                     Diagnostics.CheckHealth ─▶ {"status":…,"message":…,"details":…}
//
// Who is asked and with which settings comes from two snapshots, adopted between two turns: the plugin directory (which
// processes run, where) and the plugin contexts (data sources). An answer is always given; errors come in this order:
// method, body (QueryTranslator's order), plugin known, namespace, data source, plugin running, the call.
//
// A client that leaves cancels its call at the plugin.

#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "core/byte_buffer.h"
#include "core/snapshot.h"
#include "core/task.h"
#include "core/worker.h"
#include "grpc_bridge/grpc_call.h"
#include "grpc_bridge/h2_memory.h"
#include "grpc_bridge/plugin_channel.h"
#include "grpc_bridge/plugin_context.h"
#include "grpc_bridge/plugin_directory.h"
#include "grpc_bridge/plugin_metrics.h"
#include "grpc_bridge/query_response.h"
#include "grpc_bridge/query_translation.h"
#include "http/plugin_host.h"
#include "http/reason.h"
#include "http/route_table.h"

namespace dpa {

struct PluginClientOptions {
  uint64_t call_timeout_ms = 60'000;     // --plugin-call-timeout, from the whole request on; 0: no limit.
  size_t request_bytes_max = 16u << 20;  // --max-plugin-request-bytes: what plugins made with the Go SDK take.
  GrpcCallOptions call;
  PluginChannelOptions channel;
  QueryLimits query;
  QueryReplyLimits reply;
  FrameTranscoder* transcoder =
      nullptr;  // For replies in Arrow; outlives the client. Without one they are errors per refId.
};

class PluginClient final : public PluginHost, private TurnObserver {
 public:
  // The worker and the publishers outlive the client.
  PluginClient(Worker& worker, const SnapshotPublisher<PluginDirectory>& directory,
               const SnapshotPublisher<PluginContexts>& contexts, const PluginClientOptions& options);
  ~PluginClient();  // REQUIRES: Drain() has completed.
  PluginClient(const PluginClient&) = delete;
  PluginClient& operator=(const PluginClient&) = delete;

  // The service types that Serve() answers.
  static std::span<const ServiceType> implemented();

  // REQUIRES: match().target is a plugin's, of an implemented type.
  Task<void> Serve(Exchange& exchange) override;

  // Says goodbye on every connection. REQUIRES: no Serve() is running.
  Task<void> Drain();

  // Any thread may call Collect of it.
  const PluginMetrics& metrics() const { return metrics_; }
  // Connections that are open, to all plugins.
  size_t connections_count() const;

 private:
  struct Work;
  class WorkLease;
  struct Target;
  struct Refusal {
    Reason reason = Reason::kOk;
    std::string message;
  };

  void OnTurn() override;
  void UpdateChannels();
  PluginChannel* FindChannel(std::string_view plugin_id);

  Task<void> ServeQuery(Exchange& exchange);
  Task<void> ServeHealth(Exchange& exchange);
  Task<void> AnswerHealth(Exchange& exchange, Work& work, const GrpcReply& reply, std::string_view plugin_type);
  Task<Result<GrpcReply>> Call(Exchange& exchange, PluginChannel& channel, GrpcCall& call, std::string_view path,
                               std::string_view message);

  Target FindTarget(Exchange& exchange, Work& work, Refusal& refusal);
  Refusal TranslateQuery(Exchange& exchange, Work& work, const Target& target);
  void Count(PluginChannel& channel, PluginEndpoint endpoint, const Result<GrpcReply>& reply, bool failed,
             uint64_t started_ns, size_t request_bytes);

  Worker& worker_;
  const PluginClientOptions options_;
  H2Memory memory_;
  PluginMetrics metrics_;
  SnapshotReader<PluginDirectory> directory_;
  SnapshotReader<PluginContexts> contexts_;
  QueryTranslator translator_;
  std::map<std::string, std::unique_ptr<PluginChannel>, std::less<>> channels_;
  std::vector<std::unique_ptr<Work>> free_work_;
  uint32_t serving_count_ = 0;
};

}  // namespace dpa
