// SimRing is the Ring of the simulated tests: an in-memory network, a clock of its own, and one seed that decides
// everything else — which completions come first, how late, how short, and what fails.
//
// The network has listeners by Address, TCP-like and unix-like stream connections with bounded kernel buffers both
// ways, half-close, end of stream and reset. Descriptors are numbers that no real descriptor has and that are never
// used twice; a real descriptor (the worker's eventfd) may only be polled, which is done with poll(2).
//
// It also holds its user to the contract of core/ring.h, and stops the test with a dump of what is in flight on:
//   - a descriptor closed with an operation in flight, or used after Close
//   - two receives or two sends on a descriptor, or SendNow beside a Send
//   - bytes, pieces or address of an operation changed before it completed
//   - a run in which nothing can ever happen again (no operation can progress and no deadline is given)
// Received bytes are overwritten and poisoned as soon as their lease ends.

#pragma once

#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "core/address.h"
#include "core/ring.h"
#include "tests/sim/sim_random.h"

namespace dpa {

// Chances out of 1000, each at every opportunity.
struct SimFaults {
  uint32_t delay = 300;          // A completion that could come now comes in a later pass.
  uint32_t stall = 5;            // The clock jumps ahead by up to `stall_ms_max` before a turn.
  uint32_t short_receive = 300;  // Fewer bytes than there are.
  uint32_t short_send = 300;     // Fewer bytes taken than there is room for.
  uint32_t send_again = 100;     // SendNow: EAGAIN although there is room.
  uint32_t end_multishot = 50;   // `more` == false for no reason that the user can see.
  uint32_t no_buffers = 20;      // ENOBUFS although there are buffers.
  uint32_t receive_error = 5;    // The connection breaks at a receive,
  uint32_t send_error = 5;       // or at a send.
  uint32_t accept_error = 30;    // EMFILE and its like.
  uint32_t connect_error = 50;   // Refused, unreachable, timed out, or never answered.
  uint32_t connect_again = 100;  // Unix connect: the backlog is full.
  uint32_t open_error = 10;      // OpenSocket: EMFILE.
  uint64_t stall_ms_max = 2000;

  // Delays and short counts only: nothing that a user could notice.
  static SimFaults Harmless();
  static SimFaults None();
  // Every chance drawn anew, some of them zero, so that runs differ in kind.
  static SimFaults Random(SimRandom& random);
};

struct SimRingOptions {
  uint64_t seed = 1;
  BufferPoolOptions buffers{.buffers_count = 8, .buffer_bytes = 512};
  uint32_t stream_bytes_max = 4096;  // What each direction of a connection holds.
  SimFaults faults;
};

class SimRing final : public Ring {
 public:
  explicit SimRing(const SimRingOptions& options);
  ~SimRing() override;  // REQUIRES: nothing is in flight.

  // --- The network, for tests ---

  // A listening descriptor, for Listener. REQUIRES: nobody listens at `address`.
  int Listen(const Address& address, uint32_t backlog_max = 8);
  // Two connected descriptors.
  std::pair<int, int> MakePair(bool is_unix);

  SimFaults& faults() { return faults_; }
  SimRandom& random() { return random_; }
  // Virtual descriptors not yet closed.
  size_t open_count() const { return descriptors_.size(); }
  // Operations that have not made their final call.
  size_t in_flight_count() const { return operations_.size() + undelivered_count_; }
  // Bytes on their way in both directions of all connections.
  size_t bytes_in_transit() const;
  uint64_t completions_count() const { return completions_count_; }
  // Faults injected so far that a user can notice: errors, resets, stalls. And those that he cannot: delays, short
  // counts, ends of multishot and the like.
  uint64_t faults_count() const { return faults_count_; }
  uint64_t nuisances_count() const { return nuisances_count_; }
  void AdvanceClock(uint64_t ns) { clock_ns_ += ns; }
  std::string Dump() const;

  // --- Ring ---

  void Accept(Completion& completion, int fd) override;
  void Receive(Completion& completion, int fd, ReceiveMode mode) override;
  void Send(Completion& completion, int fd, const msghdr& message) override;
  void Connect(Completion& completion, int fd, const sockaddr* address, socklen_t address_bytes) override;
  void Poll(Completion& completion, int fd, uint32_t poll_events) override;
  void Cancel(Completion& target) override;

  ssize_t SendNow(int fd, const msghdr& message) override;
  int OpenSocket(int domain) override;
  int ConnectNow(int fd, const sockaddr* address, socklen_t address_bytes) override;
  int PeekNow(int fd) override;
  void Shutdown(int fd, int how) override;
  bool HungUp(int fd) override;
  // `fd` may still be used: both ends see a reset.
  void Reset(int fd) override;
  void Close(int fd) override;

  void Wait(uint64_t deadline_ns) override;
  void Dispatch() override;
  uint64_t NowNs() override { return clock_ns_; }
  BufferPool& buffers() override;
  std::string_view name() const override { return "simulated"; }

 private:
  class Buffers;
  enum class Kind : uint8_t { kAccept, kReceive, kSend, kConnect, kPoll };
  enum class State : uint8_t { kFresh, kConnecting, kStream, kListening };

  struct Operation {
    Completion* completion;
    Kind kind;
    int fd;
    bool cancel_asked = false;
    uint32_t cancel_passes = 0;  // Since then, that it was not put off.
    bool ended = false;
    ReceiveMode mode = ReceiveMode::kOnce;
    const msghdr* message = nullptr;
    uint64_t checksum = 0;  // Of what the operation borrows.
    size_t sent_bytes = 0;
    const sockaddr* address = nullptr;
    socklen_t address_bytes = 0;
    uint32_t poll_events = 0;
    uint64_t ready_at_ns = 0;  // Connect: the answer comes then.
    int outcome = 0;           // Connect: an errno that has been decided on.
  };
  struct Descriptor {
    State state = State::kFresh;
    bool is_unix = false;
    int peer = -1;      // -1: the peer has closed.
    std::string inbox;  // Bytes that the peer has sent and nobody has received.
    bool fin_received = false;
    bool receive_shut = false;
    bool send_shut = false;
    int pending_error = 0;  // Told once, by the next receive or send.
    bool broken = false;
    Address address;
    uint32_t backlog_max = 0;
    std::deque<int> backlog;
    Operation* reading = nullptr;  // Accept, receive or connect.
    Operation* sending = nullptr;
    uint32_t undelivered = 0;  // Completions made and not yet called.
  };
  struct Done {
    Completion* completion;
    int fd;
    int32_t value;
    bool more;
    int32_t buffer_id;  // -1: none.
  };

  static bool IsReal(int fd);
  bool Fault(uint32_t chance);
  bool Nuisance(uint32_t chance);
  Descriptor& At(int fd, const char* use);
  int NewDescriptor(State state, bool is_unix);
  Operation& Submit(Completion& completion, Kind kind, int fd);
  void Finish(Operation& operation, int32_t value, bool more, int32_t buffer_id = -1);

  bool Pass();
  uint64_t NextEventNs() const;
  bool CanProgress(const Operation& operation);
  void Step(Operation& operation);
  void StepAccept(Operation& operation, Descriptor& at);
  void StepReceive(Operation& operation, Descriptor& at);
  void StepSend(Operation& operation, Descriptor& at);
  void StepConnect(Operation& operation, Descriptor& at);
  void StepPoll(Operation& operation);
  void Cancelled(Operation& operation);

  Descriptor* FindListener(const Address& address);
  bool Establish(int fd, Descriptor& at, const Address& address);
  size_t RoomAt(const Descriptor& at) const;
  int TakeSendError(Descriptor& at);
  size_t CopyOut(Descriptor& at, const msghdr& message, size_t skip_bytes, size_t bytes_max);
  void Break(Descriptor& at, int os_errno);
  int BrokenSend(Descriptor& at);
  [[noreturn]] void Fail(const std::string& what) const;

  const SimRingOptions options_;
  SimRandom random_;
  SimFaults faults_;
  uint64_t clock_ns_;
  std::unique_ptr<Buffers> buffers_;
  std::map<int, Descriptor> descriptors_;
  int next_fd_;
  std::vector<std::unique_ptr<Operation>> operations_;
  std::vector<Done> done_;
  size_t undelivered_count_ = 0;  // Final ones of done_, and of those being dispatched.
  uint64_t completions_count_ = 0;
  uint64_t faults_count_ = 0;
  uint64_t nuisances_count_ = 0;
};

}  // namespace dpa
