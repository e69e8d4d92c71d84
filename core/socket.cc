#include "core/socket.h"

#include <algorithm>
#include <array>
#include <utility>

namespace dpa {
namespace {

// Pieces that one sendmsg takes (UIO_MAXIOV).
constexpr size_t kPiecesPerSendMax = 1024;
// Pieces that join posted bytes in one sendmsg, and those: a message's usual ones fit.
constexpr size_t kPiecesWithPosted = 24;
// A unix listener whose backlog is full refuses at once; this is the pause before it is tried again.
constexpr uint64_t kUnixRetryMs = 5;

size_t TotalBytes(std::span<const iovec> pieces) {
  size_t bytes = 0;
  for (const iovec& piece : pieces) bytes += piece.iov_len;
  return bytes;
}

}  // namespace

Socket::Socket(Worker& worker, int fd, bool is_unix, ErrorSource source)
    : worker_(worker),
      fd_(fd),
      is_unix_(is_unix),
      source_(source),
      receive_(*this),
      send_(*this),
      posted_(worker.bytes()) {
  DPA_ASSERT(fd >= 0);
}

Socket::~Socket() {
  DPA_ASSERT(fd_ < 0);
  DPA_ASSERT(!receive_waiter_ && !send_waiter_ && !joiner_);
}

// --- Receiving ---

uint32_t Socket::QueuedPause() const {
  const BufferPool& pool = worker_.ring().buffers();
  return pool.free_count() * 2 >= pool.buffers_count() ? kQueuedPause : 1;
}

bool Socket::PrepareReceive() {
  DPA_ASSERT(fd_ >= 0 && !receive_waiter_);
  if (HasReceiveResult()) return true;
  ArmReceive();
  return false;
}

void Socket::ArmReceive() {
  if (receive_.in_flight() || receive_ended_ || cancelled_ || is_waiting_for_buffers()) return;
  worker_.ring().Receive(receive_, fd_, is_unix_ ? ReceiveMode::kOnce : ReceiveMode::kMultishot);
}

Result<BufferLease> Socket::TakeReceived() {
  const bool interrupted = std::exchange(receive_interrupted_, false);
  if (cancelled_) return std::unexpected(cancel_reason_);
  if (interrupted) return std::unexpected(interrupt_reason_);
  if (queued_count() == 0) {
    DPA_ASSERT(receive_ended_);
    return std::unexpected(receive_error_);
  }
  BufferLease lease = std::move(queued_[queued_begin_++]);
  if (queued_begin_ == queued_.size()) {
    queued_.clear();
    queued_begin_ = 0;
    if (observer_ != nullptr) ArmReceive();
  }
  return lease;
}

void Socket::OnReceived(Completion& completion, int32_t value, bool more, BufferLease buffer) {
  Socket& socket = static_cast<ReceiveOperation&>(completion).socket;
  if (value > 0) {
    socket.received_bytes_ += static_cast<uint64_t>(value);
    BufferPool& pool = socket.worker_.ring().buffers();
    if (pool.is_scarce()) pool.Detach(buffer);
    socket.queued_.push_back(std::move(buffer));
    if (more && socket.queued_count() >= socket.QueuedPause()) socket.worker_.ring().Cancel(completion);
  } else if (value == 0) {
    // The kernel tells of a reset once, to the call that comes first. If that was a send, what looks like an orderly
    // end here is none, and must not end a body that only the close ends.
    socket.EndReceive(socket.broken_ ? socket.broken_error_ : Error{ErrorCode::kClosed, socket.source_});
  } else if (value == -ENOBUFS) {
    // The pool is dry. Whoever waits, or watches, goes on when buffers come back.
    const bool wanted = !socket.cancelled_ && (socket.receive_waiter_ || socket.observer_ != nullptr);
    if (wanted) socket.worker_.ring().buffers().WaitForBuffers(socket);
  } else if (value != -ECANCELED) {
    socket.EndReceive(ErrorFromErrno(-value, socket.source_));
  }
  if (!more) {
    const bool wanted = socket.receive_waiter_ || socket.observer_ != nullptr;
    if (wanted && socket.queued_count() == 0) socket.ArmReceive();
    socket.NotifyJoiner();
  }
  // Last: the receiver may end this socket.
  socket.DeliverReceive();
}

void Socket::EndReceive(Error error) {
  receive_ended_ = true;
  receive_error_ = error;
}

void Socket::DeliverReceive() {
  if (receive_waiter_) {
    if (HasReceiveResult()) std::exchange(receive_waiter_, nullptr).resume();
    return;
  }
  if (observer_ == nullptr) return;
  if (receive_ended_) {
    std::exchange(observer_, nullptr)->OnPeerClosed(*this, receive_error_);
  } else if (queued_count() != 0) {
    observer_->OnUnreadBytes(*this);
  }
}

void Socket::OnBuffersAvailable() { ArmReceive(); }

void Socket::Watch(SocketObserver& observer) {
  DPA_ASSERT(!receive_waiter_);
  observer_ = &observer;
  if (receive_ended_) {
    std::exchange(observer_, nullptr)->OnPeerClosed(*this, receive_error_);
  } else if (queued_count() == 0) {
    ArmReceive();
  }
}

// --- Sending ---

bool Socket::PrepareSend(std::span<iovec> pieces, SendCheck check) {
  DPA_ASSERT(fd_ >= 0 && send_done_);
  // Posted bytes may have failed since: the connection is of no use any more.
  if (send_failed_) return true;
  send_pieces_ = pieces;
  send_check_ = check;
  AdvanceSend(0);
  if (!HasOutput() && !cancelled_) return true;
  send_done_ = false;
  // Posted bytes that the ring is sending go on from their completion.
  if (!send_.in_flight()) worker_.AtEndOfTurn(*this);
  return false;
}

void Socket::Post(std::span<const iovec> pieces) {
  DPA_ASSERT(fd_ >= 0 && CanPost(TotalBytes(pieces)));
  for (const iovec& piece : pieces) posted_.Append({static_cast<const char*>(piece.iov_base), piece.iov_len});
  if (!posted_.empty()) worker_.AtEndOfTurn(*this);
}

// Drops `bytes` from the front of what is to be sent, and empty pieces.
void Socket::AdvanceSend(size_t bytes) {
  sent_bytes_ += bytes;
  if (!posted_.empty()) {
    const size_t taken = std::min(bytes, posted().size());
    posted_begin_ += taken;
    bytes -= taken;
    if (!posted().empty()) return;
    posted_.Release();
    posted_begin_ = 0;
  }
  while (!send_pieces_.empty() && bytes >= send_pieces_.front().iov_len) {
    bytes -= send_pieces_.front().iov_len;
    send_pieces_ = send_pieces_.subspan(1);
  }
  if (bytes == 0) return;
  DPA_ASSERT(!send_pieces_.empty());
  iovec& front = send_pieces_.front();
  front.iov_base = static_cast<char*>(front.iov_base) + bytes;
  front.iov_len -= bytes;
}

// What this turn's completions have told is in the queue; what has come since only the kernel knows. Both looks miss
// what is still on its way, and completions beyond one turn's batch.
Result<void> Socket::CheckQuiet(SendCheck check) {
  if (check == SendCheck::kNone) return {};
  if (has_unread()) return std::unexpected(Error{ErrorCode::kMalformed, source_});
  if (receive_ended_) return std::unexpected(receive_error_);
  const int peeked = check == SendCheck::kAsked ? worker_.ring().PeekNow(fd_) : -EAGAIN;
  if (peeked == -EAGAIN) return {};
  if (peeked < 0) return std::unexpected(ErrorFromErrno(-peeked, source_));
  return std::unexpected(Error{peeked == 0 ? ErrorCode::kClosed : ErrorCode::kMalformed, source_});
}

void Socket::OnEndOfTurn() {
  const SendCheck check = std::exchange(send_check_, SendCheck::kNone);
  const Result<void> allowed = cancelled_ ? std::unexpected(cancel_reason_) : CheckQuiet(check);
  if (!allowed) return FailSend(allowed.error());
  bool short_send = false;
  while (HasOutput() && !short_send) {
    std::array<iovec, kPiecesWithPosted> gathered;
    send_message_ = {};
    send_message_.msg_iov = send_pieces_.data();
    send_message_.msg_iovlen = std::min(send_pieces_.size(), kPiecesPerSendMax);
    if (!posted_.empty()) {
      const size_t joined_count = std::min(send_pieces_.size(), gathered.size() - 1);
      gathered[0] = {const_cast<char*>(posted().data()), posted().size()};
      std::copy_n(send_pieces_.begin(), joined_count, gathered.begin() + 1);
      send_message_.msg_iov = gathered.data();
      send_message_.msg_iovlen = joined_count + 1;
    }
    const size_t offered = TotalBytes({send_message_.msg_iov, send_message_.msg_iovlen});
    const ssize_t sent = worker_.ring().SendNow(fd_, send_message_);
    ++sends_count_;
    if (sent < 0 && sent != -EAGAIN) return BreakSend(static_cast<int>(-sent));
    if (sent > 0) AdvanceSend(static_cast<size_t>(sent));
    short_send = sent < 0 || static_cast<size_t>(sent) < offered;
  }
  if (!HasOutput()) return FinishSend();
  SubmitSend();
}

// The socket's buffer is full: the ring sends the rest as room comes.
void Socket::SubmitSend() {
  if (posted_.empty()) {
    send_message_.msg_iov = send_pieces_.data();
    send_message_.msg_iovlen = std::min(send_pieces_.size(), kPiecesPerSendMax);
  } else {
    posted_piece_ = {const_cast<char*>(posted().data()), posted().size()};
    send_message_.msg_iov = &posted_piece_;
    send_message_.msg_iovlen = 1;
  }
  ++sends_count_;
  worker_.ring().Send(send_, fd_, send_message_);
}

void Socket::OnSent(Completion& completion, int32_t value, bool, BufferLease) {
  Socket& socket = static_cast<SendOperation&>(completion).socket;
  if (value > 0) socket.AdvanceSend(static_cast<size_t>(value));
  socket.NotifyJoiner();
  if (!socket.HasOutput()) return socket.FinishSend();
  if (socket.cancelled_) return socket.FailSend(socket.cancel_reason_);
  if (value < 0) return socket.BreakSend(-value);
  socket.worker_.AtEndOfTurn(socket);
}

void Socket::BreakSend(int os_errno) {
  broken_ = true;
  broken_error_ = ErrorFromErrno(os_errno, source_);
  FailSend(broken_error_);
}

// For good: a stream that has lost bytes cannot go on.
void Socket::FailSend(Error error) {
  send_failed_ = true;
  send_error_ = error;
  posted_.Release();
  posted_begin_ = 0;
  send_pieces_ = {};
  FinishSend();
}

void Socket::FinishSend() {
  send_done_ = true;
  if (send_waiter_) std::exchange(send_waiter_, nullptr).resume();
}

Result<void> Socket::TakeSent() {
  if (send_failed_) return std::unexpected(send_error_);
  return {};
}

// --- Ending ---

void Socket::Cancel(Error reason) {
  if (cancelled_ || fd_ < 0) return;
  cancelled_ = true;
  cancel_reason_ = reason;
  worker_.ring().buffers().StopWaiting(*this);
  // Pending operations complete at once (shutdown is a plain call; on the ring it would cost a kernel worker thread).
  worker_.ring().Shutdown(fd_, SHUT_RDWR);
  if (receive_waiter_) worker_.Schedule(std::exchange(receive_waiter_, nullptr));
}

void Socket::InterruptReceive(Error reason) {
  if (!receive_waiter_) return;
  receive_interrupted_ = true;
  interrupt_reason_ = reason;
  worker_.Schedule(std::exchange(receive_waiter_, nullptr));
}

void Socket::ShutdownSend() {
  DPA_ASSERT(posted_.empty());
  if (fd_ >= 0 && !cancelled_) worker_.ring().Shutdown(fd_, SHUT_WR);
}

void Socket::NotifyJoiner() {
  if (joiner_ && !InFlight()) worker_.Schedule(std::exchange(joiner_, nullptr));
}

Task<void> Socket::Close() {
  DPA_ASSERT(fd_ >= 0 && !receive_waiter_ && !send_waiter_ && send_done_);
  observer_ = nullptr;
  Cancel(Error{ErrorCode::kCancelled, source_});
  DPA_ASSERT(!is_waiting_for_buffers());
  // Shutdown completes a receive by itself; a cancel covers what has not yet been polled.
  if (receive_.in_flight()) worker_.ring().Cancel(receive_);
  if (!posted_.empty()) {
    // Its turn's end is still to come; cancelled, it only drops them.
    const std::span<iovec> nothing;
    static_cast<void>(co_await Send(nothing));
  }
  JoinAwaiter join{*this};
  co_await join;
  queued_.clear();
  queued_begin_ = 0;
  worker_.ring().Close(std::exchange(fd_, -1));
}

Task<void> Socket::LingerAndClose(uint64_t timeout_ms, uint64_t bytes_max) {
  Deadline deadline(worker_.timers(), *this, Error{ErrorCode::kTimeout, source_});
  deadline.ArmAfter(timeout_ms);
  observer_ = nullptr;
  ShutdownSend();
  uint64_t discarded_bytes = 0;
  while (discarded_bytes <= bytes_max) {
    Result<BufferLease> lease = co_await Receive();
    if (!lease) break;
    discarded_bytes += lease->size();
  }
  deadline.Disarm();
  co_await Close();
}

// --- Connecting ---

namespace {

// Connects one TCP descriptor. Cancelled by its deadline, or from outside.
class ConnectOperation final : public Completion, public Cancellable {
 public:
  ConnectOperation(Worker& worker, int fd, const Address& address)
      : Completion(&ConnectOperation::OnConnected), worker_(worker), fd_(fd), address_(address) {}

  bool await_ready() const { return false; }
  void await_suspend(std::coroutine_handle<> handle) {
    waiter_ = handle;
    worker_.ring().Connect(*this, fd_, address_.get(), address_.bytes());
  }
  int32_t await_resume() const { return value_; }

  void Cancel(Error) override { worker_.ring().Cancel(*this); }

 private:
  static void OnConnected(Completion& completion, int32_t value, bool, BufferLease) {
    auto& self = static_cast<ConnectOperation&>(completion);
    self.value_ = value;
    self.waiter_.resume();
  }

  Worker& worker_;
  const int fd_;
  const Address& address_;
  std::coroutine_handle<> waiter_;
  int32_t value_ = 0;
};

Error ConnectError(int os_errno, ErrorSource source) {
  Error error = ErrorFromErrno(os_errno, source);
  error.retry_safe = true;
  return error;
}

Task<int> ConnectUnix(Worker& worker, int fd, const Address& address, uint64_t timeout_ms, const Cancellation& cancel) {
  const uint64_t give_up_ms = worker.timers().now_ms() + timeout_ms;
  for (;;) {
    const int failed = worker.ring().ConnectNow(fd, address.get(), address.bytes());
    if (failed != -EAGAIN || cancel.cancelled()) co_return failed;
    if (worker.timers().now_ms() >= give_up_ms) co_return -EAGAIN;
    co_await worker.Sleep(kUnixRetryMs);
  }
}

Task<int> ConnectTcp(Worker& worker, int fd, const Address& address, uint64_t timeout_ms, Cancellation& cancel) {
  ConnectOperation operation(worker, fd, address);
  Deadline deadline(worker.timers(), operation, Error{ErrorCode::kTimeout});
  deadline.ArmAfter(timeout_ms);
  cancel.Guard(&operation);
  const int32_t value = co_await operation;
  cancel.Guard(nullptr);
  co_return value < 0 && deadline.fired() ? -ETIMEDOUT : value;
}

}  // namespace

Task<Result<int>> Connect(Worker& worker, const Address& address, uint64_t timeout_ms, ErrorSource source,
                          Cancellation* cancel) {
  Cancellation never;
  Cancellation& cancelled = cancel != nullptr ? *cancel : never;
  if (cancelled.cancelled()) co_return std::unexpected(cancelled.reason());
  const int fd = worker.ring().OpenSocket(address.family());
  if (fd < 0) co_return std::unexpected(ConnectError(-fd, source));
  int failed = 0;
  if (address.is_unix()) {
    failed = co_await ConnectUnix(worker, fd, address, timeout_ms, cancelled);
  } else {
    failed = co_await ConnectTcp(worker, fd, address, timeout_ms, cancelled);
  }
  if (failed == 0 && !cancelled.cancelled()) co_return fd;
  worker.ring().Close(fd);
  if (cancelled.cancelled()) co_return std::unexpected(cancelled.reason());
  co_return std::unexpected(ConnectError(-failed, source));
}

}  // namespace dpa
