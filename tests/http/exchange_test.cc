// Whole exchanges over a real ring: a client and a delegate, both played by the test with raw bytes, and the proxy
// between them.

#include <gmock/gmock.h>

#include <algorithm>
#include <cctype>

#include "tests/http/proxy_rig.h"

namespace dpa::test {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::StartsWith;

constexpr std::string_view kGet = "GET /a HTTP/1.1\r\nHost: h\r\n\r\n";
constexpr std::string_view kOk = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

std::string Get(std::string_view path) { return "GET " + std::string(path) + " HTTP/1.1\r\nHost: h\r\n\r\n"; }

std::string Pattern(size_t bytes) {
  std::string text(bytes, '\0');
  for (size_t i = 0; i < bytes; ++i) text[i] = static_cast<char>('a' + (i * 7 + i / 251) % 26);
  return text;
}

// Reads a chunked body, its end included, and returns the payload.
std::string Chunked(Peer& peer) {
  std::string body;
  for (;;) {
    const std::string line = peer.Until("\r\n");
    const size_t size = line.empty() ? 0 : std::stoul(line, nullptr, 16);
    if (size == 0) return body;
    body += peer.Exactly(size);
    EXPECT_EQ(peer.Exactly(2), "\r\n");
  }
}

TEST(Exchange, ForwardsARequestAndItsAnswer) {
  Upstream upstream;
  Rig rig({upstream.url()});
  Peer client = rig.Connect();
  client.Send(
      "GET /a/b?q=1 HTTP/1.1\r\nHost: grafana.test\r\nX-Tag: 1\r\nX-Tag: 2\r\nConnection: X-Hop\r\nX-Hop: 1\r\n\r\n");
  Peer server = upstream.Accept();
  const std::string head = server.Head();
  EXPECT_THAT(head, StartsWith("GET /a/b?q=1 HTTP/1.1\r\n"));
  EXPECT_THAT(head, HasSubstr("Host: grafana.test\r\n"));
  EXPECT_THAT(head, HasSubstr("X-Tag: 1\r\nX-Tag: 2\r\n"));
  EXPECT_THAT(head, HasSubstr("X-Forwarded-For: 127.0.0.1\r\n"));
  EXPECT_THAT(head, Not(HasSubstr("X-Hop")));
  server.Send("HTTP/1.1 201 Made\r\nContent-Length: 5\r\nX-From: there\r\n\r\nhello");
  const std::string answer = client.Message();
  EXPECT_THAT(answer, StartsWith("HTTP/1.1 201 Made\r\n"));
  EXPECT_THAT(answer, HasSubstr("X-From: there\r\n"));
  EXPECT_THAT(answer, HasSubstr("\r\nDate: "));
  EXPECT_THAT(answer, ::testing::EndsWith("\r\n\r\nhello"));
  const RecordedLog::Entry record = rig.log.At(0);
  EXPECT_EQ(record.status, 201);
  EXPECT_EQ(record.reason, Reason::kOk);
  EXPECT_EQ(record.route, "delegate");
  EXPECT_EQ(record.target, "/a/b?q=1");
  EXPECT_EQ(record.response_bytes, 5u);
}

TEST(Exchange, ReusesBothConnections) {
  Upstream upstream;
  Rig rig({upstream.url()});
  Peer client = rig.Connect();
  Peer server;
  for (int i = 0; i < 20; ++i) {
    client.Send(Get("/" + std::to_string(i)));
    if (i == 0) server = upstream.Accept();
    EXPECT_THAT(server.Head(), StartsWith("GET /" + std::to_string(i) + " "));
    server.Send(kOk);
    EXPECT_THAT(client.Message(), ::testing::EndsWith("ok"));
  }
  EXPECT_EQ(rig.metrics().upstream_reuses.value(), 19u);
  EXPECT_EQ(rig.metrics().connections_accepted.value(), 1u);
  EXPECT_TRUE(rig.log.At(19).upstream_reused);
}

TEST(Exchange, PutsThePrefixOfTheDelegateBeforeThePath) {
  Upstream upstream;
  Rig rig({upstream.url("/grafana")});
  Peer client = rig.Connect();
  client.Send(Get("/api?x"));
  Peer server = upstream.Accept();
  EXPECT_THAT(server.Head(), StartsWith("GET /grafana/api?x HTTP/1.1\r\n"));
}

TEST(Exchange, AnswersPipelinedRequestsInOrder) {
  Upstream upstream;
  Rig rig({upstream.url()});
  Peer client = rig.Connect();
  std::string all;
  for (int i = 0; i < 16; ++i) all += Get("/" + std::to_string(i));
  client.Send(all);
  Peer server = upstream.Accept();
  for (int i = 0; i < 16; ++i) {
    EXPECT_THAT(server.Head(), StartsWith("GET /" + std::to_string(i) + " "));
    server.Send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n" + std::to_string(10 + i));
  }
  for (int i = 0; i < 16; ++i) EXPECT_THAT(client.Message(), ::testing::EndsWith(std::to_string(10 + i)));
}

TEST(Exchange, TakesAHeadInSingleBytes) {
  Upstream upstream;
  Rig rig({upstream.url()});
  Peer client = rig.Connect();
  const int on = 1;
  setsockopt(client.fd(), IPPROTO_TCP, 1 /* TCP_NODELAY */, &on, sizeof on);
  const std::string request = "POST /bytes HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\nabc";
  for (const char c : request) client.Send({&c, 1});
  Peer server = upstream.Accept();
  EXPECT_THAT(server.Head(), StartsWith("POST /bytes HTTP/1.1\r\n"));
  EXPECT_EQ(server.Exactly(3), "abc");
  const std::string answer(kOk);
  setsockopt(server.fd(), IPPROTO_TCP, 1, &on, sizeof on);
  for (const char c : answer) server.Send({&c, 1});
  EXPECT_THAT(client.Message(), ::testing::EndsWith("\r\n\r\nok"));
}

TEST(Exchange, RelaysChunkedBodiesBothWays) {
  Upstream upstream;
  Rig rig({upstream.url()});
  Peer client = rig.Connect();
  client.Send("POST /c HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n");
  Peer server = upstream.Accept();
  EXPECT_THAT(server.Head(), HasSubstr("Transfer-Encoding: chunked\r\n"));
  EXPECT_EQ(server.Until("\r\n"), "3\r\n");
  EXPECT_EQ(server.Exactly(5), "abc\r\n");
  // What has come is passed on although more is to come, in both directions at once.
  server.Send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nxy\r\n");
  EXPECT_THAT(client.Head(), HasSubstr("Transfer-Encoding: chunked\r\n"));
  EXPECT_EQ(client.Until("xy\r\n"), "2\r\nxy\r\n");
  client.Send("2;ext=1\r\nde\r\n0\r\nX-Trailer: t\r\n\r\n");
  EXPECT_EQ(server.Until("X-Trailer: t\r\n\r\n"), "2\r\nde\r\n0\r\nX-Trailer: t\r\n\r\n");
  server.Send("1\r\nz\r\n0\r\n\r\n");
  EXPECT_EQ(client.Until("0\r\n\r\n"), "1\r\nz\r\n0\r\n\r\n");
  const RecordedLog::Entry record = rig.log.At(0);
  EXPECT_EQ(record.request_bytes, 5u);
  EXPECT_EQ(record.response_bytes, 3u);
  client.Send(kGet);
  EXPECT_THAT(server.Head(), StartsWith("GET /a "));
}

TEST(Exchange, RelaysALargeAnswerToASlowReader) {
  Upstream upstream;
  Rig rig({upstream.url()});
  Peer client = rig.Connect();
  client.Send(kGet);
  Peer server = upstream.Accept();
  server.Head();
  const std::string body = Pattern(12 << 20);
  std::thread sender([&] {
    server.Send("HTTP/1.1 200 OK\r\nContent-Length: " + std::to_string(body.size()) + "\r\n\r\n");
    EXPECT_TRUE(server.Send(body));
  });
  client.Head();
  std::string got;
  while (got.size() < body.size()) {
    const std::string piece = client.Exactly(std::min<size_t>(body.size() - got.size(), 256 << 10));
    if (piece.empty()) break;
    got += piece;
    std::this_thread::sleep_for(std::chrono::milliseconds(2));
  }
  sender.join();
  EXPECT_TRUE(got == body);
  EXPECT_EQ(rig.log.At(0).response_bytes, body.size());
}

TEST(Exchange, RelaysALargeUploadToASlowDelegate) {
  Upstream upstream;
  Rig rig({upstream.url()});
  Peer client = rig.Connect();
  const std::string body = Pattern(8 << 20);
  std::thread sender([&] {
    client.Send("PUT /up HTTP/1.1\r\nHost: h\r\nContent-Length: " + std::to_string(body.size()) + "\r\n\r\n");
    EXPECT_TRUE(client.Send(body));
  });
  Peer server = upstream.Accept();
  server.Head();
  std::string got;
  while (got.size() < body.size()) {
    const std::string piece = server.Exactly(std::min<size_t>(body.size() - got.size(), 256 << 10));
    if (piece.empty()) break;
    got += piece;
    std::this_thread::sleep_for(std::chrono::milliseconds(2));
  }
  sender.join();
  EXPECT_TRUE(got == body);
  server.Send(kOk);
  EXPECT_THAT(client.Message(), StartsWith("HTTP/1.1 200 OK"));
  EXPECT_EQ(rig.log.At(0).request_bytes, body.size());
}

TEST(Exchange, KeepsAnswersWithoutBodiesApart) {
  Upstream upstream;
  Rig rig({upstream.url()});
  Peer client = rig.Connect();
  client.Send("HEAD /h HTTP/1.1\r\nHost: h\r\n\r\n");
  Peer server = upstream.Accept();
  server.Head();
  server.Send("HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n");
  EXPECT_THAT(client.Head(), HasSubstr("Content-Length: 1000\r\n"));
  for (const std::string_view status : {"204 No Content", "304 Not Modified"}) {
    client.Send(kGet);
    server.Head();
    server.Send("HTTP/1.1 " + std::string(status) + "\r\nETag: x\r\n\r\n");
    EXPECT_THAT(client.Head(), StartsWith("HTTP/1.1 " + std::string(status)));
  }
  EXPECT_EQ(rig.metrics().upstream_reuses.value(), 2u);
}

TEST(Exchange, EndsWithTheConnectionWhereTheDelegateDoes) {
  Upstream upstream;
  Rig rig({upstream.url()});
  Peer client = rig.Connect();
  client.Send(kGet);
  Peer server = upstream.Accept();
  server.Head();
  server.Send("HTTP/1.1 200 OK\r\n\r\nuntil ");
  EXPECT_THAT(client.Head(), HasSubstr("Transfer-Encoding: chunked\r\n"));
  server.Send("close");
  server.Close();
  EXPECT_EQ(Chunked(client), "until close");
  Peer old_client = rig.Connect();
  old_client.Send("GET /old HTTP/1.0\r\n\r\n");
  server = upstream.Accept();
  EXPECT_THAT(server.Head(), HasSubstr("Host: upstream.test\r\n"));
  server.Send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nbody\r\n0\r\n\r\n");
  const std::string answer = old_client.UntilEnd();
  EXPECT_THAT(answer, HasSubstr("Connection: close\r\n"));
  EXPECT_THAT(answer, Not(HasSubstr("chunked")));
  EXPECT_THAT(answer, ::testing::EndsWith("\r\n\r\nbody"));
}

TEST(Exchange, PassesAnEarlyAnswerOnWhileTheRequestIsStillComing) {
  Upstream upstream;
  Rig rig({upstream.url()});
  Peer client = rig.Connect();
  client.Send("POST /big HTTP/1.1\r\nHost: h\r\nContent-Length: 100000000\r\n\r\nsome of it");
  Peer server = upstream.Accept();
  server.Head();
  server.Send("HTTP/1.1 413 Content Too Large\r\nContent-Length: 3\r\n\r\nbig");
  const std::string answer = client.Message();
  EXPECT_THAT(answer, StartsWith("HTTP/1.1 413 "));
  EXPECT_THAT(answer, HasSubstr("Connection: close\r\n"));
  EXPECT_EQ(client.UntilEnd(), "");
  EXPECT_EQ(rig.log.At(0).status, 413);
  EXPECT_EQ(rig.log.At(0).reason, Reason::kOk);
}

TEST(Exchange, NeverLendsAConnectionThatTheDelegateClosed) {
  Upstream upstream;
  Rig rig({upstream.url()});
  Peer client = rig.Connect();
  client.Send(kGet);
  Peer first = upstream.Accept();
  first.Head();
  first.Send(kOk);
  client.Message();
  rig.log.At(0);
  first.Close();
  const Counter& closes = rig.metrics().upstream_closes[static_cast<size_t>(UpstreamClose::kPeerClosed)];
  for (int i = 0; i < kPatienceMs && closes.value() == 0; ++i)
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  EXPECT_EQ(closes.value(), 1u);
  client.Send("POST /p HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\n\r\nx");
  Peer second = upstream.Accept();
  second.Head();
  second.Send(kOk);
  EXPECT_THAT(client.Message(), StartsWith("HTTP/1.1 200 OK"));
  EXPECT_EQ(rig.log.At(1).retries, 0u);
  EXPECT_FALSE(rig.log.At(1).upstream_reused);
}

TEST(Exchange, ClosesAnIdleConnectionOnSurplusBytes) {
  Upstream upstream;
  Rig rig({upstream.url()});
  Peer client = rig.Connect();
  client.Send(kGet);
  Peer server = upstream.Accept();
  server.Head();
  server.Send(std::string(kOk) + "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nstolen");
  EXPECT_THAT(client.Message(), ::testing::EndsWith("ok"));
  client.Send(Get("/next"));
  Peer second = upstream.Accept();
  EXPECT_THAT(second.Head(), StartsWith("GET /next "));
  second.Send(kOk);
  EXPECT_THAT(client.Message(), ::testing::EndsWith("ok"));
}

// A delegate that closes a reused connection as the request arrives: repeated if it can be, told if not.
TEST(Exchange, RepeatsAnIdempotentRequestWhoseConnectionDied) {
  Upstream upstream;
  Rig rig({upstream.url()});
  Peer client = rig.Connect();
  client.Send(kGet);
  Peer first = upstream.Accept();
  first.Head();
  first.Send(kOk);
  client.Message();
  client.Send(Get("/again"));
  first.Head();
  first.Close();
  Peer second = upstream.Accept();
  EXPECT_THAT(second.Head(), StartsWith("GET /again "));
  second.Send(kOk);
  EXPECT_THAT(client.Message(), StartsWith("HTTP/1.1 200 OK"));
  EXPECT_EQ(rig.log.At(1).retries, 1u);

  client.Send("POST /once HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\n\r\nx");
  second.Head();
  second.Exactly(1);
  second.Close();
  const std::string answer = client.Message();
  EXPECT_THAT(answer, StartsWith("HTTP/1.1 502 Bad Gateway\r\n"));
  EXPECT_THAT(answer, HasSubstr("delegate_closed_idle"));
  EXPECT_THAT(answer, Not(HasSubstr("Retry-After")));
}

TEST(Exchange, AbortsTheClientWhenTheAnswerBreaksOff) {
  Upstream upstream;
  Rig rig({upstream.url()});
  size_t index = 0;
  for (const std::string_view framing : {"Content-Length: 100", "Transfer-Encoding: chunked"}) {
    Peer client = rig.Connect();
    client.Send(kGet);
    Peer server = upstream.Accept();
    server.Head();
    server.Send("HTTP/1.1 200 OK\r\n" + std::string(framing) + "\r\n\r\n4\r\npart\r\n");
    server.Close();
    const std::string answer = client.UntilEnd();
    EXPECT_THAT(answer, HasSubstr("part"));
    EXPECT_THAT(answer, Not(HasSubstr("\r\n0\r\n\r\n")));
    EXPECT_EQ(rig.log.At(index++).reason, Reason::kDelegateTruncated);
  }
  Peer old_client = rig.Connect();
  old_client.Send("GET /old HTTP/1.0\r\nHost: h\r\n\r\n");
  Peer server = upstream.Accept();
  server.Head();
  server.Send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\npart\r\n");
  EXPECT_THAT(old_client.Until("part"), HasSubstr("part"));
  server.Close();
  old_client.UntilEnd();
  EXPECT_TRUE(old_client.was_reset()) << "an orderly end would make the part look whole";
}

// Goal: what only the close would end is broken off by a reset, whatever ends it. Method: HTTP/1.0 clients whose answer
// is under way when it is aborted by the drain's deadline, and when they stop reading.
TEST(Exchange, ResetsAClientWhoseUntilCloseAnswerIsAborted) {
  Upstream upstream;
  Rig rig({upstream.url()});
  Peer client = rig.Connect();
  client.Send("GET /old HTTP/1.0\r\nHost: h\r\n\r\n");
  Peer server = upstream.Accept();
  server.Head();
  server.Send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\npart\r\n");
  EXPECT_THAT(client.Until("part"), HasSubstr("part"));
  rig.Drain(50);
  client.UntilEnd();
  EXPECT_TRUE(client.was_reset());
  EXPECT_EQ(rig.log.At(0).reason, Reason::kShuttingDown);
}

TEST(Exchange, ResetsAClientThatStopsReadingAnUntilCloseAnswer) {
  Upstream upstream;
  RigOptions options;
  options.server.downstream.send_timeout_ms = 100;
  Rig rig({upstream.url()}, options);
  Peer client = rig.Connect();
  client.Send("GET /old HTTP/1.0\r\nHost: h\r\n\r\n");
  Peer server = upstream.Accept();
  server.Head();
  server.Send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
  const std::string chunk = "10000\r\n" + std::string(65536, 'x') + "\r\n";
  while (server.Send(chunk)) {
  }
  EXPECT_EQ(rig.log.At(0).reason, Reason::kClientWriteTimeout);
  client.UntilEnd();
  EXPECT_TRUE(client.was_reset());
}

// Goal: that a client has ended its sending side must not end an answer that only the delegate's close can end. Method:
// the delegate is in the middle of such an answer when the client half-closes; whatever the proxy makes of that, the
// part may not look whole.
TEST(Exchange, NeverEndsAnUntilCloseAnswerBecauseTheClientHalfCloses) {
  Upstream upstream;
  Rig rig({upstream.url()});
  Peer client = rig.Connect();
  client.Send(kGet);
  Peer server = upstream.Accept();
  server.Head();
  server.Send("HTTP/1.1 200 OK\r\n\r\nfirst");
  client.Until("first");
  shutdown(client.fd(), SHUT_WR);
  // Either it is cut off now, or it goes on to the delegate's own end.
  pollfd ended{server.fd(), POLLIN, 0};
  const bool cut_off = poll(&ended, 1, 300) == 1;
  server.Send("second");
  server.Close();
  const std::string rest = client.UntilEnd();
  const bool looks_whole = rest.find("0\r\n\r\n") != std::string::npos;
  if (cut_off) EXPECT_FALSE(looks_whole) << rest;
  if (!cut_off) EXPECT_THAT(rest, HasSubstr("second"));
}

// Goal: answers that were given before one that is broken off reach the client. Method: more requests than we receive
// ahead lie unread at our end when the second one's answer breaks off; the client reads only then.
TEST(Exchange, KeepsEarlierAnswersWhenALaterOneBreaksOff) {
  Upstream upstream;
  Rig rig({upstream.url()});
  Peer client = rig.Connect();
  client.Send("GET /1 HTTP/1.1\r\nHost: h\r\n\r\nGET /2 HTTP/1.1\r\nHost: h\r\n\r\n");
  Peer server = upstream.Accept();
  server.Head();
  server.Send("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nwhole");
  server.Head();
  server.Send("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\npart");
  const std::string more = "GET /3 HTTP/1.1\r\nHost: h\r\nX: " + std::string(4000, 'x') + "\r\n\r\n";
  for (int i = 0; i < 200; ++i) client.Send(more);
  server.Close();
  EXPECT_EQ(rig.log.At(1).reason, Reason::kDelegateTruncated);
  const std::string answers = client.UntilEnd();
  EXPECT_THAT(answers, HasSubstr("whole"));
  EXPECT_THAT(answers, HasSubstr("part"));
  EXPECT_FALSE(client.was_reset());
}

TEST(Exchange, CancelsTheDelegateWhenTheClientLeaves) {
  Upstream upstream;
  Rig rig({upstream.url()});
  for (const bool hard : {false, true}) {
    Peer client = rig.Connect();
    client.Send(kGet);
    Peer server = upstream.Accept();
    server.Head();
    hard ? client.Reset() : client.Close();
    EXPECT_EQ(server.UntilEnd(), "");
    const RecordedLog::Entry record = rig.log.At(hard ? 1 : 0);
    EXPECT_EQ(record.status, 499);
    EXPECT_EQ(record.reason, Reason::kClientClosed);
  }
  Peer client = rig.Connect();
  client.Send("POST /up HTTP/1.1\r\nHost: h\r\nContent-Length: 100\r\n\r\nhalf");
  Peer server = upstream.Accept();
  server.Head();
  client.Close();
  server.UntilEnd();
  EXPECT_EQ(rig.log.At(2).reason, Reason::kClientClosed);
}

TEST(Exchange, RefusesWhatBreaksHttp) {
  Upstream upstream;
  Rig rig({upstream.url()});
  struct Row {
    std::string_view request;
    std::string_view status;
    std::string_view word;
  };
  const Row rows[] = {
      {"GET / HTTP/1.1\r\n\r\n", "400", "bad_request"},
      {"GET / HTTP/3.0\r\nHost: h\r\n\r\n", "505", "unsupported_version"},
      {"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", "400", "bad_request"},
      {"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: gzip, chunked\r\n\r\n", "501", "unsupported_coding"},
      {"TRACE / HTTP/1.1\r\nHost: h\r\n\r\n", "405", "method_not_allowed"},
      {"GET / HTTP/1.1\nHost: h\r\n\r\n", "400", "bad_request"},
  };
  size_t index = 0;
  for (const Row& row : rows) {
    Peer client = rig.Connect();
    client.Send(row.request);
    const std::string answer = client.UntilEnd();
    EXPECT_THAT(answer, StartsWith("HTTP/1.1 " + std::string(row.status) + " ")) << row.request;
    EXPECT_THAT(answer, HasSubstr("Connection: close\r\n"));
    EXPECT_THAT(answer, HasSubstr(R"("causes":[{"reason":")" + std::string(row.word)));
    EXPECT_EQ(rig.log.At(index++).status, std::stoi(std::string(row.status)));
  }
  Peer client = rig.Connect();
  client.Send("POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\nnothex\r\n");
  EXPECT_THAT(client.UntilEnd(), StartsWith("HTTP/1.1 400 "));
  RigOptions small;
  small.server.downstream.parser.head_bytes_max = 1024;
  Rig small_rig({upstream.url()}, small);
  client = small_rig.Connect();
  client.Send("GET / HTTP/1.1\r\nHost: h\r\nX-Large: " + Pattern(3000) + "\r\n\r\n");
  EXPECT_THAT(client.UntilEnd(), StartsWith("HTTP/1.1 431 "));
}

TEST(Exchange, RefusesADelegateThatBreaksHttp) {
  Upstream upstream;
  Rig rig({upstream.url()});
  for (const std::string_view answer : {"HTP/1.1 200 OK\r\n\r\n", "HTTP/1.1 101 Switching Protocols\r\n\r\n",
                                        "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n"}) {
    Peer client = rig.Connect();
    client.Send(kGet);
    Peer server = upstream.Accept();
    server.Head();
    server.Send(answer);
    const std::string told = client.Message();
    EXPECT_THAT(told, StartsWith("HTTP/1.1 502 ")) << answer;
    EXPECT_THAT(told, HasSubstr("delegate_malformed"));
  }
}

TEST(Exchange, TellsThatNobodyListensAndTriesTheNext) {
  Upstream upstream;
  Upstream gone;
  const UpstreamUrl gone_url = gone.url();
  gone.Close();
  Rig rig({gone_url});
  Peer client = rig.Connect();
  client.Send("POST /p HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\n\r\nx");
  const std::string answer = client.Message();
  EXPECT_THAT(answer, StartsWith("HTTP/1.1 502 Bad Gateway\r\n"));
  EXPECT_THAT(answer, HasSubstr("Retry-After: 1\r\n"));
  EXPECT_THAT(answer, HasSubstr("delegate_refused"));
  Rig both({gone_url, upstream.url()});
  for (int i = 0; i < 4; ++i) {
    Peer next = both.Connect();
    next.Send(kGet);
    Peer server = upstream.Accept();
    server.Head();
    server.Send("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n");
    EXPECT_THAT(next.Message(), StartsWith("HTTP/1.1 200 OK"));
  }
}

TEST(Exchange, AnswersWithoutADelegate) {
  HealthChecks checks;
  LocalPaths local(checks, "1.2.3", false);
  Rig rig({}, {}, &local);
  Peer client = rig.Connect();
  client.Send(kGet);
  const std::string answer = client.Message();
  EXPECT_THAT(answer, StartsWith("HTTP/1.1 404 Not Found\r\n"));
  EXPECT_THAT(answer, HasSubstr(R"("reason":"NotFound")"));
  client.Send(Get("/readyz"));
  const std::string ready = client.Message();
  EXPECT_THAT(ready, HasSubstr("Content-Type: text/plain; charset=utf-8\r\n"));
  EXPECT_THAT(ready, ::testing::EndsWith("\r\n\r\nok"));
  client.Send("HEAD /livez HTTP/1.1\r\nHost: h\r\n\r\n");
  EXPECT_THAT(client.Head(), HasSubstr("Content-Length: 2\r\n"));
  client.Send("POST /livez HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n\r\nxx");
  const std::string refused = client.Message();
  EXPECT_THAT(refused, StartsWith("HTTP/1.1 405 "));
  EXPECT_THAT(refused, HasSubstr("Allow: GET, HEAD\r\n"));
  client.Send(Get("/version"));
  EXPECT_THAT(client.Message(), HasSubstr(R"("gitVersion":"v1.2.3")"));
  EXPECT_EQ(rig.log.At(1).route, "local");
}

TEST(Exchange, EndsSlowClientsInTime) {
  Upstream upstream;
  RigOptions options;
  options.server.downstream.header_timeout_ms = 60;
  options.server.downstream.body_timeout_ms = 60;
  options.server.downstream.keep_alive_timeout_ms = 60;
  options.server.downstream.linger_timeout_ms = 20;
  Rig rig({upstream.url()}, options);
  Peer idle = rig.Connect();
  EXPECT_EQ(idle.UntilEnd(), "");
  EXPECT_EQ(rig.log.size(), 0u);

  Peer head = rig.Connect();
  head.Send("GET / HTTP/1.1\r\nHos");
  const std::string late = head.UntilEnd();
  EXPECT_THAT(late, StartsWith("HTTP/1.1 408 "));
  EXPECT_THAT(late, HasSubstr("header_timeout"));

  Peer body = rig.Connect();
  body.Send("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 10\r\n\r\nhalf");
  Peer server = upstream.Accept();
  const std::string stalled = body.UntilEnd();
  EXPECT_THAT(stalled, StartsWith("HTTP/1.1 408 "));
  EXPECT_THAT(stalled, HasSubstr("body_timeout"));
  server.UntilEnd();
}

TEST(Exchange, EndsAClientThatDoesNotRead) {
  Upstream upstream;
  RigOptions options;
  options.server.downstream.send_timeout_ms = 100;
  Rig rig({upstream.url()}, options);
  Peer client = rig.Connect();
  client.Send(kGet);
  Peer server = upstream.Accept();
  server.Head();
  const std::string body = Pattern(32 << 20);
  server.Send("HTTP/1.1 200 OK\r\nContent-Length: " + std::to_string(body.size()) + "\r\n\r\n");
  EXPECT_FALSE(server.Send(body)) << "the delegate is let go when its reader is";
  EXPECT_EQ(rig.log.At(0).reason, Reason::kClientWriteTimeout);
}

TEST(Exchange, EndsASlowDelegateInTime) {
  Upstream upstream;
  RigOptions options;
  options.proxy.upstream.connection.header_timeout_ms = 60;
  options.proxy.upstream.connection.body_timeout_ms = 60;
  Rig rig({upstream.url()}, options);
  Peer client = rig.Connect();
  client.Send(kGet);
  Peer server = upstream.Accept();
  const std::string late = client.Message();
  EXPECT_THAT(late, StartsWith("HTTP/1.1 504 "));
  EXPECT_THAT(late, HasSubstr("delegate_timeout"));
  client.Send(kGet);
  server = upstream.Accept();
  server.Head();
  server.Send("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf");
  EXPECT_THAT(client.UntilEnd(), ::testing::EndsWith("half"));
  EXPECT_EQ(rig.log.At(1).reason, Reason::kDelegateBodyTimeout);
}

TEST(Exchange, QueuesForConnectionsAndShedsBeyond) {
  Upstream upstream;
  RigOptions options;
  options.proxy.upstream.leases_max = 1;
  options.proxy.upstream.waiting_max = 1;
  options.proxy.upstream.waiting_timeout_ms = 0;
  Rig rig({upstream.url()}, options);
  Peer first = rig.Connect();
  first.Send(Get("/1"));
  Peer server = upstream.Accept();
  EXPECT_THAT(server.Head(), StartsWith("GET /1 "));
  Peer second = rig.Connect();
  second.Send(Get("/2"));
  while (rig.metrics().upstream_waiting.value() != 1) std::this_thread::yield();
  Peer third = rig.Connect();
  third.Send(Get("/3"));
  const std::string shed = third.Message();
  EXPECT_THAT(shed, StartsWith("HTTP/1.1 503 "));
  EXPECT_THAT(shed, HasSubstr("delegate_pool_full"));
  EXPECT_THAT(shed, HasSubstr("Retry-After: 1\r\n"));
  server.Send(kOk);
  EXPECT_THAT(first.Message(), ::testing::EndsWith("ok"));
  EXPECT_THAT(server.Head(), StartsWith("GET /2 "));
  server.Send(kOk);
  EXPECT_THAT(second.Message(), ::testing::EndsWith("ok"));
}

TEST(Exchange, ShedsConnectionsBeyondTheLimit) {
  RigOptions options;
  options.server.connections_max = 1;
  Rig rig({}, options);
  Peer first = rig.Connect();
  first.Send(kGet);
  first.Message();
  Peer second = rig.Connect();
  second.Send(kGet);
  const std::string shed = second.UntilEnd();
  EXPECT_THAT(shed, StartsWith("HTTP/1.1 503 "));
  EXPECT_THAT(shed, HasSubstr("connection_limit"));
  first.Send(kGet);
  EXPECT_THAT(first.Message(), StartsWith("HTTP/1.1 404 "));
}

TEST(Exchange, DrainsWithoutLosingWhatIsUnderWay) {
  Upstream upstream;
  Rig rig({upstream.url()});
  Peer idle = rig.Connect();
  Peer busy = rig.Connect();
  busy.Send(kGet);
  Peer server = upstream.Accept();
  server.Head();
  rig.BeginDrain(kPatienceMs);
  EXPECT_EQ(idle.UntilEnd(), "");
  EXPECT_LT(rig.Connect().fd(), 0) << "nobody listens any more";
  server.Send(kOk);
  const std::string answer = busy.UntilEnd();
  EXPECT_THAT(answer, HasSubstr("Connection: close\r\n"));
  EXPECT_THAT(answer, ::testing::EndsWith("ok"));
  rig.FinishDrain();
}

TEST(Exchange, AbortsWhatOutlastsTheDrain) {
  Upstream upstream;
  Rig rig({upstream.url()});
  Peer client = rig.Connect();
  client.Send(kGet);
  Peer server = upstream.Accept();
  server.Head();
  rig.Drain(50);
  EXPECT_EQ(client.UntilEnd(), "");
  EXPECT_EQ(rig.log.At(0).reason, Reason::kShuttingDown);
}

TEST(Exchange, WorksOverUnixSockets) {
  const std::string path = "unix:" + ::testing::TempDir() + "dpa_exchange_" + std::to_string(getpid());
  Upstream upstream(path + "_upstream");
  RigOptions options;
  options.listen = path + "_listen";
  Rig rig({upstream.url()}, options);
  Peer client = rig.Connect();
  client.Send(kGet);
  Peer server = upstream.Accept();
  EXPECT_THAT(server.Head(), Not(HasSubstr("X-Forwarded-For")));
  const std::string body = Pattern(300'000);
  std::thread sender(
      [&] { server.Send("HTTP/1.1 200 OK\r\nContent-Length: " + std::to_string(body.size()) + "\r\n\r\n" + body); });
  client.Head();
  EXPECT_TRUE(client.Exactly(body.size()) == body);
  sender.join();
  client.Send(kGet);
  EXPECT_THAT(server.Head(), StartsWith("GET /a "));
  server.Send(kOk);
  EXPECT_THAT(client.Message(), ::testing::EndsWith("ok"));
  client.Close();
  client = rig.Connect();
  client.Send(kGet);
  server.Head();
  client.Close();
  EXPECT_EQ(server.UntilEnd(), "");
  unlink((path.substr(5) + "_listen").c_str());
}

TEST(Exchange, KeepsGoingWhenReceiveBuffersRunOut) {
  // More requests that wait for their answer than there are receive buffers: their heads move to memory of our own.
  Upstream upstream;
  RigOptions options;
  options.buffers_count = 4;
  Rig rig({upstream.url()}, options);
  std::vector<Peer> clients;
  std::vector<Peer> servers;
  for (int i = 0; i < 24; ++i) {
    clients.push_back(rig.Connect());
    clients.back().Send(Get("/" + std::to_string(i)));
    servers.push_back(upstream.Accept());
    EXPECT_THAT(servers.back().Head(), StartsWith("GET /" + std::to_string(i) + " "));
  }
  for (size_t i = 0; i < servers.size(); ++i) {
    servers[i].Send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n" + std::to_string(10 + i));
  }
  for (size_t i = 0; i < clients.size(); ++i) {
    EXPECT_THAT(clients[i].Message(), ::testing::EndsWith(std::to_string(10 + i)));
  }
}

TEST(Exchange, SendsAServiceToItsHttpBackend) {
  Upstream upstream;
  Upstream delegate;
  Rig rig({delegate.url()});
  RouteTableBuilder builder;
  const std::string url = "http://localhost:" + std::to_string(upstream.address().port()) + "/base/";
  ASSERT_TRUE(builder.Add("GET", "/apis/g.test/v1/namespaces/{ns}/foo",
                          {.type = ServiceType::kRoute, .service_name = "v1.g.test", .backend_url = url}));
  ASSERT_TRUE(builder.Add("GET", "/apis/g.test/v1/namespaces/{ns}/bad",
                          {.type = ServiceType::kRoute, .service_name = "v1.g.test", .backend_url = "https://x"}));
  rig.Publish(builder.Build());
  Peer client = rig.Connect();
  client.Send(Get("/apis/g.test/v1/namespaces/default/foo?x=1"));
  Peer server = upstream.Accept();
  EXPECT_THAT(server.Head(), StartsWith("GET /base/apis/g.test/v1/namespaces/default/foo?x=1 HTTP/1.1\r\n"));
  server.Send(kOk);
  EXPECT_THAT(client.Message(), ::testing::EndsWith("ok"));
  EXPECT_EQ(rig.log.At(0).route, "route");
  client.Send(Get("/apis/g.test/v1/namespaces/default/bad"));
  const std::string answer = client.Message();
  EXPECT_THAT(answer, StartsWith("HTTP/1.1 502 "));
  EXPECT_THAT(answer, HasSubstr("https is not supported yet"));
}

}  // namespace
}  // namespace dpa::test
