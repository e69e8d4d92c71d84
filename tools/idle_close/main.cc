// idle_close is one process that is many clients and a delegate with a bad habit at once: the delegate closes its
// connections when they have been idle for some 200 ms, which is just when the clients ask again. It counts what the
// proxy between them makes of it: answers, errors by reason, and how often each request was executed.
//
//   idle_close --target 127.0.0.1:8080 --upstream 127.0.0.1:9000 --method POST --requests 100000
//
// A request counts as executed as soon as the delegate has read the whole of it, whether it is answered or not; now and
// then the delegate closes just then, as one that crashes does. The clients ask in bursts and the delegate takes its
// time, so that every request of a burst needs a connection of its own, one that has idled since the burst before.
// Prints one JSON object. One thread on epoll; time comes first and reading second, so that a connection is closed with
// a request waiting on it unread.

#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <charconv>
#include <cstdio>
#include <cstdlib>
#include <map>
#include <memory>
#include <queue>
#include <random>
#include <string>
#include <string_view>
#include <vector>

#include "core/address.h"

namespace {

struct Options {
  std::string target;
  std::string upstream;
  std::string method = "GET";
  size_t requests = 10'000;
  size_t connections = 500;
  uint64_t idle_ms = 200;       // After this the delegate closes,
  uint64_t jitter_ms = 10;      // or this much sooner or later; the clients' pauses vary as much.
  uint64_t service_ms = 25;     // The delegate's time for an answer.
  uint64_t die_per_mille = 50;  // Of the requests on reused connections: executed, and closed without an answer.
  uint64_t give_up_seconds = 600;
  uint64_t seed = 1;
};

[[noreturn]] void Fail(const std::string& why) {
  std::fprintf(stderr, "idle_close: %s\n", why.c_str());
  std::exit(1);
}

uint64_t NowNs() {
  timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return static_cast<uint64_t>(now.tv_sec) * 1'000'000'000 + static_cast<uint64_t>(now.tv_nsec);
}

dpa::Address ParseAddress(const std::string& text) {
  auto address = dpa::Address::Parse(text);
  if (!address) Fail(address.error());
  return *address;
}

// A whole message at the front of `input`: its bytes, 0 if there is none yet. Only Content-Length is understood.
struct Message {
  size_t bytes = 0;
  std::string_view head;
  std::string_view body;
};
Message FirstMessage(std::string_view input) {
  const size_t head_end = input.find("\r\n\r\n");
  if (head_end == std::string_view::npos) return {};
  const std::string_view head = input.substr(0, head_end + 2);
  constexpr std::string_view kLength = "\r\nContent-Length: ";
  size_t length = 0;
  if (const size_t at = head.find(kLength); at != std::string_view::npos) {
    std::from_chars(head.data() + at + kLength.size(), head.data() + head.size(), length);
  }
  const size_t bytes = head_end + 4 + length;
  if (input.size() < bytes) return {};
  return {bytes, head, input.substr(head_end + 4, length)};
}

struct Peer {
  enum class Kind : uint8_t { kListener, kClient, kDelegate } kind;
  int fd = -1;
  std::string input;
  size_t request = 0;  // The number of the one that is being answered or asked.
  bool busy = false;
  bool closing = false;      // The delegate's: has ended its side and discards what still comes.
  size_t served = 0;         // The delegate's: requests read on it.
  uint64_t timer_count = 0;  // The newest timer's number: older ones are void.
};

class IdleClose {
 public:
  explicit IdleClose(const Options& options)
      : options_(options), random_(options.seed), epoll_(epoll_create1(EPOLL_CLOEXEC)), executed_(options.requests) {
    Listen();
    for (size_t i = 0; i < options.connections; ++i) clients_.push_back(ConnectClient());
  }

  void Run() {
    const uint64_t started_ns = NowNs();
    const uint64_t give_up_ns = started_ns + options_.give_up_seconds * 1'000'000'000;
    BeginBurst(started_ns);
    while (finished_ < options_.requests) {
      if (NowNs() > give_up_ns) Fail("out of patience after " + std::to_string(finished_) + " requests");
      Turn();
    }
    Print(static_cast<double>(NowNs() - started_ns) / 1e9);
  }

 private:
  struct Timer {
    uint64_t due_ns;
    Peer* peer;
    uint64_t number;
    bool operator<(const Timer& other) const { return due_ns > other.due_ns; }
  };

  // --- The loop ---

  void Turn() {
    FireTimers();
    std::array<epoll_event, 512> events;
    const uint64_t wait_ns = timers_.empty() ? 100'000'000 : Until(timers_.top().due_ns);
    const timespec timeout{static_cast<time_t>(wait_ns / 1'000'000'000), static_cast<long>(wait_ns % 1'000'000'000)};
    const int count = epoll_pwait2(epoll_, events.data(), static_cast<int>(events.size()), &timeout, nullptr);
    FireTimers();
    for (int i = 0; i < count; ++i) OnReadable(*static_cast<Peer*>(events[static_cast<size_t>(i)].data.ptr));
  }

  static uint64_t Until(uint64_t due_ns) {
    const uint64_t now_ns = NowNs();
    return due_ns > now_ns ? due_ns - now_ns : 0;
  }

  void At(uint64_t due_ns, Peer& peer) { timers_.push({due_ns, &peer, ++peer.timer_count}); }

  void FireTimers() {
    while (!timers_.empty() && timers_.top().due_ns <= NowNs()) {
      const Timer timer = timers_.top();
      timers_.pop();
      if (timer.peer->fd < 0 || timer.number != timer.peer->timer_count) continue;
      if (timer.peer->kind == Peer::Kind::kClient) {
        Ask(*timer.peer);
      } else if (timer.peer->busy) {
        Answer(*timer.peer);
      } else {
        CloseIdle(*timer.peer);
      }
    }
  }

  Peer* Add(Peer::Kind kind, int fd) {
    peers_.push_back(std::make_unique<Peer>());
    Peer& peer = *peers_.back();
    peer.kind = kind;
    peer.fd = fd;
    epoll_event event{};
    event.events = EPOLLIN;
    event.data.ptr = &peer;
    if (epoll_ctl(epoll_, EPOLL_CTL_ADD, fd, &event) != 0) Fail("epoll_ctl");
    return &peer;
  }

  // A peer's record outlives its descriptor: timers may still name it.
  static void Close(Peer& peer) {
    close(peer.fd);
    peer.fd = -1;
  }

  void OnReadable(Peer& peer) {
    if (peer.fd < 0) return;
    if (peer.kind == Peer::Kind::kListener) return AcceptAll(peer);
    std::array<char, 16384> chunk;
    const ssize_t got = recv(peer.fd, chunk.data(), chunk.size(), MSG_DONTWAIT);
    if (got < 0 && errno == EAGAIN) return;
    if (got > 0) peer.input.append(chunk.data(), static_cast<size_t>(got));
    const bool ended = got <= 0;
    if (peer.kind == Peer::Kind::kClient) {
      OnClient(peer, ended);
    } else {
      OnDelegate(peer, ended);
    }
  }

  // --- The clients ---

  Peer* ConnectClient() {
    const dpa::Address address = ParseAddress(options_.target);
    const int fd = socket(address.family(), SOCK_STREAM | SOCK_CLOEXEC, 0);
    const int on = 1;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    if (connect(fd, address.get(), address.bytes()) != 0) Fail("cannot connect to " + options_.target);
    return Add(Peer::Kind::kClient, fd);
  }

  // Everybody asks once more, each after a pause of its own about as long as the delegate keeps its connections.
  void BeginBurst(uint64_t now_ns) {
    for (Peer*& client : clients_) {
      if (asked_ == options_.requests) return;
      if (client->fd < 0) client = ConnectClient();
      client->request = asked_++;
      ++in_burst_;
      At(now_ns + Jittered(options_.idle_ms), *client);
    }
  }

  uint64_t Jittered(uint64_t ms) {
    std::uniform_int_distribution<uint64_t> around((ms - options_.jitter_ms) * 1'000'000,
                                                   (ms + options_.jitter_ms) * 1'000'000);
    return around(random_);
  }

  void Ask(Peer& client) {
    std::string request = options_.method + " /r/" + std::to_string(client.request) + " HTTP/1.1\r\nHost: h\r\n";
    if (options_.method[0] == 'P') {
      const std::string body = "id=" + std::to_string(client.request) + std::string(client.request % 1500, '.');
      request += "Content-Length: " + std::to_string(body.size()) + "\r\n\r\n" + body;
    } else {
      request += "\r\n";
    }
    client.busy = true;
    send(client.fd, request.data(), request.size(), MSG_NOSIGNAL);
  }

  void OnClient(Peer& client, bool ended) {
    const Message answer = FirstMessage(client.input);
    if (answer.bytes == 0 && !ended) return;
    if (answer.bytes == 0 || !client.busy) {
      if (client.busy) {
        ++errors_["connection_broken"];
        Finish(client);
      }
      return Close(client);
    }
    Judge(client, answer);
    client.input.erase(0, answer.bytes);
    if (!client.input.empty()) Fail("bytes behind an answer: " + client.input.substr(0, 200));
    Finish(client);
  }

  void Judge(const Peer& client, const Message& answer) {
    if (answer.head.starts_with("HTTP/1.1 200 ")) {
      ++ok_;
      if (answer.body != std::to_string(client.request)) Fail("the answer to another request");
      if (executed_[client.request] == 0) Fail("an answer to a request that nobody has executed");
      return;
    }
    constexpr std::string_view kCause = "\"causes\":[{\"reason\":\"";
    const size_t at = answer.body.find(kCause);
    std::string word(answer.head.substr(9, 3));
    if (at != std::string_view::npos) {
      const std::string_view rest = answer.body.substr(at + kCause.size());
      word = rest.substr(0, rest.find('"'));
    }
    ++errors_[word];
    if (executed_[client.request] != 0) ++executed_and_failed_;
  }

  void Finish(Peer& client) {
    client.busy = false;
    ++finished_;
    if (--in_burst_ == 0) BeginBurst(NowNs());
  }

  // --- The delegate ---

  void Listen() {
    const dpa::Address address = ParseAddress(options_.upstream);
    const int fd = socket(address.family(), SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    const int on = 1;
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (bind(fd, address.get(), address.bytes()) != 0 || listen(fd, 4096) != 0) {
      Fail("cannot listen on " + options_.upstream);
    }
    Add(Peer::Kind::kListener, fd);
  }

  void AcceptAll(const Peer& listener) {
    for (;;) {
      const int fd = accept4(listener.fd, nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK);
      if (fd < 0) return;
      const int on = 1;
      setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
      Add(Peer::Kind::kDelegate, fd);
      ++accepted_;
    }
  }

  void OnDelegate(Peer& peer, bool ended) {
    if (ended) return Close(peer);
    if (peer.closing) return peer.input.clear();
    const Message request = FirstMessage(peer.input);
    if (request.bytes == 0) return;
    if (peer.busy) Fail("a second request before the answer to the first");
    const size_t id_at = request.head.find("/r/") + 3;
    std::from_chars(request.head.data() + id_at, request.head.data() + request.head.size(), peer.request);
    if (++executed_.at(peer.request) > 1) ++executed_again_;
    peer.input.erase(0, request.bytes);
    if (++peer.served > 1 && random_() % 1000 < options_.die_per_mille) {
      ++deaths_;
      return Close(peer);
    }
    peer.busy = true;
    At(NowNs() + options_.service_ms * 1'000'000, peer);
  }

  void Answer(Peer& peer) {
    const std::string body = std::to_string(peer.request);
    const std::string answer = "HTTP/1.1 200 OK\r\nContent-Length: " + std::to_string(body.size()) + "\r\n\r\n" + body;
    send(peer.fd, answer.data(), answer.size(), MSG_NOSIGNAL);
    peer.busy = false;
    At(NowNs() + Jittered(options_.idle_ms), peer);
  }

  // As servers do it: half of them close at once, which resets the connection if a request is on it; the others end
  // their side and throw away what still comes.
  void CloseIdle(Peer& peer) {
    if (peer.closing || !peer.input.empty()) return;
    ++idle_closes_;
    if (random_() % 2 == 0) return Close(peer);
    peer.closing = true;
    shutdown(peer.fd, SHUT_WR);
  }

  void Print(double seconds) const {
    std::printf(
        "{\"method\":\"%s\",\"requests\":%zu,\"ok\":%zu,\"executed_again\":%zu,\"executed_and_failed\":%zu,"
        "\"connections\":%zu,\"idle_closes\":%zu,\"deaths\":%zu,\"seconds\":%.1f,\"errors\":{",
        options_.method.c_str(), finished_, ok_, executed_again_, executed_and_failed_, accepted_, idle_closes_,
        deaths_, seconds);
    const char* comma = "";
    for (const auto& [word, count] : errors_) {
      std::printf("%s\"%s\":%zu", comma, word.c_str(), count);
      comma = ",";
    }
    std::printf("}}\n");
  }

  const Options options_;
  std::mt19937_64 random_;
  const int epoll_;
  std::vector<std::unique_ptr<Peer>> peers_;
  std::vector<Peer*> clients_;
  std::priority_queue<Timer> timers_;

  std::vector<uint8_t> executed_;  // By the number of the request.
  size_t asked_ = 0;
  size_t in_burst_ = 0;
  size_t finished_ = 0;
  size_t ok_ = 0;
  std::map<std::string, size_t> errors_;
  size_t executed_again_ = 0;
  size_t executed_and_failed_ = 0;
  size_t accepted_ = 0;
  size_t idle_closes_ = 0;
  size_t deaths_ = 0;
};

uint64_t ParseNumber(std::string_view name, std::string_view text) {
  uint64_t number = 0;
  const auto read = std::from_chars(text.data(), text.data() + text.size(), number);
  if (read.ec != std::errc() || read.ptr != text.data() + text.size()) Fail(std::string(name) + ": expected a number");
  return number;
}

Options ParseOptions(int argc, char** argv) {
  Options options;
  const std::map<std::string_view, std::string*> texts = {
      {"--target", &options.target}, {"--upstream", &options.upstream}, {"--method", &options.method}};
  const std::map<std::string_view, uint64_t*> numbers = {{"--requests", &options.requests},
                                                         {"--connections", &options.connections},
                                                         {"--idle-ms", &options.idle_ms},
                                                         {"--jitter-ms", &options.jitter_ms},
                                                         {"--service-ms", &options.service_ms},
                                                         {"--die-per-mille", &options.die_per_mille},
                                                         {"--seed", &options.seed},
                                                         {"--give-up-seconds", &options.give_up_seconds}};
  for (int i = 1; i + 1 < argc; i += 2) {
    const std::string_view name = argv[i];
    if (const auto text = texts.find(name); text != texts.end()) {
      *text->second = argv[i + 1];
    } else if (const auto number = numbers.find(name); number != numbers.end()) {
      *number->second = ParseNumber(name, argv[i + 1]);
    } else {
      Fail("unknown option " + std::string(name));
    }
  }
  if (options.target.empty() || options.upstream.empty()) Fail("--target and --upstream are needed");
  return options;
}

}  // namespace

int main(int argc, char** argv) {
  const Options options = ParseOptions(argc, argv);
  IdleClose(options).Run();
  return 0;
}
