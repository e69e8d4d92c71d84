#include "core/ring_uring.h"

#include <fmt/format.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <span>

#include "core/listener.h"
#include "core/uring_compat.h"

namespace dpa {
namespace {

constexpr uint16_t kBufferGroup = 0;
// Completions copied out at a time: more than the kernel delivers in one pass by far, small enough for the stack.
constexpr unsigned kCompletionsPerTurn = 256;
// A mistake that made the kernel use its worker threads must not spawn hundreds of them.
constexpr unsigned kKernelWorkersMax = 2;

std::string SetupDiagnosis(int error) {
  const std::string_view name = strerrorname_np(error) != nullptr ? strerrorname_np(error) : "error";
  switch (error) {
    case ENOSYS:
      return fmt::format(
          "io_uring is not available ({}): this kernel has none, or it is compiled out; needed: Linux 6.1 or later",
          name);
    case EPERM:
    case EACCES:
      return fmt::format(
          "io_uring is refused ({}): likely a container's seccomp profile, kernel.io_uring_disabled or SELinux; "
          "allow io_uring_setup, io_uring_enter and io_uring_register, or set kernel.io_uring_disabled=0",
          name);
    case EINVAL:
      return fmt::format(
          "this kernel's io_uring lacks SINGLE_ISSUER and DEFER_TASKRUN ({}): needed: Linux 6.1 or later", name);
    case ENOMEM:
      return fmt::format("no locked memory for io_uring ({}): raise LimitMEMLOCK (ulimit -l)", name);
    case EMFILE:
    case ENFILE:
      return fmt::format("out of file descriptors for io_uring ({}): raise LimitNOFILE (ulimit -n)", name);
    default:
      return fmt::format("io_uring cannot be set up: {}", std::strerror(error));
  }
}

}  // namespace

// The provided-buffer ring: the kernel takes buffers from its head, Recycle puts them back at its tail.
class UringRing::Buffers final : public BufferPool {
 public:
  Buffers(io_uring& ring, const BufferPoolOptions& options) : BufferPool(options), ring_(ring) {}

  ~Buffers() override {
    if (registered_) io_uring_unregister_buf_ring(&ring_, kBufferGroup);
    if (entries_ != nullptr) munmap(entries_, entries_bytes());
  }

  int Register() {
    void* memory = mmap(nullptr, entries_bytes(), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED) return errno;
    entries_ = static_cast<io_uring_buf_ring*>(memory);
    io_uring_buf_ring_init(entries_);
    io_uring_buf_reg registration{};
    registration.ring_addr = reinterpret_cast<uintptr_t>(entries_);
    registration.ring_entries = buffers_count();
    registration.bgid = kBufferGroup;
    const int failed = io_uring_register_buf_ring(&ring_, &registration, 0);
    if (failed < 0) return -failed;
    registered_ = true;
    for (uint32_t id = 0; id < buffers_count(); ++id) Recycle(static_cast<uint16_t>(id));
    Publish();
    return 0;
  }

  // Makes what has been recycled visible to the kernel, once per turn.
  void Publish() {
    if (unpublished_count_ == 0) return;
    io_uring_buf_ring_advance(entries_, unpublished_count_);
    unpublished_count_ = 0;
  }

 private:
  size_t entries_bytes() const { return buffers_count() * sizeof(io_uring_buf); }

  void Recycle(uint16_t id) override {
    io_uring_buf_ring_add(entries_, memory() + size_t{id} * buffer_bytes(), buffer_bytes(), id,
                          io_uring_buf_ring_mask(buffers_count()), unpublished_count_);
    ++unpublished_count_;
  }

  io_uring& ring_;
  io_uring_buf_ring* entries_ = nullptr;
  bool registered_ = false;
  int unpublished_count_ = 0;
};

std::expected<std::unique_ptr<UringRing>, std::string> UringRing::Create(const UringOptions& options) {
  std::unique_ptr<UringRing> self(new UringRing);
  io_uring_params params{};
  params.flags = IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN | IORING_SETUP_SUBMIT_ALL |
                 IORING_SETUP_CQSIZE | IORING_SETUP_CLAMP;
  params.cq_entries = options.completion_entries;
  const int failed = io_uring_queue_init_params(options.submission_entries, &self->ring_, &params);
  if (failed < 0) return std::unexpected(SetupDiagnosis(-failed));
  self->ring_made_ = true;
  self->socket_buffer_bytes_ = options.socket_buffer_bytes;
  if ((params.features & IORING_FEAT_EXT_ARG) == 0) return std::unexpected(SetupDiagnosis(EINVAL));

  self->enter_flags_ = IORING_ENTER_GETEVENTS | IORING_ENTER_EXT_ARG;
  if ((params.features & IORING_FEAT_NO_IOWAIT) != 0) self->enter_flags_ |= IORING_ENTER_NO_IOWAIT;
  // Saves a descriptor look-up per enter; not every kernel takes it.
  if (io_uring_register_ring_fd(&self->ring_) == 1) self->enter_flags_ |= IORING_ENTER_REGISTERED_RING;
  unsigned kernel_workers[2] = {kKernelWorkersMax, kKernelWorkersMax};
  io_uring_register_iowq_max_workers(&self->ring_, kernel_workers);
  io_uring_ring_dontfork(&self->ring_);

  self->buffers_ = std::make_unique<Buffers>(self->ring_, options.buffers);
  if (const int error = self->buffers_->Register(); error != 0) {
    return std::unexpected(
        fmt::format("this kernel refuses a ring of provided buffers ({}): some releases carry a broken "
                    "backport; needed: Linux 6.1 or later",
                    std::strerror(error)));
  }
  return self;
}

UringRing::~UringRing() {
  DPA_ASSERT(in_flight_count_ == 0);
  buffers_.reset();
  if (ring_made_) io_uring_queue_exit(&ring_);
}

io_uring_sqe* UringRing::NextSqe() {
  io_uring_sqe* sqe = io_uring_get_sqe(&ring_);
  while (sqe == nullptr) {
    // Full: submit early, without waiting and without running completions.
    const int submitted = io_uring_submit(&ring_);
    DPA_ASSERT(submitted >= 0 || submitted == -EAGAIN || submitted == -EBUSY || submitted == -EINTR);
    sqe = io_uring_get_sqe(&ring_);
  }
  return sqe;
}

void UringRing::Accept(Completion& completion, int fd) {
  io_uring_sqe* sqe = NextSqe();
  io_uring_prep_multishot_accept(sqe, fd, nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK);
  io_uring_sqe_set_data(sqe, &completion);
  completion.MarkSubmitted();
  ++in_flight_count_;
}

void UringRing::Receive(Completion& completion, int fd, ReceiveMode mode) {
  io_uring_sqe* sqe = NextSqe();
  if (mode == ReceiveMode::kMultishot) {
    io_uring_prep_recv_multishot(sqe, fd, nullptr, 0, 0);
  } else {
    io_uring_prep_recv(sqe, fd, nullptr, buffers_->buffer_bytes(), 0);
  }
  sqe->flags |= IOSQE_BUFFER_SELECT;
  sqe->buf_group = kBufferGroup;
  io_uring_sqe_set_data(sqe, &completion);
  completion.MarkSubmitted();
  ++in_flight_count_;
}

void UringRing::Send(Completion& completion, int fd, const msghdr& message) {
  io_uring_sqe* sqe = NextSqe();
  io_uring_prep_sendmsg(sqe, fd, &message, MSG_WAITALL | MSG_NOSIGNAL);
  io_uring_sqe_set_data(sqe, &completion);
  completion.MarkSubmitted();
  ++in_flight_count_;
}

void UringRing::Connect(Completion& completion, int fd, const sockaddr* address, socklen_t address_bytes) {
  io_uring_sqe* sqe = NextSqe();
  io_uring_prep_connect(sqe, fd, address, address_bytes);
  io_uring_sqe_set_data(sqe, &completion);
  completion.MarkSubmitted();
  ++in_flight_count_;
}

void UringRing::Poll(Completion& completion, int fd, uint32_t poll_events) {
  io_uring_sqe* sqe = NextSqe();
  io_uring_prep_poll_multishot(sqe, fd, poll_events);
  io_uring_sqe_set_data(sqe, &completion);
  completion.MarkSubmitted();
  ++in_flight_count_;
}

void UringRing::Cancel(Completion& target) {
  if (!target.in_flight()) return;
  io_uring_sqe* sqe = NextSqe();
  io_uring_prep_cancel(sqe, &target, 0);
  // Success needs no word: the target's own completion says it. Failure (it was faster) arrives without data and is
  // skipped.
  sqe->flags |= IOSQE_CQE_SKIP_SUCCESS;
  io_uring_sqe_set_data(sqe, nullptr);
}

ssize_t UringRing::SendNow(int fd, const msghdr& message) {
  const ssize_t sent = sendmsg(fd, &message, MSG_DONTWAIT | MSG_NOSIGNAL);
  return sent >= 0 ? sent : -errno;
}

int UringRing::OpenSocket(int domain) {
  const int fd = socket(domain, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (fd < 0) return -errno;
  const int on = 1;
  if (domain != AF_UNIX) setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
  BoundSocketBuffers(fd, socket_buffer_bytes_);
  return fd;
}

int UringRing::ConnectNow(int fd, const sockaddr* address, socklen_t address_bytes) {
  return connect(fd, address, address_bytes) == 0 ? 0 : -errno;
}

int UringRing::PeekNow(int fd) {
  char byte;
  const ssize_t got = recv(fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT);
  return got >= 0 ? static_cast<int>(got) : -errno;
}

// Dissolving the association sends the reset at once and works with operations in flight, which SO_LINGER does not: it
// takes effect at close(2), after the end of stream that shutdown(2) has already sent.
void UringRing::Reset(int fd) {
  const sockaddr nowhere{.sa_family = AF_UNSPEC};
  connect(fd, &nowhere, sizeof nowhere);
}

bool UringRing::HungUp(int fd) {
  pollfd polled{fd, 0, 0};  // POLLHUP and POLLERR come unasked.
  return poll(&polled, 1, 0) == 1;
}

int UringRing::AcceptNow(int fd) {
  const int accepted = accept4(fd, nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK);
  return accepted < 0 ? -errno : accepted;
}

void UringRing::Shutdown(int fd, int how) { shutdown(fd, how); }

void UringRing::Close(int fd) { close(fd); }

uint64_t UringRing::NowNs() {
  timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return static_cast<uint64_t>(now.tv_sec) * 1'000'000'000 + static_cast<uint64_t>(now.tv_nsec);
}

BufferPool& UringRing::buffers() { return *buffers_; }

// One system call: submits, waits for `wait_count` completions or the timeout, and runs the kernel's deferred work.
int UringRing::Enter(uint32_t wait_count, uint64_t timeout_ns) {
  io_uring_sq& queue = ring_.sq;
  if (queue.sqe_head != queue.sqe_tail) {
    queue.sqe_head = queue.sqe_tail;
    __atomic_store_n(queue.ktail, queue.sqe_tail, __ATOMIC_RELEASE);
  }
  const unsigned to_submit = queue.sqe_tail - __atomic_load_n(queue.khead, __ATOMIC_ACQUIRE);
  __kernel_timespec timeout{};
  io_uring_getevents_arg argument{};
  if (wait_count != 0 && timeout_ns != UINT64_MAX) {
    timeout.tv_sec = static_cast<int64_t>(timeout_ns / 1'000'000'000);
    timeout.tv_nsec = static_cast<int64_t>(timeout_ns % 1'000'000'000);
    argument.ts = reinterpret_cast<uintptr_t>(&timeout);
  }
  argument.sigmask_sz = _NSIG / 8;
  ++enters_count_;
  return io_uring_enter2(static_cast<unsigned>(ring_.enter_ring_fd), to_submit, wait_count, enter_flags_,
                         reinterpret_cast<sigset_t*>(&argument), sizeof argument);
}

void UringRing::Wait(uint64_t deadline_ns) {
  buffers_->Publish();
  if ((__atomic_load_n(ring_.sq.kflags, __ATOMIC_RELAXED) & IORING_SQ_CQ_OVERFLOW) != 0) ++overflows_count_;
  const bool ready = io_uring_cq_ready(&ring_) != 0;
  uint64_t timeout_ns = 0;
  if (!ready && deadline_ns != 0) {
    const uint64_t now_ns = deadline_ns == UINT64_MAX ? 0 : NowNs();
    timeout_ns = deadline_ns == UINT64_MAX ? UINT64_MAX : deadline_ns > now_ns ? deadline_ns - now_ns : 0;
  }
  const int entered = Enter(timeout_ns != 0 ? 1 : 0, timeout_ns);
  // Interrupted, timed out, or the kernel asks us to reap first: all are answered by reaping and coming again.
  DPA_ASSERT(entered >= 0 || entered == -ETIME || entered == -EINTR || entered == -EAGAIN || entered == -EBUSY);
}

void UringRing::Dispatch() {
  struct Copied {
    Completion* completion;
    int32_t value;
    uint32_t flags;
  };
  std::array<Copied, kCompletionsPerTurn> copied;
  unsigned count = 0;
  unsigned head = 0;
  io_uring_cqe* cqe = nullptr;
  io_uring_for_each_cqe(&ring_, head, cqe) {
    if (count == copied.size()) break;
    copied[count++] = {static_cast<Completion*>(io_uring_cqe_get_data(cqe)), cqe->res, cqe->flags};
  }
  io_uring_cq_advance(&ring_, count);
  completions_count_ += count;

  for (const Copied& one : std::span(copied).first(count)) {
    BufferLease buffer;
    if ((one.flags & IORING_CQE_F_BUFFER) != 0) {
      buffer = buffers_->Lend(static_cast<uint16_t>(one.flags >> IORING_CQE_BUFFER_SHIFT),
                              static_cast<uint32_t>(std::max(one.value, 0)));
    }
    if (one.completion == nullptr) continue;  // A cancel that came too late.
    const bool more = (one.flags & IORING_CQE_F_MORE) != 0;
    if (!more) --in_flight_count_;
    one.completion->Complete(one.value, more, std::move(buffer));
  }
}

// --- Probe ---

namespace {

// Two messages and an end of stream through a socket pair, as a connection would see them.
struct SelfTest : Completion {
  SelfTest() : Completion(&SelfTest::OnReceived) {}
  static void OnReceived(Completion& completion, int32_t value, bool more, BufferLease buffer) {
    auto& self = static_cast<SelfTest&>(completion);
    if (value > 0) self.received.append(buffer.data(), buffer.size());
    if (value == 0) self.ended = true;
    if (value < 0) self.error = -value;
    self.done = !more;
  }
  std::string received;
  bool ended = false;
  bool done = false;
  int error = 0;
};

std::expected<void, std::string> RunSelfTest(UringRing& ring) {
  constexpr uint64_t kPatienceNs = 2'000'000'000;
  int pair[2];
  if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair) != 0) {
    return std::unexpected(fmt::format("socketpair: {}", std::strerror(errno)));
  }
  SelfTest test;
  ring.Receive(test, pair[0], ReceiveMode::kMultishot);
  [[maybe_unused]] ssize_t wrote = write(pair[1], "one", 3);
  const uint64_t give_up_ns = ring.NowNs() + kPatienceNs;
  while (test.received.size() < 3 && !test.done && ring.NowNs() < give_up_ns) ring.Turn(give_up_ns);
  wrote = write(pair[1], "two", 3);
  shutdown(pair[1], SHUT_WR);
  while (!test.done && ring.NowNs() < give_up_ns) ring.Turn(give_up_ns);
  if (!test.done) ring.Cancel(test);
  while (test.in_flight()) ring.Turn(ring.NowNs() + kPatienceNs);
  close(pair[0]);
  close(pair[1]);
  if (test.error != 0)
    return std::unexpected(fmt::format("io_uring self-test: receive failed: {}", std::strerror(test.error)));
  if (test.received != "onetwo" || !test.ended) {
    return std::unexpected(
        "io_uring self-test: a multishot receive lost bytes or the end of stream; needed: Linux 6.1 or later");
  }
  return {};
}

}  // namespace

std::expected<void, std::string> ProbeUring(const UringOptions& options) {
  std::expected<std::unique_ptr<UringRing>, std::string> ring = UringRing::Create(options);
  if (!ring) return std::unexpected(ring.error());
  return RunSelfTest(**ring);
}

}  // namespace dpa
