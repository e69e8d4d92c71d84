// H2Connection is an H2Session on a socket: a loop that feeds it what arrives, and one that, at the end of a turn,
// sends what all its streams have to say in one go.
//
//     Run ──▶ running ──▶ (CloseWhenIdle: until the last stream has ended) ──▶ over
//                └──▶ Close, end of stream, reset, broken protocol: streams fail at once ──▶ over
//
// Immovable; belongs to its worker.

#pragma once

#include <coroutine>
#include <cstdint>
#include <utility>

#include "core/byte_buffer.h"
#include "core/result.h"
#include "core/socket.h"
#include "core/task.h"
#include "core/timer_wheel.h"
#include "core/worker.h"
#include "grpc_bridge/h2_session.h"

namespace dpa {

struct H2ConnectionOptions {
  H2Options h2;
  uint32_t output_bytes_max = 256u << 10;  // Gathered for one send; bounds what large requests copy at a time.
};

class H2Connection final : private H2Session::Owner, private TurnHook, private TimerWheel::Entry {
 public:
  // Takes over `fd`, connected. `worker` and `memory` outlive the connection.
  H2Connection(Worker& worker, H2Memory& memory, const H2ConnectionOptions& options, int fd, bool is_unix);

  // Serves until the connection is over; every stream has ended then, and nothing is in flight. The value is why:
  // kClosed after CloseWhenIdle or the peer's GOAWAY, else the error that ended it. REQUIRES: called once.
  Task<Error> Run();
  // Ends it now: streams fail with `reason` before this returns.
  void Close(Error reason);
  // No new streams; ends once those that run have.
  void CloseWhenIdle() { session_.CloseWhenIdle(); }

  H2Session& session() { return session_; }
  const H2Session& session() const { return session_; }

 private:
  // Waits for the end of a turn in which the session has something to send.
  struct HookAwaiter {
    H2Connection& connection;
    bool await_ready() const { return false; }
    void await_suspend(std::coroutine_handle<> handle) { connection.hook_waiter_ = handle; }
    void await_resume() const {}
  };

  void OnOutputWanted() override;
  void OnEndOfTurn() override;
  void OnExpire() override;

  Task<void> ReadLoop();
  Task<void> WriteLoop();
  void ArmWaitingTimer();

  Worker& worker_;
  const H2ConnectionOptions options_;
  Socket socket_;
  H2Session session_;
  TaskScope writer_;
  ByteBuffer output_;
  std::coroutine_handle<> hook_waiter_;
  bool hook_queued_ = false;
  bool output_wanted_ = false;  // While the writer is busy sending.
  bool over_ = false;
  Error reason_;
};

}  // namespace dpa
