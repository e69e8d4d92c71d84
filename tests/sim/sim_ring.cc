#include "tests/sim/sim_ring.h"

#include <fmt/format.h>
#include <poll.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <span>
#include <string_view>

#include "core/poison.h"

namespace dpa {
namespace {

constexpr int kFirstFd = 1'000'000;
constexpr uint64_t kPassNsMax = 2'000'000;           // The clock moves by up to this when completions are put off.
constexpr uint64_t kTurnNsMax = 50'000;              // And by up to this at every turn.
constexpr uint64_t kSynRetriesNs = 130'000'000'000;  // When a connect that nobody answers times out by itself.
constexpr uint32_t kCancelPassesMax = 3;
constexpr char kReleasedByte = '\xdd';

constexpr int kStreamErrors[] = {ECONNRESET, ECONNRESET, EPIPE, ETIMEDOUT, EHOSTUNREACH, ENOMEM};
constexpr int kAcceptErrors[] = {EMFILE, ENFILE, ENOMEM, ENOBUFS, ECONNABORTED};
constexpr int kConnectErrors[] = {ECONNREFUSED, EHOSTUNREACH, ENETUNREACH, ETIMEDOUT, EADDRNOTAVAIL, ECONNRESET};

uint64_t Hash(uint64_t seed, const void* memory, size_t bytes) {
  const auto* at = static_cast<const unsigned char*>(memory);
  for (size_t i = 0; i < bytes; ++i) seed = (seed ^ at[i]) * 0x100000001b3;
  return seed;
}

std::span<const iovec> PiecesOf(const msghdr& message) { return {message.msg_iov, message.msg_iovlen}; }

size_t TotalBytes(const msghdr& message) {
  size_t bytes = 0;
  for (const iovec& piece : PiecesOf(message)) bytes += piece.iov_len;
  return bytes;
}

// Of the pieces and of every byte that they name. Reading them is itself the check that they are alive.
uint64_t ChecksumOf(const msghdr& message) {
  uint64_t sum = Hash(0xcbf29ce484222325, &message.msg_iov, sizeof message.msg_iov);
  for (const iovec& piece : PiecesOf(message)) {
    sum = Hash(sum, &piece, sizeof piece);
    sum = Hash(sum, piece.iov_base, piece.iov_len);
  }
  return sum;
}

}  // namespace

// --- Faults ---

SimFaults SimFaults::None() {
  SimFaults faults = Harmless();
  faults.delay = faults.short_receive = faults.short_send = faults.send_again = faults.end_multishot = 0;
  faults.no_buffers = 0;
  return faults;
}

SimFaults SimFaults::Harmless() {
  SimFaults faults;
  faults.stall = faults.receive_error = faults.send_error = faults.accept_error = faults.connect_error = 0;
  faults.connect_again = faults.open_error = 0;
  return faults;
}

SimFaults SimFaults::Random(SimRandom& random) {
  SimFaults faults;
  for (uint32_t* chance : {&faults.delay, &faults.stall, &faults.short_receive, &faults.short_send, &faults.send_again,
                           &faults.end_multishot, &faults.no_buffers, &faults.receive_error, &faults.send_error,
                           &faults.accept_error, &faults.connect_error, &faults.connect_again, &faults.open_error}) {
    constexpr uint32_t kFactors[] = {0, 1, 1, 1, 3};
    *chance = std::min(*chance * random.Pick(kFactors), 800u);
  }
  return faults;
}

// --- Buffers ---

class SimRing::Buffers final : public BufferPool {
 public:
  Buffers(const BufferPoolOptions& options, SimRandom& random) : BufferPool(options), random_(random) {
    for (uint32_t id = 0; id < options.buffers_count; ++id) free_.push_back(static_cast<uint16_t>(id));
  }

  bool empty() const { return free_.empty(); }
  // Any of the free ones, filled with `bytes`.
  uint16_t Fill(std::string_view bytes) {
    std::swap(free_[random_.Below(free_.size())], free_.back());
    const uint16_t id = free_.back();
    free_.pop_back();
    Unpoison(At(id), bytes.size());
    std::memcpy(At(id), bytes.data(), bytes.size());
    return id;
  }

 private:
  char* At(uint16_t id) { return memory() + size_t{id} * buffer_bytes(); }
  void Recycle(uint16_t id) override {
    Unpoison(At(id), buffer_bytes());
    std::memset(At(id), kReleasedByte, buffer_bytes());
    Poison(At(id), buffer_bytes());
    free_.push_back(id);
  }

  SimRandom& random_;
  std::vector<uint16_t> free_;
};

// --- Making and ending ---

SimRing::SimRing(const SimRingOptions& options)
    : options_(options),
      random_(options.seed),
      faults_(options.faults),
      // Somewhere in the first months of uptime, so that runs cross different edges of the timer wheel.
      clock_ns_(random_.Below(10'000'000'000'000'000)),
      buffers_(std::make_unique<Buffers>(options.buffers, random_)),
      next_fd_(kFirstFd) {}

SimRing::~SimRing() {
  if (in_flight_count() != 0) Fail("the ring ends with operations in flight");
}

BufferPool& SimRing::buffers() { return *buffers_; }

void SimRing::Fail(const std::string& what) const {
  std::fprintf(stderr, "simulation: %s\n%s", what.c_str(), Dump().c_str());
  std::fflush(stderr);
  std::abort();
}

std::string SimRing::Dump() const {
  constexpr std::string_view kKinds[] = {"accept", "receive", "send", "connect", "poll"};
  constexpr std::string_view kStates[] = {"fresh", "connecting", "stream", "listening"};
  std::string out =
      fmt::format("  clock={}ns buffers_free={} lent={}\n", clock_ns_, buffers_->free_count(), buffers_->lent_count());
  for (const auto& one : operations_) {
    out += fmt::format("  in flight: {} fd={}{}\n", kKinds[static_cast<int>(one->kind)], one->fd,
                       one->cancel_asked ? " cancel asked" : "");
  }
  for (const auto& [fd, at] : descriptors_) {
    out += fmt::format("  fd={} {}{} peer={} inbox={} backlog={}{}{}{}{}\n", fd, kStates[static_cast<int>(at.state)],
                       at.is_unix ? " unix" : "", at.peer, at.inbox.size(), at.backlog.size(),
                       at.fin_received ? " fin-received" : "", at.send_shut ? " send-shut" : "",
                       at.receive_shut ? " receive-shut" : "", at.broken ? " broken" : "");
  }
  return out;
}

bool SimRing::IsReal(int fd) { return fd < kFirstFd; }

bool SimRing::Fault(uint32_t chance) {
  const bool happens = random_.Chance(chance);
  faults_count_ += happens;
  return happens;
}

bool SimRing::Nuisance(uint32_t chance) {
  const bool happens = random_.Chance(chance);
  nuisances_count_ += happens;
  return happens;
}

SimRing::Descriptor& SimRing::At(int fd, const char* use) {
  const auto found = descriptors_.find(fd);
  if (found == descriptors_.end()) Fail(fmt::format("{} on descriptor {}, which is not open", use, fd));
  return found->second;
}

int SimRing::NewDescriptor(State state, bool is_unix) {
  const int fd = next_fd_++;
  Descriptor& at = descriptors_[fd];
  at.state = state;
  at.is_unix = is_unix;
  return fd;
}

int SimRing::Listen(const Address& address, uint32_t backlog_max) {
  if (FindListener(address) != nullptr) Fail("two listeners on " + address.ToString());
  const int fd = NewDescriptor(State::kListening, address.is_unix());
  descriptors_[fd].address = address;
  descriptors_[fd].backlog_max = backlog_max;
  return fd;
}

std::pair<int, int> SimRing::MakePair(bool is_unix) {
  const int a = NewDescriptor(State::kStream, is_unix);
  const int b = NewDescriptor(State::kStream, is_unix);
  descriptors_[a].peer = b;
  descriptors_[b].peer = a;
  return {a, b};
}

size_t SimRing::bytes_in_transit() const {
  size_t bytes = 0;
  for (const auto& [fd, at] : descriptors_) bytes += at.inbox.size();
  return bytes;
}

SimRing::Descriptor* SimRing::FindListener(const Address& address) {
  for (auto& [fd, at] : descriptors_) {
    if (at.state == State::kListening && at.address == address) return &at;
  }
  return nullptr;
}

// --- Submitting ---

SimRing::Operation& SimRing::Submit(Completion& completion, Kind kind, int fd) {
  completion.MarkSubmitted();
  operations_.push_back(std::make_unique<Operation>(Operation{.completion = &completion, .kind = kind, .fd = fd}));
  Operation& operation = *operations_.back();
  if (kind == Kind::kPoll) return operation;
  Descriptor& at = At(fd, "an operation");
  Operation*& slot = kind == Kind::kSend ? at.sending : at.reading;
  if (slot != nullptr) Fail(fmt::format("two operations of one direction on descriptor {}", fd));
  slot = &operation;
  return operation;
}

void SimRing::Accept(Completion& completion, int fd) {
  if (At(fd, "Accept").state != State::kListening) Fail("Accept on what does not listen");
  Submit(completion, Kind::kAccept, fd);
}

void SimRing::Receive(Completion& completion, int fd, ReceiveMode mode) {
  if (At(fd, "Receive").state != State::kStream) Fail("Receive on what is not connected");
  Submit(completion, Kind::kReceive, fd).mode = mode;
}

void SimRing::Send(Completion& completion, int fd, const msghdr& message) {
  if (At(fd, "Send").state != State::kStream) Fail("Send on what is not connected");
  if (TotalBytes(message) == 0 || message.msg_iovlen > 1024) Fail("Send of no bytes or of too many pieces");
  Operation& operation = Submit(completion, Kind::kSend, fd);
  operation.message = &message;
  operation.checksum = ChecksumOf(message);
}

void SimRing::Connect(Completion& completion, int fd, const sockaddr* address, socklen_t address_bytes) {
  Descriptor& at = At(fd, "Connect");
  if (at.state != State::kFresh || at.is_unix) Fail("Connect on what is not a fresh TCP socket");
  at.state = State::kConnecting;
  Operation& operation = Submit(completion, Kind::kConnect, fd);
  operation.address = address;
  operation.address_bytes = address_bytes;
  operation.checksum = Hash(1, address, address_bytes);
  operation.ready_at_ns = clock_ns_ + random_.Below(3'000'000);
  if (!Fault(faults_.connect_error)) return;
  operation.outcome = random_.Pick(kConnectErrors);
  if (operation.outcome == ETIMEDOUT) operation.ready_at_ns = clock_ns_ + kSynRetriesNs;
}

void SimRing::Poll(Completion& completion, int fd, uint32_t poll_events) {
  if (!IsReal(fd)) Fail("Poll is for real descriptors only");
  Submit(completion, Kind::kPoll, fd).poll_events = poll_events;
}

void SimRing::Cancel(Completion& target) {
  if (!target.in_flight()) return;
  for (const auto& operation : operations_) {
    if (operation->completion == &target) operation->cancel_asked = true;
  }
}

// --- Calls that are done on return ---

int SimRing::OpenSocket(int domain) {
  if (Fault(faults_.open_error)) return -EMFILE;
  return NewDescriptor(State::kFresh, domain == AF_UNIX);
}

int SimRing::ConnectNow(int fd, const sockaddr* address, socklen_t address_bytes) {
  Descriptor& at = At(fd, "ConnectNow");
  if (at.state != State::kFresh || !at.is_unix) Fail("ConnectNow on what is not a fresh unix socket");
  const Address to(address, address_bytes);
  if (Fault(faults_.connect_error)) return random_.Chance(500) ? -ENOENT : -ECONNREFUSED;
  if (FindListener(to) == nullptr) return random_.Chance(500) ? -ENOENT : -ECONNREFUSED;
  if (Nuisance(faults_.connect_again)) return -EAGAIN;
  return Establish(fd, at, to) ? 0 : -EAGAIN;
}

// The other end waits in the listener's backlog; false: that is full.
bool SimRing::Establish(int fd, Descriptor& at, const Address& address) {
  Descriptor* listener = FindListener(address);
  if (listener->backlog.size() >= listener->backlog_max) return false;
  const int accepted = NewDescriptor(State::kStream, at.is_unix);
  descriptors_[accepted].peer = fd;
  at.peer = accepted;
  at.state = State::kStream;
  listener->backlog.push_back(accepted);
  return true;
}

int SimRing::PeekNow(int fd) {
  Descriptor& at = At(fd, "PeekNow");
  if (!at.inbox.empty()) return 1;
  if (at.pending_error != 0) return -std::exchange(at.pending_error, 0);
  return at.fin_received || at.receive_shut || at.broken ? 0 : -EAGAIN;
}

void SimRing::Shutdown(int fd, int how) {
  Descriptor& at = At(fd, "Shutdown");
  if (at.state != State::kStream) return;
  if (how != SHUT_WR) at.receive_shut = true;
  if (how == SHUT_RD || at.send_shut) return;
  at.send_shut = true;
  if (at.peer >= 0) descriptors_[at.peer].fin_received = true;
}

void SimRing::Close(int fd) {
  Descriptor& at = At(fd, "Close");
  if (at.reading != nullptr || at.sending != nullptr || at.undelivered != 0) {
    Fail(fmt::format("Close of descriptor {} with an operation in flight", fd));
  }
  for (const int waiting : at.backlog) {
    Break(descriptors_[waiting], ECONNRESET);
    if (descriptors_[waiting].peer >= 0) descriptors_[descriptors_[waiting].peer].peer = -1;
    descriptors_.erase(waiting);
  }
  if (at.peer >= 0) {
    Descriptor& peer = descriptors_[at.peer];
    // Closing with unread bytes tells the peer that they are lost, and may destroy what it has not read.
    if (!at.inbox.empty()) Break(at, ECONNRESET);
    peer.fin_received = true;
    peer.peer = -1;
  }
  descriptors_.erase(fd);
}

bool SimRing::HungUp(int fd) {
  const Descriptor& at = At(fd, "HungUp");
  return at.broken || (at.is_unix && at.peer < 0);
}

void SimRing::Reset(int fd) { Break(At(fd, "Reset"), ECONNRESET); }

void SimRing::Break(Descriptor& at, int os_errno) {
  const auto break_one = [this](Descriptor& end, int error) {
    if (end.broken) return;
    end.broken = true;
    end.pending_error = error;
    // What has arrived may still be read, or not.
    if (random_.Chance(500)) end.inbox.clear();
  };
  break_one(at, os_errno);
  if (at.peer >= 0) break_one(descriptors_[at.peer], ECONNRESET);
}

// --- Sending ---

size_t SimRing::RoomAt(const Descriptor& at) const {
  if (at.peer < 0) return options_.stream_bytes_max;
  const size_t queued = descriptors_.at(at.peer).inbox.size();
  return queued >= options_.stream_bytes_max ? 0 : options_.stream_bytes_max - queued;
}

// An errno that a send ends with now, 0 if none.
int SimRing::TakeSendError(Descriptor& at) {
  if (at.pending_error != 0) return std::exchange(at.pending_error, 0);
  if (at.send_shut || at.broken) return EPIPE;
  if (at.is_unix && (at.peer < 0 || descriptors_[at.peer].receive_shut)) return EPIPE;
  return 0;
}

// Copies up to `bytes_max` of the message, from `skip_bytes` on, to the peer.
size_t SimRing::CopyOut(Descriptor& at, const msghdr& message, size_t skip_bytes, size_t bytes_max) {
  size_t copied = 0;
  for (const iovec& piece : PiecesOf(message)) {
    if (skip_bytes >= piece.iov_len) {
      skip_bytes -= piece.iov_len;
      continue;
    }
    const size_t bytes = std::min(piece.iov_len - skip_bytes, bytes_max - copied);
    if (at.peer >= 0) descriptors_[at.peer].inbox.append(static_cast<const char*>(piece.iov_base) + skip_bytes, bytes);
    skip_bytes = 0;
    copied += bytes;
    if (copied == bytes_max) break;
  }
  // TCP takes bytes for a peer that has closed; its answer is a reset.
  if (at.peer < 0 && copied != 0) Break(at, ECONNRESET);
  return copied;
}

ssize_t SimRing::SendNow(int fd, const msghdr& message) {
  Descriptor& at = At(fd, "SendNow");
  if (at.state != State::kStream) Fail("SendNow on what is not connected");
  if (at.sending != nullptr || message.msg_iovlen > 1024) Fail("SendNow beside a Send, or of too many pieces");
  if (Fault(faults_.send_error)) Break(at, random_.Pick(kStreamErrors));
  if (const int error = TakeSendError(at); error != 0) return -error;
  const size_t room = RoomAt(at);
  if (room == 0 || Nuisance(faults_.send_again)) return -EAGAIN;
  size_t bytes = std::min(TotalBytes(message), room);
  if (bytes > 1 && Nuisance(faults_.short_send)) bytes = random_.Between(1, bytes - 1);
  return static_cast<ssize_t>(CopyOut(at, message, 0, bytes));
}

// --- Completing ---

void SimRing::Finish(Operation& operation, int32_t value, bool more, int32_t buffer_id) {
  done_.push_back({operation.completion, operation.fd, value, more, buffer_id});
  if (!IsReal(operation.fd)) ++At(operation.fd, "a completion").undelivered;
  if (more) return;
  ++undelivered_count_;
  operation.ended = true;
  if (IsReal(operation.fd)) return;
  Descriptor& at = descriptors_[operation.fd];
  (operation.kind == Kind::kSend ? at.sending : at.reading) = nullptr;
}

bool SimRing::CanProgress(const Operation& operation) {
  if (operation.cancel_asked) return true;
  if (operation.kind == Kind::kPoll) {
    pollfd poll_fd{operation.fd, static_cast<short>(operation.poll_events), 0};
    return poll(&poll_fd, 1, 0) == 1;
  }
  Descriptor& at = At(operation.fd, "an operation");
  switch (operation.kind) {
    case Kind::kAccept:
      return !at.backlog.empty();
    case Kind::kReceive:
      return !at.inbox.empty() || at.fin_received || at.receive_shut || at.broken || buffers_->empty();
    case Kind::kSend:
      return at.send_shut || at.broken || RoomAt(at) != 0 ||
             (at.is_unix && (at.peer < 0 || descriptors_[at.peer].receive_shut));
    case Kind::kConnect: {
      if (clock_ns_ < operation.ready_at_ns) return false;
      const Descriptor* listener = FindListener(Address(operation.address, operation.address_bytes));
      return operation.outcome != 0 || listener == nullptr || listener->backlog.size() < listener->backlog_max;
    }
    case Kind::kPoll:
      break;
  }
  return false;
}

void SimRing::Cancelled(Operation& operation) {
  const bool partly_sent = operation.kind == Kind::kSend && operation.sent_bytes != 0;
  Finish(operation, partly_sent ? static_cast<int32_t>(operation.sent_bytes) : -ECANCELED, false);
}

void SimRing::Step(Operation& operation) {
  if (operation.kind == Kind::kSend && ChecksumOf(*operation.message) != operation.checksum) {
    Fail(fmt::format("bytes of a send on descriptor {} changed before it completed", operation.fd));
  }
  // A cancel goes out with the next submission; what was on its way before may come first, but not for ever.
  if (operation.cancel_asked && (++operation.cancel_passes > kCancelPassesMax || random_.Chance(500))) {
    return Cancelled(operation);
  }
  if (operation.cancel_asked) {
    // The cancel comes late; there may be nothing else that could happen.
    operation.cancel_asked = false;
    const bool can = CanProgress(operation);
    operation.cancel_asked = true;
    if (!can) return;
  }
  if (operation.kind == Kind::kPoll) return StepPoll(operation);
  Descriptor& at = descriptors_[operation.fd];
  switch (operation.kind) {
    case Kind::kAccept:
      return StepAccept(operation, at);
    case Kind::kReceive:
      return StepReceive(operation, at);
    case Kind::kSend:
      return StepSend(operation, at);
    case Kind::kConnect:
      return StepConnect(operation, at);
    case Kind::kPoll:
      return;
  }
}

void SimRing::StepPoll(Operation& operation) { Finish(operation, POLLIN, !Nuisance(faults_.end_multishot)); }

void SimRing::StepAccept(Operation& operation, Descriptor& at) {
  if (Fault(faults_.accept_error)) return Finish(operation, -random_.Pick(kAcceptErrors), false);
  const int fd = at.backlog.front();
  at.backlog.pop_front();
  Finish(operation, fd, !Nuisance(faults_.end_multishot));
}

void SimRing::StepReceive(Operation& operation, Descriptor& at) {
  if (Fault(faults_.receive_error)) Break(at, random_.Pick(kStreamErrors));
  do {
    if (buffers_->empty() || Nuisance(faults_.no_buffers)) return Finish(operation, -ENOBUFS, false);
    if (at.inbox.empty()) {
      if (at.pending_error != 0) return Finish(operation, -std::exchange(at.pending_error, 0), false);
      const bool ended = at.fin_received || at.receive_shut || at.broken;
      if (ended) return Finish(operation, 0, false);
      return;
    }
    size_t bytes = std::min<size_t>(at.inbox.size(), buffers_->buffer_bytes());
    if (Nuisance(faults_.short_receive)) bytes = random_.Between(1, bytes);
    const uint16_t id = buffers_->Fill(std::string_view(at.inbox).substr(0, bytes));
    at.inbox.erase(0, bytes);
    const bool more = operation.mode == ReceiveMode::kMultishot && !Nuisance(faults_.end_multishot);
    Finish(operation, static_cast<int32_t>(bytes), more, id);
  } while (!operation.ended && random_.Chance(500));
}

void SimRing::StepSend(Operation& operation, Descriptor& at) {
  if (Fault(faults_.send_error)) Break(at, random_.Pick(kStreamErrors));
  // After partial progress the count is the answer; the error is told by the next call.
  const bool fails = at.pending_error != 0 || at.send_shut || at.broken ||
                     (at.is_unix && (at.peer < 0 || descriptors_[at.peer].receive_shut));
  if (fails && operation.sent_bytes != 0) return Finish(operation, static_cast<int32_t>(operation.sent_bytes), false);
  if (const int error = TakeSendError(at); error != 0) return Finish(operation, -error, false);
  const size_t total = TotalBytes(*operation.message);
  size_t bytes = std::min(total - operation.sent_bytes, RoomAt(at));
  if (bytes > 1 && Nuisance(faults_.short_send)) bytes = random_.Between(1, bytes - 1);
  operation.sent_bytes += CopyOut(at, *operation.message, operation.sent_bytes, bytes);
  if (operation.sent_bytes == total) Finish(operation, static_cast<int32_t>(total), false);
}

void SimRing::StepConnect(Operation& operation, Descriptor& at) {
  if (Hash(1, operation.address, operation.address_bytes) != operation.checksum) {
    Fail("the address of a connect changed before it completed");
  }
  const Address address(operation.address, operation.address_bytes);
  int error = operation.outcome;
  if (error == 0 && FindListener(address) == nullptr) error = ECONNREFUSED;
  if (error == 0 && !Establish(operation.fd, at, address)) return;
  Finish(operation, -error, false);
}

// --- Turns ---

// Lets every operation that can, in any order, do something. True if one of them was put off.
bool SimRing::Pass() {
  std::vector<Operation*> order;
  for (const auto& operation : operations_) order.push_back(operation.get());
  for (size_t i = order.size(); i > 1; --i) std::swap(order[i - 1], order[random_.Below(i)]);
  bool put_off = false;
  for (Operation* operation : order) {
    if (!CanProgress(*operation)) continue;
    const bool delayed = Nuisance(faults_.delay);
    if (!delayed) Step(*operation);
    put_off |= !operation->ended;
  }
  std::erase_if(operations_, [](const auto& operation) { return operation->ended; });
  return put_off;
}

uint64_t SimRing::NextEventNs() const {
  uint64_t next = UINT64_MAX;
  for (const auto& operation : operations_) {
    if (operation->ready_at_ns > clock_ns_) next = std::min(next, operation->ready_at_ns);
  }
  return next;
}

void SimRing::Wait(uint64_t deadline_ns) {
  clock_ns_ += random_.Below(kTurnNsMax);
  if (Fault(faults_.stall)) clock_ns_ += random_.Below(faults_.stall_ms_max * 1'000'000 + 1);
  for (;;) {
    const bool put_off = Pass();
    if (!done_.empty() || clock_ns_ >= deadline_ns) return;
    if (put_off) {
      clock_ns_ += 1 + random_.Below(kPassNsMax);
      continue;
    }
    const uint64_t next_ns = std::min(NextEventNs(), deadline_ns);
    if (next_ns == UINT64_MAX) Fail("nothing can ever happen again: no operation can progress and no timer is armed");
    clock_ns_ = next_ns;
  }
}

void SimRing::Dispatch() {
  std::vector<Done> done;
  done.swap(done_);
  for (const Done& one : done) {
    if (!IsReal(one.fd)) --At(one.fd, "a completion").undelivered;
    if (!one.more) --undelivered_count_;
    ++completions_count_;
    BufferLease buffer;
    if (one.buffer_id >= 0)
      buffer = buffers_->Lend(static_cast<uint16_t>(one.buffer_id), static_cast<uint32_t>(one.value));
    one.completion->Complete(one.value, one.more, std::move(buffer));
  }
}

}  // namespace dpa
