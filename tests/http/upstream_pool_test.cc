// The connections to a delegate, as a client and a delegate see them: which are used again, when they end, what
// becomes of a request whose connection ended, and how long anything is waited for.

#include <gmock/gmock.h>

#include <array>

#include "tests/http/proxy_rig.h"

namespace dpa::test {
namespace {

using ::testing::EndsWith;
using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::StartsWith;

constexpr std::string_view kOk = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
constexpr std::string_view kPost = "POST /p HTTP/1.1\r\nHost: h\r\nContent-Length: 4\r\n\r\nbody";

std::string Get(std::string_view path) { return "GET " + std::string(path) + " HTTP/1.1\r\nHost: h\r\n\r\n"; }

void WaitFor(const Counter& counter, uint64_t value) {
  for (int i = 0; i < kPatienceMs && counter.value() < value; ++i) {
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  EXPECT_EQ(counter.value(), value);
}

// A client, a delegate and one connection between delegate and proxy that has served a request.
struct Scene {
  explicit Scene(const RigOptions& options = {}) : rig({upstream.url()}, options), client(rig.Connect()) {
    client.Send(Get("/warm"));
    server = upstream.Accept();
    server.Head();
    server.Send(kOk);
    client.Message();
    rig.log.At(0);
  }
  const Counter& closes(UpstreamClose cause) { return rig.metrics().upstream_closes[static_cast<size_t>(cause)]; }
  uint64_t retries(RetryCause cause) { return rig.metrics().upstream_retries[static_cast<size_t>(cause)].value(); }
  // The client's next request comes on a new connection, which takes the place of the old.
  std::string OnANewConnection(std::string_view request) {
    client.Send(request);
    server = upstream.Accept();
    const std::string head = server.Head();
    server.Send(kOk);
    EXPECT_THAT(client.Message(), EndsWith("ok"));
    return head;
  }

  Upstream upstream;
  Rig rig;
  Peer client;
  Peer server;
};

// --- Requests whose connection ended ---

TEST(UpstreamPool, SendsNothingOnAConnectionWhoseEndCameWithTheRequest) {
  Scene scene;
  scene.rig.WhileHeldUp([&] {
    scene.client.Send(kPost);
    scene.server.Close();
  });
  // Not a byte has left, so that even a POST goes once more.
  Peer second = scene.upstream.Accept();
  EXPECT_THAT(second.Head(), StartsWith("POST /p "));
  EXPECT_EQ(second.Exactly(4), "body");
  second.Send(kOk);
  EXPECT_THAT(scene.client.Message(), EndsWith("ok"));
  EXPECT_EQ(scene.retries(RetryCause::kUnsent), 1u);
  EXPECT_EQ(scene.retries(RetryCause::kClosed), 0u);
  EXPECT_EQ(scene.rig.log.At(1).retries, 1u);
}

TEST(UpstreamPool, TakesNothingForAnAnswerThatCameBeforeTheRequest) {
  Scene scene;
  scene.rig.WhileHeldUp([&] {
    scene.client.Send(Get("/next"));
    scene.server.Send("HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nstolen");
  });
  Peer second = scene.upstream.Accept();
  EXPECT_THAT(second.Head(), StartsWith("GET /next "));
  second.Send(kOk);
  EXPECT_THAT(scene.client.Message(), EndsWith("ok"));
  EXPECT_EQ(scene.retries(RetryCause::kUnsent), 1u);
  scene.server.UntilEnd();
}

TEST(UpstreamPool, RepeatsAPutWithItsBodyWhileItHasAllOfIt) {
  for (const std::string_view body :
       {"Content-Length: 4\r\n\r\nbody", "Transfer-Encoding: chunked\r\n\r\n4\r\nbody\r\n0\r\nX-T: 1\r\n\r\n"}) {
    Scene scene;
    scene.client.Send("PUT /p HTTP/1.1\r\nHost: h\r\n" + std::string(body));
    scene.server.Head();
    scene.server.Until("body");
    scene.server.Close();
    Peer second = scene.upstream.Accept();
    EXPECT_THAT(second.Head(), StartsWith("PUT /p "));
    EXPECT_EQ(second.Until(body.substr(body.find("\r\n\r\n") + 4)), body.substr(body.find("\r\n\r\n") + 4));
    second.Send(kOk);
    EXPECT_THAT(scene.client.Message(), EndsWith("ok"));
    EXPECT_EQ(scene.retries(RetryCause::kClosed), 1u);
  }
}

TEST(UpstreamPool, DoesNotRepeatAPutWhoseBodyHasGone) {
  Scene scene;
  scene.client.Send("PUT /p HTTP/1.1\r\nHost: h\r\nContent-Length: 8\r\n\r\nhalf");
  scene.server.Head();
  scene.server.Until("half");
  scene.server.Reset();
  const std::string answer = scene.client.Message();
  EXPECT_THAT(answer, StartsWith("HTTP/1.1 502 "));
  EXPECT_THAT(answer, HasSubstr("delegate_closed_idle"));
  EXPECT_EQ(scene.rig.log.At(1).retries, 0u);
}

TEST(UpstreamPool, NeverRepeatsAPostThatHasLeft) {
  Scene scene;
  scene.client.Send(kPost);
  scene.server.Until("body");
  scene.server.Close();
  const std::string answer = scene.client.Message();
  EXPECT_THAT(answer, StartsWith("HTTP/1.1 502 "));
  EXPECT_THAT(answer, HasSubstr("delegate_closed_idle"));
  EXPECT_THAT(answer, Not(HasSubstr("Retry-After")));
  EXPECT_TRUE(scene.upstream.NobodyConnectsFor(50));
  EXPECT_EQ(scene.rig.log.At(1).reason, Reason::kDelegateClosedIdle);
}

TEST(UpstreamPool, TellsAFreshConnectionsEndByAnotherName) {
  Upstream upstream;
  Rig rig({upstream.url()});
  Peer client = rig.Connect();
  client.Send(Get("/a"));
  Peer server = upstream.Accept();
  server.Head();
  server.Close();
  EXPECT_THAT(client.Message(), HasSubstr("delegate_reset"));
  EXPECT_TRUE(upstream.NobodyConnectsFor(50));
}

TEST(UpstreamPool, RepeatsOnlyOnce) {
  Scene scene;
  scene.client.Send(Get("/a"));
  scene.server.Head();
  scene.server.Close();
  Peer second = scene.upstream.Accept();
  second.Head();
  second.Close();
  EXPECT_THAT(scene.client.Message(), HasSubstr("delegate_reset"));
  EXPECT_EQ(scene.rig.log.At(1).retries, 1u);
}

TEST(UpstreamPool, RepeatsNothingBeyondTheBudget) {
  RigOptions options;
  options.proxy.upstream.retries = {.percent = 0, .min_per_second = 0};
  Scene scene(options);
  scene.client.Send(Get("/a"));
  scene.server.Head();
  scene.server.Close();
  EXPECT_THAT(scene.client.Message(), HasSubstr("delegate_closed_idle"));
  EXPECT_EQ(scene.rig.metrics().upstream_retries_denied.value(), 1u);
  EXPECT_EQ(scene.rig.log.At(1).retries, 0u);
}

// --- Which connection is used again, and when it ends ---

TEST(UpstreamPool, GivesARequestThatCannotBeRepeatedARecentConnection) {
  RigOptions options;
  options.proxy.upstream.recent_idle_max_ms = 0;
  Scene scene(options);
  EXPECT_THAT(scene.OnANewConnection(kPost), StartsWith("POST "));
  scene.client.Send(Get("/a"));
  EXPECT_THAT(scene.server.Until("\r\n\r\n"), HasSubstr("GET /a "));
  scene.server.Send(kOk);
  EXPECT_THAT(scene.client.Message(), EndsWith("ok"));
  EXPECT_EQ(scene.rig.metrics().upstream_reuses.value(), 1u);
}

TEST(UpstreamPool, RetiresAConnectionThatHasServedEnough) {
  RigOptions options;
  options.proxy.upstream.exchanges_max = 2;
  Scene scene(options);
  scene.client.Send(Get("/2"));
  scene.server.Head();
  scene.server.Send(kOk);
  EXPECT_THAT(scene.client.Message(), EndsWith("ok"));
  EXPECT_EQ(scene.server.UntilEnd(), "");
  EXPECT_EQ(scene.closes(UpstreamClose::kMaxRequests).value(), 1u);
  EXPECT_THAT(scene.OnANewConnection(Get("/3")), StartsWith("GET /3 "));
}

TEST(UpstreamPool, RetiresAnOldConnectionWhenItIsIdle) {
  RigOptions options;
  options.proxy.upstream.age_max_ms = 40;
  Upstream upstream;
  Rig rig({upstream.url()}, options);
  Peer client = rig.Connect();
  client.Send(Get("/slow"));
  Peer server = upstream.Accept();
  server.Head();
  // Far older than it may be, but not idle: nobody ends it.
  EXPECT_TRUE(server.SilentFor(120));
  server.Send(kOk);
  EXPECT_THAT(client.Message(), EndsWith("ok"));
  EXPECT_EQ(server.UntilEnd(), "");
  client.Send(Get("/quick"));
  server = upstream.Accept();
  server.Head();
  server.Send(kOk);
  EXPECT_THAT(client.Message(), EndsWith("ok"));
  EXPECT_EQ(server.UntilEnd(), "") << "and this one while it is idle";
  WaitFor(rig.metrics().upstream_closes[static_cast<size_t>(UpstreamClose::kMaxAge)], 2);
}

TEST(UpstreamPool, ClosesBeforeTheDelegateWouldIfItSaysWhen) {
  Scene scene;
  const auto answer = [&](std::string_view keep_alive) {
    scene.client.Send(Get("/k"));
    scene.server.Head();
    scene.server.Send("HTTP/1.1 200 OK\r\nKeep-Alive: " + std::string(keep_alive) + "\r\nContent-Length: 2\r\n\r\nok");
    EXPECT_THAT(scene.client.Message(), Not(HasSubstr("Keep-Alive")));
  };
  answer("max=9, timeout=60");
  answer("timeout=x");
  EXPECT_TRUE(scene.server.SilentFor(20));
  answer("max=9, Timeout=1");
  EXPECT_EQ(scene.server.UntilEnd(), "");
  WaitFor(scene.closes(UpstreamClose::kKeepAlive), 1);
  scene.OnANewConnection(Get("/n"));
  answer("timeout=0");
  EXPECT_EQ(scene.server.UntilEnd(), "");
  WaitFor(scene.closes(UpstreamClose::kKeepAlive), 2);
}

// --- How long anything is waited for ---

TEST(UpstreamPool, EndsAnExchangeThatTakesTooLongAsAWhole) {
  RigOptions options;
  options.proxy.request_timeout_ms = 150;
  Upstream upstream;
  Rig rig({upstream.url()}, options);
  Peer client = rig.Connect();
  client.Send(Get("/never"));
  Peer server = upstream.Accept();
  const std::string late = client.Message();
  EXPECT_THAT(late, StartsWith("HTTP/1.1 504 "));
  EXPECT_THAT(late, HasSubstr("delegate_request_timeout"));
  server.Head();
  EXPECT_EQ(server.UntilEnd(), "");

  client.Send(Get("/drips"));
  server = upstream.Accept();
  server.Head();
  server.Send("HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nbegun");
  EXPECT_THAT(client.UntilEnd(), EndsWith("begun"));
  const RecordedLog::Entry record = rig.log.At(1);
  EXPECT_EQ(record.reason, Reason::kDelegateRequestTimeout);
  EXPECT_EQ(record.status, 200);
}

TEST(UpstreamPool, EndsAnExchangeThatTakesTooLongForItsClient) {
  RigOptions options;
  options.proxy.request_timeout_ms = 200;
  options.server.downstream.send_timeout_ms = 60'000;
  Upstream upstream;
  Rig rig({upstream.url()}, options);
  Peer client = rig.Connect();
  client.Send(Get("/big"));
  Peer server = upstream.Accept();
  server.Head();
  server.Send("HTTP/1.1 200 OK\r\nContent-Length: 100000000\r\n\r\n");
  EXPECT_FALSE(server.Send(std::string(100'000'000, 'x'))) << "nobody reads the answer";
  EXPECT_EQ(rig.log.At(0).reason, Reason::kDelegateRequestTimeout);
}

TEST(UpstreamPool, EndsARequestThatTheDelegateDoesNotTake) {
  RigOptions options;
  options.proxy.upstream.connection.send_timeout_ms = 100;
  Upstream upstream;
  Rig rig({upstream.url()}, options);
  Peer client = rig.Connect();
  const std::string body(64 << 20, 'x');
  std::thread sender([&] {
    client.Send("POST /up HTTP/1.1\r\nHost: h\r\nContent-Length: " + std::to_string(body.size()) + "\r\n\r\n");
    client.Send(body);
  });
  Peer server = upstream.Accept();
  const std::string answer = client.Message();
  EXPECT_THAT(answer, StartsWith("HTTP/1.1 504 "));
  EXPECT_THAT(answer, HasSubstr("delegate_send_timeout"));
  client.UntilEnd();
  sender.join();
}

TEST(UpstreamPool, TellsARequestThatWaitedTooLongForAConnection) {
  RigOptions options;
  options.proxy.upstream.leases_max = 1;
  options.proxy.upstream.waiting_timeout_ms = 50;
  Upstream upstream;
  Rig rig({upstream.url()}, options);
  Peer first = rig.Connect();
  first.Send(Get("/1"));
  Peer server = upstream.Accept();
  server.Head();
  Peer second = rig.Connect();
  second.Send(kPost);
  const std::string told = second.Message();
  EXPECT_THAT(told, StartsWith("HTTP/1.1 503 "));
  EXPECT_THAT(told, HasSubstr("delegate_queue_timeout"));
  EXPECT_THAT(told, HasSubstr("Retry-After: 1\r\n"));
  server.Send(kOk);
  EXPECT_THAT(first.Message(), EndsWith("ok"));
}

TEST(UpstreamPool, ForgetsAClientThatLeavesTheQueue) {
  RigOptions options;
  options.proxy.upstream.leases_max = 1;
  options.proxy.upstream.waiting_timeout_ms = 600'000;
  Upstream upstream;
  Rig rig({upstream.url()}, options);
  Peer first = rig.Connect();
  first.Send(Get("/1"));
  Peer server = upstream.Accept();
  server.Head();
  Peer second = rig.Connect();
  second.Send(Get("/2"));
  while (rig.metrics().upstream_waiting.value() != 1) std::this_thread::yield();
  second.Close();
  EXPECT_EQ(rig.log.At(0).reason, Reason::kClientClosed);
  EXPECT_EQ(rig.metrics().upstream_waiting.value(), 0);
  server.Send(kOk);
  EXPECT_THAT(first.Message(), EndsWith("ok"));
}

// A listener whose backlog is full: connecting to it neither succeeds nor fails.
class Overrun {
 public:
  Overrun() : address_(*Address::Parse("127.0.0.1:0")) {
    fd_ = OpenListeners(address_, 1).value()[0];
    listen(fd_, 0);
    waiting_ = ConnectTo(address_);
  }
  ~Overrun() { close(fd_); }
  UpstreamUrl url() const { return {address_, "overrun.test", ""}; }

 private:
  Address address_;
  int fd_;
  Peer waiting_;
};

TEST(UpstreamPool, StopsConnectingForAClientThatLeft) {
  Overrun overrun;
  RigOptions options;
  options.proxy.upstream.connect_timeout_ms = 600'000;
  Rig rig({overrun.url()}, options);
  Peer client = rig.Connect();
  client.Send(Get("/a"));
  while (rig.metrics().upstream_connecting.value() != 1) std::this_thread::yield();
  client.Close();
  EXPECT_EQ(rig.log.At(0).reason, Reason::kClientClosed);
  EXPECT_EQ(rig.metrics().upstream_connects[static_cast<size_t>(ConnectResult::kCancelled)].value(), 1u);
}

TEST(UpstreamPool, StopsConnectingWhenTheDrainIsOver) {
  Overrun overrun;
  RigOptions options;
  options.proxy.upstream.connect_timeout_ms = 600'000;
  Rig rig({overrun.url()}, options);
  Peer client = rig.Connect();
  client.Send(Get("/a"));
  while (rig.metrics().upstream_connecting.value() != 1) std::this_thread::yield();
  rig.Drain(20);
  EXPECT_EQ(rig.log.At(0).reason, Reason::kShuttingDown);
}

TEST(UpstreamPool, StopsConnectingWhenTheWholeRequestTakesTooLong) {
  Overrun overrun;
  RigOptions options;
  options.proxy.upstream.connect_timeout_ms = 600'000;
  options.proxy.request_timeout_ms = 50;
  Rig rig({overrun.url()}, options);
  Peer client = rig.Connect();
  client.Send(Get("/a"));
  EXPECT_THAT(client.Message(), HasSubstr("delegate_request_timeout"));
}

// --- Delegates that do not keep to HTTP, or break off ---

TEST(UpstreamPool, AbortsTheClientHoweverATruncatedAnswerWasFramed) {
  Upstream upstream;
  Rig rig({upstream.url()});
  struct Row {
    std::string_view version;  // Of the client.
    std::string_view framing;  // Of the delegate.
    bool reset;                // How the delegate ends: so, or in an orderly way.
    bool client_sees_a_reset;  // Where nothing else tells a truncated answer from a whole one.
  };
  constexpr std::array<Row, 8> kRows = {{{"1.1", "Content-Length: 100\r\n", false, false},
                                         {"1.1", "Content-Length: 100\r\n", true, false},
                                         {"1.0", "Content-Length: 100\r\n", false, false},
                                         {"1.1", "Transfer-Encoding: chunked\r\n", false, false},
                                         {"1.1", "Transfer-Encoding: chunked\r\n", true, false},
                                         {"1.0", "Transfer-Encoding: chunked\r\n", false, true},
                                         {"1.1", "", true, false},
                                         {"1.0", "", true, true}}};
  for (size_t i = 0; i < kRows.size(); ++i) {
    const Row& row = kRows[i];
    Peer client = rig.Connect();
    client.Send("GET / HTTP/" + std::string(row.version) + "\r\nHost: h\r\n\r\n");
    Peer server = upstream.Accept();
    server.Head();
    server.Send("HTTP/1.1 200 OK\r\n" + std::string(row.framing) + "\r\n4\r\npart\r\n");
    std::string answer = client.Until("part");
    row.reset ? server.Reset() : server.Close();
    answer += client.UntilEnd();
    // A line of its own: the head may end in a 0.
    EXPECT_THAT(answer, Not(HasSubstr("\r\n0\r\n\r\n"))) << i;
    EXPECT_EQ(client.was_reset(), row.client_sees_a_reset) << i;
    EXPECT_EQ(rig.log.At(i).reason, Reason::kDelegateTruncated) << i;
  }
}

TEST(UpstreamPool, PassesOnWhatADelegateSaidBeforeItHungUpOnABody) {
  Upstream upstream;
  Rig rig({upstream.url()});
  for (const std::string_view method : {"POST", "PUT"}) {
    Peer client = rig.Connect();
    const std::string body(16 << 20, 'x');
    std::thread sender([&] {
      client.Send(std::string(method) + " /up HTTP/1.1\r\nHost: h\r\nContent-Length: " + std::to_string(body.size()) +
                  "\r\n\r\n");
      client.Send(body);
    });
    Peer server = upstream.Accept();
    server.Head();
    server.Send("HTTP/1.1 413 Content Too Large\r\nConnection: close\r\nContent-Length: 3\r\n\r\nbig");
    server.Close();  // With bytes unread: a reset follows the answer.
    const std::string answer = client.Message();
    EXPECT_THAT(answer, StartsWith("HTTP/1.1 413 "));
    EXPECT_THAT(answer, EndsWith("big"));
    client.UntilEnd();
    sender.join();
  }
  EXPECT_TRUE(upstream.NobodyConnectsFor(20));
}

TEST(UpstreamPool, EndsADelegateThatNeverComesToTheAnswer) {
  Scene scene;
  scene.client.Send(Get("/a"));
  scene.server.Head();
  std::string interim;
  for (int i = 0; i < 100; ++i) interim += "HTTP/1.1 100 Continue\r\n\r\n";
  scene.server.Send(interim + std::string(kOk));
  const std::string told = scene.client.Message();
  EXPECT_THAT(told, StartsWith("HTTP/1.1 502 "));
  EXPECT_THAT(told, HasSubstr("delegate_malformed"));
  scene.OnANewConnection(Get("/b"));
}

TEST(UpstreamPool, KeepsWhatComesBehindAnAnswerOutOfTheNext) {
  for (const std::string_view surplus : {"x", "\r\n", "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nstolen"}) {
    for (const std::string_view framing :
         {"Content-Length: 2\r\n\r\nok", "Transfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n"}) {
      Scene scene;
      scene.client.Send(Get("/a"));
      scene.server.Head();
      scene.server.Send("HTTP/1.1 200 OK\r\n" + std::string(framing) + std::string(surplus));
      EXPECT_THAT(scene.client.Head(), StartsWith("HTTP/1.1 200 "));
      scene.client.Until(framing.substr(framing.find("\r\n\r\n") + 4));
      scene.OnANewConnection(Get("/b"));
    }
  }
}

}  // namespace
}  // namespace dpa::test
