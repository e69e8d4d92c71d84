#include "tools/testdata_plugin/services.h"

#include <fmt/chrono.h>
#include <fmt/format.h>
#include <unistd.h>

#include <atomic>
#include <charconv>
#include <chrono>
#include <condition_variable>
#include <deque>
#include <mutex>
#include <nlohmann/json.hpp>
#include <thread>

#include "core/version.h"
#include "grpc_bridge/proto/go_plugin.grpc.pb.h"
#include "grpc_bridge/proto/health.grpc.pb.h"
#include "grpc_bridge/proto/pluginv2.grpc.pb.h"
#include "grpc_bridge/proto/rpc_status.pb.h"
#include "tools/testdata_plugin/scenarios.h"

namespace dpa::testdata {
namespace {

using Json = nlohmann::ordered_json;
using Clock = std::chrono::steady_clock;

struct Counters {
  std::atomic<uint64_t> queries{0};
  std::atomic<uint64_t> resources{0};
  std::atomic<uint64_t> health_checks{0};
};

// What was printed and not yet taken by the one StreamStdio call. As in go-plugin, who prints waits until it is taken.
class StdioHub {
 public:
  // Waits while kWaitingMax are queued. `cancelled` is called under the lock and must not come back here.
  void Print(std::string text, const std::function<bool()>& cancelled) {
    std::unique_lock lock(mutex_);
    while (queue_.size() >= kWaitingMax && !stopped_ && !cancelled()) changed_.wait_for(lock, kPoll);
    if (stopped_) return;
    queue_.push_back(std::move(text));
    changed_.notify_all();
  }
  // Empty if nothing came for a while.
  std::string Take() {
    std::unique_lock lock(mutex_);
    changed_.wait_for(lock, kPoll, [this] { return !queue_.empty() || stopped_; });
    if (queue_.empty()) return {};
    std::string text = std::move(queue_.front());
    queue_.pop_front();
    changed_.notify_all();
    return text;
  }
  void Stop() {
    const std::lock_guard lock(mutex_);
    stopped_ = true;
    changed_.notify_all();
  }
  bool stopped() {
    const std::lock_guard lock(mutex_);
    return stopped_;
  }

 private:
  static constexpr size_t kWaitingMax = 64;  // Pieces of 1 KiB: where a Go plugin stands still.
  static constexpr std::chrono::milliseconds kPoll{20};
  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<std::string> queue_;
  bool stopped_ = false;
};

// Sleeps in small steps. False if the call was cancelled or the plugin stops.
bool Sleep(std::chrono::milliseconds duration, const grpc::ServerContext& context, StdioHub* hub) {
  const auto end = Clock::now() + duration;
  while (Clock::now() < end) {
    if (context.IsCancelled() || hub->stopped()) return false;
    std::this_thread::sleep_for(std::min<Clock::duration>(end - Clock::now(), std::chrono::milliseconds(5)));
  }
  return !context.IsCancelled() && !hub->stopped();
}

std::map<std::string, std::string> MetadataOf(const grpc::ServerContext& context) {
  std::map<std::string, std::string> metadata;
  for (const auto& [key, value] : context.client_metadata()) {
    if (!key.ends_with("-bin"))
      metadata.emplace(std::string(key.data(), key.size()), std::string(value.data(), value.size()));
  }
  return metadata;
}

// A failed call; with an error source it carries the ErrorInfo by which the Go SDK tells it.
grpc::Status CallFailure(const QueryAnswer& answer) {
  const auto code = static_cast<grpc::StatusCode>(answer.grpc_code);
  if (answer.error_source.empty()) return grpc::Status(code, answer.error);
  google::rpc::ErrorInfo info;
  (*info.mutable_metadata())["errorSource"] = answer.error_source;
  google::rpc::Status details;
  details.set_code(answer.grpc_code);
  details.set_message(answer.error);
  details.add_details()->PackFrom(info);
  return grpc::Status(code, answer.error, details.SerializeAsString());
}

// ---- pluginv2.Data

class DataService final : public pluginv2::Data::Service {
 public:
  DataService(Counters* counters, StdioHub* hub) : counters_(counters), hub_(hub) {}

  grpc::Status QueryData(grpc::ServerContext* context, const pluginv2::QueryDataRequest* request,
                         pluginv2::QueryDataResponse* reply) override {
    const QueryEnvironment environment = EnvironmentOf(*context, *request);
    for (const pluginv2::DataQuery& query : request->queries()) {
      const QueryAnswer answer = RunScenario(query, environment);
      counters_->queries.fetch_add(1, std::memory_order_relaxed);
      if (context->IsCancelled()) return grpc::Status::CANCELLED;
      if (answer.grpc_code != 0) return CallFailure(answer);
      if (!answer.omit) FillResponse(answer, request->format(), &(*reply->mutable_responses())[query.refid()]);
    }
    return grpc::Status::OK;
  }

  grpc::Status QueryChunkedData(grpc::ServerContext* context, const pluginv2::QueryChunkedDataRequest* request,
                                grpc::ServerWriter<pluginv2::QueryChunkedDataResponse>* writer) override {
    const QueryEnvironment environment = EnvironmentOf(*context, *request);
    for (const pluginv2::DataQuery& query : request->queries()) {
      const QueryAnswer answer = RunScenario(query, environment);
      counters_->queries.fetch_add(1, std::memory_order_relaxed);
      if (context->IsCancelled()) return grpc::Status::CANCELLED;
      if (answer.grpc_code != 0) return CallFailure(answer);
      if (!WriteChunks(query.refid(), answer, request->format(), writer)) return grpc::Status::CANCELLED;
    }
    return grpc::Status::OK;
  }

 private:
  template <class Request>
  QueryEnvironment EnvironmentOf(const grpc::ServerContext& context, const Request& request) {
    QueryEnvironment environment;
    environment.context = &request.plugincontext();
    environment.headers.insert(request.headers().begin(), request.headers().end());
    environment.metadata = MetadataOf(context);
    environment.format = request.format();
    environment.cancelled = [&context, this] { return context.IsCancelled() || hub_->stopped(); };
    environment.print_to_stdio_stream = [&context, this](std::string text) {
      hub_->Print(std::move(text), [&context] { return context.IsCancelled(); });
    };
    return environment;
  }

  // Arrow is what a host means that does not know the field `format`; saying so beats bytes that it cannot read.
  static constexpr const char* kJsonOnly = "this plugin answers frames as JSON only, and the request asks for Arrow";

  static void FillResponse(const QueryAnswer& answer, pluginv2::DataFrameFormat format,
                           pluginv2::DataResponse* response) {
    response->set_status(answer.status);
    response->set_error(answer.error);
    response->set_errorsource(answer.error_source);
    if (!answer.arrow_bytes.empty()) {
      response->add_frames(answer.arrow_bytes);
      response->set_format(pluginv2::ARROW);
    } else if (format != pluginv2::JSON && !answer.frames.empty()) {
      response->set_status(501);
      response->set_error(kJsonOnly);
      response->set_errorsource("plugin");
    } else {
      response->set_format(pluginv2::JSON);
      for (const Frame& frame : answer.frames) response->add_frames(WriteFrameJson(frame));
    }
  }

  using ChunkWriter = grpc::ServerWriter<pluginv2::QueryChunkedDataResponse>;

  // False if nobody listens any more.
  static bool WriteChunks(const std::string& ref_id, const QueryAnswer& answer, pluginv2::DataFrameFormat format,
                          ChunkWriter* writer) {
    if (answer.omit) return true;
    if (!answer.error.empty()) return WriteError(ref_id, answer.error, answer.status, writer);
    if (format != pluginv2::JSON || !answer.arrow_bytes.empty()) return WriteError(ref_id, kJsonOnly, 501, writer);
    for (size_t i = 0; i < answer.frames.size(); ++i) {
      if (!WriteFrame(ref_id, fmt::format("{}-{}", ref_id, i), answer.frames[i], answer.chunk_rows, writer))
        return false;
    }
    return true;
  }

  // As the SDK does it: an error has no frame, no frameId, no source, and format 0.
  static bool WriteError(const std::string& ref_id, const std::string& error, int status, ChunkWriter* writer) {
    pluginv2::QueryChunkedDataResponse message;
    message.set_refid(ref_id);
    message.set_error(error);
    message.set_status(status);
    return writer->Write(message);
  }

  static bool WriteFrame(const std::string& ref_id, const std::string& frame_id, const Frame& frame, size_t chunk_rows,
                         ChunkWriter* writer) {
    size_t begin = 0;
    do {
      const size_t end = std::min(frame.RowCount(), begin + chunk_rows);
      pluginv2::QueryChunkedDataResponse message;
      message.set_refid(ref_id);
      message.set_frameid(frame_id);
      message.set_status(200);
      message.set_format(pluginv2::JSON);
      message.set_frame(WriteFrameChunkJson(frame, begin, end, begin == 0));
      if (!writer->Write(message)) return false;
      begin = end;
    } while (begin < frame.RowCount());
    return true;
  }

  Counters* counters_;
  StdioHub* hub_;
};

// ---- pluginv2.Diagnostics

class DiagnosticsService final : public pluginv2::Diagnostics::Service {
 public:
  DiagnosticsService(Counters* counters, bool healthy) : counters_(counters), healthy_(healthy) {}

  grpc::Status CheckHealth(grpc::ServerContext*, const pluginv2::CheckHealthRequest* request,
                           pluginv2::CheckHealthResponse* reply) override {
    counters_->health_checks.fetch_add(1, std::memory_order_relaxed);
    reply->set_status(healthy_ ? pluginv2::CheckHealthResponse::OK : pluginv2::CheckHealthResponse::ERROR);
    reply->set_message(healthy_ ? "Data source is working" : "Data source was told to be ill");
    const std::string& uid = request->plugincontext().datasourceinstancesettings().uid();
    const Json details{{"version", kVersion}, {"pid", getpid()}, {"uid", uid}};
    reply->set_jsondetails(details.dump(-1, ' ', false, Json::error_handler_t::replace));
    return grpc::Status::OK;
  }

  grpc::Status CollectMetrics(grpc::ServerContext*, const pluginv2::CollectMetricsRequest*,
                              pluginv2::CollectMetricsResponse* reply) override {
    std::string text;
    const auto counter = [&text](const char* name, const char* help, const std::atomic<uint64_t>& value) {
      text += fmt::format("# HELP {0} {1}\n# TYPE {0} counter\n{0} {2}\n", name, help, value.load());
    };
    counter("testdata_queries_total", "Queries answered, by refId.", counters_->queries);
    counter("testdata_resource_calls_total", "Resource calls answered.", counters_->resources);
    counter("testdata_health_checks_total", "Health checks answered.", counters_->health_checks);
    reply->mutable_metrics()->set_prometheus(text);
    return grpc::Status::OK;
  }

 private:
  Counters* counters_;
  bool healthy_;
};

// ---- pluginv2.Resource

// The value of `name` in the query part of `url`, or `fallback`.
int64_t UrlInt(const std::string& url, std::string_view name, int64_t fallback, int64_t max) {
  size_t at = std::min(url.find('?'), url.size());
  while (at < url.size()) {
    const size_t end = std::min(url.find('&', at + 1), url.size());
    const std::string_view pair = std::string_view(url).substr(at + 1, end - at - 1);
    int64_t value = 0;
    if (pair.starts_with(name) && pair.substr(name.size()).starts_with('=')) {
      const std::string_view digits = pair.substr(name.size() + 1);
      const auto [last, error] = std::from_chars(digits.data(), digits.data() + digits.size(), value);
      if (error == std::errc() && last == digits.data() + digits.size() && value >= 0 && value <= max) return value;
    }
    at = end;
  }
  return fallback;
}

// Paths: status/CODE answers that code; stream?count=&size=&sleepMs= sends `count` pieces; error fails the call;
// error-after does so after a first piece; empty sends no message at all; whatever else is answered with the request
// itself as JSON.
class ResourceService final : public pluginv2::Resource::Service {
 public:
  ResourceService(Counters* counters, StdioHub* hub) : counters_(counters), hub_(hub) {}

  grpc::Status CallResource(grpc::ServerContext* context, const pluginv2::CallResourceRequest* request,
                            grpc::ServerWriter<pluginv2::CallResourceResponse>* writer) override {
    counters_->resources.fetch_add(1, std::memory_order_relaxed);
    const std::string& path = request->path();
    if (path == "stream") return SendPieces(*context, *request, writer);
    if (path == "empty") return grpc::Status::OK;
    if (path == "error") return grpc::Status(grpc::StatusCode::UNKNOWN, "made-up failure of a resource call");
    if (path == "error-after") {
      Send(200, "first piece, then ", writer);
      return grpc::Status(grpc::StatusCode::UNKNOWN, "made-up failure after the first piece");
    }
    if (path.starts_with("status/")) return SendStatus(path.substr(7), writer);
    return SendEcho(*context, *request, writer);
  }

 private:
  using Writer = grpc::ServerWriter<pluginv2::CallResourceResponse>;

  static void SetHeader(const std::string& name, const std::string& value, pluginv2::CallResourceResponse* message) {
    (*message->mutable_headers())[name].add_values(value);
  }

  static void Send(int code, const std::string& text, Writer* writer) {
    pluginv2::CallResourceResponse message;
    message.set_code(code);
    SetHeader("Content-Type", "text/plain; charset=utf-8", &message);
    message.set_body(text);
    writer->Write(message);
  }

  static grpc::Status SendStatus(std::string_view text, Writer* writer) {
    int code = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), code);
    if (error != std::errc() || end != text.data() + text.size() || code < 100 || code > 599) {
      Send(400, "status/CODE wants a number from 100 to 599\n", writer);
    } else {
      Send(code, code == 204 || code == 304 ? "" : fmt::format("status {}\n", code), writer);
    }
    return grpc::Status::OK;
  }

  // As the Go SDK: code and headers in the first message only.
  grpc::Status SendPieces(const grpc::ServerContext& context, const pluginv2::CallResourceRequest& request,
                          Writer* writer) {
    const int64_t count = UrlInt(request.url(), "count", 10, 1'000'000);
    const auto size = static_cast<size_t>(UrlInt(request.url(), "size", 1024, 16 << 20));
    const std::chrono::milliseconds sleep(UrlInt(request.url(), "sleepMs", 0, 60'000));
    for (int64_t i = 0; i < count; ++i) {
      if (i > 0 && !Sleep(sleep, context, hub_)) return grpc::Status::CANCELLED;
      pluginv2::CallResourceResponse message;
      if (i == 0) message.set_code(200);
      if (i == 0) SetHeader("Content-Type", "application/octet-stream", &message);
      message.set_body(std::string(size, static_cast<char>('a' + i % 26)));
      if (!writer->Write(message)) return grpc::Status::CANCELLED;
    }
    return grpc::Status::OK;
  }

  static grpc::Status SendEcho(const grpc::ServerContext& context, const pluginv2::CallResourceRequest& request,
                               Writer* writer) {
    Json headers = Json::object();
    std::map<std::string, Json> sorted;
    for (const auto& [name, list] : request.headers()) {
      sorted[name] = Json(std::vector<std::string>(list.values().begin(), list.values().end()));
    }
    for (const auto& [name, values] : sorted) headers[name] = values;
    Json metadata = Json::object();
    for (const auto& [key, value] : MetadataOf(context)) metadata[key] = value;
    const auto& settings = request.plugincontext().datasourceinstancesettings();
    const Json echo{{"method", request.method()},
                    {"path", request.path()},
                    {"url", request.url()},
                    {"headers", headers},
                    {"bodyBytes", request.body().size()},
                    {"body", request.body()},
                    {"orgId", request.plugincontext().orgid()},
                    {"namespace", request.plugincontext().namespace_()},
                    {"uid", settings.uid()},
                    {"metadata", metadata}};
    pluginv2::CallResourceResponse message;
    message.set_code(200);
    SetHeader("Content-Type", "application/json", &message);
    SetHeader("X-Testdata", "one", &message);
    SetHeader("X-Testdata", "two", &message);
    SetHeader("Set-Cookie", "not=for-browsers", &message);
    message.set_body(echo.dump(-1, ' ', false, Json::error_handler_t::replace) + "\n");
    writer->Write(message);
    return grpc::Status::OK;
  }

  Counters* counters_;
  StdioHub* hub_;
};

// ---- pluginv2.Stream

// Paths: random/INTERVAL_MS sends a frame each interval for ever; count/N sends N frames at once and ends; forbidden
// may not be subscribed to. Publishing to `echo` gives the data back.
class StreamService final : public pluginv2::Stream::Service {
 public:
  explicit StreamService(StdioHub* hub) : hub_(hub) {}

  grpc::Status SubscribeStream(grpc::ServerContext*, const pluginv2::SubscribeStreamRequest* request,
                               pluginv2::SubscribeStreamResponse* reply) override {
    using Reply = pluginv2::SubscribeStreamResponse;
    if (request->path() == "forbidden") {
      reply->set_status(Reply::PERMISSION_DENIED);
    } else {
      reply->set_status(PlanOf(request->path()).valid ? Reply::OK : Reply::NOT_FOUND);
    }
    return grpc::Status::OK;
  }

  grpc::Status RunStream(grpc::ServerContext* context, const pluginv2::RunStreamRequest* request,
                         grpc::ServerWriter<pluginv2::StreamPacket>* writer) override {
    const Plan plan = PlanOf(request->path());
    if (!plan.valid) return grpc::Status(grpc::StatusCode::NOT_FOUND, "no stream of that path");
    for (int64_t i = 0; plan.count == 0 || i < plan.count; ++i) {
      if (i > 0 && !Sleep(plan.interval, *context, hub_)) return grpc::Status::OK;
      pluginv2::StreamPacket packet;
      packet.set_data(MakePacket(i));
      if (!writer->Write(packet)) return grpc::Status::OK;
    }
    return grpc::Status::OK;
  }

  grpc::Status PublishStream(grpc::ServerContext*, const pluginv2::PublishStreamRequest* request,
                             pluginv2::PublishStreamResponse* reply) override {
    using Reply = pluginv2::PublishStreamResponse;
    if (request->path() != "echo") {
      reply->set_status(request->path() == "forbidden" ? Reply::PERMISSION_DENIED : Reply::NOT_FOUND);
      return grpc::Status::OK;
    }
    reply->set_status(Reply::OK);
    reply->set_data(request->data());
    return grpc::Status::OK;
  }

 private:
  struct Plan {
    bool valid = false;
    int64_t count = 0;  // 0: without end.
    std::chrono::milliseconds interval{0};
  };

  static Plan PlanOf(std::string_view path) {
    const size_t slash = std::min(path.find('/'), path.size());
    const std::string_view kind = path.substr(0, slash);
    const std::string_view digits = path.substr(std::min(slash + 1, path.size()));
    int64_t number = 0;
    const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), number);
    const bool is_number =
        error == std::errc() && end == digits.data() + digits.size() && number > 0 && number <= 1'000'000;
    if (kind == "random" && is_number) return Plan{.valid = true, .interval = std::chrono::milliseconds(number)};
    if (kind == "count" && is_number) return Plan{.valid = true, .count = number};
    return {};
  }

  // Schema with the first packet, bare data afterwards.
  static std::string MakePacket(int64_t i) {
    const auto now = std::chrono::system_clock::now().time_since_epoch();
    const auto ms = std::chrono::duration_cast<std::chrono::milliseconds>(now).count();
    Frame frame{.name = "stream"};
    frame.fields.push_back(Field{.name = "time", .column = Cells<TimeNs>{TimeNs{ms * 1'000'000}}});
    frame.fields.push_back(Field{.name = "value", .column = Cells<double>{static_cast<double>(i % 100)}});
    return WriteFrameChunkJson(frame, 0, 1, i == 0);
  }

  StdioHub* hub_;
};

// ---- go-plugin's own services, and health.

class HealthService final : public grpc::health::v1::Health::Service {
 public:
  grpc::Status Check(grpc::ServerContext*, const grpc::health::v1::HealthCheckRequest* request,
                     grpc::health::v1::HealthCheckResponse* reply) override {
    if (request->service() != "plugin") return grpc::Status(grpc::StatusCode::NOT_FOUND, "unknown service");
    reply->set_status(grpc::health::v1::HealthCheckResponse::SERVING);
    return grpc::Status::OK;
  }
};

class ControllerService final : public plugin::GRPCController::Service {
 public:
  explicit ControllerService(std::function<void()> on_shutdown) : on_shutdown_(std::move(on_shutdown)) {}
  grpc::Status Shutdown(grpc::ServerContext*, const plugin::Empty*, plugin::Empty*) override {
    on_shutdown_();
    return grpc::Status::OK;
  }

 private:
  std::function<void()> on_shutdown_;
};

class StdioService final : public plugin::GRPCStdio::Service {
 public:
  explicit StdioService(StdioHub* hub) : hub_(hub) {}
  grpc::Status StreamStdio(grpc::ServerContext* context, const google::protobuf::Empty*,
                           grpc::ServerWriter<plugin::StdioData>* writer) override {
    while (!context->IsCancelled() && !hub_->stopped()) {
      plugin::StdioData message;
      message.set_channel(plugin::StdioData::STDOUT);
      message.set_data(hub_->Take());
      if (!message.data().empty() && !writer->Write(message)) break;
    }
    return grpc::Status::OK;
  }

 private:
  StdioHub* hub_;
};

class BrokerService final : public plugin::GRPCBroker::Service {
 public:
  explicit BrokerService(StdioHub* hub) : hub_(hub) {}
  // Held open, nothing is brokered.
  grpc::Status StartStream(grpc::ServerContext* context,
                           grpc::ServerReaderWriter<plugin::ConnInfo, plugin::ConnInfo>*) override {
    while (Sleep(std::chrono::seconds(1), *context, hub_)) {
    }
    return grpc::Status::OK;
  }

 private:
  StdioHub* hub_;
};

// A debug line per call, as the Go SDK writes it.
class CallLogger final : public grpc::experimental::Interceptor {
 public:
  explicit CallLogger(std::string method) : method_(std::move(method)) {}
  void Intercept(grpc::experimental::InterceptorBatchMethods* methods) override {
    if (methods->QueryInterceptionHookPoint(grpc::experimental::InterceptionHookPoints::PRE_SEND_STATUS)) {
      LogLine("debug", "Plugin Request Completed " + method_);
    }
    methods->Proceed();
  }

 private:
  std::string method_;
};

class CallLoggerFactory final : public grpc::experimental::ServerInterceptorFactoryInterface {
 public:
  grpc::experimental::Interceptor* CreateServerInterceptor(grpc::experimental::ServerRpcInfo* info) override {
    return new CallLogger(info->method());
  }
};

}  // namespace

struct Services::Impl {
  explicit Impl(ServiceOptions given)
      : options(std::move(given)),
        data(&counters, &hub),
        diagnostics(&counters, options.healthy),
        resource(&counters, &hub),
        stream(&hub),
        controller(options.on_shutdown),
        stdio(&hub),
        broker(&hub) {}

  ServiceOptions options;
  Counters counters;
  StdioHub hub;
  DataService data;
  DiagnosticsService diagnostics;
  ResourceService resource;
  StreamService stream;
  HealthService health;
  ControllerService controller;
  StdioService stdio;
  BrokerService broker;
};

Services::Services(ServiceOptions options) : impl_(std::make_unique<Impl>(std::move(options))) {}
Services::~Services() = default;

void Services::Register(grpc::ServerBuilder* builder) {
  builder->RegisterService(&impl_->data).RegisterService(&impl_->diagnostics);
  builder->RegisterService(&impl_->resource).RegisterService(&impl_->stream);
  if (impl_->options.health) builder->RegisterService(&impl_->health);
  if (impl_->options.go_plugin_services) {
    builder->RegisterService(&impl_->controller).RegisterService(&impl_->stdio).RegisterService(&impl_->broker);
  }
  if (impl_->options.log_requests) {
    std::vector<std::unique_ptr<grpc::experimental::ServerInterceptorFactoryInterface>> factories;
    factories.push_back(std::make_unique<CallLoggerFactory>());
    builder->experimental().SetInterceptorCreators(std::move(factories));
  }
}

void Services::Stop() { impl_->hub.Stop(); }

void LogLine(const char* level, const std::string& message) {
  const auto now = std::chrono::system_clock::now();
  const auto us = std::chrono::duration_cast<std::chrono::microseconds>(now.time_since_epoch()).count() % 1'000'000;
  const Json line{{"@level", level},
                  {"@message", message},
                  {"@module", "testdata"},
                  {"@timestamp", fmt::format("{:%Y-%m-%dT%H:%M:%S}.{:06}Z", fmt::gmtime(now), us)}};
  const std::string text = line.dump(-1, ' ', false, Json::error_handler_t::replace) + "\n";
  // One write, so that lines of two threads do not mix; if nobody reads any more there is nobody to tell.
  [[maybe_unused]] const ssize_t written = write(STDERR_FILENO, text.data(), text.size());
}

}  // namespace dpa::testdata
