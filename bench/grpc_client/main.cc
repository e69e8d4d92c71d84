// grpc_client calls a plugin's Data.QueryData with the gRPC C++ library, N calls in flight on one completion queue and
// one
// thread: what a proxy would pay for the plugin hop alone if it used that library. The baseline of the query rows.
//
//   grpc_client ADDRESS IN_FLIGHT WARMUP_SECONDS SECONDS QUERY_JSON DATASOURCE_UID [PLUGIN_PID]
//
// ADDRESS is "unix:PATH" or "HOST:PORT". Builds the request and parses the reply for every call, as a proxy does.
// Prints one JSON object like loadgen's; exit status 1 if any call failed.

#include <grpcpp/grpcpp.h>
#include <time.h>

#include <cstdio>
#include <cstdlib>
#include <memory>
#include <string>
#include <vector>

#include "grpc_bridge/proto/pluginv2.grpc.pb.h"

namespace {

uint64_t ClockNs(clockid_t clock) {
  timespec now;
  clock_gettime(clock, &now);
  return static_cast<uint64_t>(now.tv_sec) * 1'000'000'000 + static_cast<uint64_t>(now.tv_nsec);
}

struct Call {
  grpc::ClientContext context;
  pluginv2::QueryDataResponse reply;
  grpc::Status status;
  std::unique_ptr<grpc::ClientAsyncResponseReader<pluginv2::QueryDataResponse>> reader;
};

struct Caller {
  pluginv2::Data::Stub& stub;
  grpc::CompletionQueue& queue;
  std::string query_json;
  std::string uid;

  void Start() {
    pluginv2::QueryDataRequest request;
    auto* context = request.mutable_plugincontext();
    context->set_orgid(1);
    context->set_pluginid("dpa-testdata-datasource");
    context->set_pluginversion("0.1.0");
    context->set_useragent("Grafana/12.0.0 (linux; amd64)");
    auto* settings = context->mutable_datasourceinstancesettings();
    settings->set_id(1);
    settings->set_uid(uid);
    settings->set_name(uid);
    settings->set_jsondata("{}");
    auto* query = request.add_queries();
    query->set_refid("A");
    query->set_maxdatapoints(100);
    query->set_intervalms(1000);
    query->mutable_timerange()->set_fromepochms(1'700'000'000'000);
    query->mutable_timerange()->set_toepochms(1'700'000'060'000);
    query->set_json(query_json);
    request.set_format(pluginv2::JSON);
    auto* call = new Call;
    call->reader = stub.AsyncQueryData(&call->context, request, &queue);
    call->reader->Finish(&call->reply, &call->status, call);
  }
};

uint64_t RunFor(Caller& caller, double seconds) {
  const uint64_t until_ns = ClockNs(CLOCK_MONOTONIC) + static_cast<uint64_t>(seconds * 1e9);
  uint64_t completed = 0;
  while (ClockNs(CLOCK_MONOTONIC) < until_ns) {
    void* tag = nullptr;
    bool ok = false;
    if (!caller.queue.Next(&tag, &ok)) break;
    const std::unique_ptr<Call> call(static_cast<Call*>(tag));
    if (!ok || !call->status.ok() || call->reply.responses().empty()) {
      std::fprintf(stderr, "grpc_client: %s\n", call->status.error_message().c_str());
      std::exit(1);
    }
    ++completed;
    caller.Start();
  }
  return completed;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 7) {
    std::fprintf(stderr, "usage: grpc_client ADDRESS IN_FLIGHT WARMUP SECONDS QUERY_JSON UID\n");
    return 2;
  }
  grpc::ChannelArguments arguments;
  arguments.SetMaxReceiveMessageSize(-1);
  auto channel = grpc::CreateCustomChannel(argv[1], grpc::InsecureChannelCredentials(), arguments);
  auto stub = pluginv2::Data::NewStub(channel);
  grpc::CompletionQueue queue;
  Caller caller{*stub, queue, argv[5], argv[6]};
  for (int i = 0; i < std::atoi(argv[2]); ++i) caller.Start();
  RunFor(caller, std::atof(argv[3]));
  const uint64_t cpu_before = ClockNs(CLOCK_PROCESS_CPUTIME_ID);
  const uint64_t started_ns = ClockNs(CLOCK_MONOTONIC);
  const uint64_t completed = RunFor(caller, std::atof(argv[4]));
  const double elapsed = static_cast<double>(ClockNs(CLOCK_MONOTONIC) - started_ns) / 1e9;
  const auto cpu_ns = static_cast<double>(ClockNs(CLOCK_PROCESS_CPUTIME_ID) - cpu_before);
  std::printf(
      "{\"requests\":%llu,\"seconds\":%.4f,\"requests_per_second\":%.0f,\"cpu_us_per_request\":%.4f,\"cpu_busy\":%.4f,"
      "\"foreign_share\":0,\"steal_share\":0}\n",
      static_cast<unsigned long long>(completed), elapsed, static_cast<double>(completed) / elapsed,
      cpu_ns / 1000.0 / static_cast<double>(completed), cpu_ns / 1e9 / elapsed);
  std::fflush(stdout);
  std::_Exit(0);  // Calls are still in flight; the process ends with them.
}
