// Ring is the completion interface of one worker: submit operations, take a turn, and their completions are called.
//
// Implementations: io_uring (core/ring_uring.h) and the simulated ring of the tests; an epoll one has the same shape.
// Nothing above this file knows which it is.
//
// Lifetime, the one rule: **cancel is a request, joining is the end.** Every submitted operation answers with exactly
// one final call of its Completion (`more` == false); until then the Completion, and every byte handed to the
// operation, stays where it is. Cancel() only makes that final call come sooner.
//
// Completions are copied out first and then called, from Dispatch() only, never from inside a submit. A Completion's
// handler may submit, and may resume the one coroutine that awaits it; waking anything else goes through
// Worker::Schedule.
//
// Thread safety: a Ring belongs to the thread that made it.

#pragma once

#include <sys/socket.h>
#include <sys/types.h>

#include <cerrno>
#include <cstdint>
#include <string_view>

#include "core/assert.h"
#include "core/buffer_pool.h"

namespace dpa {

// The record of one operation, embedded in the object that submits it; its address is the operation's user_data.
class Completion {
 public:
  // `value`: the operation's result, or -errno. `more`: further calls follow (multishot). `buffer`: received bytes, if
  // any.
  using Handler = void (*)(Completion& self, int32_t value, bool more, BufferLease buffer);

  explicit Completion(Handler handler) : handler_(handler) {}
  Completion(const Completion&) = delete;
  Completion& operator=(const Completion&) = delete;
  ~Completion() { DPA_ASSERT(!in_flight_); }

  bool in_flight() const { return in_flight_; }

  // For implementations of Ring, at each submit.
  void MarkSubmitted() {
    DPA_ASSERT(!in_flight_);
    in_flight_ = true;
  }
  // For implementations of Ring.
  void Complete(int32_t value, bool more, BufferLease buffer) {
    DPA_ASSERT(in_flight_);
    in_flight_ = more;
    handler_(*this, value, more, static_cast<BufferLease&&>(buffer));
  }

 private:
  Handler handler_;
  bool in_flight_ = false;
};

enum class ReceiveMode : uint8_t {
  kMultishot,  // Buffer after buffer until end of stream, an error, -ENOBUFS or a cancel. For TCP.
  kOnce,       // One buffer. For unix sockets: multishot there can lose the end of stream (axboe/liburing#1549).
};

class Ring {
 public:
  virtual ~Ring() = default;

  // --- Operations. REQUIRES: `completion` is not in flight. ---

  // Accepts until cancelled or failed; value = a new descriptor (CLOEXEC, NONBLOCK), once per connection.
  // Failed with -EMFILE or -ENFILE: submit again after a pause, never at once.
  virtual void Accept(Completion& completion, int fd) = 0;
  // value = count of bytes in `buffer`; 0 = end of stream; -ENOBUFS = the pool is dry (BufferPool::WaitForBuffers).
  virtual void Receive(Completion& completion, int fd, ReceiveMode mode) = 0;
  // Sends all of `message`; value = count of bytes sent, short only on error or cancel. `message` and its bytes belong
  // to the operation until it completes.
  virtual void Send(Completion& completion, int fd, const msghdr& message) = 0;
  // value = 0 once connected. `address` belongs to the operation until it completes. For TCP.
  virtual void Connect(Completion& completion, int fd, const sockaddr* address, socklen_t address_bytes) = 0;
  // value = the poll events that came. Multishot.
  virtual void Poll(Completion& completion, int fd, uint32_t poll_events) = 0;
  // Asks that the operation of `target` end soon, with -ECANCELED unless it was faster. No-op if it is not in flight.
  virtual void Cancel(Completion& target) = 0;

  // --- Calls that never wait and are done on return. Count or 0, or -errno. ---

  virtual ssize_t SendNow(int fd, const msghdr& message) = 0;
  // A connection that waits in the backlog of `fd`: a descriptor as Accept's, or -EAGAIN.
  virtual int AcceptNow(int) { return -EAGAIN; }
  virtual int OpenSocket(int domain) = 0;  // A stream socket, CLOEXEC and NONBLOCK.
  virtual int ConnectNow(int fd, const sockaddr* address, socklen_t address_bytes) = 0;  // For unix sockets.
  // What the next receive would find: 1: bytes; 0: end of stream; -EAGAIN: nothing yet. Takes nothing.
  virtual int PeekNow(int fd) = 0;
  virtual void Shutdown(int fd, int how) = 0;
  // The peer neither sends nor takes anything any more, or has broken the connection off. One that has only ended its
  // sending side is not gone; over TCP neither is, before its reset has come, one that has closed.
  virtual bool HungUp(int fd) = 0;
  // Breaks the connection off: a TCP peer sees a reset instead of an end of stream. `fd` is to be closed next.
  virtual void Reset(int fd) = 0;
  // REQUIRES: no operation in flight on `fd`.
  virtual void Close(int fd) = 0;

  // A turn has two halves, so that the worker can bring its clock and its snapshots up to date between them: whatever
  // the completions arm or match must count from the moment at which the ring woke, not from before it slept.
  //
  // Submits what is queued and waits for a completion until `deadline_ns` (0: do not wait; UINT64_MAX: for ever).
  virtual void Wait(uint64_t deadline_ns) = 0;
  // Calls the completions that have come.
  virtual void Dispatch() = 0;
  void Turn(uint64_t deadline_ns) {
    Wait(deadline_ns);
    Dispatch();
  }

  virtual uint64_t NowNs() = 0;  // Monotonic.
  virtual BufferPool& buffers() = 0;
  virtual std::string_view name() const = 0;  // "io_uring", "simulated".
};

}  // namespace dpa
