#include "grpc_bridge/plugin_client.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <optional>
#include <utility>

#include "core/assert.h"
#include "grpc_bridge/protobuf_wire.h"
#include "grpc_bridge/text.h"

namespace dpa {
namespace {

constexpr std::array<ServiceType, 2> kImplemented = {ServiceType::kQuery, ServiceType::kHealth};

// Working memory of requests that is kept for the next ones: as many as usually run at once, and no giants.
constexpr size_t kFreeWorkMax = 256;
constexpr size_t kKeptMessageBytesMax = 256u << 10;

constexpr size_t kHeadersMax = 32;
constexpr size_t kTraceBytesMax = 512;
constexpr size_t kPluginMessageBytesMax = 2'048;

int64_t WallClockMs() {
  const auto now = std::chrono::system_clock::now().time_since_epoch();
  return std::chrono::duration_cast<std::chrono::milliseconds>(now).count();
}

int HexValue(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return -1;
}

// A path segment into `out`; a '%' without two digits stays as it is and will match no name.
void DecodeSegment(std::string_view raw, std::string& out) {
  out.clear();
  for (size_t i = 0; i < raw.size(); ++i) {
    const int high = raw[i] == '%' && i + 2 < raw.size() ? HexValue(raw[i + 1]) : -1;
    const int low = high >= 0 ? HexValue(raw[i + 2]) : -1;
    if (low < 0) {
      out.push_back(raw[i]);
    } else {
      out.push_back(static_cast<char>(high << 4 | low));
      i += 2;
    }
  }
}

// W3C trace context travels as gRPC metadata. What HTTP/2 would not carry is left out.
size_t TraceMetadata(const RequestIds& ids, std::span<H2Field, 2> metadata) {
  size_t count = 0;
  const auto add = [&](std::string_view name, std::string_view value) {
    const bool printable = std::ranges::all_of(value, [](char c) { return c >= ' ' && c <= '~'; });
    if (printable && !value.empty() && value.size() <= kTraceBytesMax)
      metadata[count++] = {name, value, /*varies=*/true};
  };
  add("traceparent", ids.traceparent);
  if (count != 0) add("tracestate", ids.tracestate);
  return count;
}

// Both Go's and C++'s gRPC say it in these words when our request is larger than they take.
bool SaysRequestTooLarge(std::string_view message) {
  return message.find("eceived message larger than max") != std::string_view::npos;
}

Reason ReasonOf(const GrpcStatus& status) {
  switch (status.code) {
    case GrpcCode::kDeadlineExceeded:
      return Reason::kPluginTimeout;
    case GrpcCode::kUnimplemented:
      return Reason::kPluginNotImplemented;
    // The plugin, or what is left of it, says that it went away during the call. Unlike 503, 502 promises nothing about
    // whether the request had an effect.
    case GrpcCode::kUnavailable:
      return Reason::kPluginDied;
    case GrpcCode::kResourceExhausted:
      return SaysRequestTooLarge(status.message) ? Reason::kBodyTooLarge : Reason::kPluginReplyTooLarge;
    default:
      return Reason::kPluginError;
  }
}

std::string Describe(std::string_view plugin_id, const GrpcStatus& status) {
  const std::string_view words = std::string_view(status.message).substr(0, kPluginMessageBytesMax);
  std::string text = fmt::format("plugin {} answered {}", plugin_id, ToString(status.code));
  if (!words.empty()) text += ": ";
  AppendUtf8(words, text);
  return text;
}

std::string DescribeUnavailable(std::string_view plugin_id, const PluginChannel& channel) {
  switch (channel.state()) {
    case PluginState::kRunning:
      return fmt::format("plugin {} cannot be reached", plugin_id);
    case PluginState::kStarting:
      return fmt::format("plugin {} is starting", plugin_id);
    case PluginState::kBackoff:
      return fmt::format("plugin {} has failed and will be started again: {}", plugin_id, channel.failure());
    case PluginState::kStopped:
      return fmt::format("plugin {} is stopped: {}", plugin_id, channel.failure());
  }
  return "";
}

std::string DescribeError(std::string_view plugin_id, Reason reason, const PluginChannel& channel,
                          const GrpcCall& call) {
  if (call.fault() != GrpcFault::kNone) return fmt::format("plugin {} {}", plugin_id, ToString(call.fault()));
  switch (reason) {
    case Reason::kPluginUnavailable:
      return DescribeUnavailable(plugin_id, channel);
    case Reason::kPluginOverloaded:
      return fmt::format("plugin {} has too many calls in flight", plugin_id);
    case Reason::kPluginDied:
      return fmt::format("the connection to plugin {} broke during the call", plugin_id);
    case Reason::kPluginTimeout:
      return fmt::format("plugin {} did not answer in time", plugin_id);
    case Reason::kPluginBadReply:
      return fmt::format("plugin {} broke the HTTP/2 protocol", plugin_id);
    case Reason::kPluginReplyTooLarge:
      return fmt::format("plugin {} answered with too many header fields", plugin_id);
    default:
      return fmt::format("the call to plugin {} failed", plugin_id);
  }
}

Task<void> RefuseMethod(Exchange& exchange, std::string_view allow) {
  const std::array<HeaderField, 1> fields = {{{"Allow", allow}}};
  const std::string message = fmt::format("method {} is not allowed here, only {}", exchange.request().method, allow);
  co_await exchange.RespondError(Reason::kMethodNotAllowed, message, fields);
}

Task<void> RefuseBody(Exchange& exchange, Error error, size_t bytes_max) {
  // Reading the client's bytes failed, whoever noted it.
  error.source = ErrorSource::kDownstream;
  const Reason reason = ReasonFromError(error);
  std::string message = "the request body could not be read";
  if (reason == Reason::kBodyTooLarge) message = fmt::format("the request body is larger than {} bytes", bytes_max);
  co_await exchange.RespondError(reason, message);
}

// The answer to a call that ended in an error or a status other than OK.
Task<void> RefuseCall(Exchange& exchange, const PluginChannel& channel, const GrpcCall& call,
                      const Result<GrpcReply>& reply) {
  const std::string_view plugin_id = exchange.match().target->plugin_id;
  if (reply) {
    const std::string message = Describe(plugin_id, reply->status);
    exchange.record().ended_by = ErrorSource::kPlugin;
    co_await exchange.RespondError(ReasonOf(reply->status), message);
    co_return;
  }
  exchange.record().ended_by = reply.error().source;
  const Reason reason = ReasonFromError(reply.error());
  const std::string message = DescribeError(plugin_id, reason, channel, call);
  co_await exchange.RespondError(reason, message);
}

}  // namespace

// What one request needs besides its coroutines' frames, reused from request to request.
struct PluginClient::Work {
  explicit Work(BytePool& pool) : body(pool) {}
  ByteBuffer body;
  std::string uid;
  std::string namespace_name;
  std::string message;  // The serialized request.
  QueryReply reply;
  std::string text;
  std::vector<iovec> pieces;
};

class PluginClient::WorkLease {
 public:
  explicit WorkLease(PluginClient& client) : client_(client) {
    ++client_.serving_count_;
    if (client_.free_work_.empty()) {
      work_ = std::make_unique<Work>(client_.worker_.bytes());
    } else {
      work_ = std::move(client_.free_work_.back());
      client_.free_work_.pop_back();
    }
  }
  ~WorkLease() {
    --client_.serving_count_;
    work_->body.Release();
    work_->message.clear();
    work_->text.clear();
    if (work_->message.capacity() > kKeptMessageBytesMax) std::string().swap(work_->message);
    if (client_.free_work_.size() < kFreeWorkMax) client_.free_work_.push_back(std::move(work_));
  }
  WorkLease(const WorkLease&) = delete;
  WorkLease& operator=(const WorkLease&) = delete;
  Work& operator*() const { return *work_; }
  Work* operator->() const { return work_.get(); }

 private:
  PluginClient& client_;
  std::unique_ptr<Work> work_;
};

struct PluginClient::Target {
  PluginChannel* channel = nullptr;
  const PluginContextEntry* context = nullptr;  // Of the current snapshot: good until the next wait.
};

PluginClient::PluginClient(Worker& worker, const SnapshotPublisher<PluginDirectory>& directory,
                           const SnapshotPublisher<PluginContexts>& contexts, const PluginClientOptions& options)
    : worker_(worker), options_(options), directory_(directory), contexts_(contexts), translator_(options.query) {
  UpdateChannels();
  worker_.AddTurnObserver(*this);
}

PluginClient::~PluginClient() {
  DPA_ASSERT(serving_count_ == 0);
  worker_.RemoveTurnObserver(*this);
}

std::span<const ServiceType> PluginClient::implemented() { return kImplemented; }

void PluginClient::OnTurn() {
  contexts_.Adopt();
  if (directory_.Adopt()) UpdateChannels();
}

// A channel, once made, stays: plugin ids are few, they are the folders of --plugins.
void PluginClient::UpdateChannels() {
  for (const PluginEntry& entry : directory_.current().plugins) {
    std::unique_ptr<PluginChannel>& channel = channels_[entry.id];
    if (!channel) {
      channel = std::make_unique<PluginChannel>(worker_, memory_, options_.channel, entry.id, metrics_.For(entry.id));
    }
    channel->Update(&entry);
  }
  for (const auto& [id, channel] : channels_) {
    if (channel->installed() && directory_.current().Find(id) == nullptr) channel->Update(nullptr);
  }
}

PluginChannel* PluginClient::FindChannel(std::string_view plugin_id) {
  const auto found = channels_.find(plugin_id);
  return found != channels_.end() && found->second->installed() ? found->second.get() : nullptr;
}

size_t PluginClient::connections_count() const {
  size_t count = 0;
  for (const auto& [id, channel] : channels_) count += channel->connections_count();
  return count;
}

Task<void> PluginClient::Drain() {
  DPA_ASSERT(serving_count_ == 0);
  for (const auto& [id, channel] : channels_) co_await channel->Drain();
}

Task<void> PluginClient::Serve(Exchange& exchange) {
  const RouteTarget& target = *exchange.match().target;
  AccessRecord& record = exchange.record();
  record.plugin = target.plugin_id;
  record.service = target.service_name;
  record.route = ToString(target.type);
  switch (target.type) {
    case ServiceType::kQuery:
      co_await ServeQuery(exchange);
      break;
    case ServiceType::kHealth:
      co_await ServeHealth(exchange);
      break;
    default:
      co_await exchange.RespondError(Reason::kInternal, "this service type is not implemented");
      break;
  }
}

// --- Who is asked ---

// The plugin and the data source that the path names. What is missing is told in `refusal`, so that the body can be
// checked first.
PluginClient::Target PluginClient::FindTarget(Exchange& exchange, Work& work, Refusal& refusal) {
  const RouteMatch& match = exchange.match();
  DecodeSegment(match.capture("ns"), work.namespace_name);
  DecodeSegment(match.capture("uid"), work.uid);
  const std::string& plugin_id = match.target->plugin_id;
  Target target{FindChannel(plugin_id), nullptr};
  if (target.channel == nullptr) {
    refusal = {Reason::kPluginNotFound, fmt::format("plugin {} is not installed", plugin_id)};
    return target;
  }
  const std::expected<NamespaceInfo, std::string> space = ParseNamespace(work.namespace_name);
  if (!space) {
    refusal = {Reason::kNamespaceNotFound, space.error()};
    return target;
  }
  const PluginContextEntry* context = contexts_.current().Find(space->org_id, work.uid);
  // A data source of another plugin is not found either: its settings and secrets are none of this one's business.
  if (context == nullptr || context->source->type != plugin_id) {
    refusal = {Reason::kDatasourceNotFound, fmt::format("no data source of type {} with uid {} in namespace {}",
                                                        plugin_id, work.uid, work.namespace_name)};
    return target;
  }
  target.context = context;
  return target;
}

// --- Calling ---

Task<Result<GrpcReply>> PluginClient::Call(Exchange& exchange, PluginChannel& channel, GrpcCall& call,
                                           std::string_view path, std::string_view message) {
  std::array<H2Field, 2> metadata;
  const size_t metadata_count = TraceMetadata(exchange.ids(), metadata);
  const GrpcRequest request{path, {&message, 1}, {metadata.data(), metadata_count}};
  call.ArmDeadline(options_.call_timeout_ms);
  exchange.CancelWhenClientGone(&call);
  Result<GrpcReply> reply = co_await channel.Unary(call, request);
  exchange.CancelWhenClientGone(nullptr);
  AccessRecord& record = exchange.record();
  record.upstream_ready_ns = call.begun_ns();
  record.request_sent_ns = call.request_sent_ns();
  record.response_head_ns = call.response_head_ns();
  record.retries_count = call.attempts_count() > 1 ? call.attempts_count() - 1 : 0;
  co_return reply;
}

void PluginClient::Count(PluginChannel& channel, PluginEndpoint endpoint, const Result<GrpcReply>& reply, bool failed,
                         uint64_t started_ns, size_t request_bytes) {
  PluginCallStatus status = failed ? PluginCallStatus::kError : PluginCallStatus::kOk;
  PluginStatusSource source = PluginStatusSource::kPlugin;
  if (!reply && reply.error().source == ErrorSource::kDownstream) status = PluginCallStatus::kCancelled;
  if (reply && reply->status.code == GrpcCode::kCancelled) status = PluginCallStatus::kCancelled;
  if (reply && ErrorSourceFromStatusDetails(reply->status.details) == "downstream")
    source = PluginStatusSource::kDownstream;
  const double seconds = static_cast<double>(worker_.now_ns() - started_ns) / 1e9;
  channel.metrics().CountCall(endpoint, status, source, seconds, request_bytes);
}

// --- Query ---

Task<void> PluginClient::ServeQuery(Exchange& exchange) {
  if (exchange.request().method != "POST") co_return co_await RefuseMethod(exchange, "POST");
  const WorkLease work(*this);
  const Result<void> read = co_await exchange.ReadWholeBody(work->body, options_.request_bytes_max, kQueryBodyPadding);
  if (!read) co_return co_await RefuseBody(exchange, read.error(), options_.request_bytes_max);

  Refusal refusal;
  const Target target = FindTarget(exchange, *work, refusal);
  Refusal of_body = TranslateQuery(exchange, *work, target);
  if (of_body.reason != Reason::kOk) refusal = std::move(of_body);
  if (refusal.reason != Reason::kOk) {
    co_await exchange.RespondError(refusal.reason, refusal.message);
    co_return;
  }
  const size_t body_bytes = work->body.size();
  work->body.Release();

  GrpcCall call(worker_, options_.call);
  const uint64_t started_ns = worker_.now_ns();
  const Result<GrpcReply> reply =
      co_await Call(exchange, *target.channel, call, "/pluginv2.Data/QueryData", work->message);
  if (!reply || reply->status.code != GrpcCode::kOk) {
    Count(*target.channel, PluginEndpoint::kQueryData, reply, /*failed=*/true, started_ns, body_bytes);
    co_return co_await RefuseCall(exchange, *target.channel, call, reply);
  }
  const auto rendered = RenderQueryResponse(reply->message.view(), options_.transcoder, options_.reply, work->reply);
  bool failed = !rendered;
  for (const QueryResultSummary& result : work->reply.results()) failed = failed || result.is_error;
  Count(*target.channel, PluginEndpoint::kQueryData, reply, failed, started_ns, body_bytes);
  if (!rendered) {
    exchange.record().ended_by = ErrorSource::kPlugin;
    co_await exchange.RespondError(rendered.error().reason, rendered.error().message);
    co_return;
  }
  // Frames are sent from where the plugin's message lies; it stays until they are out.
  work->pieces.assign(work->reply.pieces().begin(), work->reply.pieces().end());
  co_await exchange.Respond(Response{}, work->pieces);
}

// The request message into work.message. The body's errors come before those of `target`, which may be incomplete.
PluginClient::Refusal PluginClient::TranslateQuery(Exchange& exchange, Work& work, const Target& target) {
  static const PluginContextEntry kNoContext;
  std::array<QueryHeader, kHeadersMax + 1> headers;  // And the request id.
  size_t headers_count = 0;
  for (const HeaderField& field : exchange.request().fields) {
    const std::string_view name = ForwardedHeaderName(field.name);
    if (!name.empty() && headers_count < kHeadersMax) headers[headers_count++] = {name, field.value};
  }
  const std::string_view request_id = exchange.ids().request_id;
  if (!request_id.empty()) headers[headers_count++] = {"X-Request-Id", request_id};
  const QueryTarget query_target{
      .plugin_id = exchange.match().target->plugin_id,
      .uid = work.uid,
      .namespace_name = work.namespace_name,
      .context = target.context == nullptr ? &kNoContext : target.context,
      .headers = {headers.data(), headers_count},
  };
  const auto translated = translator_.Translate(work.body.view(), query_target, WallClockMs(), work.message);
  if (translated) return {};
  return {translated.error().reason, translated.error().message};
}

// --- Health ---

Task<void> PluginClient::ServeHealth(Exchange& exchange) {
  const std::string_view method = exchange.request().method;
  if (method != "GET" && method != "HEAD") co_return co_await RefuseMethod(exchange, "GET, HEAD");
  const WorkLease work(*this);
  Refusal refusal;
  const Target target = FindTarget(exchange, *work, refusal);
  if (refusal.reason != Reason::kOk) {
    co_await exchange.RespondError(refusal.reason, refusal.message);
    co_return;
  }
  AppendPluginContext(*target.context, work->namespace_name, nullptr, work->message);
  const std::string_view request_id = exchange.ids().request_id;
  if (!request_id.empty()) wire::AppendMapEntry(2, "http_X-Request-Id", request_id, work->message);
  GrpcCall call(worker_, options_.call);
  const uint64_t started_ns = worker_.now_ns();
  const Result<GrpcReply> reply =
      co_await Call(exchange, *target.channel, call, "/pluginv2.Diagnostics/CheckHealth", work->message);
  const bool unimplemented = reply && reply->status.code == GrpcCode::kUnimplemented;
  const bool answered = reply && (reply->status.code == GrpcCode::kOk || unimplemented);
  Count(*target.channel, PluginEndpoint::kCheckHealth, reply, !answered, started_ns, work->message.size());
  if (!answered) co_return co_await RefuseCall(exchange, *target.channel, call, reply);
  co_await AnswerHealth(exchange, *work, *reply, target.channel->plugin_type());
}

// Grafana's answer: 200 when all is well, else 400 for a data source and 503 for any other plugin.
Task<void> PluginClient::AnswerHealth(Exchange& exchange, Work& work, const GrpcReply& reply,
                                      std::string_view plugin_type) {
  uint64_t status = 0;
  std::string_view message;
  std::string_view details;
  wire::Reader reader(reply.message.view());
  while (reader.Next()) {
    if (reader.IsVarint(1)) status = reader.varint();
    if (reader.IsBytes(2)) message = reader.bytes();
    if (reader.IsBytes(3)) details = reader.bytes();
  }
  if (reader.failed()) {
    exchange.record().ended_by = ErrorSource::kPlugin;
    co_await exchange.RespondError(Reason::kPluginBadReply, "the plugin's health answer is not a CheckHealthResponse");
    co_return;
  }
  if (reply.status.code == GrpcCode::kUnimplemented) message = "Health check not implemented";
  work.text = status == 1   ? "{\"status\":\"OK\",\"message\":"
              : status == 2 ? "{\"status\":\"ERROR\",\"message\":"
                            : "{\"status\":\"UNKNOWN\",\"message\":";
  AppendJsonString(message, work.text);
  const bool is_object = details.size() >= 2 && details.front() == '{' && details.back() == '}';
  if (is_object) work.text.append(",\"details\":").append(details);
  work.text.push_back('}');
  Response response;
  if (status != 1) response.status = plugin_type == "datasource" ? 400 : 503;
  work.pieces.assign(1, iovec{work.text.data(), work.text.size()});
  co_await exchange.Respond(response, work.pieces);
}

}  // namespace dpa
