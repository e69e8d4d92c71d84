// Goal: the delegate and the log are told who asked, by what number, and never by somebody who may not say so. Method:
// raw requests over a real ring; the delegate is the test, which compares heads byte for byte.

#include <gmock/gmock.h>

#include <string>

#include "tests/http/proxy_rig.h"

namespace dpa::test {
namespace {

using ::testing::HasSubstr;
using ::testing::MatchesRegex;
using ::testing::Not;
using ::testing::StartsWith;
using namespace std::string_literals;

constexpr std::string_view kOk = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
constexpr std::string_view kTraceparent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

CidrSet Networks(std::initializer_list<std::string_view> texts) {
  CidrSet set;
  for (const std::string_view text : texts) set.Add(*Cidr::Parse(text));
  return set;
}

// Ids are switched off where a test is not about them, so that heads can be compared in full.
RigOptions WithoutIds() {
  RigOptions options;
  options.server.downstream.identity.request_ids = false;
  options.server.downstream.identity.trace_contexts = false;
  return options;
}

RigOptions Trusting(std::initializer_list<std::string_view> networks) {
  RigOptions options = WithoutIds();
  options.server.downstream.identity.trusted_proxies = Networks(networks);
  return options;
}

RigOptions Announced(std::initializer_list<std::string_view> networks = {"127.0.0.0/8"}) {
  RigOptions options = WithoutIds();
  options.server.downstream.identity.proxy_protocol_from = Networks(networks);
  return options;
}

std::string ValueOf(const std::string& head, const std::string& name) {
  const size_t at = head.find("\r\n" + name + ": ");
  if (at == std::string::npos) return "(none)";
  const size_t begin = at + name.size() + 4;
  return head.substr(begin, head.find("\r\n", begin) - begin);
}

size_t CountOf(const std::string& text, const std::string& part) {
  size_t count = 0;
  for (size_t at = text.find(part); at != std::string::npos; at = text.find(part, at + 1)) ++count;
  return count;
}

// One exchange: what the delegate got, what the client got.
struct Seen {
  std::string request;
  std::string answer;
};

class Conversation {
 public:
  explicit Conversation(const RigOptions& options) : rig({upstream.url()}, options), client(rig.Connect()) {}

  Seen Exchange(const std::string& bytes, std::string_view answer = kOk) {
    client.Send(bytes);
    if (server.fd() < 0) server = upstream.Accept();
    Seen seen{server.Head(), ""};
    server.Send(answer);
    seen.answer = client.Message();
    return seen;
  }

  Upstream upstream;
  Rig rig;
  Peer client;
  Peer server;
};

const std::string kSaid =
    "GET /a HTTP/1.1\r\nHost: h\r\nX-Forwarded-For: 203.0.113.9, 192.0.2.7, 10.0.0.2\r\nX-Forwarded-Proto: https\r\n"
    "X-Forwarded-Host: public.example\r\nForwarded: for=6.6.6.6\r\nX-Real-IP: 6.6.6.6\r\nX-Remote-User: root\r\n"
    "X-WEBAUTH-USER: admin\r\nAccept: */*\r\n\r\n";

TEST(Identity, OfAStrangersRequestIsItsOwn) {
  Conversation talk(WithoutIds());
  EXPECT_EQ(talk.Exchange(kSaid).request,
            "GET /a HTTP/1.1\r\nHost: h\r\nAccept: */*\r\nX-Forwarded-For: 127.0.0.1\r\nX-Forwarded-Proto: http\r\n"
            "X-Forwarded-Host: h\r\nVia: 1.1 dpa\r\n\r\n");
  EXPECT_THAT(talk.rig.log.At(0).client, MatchesRegex("127\\.0\\.0\\.1:[0-9]+"));
}

TEST(Identity, OfATrustedProxysRequestIsWhatTheProxySays) {
  Conversation talk(Trusting({"127.0.0.0/8", "10.0.0.0/8"}));
  EXPECT_EQ(talk.Exchange(kSaid).request,
            "GET /a HTTP/1.1\r\nHost: h\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Host: public.example\r\n"
            "X-Real-IP: 6.6.6.6\r\nAccept: */*\r\n"
            "X-Forwarded-For: 203.0.113.9, 192.0.2.7, 10.0.0.2, 127.0.0.1\r\nVia: 1.1 dpa\r\n\r\n");
  EXPECT_EQ(talk.rig.log.At(0).client, "192.0.2.7");
  // The next request on the connection has a client of its own.
  talk.Exchange("GET /b HTTP/1.1\r\nHost: h\r\nX-Forwarded-For: 2001:DB8::9\r\n\r\n");
  EXPECT_EQ(talk.rig.log.At(1).client, "2001:db8::9");
  talk.Exchange("GET /c HTTP/1.1\r\nHost: h\r\n\r\n");
  EXPECT_THAT(talk.rig.log.At(2).client, StartsWith("127.0.0.1:"));
}

TEST(Identity, OfAnAddressThatIsNotInTheListIsNotBelieved) {
  Conversation talk(Trusting({"10.0.0.0/8", "127.0.0.2", "unix"}));
  EXPECT_EQ(ValueOf(talk.Exchange(kSaid).request, "X-Forwarded-For"), "127.0.0.1");
  EXPECT_THAT(talk.rig.log.At(0).client, StartsWith("127.0.0.1:"));
}

TEST(Identity, OfAUnixSocketsPeerIsBelievedOnlyIfListed) {
  for (const bool trusted : {false, true}) {
    RigOptions options = trusted ? Trusting({"unix"}) : Trusting({"0.0.0.0/0", "::/0"});
    options.listen = "unix:/tmp/dpa_identity_" + std::to_string(getpid()) + ".sock";
    Conversation talk(options);
    const std::string head =
        talk.Exchange("GET / HTTP/1.1\r\nHost: h\r\nX-Forwarded-For: 192.0.2.7\r\nX-Forwarded-Proto: https\r\n\r\n")
            .request;
    EXPECT_EQ(ValueOf(head, "X-Forwarded-For"), trusted ? "192.0.2.7" : "(none)");
    EXPECT_EQ(ValueOf(head, "X-Forwarded-Proto"), trusted ? "https" : "http");
    EXPECT_EQ(talk.rig.log.At(0).client, trusted ? "192.0.2.7" : "");
    unlink(options.listen.substr(5).c_str());
  }
}

TEST(Identity, CanBeSaidByForwardedInstead) {
  RigOptions options = Trusting({"127.0.0.0/8", "10.0.0.0/8"});
  options.server.downstream.identity.forwarded_header = ForwardedHeader::kForwarded;
  Conversation talk(options);
  const std::string request =
      "GET /a HTTP/1.1\r\nHost: h:8080\r\nX-Forwarded-For: 6.6.6.6\r\nX-Forwarded-Proto: ftp\r\n"
      "Forwarded: for=5.5.5.5, for=192.0.2.7;proto=https;host=public.example\r\nForwarded: for=\"10.0.0.2:80\"\r\n\r\n";
  EXPECT_EQ(talk.Exchange(request).request,
            "GET /a HTTP/1.1\r\nHost: h:8080\r\nX-Forwarded-For: 192.0.2.7, 127.0.0.1\r\nX-Forwarded-Proto: https\r\n"
            "X-Forwarded-Host: public.example\r\n"
            "Forwarded: for=5.5.5.5, for=192.0.2.7;proto=https;host=public.example, for=\"10.0.0.2:80\", "
            "for=127.0.0.1;host=\"h:8080\";proto=http\r\nVia: 1.1 dpa\r\n\r\n");
  EXPECT_EQ(talk.rig.log.At(0).client, "192.0.2.7");
}

TEST(Identity, IsNotSmuggledInTrailers) {
  Conversation talk(Trusting({"127.0.0.0/8"}));
  talk.client.Send(
      "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\nX-Remote-User: root\r\n"
      "x_remote_group: system:masters\r\nX_Webauth_User: admin\r\nX-Forwarded-For: 6.6.6.6\r\nX_Forwarded_For: "
      "6.6.6.6\r\n"
      "X-Real-Ip: 6.6.6.6\r\nForwarded: for=6.6.6.6\r\nX-Request-Id: fake\r\nTraceparent: fake\r\nTracestate: fake\r\n"
      "X-Checksum: kept\r\n\r\n");
  talk.server = talk.upstream.Accept();
  talk.server.Head();
  EXPECT_EQ(talk.server.Until("\r\n\r\n"), "1\r\nx\r\n0\r\nX-Checksum: kept\r\n\r\n");
  talk.server.Send(kOk);
  EXPECT_THAT(talk.client.Message(), StartsWith("HTTP/1.1 200 OK\r\n"));
}

// --- Ids ---

TEST(RequestId, IsMadeForStrangersAndGoesBothWaysAndIntoTheLog) {
  Conversation talk({});
  const Seen seen = talk.Exchange("GET / HTTP/1.1\r\nHost: h\r\nX-Request-Id: mine\r\n\r\n");
  const std::string id = ValueOf(seen.request, "X-Request-Id");
  EXPECT_THAT(id, MatchesRegex("[0-9a-f]+"));
  EXPECT_EQ(id.size(), 32u);
  EXPECT_EQ(CountOf(seen.request, "X-Request-Id"), 1u);
  EXPECT_EQ(ValueOf(seen.answer, "X-Request-Id"), id);
  EXPECT_EQ(talk.rig.log.At(0).request_id, id);
  EXPECT_NE(ValueOf(talk.Exchange("GET / HTTP/1.1\r\nHost: h\r\n\r\n").request, "X-Request-Id"), id);
}

TEST(RequestId, OfATrustedProxyIsKeptIfItIsWellFormed) {
  RigOptions options;
  options.server.downstream.identity.trusted_proxies = Networks({"127.0.0.1"});
  Conversation talk(options);
  const std::string begin = "GET / HTTP/1.1\r\nHost: h\r\n";
  // The delegate's own idea of it does not replace the one in our log.
  const Seen kept = talk.Exchange(begin + "x-request-id: Root=1-67891233\r\n\r\n",
                                  "HTTP/1.1 200 OK\r\nX-Request-Id: other\r\nContent-Length: 2\r\n\r\nok");
  EXPECT_EQ(ValueOf(kept.request, "X-Request-Id"), "Root=1-67891233");
  EXPECT_EQ(ValueOf(kept.answer, "X-Request-Id"), "Root=1-67891233");
  EXPECT_EQ(CountOf(kept.answer, "X-Request-Id"), 1u);
  EXPECT_EQ(talk.rig.log.At(0).request_id, "Root=1-67891233");
  for (const std::string& bad :
       {"X-Request-Id: a b\r\n"s, "X-Request-Id: a\"b\r\n"s, "X-Request-Id:\r\n"s,
        "X-Request-Id: " + std::string(129, 'x') + "\r\n", "X-Request-Id: a\r\nX-Request-Id: b\r\n"s}) {
    EXPECT_THAT(ValueOf(talk.Exchange(begin + bad + "\r\n").request, "X-Request-Id"), MatchesRegex("[0-9a-f]+")) << bad;
  }
  // Nor can it be lost by naming it in Connection.
  const Seen named = talk.Exchange(begin + "Connection: x-request-id\r\nX-Request-Id: abc\r\n\r\n");
  EXPECT_EQ(ValueOf(named.request, "X-Request-Id"), "abc");
}

TEST(RequestId, StandsInOurOwnAnswersToo) {
  Rig rig({});
  Peer client = rig.Connect();
  client.Send("GET / HTTP/1.1\r\nHost: h\r\n\r\n");
  const std::string not_found = client.Message();
  EXPECT_THAT(not_found, StartsWith("HTTP/1.1 404 "));
  EXPECT_EQ(ValueOf(not_found, "X-Request-Id"), rig.log.At(0).request_id);
  client.Send("GET / HTTP/1.1\r\nHost : h\r\n\r\n");
  const std::string refused = client.Message();
  EXPECT_THAT(refused, StartsWith("HTTP/1.1 400 "));
  EXPECT_EQ(ValueOf(refused, "X-Request-Id"), rig.log.At(1).request_id);
  EXPECT_EQ(rig.log.At(1).request_id.size(), 32u);
}

TEST(RequestId, IsLeftAloneWhenSwitchedOff) {
  Conversation talk(WithoutIds());
  const Seen seen = talk.Exchange("GET / HTTP/1.1\r\nHost: h\r\nX-Request-Id: mine\r\n\r\n",
                                  "HTTP/1.1 200 OK\r\nX-Request-Id: theirs\r\nContent-Length: 2\r\n\r\nok");
  EXPECT_EQ(ValueOf(seen.request, "X-Request-Id"), "mine");
  EXPECT_EQ(ValueOf(seen.answer, "X-Request-Id"), "theirs");
  EXPECT_EQ(talk.rig.log.At(0).request_id, "");
}

TEST(TraceContext, GoesOnAsItIsWhenItIsValid) {
  Conversation talk({});
  const std::string fields = "Traceparent: " + std::string(kTraceparent) + "\r\ntracestate: a=1\r\ntracestate: b=2\r\n";
  const std::string head = talk.Exchange("GET / HTTP/1.1\r\nHost: h\r\n" + fields + "\r\n").request;
  EXPECT_EQ(ValueOf(head, "traceparent"), kTraceparent);
  EXPECT_THAT(head, HasSubstr("tracestate: a=1\r\ntracestate: b=2\r\n"));
  EXPECT_THAT(head, Not(HasSubstr("Traceparent")));
  EXPECT_EQ(talk.rig.log.At(0).trace_id, "0af7651916cd43dd8448eb211c80319c");
}

TEST(TraceContext, BeginsAnewWhereItIsNotValid) {
  Conversation talk({});
  const std::string valid = "traceparent: " + std::string(kTraceparent) + "\r\n";
  size_t record = 0;
  for (const std::string& fields : {""s, "traceparent: 00-xyz\r\n"s, valid + valid, "traceparent:\r\n"s,
                                    "Traceparent: " + std::string(kTraceparent) + "-x\r\n"}) {
    const std::string head =
        talk.Exchange("GET / HTTP/1.1\r\nHost: h\r\nTracestate: a=1\r\n" + fields + "\r\n").request;
    const std::string made = ValueOf(head, "traceparent");
    EXPECT_THAT(made, MatchesRegex("00-[0-9a-f]+-[0-9a-f]+-00")) << fields;
    EXPECT_EQ(made.size(), 55u);
    EXPECT_NE(made.substr(3, 32), kTraceparent.substr(3, 32));
    EXPECT_EQ(CountOf(head, "raceparent"), 1u) << head;
    EXPECT_THAT(head, Not(HasSubstr("racestate")));
    EXPECT_EQ(talk.rig.log.At(record++).trace_id, made.substr(3, 32));
  }
}

TEST(TraceContext, IsLeftAloneWhenItIsOnlyToBePassed) {
  Conversation talk(WithoutIds());
  const std::string broken =
      talk.Exchange("GET / HTTP/1.1\r\nHost: h\r\ntraceparent: x\r\ntracestate: a=1\r\n\r\n").request;
  EXPECT_THAT(broken, HasSubstr("\r\ntraceparent: x\r\ntracestate: a=1\r\n"));
  EXPECT_EQ(talk.rig.log.At(0).trace_id, "");
  const std::string none = talk.Exchange("GET / HTTP/1.1\r\nHost: h\r\n\r\n").request;
  EXPECT_THAT(none, Not(HasSubstr("trace")));
  const std::string fields = "traceparent: " + std::string(kTraceparent) + "\r\n";
  EXPECT_THAT(talk.Exchange("GET / HTTP/1.1\r\nHost: h\r\n" + fields + "\r\n").request, HasSubstr(fields));
  EXPECT_EQ(talk.rig.log.At(2).trace_id, "0af7651916cd43dd8448eb211c80319c");
}

// Goal: the ids of a tunnel's record are its own. Method: a tunnel that outlives the buffer in which its head came.
TEST(RequestId, OfATunnelIsKnownAtItsEnd) {
  RigOptions options;
  options.server.downstream.identity.trusted_proxies = Networks({"127.0.0.1"});
  options.buffers_count = 16;
  Conversation talk(options);
  talk.client.Send(
      "GET /ws HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nX-Request-Id: of-the-tunnel\r\n"
      "traceparent: " +
      std::string(kTraceparent) + "\r\n\r\n");
  talk.server = talk.upstream.Accept();
  EXPECT_EQ(ValueOf(talk.server.Head(), "X-Request-Id"), "of-the-tunnel");
  talk.server.Send("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n");
  EXPECT_EQ(ValueOf(talk.client.Head(), "X-Request-Id"), "of-the-tunnel");
  for (int i = 0; i < 64; ++i) {
    talk.client.Send(std::string(4096, 'z'));
    EXPECT_EQ(talk.server.Exactly(4096), std::string(4096, 'z'));
  }
  talk.client.Close();
  talk.server.UntilEnd();
  talk.server.Close();
  const RecordedLog::Entry record = talk.rig.log.At(0);
  EXPECT_EQ(record.request_id, "of-the-tunnel");
  EXPECT_EQ(record.trace_id, "0af7651916cd43dd8448eb211c80319c");
}

// --- The PROXY protocol ---

const std::string kLine = "PROXY TCP4 192.0.2.1 198.51.100.1 56324 443\r\n";
const std::string kGet = "GET /a HTTP/1.1\r\nHost: h\r\n\r\n";

std::string Version2(char command, char family, const std::string& behind) {
  return std::string("\r\n\r\n\0\r\nQUIT\n", 12) + command + family + '\0' + static_cast<char>(behind.size()) + behind;
}
const std::string kFour = "\xC0\x00\x02\x01\xC6\x33\x64\x01\xDC\x04\x01\xBB"s;

TEST(ProxyHeader, MakesTheAnnouncedAddressThePeers) {
  const struct {
    std::string header, forwarded_for, client;
  } rows[] = {
      {kLine, "192.0.2.1", "192.0.2.1:56324"},
      {"PROXY TCP6 2001:db8::1 2001:db8::2 4660 80\r\n", "2001:db8::1", "[2001:db8::1]:4660"},
      {Version2(0x21, 0x11, kFour), "192.0.2.1", "192.0.2.1:56324"},
      {Version2(0x21, 0x11, kFour + "\x04\x00\x03pad"s), "192.0.2.1", "192.0.2.1:56324"},
  };
  for (const auto& row : rows) {
    Conversation talk(Announced());
    EXPECT_EQ(talk.Exchange(row.header + kGet).request,
              "GET /a HTTP/1.1\r\nHost: h\r\nX-Forwarded-For: " + row.forwarded_for +
                  "\r\nX-Forwarded-Proto: http\r\nX-Forwarded-Host: h\r\nVia: 1.1 dpa\r\n\r\n");
    EXPECT_EQ(talk.rig.log.At(0).client, row.client);
    // It is said once, for all requests of the connection.
    EXPECT_EQ(ValueOf(talk.Exchange(kGet).request, "X-Forwarded-For"), row.forwarded_for);
    EXPECT_EQ(talk.rig.log.At(1).client, row.client);
  }
}

TEST(ProxyHeader, LeavesThePeerWhereItNamesNobody) {
  for (const std::string& header : {"PROXY UNKNOWN\r\n"s, Version2(0x20, 0x00, ""), Version2(0x21, 0x00, "")}) {
    Conversation talk(Announced());
    EXPECT_EQ(ValueOf(talk.Exchange(header + kGet).request, "X-Forwarded-For"), "127.0.0.1");
    EXPECT_THAT(talk.rig.log.At(0).client, StartsWith("127.0.0.1:"));
  }
  // A client of the proxy's unix socket is nobody that we know.
  Conversation talk(Announced());
  const std::string paths(216, '/');
  const std::string local = std::string("\r\n\r\n\0\r\nQUIT\n", 12) + "\x21\x31" + '\0' + "\xD8" + paths;
  EXPECT_EQ(ValueOf(talk.Exchange(local + kGet).request, "X-Forwarded-For"), "(none)");
  EXPECT_EQ(talk.rig.log.At(0).client, "");
}

TEST(ProxyHeader, MayComeInPiecesOfAnySize) {
  for (const std::string& header : {kLine, Version2(0x21, 0x11, kFour)}) {
    const std::string bytes = header + kGet;
    // Two pieces, cut at every place; then single bytes.
    for (size_t cut = 1; cut < header.size() + 3; ++cut) {
      Conversation talk(Announced());
      talk.client.Send(std::string_view(bytes).substr(0, cut));
      std::this_thread::sleep_for(std::chrono::milliseconds(2));  // So that it is two; nothing depends on it.
      EXPECT_EQ(ValueOf(talk.Exchange(bytes.substr(cut)).request, "X-Forwarded-For"), "192.0.2.1") << cut;
    }
    Conversation talk(Announced());
    for (const char byte : header) {
      talk.client.Send({&byte, 1});
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
    EXPECT_EQ(ValueOf(talk.Exchange(kGet).request, "X-Forwarded-For"), "192.0.2.1");
    EXPECT_EQ(talk.rig.log.At(0).client, "192.0.2.1:56324");
  }
}

TEST(ProxyHeader, IsJudgedByTheAddressThatItAnnounces) {
  RigOptions options = Announced();
  options.server.downstream.identity.trusted_proxies = Networks({"192.0.2.1"});
  Conversation trusted(options);
  const std::string asked = "GET / HTTP/1.1\r\nHost: h\r\nX-Forwarded-For: 203.0.113.9\r\n\r\n";
  EXPECT_EQ(ValueOf(trusted.Exchange(kLine + asked).request, "X-Forwarded-For"), "203.0.113.9, 192.0.2.1");
  EXPECT_EQ(trusted.rig.log.At(0).client, "203.0.113.9");
  // The one that only relays the connection says nothing in HTTP, trusted or not.
  options.server.downstream.identity.trusted_proxies = Networks({"127.0.0.1"});
  Conversation relayed(options);
  EXPECT_EQ(ValueOf(relayed.Exchange(kLine + asked).request, "X-Forwarded-For"), "192.0.2.1");
}

TEST(ProxyHeader, ThatIsMissingOrBrokenEndsTheConnection) {
  Upstream upstream;
  RigOptions options = Announced();
  options.server.downstream.header_timeout_ms = 300;
  Rig rig({upstream.url()}, options);
  size_t record = 0;
  for (const std::string& bytes :
       {kGet, "PROXY TCP4 192.0.2.1 198.51.100.1 56324\r\n" + kGet, "\r\n" + kLine + kGet,
        Version2(0x21, 0x11, kFour + "\x03\x00\x04\x01\x02\x03\x04"s) + kGet,
        Version2(0x21, 0x11, kFour.substr(1)) + kGet, "PROXY TCP4 192.0.2.1"s, "PROXY TCP4 " + std::string(300, '1')}) {
    Peer client = rig.Connect();
    client.Send(bytes);
    if (bytes == "PROXY TCP4 192.0.2.1") shutdown(client.fd(), SHUT_WR);  // It ends in the middle.
    EXPECT_EQ(client.UntilEnd(), "") << bytes;
    const RecordedLog::Entry entry = rig.log.At(record++);
    EXPECT_EQ(entry.reason, Reason::kBadProxyHeader) << bytes;
    EXPECT_EQ(entry.status, 400);
    EXPECT_THAT(entry.client, StartsWith("127.0.0.1:"));
  }
  // Silence, and a part of a header and then silence.
  for (const std::string_view bytes : {"", "PROXY TCP4 "}) {
    Peer client = rig.Connect();
    client.Send(bytes);
    EXPECT_EQ(client.UntilEnd(), "");
    EXPECT_EQ(rig.log.At(record++).reason, Reason::kBadProxyHeader);
  }
  EXPECT_TRUE(upstream.NobodyConnectsFor(0));
  // Who connects and leaves, as health checks do, is not worth a record; nor are those whom the drain ends.
  {
    Peer check = rig.Connect();
  }
  Peer waiting = rig.Connect();
  rig.Drain(10'000);
  EXPECT_EQ(rig.log.size(), record);
}

TEST(ProxyHeader, OfOthersIsNoHeader) {
  Upstream upstream;
  Rig rig({upstream.url()}, Announced({"10.0.0.0/8", "unix"}));
  size_t record = 0;
  for (const std::string& header : {kLine, Version2(0x21, 0x11, kFour)}) {
    Peer client = rig.Connect();
    client.Send(header + kGet);
    EXPECT_THAT(client.UntilEnd(), StartsWith("HTTP/1.1 400 "));
    EXPECT_EQ(rig.log.At(record++).reason, Reason::kBadRequest);
  }
  // Nor is one that follows the first.
  Conversation talk(Announced());
  talk.client.Send(kLine + kLine + kGet);
  EXPECT_THAT(talk.client.UntilEnd(), StartsWith("HTTP/1.1 400 "));
}

TEST(ProxyHeader, CanBeAskedOfUnixSocketsPeers) {
  RigOptions options = Announced({"unix"});
  options.listen = "unix:/tmp/dpa_proxy_header_" + std::to_string(getpid()) + ".sock";
  Conversation talk(options);
  EXPECT_EQ(ValueOf(talk.Exchange(kLine + kGet).request, "X-Forwarded-For"), "192.0.2.1");
  unlink(options.listen.substr(5).c_str());
}

}  // namespace
}  // namespace dpa::test
