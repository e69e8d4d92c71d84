// Request paths: no crash; a path that passes has the same answerer in whatever order servers decode, split, merge, cut
// and resolve (tests/http/target_rule.h); readings of a plain path are the path; what is forwarded is what was sent.
// Seeds: the rows of tests/wire/target_table.h.

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string>
#include <vector>

#include "http/header_rewrite.h"
#include "http/message_parser.h"
#include "http/target_judge.h"
#include "tests/http/target_rule.h"
#include "tests/wire/target_table.h"

namespace {

using namespace dpa;

// Above it the plain rule would be all that the fuzzer does.
constexpr size_t kRuleBytesMax = 96;
constexpr size_t kRuleStatesMax = 2'000;

// The routes of the table, and shorter ones that a fuzzer finds by itself.
RouteTable Routes() {
  RouteTableBuilder builder;
  for (const std::string pattern :
       {"/a", "/a/{x}", "/a/b/{rest...}", "/a/{x}/c", "/b/{rest...}", "/c%20c/{y}",
        "/apis/g/v1/namespaces/{ns}/items/{id}", "/apis/g/v1/namespaces/{ns}/datasources/{uid}/query",
        "/apis/g/v1/namespaces/{ns}/datasources/{uid}/resources",
        "/apis/g/v1/namespaces/{ns}/datasources/{uid}/resources/{path...}"}) {
    if (!builder.Add("", pattern, {.type = ServiceType::kRoute, .service_name = "s", .path = pattern})) std::abort();
  }
  return builder.Build();
}

struct Counted final : PathReader {
  bool Agrees(const PathReading& reading) override {
    if (!reading.path.starts_with('/')) std::abort();
    same &= reading.path == path;
    return true;
  }
  std::string_view path;
  bool same = true;
};

// Through parser and rewriting, as a request goes.
void CheckForwarded(const std::string& path) {
  const std::string bytes = "GET " + path + "?q HTTP/1.1\r\nHost: h\r\n\r\n";
  MessageParser parser(MessageParser::Role::kRequest, {});
  if (parser.Feed(bytes) != ParseStatus::kComplete) return;
  if (path.contains('?')) return;  // The path ends there.
  if (parser.request().path != path) std::abort();
  std::vector<char> region(bytes.size() + 4096);
  HeadWriter writer(region.data(), region.size());
  WriteRequestHead(writer, parser.request(), {.path_prefix = "/p"});
  if (!writer.written().starts_with("GET /p" + path + "?q HTTP/1.1\r\n")) std::abort();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static const RouteTable routes = Routes();
  static const HealthChecks checks;
  static const LocalPaths local(checks, "1.2.3", false);
  static TargetJudge judge;
  static PathReadings readings;
  const std::string path =
      "/" + std::string(reinterpret_cast<const char*>(data), size).substr(size > 0 && data[0] == '/');
  // The parser lets no NUL and no '?' into a path.
  if (path.contains('\0')) return 0;

  RouteMatch match;
  routes.Match("GET", path, match);
  const PathFault fault = judge.Judge(routes, &local, "GET", path, match);
  Counted counted;
  counted.path = path;
  const PathFault broken = readings.Visit(path, counted);
  if (broken != PathFault::kNone && fault == PathFault::kNone) std::abort();
  if (IsPlainPath(path) && (fault != PathFault::kNone || !counted.same)) std::abort();
  if (fault == PathFault::kNone && path.size() <= kRuleBytesMax) {
    const std::optional<std::string> everybody = TargetRule(routes, local).Everybody("GET", path, kRuleStatesMax);
    if (everybody && *everybody == "?") std::abort();
  }
  CheckForwarded(path);
  return 0;
}
