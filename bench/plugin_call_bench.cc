// What one unary call to a plugin costs the worker: CPU of this thread per call, by calls in flight and size of the
// reply. Method: an H2Connection over a unix socket pair; the peer is a lean nghttp2 server in a thread of its own,
// whose cost is not counted. Translation and rendering are not in it (query_bench.cc).

#include <benchmark/benchmark.h>
#include <nghttp2/nghttp2.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cstdlib>
#include <cstring>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "core/ring_uring.h"
#include "core/worker.h"
#include "grpc_bridge/grpc_call.h"
#include "grpc_bridge/h2_connection.h"
#include "grpc_bridge/h2_memory.h"

namespace dpa {
namespace {

constexpr size_t kRequestBytes = 300;

// Answers every request with the same message.
class EchoPeer {
 public:
  EchoPeer(int fd, size_t reply_bytes) : fd_(fd) {
    const auto prefix = GrpcPrefix(reply_bytes);
    reply_.assign(prefix.data(), prefix.size()).append(reply_bytes, 'r');
    thread_ = std::thread([this] { Run(); });
  }
  ~EchoPeer() {
    thread_.join();
    close(fd_);
  }

 private:
  static nghttp2_nv Nv(const char* name, const char* value) {
    return {reinterpret_cast<uint8_t*>(const_cast<char*>(name)), reinterpret_cast<uint8_t*>(const_cast<char*>(value)),
            std::strlen(name), std::strlen(value), NGHTTP2_NV_FLAG_NO_COPY_NAME | NGHTTP2_NV_FLAG_NO_COPY_VALUE};
  }
  static int OnFrame(nghttp2_session* session, const nghttp2_frame* frame, void* self) {
    if ((frame->hd.flags & NGHTTP2_FLAG_END_STREAM) == 0) return 0;
    if (frame->hd.type != NGHTTP2_DATA && frame->hd.type != NGHTTP2_HEADERS) return 0;
    const nghttp2_nv head[] = {Nv(":status", "200"), Nv("content-type", "application/grpc")};
    nghttp2_data_provider provider{.source = {.ptr = self}, .read_callback = &Read};
    nghttp2_session_set_stream_user_data(session, frame->hd.stream_id, nullptr);
    return nghttp2_submit_response(session, frame->hd.stream_id, head, 2, &provider);
  }
  // The offset into the reply is kept as the stream's user data.
  static ssize_t Read(nghttp2_session* session, int32_t id, uint8_t* out, size_t bytes, uint32_t* flags,
                      nghttp2_data_source* source, void*) {
    const std::string& reply = static_cast<EchoPeer*>(source->ptr)->reply_;
    const auto offset = reinterpret_cast<uintptr_t>(nghttp2_session_get_stream_user_data(session, id));
    const size_t count = std::min(bytes, reply.size() - offset);
    std::memcpy(out, reply.data() + offset, count);
    nghttp2_session_set_stream_user_data(session, id, reinterpret_cast<void*>(offset + count));
    if (offset + count < reply.size()) return static_cast<ssize_t>(count);
    *flags |= NGHTTP2_DATA_FLAG_EOF | NGHTTP2_DATA_FLAG_NO_END_STREAM;
    const nghttp2_nv trailer = Nv("grpc-status", "0");
    nghttp2_submit_trailer(session, id, &trailer, 1);
    return static_cast<ssize_t>(count);
  }
  void Run() {
    nghttp2_session_callbacks* table = nullptr;
    nghttp2_session_callbacks_new(&table);
    nghttp2_session_callbacks_set_on_frame_recv_callback(table, &OnFrame);
    nghttp2_option* option = nullptr;
    nghttp2_option_new(&option);
    nghttp2_option_set_no_closed_streams(option, 1);
    nghttp2_session* session = nullptr;
    nghttp2_session_server_new2(&session, table, this, option);
    const nghttp2_settings_entry window = {NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, 1u << 20};
    nghttp2_submit_settings(session, NGHTTP2_FLAG_NONE, &window, 1);
    nghttp2_session_set_local_window_size(session, NGHTTP2_FLAG_NONE, 0, 16 << 20);
    std::vector<uint8_t> input(256 << 10);
    std::string output;
    while (Flush(session, output)) {
      const ssize_t count = read(fd_, input.data(), input.size());
      if (count <= 0 || nghttp2_session_mem_recv(session, input.data(), static_cast<size_t>(count)) < 0) break;
    }
    nghttp2_session_del(session);
    nghttp2_option_del(option);
    nghttp2_session_callbacks_del(table);
  }
  bool Flush(nghttp2_session* session, std::string& output) {
    output.clear();
    const uint8_t* bytes = nullptr;
    for (ssize_t count = 0; (count = nghttp2_session_mem_send(session, &bytes)) > 0;) {
      output.append(reinterpret_cast<const char*>(bytes), static_cast<size_t>(count));
    }
    for (size_t sent = 0; sent < output.size();) {
      const ssize_t count = send(fd_, output.data() + sent, output.size() - sent, MSG_NOSIGNAL);
      if (count <= 0) return false;
      sent += static_cast<size_t>(count);
    }
    return true;
  }

  const int fd_;
  std::string reply_;
  std::thread thread_;
};

Task<void> RunConnection(H2Connection& connection) { co_await connection.Run(); }

// One caller: calls until told to stop.
Task<void> CallForEver(Worker& worker, H2Session& session, const std::string& message, uint64_t& calls_count,
                       const bool& stopping) {
  while (!stopping) {
    GrpcCall call(worker, {});
    call.ArmDeadline(60'000);
    const std::string_view piece = message;
    const Result<GrpcReply> reply = co_await call.Unary(session, {"/pluginv2.Data/QueryData", {&piece, 1}, {}});
    if (!reply || reply->status.code != GrpcCode::kOk) std::abort();
    ++calls_count;
  }
}

void BM_UnaryCall(benchmark::State& state) {
  auto ring = UringRing::Create({});
  if (!ring) return state.SkipWithError(ring.error().c_str());
  Worker worker(**ring, 0);
  H2Memory memory;
  int pair[2];
  if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) != 0) return state.SkipWithError("no socket pair");
  EchoPeer peer(pair[1], static_cast<size_t>(state.range(1)));
  H2Connection connection(worker, memory, {}, pair[0], /*is_unix=*/true);
  worker.tasks().Spawn(RunConnection(connection));
  const std::string message(kRequestBytes, 'q');
  uint64_t calls_count = 0;
  bool stopping = false;
  for (int64_t i = 0; i < state.range(0); ++i) {
    worker.tasks().Spawn(CallForEver(worker, connection.session(), message, calls_count, stopping));
  }
  for (auto _ : state) {
    const uint64_t before = calls_count;
    while (calls_count < before + 1000) worker.RunTurn(true);
  }
  state.SetItemsProcessed(static_cast<int64_t>(calls_count));
  stopping = true;
  while (worker.tasks().running_count() > 1) worker.RunTurn(true);
  connection.CloseWhenIdle();
  while (worker.tasks().running_count() > 0) worker.RunTurn(true);
}
// CPU of this thread per 1000 calls.
BENCHMARK(BM_UnaryCall)
    ->ArgNames({"in_flight", "reply_bytes"})
    ->ArgsProduct({{1, 16, 64, 256}, {1024, 65536}})
    ->Unit(benchmark::kMicrosecond);

}  // namespace
}  // namespace dpa
