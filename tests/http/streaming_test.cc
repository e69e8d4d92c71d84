// Bodies that wait to be invited, clients that end their sending side, answers that leave together.

#include <gmock/gmock.h>

#include "tests/http/proxy_rig.h"

namespace dpa::test {
namespace {

using ::testing::EndsWith;
using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::StartsWith;

constexpr std::string_view kGet = "GET /a HTTP/1.1\r\nHost: h\r\n\r\n";
constexpr std::string_view kOk = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
constexpr std::string_view kExpecting =
    "POST /e HTTP/1.1\r\nHost: h\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\n";
constexpr std::string_view kContinue = "HTTP/1.1 100 Continue\r\n\r\n";
constexpr uint64_t kLongMs = 60'000;

// --- Expect ---

TEST(Expect, IsTheDelegatesToAnswer) {
  Upstream upstream;
  RigOptions options;
  options.proxy.forward.expect_continue_timeout_ms = kLongMs;
  Rig rig({upstream.url()}, options);
  Peer client = rig.Connect();
  Peer server;
  for (int i = 0; i < 3; ++i) {
    client.Send(kExpecting);
    if (i == 0) server = upstream.Accept();
    EXPECT_THAT(server.Head(), HasSubstr("Expect: 100-continue\r\n"));
    EXPECT_TRUE(client.SilentFor(20));
    server.Send("HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n");
    EXPECT_THAT(client.Head(), StartsWith("HTTP/1.1 103 "));
    server.Send(kContinue);
    EXPECT_EQ(client.Head(), kContinue);
    client.Send("body");
    EXPECT_EQ(server.Exactly(4), "body");
    server.Send(kOk);
    EXPECT_THAT(client.Message(), StartsWith("HTTP/1.1 200 OK"));
  }
  EXPECT_EQ(rig.metrics().upstream_reuses.value(), 2u);
}

TEST(Expect, AFinalAnswerLeavesTheBodyUnaskedForAndEndsTheConnectionsInOrder) {
  Upstream upstream;
  RigOptions options;
  options.proxy.forward.expect_continue_timeout_ms = kLongMs;
  Rig rig({upstream.url()}, options);
  Peer client = rig.Connect();
  client.Send(kExpecting);
  Peer server = upstream.Accept();
  server.Head();
  server.Send("HTTP/1.1 403 Forbidden\r\nContent-Length: 3\r\n\r\nno!");
  const std::string answer = client.Message();
  EXPECT_THAT(answer, StartsWith("HTTP/1.1 403 "));
  EXPECT_THAT(answer, HasSubstr("Connection: close\r\n"));
  EXPECT_THAT(answer, EndsWith("no!"));
  EXPECT_EQ(client.UntilEnd(), "");
  EXPECT_FALSE(client.was_reset());
  EXPECT_EQ(server.UntilEnd(), "") << "no byte of a body";
  EXPECT_EQ(rig.log.At(0).reason, Reason::kOk);
}

TEST(Expect, ASilentDelegateIsWaitedForOnlyForAWhile) {
  Upstream upstream;
  for (const uint64_t timeout_ms : {0, 50}) {
    RigOptions options;
    options.proxy.forward.expect_continue_timeout_ms = timeout_ms;
    Rig rig({upstream.url()}, options);
    Peer client = rig.Connect();
    client.Send(kExpecting);
    EXPECT_EQ(client.Head(), kContinue);
    client.Send("body");
    Peer server = upstream.Accept();
    server.Head();
    EXPECT_EQ(server.Exactly(4), "body");
    // Its own word comes late, and is nothing that the client still waits for.
    server.Send(std::string(kContinue) + std::string(kOk));
    EXPECT_THAT(client.Message(), StartsWith("HTTP/1.1 200 OK"));
    client.Send(kGet);
    EXPECT_THAT(server.Head(), StartsWith("GET /a "));
    server.Send(kOk);
    EXPECT_THAT(client.Message(), StartsWith("HTTP/1.1 200 OK"));
  }
}

TEST(Expect, ABodyUnderWayIsRelayedAsItComes) {
  Upstream upstream;
  RigOptions options;
  options.proxy.forward.expect_continue_timeout_ms = kLongMs;
  Rig rig({upstream.url()}, options);
  Peer client = rig.Connect();
  client.Send(std::string(kExpecting) + "bo");
  Peer server = upstream.Accept();
  server.Head();
  EXPECT_EQ(server.Exactly(2), "bo");
  client.Send("dy");
  EXPECT_EQ(server.Exactly(2), "dy");
  server.Send(std::string(kContinue) + std::string(kOk));
  EXPECT_THAT(client.Message(), StartsWith("HTTP/1.1 200 OK"));
}

// --- Half-closed clients ---

Rig MakeRig(const Upstream& upstream, uint64_t half_close_ms, const std::string& listen = "127.0.0.1:0") {
  RigOptions options;
  options.server.downstream.half_close_timeout_ms = half_close_ms;
  options.listen = listen;
  return Rig({upstream.url()}, options);
}

TEST(HalfClose, AClientThatHasSaidAllGetsItsAnswers) {
  Upstream upstream;
  Rig rig = MakeRig(upstream, kLongMs);
  Peer client = rig.Connect();
  client.Send("GET /1 HTTP/1.1\r\nHost: h\r\n\r\nGET /2 HTTP/1.1\r\nHost: h\r\n\r\nGET /3 HTTP/1.1\r\nHost: h\r\n\r\n");
  shutdown(client.fd(), SHUT_WR);
  Peer server = upstream.Accept();
  for (const std::string_view path : {"/1", "/2", "/3"}) {
    EXPECT_THAT(server.Head(), StartsWith("GET " + std::string(path) + " "));
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
    server.Send(kOk);
    EXPECT_THAT(client.Message(), EndsWith("ok"));
  }
  EXPECT_EQ(client.UntilEnd(), "");
  EXPECT_FALSE(client.was_reset());
}

TEST(HalfClose, OneThatTakesNothingForAWhileHasLeft) {
  Upstream upstream;
  Rig rig = MakeRig(upstream, 100);
  Peer client = rig.Connect();
  client.Send(kGet);
  Peer server = upstream.Accept();
  server.Head();
  shutdown(client.fd(), SHUT_WR);
  EXPECT_EQ(server.UntilEnd(), "");
  const RecordedLog::Entry record = rig.log.At(0);
  EXPECT_EQ(record.status, 499);
  EXPECT_EQ(record.reason, Reason::kClientClosed);
}

TEST(HalfClose, OneThatTakesItsAnswerIsServedToTheEnd) {
  Upstream upstream;
  Rig rig = MakeRig(upstream, 1000);
  Peer client = rig.Connect();
  client.Send(kGet);
  shutdown(client.fd(), SHUT_WR);
  Peer server = upstream.Accept();
  server.Head();
  server.Send("HTTP/1.1 200 OK\r\nContent-Length: 15\r\n\r\n");
  EXPECT_THAT(client.Head(), StartsWith("HTTP/1.1 200 OK"));
  for (int i = 0; i < 15; ++i) {
    std::this_thread::sleep_for(std::chrono::milliseconds(100));
    server.Send("x");
    EXPECT_EQ(client.Exactly(1), "x");
  }
  EXPECT_EQ(client.UntilEnd(), "");
  EXPECT_EQ(rig.log.At(0).reason, Reason::kOk);
}

TEST(HalfClose, WhereTheKernelTellsAClientHasLeftAtOnce) {
  Upstream upstream;
  {
    Rig rig = MakeRig(upstream, kLongMs);
    Peer client = rig.Connect();
    client.Send(kGet);
    Peer server = upstream.Accept();
    server.Head();
    client.Reset();
    EXPECT_EQ(server.UntilEnd(), "");
    EXPECT_EQ(rig.log.At(0).reason, Reason::kClientClosed);
  }
  Rig rig = MakeRig(upstream, kLongMs, "unix:/tmp/dpa-half-" + std::to_string(getpid()) + ".sock");
  Peer client = rig.Connect();
  client.Send(kGet);
  Peer server = upstream.Accept();
  server.Head();
  client.Close();
  EXPECT_EQ(server.UntilEnd(), "");
  EXPECT_EQ(rig.log.At(0).reason, Reason::kClientClosed);
  // A unix client that only ends its sending side has not left.
  client = rig.Connect();
  client.Send(kGet);
  shutdown(client.fd(), SHUT_WR);
  server = upstream.Accept();
  server.Head();
  std::this_thread::sleep_for(std::chrono::milliseconds(20));
  server.Send(kOk);
  EXPECT_THAT(client.Message(), EndsWith("ok"));
}

TEST(HalfClose, InTheMiddleOfABodyTheRequestIsNeverWhole) {
  Upstream upstream;
  Rig rig = MakeRig(upstream, kLongMs);
  const std::string_view requests[] = {
      "POST /u HTTP/1.1\r\nHost: h\r\nContent-Length: 10\r\n\r\nhalf",
      "POST /u HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n",
  };
  size_t index = 0;
  for (const std::string_view request : requests) {
    Peer client = rig.Connect();
    client.Send(request);
    Peer server = upstream.Accept();
    server.Head();
    shutdown(client.fd(), SHUT_WR);
    const std::string body = server.UntilEnd();
    EXPECT_THAT(body, Not(HasSubstr("\r\n0\r\n\r\n")));
    EXPECT_LT(body.size(), 10u);
    EXPECT_EQ(rig.log.At(index++).reason, Reason::kClientClosed);
  }
}

// --- Answers that leave together ---

// Answers at once, with the request's path.
class Echo final : public ExchangeHandler {
 public:
  Task<void> Handle(Exchange& exchange) override {
    const std::string_view path = exchange.request().path;
    std::array<iovec, 1> body = {iovec{const_cast<char*>(path.data()), path.size()}};
    const std::span<iovec> pieces = body;
    const Response response;
    static_cast<void>(co_await exchange.Respond(response, pieces));
  }
};

std::string Pipeline(int count) {
  std::string requests;
  for (int i = 0; i < count; ++i) requests += "GET /" + std::to_string(i) + " HTTP/1.1\r\nHost: h\r\n\r\n";
  return requests;
}

TEST(Pipelining, AnswersThatAreReadyTogetherLeaveInOneSend) {
  Echo echo;
  Rig rig({}, {}, nullptr, &echo);
  Peer client = rig.Connect();
  client.Send(Pipeline(64));
  for (int i = 0; i < 64; ++i) EXPECT_THAT(client.Message(), EndsWith("\r\n\r\n/" + std::to_string(i)));
  client.Close();
  EXPECT_EQ(rig.log.At(63).target, "/63");
  rig.Drain(0);
  EXPECT_EQ(rig.metrics().sends.value(), 1u) << "64 requests came in one piece";
}

TEST(Pipelining, ManyMoreAnswersThanOneSendTakesStayInOrderForASlowReader) {
  Echo echo;
  Rig rig({}, {}, nullptr, &echo);
  Peer client = rig.Connect();
  constexpr int kCount = 40'000;
  std::thread sender([&] { EXPECT_TRUE(client.Send(Pipeline(kCount))); });
  std::this_thread::sleep_for(std::chrono::milliseconds(300));
  for (int i = 0; i < kCount; ++i) {
    const std::string answer = client.Message();
    ASSERT_THAT(answer, EndsWith("\r\n\r\n/" + std::to_string(i)));
  }
  sender.join();
  client.Close();
  rig.Drain(0);
  EXPECT_LT(rig.metrics().sends.value(), uint64_t{kCount} / 8);
}

TEST(Pipelining, TheLastAnswersReachAClientThatEndsItsStreamBehindItsRequests) {
  Echo echo;
  Rig rig({}, {}, nullptr, &echo);
  Peer client = rig.Connect();
  client.Send(Pipeline(20) + "GET /cut HT");
  shutdown(client.fd(), SHUT_WR);
  for (int i = 0; i < 20; ++i) EXPECT_THAT(client.Message(), EndsWith("\r\n\r\n/" + std::to_string(i)));
  EXPECT_EQ(client.UntilEnd(), "");
}

}  // namespace
}  // namespace dpa::test
