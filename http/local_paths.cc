#include "http/local_paths.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <utility>

namespace dpa {
namespace {

constexpr std::string_view kPlainText = "text/plain; charset=utf-8";
constexpr std::string_view kVersionPath = "/version";
constexpr std::array<std::string_view, 3> kEndpointNames = {"livez", "readyz", "healthz"};  // By Endpoint.

std::string_view NameOf(HealthChecks::Endpoint endpoint) { return kEndpointNames[static_cast<size_t>(endpoint)]; }

// "/readyz" and "/readyz/NAME" (rest: NAME) belong to kReadyz.
std::optional<HealthChecks::Endpoint> EndpointOf(std::string_view path, std::string_view& rest) {
  for (size_t i = 0; i < kEndpointNames.size(); ++i) {
    const std::string_view name = kEndpointNames[i];
    if (!path.substr(1).starts_with(name)) continue;
    rest = path.substr(1 + name.size());
    if (!rest.empty() && rest.front() != '/') continue;
    if (!rest.empty()) rest.remove_prefix(1);
    return static_cast<HealthChecks::Endpoint>(i);
  }
  return std::nullopt;
}

int HexDigit(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return -1;
}

std::string DecodeQuery(std::string_view text) {
  std::string decoded;
  for (size_t i = 0; i < text.size(); ++i) {
    const bool escape =
        text[i] == '%' && i + 2 < text.size() && HexDigit(text[i + 1]) >= 0 && HexDigit(text[i + 2]) >= 0;
    if (escape) {
      decoded += static_cast<char>(HexDigit(text[i + 1]) * 16 + HexDigit(text[i + 2]));
      i += 2;
    } else {
      decoded += text[i] == '+' ? ' ' : text[i];
    }
  }
  return decoded;
}

struct HealthQuery {
  bool verbose = false;
  std::vector<std::string> excluded;
};

HealthQuery ParseQuery(std::string_view query) {
  HealthQuery parsed;
  while (!query.empty()) {
    const std::string_view pair = query.substr(0, query.find('&'));
    query.remove_prefix(std::min(query.size(), pair.size() + 1));
    const size_t equals = std::min(pair.find('='), pair.size());
    const std::string key = DecodeQuery(pair.substr(0, equals));
    if (key == "verbose") parsed.verbose = true;
    if (key == "exclude" && equals < pair.size()) parsed.excluded.push_back(DecodeQuery(pair.substr(equals + 1)));
  }
  return parsed;
}

std::string QuotedList(const std::vector<std::string>& names) {
  std::string list;
  for (const std::string& name : names) list += fmt::format("{}\"{}\"", list.empty() ? "" : ", ", name);
  return list;
}

std::string VersionBody(std::string_view version) {
  const std::string_view major = version.substr(0, version.find('.'));
  std::string_view minor = version.substr(std::min(version.size(), major.size() + 1));
  minor = minor.substr(0, minor.find('.'));
  return fmt::format(
      R"({{"major":"{}","minor":"{}","gitVersion":"v{}","gitCommit":"","gitTreeState":"","buildDate":"",)"
      R"("goVersion":"","compiler":"clang","platform":"linux"}})"
      "\n",
      major, minor, version);
}

}  // namespace

// --- Checks ---

HealthChecks::HealthChecks() {
  Add("ping", Scope::kReadyAndAlive, [] { return std::optional<std::string>(); });
}

void HealthChecks::Add(std::string name, Scope scope, Check check) {
  checks_.push_back({std::move(name), scope, std::move(check)});
}

bool HealthChecks::Belongs(const Named& named, Endpoint endpoint) const {
  return endpoint != Endpoint::kLivez || named.scope == Scope::kReadyAndAlive;
}

HealthChecks::Answer HealthChecks::Evaluate(Endpoint endpoint, std::string_view name, std::string_view query,
                                            bool tell_causes) const {
  if (!name.empty()) return EvaluateOne(endpoint, name);
  HealthQuery parsed = ParseQuery(query);
  std::vector<std::string> unmatched = parsed.excluded;
  std::string text;
  bool failed = false;
  for (const Named& named : checks_) {
    if (!Belongs(named, endpoint)) continue;
    std::erase(unmatched, named.name);
    if (std::find(parsed.excluded.begin(), parsed.excluded.end(), named.name) != parsed.excluded.end()) {
      text += fmt::format("[+]{} excluded: ok\n", named.name);
    } else if (const std::optional<std::string> cause = named.check()) {
      failed = true;
      text += fmt::format("[-]{} failed: {}\n", named.name, tell_causes ? *cause : "reason withheld");
    } else {
      text += fmt::format("[+]{} ok\n", named.name);
    }
  }
  std::sort(unmatched.begin(), unmatched.end());
  unmatched.erase(std::unique(unmatched.begin(), unmatched.end()), unmatched.end());
  if (!unmatched.empty()) {
    text += fmt::format("warn: some health checks cannot be excluded: no matches for {}\n", QuotedList(unmatched));
  }
  text += fmt::format("{} check {}\n", NameOf(endpoint), failed ? "failed" : "passed");
  if (failed) return {500, std::move(text)};
  return {200, parsed.verbose ? std::move(text) : "ok"};
}

// One check is asked for by somebody who knows it by name: the cause is told on either listener, as kube-apiserver
// does.
HealthChecks::Answer HealthChecks::EvaluateOne(Endpoint endpoint, std::string_view name) const {
  for (const Named& named : checks_) {
    if (named.name != name || !Belongs(named, endpoint)) continue;
    if (const std::optional<std::string> cause = named.check()) {
      return {500, fmt::format("internal server error: {}\n", *cause)};
    }
    return {200, "ok"};
  }
  return {404, "404 page not found\n"};
}

// --- Paths ---

LocalPaths::LocalPaths(const HealthChecks& checks, std::string_view version, bool tell_causes)
    : checks_(checks), version_body_(VersionBody(version)), tell_causes_(tell_causes) {}

// On the way of every request: decided by the first letter for most.
bool LocalPaths::Owns(std::string_view path) const {
  if (path.size() < 6) return false;
  std::string_view rest;
  switch (path[1]) {
    case 'l':
    case 'r':
    case 'h':
      return EndpointOf(path, rest).has_value();
    case 'v':
      return path == kVersionPath;
    default:
      return false;
  }
}

Task<void> LocalPaths::Handle(Exchange& exchange) {
  exchange.record().route = "local";
  const bool refused = co_await RefusesMethod(exchange);
  if (refused) co_return;
  const RequestHead& request = exchange.request();
  constexpr std::string_view kJson = "application/json";
  if (request.path == kVersionPath) co_return co_await RespondText(exchange, 200, kJson, version_body_);
  std::string_view name;
  const std::optional<HealthChecks::Endpoint> endpoint = EndpointOf(request.path, name);
  DPA_ASSERT(endpoint);
  const HealthChecks::Answer answer = checks_.Evaluate(*endpoint, name, request.query, tell_causes_);
  co_await RespondText(exchange, answer.status, kPlainText, answer.text);
}

Task<void> RespondText(Exchange& exchange, int status, std::string_view content_type, std::string_view text) {
  const HeaderField nosniff{"X-Content-Type-Options", "nosniff"};
  const HeaderField no_cache{"Cache-Control", "no-cache, private"};
  const std::array<HeaderField, 2> fields = {no_cache, nosniff};
  const Response response{status, content_type, fields};
  std::array<iovec, 1> pieces = {iovec{const_cast<char*>(text.data()), text.size()}};
  const std::span<iovec> body = pieces;
  // A client that has left is noted by the exchange.
  static_cast<void>(co_await exchange.Respond(response, body));
}

Task<bool> RefusesMethod(Exchange& exchange) {
  const std::string_view method = exchange.request().method;
  if (method == "GET" || method == "HEAD") co_return false;
  const std::array<HeaderField, 1> allow = {HeaderField{"Allow", "GET, HEAD"}};
  const std::span<const HeaderField> fields = allow;
  constexpr std::string_view kMessage = "only GET and HEAD are answered here";
  static_cast<void>(co_await exchange.RespondError(Reason::kMethodNotAllowed, kMessage, fields));
  co_return true;
}

}  // namespace dpa
