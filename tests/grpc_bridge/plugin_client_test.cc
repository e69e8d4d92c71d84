// Goal: an exchange that a plugin answers gets that answer, and a clear error of the right kind whenever it cannot.
// Method: PluginClient on a real ring; plugins are a server of the gRPC library or a scripted HTTP/2 peer, on unix
// sockets; the exchange is a fake that keeps what it is given.

#include "grpc_bridge/plugin_client.h"

#include <gmock/gmock.h>
#include <grpc/grpc.h>
#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>
#include <stdlib.h>

#include <atomic>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "core/ring_uring.h"
#include "core/worker.h"
#include "grpc_bridge/proto/pluginv2.grpc.pb.h"
#include "grpc_bridge/proto/rpc_status.pb.h"
#include "tests/grpc_bridge/fake_exchange.h"
#include "tests/grpc_bridge/socket_peer.h"

namespace dpa {
namespace {

using testing::HasSubstr;

constexpr const char* kPluginId = "test-datasource";

// A plugin: every query's `scenario` says what comes back.
class TestPlugin final : public pluginv2::Data::Service, public pluginv2::Diagnostics::Service {
 public:
  explicit TestPlugin(const std::string& path, bool with_diagnostics = true) {
    grpc::ServerBuilder builder;
    builder.AddListeningPort(path.starts_with('/') ? "unix:" + path : path, grpc::InsecureServerCredentials(), &port);
    builder.SetMaxReceiveMessageSize(1 << 20);
    builder.RegisterService(static_cast<pluginv2::Data::Service*>(this));
    if (with_diagnostics) builder.RegisterService(static_cast<pluginv2::Diagnostics::Service*>(this));
    server_ = builder.BuildAndStart();
  }
  ~TestPlugin() override { Stop(); }
  void Stop() {
    stopping_ = true;
    server_->Shutdown(std::chrono::system_clock::now());
  }

  int port = 0;  // Of one that listens on TCP.
  std::atomic<int> cancelled_count{0};
  std::atomic<int> waiting_count{0};

 private:
  grpc::Status QueryData(grpc::ServerContext* context, const pluginv2::QueryDataRequest* request,
                         pluginv2::QueryDataResponse* response) override {
    const std::string& query = request->queries(0).json();
    if (query.find("\"wait\"") != std::string::npos) return Wait(context);
    if (query.find("\"error\"") != std::string::npos)
      return grpc::Status(grpc::StatusCode::UNKNOWN, "panic \"triggered\": ü\n");
    if (query.find("\"downstream\"") != std::string::npos) return DownstreamError();
    if (query.find("\"exhausted\"") != std::string::npos)
      return grpc::Status(grpc::StatusCode::RESOURCE_EXHAUSTED, "too much");
    if (query.find("\"deadline\"") != std::string::npos) return grpc::Status(grpc::StatusCode::DEADLINE_EXCEEDED, "");
    if (query.find("\"unavailable\"") != std::string::npos) return grpc::Status(grpc::StatusCode::UNAVAILABLE, "going");
    for (const auto& one : request->queries()) {
      pluginv2::DataResponse& data = (*response->mutable_responses())[one.refid()];
      data.set_format(pluginv2::JSON);
      data.set_status(200);
      if (query.find("\"large\"") != std::string::npos) {
        data.add_frames("{\"v\":\"" + std::string(8u << 20, 'x') + "\"}");
      } else if (query.find("\"headers\"") != std::string::npos) {
        std::string text;
        for (const auto& [name, value] : request->headers()) text += name + "=" + value + ";";
        for (const auto& [name, value] : context->client_metadata()) {
          if (name == "traceparent") text += "traceparent=" + std::string(value.data(), value.size());
        }
        data.add_frames("{\"headers\":\"" + text + "\"}");
      } else {
        data.add_frames("{\"of\":\"" + request->plugincontext().datasourceinstancesettings().name() + "\"}");
      }
    }
    return grpc::Status::OK;
  }

  grpc::Status Wait(grpc::ServerContext* context) {
    ++waiting_count;
    while (!context->IsCancelled() && !stopping_) std::this_thread::sleep_for(std::chrono::milliseconds(1));
    ++cancelled_count;
    return grpc::Status(grpc::StatusCode::CANCELLED, "");
  }

  static grpc::Status DownstreamError() {
    google::rpc::ErrorInfo info;
    (*info.mutable_metadata())["errorSource"] = "downstream";
    google::rpc::Status status;
    status.set_code(2);
    status.add_details()->PackFrom(info);
    return grpc::Status(grpc::StatusCode::UNKNOWN, "database is gone", status.SerializeAsString());
  }

  grpc::Status CheckHealth(grpc::ServerContext*, const pluginv2::CheckHealthRequest* request,
                           pluginv2::CheckHealthResponse* response) override {
    const bool well = request->plugincontext().datasourceinstancesettings().uid() == "main";
    response->set_status(well ? pluginv2::CheckHealthResponse::OK : pluginv2::CheckHealthResponse::ERROR);
    response->set_message(well ? "all \"well\"" : "no");
    if (well) response->set_jsondetails("{\"version\":3}");
    return grpc::Status::OK;
  }

  std::unique_ptr<grpc::Server> server_;
  std::atomic<bool> stopping_{false};
};

class PluginClientTest : public testing::Test {
 protected:
  // Keeps the gRPC library up: taking it down after every server sometimes waits ten seconds for one of its threads.
  static void SetUpTestSuite() { grpc_init(); }

  PluginClientTest() {
    std::string folder = testing::TempDir() + "dpa-plugin-client-XXXXXX";
    EXPECT_NE(mkdtemp(folder.data()), nullptr);
    folder_ = folder;
    path_ = folder_ + "/plugin.sock";
    target_.plugin_id = kPluginId;
    target_.service_name = "v1.test.example";
    Publish(PluginState::kRunning, 1);
  }

  static std::unique_ptr<UringRing> MakeRing() {
    UringOptions options;
    options.buffers.buffers_count = 64;
    auto ring = UringRing::Create(options);
    EXPECT_TRUE(ring) << ring.error();
    return std::move(*ring);
  }

  static std::shared_ptr<const PluginContexts> MakeContexts() {
    DataSource main;
    main.uid = "main";
    main.name = "Main";
    main.type = kPluginId;
    DataSource other = main;
    other.uid = "other";
    other.name = "Other";
    other.type = "another-datasource";
    DataSource ill = main;
    ill.uid = "ill/ü";
    ill.name = "Ill";
    auto set = std::make_shared<const DataSourceSet>(std::vector<DataSource>{main, other, ill}, nullptr);
    return std::make_shared<const PluginContexts>(set, PluginDirectory{}, PluginContextOptions{});
  }

  void Publish(PluginState state, uint64_t incarnation, std::string failure = "") {
    auto directory = std::make_shared<PluginDirectory>();
    PluginEntry entry;
    entry.id = kPluginId;
    entry.type = "datasource";
    entry.state = state;
    entry.address = address_.empty() ? "unix:" + path_ : address_;
    entry.incarnation = incarnation;
    entry.failure = std::move(failure);
    directory->plugins.push_back(entry);
    directory_.Publish(directory);
    if (client_) worker_.RunTurn(false);
  }

  void Start(PluginClientOptions options = {}) {
    client_ = std::make_unique<PluginClient>(worker_, directory_, contexts_, options);
  }

  static std::string Body(const std::string& scenario, const std::string& uid = "main") {
    return R"({"from":"now-1h","to":"now","queries":[{"refId":"A","datasource":{"type":"test-datasource","uid":")" +
           uid + R"("},"scenario":")" + scenario + R"("}]})";
  }
  std::unique_ptr<FakeExchange> Query(const std::string& scenario, const std::string& uid = "main") {
    return QueryBody(Body(scenario, uid), uid);
  }
  std::unique_ptr<FakeExchange> QueryBody(const std::string& body, std::string_view uid = "main",
                                          std::string_view space = "default", std::string method = "POST") {
    auto exchange = std::make_unique<FakeExchange>(worker_, target_, std::move(method), body);
    exchange->AddCapture("ns", space);
    exchange->AddCapture("uid", uid);
    return exchange;
  }

  void Serve(Exchange& exchange) { worker_.tasks().Spawn(client_->Serve(exchange)); }
  template <class Condition>
  void RunUntil(Condition condition) {
    const uint64_t give_up_ns = ring_->NowNs() + 20'000'000'000;
    // The periodic wake-up lets conditions outside this worker be seen.
    while (!condition()) {
      ASSERT_LT(ring_->NowNs(), give_up_ns) << "it did not happen";
      worker_.RunTurn(false);
    }
  }
  void RunAll() {
    RunUntil([this] { return worker_.tasks().running_count() == 0; });
  }
  void ServeAndRun(FakeExchange& exchange) {
    Serve(exchange);
    RunAll();
  }

  std::string Metrics() {
    MetricsPage page;
    client_->metrics().Collect(page);
    return page.Text();
  }

  static Task<void> DrainClient(PluginClient& client) { co_await client.Drain(); }
  void TearDown() override {
    RunAll();
    if (client_) {
      worker_.tasks().Spawn(DrainClient(*client_));
      RunAll();
      EXPECT_EQ(client_->connections_count(), 0u);
    }
    client_.reset();
    EXPECT_EQ(worker_.bytes().blocks_out(), 0);
    EXPECT_EQ(FramePool::alive_count(), 0);
    unlink(path_.c_str());
    rmdir(folder_.c_str());
  }

  std::string folder_;
  std::string path_;
  std::string address_;  // Instead of the path, if not empty.
  RouteTarget target_;
  std::unique_ptr<UringRing> ring_ = MakeRing();
  Worker worker_{*ring_, 0};
  SnapshotPublisher<PluginDirectory> directory_{std::make_shared<PluginDirectory>()};
  SnapshotPublisher<PluginContexts> contexts_{MakeContexts()};
  std::unique_ptr<PluginClient> client_;
};

TEST_F(PluginClientTest, QueryIsAnsweredWithThePluginsFrames) {
  TestPlugin plugin(path_);
  Start();
  auto exchange = Query("ok");
  ServeAndRun(*exchange);
  EXPECT_EQ(exchange->status, 200);
  EXPECT_EQ(exchange->answer, R"({"results":{"A":{"status":200,"frames":[{"of":"Main"}]}}})");
  const AccessRecord& record = exchange->record();
  EXPECT_EQ(record.plugin, kPluginId);
  EXPECT_EQ(record.service, "v1.test.example");
  EXPECT_EQ(record.route, "query");
  EXPECT_GT(record.upstream_ready_ns, 0u);
  EXPECT_GE(record.request_sent_ns, record.upstream_ready_ns);
  EXPECT_GE(record.response_head_ns, record.request_sent_ns);
}

TEST_F(PluginClientTest, ManyQueriesShareOneConnection) {
  TestPlugin plugin(path_);
  Start();
  std::vector<std::unique_ptr<FakeExchange>> exchanges;
  for (int i = 0; i < 256; ++i) {
    exchanges.push_back(Query("ok"));
    Serve(*exchanges.back());
  }
  RunAll();
  for (const auto& exchange : exchanges) EXPECT_EQ(exchange->status, 200) << exchange->answer;
  EXPECT_EQ(client_->connections_count(), 1u);
  EXPECT_THAT(Metrics(), HasSubstr("dpa_plugin_connects_total{plugin_id=\"test-datasource\",result=\"ok\"} 1\n"));
}

TEST_F(PluginClientTest, PluginsOnTcpAreCalledAsWell) {
  TestPlugin plugin("127.0.0.1:0");
  address_ = "127.0.0.1:" + std::to_string(plugin.port);
  Start();
  Publish(PluginState::kRunning, 2);
  auto small = Query("ok");
  auto large = Query("large");
  Serve(*small);
  Serve(*large);
  RunAll();
  EXPECT_EQ(small->status, 200) << small->answer;
  EXPECT_GT(large->answer.size(), 8u << 20);
}

TEST_F(PluginClientTest, LargeRepliesArriveWhole) {
  TestPlugin plugin(path_);
  Start();
  auto exchange = Query("large");
  ServeAndRun(*exchange);
  EXPECT_EQ(exchange->status, 200);
  EXPECT_GT(exchange->answer.size(), 8u << 20);
  EXPECT_EQ(exchange->answer.substr(exchange->answer.size() - 7), "x\"}]}}}");
}

TEST_F(PluginClientTest, DashboardHeadersAndTraceContextReachThePlugin) {
  TestPlugin plugin(path_);
  Start();
  auto exchange = Query("headers");
  exchange->AddField("x-panel-id", "7");
  exchange->AddField("Authorization", "Bearer secret");
  exchange->request_ids.traceparent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
  exchange->request_ids.request_id = "one-request";
  ServeAndRun(*exchange);
  EXPECT_THAT(exchange->answer, HasSubstr("http_X-Panel-Id=7"));
  EXPECT_THAT(exchange->answer, HasSubstr("traceparent=00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"));
  EXPECT_THAT(exchange->answer, HasSubstr("http_X-Request-Id=one-request;"));
  EXPECT_THAT(exchange->answer, testing::Not(HasSubstr("secret")));
}

TEST_F(PluginClientTest, RequestsThatCannotBeQueriesAreRefusedInOrder) {
  TestPlugin plugin(path_);
  Start();
  auto refused = [&](std::unique_ptr<FakeExchange> exchange, Reason reason) {
    ServeAndRun(*exchange);
    ASSERT_TRUE(exchange->reason) << exchange->answer;
    EXPECT_EQ(*exchange->reason, reason) << exchange->answer;
    EXPECT_FALSE(exchange->answer.empty());
  };
  refused(QueryBody("", "main", "default", "GET"), Reason::kMethodNotAllowed);
  refused(QueryBody(""), Reason::kBadJson);
  refused(QueryBody("{\"queries\":"), Reason::kBadJson);
  refused(QueryBody("{\"queries\":7}"), Reason::kBadQuery);
  refused(QueryBody(Body("ok", "else"), "main"), Reason::kDatasourceMismatch);
  // The body is looked at before the path's names are.
  refused(QueryBody("{", "nobody", "nowhere"), Reason::kBadJson);
  refused(QueryBody(Body("ok", "nobody"), "nobody"), Reason::kDatasourceNotFound);
  refused(QueryBody(Body("ok", "main"), "main", "nowhere"), Reason::kNamespaceNotFound);
  refused(QueryBody(Body("ok", "main"), "main", "org-2"), Reason::kDatasourceNotFound);
  // A data source of another plugin: its secrets are not handed out.
  refused(QueryBody(Body("ok", "other"), "other"), Reason::kDatasourceNotFound);
}

TEST_F(PluginClientTest, MethodsOtherThanPostAreToldWhatIsAllowed) {
  Start();
  auto exchange = QueryBody("", "main", "default", "GET");
  ServeAndRun(*exchange);
  EXPECT_EQ(exchange->status, 405);
  EXPECT_EQ(exchange->allow, "POST");
}

TEST_F(PluginClientTest, UidsArePercentDecoded) {
  TestPlugin plugin(path_);
  Start();
  auto exchange = QueryBody(Body("ok", "ill/ü"), "ill%2F%C3%BC");
  ServeAndRun(*exchange);
  EXPECT_EQ(exchange->status, 200) << exchange->answer;
}

TEST_F(PluginClientTest, BodiesThatCannotBeReadAreRefused) {
  Start(PluginClientOptions{.request_bytes_max = 100});
  auto large = QueryBody(std::string(101, ' '));
  ServeAndRun(*large);
  EXPECT_EQ(large->reason, Reason::kBodyTooLarge);
  EXPECT_THAT(large->answer, HasSubstr("100 bytes"));
  auto stalled = QueryBody("");
  stalled->body_error = Error{ErrorCode::kTimeout, ErrorSource::kDownstream};
  ServeAndRun(*stalled);
  EXPECT_EQ(stalled->reason, Reason::kBodyTimeout);
  auto left = QueryBody("");
  left->body_error = Error{ErrorCode::kReset, ErrorSource::kDownstream};
  ServeAndRun(*left);
  EXPECT_EQ(left->reason, Reason::kClientClosed);
}

TEST_F(PluginClientTest, StatusOfAFailedCallBecomesItsReason) {
  TestPlugin plugin(path_);
  Start();
  const std::vector<std::tuple<const char*, Reason, const char*>> cases = {
      {"error", Reason::kPluginError, "UNKNOWN: panic \"triggered\": ü\n"},
      {"downstream", Reason::kPluginError, "database is gone"},
      {"exhausted", Reason::kPluginReplyTooLarge, "too much"},
      {"deadline", Reason::kPluginTimeout, "DEADLINE_EXCEEDED"},
      {"unavailable", Reason::kPluginDied, "going"}};
  for (const auto& [scenario, reason, words] : cases) {
    auto exchange = Query(scenario);
    ServeAndRun(*exchange);
    EXPECT_EQ(exchange->reason, reason) << scenario;
    EXPECT_THAT(exchange->answer, HasSubstr(words));
    EXPECT_EQ(exchange->record().ended_by, ErrorSource::kPlugin);
  }
  const std::string metrics = Metrics();
  EXPECT_THAT(metrics, HasSubstr("grafana_plugin_request_total{plugin_id=\"test-datasource\",endpoint=\"queryData\","
                                 "status=\"error\",target=\"local\",status_source=\"downstream\"} 1\n"));
}

TEST_F(PluginClientTest, RequestLargerThanThePluginTakesIsTooLarge) {
  TestPlugin plugin(path_);
  Start();
  auto exchange = Query(std::string(2u << 20, 'x'));
  ServeAndRun(*exchange);
  EXPECT_EQ(exchange->reason, Reason::kBodyTooLarge) << exchange->answer;
}

TEST_F(PluginClientTest, CallThatTakesTooLongTimesOutAndIsCancelled) {
  TestPlugin plugin(path_);
  Start(PluginClientOptions{.call_timeout_ms = 30});
  auto exchange = Query("wait");
  ServeAndRun(*exchange);
  // Whoever is first, our deadline or the plugin's own (it is told), the client is told the same.
  EXPECT_EQ(exchange->reason, Reason::kPluginTimeout) << exchange->answer;
  RunUntil([&] { return plugin.cancelled_count == 1; });
}

TEST_F(PluginClientTest, ClientThatLeavesCancelsItsCall) {
  TestPlugin plugin(path_);
  Start();
  auto exchange = Query("wait");
  Serve(*exchange);
  RunUntil([&] { return plugin.waiting_count == 1; });
  exchange->LeaveAsClient();
  RunAll();
  EXPECT_EQ(exchange->reason, Reason::kClientClosed);
  RunUntil([&] { return plugin.cancelled_count == 1; });
  EXPECT_THAT(Metrics(), HasSubstr("status=\"cancelled\",target=\"local\",status_source=\"plugin\"} 1\n"));
}

TEST_F(PluginClientTest, PluginThatIsNotThereIsUnavailable) {
  Start();
  auto nobody = Query("ok");
  ServeAndRun(*nobody);
  EXPECT_EQ(nobody->reason, Reason::kPluginUnavailable);
  EXPECT_THAT(nobody->answer, HasSubstr("cannot be reached"));
  Publish(PluginState::kStarting, 2);
  auto starting = Query("ok");
  ServeAndRun(*starting);
  EXPECT_EQ(starting->reason, Reason::kPluginUnavailable);
  EXPECT_THAT(starting->answer, HasSubstr("is starting"));
  Publish(PluginState::kBackoff, 2, "exited with code 7");
  auto failed = Query("ok");
  ServeAndRun(*failed);
  EXPECT_THAT(failed->answer, HasSubstr("exited with code 7"));
  directory_.Publish(std::make_shared<PluginDirectory>());
  worker_.RunTurn(false);
  auto unknown = Query("ok");
  ServeAndRun(*unknown);
  EXPECT_EQ(unknown->reason, Reason::kPluginNotFound);
  // It comes (back).
  TestPlugin plugin(path_);
  Publish(PluginState::kRunning, 3);
  auto back = Query("ok");
  ServeAndRun(*back);
  EXPECT_EQ(back->status, 200) << back->answer;
}

TEST_F(PluginClientTest, TooManyCallsAreShed) {
  TestPlugin plugin(path_);
  PluginClientOptions options;
  options.channel.calls_max = 1;
  Start(options);
  auto waiting = Query("wait");
  Serve(*waiting);
  RunUntil([&] { return plugin.waiting_count == 1; });
  auto shed = Query("ok");
  Serve(*shed);
  EXPECT_EQ(shed->reason, Reason::kPluginOverloaded);
  waiting->LeaveAsClient();
  RunAll();
}

TEST_F(PluginClientTest, HealthIsToldInGrafanasForm) {
  target_.type = ServiceType::kHealth;
  TestPlugin plugin(path_);
  Start();
  auto well = QueryBody("", "main", "default", "GET");
  ServeAndRun(*well);
  EXPECT_EQ(well->status, 200);
  EXPECT_EQ(well->answer, R"({"status":"OK","message":"all \"well\"","details":{"version":3}})");
  auto ill = QueryBody("", "ill%2F%C3%BC", "default", "GET");
  ServeAndRun(*ill);
  EXPECT_EQ(ill->status, 400);
  EXPECT_EQ(ill->answer, R"({"status":"ERROR","message":"no"})");
  auto posted = QueryBody("", "main");
  ServeAndRun(*posted);
  EXPECT_EQ(posted->status, 405);
}

TEST_F(PluginClientTest, HealthThatIsNotImplementedIsUnknown) {
  target_.type = ServiceType::kHealth;
  TestPlugin plugin(path_, /*with_diagnostics=*/false);
  Start();
  auto exchange = QueryBody("", "main", "default", "GET");
  ServeAndRun(*exchange);
  EXPECT_EQ(exchange->status, 400);
  EXPECT_EQ(exchange->answer, R"({"status":"UNKNOWN","message":"Health check not implemented"})");
}

// --- Plugins that misbehave ---

std::string OkReply() {
  pluginv2::QueryDataResponse response;
  pluginv2::DataResponse& data = (*response.mutable_responses())["A"];
  data.set_format(pluginv2::JSON);
  data.set_status(200);
  data.add_frames("{}");
  return GrpcMessage(response.SerializeAsString());
}
constexpr const char* kOkAnswer = R"({"results":{"A":{"status":200,"frames":[{}]}}})";

void AnswerAll(SocketPeer::Connection& connection) {
  for (; connection.answered < connection.h2.requests().size(); ++connection.answered) {
    if (!connection.h2.requests()[connection.answered].complete) return;
    connection.h2.Answer(connection.answered, OkReply());
  }
}

TEST_F(PluginClientTest, PluginThatDiesDuringCallsFailsThemAllAtOnce) {
  SocketPeer peer(path_, {}, [](SocketPeer::Connection& connection) {
    if (connection.h2.requests().size() == 3) connection.close = true;
  });
  Start();
  std::vector<std::unique_ptr<FakeExchange>> exchanges;
  for (int i = 0; i < 3; ++i) {
    exchanges.push_back(Query("ok"));
    Serve(*exchanges.back());
  }
  RunAll();
  for (const auto& exchange : exchanges) EXPECT_EQ(exchange->reason, Reason::kPluginDied) << exchange->answer;
  RunUntil([&] { return client_->connections_count() == 0; });
}

TEST_F(PluginClientTest, ProcessThatHasGoneFailsItsCallsEvenIfTheSocketStaysOpen) {
  // Before the plugin has the request, the call would be one that it has never seen, which is another answer.
  std::atomic<bool> request_seen{false};
  SocketPeer peer(path_, {}, [&request_seen](SocketPeer::Connection& connection) {
    if (!connection.h2.requests().empty() && connection.h2.requests().front().complete) request_seen = true;
  });
  Start();
  auto exchange = Query("ok");
  Serve(*exchange);
  RunUntil([&] { return exchange->waits_for_client() && request_seen.load(); });
  Publish(PluginState::kBackoff, 1, "killed by signal 9");
  RunAll();
  EXPECT_EQ(exchange->reason, Reason::kPluginDied);
  RunUntil([&] { return client_->connections_count() == 0; });
}

TEST_F(PluginClientTest, NewIncarnationIsConnectedToAnew) {
  SocketPeer peer(path_, {}, AnswerAll);
  Start();
  auto first = Query("ok");
  ServeAndRun(*first);
  Publish(PluginState::kRunning, 2);
  auto second = Query("ok");
  ServeAndRun(*second);
  EXPECT_EQ(first->answer, kOkAnswer);
  EXPECT_EQ(second->answer, kOkAnswer);
  EXPECT_EQ(peer.accepted_count(), 2);
}

TEST_F(PluginClientTest, GoawayMovesCallsToANewConnectionWithoutLosingOne) {
  // The first connection answers one call and says goodbye while two more are on their way; they were not looked at.
  SocketPeer peer(path_, {}, [](SocketPeer::Connection& connection) {
    if (connection.number > 0) return AnswerAll(connection);
    if (connection.h2.requests().size() != 3) return;
    connection.h2.Answer(0, OkReply());
    connection.h2.Goaway(1);
  });
  Start();
  std::vector<std::unique_ptr<FakeExchange>> exchanges;
  for (int i = 0; i < 3; ++i) {
    exchanges.push_back(Query("ok"));
    Serve(*exchanges.back());
  }
  RunAll();
  for (const auto& exchange : exchanges) EXPECT_EQ(exchange->answer, kOkAnswer);
  EXPECT_EQ(peer.accepted_count(), 2);
  EXPECT_EQ(exchanges[2]->record().retries_count, 1u);
  EXPECT_THAT(Metrics(), HasSubstr("dpa_plugin_call_retries_total{plugin_id=\"test-datasource\"} 2\n"));
}

TEST_F(PluginClientTest, RefusedStreamsAreTriedAgainButNotForEver) {
  SocketPeer once(path_, {}, [](SocketPeer::Connection& connection) {
    for (; connection.answered < connection.h2.requests().size(); ++connection.answered) {
      if (connection.answered == 0) {
        connection.h2.Reset(0, NGHTTP2_REFUSED_STREAM);
      } else {
        connection.h2.Answer(connection.answered, OkReply());
      }
    }
  });
  Start();
  auto exchange = Query("ok");
  ServeAndRun(*exchange);
  EXPECT_EQ(exchange->answer, kOkAnswer);
}

TEST_F(PluginClientTest, PluginThatRefusesEveryStreamIsUnavailable) {
  SocketPeer peer(path_, {}, [](SocketPeer::Connection& connection) {
    for (; connection.answered < connection.h2.requests().size(); ++connection.answered) {
      connection.h2.Reset(connection.answered, NGHTTP2_REFUSED_STREAM);
    }
  });
  Start();
  auto exchange = Query("ok");
  ServeAndRun(*exchange);
  EXPECT_EQ(exchange->reason, Reason::kPluginUnavailable);
}

TEST_F(PluginClientTest, BytesThatAreNotHttp2AreABadReply) {
  SocketPeer peer(path_, {}, [](SocketPeer::Connection& connection) {
    if (!connection.received.empty()) connection.raw_output = "HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n";
  });
  Start();
  auto exchange = Query("ok");
  ServeAndRun(*exchange);
  EXPECT_EQ(exchange->reason, Reason::kPluginBadReply) << exchange->answer;
}

TEST_F(PluginClientTest, ReplyThatIsNoMessageIsABadReply) {
  SocketPeer peer(path_, {}, [](SocketPeer::Connection& connection) {
    for (; connection.answered < connection.h2.requests().size(); ++connection.answered) {
      connection.h2.Answer(connection.answered, connection.answered == 0 ? GrpcMessage("\xFF\xFF\xFF") : OkReply());
    }
  });
  Start();
  auto bad = Query("ok");
  ServeAndRun(*bad);
  EXPECT_EQ(bad->reason, Reason::kPluginBadReply);
  auto good = Query("ok");
  ServeAndRun(*good);
  EXPECT_EQ(good->answer, kOkAnswer);
  EXPECT_EQ(peer.accepted_count(), 1);
}

TEST_F(PluginClientTest, ReplyBeyondTheLimitIsTooLarge) {
  TestPlugin plugin(path_);
  PluginClientOptions options;
  options.call.message_bytes_max = 1u << 20;
  Start(options);
  auto exchange = Query("large");
  ServeAndRun(*exchange);
  EXPECT_EQ(exchange->reason, Reason::kPluginReplyTooLarge);
  auto next = Query("ok");
  ServeAndRun(*next);
  EXPECT_EQ(next->status, 200);
}

TEST_F(PluginClientTest, PeerThatAllowsOneStreamAnswersAllInTurn) {
  SocketPeer peer(path_, {{NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS, 1}}, AnswerAll);
  Start();
  std::vector<std::unique_ptr<FakeExchange>> exchanges;
  for (int i = 0; i < 20; ++i) {
    exchanges.push_back(Query("ok"));
    Serve(*exchanges.back());
  }
  RunAll();
  for (const auto& exchange : exchanges) EXPECT_EQ(exchange->answer, kOkAnswer);
}

TEST_F(PluginClientTest, CallsThatWaitTooLongForAStreamAreShed) {
  SocketPeer peer(path_, {}, [](SocketPeer::Connection&) {});
  PluginClientOptions options;
  options.channel.connection.h2.streams_max = 1;
  options.channel.connection.h2.waiting_timeout_ms = 20;
  Start(options);
  auto open = Query("ok");
  auto waiting = Query("ok");
  Serve(*open);
  Serve(*waiting);
  RunUntil([&] { return waiting->status != 0; });
  EXPECT_EQ(waiting->reason, Reason::kPluginOverloaded);
  EXPECT_EQ(open->status, 0);
  open->LeaveAsClient();
  RunAll();
}

}  // namespace
}  // namespace dpa
