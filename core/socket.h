// Socket is one connected stream socket on one worker: TCP or unix, towards a client, the delegate or a plugin.
//
// Receiving: buffers come out of the ring's pool as bytes arrive (multishot on TCP, one at a time on unix sockets) and
// wait in a short queue until Receive() takes them; a full queue stops the receiving until it is drained, which is how
// a slow reader slows the sender. Sending: Send() is gathered with everything else of this turn and flushed at its end
// by one direct sendmsg; only what the kernel does not take at once goes through the ring.
//
// One Receive and one Send may wait at a time; a second is an assertion. Both end early by Cancel(reason): the first
// reason counts, the socket is shut down, and the waiting code returns `reason` through its normal error path.
//
//     open --> (Cancel) --> cancelled --> Close() joins what is in flight --> closed
//
// Immovable: the kernel knows its address.

#pragma once

#include <sys/uio.h>

#include <cerrno>
#include <coroutine>
#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

#include "core/address.h"
#include "core/buffer_pool.h"
#include "core/byte_buffer.h"
#include "core/cancellation.h"
#include "core/result.h"
#include "core/ring.h"
#include "core/task.h"
#include "core/worker.h"

namespace dpa {

class Socket;

// Told when the peer ends or breaks the connection, or sends bytes, while nobody waits in Receive().
class SocketObserver {
 public:
  // End of stream (kClosed) or an error. Called at most once. Must not destroy the socket.
  virtual void OnPeerClosed(Socket& socket, Error error) = 0;
  // Bytes arrived and wait in the queue.
  virtual void OnUnreadBytes(Socket&) {}

 protected:
  ~SocketObserver() = default;
};

// What a Send looks at before its first byte goes out. That is at the end of the turn, when every completion that the
// ring had for this turn has been called: an end of stream that came with the wake-up is known by then, although it was
// not yet when the send was asked for.
enum class SendCheck : uint8_t {
  kNone,
  kQuiet,  // Sends nothing if the peer has ended the connection, or has sent bytes that nobody has taken.
  kAsked,  // The same, and asks the kernel (one system call) for what has come since the ring woke.
};

class Socket final : public Cancellable, private TurnHook, private BufferPool::Waiter {
 public:
  // Takes over `fd`, connected. `source` is the side that errors are put down to. `worker` outlives the socket.
  Socket(Worker& worker, int fd, bool is_unix, ErrorSource source);
  ~Socket();  // REQUIRES: Close() has completed.
  Socket(const Socket&) = delete;
  Socket& operator=(const Socket&) = delete;

  struct ReceiveAwaiter {
    Socket& socket;
    bool await_ready() { return socket.PrepareReceive(); }
    void await_suspend(std::coroutine_handle<> handle) { socket.receive_waiter_ = handle; }
    Result<BufferLease> await_resume() { return socket.TakeReceived(); }
  };
  // The next bytes: a buffer of at least one byte. Errors: kClosed (end of stream), kReset, the reason of Cancel.
  // Bytes that came before the end of stream are handed out first.
  [[nodiscard]] ReceiveAwaiter Receive() { return ReceiveAwaiter{*this}; }

  struct SendAwaiter {
    Socket& socket;
    std::span<iovec> pieces;
    SendCheck check;
    bool await_ready() { return socket.PrepareSend(pieces, check); }
    void await_suspend(std::coroutine_handle<> handle) { socket.send_waiter_ = handle; }
    Result<void> await_resume() { return socket.TakeSent(); }
  };
  // Sends all `pieces`, in order, at the end of this turn. The array and the bytes belong to the operation until it is
  // done; the array is used up. Errors: kReset (the peer has gone), the reason of Cancel; if `check` forbade it:
  // kClosed or what broke the connection, or kMalformed (bytes out of turn).
  [[nodiscard]] SendAwaiter Send(std::span<iovec> pieces, SendCheck check = SendCheck::kNone) {
    return SendAwaiter{*this, pieces, check};
  }

  // Copies `pieces`, to leave ahead of all that is sent later, at the end of this turn at the latest: short messages
  // that several follow at once. Nobody waits for them; what goes wrong shows at the next Send. REQUIRES: CanPost.
  void Post(std::span<const iovec> pieces);
  // Nothing is being sent, and little enough is posted.
  bool CanPost(size_t bytes) const {
    return send_done_ && !send_.in_flight() && !cancelled_ && posted_.size() + bytes <= kPostedBytesMax;
  }
  // Of all that Send and Post were given, what has left or is posted.
  uint64_t taken_bytes() const { return sent_bytes_ + posted().size(); }
  // Posted bytes have not left yet. A Send of nothing waits for them.
  bool has_posted() const { return !posted_.empty(); }

  // Starts receiving although nobody waits, so that the observer hears of bytes or the end of stream.
  void Watch(SocketObserver& observer);
  void StopWatching() { observer_ = nullptr; }

  // Notes the first reason and shuts the socket down. What waits, and every later wait, ends with that reason.
  void Cancel(Error reason) override;
  // Ends the Receive that somebody waits in, with `reason`; the socket stays as it is and can be used on, to answer a
  // peer that stalled, for instance. No-op if nobody waits.
  void InterruptReceive(Error reason);
  // Ends our sending side (FIN) behind what was sent; receiving goes on. REQUIRES: nothing is posted.
  void ShutdownSend();

  // Joins what is in flight and closes; what is posted is dropped. REQUIRES: nobody waits in Receive or Send.
  Task<void> Close();
  // As Close, for when the peer may still be sending: closing with unread bytes would make the kernel reset the
  // connection and could destroy what we sent last. Ends our sending side, then discards input until end of stream,
  // `bytes_max` or
  // `timeout_ms`.
  Task<void> LingerAndClose(uint64_t timeout_ms, uint64_t bytes_max);

  Worker& worker() { return worker_; }
  uint32_t queued_count() const { return static_cast<uint32_t>(queued_.size()) - queued_begin_; }
  bool has_unread() const { return queued_count() != 0; }
  bool is_sending() const { return !send_done_ || send_.in_flight(); }
  bool peer_closed() const { return receive_ended_; }
  bool cancelled() const { return cancelled_; }
  Error cancel_reason() const { return cancel_reason_; }
  bool is_unix() const { return is_unix_; }
  int fd() const { return fd_; }
  uint64_t received_bytes() const { return received_bytes_; }
  uint64_t sent_bytes() const { return sent_bytes_; }
  uint64_t sends_count() const { return sends_count_; }  // System calls and ring operations.

 private:
  // Received buffers that may wait here before receiving is stopped: a few keep the kernel busy while we send, but slow
  // readers must not own the shared pool, so only one once half of the pool is lent. The ring may deliver a few more
  // before a cancel takes effect.
  static constexpr uint32_t kQueuedPause = 4;
  // What one gathered send takes with ease; and of what a slow reader asked for in advance no more is kept for it.
  static constexpr size_t kPostedBytesMax = 64 << 10;
  uint32_t QueuedPause() const;

  struct ReceiveOperation : Completion {
    explicit ReceiveOperation(Socket& s) : Completion(&Socket::OnReceived), socket(s) {}
    Socket& socket;
  };
  struct SendOperation : Completion {
    explicit SendOperation(Socket& s) : Completion(&Socket::OnSent), socket(s) {}
    Socket& socket;
  };

  static void OnReceived(Completion& completion, int32_t value, bool more, BufferLease buffer);
  static void OnSent(Completion& completion, int32_t value, bool more, BufferLease buffer);
  void OnEndOfTurn() override;
  void OnBuffersAvailable() override;

  bool PrepareReceive();
  Result<BufferLease> TakeReceived();
  bool PrepareSend(std::span<iovec> pieces, SendCheck check);
  Result<void> CheckQuiet(SendCheck check);
  Result<void> TakeSent();
  bool HasReceiveResult() const { return cancelled_ || queued_count() != 0 || receive_ended_; }
  void ArmReceive();
  void EndReceive(Error error);
  void DeliverReceive();
  void FinishSend();
  void SubmitSend();
  void FailSend(Error error);
  void AdvanceSend(size_t bytes);
  bool HasOutput() const { return !posted_.empty() || !send_pieces_.empty(); }
  std::string_view posted() const { return posted_.view().substr(posted_begin_); }
  void NotifyJoiner();
  bool InFlight() const { return receive_.in_flight() || send_.in_flight(); }
  bool is_waiting_for_buffers() { return worker_.ring().buffers().is_waiting(*this); }

  struct JoinAwaiter {
    Socket& socket;
    bool await_ready() const { return !socket.InFlight(); }
    void await_suspend(std::coroutine_handle<> handle) { socket.joiner_ = handle; }
    void await_resume() const {}
  };

  Worker& worker_;
  int fd_;
  const bool is_unix_;
  const ErrorSource source_;

  ReceiveOperation receive_;
  std::coroutine_handle<> receive_waiter_;
  SocketObserver* observer_ = nullptr;
  std::vector<BufferLease> queued_;  // From queued_begin_ on; keeps its memory.
  uint32_t queued_begin_ = 0;
  bool receive_ended_ = false;  // End of stream or error seen; receive_error_ says which.
  bool receive_interrupted_ = false;
  Error receive_error_;
  Error interrupt_reason_;

  SendOperation send_;
  std::coroutine_handle<> send_waiter_;
  std::span<iovec> send_pieces_;
  SendCheck send_check_ = SendCheck::kNone;
  ByteBuffer posted_;  // Goes out before send_pieces_, from posted_begin_ on; empty once all of it has left.
  size_t posted_begin_ = 0;
  iovec posted_piece_;
  msghdr send_message_{};
  bool send_failed_ = false;
  bool send_done_ = true;
  Error send_error_;

  bool cancelled_ = false;
  Error cancel_reason_;
  std::coroutine_handle<> joiner_;
  uint64_t received_bytes_ = 0;
  uint64_t sent_bytes_ = 0;
  uint64_t sends_count_ = 0;
};

// Connects to `address` within `timeout_ms`, unless `cancel` ends it first. The value is a connected descriptor for
// Socket. Errors, all retry_safe: kRefused, kUnreachable, kTimeout, kShed (a unix listener's backlog stayed full),
// kInternal. Besides: the reason of `cancel`.
Task<Result<int>> Connect(Worker& worker, const Address& address, uint64_t timeout_ms, ErrorSource source,
                          Cancellation* cancel = nullptr);

}  // namespace dpa
