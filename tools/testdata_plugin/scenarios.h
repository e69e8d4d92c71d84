// RunScenario answers one query. Which answer is chosen by `scenarioId` in the query's JSON:
//
//   random_walk (default)  seed, seriesCount, startValue, spread, labels: one point per intervalMS
//   csv_content            csvContent                      types are inferred per column
//   table                  -                               every field type, nulls, NaN, ±Inf, nanos, labels, config
//   rows                   rows, columns                   a time and columns-1 numbers
//   slow                   delayMs                         random_walk after a pause
//   error                  message, status, errorSource    an error for this refId alone
//   grpc_error             code, message, errorSource      the whole call fails
//   crash                  how: "abort" | "exit"           the process is gone, without an answer
//   panic                  -                               the same, with the trace on stderr that a Go program leaves
//   stdio_flood            bytes, to: "stdout" | "stream"  prints that much first
//   arrow                  -                               a reply with format ARROW (bytes that only look like it)
//   status0                -                               random_walk with status 0, as SDKs before v0.142 send
//   omit                   -                               no answer at all for this refId
//   echo                   -                               the request as the plugin saw it, as a frame of one row

#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "grpc_bridge/proto/pluginv2.pb.h"
#include "tools/testdata_plugin/frame.h"

namespace dpa::testdata {

// What surrounds one query.
struct QueryEnvironment {
  const pluginv2::PluginContext* context = nullptr;
  std::map<std::string, std::string> headers;   // QueryDataRequest.headers.
  std::map<std::string, std::string> metadata;  // gRPC metadata; values that are not text are left out.
  pluginv2::DataFrameFormat format = pluginv2::ARROW;
  std::function<bool()> cancelled;
  // Prints to what the host reads by GRPCStdio/StreamStdio; waits until it was taken or the call is cancelled.
  std::function<void(std::string)> print_to_stdio_stream;
};

struct QueryAnswer {
  std::vector<Frame> frames;
  std::string error;
  int status = 200;
  std::string error_source;
  std::string arrow_bytes;   // Not empty: one frame in format ARROW instead of `frames`.
  bool omit = false;         // No entry for this refId.
  size_t chunk_rows = 1000;  // For QueryChunkedData: rows per message.
  int grpc_code = 0;         // Not 0: the whole call fails with this code, `error` and `error_source`.
};

QueryAnswer RunScenario(const pluginv2::DataQuery& query, const QueryEnvironment& environment);

}  // namespace dpa::testdata
