// GrpcCall is one call to a plugin: unary, or with a stream of replies that is read with back-pressure. It lives in the
// frame of the coroutine that makes it:
//
//     GrpcCall call(worker, options);
//     call.ArmDeadline(timeout_ms);
//     exchange.CancelWhenClientGone(&call);
//     Result<GrpcReply> reply = co_await call.Unary(session, request);
//
// What the plugin says about the call (its status) is in the reply; an Error is what happened to the call: our deadline
// (kTimeout), Cancel's reason, the connection (kReset, kClosed), a peer that broke gRPC (kMalformed, kTooLarge; fault()
// says how), a session that could not take it (kShed, kClosed). retry_safe: the plugin has certainly not seen it.
//
// A call that is given up resets its stream (RST_STREAM CANCEL) at once. Cancel before or between attempts ends the
// next one.

#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string_view>

#include "core/byte_buffer.h"
#include "core/result.h"
#include "core/task.h"
#include "core/timer_wheel.h"
#include "core/worker.h"
#include "grpc_bridge/grpc_framing.h"
#include "grpc_bridge/h2_session.h"

namespace dpa {

struct GrpcCallOptions {
  size_t message_bytes_max = 128u << 20;  // Of one reply message.
};

// All of it must stay until the call has ended.
struct GrpcRequest {
  static constexpr size_t kPiecesMax = 4;
  static constexpr size_t kMetadataMax = 16;

  std::string_view path;                     // "/pluginv2.Data/QueryData"
  std::span<const std::string_view> pieces;  // One serialized message, without its prefix; at most kPiecesMax.
  std::span<const H2Field> metadata;         // Lower-case names; at most kMetadataMax.
};

struct GrpcReply {
  GrpcStatus status;
  ByteBuffer message;  // Empty unless the status is OK.
};

class GrpcCall final : public Cancellable, private H2Stream {
 public:
  GrpcCall(Worker& worker, const GrpcCallOptions& options);
  ~GrpcCall();

  // From now on, over all attempts; the plugin is told what is left of it. 0: no limit.
  void ArmDeadline(uint64_t timeout_ms);
  void Cancel(Error reason) override;
  bool cancelled() const { return cancelled_; }
  Error cancel_reason() const { return cancel_reason_; }

  // Makes the call. May be called again after it has failed (another attempt).
  Task<Result<GrpcReply>> Unary(H2Session& session, const GrpcRequest& request);

  // Begins a call whose replies come as a stream. Errors: as H2Session::Open, the reason of Cancel.
  Result<void> Start(H2Session& session, const GrpcRequest& request);
  // The next message; none at the end, when status() says how it went. Messages that came before an error of the
  // connection are handed out first. REQUIRES: Start() succeeded; one reader.
  Task<Result<std::optional<ByteBuffer>>> Read();
  const GrpcStatus& status() const { return fields_.status(); }

  // Suspends until something has happened to the call (a Cancel, too). May wake for nothing.
  Signal::WaitAwaiter Wait() { return wake_.Wait(); }
  void Wake() { wake_.Notify(); }

  GrpcFault fault() const { return fault_; }
  uint32_t attempts_count() const { return attempts_count_; }
  // By the worker's clock; 0 = did not happen (in the last attempt).
  uint64_t begun_ns() const { return begun_ns_; }
  uint64_t request_sent_ns() const { return request_sent_ns_; }
  uint64_t response_head_ns() const { return response_head_ns_; }

 private:
  enum class State : uint8_t { kIdle, kActive, kEnded };
  static constexpr size_t kOwnFieldsMax = 9;

  void OnField(std::string_view name, std::string_view value) override;
  void OnFieldsEnd() override;
  void OnData(std::string_view bytes) override;
  void OnRequestSent() override;
  void OnEnd(Result<void> result) override;

  Result<void> Begin(H2Session& session, const GrpcRequest& request, bool streaming);
  H2Request Assemble(const GrpcRequest& request);
  void TakeUnary(std::string_view bytes);
  Result<bool> TakeFromInbox();
  void Finish(std::optional<Error> error);
  void GiveUp(GrpcFault fault);

  Worker& worker_;
  Signal wake_;
  Deadline deadline_;
  uint64_t deadline_at_ms_ = 0;  // 0: none.
  bool cancelled_ = false;
  Error cancel_reason_;

  State state_ = State::kIdle;
  bool streaming_ = false;
  GrpcFault fault_ = GrpcFault::kNone;
  std::optional<Error> error_;  // Set when the call has ended by one.
  GrpcResponseFields fields_;
  GrpcMessageReader reader_;
  // Streaming: what has come and is not read yet, from inbox_offset_. Bounded by the stream's window.
  ByteBuffer inbox_;
  size_t inbox_offset_ = 0;

  std::array<char, kGrpcPrefixBytes> prefix_{};
  GrpcTimeoutText timeout_text_{};
  std::array<H2Field, kOwnFieldsMax + GrpcRequest::kMetadataMax> head_;
  std::array<std::string_view, GrpcRequest::kPiecesMax + 1> body_;
  uint32_t attempts_count_ = 0;
  uint64_t begun_ns_ = 0;
  uint64_t request_sent_ns_ = 0;
  uint64_t response_head_ns_ = 0;
};

}  // namespace dpa
