// What of a head reaches the other side. Heads are parsed from bytes, as in production.

#include "http/header_rewrite.h"

#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <vector>

#include "http/message_parser.h"

namespace dpa {
namespace {

struct Parsed {
  explicit Parsed(MessageParser::Role role, std::string head, std::string_view method = "GET")
      : bytes(std::move(head)), parser(role, ParserLimits{}) {
    if (role == MessageParser::Role::kResponse) parser.SetRequestMethod(method);
    EXPECT_EQ(parser.Feed(bytes), ParseStatus::kComplete) << ReasonOf(parser.violation());
  }
  std::string bytes;
  MessageParser parser;
};

Parsed Request(const std::string& fields, const std::string& line = "GET /a?b HTTP/1.1") {
  return Parsed(MessageParser::Role::kRequest, line + "\r\n" + fields + "\r\n");
}

std::string ForwardedRequest(const std::string& fields, const RequestForwarding& forward,
                             const std::string& line = "GET /a?b HTTP/1.1") {
  const Parsed request = Request(fields, line);
  char region[4096];
  HeadWriter writer(region, sizeof region);
  WriteRequestHead(writer, request.parser.request(), forward);
  EXPECT_FALSE(writer.failed());
  return std::string(writer.written());
}

constexpr RequestForwarding kFromClient{.peer_address = "192.0.2.7"};
constexpr RequestForwarding kFromProxy{.peer_address = "192.0.2.7", .peer_trusted = true};
const std::string kOurs =
    "X-Forwarded-For: 192.0.2.7\r\nX-Forwarded-Proto: http\r\nX-Forwarded-Host: h\r\nVia: 1.1 dpa\r\n";

TEST(RequestHead, KeepsWhatItNeedNotTouch) {
  const std::string fields =
      "X-Zed: 1\r\nhOST: h\r\nAccept: a, b\r\nCookie: c=d; e=\"f\"\r\naccept: g\r\nAuthorization: Bearer x\r\n";
  EXPECT_EQ(ForwardedRequest(fields, kFromClient), "GET /a?b HTTP/1.1\r\n" + fields + kOurs + "\r\n");
}

TEST(RequestHead, LosesWhatBelongsToTheConnection) {
  EXPECT_EQ(
      ForwardedRequest(
          "Host: h\r\nConnection: X-Hop, keep-alive\r\nKeep-Alive: timeout=5\r\nx-hop: 1\r\nProxy-Connection: x\r\n"
          "TE: gzip\r\nUpgrade: websocket\r\nConnection: other\r\nOther: 2\r\nTrailer: x\r\nStays: 3\r\n",
          kFromClient),
      "GET /a?b HTTP/1.1\r\nHost: h\r\nStays: 3\r\n" + kOurs + "\r\n");
}

TEST(RequestHead, KeepsTeTrailersAndNamesIt) {
  EXPECT_EQ(ForwardedRequest("Host: h\r\nTE: deflate, trailers\r\nConnection: TE\r\n", kFromClient),
            "GET /a?b HTTP/1.1\r\nHost: h\r\n" + kOurs + "TE: trailers\r\nConnection: TE\r\n\r\n");
}

TEST(RequestHead, PassesAnUpgradeOnOnlyWhenAsked) {
  const std::string fields = "Host: h\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: k\r\n";
  EXPECT_EQ(ForwardedRequest(fields, kFromClient), "GET /a?b HTTP/1.1\r\nHost: h\r\nSec-WebSocket-Key: k\r\n" + kOurs +
                                                       "Upgrade: websocket\r\nConnection: Upgrade\r\n\r\n");
  RequestForwarding without = kFromClient;
  without.forward_upgrade = false;
  EXPECT_EQ(ForwardedRequest(fields, without),
            "GET /a?b HTTP/1.1\r\nHost: h\r\nSec-WebSocket-Key: k\r\n" + kOurs + "\r\n");
}

TEST(RequestHead, CarriesOurOwnFraming) {
  EXPECT_EQ(ForwardedRequest("Host: h\r\ncontent-length: 007\r\n", kFromClient, "POST / HTTP/1.1"),
            "POST / HTTP/1.1\r\nHost: h\r\n" + kOurs + "Content-Length: 7\r\n\r\n");
  EXPECT_EQ(
      ForwardedRequest("Host: h\r\ntransfer-encoding: CHUNKED\r\nTrailer: Digest\r\n", kFromClient, "POST / HTTP/1.1"),
      "POST / HTTP/1.1\r\nHost: h\r\nTrailer: Digest\r\n" + kOurs + "Transfer-Encoding: chunked\r\n\r\n");
  // A client cannot take the length away by calling it its connection's.
  EXPECT_EQ(ForwardedRequest("Host: h\r\nConnection: content-length, host\r\nContent-Length: 1\r\n", kFromClient,
                             "POST / HTTP/1.1"),
            "POST / HTTP/1.1\r\nHost: h\r\n" + kOurs + "Content-Length: 1\r\n\r\n");
}

TEST(RequestHead, NeverCarriesAnIdentityThatAClientMadeUp) {
  const std::string fields =
      "Host: h\r\nX-Remote-User: root\r\nx_remote_group: system:masters\r\nX-REMOTE-EXTRA-Scopes: all\r\nX-Remote-Uid: "
      "0\r\n"
      "X-Remote-Extra_a: b\r\n";
  EXPECT_EQ(ForwardedRequest(fields, kFromClient), "GET /a?b HTTP/1.1\r\nHost: h\r\n" + kOurs + "\r\n");
  EXPECT_EQ(ForwardedRequest(fields, kFromProxy), "GET /a?b HTTP/1.1\r\nHost: h\r\n" + kOurs + "\r\n");
  // Grafana's, from trusted peers as well: who authenticates there passes its credentials on.
  const std::string grafana =
      "Host: h\r\nX-WEBAUTH-USER: admin\r\nx_webauth_role: Admin\r\nX-Grafana-Id: x\r\nX_Grafana-User: admin\r\n"
      "X-Access-Token: t\r\nx-access_token: t\r\nX-Remote-Userx: kept\r\nX-Grafana-Org-Id: 1\r\nX-Panel-Id: 2\r\nX: "
      "y\r\n";
  const std::string kept = "X-Remote-Userx: kept\r\nX-Grafana-Org-Id: 1\r\nX-Panel-Id: 2\r\nX: y\r\n";
  EXPECT_EQ(ForwardedRequest(grafana, kFromClient), "GET /a?b HTTP/1.1\r\nHost: h\r\n" + kept + kOurs + "\r\n");
  EXPECT_EQ(ForwardedRequest(grafana, kFromProxy), "GET /a?b HTTP/1.1\r\nHost: h\r\n" + kept + kOurs + "\r\n");
  // Calling it a field of the connection changes nothing.
  EXPECT_EQ(ForwardedRequest("Host: h\r\nConnection: X-Remote-User\r\nX-Remote-User: root\r\n", kFromProxy),
            "GET /a?b HTTP/1.1\r\nHost: h\r\n" + kOurs + "\r\n");
}

TEST(RequestHead, ReplacesWhatAStrangerSaysAboutTheClient) {
  EXPECT_EQ(
      ForwardedRequest("Host: h\r\nX-Forwarded-For: 1.1.1.1\r\nForwarded: for=1.1.1.1\r\nX-Forwarded-Proto: https\r\n"
                       "x_forwarded_host: evil\r\nX-Forwarded-Port: 1\r\nX-Real-IP: 1.1.1.1\r\nx_real_ip: 1.1.1.1\r\n",
                       kFromClient),
      "GET /a?b HTTP/1.1\r\nHost: h\r\n" + kOurs + "\r\n");
}

TEST(RequestHead, AppendsToWhatATrustedProxySays) {
  EXPECT_EQ(
      ForwardedRequest(
          "Host: h\r\nX-Forwarded-For: 1.1.1.1, 2.2.2.2\r\nX-Forwarded-Proto: https\r\nX-Forwarded-For: 3.3.3.3\r\n"
          "Via: 1.0 edge\r\nX-Real-IP: 1.1.1.1\r\n",
          kFromProxy),
      "GET /a?b HTTP/1.1\r\nHost: h\r\nX-Forwarded-Proto: https\r\nVia: 1.0 edge\r\nX-Real-IP: 1.1.1.1\r\n"
      "X-Forwarded-For: 1.1.1.1, 2.2.2.2, 3.3.3.3, 192.0.2.7\r\nX-Forwarded-Host: h\r\nVia: 1.1 dpa\r\n\r\n");
}

// A proxy that writes X-Forwarded-For lets its clients' Forwarded through as a rule, and '_' spellings always.
TEST(RequestHead, LosesWhatATrustedProxyDoesNotSay) {
  EXPECT_EQ(ForwardedRequest("Host: h\r\nForwarded: for=6.6.6.6\r\nx_forwarded_proto: https\r\nX_Real_IP: 6.6.6.6\r\n",
                             kFromProxy),
            "GET /a?b HTTP/1.1\r\nHost: h\r\n" + kOurs + "\r\n");
}

TEST(RequestHead, CannotLoseForwardingFieldsThroughConnection) {
  const std::string fields =
      "Host: h\r\nConnection: X-Forwarded-For, X-Forwarded-Proto, Via, X-Request-Id\r\nX-Forwarded-For: 1.1.1.1\r\n"
      "X-Forwarded-Proto: https\r\n";
  EXPECT_EQ(ForwardedRequest(fields, kFromClient), "GET /a?b HTTP/1.1\r\nHost: h\r\n" + kOurs + "\r\n");
  EXPECT_EQ(ForwardedRequest(fields, kFromProxy),
            "GET /a?b HTTP/1.1\r\nHost: h\r\nX-Forwarded-Proto: https\r\nX-Forwarded-For: 1.1.1.1, 192.0.2.7\r\n"
            "X-Forwarded-Host: h\r\nVia: 1.1 dpa\r\n\r\n");
}

TEST(RequestHead, SpeaksRfc7239WhereThatIsChosen) {
  RequestForwarding stranger = kFromClient;
  stranger.header = ForwardedHeader::kForwarded;
  const std::string fields =
      "Host: h:8080\r\nForwarded: for=1.1.1.1;proto=https;host=a\r\nX-Forwarded-For: 6.6.6.6\r\nX-Forwarded-Proto: "
      "ftp\r\n";
  EXPECT_EQ(ForwardedRequest(fields, stranger),
            "GET /a?b HTTP/1.1\r\nHost: h:8080\r\nX-Forwarded-For: 192.0.2.7\r\nX-Forwarded-Proto: http\r\n"
            "X-Forwarded-Host: h:8080\r\nForwarded: for=192.0.2.7;host=\"h:8080\";proto=http\r\nVia: 1.1 dpa\r\n\r\n");
  RequestForwarding proxy = stranger;
  proxy.peer_trusted = true;
  proxy.said = {"1.1.1.1", "https", "a"};
  EXPECT_EQ(ForwardedRequest(fields, proxy),
            "GET /a?b HTTP/1.1\r\nHost: h:8080\r\nX-Forwarded-For: 1.1.1.1, 192.0.2.7\r\nX-Forwarded-Proto: https\r\n"
            "X-Forwarded-Host: a\r\nForwarded: for=1.1.1.1;proto=https;host=a, "
            "for=192.0.2.7;host=\"h:8080\";proto=http\r\nVia: 1.1 dpa\r\n\r\n");
  RequestForwarding six = stranger;
  six.peer_address = "2001:db8::1";
  EXPECT_NE(ForwardedRequest("Host: h\r\n", six).find("Forwarded: for=\"[2001:db8::1]\";host=h;proto=http\r\n"),
            std::string::npos);
  RequestForwarding local = stranger;
  local.peer_address = "";
  EXPECT_NE(ForwardedRequest("Host: h\r\n", local).find("\r\nForwarded: for=unknown;host=h;proto=http\r\n"),
            std::string::npos);
}

TEST(RequestHead, LosesATracestateWithoutItsTraceparent) {
  RequestForwarding forward = kFromClient;
  const std::string fields = "Host: h\r\nTracestate: a=b\r\n";
  EXPECT_EQ(ForwardedRequest(fields, forward), "GET /a?b HTTP/1.1\r\n" + fields + kOurs + "\r\n");
  forward.drop_tracestate = true;
  EXPECT_EQ(ForwardedRequest(fields, forward), "GET /a?b HTTP/1.1\r\nHost: h\r\n" + kOurs + "\r\n");
}

TEST(RequestHead, FitsIntoWhatIsReservedForIt) {
  const std::string host(2000, 'h');
  const HeaderField added[] = {{"traceparent", std::string_view(host).substr(0, 55)}, {"X-Request-Id", "x"}};
  for (const ForwardedHeader header : {ForwardedHeader::kXForwarded, ForwardedHeader::kForwarded}) {
    RequestForwarding forward{.peer_address = "1111:2222:3333:4444:5555:6666:7777:8888",
                              .proto = "https",
                              .peer_trusted = true,
                              .header = header,
                              .said = {"1111:2222:3333:4444:5555:6666:7777:9999", "https", host},
                              .path_prefix = "/prefix",
                              .added = added};
    const Parsed request = Request("A:b\r\nHost:" + host + ":80\r\nUpgrade:x\r\nTE:trailers\r\nConnection:upgrade\r\n");
    const size_t capacity = RequestHeadBytesMax(request.parser.request(), forward);
    std::vector<char> region(capacity);
    HeadWriter writer(region.data(), capacity);
    WriteRequestHead(writer, request.parser.request(), forward);
    EXPECT_FALSE(writer.failed());
  }
}

TEST(RequestHead, CarriesAddedFieldsInsteadOfTheClients) {
  const HeaderField added[] = {{"X-Request-Id", "ours"}};
  RequestForwarding forward = kFromClient;
  forward.added = added;
  EXPECT_EQ(ForwardedRequest("Host: h\r\nx-request-id: theirs\r\n", forward),
            "GET /a?b HTTP/1.1\r\nHost: h\r\n" + kOurs + "X-Request-Id: ours\r\n\r\n");
}

TEST(RequestHead, IsAlwaysHttp11AndHasAHost) {
  RequestForwarding forward = kFromClient;
  forward.default_host = "delegate:3000";
  EXPECT_EQ(ForwardedRequest("A: b\r\n", forward, "GET / HTTP/1.0"),
            "GET / HTTP/1.1\r\nA: b\r\nHost: delegate:3000\r\nX-Forwarded-For: 192.0.2.7\r\nX-Forwarded-Proto: "
            "http\r\nVia: 1.0 dpa\r\n\r\n");
}

TEST(RequestHead, PutsTheDelegatesPathBeforeTheRequests) {
  RequestForwarding forward = kFromClient;
  forward.path_prefix = "/grafana";
  EXPECT_TRUE(ForwardedRequest("Host: h\r\n", forward).starts_with("GET /grafana/a?b HTTP/1.1\r\n"));
  EXPECT_TRUE(ForwardedRequest("Host: h\r\n", forward, "GET http://x HTTP/1.1")
                  .starts_with("GET /grafana/ HTTP/1.1\r\nHost: x\r\n"));
  EXPECT_TRUE(ForwardedRequest("Host: h\r\n", forward, "OPTIONS * HTTP/1.1").starts_with("OPTIONS * HTTP/1.1\r\n"));
  EXPECT_TRUE(ForwardedRequest("Host: h\r\n", forward, "GET /a? HTTP/1.1").starts_with("GET /grafana/a? HTTP/1.1\r\n"));
}

TEST(RequestHead, LeavesOutAnExpectationThatWeHaveMet) {
  const std::string fields = "Host: h\r\nExpect: 100-continue\r\nContent-Length: 1\r\n";
  EXPECT_NE(ForwardedRequest(fields, kFromClient).find("Expect: 100-continue\r\n"), std::string::npos);
  RequestForwarding met = kFromClient;
  met.forward_expect = false;
  EXPECT_EQ(ForwardedRequest(fields, met).find("Expect"), std::string::npos);
}

TEST(RequestHead, DoesNotTurnTheExpectationOfAnHttp10ClientIntoOne) {
  const std::string fields = "Host: h\r\nExpect: anything\r\nContent-Length: 1\r\n";
  EXPECT_EQ(ForwardedRequest(fields, kFromClient, "PUT / HTTP/1.0").find("Expect"), std::string::npos);
  EXPECT_EQ(ForwardedRequest("Host: h\r\nExpect: 100-continue\r\n", kFromClient).find("Expect"), std::string::npos);
}

TEST(RequestHead, CountsDownTheForwardsOfAnOptions) {
  const auto forwarded = [](const std::string& fields, const std::string& line = "OPTIONS * HTTP/1.1") {
    const std::string head = ForwardedRequest("Host: h\r\n" + fields, kFromClient, line);
    const size_t at = head.find("Max-Forwards: ");
    return at == std::string::npos ? "" : head.substr(at + 14, head.find("\r\n", at) - at - 14);
  };
  EXPECT_EQ(forwarded("max-forwards: 10\r\n"), "9");
  EXPECT_EQ(forwarded("Max-Forwards: 1\r\n"), "0");
  EXPECT_EQ(forwarded("Max-Forwards: 99999999999999999999\r\n"), "4294967294");
  EXPECT_EQ(forwarded("Max-Forwards: -1\r\n"), "");
  EXPECT_EQ(forwarded("Max-Forwards: 3\r\n", "GET / HTTP/1.1"), "3");
}

TEST(RequestHead, OfAUnixSocketPeerHasNoForwardedFor) {
  EXPECT_EQ(ForwardedRequest("Host: h\r\nX-Forwarded-For: 1.1.1.1\r\n", {}).find("X-Forwarded-For"), std::string::npos);
}

// --- Responses ---

std::string ForwardedResponse(const std::string& head, const std::string& request_line = "GET / HTTP/1.1",
                              bool keep_alive_wanted = true) {
  const Parsed request = Request("Host: h\r\n", request_line);
  const RequestHead& asked = request.parser.request();
  const Parsed response(MessageParser::Role::kResponse, head, asked.method);
  const ResponseFraming framing = ChooseResponseFraming(asked, response.parser.response(), keep_alive_wanted);
  char region[4096];
  HeadWriter writer(region, sizeof region);
  WriteResponseHead(writer, asked, response.parser.response(), framing);
  EXPECT_FALSE(writer.failed());
  return std::string(writer.written());
}

TEST(ResponseHead, KeepsWhatItNeedNotTouch) {
  EXPECT_EQ(ForwardedResponse(
                "HTTP/1.1 200 Fine\r\nDate: d\r\nSet-Cookie: a\r\nset-cookie: b\r\nContent-Length: 3\r\nX: y\r\n\r\n"),
            "HTTP/1.1 200 Fine\r\nDate: d\r\nSet-Cookie: a\r\nset-cookie: b\r\nX: y\r\nVia: 1.1 dpa\r\nContent-Length: "
            "3\r\n\r\n");
}

TEST(ResponseHead, LosesWhatBelongsToTheConnection) {
  EXPECT_EQ(
      ForwardedResponse("HTTP/1.1 200 OK\r\nConnection: close, X-Hop\r\nX-Hop: 1\r\nKeep-Alive: t\r\nUpgrade: h2\r\n"
                        "Proxy-Connection: x\r\nContent-Length: 0\r\n\r\n"),
      "HTTP/1.1 200 OK\r\nVia: 1.1 dpa\r\nContent-Length: 0\r\n\r\n");
}

TEST(ResponseHead, IsChunkedToHttp11AndUntilCloseToHttp10) {
  const std::string chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: x\r\n\r\n";
  EXPECT_EQ(ForwardedResponse(chunked),
            "HTTP/1.1 200 OK\r\nTrailer: x\r\nVia: 1.1 dpa\r\nTransfer-Encoding: chunked\r\n\r\n");
  EXPECT_EQ(ForwardedResponse(chunked, "GET / HTTP/1.0"),
            "HTTP/1.1 200 OK\r\nVia: 1.1 dpa\r\nConnection: close\r\n\r\n");
  const std::string until_close = "HTTP/1.0 200 OK\r\n\r\n";
  EXPECT_EQ(ForwardedResponse(until_close), "HTTP/1.1 200 OK\r\nVia: 1.0 dpa\r\nTransfer-Encoding: chunked\r\n\r\n");
  EXPECT_EQ(ForwardedResponse(until_close, "GET / HTTP/1.0"),
            "HTTP/1.1 200 OK\r\nVia: 1.0 dpa\r\nConnection: close\r\n\r\n");
}

TEST(ResponseHead, SaysWhetherTheConnectionStays) {
  const std::string head = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
  EXPECT_NE(ForwardedResponse(head, "GET / HTTP/1.1", false).find("Connection: close\r\n"), std::string::npos);
  EXPECT_NE(ForwardedResponse(head, "GET / HTTP/1.0").find("Connection: close\r\n"), std::string::npos);
  const Parsed old = Request("Connection: keep-alive\r\n", "GET / HTTP/1.0");
  const Parsed response(MessageParser::Role::kResponse, head);
  const ResponseFraming framing = ChooseResponseFraming(old.parser.request(), response.parser.response(), true);
  EXPECT_TRUE(framing.keep_alive);
  char region[256];
  HeadWriter writer(region, sizeof region);
  WriteResponseHead(writer, old.parser.request(), response.parser.response(), framing);
  EXPECT_NE(writer.written().find("Connection: keep-alive\r\n"), std::string::npos);
}

TEST(ResponseHead, KeepsTheLengthOfAnAnswerWithoutBody) {
  EXPECT_EQ(ForwardedResponse("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", "HEAD / HTTP/1.1"),
            "HTTP/1.1 200 OK\r\nVia: 1.1 dpa\r\nContent-Length: 5\r\n\r\n");
  EXPECT_EQ(ForwardedResponse("HTTP/1.1 304 Not Modified\r\nETag: e\r\n\r\n"),
            "HTTP/1.1 304 Not Modified\r\nETag: e\r\nVia: 1.1 dpa\r\n\r\n");
  EXPECT_EQ(ForwardedResponse("HTTP/1.1 204 \r\nContent-Length: 0\r\n\r\n"),
            "HTTP/1.1 204 No Content\r\nVia: 1.1 dpa\r\n\r\n");
}

TEST(ResponseHead, OfAnInterimResponseHasNothingOfOurs) {
  EXPECT_EQ(ForwardedResponse("HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"),
            "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n");
  EXPECT_EQ(ForwardedResponse("HTTP/1.1 100 Continue\r\nConnection: close\r\n\r\n", "PUT / HTTP/1.1", false),
            "HTTP/1.1 100 Continue\r\n\r\n");
}

TEST(ResponseHead, KeepsTheUpgradeThatItAnswers) {
  EXPECT_EQ(ForwardedResponse("HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: "
                              "websocket\r\nSec-WebSocket-Accept: a\r\n\r\n"),
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: a\r\nVia: 1.1 "
            "dpa\r\nConnection: Upgrade\r\n\r\n");
}

TEST(UpstreamConnection, IsReusedOnlyWhenBothSidesAgreeWhereTheyAre) {
  const Parsed good(MessageParser::Role::kResponse, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
  const Parsed closing(MessageParser::Role::kResponse,
                       "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n");
  EXPECT_TRUE(MayReuseUpstream(good.parser.response(), true, true, 0));
  EXPECT_FALSE(MayReuseUpstream(closing.parser.response(), true, true, 0));
  EXPECT_FALSE(MayReuseUpstream(good.parser.response(), false, true, 0));
  EXPECT_FALSE(MayReuseUpstream(good.parser.response(), true, false, 0));
  EXPECT_FALSE(MayReuseUpstream(good.parser.response(), true, true, 1));
}

TEST(HeadWriter, FailsWithoutWritingBeyondItsRegion) {
  const Parsed request = Request("Host: h\r\nA: b\r\n");
  char full[4096];
  HeadWriter whole(full, sizeof full);
  WriteRequestHead(whole, request.parser.request(), kFromClient);
  for (size_t capacity = 0; capacity < whole.size(); ++capacity) {
    // Exactly that much memory, so that a sanitizer sees a byte beyond it.
    const auto region = std::make_unique<char[]>(capacity);
    HeadWriter writer(region.get(), capacity);
    WriteRequestHead(writer, request.parser.request(), kFromClient);
    EXPECT_TRUE(writer.failed());
    EXPECT_TRUE(whole.written().starts_with(writer.written()));
  }
  HeadWriter exact(full, whole.size());
  WriteRequestHead(exact, request.parser.request(), kFromClient);
  EXPECT_FALSE(exact.failed());
}

TEST(HopByHop, IsKnownByNameAndByConnection) {
  const Parsed request = Request("Host: h\r\nConnection: a, B\r\n");
  const auto fields = request.parser.request().fields;
  for (const std::string_view name : {"connection", "Keep-Alive", "TE", "upgrade", "b", "A"})
    EXPECT_TRUE(IsHopByHop(fields, name)) << name;
  for (const std::string_view name : {"host", "c", "content-length", "trailer"})
    EXPECT_FALSE(IsHopByHop(fields, name)) << name;
}

}  // namespace
}  // namespace dpa
