// Limits towards clients: what is over one is answered with its own reason, recorded, and costs nobody else anything.

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

RigOptions BodyLimit(uint64_t bytes_max) {
  RigOptions options;
  options.proxy.request_body_bytes_max = bytes_max;
  return options;
}

TEST(RequestBodyLimit, RefusesByContentLengthBeforeAByteIsReadOrSentOn) {
  Upstream upstream;
  Rig rig({upstream.url()}, BodyLimit(10));
  Peer client = rig.Connect();
  client.Send("POST /a HTTP/1.1\r\nHost: h\r\nContent-Length: 11\r\nExpect: 100-continue\r\n\r\n");
  const std::string answer = client.UntilEnd();
  EXPECT_THAT(answer, StartsWith("HTTP/1.1 413 "));
  EXPECT_THAT(answer, HasSubstr("\"body_too_large\""));
  EXPECT_THAT(answer, HasSubstr("Connection: close\r\n"));
  EXPECT_TRUE(upstream.NobodyConnectsFor(20));
  EXPECT_EQ(rig.log.At(0).reason, Reason::kBodyTooLarge);
}

TEST(RequestBodyLimit, LetsABodyOfThatLengthPassInEveryFraming) {
  Upstream upstream;
  Rig rig({upstream.url()}, BodyLimit(10));
  Peer client = rig.Connect();
  client.Send("POST /a HTTP/1.1\r\nHost: h\r\nContent-Length: 10\r\n\r\n0123456789");
  Peer server = upstream.Accept();
  EXPECT_THAT(server.Until("0123456789"), EndsWith("0123456789"));
  server.Send(kOk);
  EXPECT_THAT(client.Message(), StartsWith("HTTP/1.1 200 "));
  client.Send("POST /a HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n01234\r\n5\r\n56789\r\n0\r\n\r\n");
  EXPECT_THAT(server.Until("\r\n0\r\n\r\n"), EndsWith("0\r\n\r\n"));
  server.Send(kOk);
  EXPECT_THAT(client.Message(), StartsWith("HTTP/1.1 200 "));
}

TEST(RequestBodyLimit, EndsAChunkedBodyWhereItPassesTheLimit) {
  // In one piece with the head, and later.
  for (const bool at_once : {true, false}) {
    Upstream upstream;
    Rig rig({upstream.url()}, BodyLimit(10));
    Peer client = rig.Connect();
    const std::string head = "POST /a HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n";
    client.Send(at_once ? head + "b\r\n01234567890\r\n0\r\n\r\n" : head + "9\r\n012345678\r\n");
    Peer server = upstream.Accept();
    if (!at_once) {
      server.Until("012345678\r\n");
      client.Send("2\r\n9a\r\n");
    }
    const std::string answer = client.UntilEnd();
    EXPECT_THAT(answer, StartsWith("HTTP/1.1 413 "));
    EXPECT_THAT(answer, HasSubstr("Connection: close\r\n"));
    EXPECT_THAT(server.UntilEnd(), Not(HasSubstr("\r\n0\r\n\r\n"))) << "the delegate must not take it for whole";
    EXPECT_EQ(rig.log.At(0).reason, Reason::kBodyTooLarge);
  }
}

TEST(RequestBodyRate, CutsOffABodyThatTrickles) {
  // Each byte comes well within the body timeout; together they are too slow.
  RigOptions options;
  options.server.downstream.body_timeout_ms = 60'000;
  options.server.downstream.body_rate_min = 1000;
  options.server.downstream.body_grace_ms = 200;
  Upstream upstream;
  Rig rig({upstream.url()}, options);
  Peer client = rig.Connect();
  client.Send("POST /a HTTP/1.1\r\nHost: h\r\nContent-Length: 100000\r\n\r\n");
  Peer server = upstream.Accept();
  std::thread trickle([&] {
    for (int i = 0; i < kPatienceMs / 20 && client.Send("x"); ++i) {
      std::this_thread::sleep_for(std::chrono::milliseconds(20));
      pollfd answered{client.fd(), POLLIN, 0};
      if (poll(&answered, 1, 0) == 1) break;
    }
  });
  trickle.join();
  EXPECT_THAT(client.UntilEnd(), StartsWith("HTTP/1.1 408 "));
  EXPECT_EQ(rig.log.At(0).reason, Reason::kBodyTimeout);
}

TEST(RequestBodyRate, DoesNotCountTheTimeInWhichTheDelegateIsSlow) {
  RigOptions options;
  options.server.downstream.body_rate_min = 1 << 20;
  options.server.downstream.body_grace_ms = 300;
  Upstream upstream;
  Rig rig({upstream.url()}, options);
  Peer client = rig.Connect();
  const std::string body(8 << 20, 'x');  // More than sockets and buffers hold.
  std::thread sender([&] {
    client.Send("POST /a HTTP/1.1\r\nHost: h\r\nContent-Length: " + std::to_string(body.size()) + "\r\n\r\n" + body);
  });
  Peer server = upstream.Accept();
  server.Head();
  std::this_thread::sleep_for(std::chrono::milliseconds(900));  // Long past the grace, without reading.
  EXPECT_EQ(server.Exactly(body.size()).size(), body.size());
  sender.join();
  server.Send(kOk);
  EXPECT_THAT(client.Message(), StartsWith("HTTP/1.1 200 "));
}

TEST(RequestsPerConnection, TheLastIsToldSo) {
  RigOptions options;
  options.server.downstream.exchanges_max = 2;
  Rig rig({}, options);
  Peer client = rig.Connect();
  client.Send(kGet);
  EXPECT_THAT(client.Message(), Not(HasSubstr("Connection: close")));
  client.Send(kGet);
  EXPECT_THAT(client.UntilEnd(), HasSubstr("Connection: close\r\n"));
}

TEST(RequestsInFlight, BeyondTheLimitAreToldAtOnceAndKeepTheirConnection) {
  RigOptions options;
  options.server.downstream.in_flight_max = 1;
  Upstream upstream;
  Rig rig({upstream.url()}, options);
  Peer first = rig.Connect();
  first.Send(kGet);
  Peer server = upstream.Accept();
  server.Head();
  Peer second = rig.Connect();
  second.Send(kGet);
  const std::string answer = second.Message();
  EXPECT_THAT(answer, StartsWith("HTTP/1.1 503 "));
  EXPECT_THAT(answer, HasSubstr("\"overloaded\""));
  EXPECT_THAT(answer, HasSubstr("Retry-After: 1\r\n"));
  server.Send(kOk);
  EXPECT_THAT(first.Message(), EndsWith("ok"));
  second.Send(kGet);
  server.Head();
  server.Send(kOk);
  EXPECT_THAT(second.Message(), EndsWith("ok"));
}

TEST(ConnectionLimit, ARefusalIsRecordedLikeAnyOtherAnswerOfOurs) {
  RigOptions options;
  options.server.connections_max = 1;
  Rig rig({}, options);
  Peer first = rig.Connect();
  first.Send(kGet);
  first.Message();
  EXPECT_THAT(rig.Connect().UntilEnd(), HasSubstr("\"connection_limit\""));
  const RecordedLog::Entry entry = rig.log.At(1);
  EXPECT_EQ(entry.status, 503);
  EXPECT_EQ(entry.reason, Reason::kConnectionLimit);
  EXPECT_GT(entry.response_bytes, 100u);
  uint64_t counted = 0;
  rig.metrics().requests.ForEach([&](size_t, int status, Reason reason, uint64_t count) {
    if (status == 503 && reason == Reason::kConnectionLimit) counted += count;
  });
  EXPECT_EQ(counted, 1u);
}

TEST(ConnectionLimit, OfAnAddressIsSharedByServersOfOneLimiter) {
  ConnectionLimiter limiter({.connections_per_client_max = 2});
  RigOptions options;
  options.server.limiter = &limiter;
  Rig one({}, options);
  Rig other({}, options);
  Peer first = one.Connect();
  Peer second = other.Connect();
  for (Peer* peer : {&first, &second}) {
    peer->Send(kGet);
    EXPECT_THAT(peer->Message(), StartsWith("HTTP/1.1 404 "));
  }
  EXPECT_THAT(one.Connect().UntilEnd(), HasSubstr("\"client_connection_limit\""));
  EXPECT_THAT(other.Connect().UntilEnd(), HasSubstr("\"client_connection_limit\""));
  first.Close();
  for (int i = 0; i < kPatienceMs && limiter.count() != 1; ++i) usleep(1000);
  Peer third = one.Connect();
  third.Send(kGet);
  EXPECT_THAT(third.Message(), StartsWith("HTTP/1.1 404 "));
}

TEST(UnfinishedHeads, AreRecordedAsFarAsTheyAreKnown) {
  RigOptions options;
  options.server.downstream.header_timeout_ms = 50;
  Rig rig({}, options);
  struct Case {
    std::string_view sent;
    std::string_view target;
    Reason reason;
  };
  const Case cases[] = {
      {"GE", "", Reason::kHeaderTimeout},
      {"GET /half", "/half", Reason::kHeaderTimeout},
      {"\r\nGET /whole?x HTTP/1.1\r\nHost: h\r\nX", "/whole?x", Reason::kHeaderTimeout},
      {"GET /bad HTTP/1.1\r\nHost : h\r\n\r\n", "/bad", Reason::kBadRequest},
  };
  size_t index = 0;
  for (const Case& row : cases) {
    Peer client = rig.Connect();
    client.Send(row.sent);
    client.UntilEnd();
    const RecordedLog::Entry entry = rig.log.At(index++);
    EXPECT_EQ(entry.target, row.target);
    EXPECT_EQ(entry.reason, row.reason);
  }
  Peer client = rig.Connect();
  client.Send("GET /left HTTP/1.1\r\n");
  shutdown(client.fd(), SHUT_WR);
  client.UntilEnd();
  EXPECT_EQ(rig.log.At(index).target, "/left");
  EXPECT_EQ(rig.log.At(index).status, 499);
}

TEST(Drain, StillAnswersTheFirstRequestOfWhoHasJustConnected) {
  Rig rig({});
  Peer asks = rig.Connect();
  Peer silent = rig.Connect();
  rig.BeginDrain(kPatienceMs);
  asks.Send(kGet);
  const std::string answer = asks.UntilEnd();
  EXPECT_THAT(answer, StartsWith("HTTP/1.1 404 "));
  EXPECT_THAT(answer, HasSubstr("Connection: close\r\n"));
  EXPECT_EQ(silent.UntilEnd(), "");
  rig.FinishDrain();
}

}  // namespace
}  // namespace dpa::test
