#include "core/listener.h"

#include <fmt/format.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <utility>

#include "core/log.h"

namespace dpa {
namespace {

int SetFlag(int fd, int level, int option) {
  const int on = 1;
  return setsockopt(fd, level, option, &on, sizeof on);
}

std::unexpected<std::string> Failed(const Address& address, std::string_view what, int error) {
  return std::unexpected(fmt::format("cannot {} {}: {}", what, address.ToString(), std::strerror(error)));
}

}  // namespace

void BoundSocketBuffers(int fd, uint32_t bytes) {
  if (bytes == 0) return;
  const int value = static_cast<int>(bytes);
  setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &value, sizeof value);
  setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &value, sizeof value);
}

namespace {

// One bound TCP socket. `share`: others of ours may bind the same port.
std::expected<int, std::string> BindTcp(const Address& address, bool share) {
  const int fd = socket(address.family(), SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (fd < 0) return Failed(address, "open a socket for", errno);
  SetFlag(fd, SOL_SOCKET, SO_REUSEADDR);
  if (share) SetFlag(fd, SOL_SOCKET, SO_REUSEPORT);
  if (address.family() == AF_INET6) SetFlag(fd, IPPROTO_IPV6, IPV6_V6ONLY);
  // Accepted sockets inherit it, which saves a call per connection.
  SetFlag(fd, IPPROTO_TCP, TCP_NODELAY);
  if (bind(fd, address.get(), address.bytes()) != 0) {
    const int error = errno;
    close(fd);
    return Failed(address, "listen on", error);
  }
  return fd;
}

void TakeChosenPort(int fd, Address& address) {
  sockaddr_storage bound{};
  socklen_t bytes = sizeof bound;
  if (getsockname(fd, reinterpret_cast<sockaddr*>(&bound), &bytes) == 0) {
    address = Address(reinterpret_cast<const sockaddr*>(&bound), bytes);
  }
}

std::expected<std::vector<int>, std::string> OpenTcp(Address& address, uint32_t count, const ListenerOptions& options) {
  // Without SO_REUSEPORT first: it fails if any other process listens, one of ours included.
  const std::expected<int, std::string> probe = BindTcp(address, false);
  if (!probe) return std::unexpected(probe.error());
  TakeChosenPort(*probe, address);
  const bool taken = listen(*probe, 1) != 0;
  const int error = errno;
  close(*probe);
  if (taken) return Failed(address, "listen on", error);

  std::vector<int> fds;
  for (uint32_t i = 0; i < count; ++i) {
    const std::expected<int, std::string> fd = BindTcp(address, true);
    if (fd) fds.push_back(*fd);
    if (fd) BoundSocketBuffers(*fd, options.socket_buffer_bytes);
    if (fd && listen(*fd, options.backlog) == 0) continue;
    const std::string why = fd ? Failed(address, "listen on", errno).error() : fd.error();
    for (const int open : fds) close(open);
    return std::unexpected(why);
  }
  return fds;
}

// A socket file that nobody answers on is left over from a crash. Only a socket: connect() refuses on any other file
// too, and an operator's file must not be removed for a mistyped address.
bool IsStale(const Address& address) {
  struct stat status{};
  if (lstat(address.unix_path().c_str(), &status) != 0 || !S_ISSOCK(status.st_mode)) return false;
  const int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  const bool refused = connect(fd, address.get(), address.bytes()) != 0 && errno == ECONNREFUSED;
  close(fd);
  return refused;
}

std::expected<std::vector<int>, std::string> OpenUnix(const Address& address, const ListenerOptions& options) {
  const int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (fd < 0) return Failed(address, "open a socket for", errno);
  int failed = bind(fd, address.get(), address.bytes());
  if (failed != 0 && errno == EADDRINUSE && IsStale(address)) {
    unlink(address.unix_path().c_str());
    failed = bind(fd, address.get(), address.bytes());
  }
  BoundSocketBuffers(fd, options.socket_buffer_bytes);
  if (failed == 0) failed = listen(fd, options.backlog);
  if (failed != 0) {
    const int error = errno;
    close(fd);
    return Failed(address, "listen on", error);
  }
  return std::vector<int>{fd};
}

}  // namespace

std::expected<std::vector<int>, std::string> OpenListeners(Address& address, uint32_t count,
                                                           const ListenerOptions& options) {
  return address.is_unix() ? OpenUnix(address, options) : OpenTcp(address, count, options);
}

Listener::Listener(Worker& worker, int fd, const ListenerOptions& options, OnAccept on_accept)
    : worker_(worker), fd_(fd), options_(options), on_accept_(std::move(on_accept)), accept_(*this), joined_(worker) {}

Listener::~Listener() { DPA_ASSERT(fd_ < 0); }

void Listener::Start() { worker_.ring().Accept(accept_, fd_); }

void Listener::OnAccepted(Completion& completion, int32_t value, bool more, BufferLease) {
  Listener& listener = static_cast<AcceptOperation&>(completion).listener;
  if (value >= 0) {
    ++listener.accepted_count_;
    // A unix listener's own bounds are not passed on.
    BoundSocketBuffers(value, listener.options_.socket_buffer_bytes);
    listener.on_accept_(value);
  } else if (value == -EMFILE || value == -ENFILE || value == -ENOMEM || value == -ENOBUFS) {
    // The connection stays in the backlog. Accepting again at once would fail at once, for ever.
    if (listener.out_of_descriptors_count_++ == 0) {
      LogError("accept_failed", "error={} remedy=\"raise the limit of open files (LimitNOFILE, ulimit -n)\"",
               Quoted(std::strerror(-value)));
    }
  }
  if (more) return;
  if (listener.closing_) return listener.joined_.Notify();
  if (value < 0) {
    listener.worker_.timers().Arm(listener, listener.worker_.timers().now_ms() + listener.options_.accept_retry_ms);
  } else {
    listener.Start();
  }
}

void Listener::OnExpire() { Start(); }

Task<void> Listener::Close() {
  closing_ = true;
  worker_.timers().Disarm(*this);
  if (accept_.in_flight()) {
    worker_.ring().Cancel(accept_);
    co_await joined_.Wait();
  }
  for (int left = options_.backlog; left > 0; --left) {
    const int fd = worker_.ring().AcceptNow(fd_);
    if (fd < 0) break;
    ++accepted_count_;
    on_accept_(fd);
  }
  worker_.ring().Close(std::exchange(fd_, -1));
}

}  // namespace dpa
