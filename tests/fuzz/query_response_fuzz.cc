// Any bytes as a plugin's reply: either a refusal, or pieces that stay inside message and text and sum up to the
// length. When protobuf reads the message too, both know the same refIds.

#include <cstdint>
#include <set>
#include <string>

#include "core/assert.h"
#include "grpc_bridge/proto/pluginv2.pb.h"
#include "grpc_bridge/query_response.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static dpa::QueryReply reply;
  std::string message(reinterpret_cast<const char*>(data), size);
  dpa::ErrorSourceFromStatusDetails(message);
  auto done = dpa::RenderQueryResponse(message, nullptr, {.inline_bytes_max = 16}, reply);
  if (!done) {
    DPA_ASSERT(done.error().http_status == 502 && reply.pieces().empty());
    return 0;
  }
  std::string text = reply.Text();
  DPA_ASSERT(text.size() == reply.content_length());
  DPA_ASSERT(text.starts_with("{\"results\":{") && text.ends_with("}}"));
  pluginv2::QueryDataResponse parsed;
  if (!parsed.ParseFromString(message)) return 0;
  std::set<std::string_view> ids;
  for (const auto& result : reply.results()) ids.insert(result.ref_id);
  DPA_ASSERT(ids.size() == reply.results().size());
  for (const auto& [id, response] : parsed.responses()) DPA_ASSERT(ids.contains(id));
  return 0;
}
