// Goal: the bundled plugin answers each scenario as a plugin made with Grafana's SDK would, digit for digit in its
// frames. Method: the real process, called by the gRPC library.

#include <gmock/gmock.h>
#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "grpc_bridge/plugin_supervisor.h"
#include "grpc_bridge/proto/go_plugin.grpc.pb.h"
#include "grpc_bridge/proto/pluginv2.grpc.pb.h"
#include "grpc_bridge/proto/rpc_status.pb.h"
#include "tests/support/plugin_watch.h"
#include "tests/support/temp_dir.h"

namespace dpa {
namespace {

using Json = nlohmann::json;
using ::testing::HasSubstr;

const char kTestdata[] = "dpa-testdata-datasource";

class TestdataPlugin : public ::testing::Test {
 protected:
  void SetUp() override {
    supervisor_ = std::make_unique<PluginSupervisor>(
        PluginSupervisorOptions{.dirs = {DPA_BINARY_DIR "/plugins/dpa-testdata-datasource"},
                                .backoff_first_ms = 10,
                                .run_dir = run_.path()},
        watch_.Receiver());
    ASSERT_TRUE(supervisor_->Start().has_value());
    entry_ = watch_.AwaitState(kTestdata, PluginState::kRunning);
    ASSERT_EQ(entry_.id, kTestdata);
    channel_ = grpc::CreateChannel(entry_.address, grpc::InsecureChannelCredentials());
    data_ = pluginv2::Data::NewStub(channel_);
  }

  static pluginv2::QueryDataRequest Request(const Json& query) {
    pluginv2::QueryDataRequest request;
    auto* context = request.mutable_plugincontext();
    context->set_orgid(7);
    context->mutable_datasourceinstancesettings()->set_uid("u1");
    context->mutable_datasourceinstancesettings()->set_lastupdatedms(1234);
    context->mutable_datasourceinstancesettings()->set_jsondata("{}");
    (*request.mutable_headers())["http_X-Panel-Id"] = "3";
    auto* added = request.add_queries();
    added->set_refid("A");
    added->set_intervalms(1000);
    added->set_maxdatapoints(100);
    added->mutable_timerange()->set_fromepochms(1'767'225'600'000);
    added->mutable_timerange()->set_toepochms(1'767'225'610'000);
    added->set_json(query.dump());
    request.set_format(pluginv2::JSON);
    return request;
  }
  grpc::Status Call(const pluginv2::QueryDataRequest& request, pluginv2::QueryDataResponse* reply) {
    grpc::ClientContext context;
    context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(60));
    context.AddMetadata("traceparent", "00-a-b-01");
    return data_->QueryData(&context, request, reply);
  }
  pluginv2::DataResponse Query(const Json& query) {
    pluginv2::QueryDataResponse reply;
    const grpc::Status status = Call(Request(query), &reply);
    EXPECT_TRUE(status.ok()) << status.error_message();
    EXPECT_TRUE(reply.responses().contains("A"));
    return reply.responses().contains("A") ? reply.responses().at("A") : pluginv2::DataResponse();
  }

  TempDir run_;
  PluginWatch watch_;
  std::unique_ptr<PluginSupervisor> supervisor_;
  PluginEntry entry_;
  std::shared_ptr<grpc::Channel> channel_;
  std::unique_ptr<pluginv2::Data::Stub> data_;
};

TEST_F(TestdataPlugin, RandomWalkHasOnePointPerIntervalAndIsRepeatable) {
  const auto first = Query({{"seed", 5}});
  ASSERT_EQ(first.frames_size(), 1);
  EXPECT_EQ(first.status(), 200);
  EXPECT_EQ(first.format(), pluginv2::JSON);
  const Json frame = Json::parse(first.frames(0));
  EXPECT_EQ(frame["schema"]["refId"], "A");
  EXPECT_EQ(frame["schema"]["fields"][0]["typeInfo"]["frame"], "time.Time");
  EXPECT_EQ(frame["data"]["values"][0].size(), 10u);
  EXPECT_EQ(frame["data"]["values"][0][1], 1'767'225'601'000);
  EXPECT_EQ(frame["data"]["values"][1].size(), 10u);
  EXPECT_EQ(Query({{"seed", 5}}).frames(0), first.frames(0));
  EXPECT_NE(Query({{"seed", 6}}).frames(0), first.frames(0));
}

TEST_F(TestdataPlugin, RandomWalkKeepsToMaxDataPoints) {
  auto request = Request(Json::object());
  request.mutable_queries(0)->set_intervalms(1);
  pluginv2::QueryDataResponse reply;
  ASSERT_TRUE(Call(request, &reply).ok());
  EXPECT_EQ(Json::parse(reply.responses().at("A").frames(0))["data"]["values"][0].size(), 100u);
}

TEST_F(TestdataPlugin, ExtremeTimesAndIntervalsAreAnsweredOrRefused) {
  for (const int64_t extreme : {INT64_MIN, int64_t{-1}, int64_t{0}, INT64_MAX}) {
    auto request = Request({{"scenarioId", "rows"}, {"rows", 3}});
    request.mutable_queries(0)->mutable_timerange()->set_fromepochms(extreme);
    *request.add_queries() = request.queries(0);
    request.mutable_queries(1)->set_json("{}");
    request.mutable_queries(1)->set_refid("B");
    request.mutable_queries(1)->set_intervalms(extreme);
    pluginv2::QueryDataResponse reply;
    EXPECT_TRUE(Call(request, &reply).ok());
    EXPECT_EQ(reply.responses_size(), 2);
  }
}

TEST_F(TestdataPlugin, CsvColumnsGetTypesAndNulls) {
  const auto response = Query({{"scenarioId", "csv_content"},
                               {"csvContent",
                                "time,value,\"a \"\"b\"\"\",on\r\n2026-01-01T00:00:00.000000005Z,1e21,x,true\n"
                                "1969-12-31T23:59:59.999Z,null,\"<y,\nz>\",\n"}});
  ASSERT_EQ(response.error(), "");
  EXPECT_EQ(
      response.frames(0),
      R"({"schema":{"name":"csv","refId":"A","fields":[{"name":"time","type":"time","typeInfo":{"frame":"time.Time","nullable":true}},)"
      R"({"name":"value","type":"number","typeInfo":{"frame":"float64","nullable":true}},)"
      R"({"name":"a \"b\"","type":"string","typeInfo":{"frame":"string","nullable":true}},)"
      R"({"name":"on","type":"boolean","typeInfo":{"frame":"bool","nullable":true}}]},)"
      R"("data":{"values":[[1767225600000,-1],[1e+21,null],["x","\u003cy,\nz\u003e"],[true,null]],"nanos":[[5,0],null,null,null]}})");
}

TEST_F(TestdataPlugin, BrokenCsvIsAnErrorThatNamesTheLine) {
  EXPECT_THAT(Query({{"scenarioId", "csv_content"}, {"csvContent", "a,b\n1,2\n3\n"}}).error(),
              HasSubstr("line 3: 1 cells"));
  EXPECT_THAT(Query({{"scenarioId", "csv_content"}, {"csvContent", "a\n\"x"}}).error(),
              HasSubstr("line 2: quote without its end"));
  EXPECT_THAT(Query({{"scenarioId", "csv_content"}, {"csvContent", ""}}).error(), HasSubstr("no header line"));
}

TEST_F(TestdataPlugin, TablePrintsEveryTypeAsTheSdkDoes) {
  const std::string text = Query({{"scenarioId", "table"}}).frames(0);
  const Json frame = Json::parse(text);
  EXPECT_EQ(frame["schema"]["fields"].size(), 33u);
  EXPECT_EQ(frame["data"]["values"].size(), 33u);
  EXPECT_THAT(text, HasSubstr("[1767225600000,1767225600123,-1,-1000]"));  // Times, rounded down.
  EXPECT_THAT(text, HasSubstr("[0,456789,999999,500]"));                   // Their rest.
  EXPECT_THAT(text, HasSubstr("[-9223372036854775808,1,42,9223372036854775807]"));
  EXPECT_THAT(text, HasSubstr("[0,1,42,18446744073709551615]"));
  EXPECT_THAT(text, HasSubstr("[0.1,null,null,3.4028235e+38]"));  // float32.
  EXPECT_THAT(text, HasSubstr("[1e-07,null,null,null]"));
  EXPECT_THAT(text, HasSubstr("[-0,1e+21,123456789012345680000,5e-324]"));
  EXPECT_THAT(text, HasSubstr(R"({"NaN":[1],"Inf":[2],"NegInf":[3]})"));
  EXPECT_THAT(text, HasSubstr(R"({"Inf":[2],"NegInf":[3]})"));  // Its nullable twin has null for NaN.
  EXPECT_THAT(text, HasSubstr("\"\\u003cb\\u003e\\u0026\\\"\\\\\\n\\u2028\xf0\x9f\x98\x80\""));
  EXPECT_THAT(text, HasSubstr(R"([{"a":[1,2.5,null]},null,[ 1, 2 ],"text"])"));
  EXPECT_THAT(text, HasSubstr(R"("labels":{"a \"quoted\" key":"<value>","host":"web-1"})"));
  EXPECT_THAT(text, HasSubstr(R"("labels":{})"));
  EXPECT_THAT(text, HasSubstr(R"("note":"a \u003c b \u0026 c")"));
  EXPECT_THAT(
      text,
      HasSubstr(
          R"({"schema":{"name":"table \"of\" <every> type","refId":"A","meta":{"type":"table","typeVersion":[0,1])"));
}

TEST_F(TestdataPlugin, FrameWithoutRowsHasEmptyColumns) {
  EXPECT_THAT(Query({{"scenarioId", "rows"}, {"rows", 0}, {"columns", 2}}).frames(0),
              HasSubstr(R"("data":{"values":[[],[]]}})"));
}

TEST_F(TestdataPlugin, EchoShowsWhatThePluginSaw) {
  const Json query = {{"scenarioId", "echo"}, {"refId", "A"}, {"intervalMs", 1000}};
  const Json frame = Json::parse(Query(query).frames(0));
  Json seen;
  for (size_t i = 0; i < frame["schema"]["fields"].size(); ++i) {
    seen[frame["schema"]["fields"][i]["name"].get<std::string>()] = frame["data"]["values"][i][0];
  }
  EXPECT_EQ(seen["fromEpochMS"], 1'767'225'600'000);
  EXPECT_EQ(seen["toEpochMS"], 1'767'225'610'000);
  EXPECT_EQ(seen["maxDataPoints"], 100);
  EXPECT_EQ(seen["intervalMS"], 1000);
  EXPECT_EQ(seen["json"], query);
  EXPECT_EQ(seen["pluginContext"]["orgId"], 7);
  EXPECT_EQ(seen["pluginContext"]["dataSourceInstanceSettings"]["uid"], "u1");
  EXPECT_EQ(seen["pluginContext"]["dataSourceInstanceSettings"]["lastUpdatedMS"], 1234);
  EXPECT_EQ(seen["headers"]["http_X-Panel-Id"], "3");
  EXPECT_EQ(seen["metadata"]["traceparent"], "00-a-b-01");
  EXPECT_EQ(seen["format"], "JSON");
}

TEST_F(TestdataPlugin, ErrorOfOneQueryLeavesTheOthersAlone) {
  auto request = Request({{"scenarioId", "error"}, {"message", "no"}, {"status", 418}, {"errorSource", "downstream"}});
  *request.add_queries() = request.queries(0);
  request.mutable_queries(1)->set_refid("B");
  request.mutable_queries(1)->set_json("{}");
  pluginv2::QueryDataResponse reply;
  ASSERT_TRUE(Call(request, &reply).ok());
  EXPECT_EQ(reply.responses().at("A").error(), "no");
  EXPECT_EQ(reply.responses().at("A").status(), 418);
  EXPECT_EQ(reply.responses().at("A").errorsource(), "downstream");
  EXPECT_EQ(reply.responses().at("B").frames_size(), 1);
}

TEST_F(TestdataPlugin, ParametersOfWrongTypeAreErrorsOfTheQuery) {
  EXPECT_THAT(Query({{"seed", "x"}}).error(), HasSubstr("seed must be an integer"));
  EXPECT_THAT(Query({{"scenarioId", 5}}).error(), HasSubstr("scenarioId must be a string"));
  EXPECT_THAT(Query({{"scenarioId", "nonsense"}}).error(), HasSubstr("unknown scenarioId"));
  EXPECT_THAT(Query(Json::array()).error(), HasSubstr("not a JSON object"));
}

TEST_F(TestdataPlugin, GrpcErrorCarriesItsSource) {
  pluginv2::QueryDataResponse reply;
  const grpc::Status status =
      Call(Request({{"scenarioId", "grpc_error"}, {"code", 14}, {"message", "gone"}, {"errorSource", "downstream"}}),
           &reply);
  EXPECT_EQ(status.error_code(), grpc::StatusCode::UNAVAILABLE);
  EXPECT_EQ(status.error_message(), "gone");
  google::rpc::Status details;
  ASSERT_TRUE(details.ParseFromString(status.error_details()));
  google::rpc::ErrorInfo info;
  ASSERT_TRUE(details.details(0).UnpackTo(&info));
  EXPECT_EQ(info.metadata().at("errorSource"), "downstream");
}

TEST_F(TestdataPlugin, OldRepliesHaveStatusZeroOrArrow) {
  EXPECT_EQ(Query({{"scenarioId", "status0"}}).status(), 0);
  const auto arrow = Query({{"scenarioId", "arrow"}});
  EXPECT_EQ(arrow.format(), pluginv2::ARROW);
  EXPECT_THAT(arrow.frames(0), ::testing::StartsWith("ARROW1"));
  auto request = Request(Json::object());
  request.set_format(pluginv2::ARROW);
  pluginv2::QueryDataResponse reply;
  ASSERT_TRUE(Call(request, &reply).ok());
  EXPECT_THAT(reply.responses().at("A").error(), HasSubstr("JSON only"));
}

TEST_F(TestdataPlugin, SlowAnswerEndsWithItsDeadline) {
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() + std::chrono::milliseconds(50));
  pluginv2::QueryDataResponse reply;
  const auto status = data_->QueryData(&context, Request({{"scenarioId", "slow"}, {"delayMs", 600'000}}), &reply);
  EXPECT_EQ(status.error_code(), grpc::StatusCode::DEADLINE_EXCEEDED);
  EXPECT_EQ(Query({{"scenarioId", "slow"}, {"delayMs", 1}}).frames_size(), 1);
}

TEST_F(TestdataPlugin, FloodOnStdoutAndOnTheStdioStreamIsDrained) {
  EXPECT_EQ(Query({{"scenarioId", "stdio_flood"}, {"bytes", 4 << 20}, {"to", "stdout"}}).frames_size(), 1);
  EXPECT_EQ(Query({{"scenarioId", "stdio_flood"}, {"bytes", 4 << 20}, {"to", "stream"}}).frames_size(), 1);
}

TEST_F(TestdataPlugin, PanicEndsTheCallAndTheFailureQuotesIt) {
  pluginv2::QueryDataResponse reply;
  EXPECT_EQ(Call(Request({{"scenarioId", "panic"}}), &reply).error_code(), grpc::StatusCode::UNAVAILABLE);
  const std::string failure = watch_.AwaitState(kTestdata, PluginState::kBackoff).failure;
  EXPECT_THAT(failure, HasSubstr("exited with code 2; last words: \"panic: runtime error: index out of range"));
}

TEST_F(TestdataPlugin, ChunksAppendRowsAndErrorsHaveNoFrame) {
  const pluginv2::QueryDataRequest plain = Request({{"scenarioId", "rows"}, {"rows", 5}, {"chunkRows", 2}});
  pluginv2::QueryChunkedDataRequest request;
  ASSERT_TRUE(request.ParseFromString(plain.SerializeAsString()));  // The same fields by number.
  *request.add_queries() = request.queries(0);
  request.mutable_queries(1)->set_refid("B");
  request.mutable_queries(1)->set_json(R"({"scenarioId":"error","status":502})");
  grpc::ClientContext context;
  const auto reader = data_->QueryChunkedData(&context, request);
  std::vector<pluginv2::QueryChunkedDataResponse> chunks(1);
  while (reader->Read(&chunks.back())) chunks.emplace_back();
  chunks.pop_back();
  EXPECT_TRUE(reader->Finish().ok());
  ASSERT_EQ(chunks.size(), 4u);
  EXPECT_TRUE(Json::parse(chunks[0].frame()).contains("schema"));
  EXPECT_FALSE(Json::parse(chunks[2].frame()).contains("schema"));
  EXPECT_EQ(Json::parse(chunks[2].frame())["data"]["values"][0].size(), 1u);
  EXPECT_EQ(chunks[2].frameid(), chunks[0].frameid());
  EXPECT_EQ(chunks[3].status(), 502);
  EXPECT_EQ(chunks[3].frame(), "");
}

TEST_F(TestdataPlugin, ResourceEchoesTheRequestAndStreamsPieces) {
  auto stub = pluginv2::Resource::NewStub(channel_);
  pluginv2::CallResourceRequest request;
  request.set_path("some/path");
  request.set_method("PUT");
  request.set_url("some/path?q=1");
  request.set_body("hello");
  (*request.mutable_headers())["X-A"].add_values("1");
  grpc::ClientContext context;
  auto reader = stub->CallResource(&context, request);
  pluginv2::CallResourceResponse message;
  ASSERT_TRUE(reader->Read(&message));
  const Json echo = Json::parse(message.body());
  EXPECT_EQ(echo["method"], "PUT");
  EXPECT_EQ(echo["url"], "some/path?q=1");
  EXPECT_EQ(echo["headers"]["X-A"][0], "1");
  EXPECT_EQ(echo["body"], "hello");
  EXPECT_EQ(message.headers().at("X-Testdata").values_size(), 2);

  request.set_path("stream");
  request.set_url("stream?count=3&size=7");
  grpc::ClientContext second;
  reader = stub->CallResource(&second, request);
  std::string body;
  for (int i = 0; reader->Read(&message); ++i) {
    EXPECT_EQ(message.code(), i == 0 ? 200 : 0);
    body += message.body();
  }
  EXPECT_EQ(body, "aaaaaaabbbbbbbccccccc");
}

TEST_F(TestdataPlugin, StreamsAreSubscribedRunAndPublishedTo) {
  auto stub = pluginv2::Stream::NewStub(channel_);
  pluginv2::SubscribeStreamRequest subscribe;
  pluginv2::SubscribeStreamResponse answer;
  for (const auto& [path, status] : {std::pair("count/3", pluginv2::SubscribeStreamResponse::OK),
                                     std::pair("count/x", pluginv2::SubscribeStreamResponse::NOT_FOUND),
                                     std::pair("forbidden", pluginv2::SubscribeStreamResponse::PERMISSION_DENIED)}) {
    grpc::ClientContext context;
    subscribe.set_path(path);
    ASSERT_TRUE(stub->SubscribeStream(&context, subscribe, &answer).ok());
    EXPECT_EQ(answer.status(), status) << path;
  }
  grpc::ClientContext context;
  pluginv2::RunStreamRequest run;
  run.set_path("count/3");
  const auto reader = stub->RunStream(&context, run);
  pluginv2::StreamPacket packet;
  int packets = 0;
  for (; reader->Read(&packet); ++packets) EXPECT_EQ(Json::parse(packet.data()).contains("schema"), packets == 0);
  EXPECT_EQ(packets, 3);
}

TEST_F(TestdataPlugin, HealthAndMetricsAnswer) {
  auto stub = pluginv2::Diagnostics::NewStub(channel_);
  grpc::ClientContext context;
  pluginv2::CheckHealthResponse health;
  ASSERT_TRUE(stub->CheckHealth(&context, {}, &health).ok());
  EXPECT_EQ(health.status(), pluginv2::CheckHealthResponse::OK);
  EXPECT_TRUE(Json::parse(health.jsondetails()).is_object());
  grpc::ClientContext second;
  pluginv2::CollectMetricsResponse metrics;
  ASSERT_TRUE(stub->CollectMetrics(&second, {}, &metrics).ok());
  EXPECT_THAT(metrics.metrics().prometheus(), HasSubstr("# TYPE testdata_queries_total counter\n"));
}

}  // namespace
}  // namespace dpa
