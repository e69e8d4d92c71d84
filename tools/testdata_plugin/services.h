// Services is the gRPC side of the plugin: every service of pluginv2 that it implements, and go-plugin's own four.
//
// The synchronous server of the gRPC library serves each call on a thread of its pool; a call that waits (slow, stream)
// looks at its own cancellation every few milliseconds, so that Stop ends them all quickly.

#pragma once

#include <grpcpp/server_builder.h>

#include <functional>
#include <memory>
#include <string>

namespace dpa::testdata {

struct ServiceOptions {
  bool go_plugin_services = true;     // Without them: what a standalone plugin is, or one of another language.
  bool health = true;                 // grpc.health.v1.
  bool healthy = true;                // What Diagnostics.CheckHealth says.
  bool log_requests = false;          // A debug line per call on stderr, as the Go SDK writes.
  std::function<void()> on_shutdown;  // GRPCController/Shutdown was called.
};

class Services {
 public:
  explicit Services(ServiceOptions options);
  ~Services();

  // REQUIRES: the server built from `builder` ends before this object.
  void Register(grpc::ServerBuilder* builder);
  // Lets calls that wait for something of ours return. Thread-safe.
  void Stop();

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

// One hclog JSON line on stderr. Thread-safe.
void LogLine(const char* level, const std::string& message);

}  // namespace dpa::testdata
