// What the pure part of the data path costs per request: matching a route, parsing a head, knowing whose it is,
// rewriting it, decoding a chunked body.

#include <benchmark/benchmark.h>
#include <fmt/format.h>

#include <string>
#include <vector>

#include "http/body_framing.h"
#include "http/header_rewrite.h"
#include "http/message_parser.h"
#include "http/request_identity.h"
#include "http/route_table.h"
#include "http/target_judge.h"

namespace dpa {
namespace {

RouteTable TableOf(int routes) {
  RouteTableBuilder builder;
  for (int i = 0; i < routes; ++i) {
    const std::string base =
        fmt::format("/apis/plugin-{:04}.datasource.grafana.app/v0alpha1/namespaces/{{ns}}/datasources/{{uid}}", i / 2);
    const auto added = builder.Add("", base + (i % 2 ? "/resources/{path...}" : "/query"), {.service_name = base});
    if (!added) std::abort();
  }
  return builder.Build();
}

void BM_RouteHit(benchmark::State& state) {
  const RouteTable table = TableOf(static_cast<int>(state.range(0)));
  std::vector<std::string> paths;
  for (int i = 0; i < state.range(0) / 2; ++i) {
    paths.push_back(fmt::format(
        "/apis/plugin-{:04}.datasource.grafana.app/v0alpha1/namespaces/default/datasources/P8E80F9AEF21F6940/query",
        i));
  }
  size_t next = 0;
  RouteMatch match;
  for (auto _ : state) {
    table.Match("POST", paths[next], match);
    if (++next == paths.size()) next = 0;
    benchmark::DoNotOptimize(match);
  }
}
BENCHMARK(BM_RouteHit)->Arg(10)->Arg(1000);

void BM_RouteMiss(benchmark::State& state) {
  const RouteTable table = TableOf(static_cast<int>(state.range(0)));
  RouteMatch match;
  for (auto _ : state) {
    table.Match("GET", "/apis/dashboard.grafana.app/v1/namespaces/default/dashboards/abc", match);
    benchmark::DoNotOptimize(match);
  }
}
BENCHMARK(BM_RouteMiss)->Arg(10)->Arg(1000);

constexpr std::string_view kBase =
    "/apis/plugin-0001.datasource.grafana.app/v0alpha1/namespaces/default/datasources/P8E80F/";

// What each request pays to be sure that its path is read alike everywhere: a plain one, and one with an escape.
void BM_JudgePath(benchmark::State& state, std::string_view tail) {
  const RouteTable table = TableOf(1000);
  const std::string path = std::string(kBase) + std::string(tail);
  TargetJudge judge;
  RouteMatch match;
  table.Match("GET", path, match);
  for (auto _ : state) benchmark::DoNotOptimize(judge.Judge(table, nullptr, "GET", path, match));
}
BENCHMARK_CAPTURE(BM_JudgePath, plain, "resources/a/b");
BENCHMARK_CAPTURE(BM_JudgePath, escaped, "resources/a%20b");
BENCHMARK_CAPTURE(BM_JudgePath, encoded_slash, "resources/a%2Fb//c");

const std::string kCurl =
    "GET /apis/dashboard.grafana.app/v1/namespaces/default/dashboards HTTP/1.1\r\n"
    "Host: localhost:8080\r\nUser-Agent: curl/7.88.1\r\nAccept: */*\r\n\r\n";
const std::string kBrowser =
    "POST "
    "/apis/prometheus.datasource.grafana.app/v0alpha1/namespaces/default/datasources/P8E80F9AEF21F6940/"
    "query?ds_type=prometheus&requestId=Q100 HTTP/1.1\r\n"
    "Host: grafana.example.com\r\nConnection: keep-alive\r\nContent-Length: 1024\r\nPragma: no-cache\r\nCache-Control: "
    "no-cache\r\n"
    "sec-ch-ua: \"Chromium\";v=\"122\", \"Not(A:Brand\";v=\"24\", \"Google Chrome\";v=\"122\"\r\nsec-ch-ua-mobile: "
    "?0\r\n"
    "User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/122.0.0.0 "
    "Safari/537.36\r\n"
    "Content-Type: application/json\r\nAccept: application/json, text/plain, */*\r\nx-grafana-org-id: 1\r\nx-panel-id: "
    "4\r\n"
    "x-dashboard-uid: 000000016\r\nx-datasource-uid: P8E80F9AEF21F6940\r\nx-plugin-id: "
    "prometheus\r\nsec-ch-ua-platform: \"Linux\"\r\n"
    "Origin: https://grafana.example.com\r\nSec-Fetch-Site: same-origin\r\nSec-Fetch-Mode: cors\r\nSec-Fetch-Dest: "
    "empty\r\n"
    "Referer: https://grafana.example.com/d/000000016/1-kubernetes-overview?orgId=1&from=now-1h&to=now\r\n"
    "Accept-Encoding: gzip, deflate, br\r\nAccept-Language: en-US,en;q=0.9\r\n"
    "Cookie: grafana_session=0123456789abcdef0123456789abcdef; grafana_session_expiry=1710000000\r\n\r\n";
const std::string kResponse =
    "HTTP/1.1 200 OK\r\nCache-Control: no-store\r\nContent-Type: application/json\r\nX-Content-Type-Options: "
    "nosniff\r\n"
    "X-Frame-Options: deny\r\nDate: Sat, 01 Jan 2022 00:00:00 GMT\r\nContent-Length: 1024\r\n\r\n";

void Parse(benchmark::State& state, MessageParser::Role role, const std::string& head) {
  MessageParser parser(role, {});
  for (auto _ : state) {
    parser.Reset();
    benchmark::DoNotOptimize(parser.Feed(head));
  }
  state.SetBytesProcessed(static_cast<int64_t>(state.iterations() * head.size()));
}
void BM_ParseCurl(benchmark::State& state) { Parse(state, MessageParser::Role::kRequest, kCurl); }
void BM_ParseBrowser(benchmark::State& state) { Parse(state, MessageParser::Role::kRequest, kBrowser); }
void BM_ParseResponse(benchmark::State& state) { Parse(state, MessageParser::Role::kResponse, kResponse); }
BENCHMARK(BM_ParseCurl);
BENCHMARK(BM_ParseBrowser);
BENCHMARK(BM_ParseResponse);

// A client that sends one byte at a time must not cost the square of its head.
void BM_ParseBrowserByteByByte(benchmark::State& state) {
  MessageParser parser(MessageParser::Role::kRequest, {});
  for (auto _ : state) {
    parser.Reset();
    for (size_t fed = 1; parser.Feed(std::string_view(kBrowser).substr(0, fed)) == ParseStatus::kNeedMore;) ++fed;
  }
  state.SetBytesProcessed(static_cast<int64_t>(state.iterations() * kBrowser.size()));
}
BENCHMARK(BM_ParseBrowserByteByByte);

void Rewrite(benchmark::State& state, const std::string& bytes) {
  MessageParser parser(MessageParser::Role::kRequest, {});
  if (parser.Feed(bytes) != ParseStatus::kComplete) std::abort();
  DownstreamPeer peer;
  peer.Set(*IpAddress::Parse("192.0.2.7"), 4711, false);
  IdSource ids;
  RequestIdentity identity;
  const IdentityOptions options;
  identity.Begin(parser.request(), peer, options, ids);
  char region[8192];
  for (auto _ : state) {
    HeadWriter writer(region, sizeof region);
    WriteRequestHead(writer, parser.request(), identity.forwarding());
    benchmark::DoNotOptimize(writer.written().data());
    benchmark::ClobberMemory();
  }
}
void BM_RewriteCurl(benchmark::State& state) { Rewrite(state, kCurl); }
void BM_RewriteBrowser(benchmark::State& state) { Rewrite(state, kBrowser); }
BENCHMARK(BM_RewriteCurl);
BENCHMARK(BM_RewriteBrowser);

// What is known of a request besides its bytes: client, ids, and the fields that are added.
void Identify(benchmark::State& state, const std::string& bytes, bool trusted) {
  MessageParser parser(MessageParser::Role::kRequest, {});
  if (parser.Feed(bytes) != ParseStatus::kComplete) std::abort();
  IdentityOptions options;
  for (const std::string_view network : {"10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16"}) {
    options.trusted_proxies.Add(*Cidr::Parse(network));
  }
  DownstreamPeer peer;
  peer.Set(*IpAddress::Parse(trusted ? "10.0.0.1" : "192.0.2.7"), 4711, trusted);
  IdSource ids;
  RequestIdentity identity;
  for (auto _ : state) {
    identity.Begin(parser.request(), peer, options, ids);
    benchmark::DoNotOptimize(identity.forwarding().added.data());
    benchmark::ClobberMemory();
  }
}
void BM_IdentifyCurl(benchmark::State& state) { Identify(state, kCurl, false); }
void BM_IdentifyBrowser(benchmark::State& state) { Identify(state, kBrowser, false); }
void BM_IdentifyBehindProxy(benchmark::State& state) {
  std::string bytes = kBrowser;
  bytes.insert(bytes.size() - 2, "X-Forwarded-For: 203.0.113.9, 192.0.2.7, 10.0.0.2\r\nX-Forwarded-Proto: https\r\n");
  Identify(state, bytes, true);
}
BENCHMARK(BM_IdentifyCurl);
BENCHMARK(BM_IdentifyBrowser);
BENCHMARK(BM_IdentifyBehindProxy);

void BM_RewriteResponse(benchmark::State& state) {
  MessageParser parser(MessageParser::Role::kResponse, {});
  if (parser.Feed(kResponse) != ParseStatus::kComplete) std::abort();
  const RequestHead request{.method = "GET"};
  char region[8192];
  for (auto _ : state) {
    HeadWriter writer(region, sizeof region);
    WriteResponseHead(writer, request, parser.response(), ChooseResponseFraming(request, parser.response(), true));
    benchmark::DoNotOptimize(writer.written().data());
    benchmark::ClobberMemory();
  }
}
BENCHMARK(BM_RewriteResponse);

// 64 KiB of payload in chunks of the given size.
void BM_DecodeChunked(benchmark::State& state) {
  const auto chunk = static_cast<size_t>(state.range(0));
  std::string body;
  for (size_t done = 0; done < 65536; done += chunk)
    body += fmt::format("{:x}\r\n{}\r\n", chunk, std::string(chunk, 'x'));
  body += kLastChunk;
  BodyDecoder decoder;
  for (auto _ : state) {
    decoder.Start(BodyFraming::kChunked, 0);
    for (std::string_view rest = body; !rest.empty();) rest.remove_prefix(decoder.Decode(rest).consumed);
    benchmark::DoNotOptimize(decoder.done());
  }
  state.SetBytesProcessed(static_cast<int64_t>(state.iterations() * body.size()));
}
BENCHMARK(BM_DecodeChunked)->Arg(128)->Arg(4096)->Arg(32768);

}  // namespace
}  // namespace dpa
