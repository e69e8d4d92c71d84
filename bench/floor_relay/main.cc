// floor_relay passes bytes between a client and an upstream and knows nothing of HTTP: one upstream connection per
// client connection, kept as long as it. What it costs is what the kernel's TCP stack costs; a proxy is measured
// against it.
//
//   floor_relay LISTEN UPSTREAM
//
// One thread on epoll, level-triggered, one recv and one send per readable event: the cheapest form measured.

#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <csignal>
#include <cstdio>
#include <cstdlib>

#include "core/address.h"

namespace {

[[noreturn]] void Fail(const char* what) {
  std::perror(what);
  std::exit(1);
}

struct End {
  int fd = -1;
  End* other = nullptr;
  bool dead = false;
};

int OpenStream(const dpa::Address& address) {
  const int fd = socket(address.family(), SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (fd < 0) Fail("socket");
  const int on = 1;
  setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  if (!address.is_unix()) setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
  return fd;
}

class Relay {
 public:
  Relay(const dpa::Address& listen_on, const dpa::Address& upstream)
      : upstream_(upstream), epoll_(epoll_create1(EPOLL_CLOEXEC)), listener_(OpenStream(listen_on)) {
    if (bind(listener_, listen_on.get(), listen_on.bytes()) != 0 || listen(listener_, 1024) != 0) Fail("listen");
    Watch(listener_, nullptr);
  }

  void Run() {
    std::array<epoll_event, 256> events;
    for (;;) {
      const int count = epoll_wait(epoll_, events.data(), static_cast<int>(events.size()), -1);
      for (int i = 0; i < count; ++i) {
        auto* end = static_cast<End*>(events[static_cast<size_t>(i)].data.ptr);
        if (end == nullptr)
          Accept();
        else if (!end->dead)
          Pass(*end);
      }
    }
  }

 private:
  void Watch(int fd, End* end) {
    epoll_event event{};
    event.events = EPOLLIN;
    event.data.ptr = end;
    if (epoll_ctl(epoll_, EPOLL_CTL_ADD, fd, &event) != 0) Fail("epoll_ctl");
  }

  void Accept() {
    const int fd = accept4(listener_, nullptr, nullptr, SOCK_CLOEXEC);
    if (fd < 0) return;
    const int up = OpenStream(upstream_);
    if (connect(up, upstream_.get(), upstream_.bytes()) != 0) {
      close(up);
      close(fd);
      return;
    }
    // Ends are never freed: an event that is still in the batch may point to one, and a benchmark opens a few hundred.
    auto* pair = new std::array<End, 2>;
    (*pair)[0] = {fd, &(*pair)[1], false};
    (*pair)[1] = {up, &(*pair)[0], false};
    for (End& end : *pair) Watch(end.fd, &end);
  }

  void Pass(End& end) {
    char bytes[64 * 1024];
    const ssize_t got = recv(end.fd, bytes, sizeof bytes, MSG_DONTWAIT);
    if (got < 0 && errno == EAGAIN) return;
    if (got <= 0 || send(end.other->fd, bytes, static_cast<size_t>(got), MSG_NOSIGNAL) != got) {
      end.dead = end.other->dead = true;
      close(end.fd);
      close(end.other->fd);
    }
  }

  const dpa::Address upstream_;
  const int epoll_;
  const int listener_;
};

}  // namespace

int main(int argc, char** argv) {
  if (argc != 3) {
    std::fprintf(stderr, "usage: floor_relay LISTEN UPSTREAM\n");
    return 2;
  }
  const auto listen_on = dpa::Address::Parse(argv[1]);
  const auto upstream = dpa::Address::Parse(argv[2]);
  if (!listen_on || !upstream) {
    std::fprintf(stderr, "floor_relay: %s\n", (listen_on ? upstream : listen_on).error().c_str());
    return 2;
  }
  Relay(*listen_on, *upstream).Run();
}
