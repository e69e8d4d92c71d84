#include "http/admin.h"

#include <utility>

namespace dpa {
namespace {

constexpr std::string_view kIndex =
    "{\"paths\":[\"/healthz\",\"/livez\",\"/metrics\",\"/readyz\",\"/status\",\"/version\"]}\n";

bool IsOurs(const LocalPaths& local, std::string_view path) {
  return local.Owns(path) || path == "/" || path == "/metrics" || path == "/status";
}

// A path of ours is read as itself or not at all.
class ExactPath final : public PathReader {
 public:
  ExactPath(const LocalPaths& local, std::string_view path) : local_(local), path_(path) {}
  bool Agrees(const PathReading& reading) override {
    return reading.path == path_ || !(IsOurs(local_, reading.path) || IsOurs(local_, path_));
  }

 private:
  const LocalPaths& local_;
  const std::string_view path_;
};

}  // namespace

AdminHandler::AdminHandler(const MetricsRegistry& metrics, const HealthChecks& checks, std::string_view version,
                           StatusWriter status)
    : metrics_(metrics), local_(checks, version, true), status_(std::move(status)) {}

Task<void> AdminHandler::Handle(Exchange& exchange) {
  const std::string_view path = exchange.request().path;
  constexpr std::string_view kMetricsText = "text/plain; version=0.0.4; charset=utf-8";
  constexpr std::string_view kJson = "application/json";
  exchange.record().route = "local";
  ExactPath exact(local_, path);
  const PathFault fault = IsPlainPath(path) ? PathFault::kNone : readings_.Visit(path, exact);
  if (fault != PathFault::kNone) {
    const std::string_view message = ToString(fault);
    static_cast<void>(co_await exchange.RespondError(Reason::kAmbiguousPath, message));
    co_return;
  }
  if (local_.Owns(path)) co_return co_await local_.Handle(exchange);
  if (!IsOurs(local_, path)) {
    constexpr std::string_view kMessage = "no such path; see / for those that there are";
    static_cast<void>(co_await exchange.RespondError(Reason::kNotFound, kMessage));
    co_return;
  }
  const bool refused = co_await RefusesMethod(exchange);
  if (refused) co_return;
  if (path == "/") co_return co_await RespondText(exchange, 200, kJson, kIndex);
  const bool metrics = path == "/metrics";
  const std::string text = metrics ? metrics_.Scrape() : status_();
  const std::string_view content_type = metrics ? kMetricsText : kJson;
  co_await RespondText(exchange, 200, content_type, text);
}

}  // namespace dpa
