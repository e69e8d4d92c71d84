#include "grpc_bridge/h2_connection.h"

#include "core/assert.h"

namespace dpa {

H2Connection::H2Connection(Worker& worker, H2Memory& memory, const H2ConnectionOptions& options, int fd, bool is_unix)
    : worker_(worker),
      options_(options),
      socket_(worker, fd, is_unix, ErrorSource::kPlugin),
      session_(memory, options.h2, *this),
      writer_(worker),
      output_(worker.bytes()) {}

Task<Error> H2Connection::Run() {
  writer_.Spawn(WriteLoop());
  OnOutputWanted();  // SETTINGS go first.
  co_await ReadLoop();
  DPA_ASSERT(over_);
  // The writer waits for its hook or for a send that Close has ended; this wakes it in the first case.
  if (!hook_queued_) {
    hook_queued_ = true;
    worker_.AtEndOfTurn(*this);
  }
  co_await writer_.Join();
  worker_.timers().Disarm(*this);
  co_await socket_.Close();
  co_return reason_;
}

void H2Connection::Close(Error reason) {
  if (over_) return;
  over_ = true;
  reason_ = reason;
  session_.Fail(reason);
  socket_.Cancel(reason);
}

// --- Reading ---

Task<void> H2Connection::ReadLoop() {
  while (!over_) {
    const Result<BufferLease> lease = co_await socket_.Receive();
    if (!lease) {
      // An end of stream after the last call, with a GOAWAY or without, is how plugins leave.
      Close(lease.error());
      co_return;
    }
    if (over_) co_return;
    const Result<void> fed = session_.Feed({lease->data(), lease->size()});
    if (!fed) Close(fed.error());
  }
}

// --- Writing ---

void H2Connection::OnOutputWanted() {
  output_wanted_ = true;
  if (hook_queued_ || !hook_waiter_) return;
  hook_queued_ = true;
  worker_.AtEndOfTurn(*this);
}

void H2Connection::OnEndOfTurn() {
  hook_queued_ = false;
  if (hook_waiter_) std::exchange(hook_waiter_, nullptr).resume();
}

Task<void> H2Connection::WriteLoop() {
  HookAwaiter end_of_turn{*this};
  while (!over_) {
    co_await end_of_turn;
    if (over_) co_return;
    output_wanted_ = false;
    output_.Clear();
    const Result<bool> drained = session_.Drain(output_, options_.output_bytes_max);
    if (!drained) co_return Close(drained.error());
    ArmWaitingTimer();
    if (!output_.empty()) {
      iovec piece{output_.data(), output_.size()};
      const Result<void> sent = co_await socket_.Send({&piece, 1});
      if (!sent) co_return Close(sent.error());
    }
    if (over_) co_return;
    if (session_.finished()) {
      // Either all is done (ours or the peer's GOAWAY), or nghttp2 has said GOAWAY to a peer that broke the protocol.
      const bool orderly = session_.open_count() == 0 && session_.complaint().empty();
      co_return Close(Error{orderly ? ErrorCode::kClosed : ErrorCode::kMalformed, ErrorSource::kPlugin});
    }
    if (*drained || output_wanted_) {
      hook_queued_ = true;
      worker_.AtEndOfTurn(*this);
    } else {
      output_.Release();
    }
  }
}

void H2Connection::ArmWaitingTimer() {
  if (session_.waiting_count() == 0) return worker_.timers().Disarm(*this);
  const uint64_t expires_ms = session_.ExpireWaiting(worker_.now_ms());
  if (expires_ms != UINT64_MAX) worker_.timers().Arm(*this, expires_ms);
}

void H2Connection::OnExpire() { ArmWaitingTimer(); }

}  // namespace dpa
