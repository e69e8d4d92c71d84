// PluginCalls makes the supervisor's own calls to one plugin process: health, shutdown, and the stream of what the
// plugin prints. It uses the gRPC library's callbacks; nothing here blocks but the destructor.
//
// `wake_fd` (an eventfd) is written to whenever an answer can be taken. Every service may be missing in a plugin.

#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>

namespace dpa {

class PluginCalls {
 public:
  enum class Health {
    kServing,     // Said so, or has no such service.
    kNotServing,  // Said so.
    kNoAnswer,    // Cannot be reached, or not in time.
  };
  struct HealthAnswer {
    Health health = Health::kNoAnswer;
    std::string why;  // Of kNotServing and kNoAnswer.
  };
  enum class ShutdownAnswer {
    kAccepted,     // It answered, or broke the connection off, as plugins in Go do.
    kUnsupported,  // No such service: plugins in Rust, standalone ones.
  };

  // `address` as PluginEntry has it. REQUIRES: wake_fd outlives this.
  PluginCalls(const std::string& address, int wake_fd);
  // Cancels what is in flight and waits until it has ended.
  ~PluginCalls();

  // REQUIRES: the answer to an earlier one was taken.
  void CheckHealth(int64_t timeout_ms);
  std::optional<HealthAnswer> TakeHealth();

  void Shutdown(int64_t timeout_ms);
  std::optional<ShutdownAnswer> TakeShutdown();

  // Reads GRPCStdio/StreamStdio until this object ends, and drops what comes: a Go plugin that prints stands still if
  // nobody takes it. (Log lines come by stderr, not here.) That the service is missing is fine.
  void DrainStdio();

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace dpa
