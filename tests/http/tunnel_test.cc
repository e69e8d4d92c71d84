// Upgrades and the tunnels that they become: a client and a delegate, both played by the test, and the proxy between
// them.

#include <gmock/gmock.h>

#include <atomic>
#include <functional>

#include "http/tunnel.h"
#include "tests/http/proxy_rig.h"

namespace dpa::test {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::StartsWith;

constexpr std::string_view kAsk =
    "GET /live HTTP/1.1\r\nHost: h\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n"
    "Sec-WebSocket-Key: x\r\n\r\n";
constexpr std::string_view kSwitch =
    "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: y\r\n\r\n";
constexpr std::string_view kOk = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

struct Ends {
  Peer client;
  Peer server;
};

Ends Open(Rig& rig, Upstream& upstream) {
  Ends ends{rig.Connect(), Peer()};
  ends.client.Send(kAsk);
  ends.server = upstream.Accept();
  ends.server.Head();
  ends.server.Send(kSwitch);
  EXPECT_THAT(ends.client.Head(), StartsWith("HTTP/1.1 101 "));
  return ends;
}

void WaitFor(const std::function<bool()>& condition) {
  for (int i = 0; i < kPatienceMs && !condition(); ++i) std::this_thread::sleep_for(std::chrono::milliseconds(1));
  EXPECT_TRUE(condition());
}

TEST(Tunnel, CarriesBytesBothWaysAlsoThoseBehindTheHeads) {
  Upstream upstream;
  Rig rig({upstream.url()});
  Peer client = rig.Connect();
  client.Send(std::string(kAsk) + "early");
  Peer server = upstream.Accept();
  const std::string head = server.Head();
  EXPECT_THAT(head, StartsWith("GET /live HTTP/1.1\r\n"));
  EXPECT_THAT(head, HasSubstr("Upgrade: websocket\r\n"));
  EXPECT_THAT(head, HasSubstr("Connection: Upgrade\r\n"));
  EXPECT_THAT(head, HasSubstr("Sec-WebSocket-Key: x\r\n"));
  EXPECT_TRUE(server.SilentFor(20)) << "bytes of the new protocol before it was agreed on";
  server.Send(std::string(kSwitch) + "welcome");
  const std::string answer = client.Head();
  EXPECT_THAT(answer, StartsWith("HTTP/1.1 101 Switching Protocols\r\n"));
  EXPECT_THAT(answer, HasSubstr("Upgrade: websocket\r\n"));
  EXPECT_THAT(answer, HasSubstr("Connection: Upgrade\r\n"));
  EXPECT_THAT(answer, HasSubstr("Sec-WebSocket-Accept: y\r\n"));
  EXPECT_THAT(answer, Not(HasSubstr("Transfer-Encoding")));
  EXPECT_EQ(client.Exactly(7), "welcome");
  EXPECT_EQ(server.Exactly(5), "early");
  for (int i = 0; i < 100; ++i) {
    const std::string text = "GET /not-http HTTP/1.1\r\n\r\n" + std::to_string(i);
    client.Send(text);
    EXPECT_EQ(server.Exactly(text.size()), text);
    server.Send(text);
    EXPECT_EQ(client.Exactly(text.size()), text);
  }
  EXPECT_EQ(rig.metrics().tunnels.value(), 1);
  client.Close();
  EXPECT_EQ(server.UntilEnd(), "");
  server.Close();
  const RecordedLog::Entry record = rig.log.At(0);
  EXPECT_EQ(record.status, 101);
  EXPECT_EQ(record.reason, Reason::kOk);
  EXPECT_EQ(record.target, "/live");
  EXPECT_GT(record.request_bytes, 100u * 26);
  EXPECT_EQ(record.response_bytes, record.request_bytes + 2);
  EXPECT_EQ(rig.metrics().tunnels.value(), 0);
  EXPECT_EQ(rig.metrics().tunnels_started.value(), 1u);
  EXPECT_EQ(rig.metrics().tunnel_bytes_up.value(), record.request_bytes);
  EXPECT_EQ(rig.metrics().tunnel_bytes_down.value(), record.response_bytes);
}

TEST(Tunnel, ServesThePostsOfKubectlExecAndNeverReusesTheirConnections) {
  Upstream upstream;
  Rig rig({upstream.url()});
  for (int i = 0; i < 3; ++i) {
    Peer client = rig.Connect();
    client.Send(
        "POST /api/v1/namespaces/a/pods/b/exec?command=sh HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n"
        "Connection: Upgrade\r\nUpgrade: SPDY/3.1\r\nX-Stream-Protocol-Version: v4.channel.k8s.io\r\n\r\n");
    Peer server = upstream.Accept();
    EXPECT_THAT(server.Head(), HasSubstr("Upgrade: SPDY/3.1\r\n"));
    server.Send("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: spdy/3.1\r\n\r\n");
    EXPECT_THAT(client.Head(), HasSubstr("Upgrade: spdy/3.1\r\n"));
    const std::string_view frame("\x80\x03\x00\x01\x01\x00\x00\x0a\x00", 9);
    client.Send(frame);
    EXPECT_EQ(server.Exactly(frame.size()), frame);
    server.Close();
    EXPECT_EQ(client.UntilEnd(), "");
    EXPECT_FALSE(client.was_reset());
    client.Close();
    EXPECT_EQ(rig.log.At(static_cast<size_t>(i)).reason, Reason::kOk);
  }
  EXPECT_EQ(rig.metrics().upstream_reuses.value(), 0u);
  EXPECT_EQ(rig.metrics().upstream_idle.value(), 0);
}

TEST(Tunnel, PassesAnEndOfStreamOnWhileTheOtherWayGoesOn) {
  Upstream upstream;
  Rig rig({upstream.url()});
  for (const bool client_first : {true, false}) {
    Ends ends = Open(rig, upstream);
    Peer& first = client_first ? ends.client : ends.server;
    Peer& second = client_first ? ends.server : ends.client;
    first.Send("last words");
    shutdown(first.fd(), SHUT_WR);
    EXPECT_EQ(second.UntilEnd(), "last words");
    for (int i = 0; i < 5; ++i) {
      second.Send("still here");
      EXPECT_EQ(first.Exactly(10), "still here");
    }
    EXPECT_EQ(rig.metrics().tunnels.value(), 1);
    second.Close();
    EXPECT_EQ(first.UntilEnd(), "");
    EXPECT_FALSE(first.was_reset());
    EXPECT_EQ(rig.log.At(client_first ? 0 : 1).reason, Reason::kOk);
  }
}

TEST(Tunnel, PassesAResetOnAsOne) {
  Upstream upstream;
  Rig rig({upstream.url()});
  Ends ends = Open(rig, upstream);
  ends.client.Reset();
  ends.server.UntilEnd();
  EXPECT_TRUE(ends.server.was_reset());
  EXPECT_EQ(rig.log.At(0).reason, Reason::kClientClosed);
  EXPECT_EQ(rig.log.At(0).status, 101);
  ends = Open(rig, upstream);
  ends.server.Reset();
  ends.client.UntilEnd();
  EXPECT_TRUE(ends.client.was_reset());
  EXPECT_EQ(rig.log.At(1).reason, Reason::kDelegateTruncated);
}

TEST(Tunnel, RefusesASwitchThatNobodyAskedForOrToSomethingElse) {
  Upstream upstream;
  Rig rig({upstream.url()});
  const std::string plain = "GET /a HTTP/1.1\r\nHost: h\r\n\r\n";
  const std::string named = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: ";
  const std::pair<std::string, std::string> cases[] = {
      {plain, std::string(kSwitch)},
      {std::string(kAsk), named + "SPDY/3.1\r\n\r\n"},
      {std::string(kAsk), named + "websocket, SPDY/3.1\r\n\r\n"},
      {std::string(kAsk), "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\n\r\n"},
      {std::string(kAsk), "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n"},
      // Not named in Connection, or beside a body: an Upgrade that is not passed on.
      {"GET /a HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\n\r\n", std::string(kSwitch)},
      {"POST /a HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nxy",
       std::string(kSwitch)},
  };
  size_t index = 0;
  for (const auto& [request, answer] : cases) {
    Peer client = rig.Connect();
    client.Send(request);
    Peer server = upstream.Accept();
    server.Head();
    server.Send(answer);
    EXPECT_THAT(client.Message(), StartsWith("HTTP/1.1 502 ")) << request << answer;
    EXPECT_EQ(rig.log.At(index++).reason, Reason::kDelegateMalformed) << request << answer;
    server.UntilEnd();
  }
  EXPECT_EQ(rig.metrics().tunnels_started.value(), 0u);
}

TEST(Tunnel, TakesAnyOtherAnswerForAResponse) {
  Upstream upstream;
  Rig rig({upstream.url()});
  Peer client = rig.Connect();
  client.Send(kAsk);
  Peer server = upstream.Accept();
  server.Head();
  server.Send(kOk);
  EXPECT_THAT(client.Message(), StartsWith("HTTP/1.1 200 OK"));
  // Both connections go on as HTTP.
  client.Send("GET /b HTTP/1.1\r\nHost: h\r\n\r\n");
  EXPECT_THAT(server.Head(), StartsWith("GET /b "));
  server.Send(kOk);
  EXPECT_THAT(client.Message(), StartsWith("HTTP/1.1 200 OK"));
  // Beside a body an Upgrade is none (RFC 9110 §7.8 lets us ignore it), and the body is a body.
  client.Send(
      "POST /c HTTP/1.1\r\nHost: h\r\nContent-Length: 4\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nbody");
  EXPECT_THAT(server.Head(), Not(HasSubstr("Upgrade")));
  EXPECT_EQ(server.Exactly(4), "body");
  server.Send(kOk);
  EXPECT_THAT(client.Message(), StartsWith("HTTP/1.1 200 OK"));
}

TEST(Tunnel, EndsWhenNothingPassesForTheIdleTimeout) {
  Upstream upstream;
  RigOptions options;
  options.proxy.forward.tunnel_idle_timeout_ms = 300;
  // Those of plain exchanges do not count.
  options.server.downstream.body_timeout_ms = 50;
  options.proxy.upstream.connection.body_timeout_ms = 50;
  Rig rig({upstream.url()}, options);
  Ends ends = Open(rig, upstream);
  for (int i = 0; i < 6; ++i) {
    std::this_thread::sleep_for(std::chrono::milliseconds(100));
    ends.server.Send("x");
    EXPECT_EQ(ends.client.Exactly(1), "x") << "one way is enough to keep it";
  }
  EXPECT_EQ(ends.client.UntilEnd(), "");
  EXPECT_EQ(ends.server.UntilEnd(), "");
  EXPECT_FALSE(ends.client.was_reset());
  const RecordedLog::Entry record = rig.log.At(0);
  EXPECT_EQ(record.reason, Reason::kTunnelIdleTimeout);
  EXPECT_EQ(record.status, 101);
}

TEST(Tunnel, LastsUntilTheDrainDeadline) {
  Upstream upstream;
  Rig rig({upstream.url()});
  Ends ends = Open(rig, upstream);
  rig.BeginDrain(300);
  ends.client.Send("while draining");
  EXPECT_EQ(ends.server.Exactly(14), "while draining");
  EXPECT_EQ(ends.client.UntilEnd(), "");
  EXPECT_EQ(ends.server.UntilEnd(), "");
  rig.FinishDrain();
  EXPECT_EQ(rig.log.At(0).reason, Reason::kShuttingDown);
  EXPECT_EQ(rig.log.At(0).status, 101);
}

TEST(Tunnel, LeavesConnectionsToRequestsBeyondItsLimit) {
  Upstream upstream;
  RigOptions options;
  options.proxy.forward.tunnels_max = 2;
  options.proxy.upstream.leases_max = 3;
  Rig rig({upstream.url()}, options);
  Ends one = Open(rig, upstream);
  Ends two = Open(rig, upstream);
  Peer client = rig.Connect();
  client.Send(kAsk);
  const std::string answer = client.Message();
  EXPECT_THAT(answer, StartsWith("HTTP/1.1 503 "));
  EXPECT_THAT(answer, HasSubstr("tunnel_limit"));
  client.Send("GET /a HTTP/1.1\r\nHost: h\r\n\r\n");
  Peer server = upstream.Accept();
  server.Head();
  server.Send(kOk);
  EXPECT_THAT(client.Message(), StartsWith("HTTP/1.1 200 OK"));
  one.client.Close();
  one.server.Close();
  rig.log.At(2);
  Ends three = Open(rig, upstream);
}

TEST(Tunnel, ASlowReaderSlowsTheSenderOnEitherSide) {
  Upstream upstream;
  Rig rig({upstream.url()});
  std::string bytes(24 << 20, '\0');
  for (size_t i = 0; i < bytes.size(); ++i) bytes[i] = static_cast<char>(i * 31 + i / 4099);
  for (const bool up : {true, false}) {
    Ends ends = Open(rig, upstream);
    Peer& from = up ? ends.client : ends.server;
    Peer& to = up ? ends.server : ends.client;
    std::atomic<bool> sent = false;
    std::thread sender([&] {
      EXPECT_TRUE(from.Send(bytes));
      sent = true;
      shutdown(from.fd(), SHUT_WR);
    });
    std::this_thread::sleep_for(std::chrono::milliseconds(200));
    EXPECT_FALSE(sent) << "24 MiB are more than sockets and queues may hold for a reader that does not read";
    EXPECT_TRUE(to.UntilEnd() == bytes);
    sender.join();
  }
}

TEST(Tunnel, HoldsNoReceiveBufferWhileItIsSilent) {
  Upstream upstream;
  RigOptions options;
  options.buffers_count = 16;
  Rig rig({upstream.url()}, options);
  std::vector<Ends> tunnels;
  for (int i = 0; i < 40; ++i) {
    tunnels.push_back(Open(rig, upstream));
    tunnels.back().client.Send("a");
    EXPECT_EQ(tunnels.back().server.Exactly(1), "a");
  }
  WaitFor([&] { return rig.metrics().receive_buffers_lent.value() <= 1; });
}

TEST(Tunnel, WorksOverUnixSockets) {
  const std::string folder = "/tmp/dpa-tunnel-" + std::to_string(getpid());
  Upstream upstream("unix:" + folder + "-d.sock");
  RigOptions options;
  options.listen = "unix:" + folder + "-l.sock";
  Rig rig({upstream.url()}, options);
  Ends ends = Open(rig, upstream);
  ends.client.Send("up");
  EXPECT_EQ(ends.server.Exactly(2), "up");
  shutdown(ends.server.fd(), SHUT_WR);
  EXPECT_EQ(ends.client.UntilEnd(), "");
  ends.client.Send("more");
  EXPECT_EQ(ends.server.Exactly(4), "more");
  ends.client.Close();
  EXPECT_EQ(ends.server.UntilEnd(), "");
  EXPECT_EQ(rig.log.At(0).reason, Reason::kOk);
}

}  // namespace
}  // namespace dpa::test
