// Any bytes as a query body: either a refusal with a reason, or a request whose every query holds valid JSON without
// timeRange.

#include <cstdint>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "core/assert.h"
#include "grpc_bridge/proto/pluginv2.pb.h"
#include "grpc_bridge/query_translation.h"

namespace {

dpa::PluginContexts Contexts() {
  dpa::DataSource source;
  source.uid = "u";
  source.name = "n";
  source.type = "t";
  return {std::make_shared<const dpa::DataSourceSet>(std::vector{source}, nullptr), dpa::PluginDirectory{}, {}};
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static const dpa::PluginContexts contexts = Contexts();
  static dpa::QueryTranslator translator;
  std::vector<char> body(data, data + size);
  body.resize(size + dpa::kQueryBodyPadding);
  dpa::QueryTarget target{"t", "u", "default", contexts.Find(1, "u"), nullptr, {}};
  std::string out;
  auto done = translator.Translate({body.data(), size}, target, 1'700'000'000'000, out);
  if (!done) {
    DPA_ASSERT(done.error().http_status == 400 && !done.error().message.empty() && out.empty());
    return 0;
  }
  pluginv2::QueryDataRequest request;
  DPA_ASSERT(request.ParseFromString(out));
  DPA_ASSERT(static_cast<size_t>(request.queries_size()) == done->query_count);
  for (const auto& query : request.queries()) {
    DPA_ASSERT(query.has_timerange());
    // A double too large is the one thing that this parser refuses and the grammar does not.
    auto json = nlohmann::json::parse(query.json(), nullptr, false);
    DPA_ASSERT(json.is_discarded() || (json.is_object() && !json.contains("timeRange")));
  }
  return 0;
}
