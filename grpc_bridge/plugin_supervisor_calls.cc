#include "grpc_bridge/plugin_supervisor_calls.h"

#include <fmt/format.h>
#include <grpcpp/grpcpp.h>
#include <unistd.h>

#include <chrono>
#include <condition_variable>
#include <list>
#include <mutex>

#include "core/assert.h"
#include "core/log.h"
#include "grpc_bridge/proto/go_plugin.grpc.pb.h"
#include "grpc_bridge/proto/health.grpc.pb.h"

namespace dpa {
namespace {

namespace health = grpc::health::v1;

std::chrono::system_clock::time_point After(int64_t timeout_ms) {
  return std::chrono::system_clock::now() + std::chrono::milliseconds(timeout_ms);
}

std::shared_ptr<grpc::Channel> Dial(const std::string& address) {
  grpc::ChannelArguments arguments;
  // A proxy named in our environment is not for a plugin on this host, and a new process must not meet the old one's
  // channel.
  arguments.SetInt(GRPC_ARG_ENABLE_HTTP_PROXY, 0);
  arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
  arguments.SetInt(GRPC_ARG_MIN_RECONNECT_BACKOFF_MS, 100);
  arguments.SetInt(GRPC_ARG_INITIAL_RECONNECT_BACKOFF_MS, 100);
  arguments.SetInt(GRPC_ARG_MAX_RECONNECT_BACKOFF_MS, 1000);
  return grpc::CreateCustomChannel(address, grpc::InsecureChannelCredentials(), arguments);
}

PluginCalls::HealthAnswer Judge(const grpc::Status& status, const health::HealthCheckResponse& reply) {
  using Health = PluginCalls::Health;
  switch (status.error_code()) {
    case grpc::StatusCode::OK:
      if (reply.status() == health::HealthCheckResponse::SERVING) return {Health::kServing, ""};
      return {Health::kNotServing, fmt::format("says of itself that it is {}",
                                               health::HealthCheckResponse::ServingStatus_Name(reply.status()))};
    // No health service, or none for the name "plugin".
    case grpc::StatusCode::UNIMPLEMENTED:
    case grpc::StatusCode::NOT_FOUND:
      return {Health::kServing, ""};
    default:
      return {Health::kNoAnswer, fmt::format("health check failed: {}", status.error_message().substr(0, 200))};
  }
}

}  // namespace

struct PluginCalls::Impl {
  Impl(const std::string& address, int wake)
      : channel(Dial(address)),
        wake_fd(wake),
        health_stub(health::Health::NewStub(channel)),
        controller_stub(plugin::GRPCController::NewStub(channel)),
        stdio_stub(plugin::GRPCStdio::NewStub(channel)) {}

  // Reads the stream to its end; the gRPC library's threads call it.
  class StdioReader final : public grpc::ClientReadReactor<plugin::StdioData> {
   public:
    explicit StdioReader(Impl* owner) : owner_(owner) {}
    void OnReadDone(bool ok) override {
      if (ok) StartRead(&data);
    }
    void OnDone(const grpc::Status& status) override {
      LogDebug("plugin_stdio_ended", "code={} message={}", static_cast<int>(status.error_code()),
               Quoted(status.error_message()));
      owner_->Finished();
    }

    plugin::StdioData data;
    google::protobuf::Empty request;

   private:
    Impl* owner_;
  };

  struct HealthCall {
    health::HealthCheckRequest request;
    health::HealthCheckResponse reply;
  };
  struct ShutdownCall {
    plugin::Empty request;
    plugin::Empty reply;
  };

  // A context for one more call; it lives as long as this object, so that the destructor can cancel it.
  grpc::ClientContext* Begin() {
    const std::lock_guard lock(mutex);
    ++in_flight;
    return &contexts.emplace_back();
  }
  // The last thing that a call's callback does.
  void Finished() {
    const std::lock_guard lock(mutex);
    --in_flight;
    ended.notify_all();
  }
  void Wake() const {
    const uint64_t one = 1;
    [[maybe_unused]] const ssize_t written = write(wake_fd, &one, sizeof(one));
  }

  std::shared_ptr<grpc::Channel> channel;
  const int wake_fd;
  std::unique_ptr<health::Health::Stub> health_stub;
  std::unique_ptr<plugin::GRPCController::Stub> controller_stub;
  std::unique_ptr<plugin::GRPCStdio::Stub> stdio_stub;
  HealthCall health_call;
  ShutdownCall shutdown_call;
  std::unique_ptr<StdioReader> stdio;

  std::mutex mutex;  // Guards what follows.
  std::condition_variable ended;
  std::list<grpc::ClientContext> contexts;
  int in_flight = 0;
  std::optional<HealthAnswer> health_answer;
  std::optional<ShutdownAnswer> shutdown_answer;
};

PluginCalls::PluginCalls(const std::string& address, int wake_fd) : impl_(std::make_unique<Impl>(address, wake_fd)) {}

PluginCalls::~PluginCalls() {
  // Not under the lock: a callback may run inside of TryCancel. Nobody else adds to the list.
  for (grpc::ClientContext& context : impl_->contexts) context.TryCancel();
  std::unique_lock lock(impl_->mutex);
  impl_->ended.wait(lock, [this] { return impl_->in_flight == 0; });
}

void PluginCalls::CheckHealth(int64_t timeout_ms) {
  grpc::ClientContext* context = impl_->Begin();
  context->set_deadline(After(timeout_ms));
  impl_->health_call = {};
  impl_->health_call.request.set_service("plugin");
  impl_->health_stub->async()->Check(context, &impl_->health_call.request, &impl_->health_call.reply,
                                     [impl = impl_.get()](const grpc::Status& status) {
                                       {
                                         const std::lock_guard lock(impl->mutex);
                                         impl->health_answer = Judge(status, impl->health_call.reply);
                                       }
                                       impl->Wake();
                                       impl->Finished();
                                     });
}

std::optional<PluginCalls::HealthAnswer> PluginCalls::TakeHealth() {
  const std::lock_guard lock(impl_->mutex);
  return std::exchange(impl_->health_answer, std::nullopt);
}

void PluginCalls::Shutdown(int64_t timeout_ms) {
  grpc::ClientContext* context = impl_->Begin();
  context->set_deadline(After(timeout_ms));
  impl_->controller_stub->async()->Shutdown(
      context, &impl_->shutdown_call.request, &impl_->shutdown_call.reply,
      [impl = impl_.get()](const grpc::Status& status) {
        {
          const std::lock_guard lock(impl->mutex);
          impl->shutdown_answer = status.error_code() == grpc::StatusCode::UNIMPLEMENTED ? ShutdownAnswer::kUnsupported
                                                                                         : ShutdownAnswer::kAccepted;
        }
        impl->Wake();
        impl->Finished();
      });
}

std::optional<PluginCalls::ShutdownAnswer> PluginCalls::TakeShutdown() {
  const std::lock_guard lock(impl_->mutex);
  return std::exchange(impl_->shutdown_answer, std::nullopt);
}

void PluginCalls::DrainStdio() {
  DPA_ASSERT(impl_->stdio == nullptr);
  impl_->stdio = std::make_unique<Impl::StdioReader>(impl_.get());
  grpc::ClientContext* context = impl_->Begin();
  context->set_wait_for_ready(true);  // A plugin may listen a moment after its handshake.
  impl_->stdio_stub->async()->StreamStdio(context, &impl_->stdio->request, impl_->stdio.get());
  impl_->stdio->StartRead(&impl_->stdio->data);
  impl_->stdio->StartCall();
}

}  // namespace dpa
