// Question: what does the translation of a query cost, both ways? Body to request for the one-query example and for 20
// queries; reply to body for 1 KB, 64 KB and 8 MiB of frames (spliced, so the size should hardly matter).

#include <benchmark/benchmark.h>
#include <fmt/format.h>

#include <memory>
#include <string>
#include <vector>

#include "core/assert.h"
#include "grpc_bridge/protobuf_wire.h"
#include "grpc_bridge/query_response.h"
#include "grpc_bridge/query_translation.h"

namespace dpa {
namespace {

constexpr int64_t kNowMs = 1'700'000'000'000;

std::string Body(int64_t query_count) {
  std::string body = R"({"from":"now-6h","to":"now","queries":[)";
  for (int64_t i = 0; i < query_count; ++i) {
    body += fmt::format(
        R"({}{{"refId":"Q{}","datasource":{{"type":"testds","uid":"bench"}},"scenarioId":"random_walk",)"
        R"("seriesCount":3,)"
        R"("maxDataPoints":1200,"intervalMs":30000,"timeRange":{{"from":"now-1h","to":"now"}},"alias":"series {}"}})",
        i > 0 ? "," : "", i, i);
  }
  return body + "]}" + std::string(kQueryBodyPadding, ' ');
}

PluginContexts Contexts() {
  DataSource source;
  source.uid = "bench";
  source.name = "Bench";
  source.type = "testds";
  source.url = "http://backend:9090";
  source.json_data = R"({"httpMethod":"POST","timeout":30})";
  source.secure_json_data = {{"password", "secret"}};
  auto sources = std::make_shared<const DataSourceSet>(std::vector{source}, nullptr);
  return PluginContexts(sources, PluginDirectory{}, {.grafana_config = DefaultGrafanaConfig()});
}

void TranslateQuery(benchmark::State& state) {
  std::string body = Body(state.range(0));
  std::string_view view(body.data(), body.size() - kQueryBodyPadding);
  PluginContexts contexts = Contexts();
  PluginUser user{.login = "ada", .role = "Viewer"};
  std::vector<QueryHeader> headers = {{"X-Dashboard-Uid", "dash"}, {"X-Panel-Id", "2"}};
  QueryTarget target{"testds", "bench", "default", contexts.Find(1, "bench"), &user, headers};
  QueryTranslator translator;
  std::string out;
  for (auto _ : state) {
    out.clear();
    auto done = translator.Translate(view, target, kNowMs, out);
    DPA_ASSERT(done.has_value());
    benchmark::DoNotOptimize(out.data());
  }
  state.SetBytesProcessed(state.iterations() * static_cast<int64_t>(view.size()));
}
BENCHMARK(TranslateQuery)->Arg(1)->Arg(20);

// One result with one JSON frame of `size` bytes.
std::string Reply(size_t size) {
  std::string frame = R"({"schema":{"refId":"A","fields":[{"name":"v","type":"number"}]},"data":{"values":[[)";
  while (frame.size() + 6 < size) frame += "12.5,";
  frame += "1]]}}";
  std::string value;
  wire::AppendBytes(1, frame, value);
  wire::AppendInt(4, 200, value);
  wire::AppendInt(6, 1, value);
  std::string entry;
  wire::AppendBytes(1, "A", entry);
  wire::AppendBytes(2, value, entry);
  std::string message;
  wire::AppendBytes(1, entry, message);
  return message;
}

void SpliceReply(benchmark::State& state) {
  std::string message = Reply(static_cast<size_t>(state.range(0)));
  QueryReply reply;
  for (auto _ : state) {
    auto done = RenderQueryResponse(message, nullptr, {}, reply);
    DPA_ASSERT(done.has_value());
    benchmark::DoNotOptimize(reply.pieces().data());
  }
  state.SetBytesProcessed(state.iterations() * static_cast<int64_t>(message.size()));
}
BENCHMARK(SpliceReply)->Arg(1 << 10)->Arg(64 << 10)->Arg(8 << 20);

}  // namespace
}  // namespace dpa
