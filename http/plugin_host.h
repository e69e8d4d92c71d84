// PluginHost answers exchanges whose route names a plugin. Declared here in HTTP's words; grpc_bridge/ implements it,
// one per worker.

#pragma once

#include "core/task.h"
#include "http/exchange.h"

namespace dpa {

class PluginHost {
 public:
  virtual ~PluginHost() = default;
  // Answers `exchange`, whose match().target is a plugin's: a response is always given, an error one included.
  virtual Task<void> Serve(Exchange& exchange) = 0;
};

}  // namespace dpa
