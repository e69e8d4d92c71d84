// loadgen is one cheap process that is load generator and upstream at once, so that a benchmark on two cores leaves one
// whole core to the proxy under test. It keeps N keep-alive connections busy (closed loop: the next request follows the
// answer), checks every answer, and reads the CPU time of the process under test over exactly the measured window.
//
//   loadgen --target 127.0.0.1:8080 --upstream 127.0.0.1:9000 --connections 64 --seconds 1.5 --pid PID
//   loadgen --target 127.0.0.1:8080 --post-file query.json --path /apis/… --connections 64 --seconds 1.5 --pid PID
//
//   loadgen … --rate 20000 --delay-ms 10 --sheds 1
//
// --rate makes it an open loop: requests fall due at an even rate, whatever became of those before, each on a
// connection that is free, and their time counts from when they were due. --delay-ms makes the upstream take that long
// for each answer, so that connections over delay is what it carries. --sheds 1: a 503 is an answer, counted apart, and
// a closed connection is opened again; who was refused comes back after --retry-ms (an open loop has its own time).
//
// Prints one JSON object. Exit status 1 if any answer was wrong or a connection broke: such a run counts for nothing.
// One thread on epoll, level-triggered; the cost of this process does not enter the figures.

#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <charconv>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <filesystem>
#include <fstream>
#include <memory>
#include <sstream>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "core/address.h"

namespace {

struct Options {
  std::string target = "127.0.0.1:8080";
  std::string upstream;  // Listen here and answer as the delegate; empty: no upstream.
  std::string path = "/api/bench";
  std::string post_file;  // Body of a POST; empty: GET.
  int connections = 64;
  double warmup_seconds = 0.5;
  double seconds = 1.5;
  int body_bytes = 1024;  // Of the upstream's answers.
  double rate = 0;        // Requests a second; 0: each connection asks as soon as it was answered.
  double delay_ms = 0;    // Of the upstream's answers.
  bool sheds = false;
  double retry_ms = 0;
  std::vector<int> pids;  // Whose CPU time is read.
};

[[noreturn]] void Fail(const std::string& why) {
  std::fprintf(stderr, "loadgen: %s\n", why.c_str());
  std::exit(1);
}

uint64_t NowNs() {
  timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return static_cast<uint64_t>(now.tv_sec) * 1'000'000'000 + static_cast<uint64_t>(now.tv_nsec);
}

// CPU time of all threads of a process: the first figure of /proc/PID/task/*/schedstat, nanoseconds.
uint64_t CpuNs(int pid) {
  uint64_t total = 0;
  std::error_code error;
  for (const auto& task : std::filesystem::directory_iterator("/proc/" + std::to_string(pid) + "/task", error)) {
    std::ifstream file(task.path() / "schedstat");
    uint64_t running = 0;
    if (file >> running) total += running;
  }
  return total;
}

// CPU time of a process whose threads come and go: /proc/PID/task forgets those that have ended, /proc/PID/stat does
// not, but it counts in clock ticks. User and system time, nanoseconds.
uint64_t CpuOfAllThreadsNs(int pid) {
  std::ifstream file("/proc/" + std::to_string(pid) + "/stat");
  std::string text((std::istreambuf_iterator<char>(file)), {});
  // The second field is a name in parentheses that may hold anything; utime and stime are the 14th and 15th.
  std::istringstream fields(text.substr(std::min(text.size(), text.rfind(')') + 1)));
  std::string skipped;
  for (int field = 3; field < 14; ++field) fields >> skipped;
  uint64_t user_ticks = 0;
  uint64_t system_ticks = 0;
  fields >> user_ticks >> system_ticks;
  return (user_ticks + system_ticks) * (1'000'000'000 / static_cast<uint64_t>(sysconf(_SC_CLK_TCK)));
}

// All CPUs together, from the first line of /proc/stat: time that was not idle, and time stolen by the host;
// nanoseconds.
struct SystemCpu {
  uint64_t busy_ns = 0;
  uint64_t steal_ns = 0;
};
SystemCpu ReadSystemCpu() {
  std::ifstream file("/proc/stat");
  std::string name;
  std::array<uint64_t, 8> ticks{};  // user nice system idle iowait irq softirq steal
  file >> name;
  for (uint64_t& tick : ticks) file >> tick;
  const uint64_t tick_ns = 1'000'000'000 / static_cast<uint64_t>(sysconf(_SC_CLK_TCK));
  return {(ticks[0] + ticks[1] + ticks[2] + ticks[5] + ticks[6]) * tick_ns, ticks[7] * tick_ns};
}

// Counts by logarithmic buckets: 128 per power of two, so a quantile is good to under 1 %.
class LatencyHistogram {
 public:
  void Record(uint64_t ns) {
    ++buckets_[Index(ns)];
    ++count_;
  }
  double QuantileUs(double quantile) const {
    const auto wanted = static_cast<uint64_t>(quantile * static_cast<double>(count_));
    uint64_t seen = 0;
    for (size_t i = 0; i < buckets_.size(); ++i) {
      seen += buckets_[i];
      if (seen > wanted) return static_cast<double>(Value(i)) / 1000.0;
    }
    return 0;
  }
  void Clear() { *this = LatencyHistogram(); }

 private:
  static size_t Index(uint64_t ns) {
    if (ns < 128) return ns;
    const int shift = 63 - __builtin_clzll(ns) - 7;
    return static_cast<size_t>(shift + 1) * 128 + ((ns >> shift) & 127);
  }
  static uint64_t Value(size_t index) {
    if (index < 128) return index;
    const int shift = static_cast<int>(index / 128) - 1;
    return (128 + (index & 127)) << shift;
  }
  std::vector<uint64_t> buckets_ = std::vector<uint64_t>(58 * 128);
  uint64_t count_ = 0;
};

// One peer: a client connection of ours, or one that the proxy opened to our upstream.
struct Peer {
  enum class Kind { kListener, kClient, kUpstream } kind;
  int fd;
  std::string input;
  uint64_t sent_ns = 0;     // What its answer's time counts from.
  bool connecting = false;  // Clients.
  bool busy = false;        // Clients: an answer is awaited.
};

// Things that fall due after one and the same delay, so in the order in which they came.
struct Due {
  uint64_t at_ns;
  Peer* peer;
};

// Where the message in `input` ends, 0 if it is not complete. Understands Content-Length and chunked well enough for
// what the peers of a benchmark send; anything else is an error of the run.
size_t MessageEnd(std::string_view input, bool response) {
  const size_t head_end = input.find("\r\n\r\n");
  if (head_end == std::string_view::npos) return 0;
  const std::string_view head = input.substr(0, head_end + 2);
  const size_t body = head_end + 4;
  size_t length = 0;
  for (size_t at = head.find("\r\n"); at != std::string_view::npos && at + 2 < head.size();
       at = head.find("\r\n", at + 2)) {
    const std::string_view line = head.substr(at + 2, head.find("\r\n", at + 2) - at - 2);
    if (line.size() > 15 && strncasecmp(line.data(), "content-length:", 15) == 0) {
      const char* digits = line.data() + 15;
      while (*digits == ' ') ++digits;
      std::from_chars(digits, line.data() + line.size(), length);
      return input.size() >= body + length ? body + length : 0;
    }
    if (line.size() > 18 && strncasecmp(line.data(), "transfer-encoding:", 18) == 0) {
      const size_t last = input.find("0\r\n\r\n", body);
      return last == std::string_view::npos ? 0 : last + 5;
    }
  }
  if (response) Fail("an answer without a length: " + std::string(head.substr(0, 200)));
  return body;
}

class Generator {
 public:
  explicit Generator(const Options& options) : options_(options), epoll_(epoll_create1(EPOLL_CLOEXEC)) {
    MakeRequest();
    response_ = "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: " + std::to_string(options.body_bytes) +
                "\r\n\r\n" + std::string(static_cast<size_t>(options.body_bytes), 'x');
    if (!options.upstream.empty()) Listen();
    for (int i = 0; i < options.connections; ++i) Connect();
  }

  void Run() {
    RunFor(options_.warmup_seconds);
    latency_.Clear();
    shed_latency_.Clear();
    completed_ = shed_ = broken_ = 0;
    std::vector<uint64_t> before;
    for (const int pid : options_.pids) before.push_back(CpuOf(pid));
    const uint64_t own_before = OwnCpuNs();
    const SystemCpu system_before = ReadSystemCpu();
    const uint64_t started_ns = NowNs();
    RunFor(options_.seconds);
    const double elapsed = static_cast<double>(NowNs() - started_ns) / 1e9;
    const SystemCpu system = ReadSystemCpu();
    uint64_t tested_ns = 0;
    uint64_t first_ns = 0;
    for (size_t i = 0; i < options_.pids.size(); ++i) {
      const uint64_t used = CpuOf(options_.pids[i]) - before[i];
      if (i == 0) first_ns = used;
      tested_ns += used;
    }
    const uint64_t own_ns = OwnCpuNs() - own_before;
    const double foreign_ns =
        static_cast<double>(system.busy_ns - system_before.busy_ns) - static_cast<double>(tested_ns + own_ns);
    const double all_ns = elapsed * 1e9 * static_cast<double>(sysconf(_SC_NPROCESSORS_ONLN));
    std::printf(
        "{\"requests\":%llu,\"seconds\":%.4f,\"requests_per_second\":%.0f,\"cpu_us_per_request\":%.4f,"
        "\"cpu_busy\":%.4f,\"generator_busy\":%.4f,\"foreign_share\":%.4f,\"steal_share\":%.4f,"
        "\"p50_us\":%.1f,\"p99_us\":%.1f,\"shed\":%llu,\"shed_p50_us\":%.1f,\"shed_p99_us\":%.1f,"
        "\"broken\":%llu,\"overdue\":%llu}\n",
        static_cast<unsigned long long>(completed_), elapsed, static_cast<double>(completed_) / elapsed,
        static_cast<double>(first_ns) / 1000.0 / static_cast<double>(std::max<uint64_t>(completed_, 1)),
        static_cast<double>(first_ns) / 1e9 / elapsed, static_cast<double>(own_ns) / 1e9 / elapsed,
        std::max(0.0, foreign_ns / all_ns), static_cast<double>(system.steal_ns - system_before.steal_ns) / all_ns,
        latency_.QuantileUs(0.5), latency_.QuantileUs(0.99), static_cast<unsigned long long>(shed_),
        shed_latency_.QuantileUs(0.5), shed_latency_.QuantileUs(0.99), static_cast<unsigned long long>(broken_),
        static_cast<unsigned long long>(overdue_.size()));
  }

 private:
  // The first process is the one under test, whose threads stay; the others (a plugin) only must not count as foreign.
  uint64_t CpuOf(int pid) const { return pid == options_.pids.front() ? CpuNs(pid) : CpuOfAllThreadsNs(pid); }

  static uint64_t OwnCpuNs() {
    timespec now;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
    return static_cast<uint64_t>(now.tv_sec) * 1'000'000'000 + static_cast<uint64_t>(now.tv_nsec);
  }

  void MakeRequest() {
    std::string body;
    if (!options_.post_file.empty()) {
      std::ifstream file(options_.post_file, std::ios::binary);
      if (!file) Fail("cannot read " + options_.post_file);
      body.assign(std::istreambuf_iterator<char>(file), {});
    }
    request_ = (body.empty() ? "GET " : "POST ") + options_.path +
               " HTTP/1.1\r\nHost: bench.example\r\n"
               "User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0\r\n"
               "Accept: application/json, text/plain, */*\r\nAccept-Language: en-US,en;q=0.5\r\n"
               "X-Dashboard-Uid: bench\r\nX-Panel-Id: 4\r\n";
    if (!body.empty()) {
      request_ += "Content-Type: application/json\r\nContent-Length: " + std::to_string(body.size()) + "\r\n";
    }
    request_ += "\r\n" + body;
  }

  dpa::Address ParseAddress(const std::string& text) {
    auto address = dpa::Address::Parse(text);
    if (!address) Fail(address.error());
    return *address;
  }

  void Add(Peer::Kind kind, int fd) {
    peers_.push_back(std::make_unique<Peer>(Peer{kind, fd, {}}));
    Watch(*peers_.back(), EPOLL_CTL_ADD, EPOLLIN);
  }

  void Watch(Peer& peer, int operation, uint32_t events) {
    epoll_event event{};
    event.events = events;
    event.data.ptr = &peer;
    if (epoll_ctl(epoll_, operation, peer.fd, &event) != 0) Fail("epoll_ctl");
  }

  void Listen() {
    const dpa::Address address = ParseAddress(options_.upstream);
    const int fd = socket(address.family(), SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    const int on = 1;
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (!address.is_unix()) setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    if (address.is_unix()) unlink(address.unix_path().c_str());
    if (bind(fd, address.get(), address.bytes()) != 0 || listen(fd, 1024) != 0)
      Fail("cannot listen on " + options_.upstream);
    Add(Peer::Kind::kListener, fd);
  }

  void Connect() {
    const dpa::Address address = ParseAddress(options_.target);
    const int fd = socket(address.family(), SOCK_STREAM | SOCK_CLOEXEC, 0);
    const int on = 1;
    if (!address.is_unix()) setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    if (connect(fd, address.get(), address.bytes()) != 0) Fail("cannot connect to " + options_.target);
    fcntl(fd, F_SETFL, O_NONBLOCK);
    Add(Peer::Kind::kClient, fd);
    NextRequest(*peers_.back());
  }

  // Opens the connection of `peer` again, without waiting for it.
  void Reconnect(Peer& peer) {
    const dpa::Address address = ParseAddress(options_.target);
    peer.fd = socket(address.family(), SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    const int on = 1;
    if (!address.is_unix()) setsockopt(peer.fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    const bool failed = connect(peer.fd, address.get(), address.bytes()) != 0 && errno != EINPROGRESS;
    if (peer.fd < 0 || failed) Fail("cannot connect to " + options_.target);
    peer.connecting = true;
    peer.sent_ns = NowNs();
    Watch(peer, EPOLL_CTL_ADD, EPOLLIN | EPOLLOUT);
  }

  void OnConnected(Peer& peer) {
    peer.connecting = false;
    Watch(peer, EPOLL_CTL_MOD, EPOLLIN);
    if (options_.rate != 0) return NextRequest(peer);
    // What it cost to be let in, or to be turned away, is part of the answer's time.
    const uint64_t since_ns = peer.sent_ns;
    NextRequest(peer);
    peer.sent_ns = since_ns;
  }

  // The connection is of no more use. Comes back later.
  void Lose(Peer& peer) {
    if (!options_.sheds) Fail("the proxy closed a connection");
    if (peer.busy) ++broken_;
    peer.busy = false;
    peer.connecting = false;
    peer.input.clear();
    std::erase(idle_, &peer);
    close(std::exchange(peer.fd, -1));
    retries_.push_back({NowNs() + static_cast<uint64_t>(options_.retry_ms * 1e6), &peer});
  }

  void SendAll(Peer& peer, std::string_view bytes) {
    // Requests and answers fit the socket's buffer: a short write would be an error of the run.
    const ssize_t sent = send(peer.fd, bytes.data(), bytes.size(), MSG_NOSIGNAL);
    if (sent == static_cast<ssize_t>(bytes.size())) return;
    // One that has been turned away already: what it was told is still to be read.
    if (!options_.sheds || (errno != EPIPE && errno != ECONNRESET)) Fail("short send");
  }

  // The connection is free: for the request that has waited longest, or, in a closed loop, for the next.
  void NextRequest(Peer& peer) {
    if (options_.rate == 0) return SendRequest(peer, NowNs());
    if (overdue_.empty()) return idle_.push_back(&peer);
    SendRequest(peer, overdue_.front());
    overdue_.pop_front();
  }

  void SendRequest(Peer& peer, uint64_t due_ns) {
    peer.sent_ns = due_ns;
    peer.busy = true;
    SendAll(peer, request_);
  }

  // What has fallen due: requests of the open loop, answers of the upstream, connections to be opened again.
  void RunDue(uint64_t now_ns) {
    for (; options_.rate != 0 && next_due_ns_ <= now_ns; next_due_ns_ += static_cast<uint64_t>(1e9 / options_.rate)) {
      if (idle_.empty()) {
        overdue_.push_back(next_due_ns_);
        continue;
      }
      Peer& peer = *idle_.back();
      idle_.pop_back();
      SendRequest(peer, next_due_ns_);
    }
    for (; !answers_.empty() && answers_.front().at_ns <= now_ns; answers_.pop_front()) {
      if (answers_.front().peer->fd >= 0) SendAll(*answers_.front().peer, response_);
    }
    for (; !retries_.empty() && retries_.front().at_ns <= now_ns; retries_.pop_front()) {
      Peer& peer = *retries_.front().peer;
      peer.fd < 0 ? Reconnect(peer) : NextRequest(peer);
    }
  }

  // How long to wait for events: until the next thing falls due.
  timespec Patience() const {
    const uint64_t now_ns = NowNs();
    uint64_t due_ns = now_ns + 10'000'000;
    if (options_.rate != 0) due_ns = std::min(due_ns, next_due_ns_);
    if (!answers_.empty()) due_ns = std::min(due_ns, answers_.front().at_ns);
    if (!retries_.empty()) due_ns = std::min(due_ns, retries_.front().at_ns);
    return {0, due_ns > now_ns ? static_cast<long>(due_ns - now_ns) : 0};
  }

  void RunFor(double seconds) {
    const uint64_t until_ns = NowNs() + static_cast<uint64_t>(seconds * 1e9);
    std::array<epoll_event, 256> events;
    if (next_due_ns_ == 0) next_due_ns_ = NowNs();
    while (NowNs() < until_ns) {
      const timespec patience = Patience();
      const int count = epoll_pwait2(epoll_, events.data(), static_cast<int>(events.size()), &patience, nullptr);
      for (int i = 0; i < count; ++i) OnReadable(*static_cast<Peer*>(events[static_cast<size_t>(i)].data.ptr));
      RunDue(NowNs());
    }
  }

  void OnReadable(Peer& peer) {
    if (peer.kind == Peer::Kind::kListener) {
      const int fd = accept4(peer.fd, nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK);
      if (fd >= 0) Add(Peer::Kind::kUpstream, fd);
      return;
    }
    if (peer.connecting) OnConnected(peer);
    char bytes[64 * 1024];
    const ssize_t got = recv(peer.fd, bytes, sizeof bytes, 0);
    if (got < 0 && errno == EAGAIN) return;
    if (got <= 0) {
      if (peer.kind == Peer::Kind::kClient) return Lose(peer);
      close(std::exchange(peer.fd, -1));
      return;
    }
    peer.input.append(bytes, static_cast<size_t>(got));
    while (const size_t end = MessageEnd(peer.input, peer.kind == Peer::Kind::kClient)) {
      const std::string message = peer.input.substr(0, end);
      peer.input.erase(0, end);
      OnMessage(peer, message);
    }
  }

  void OnMessage(Peer& peer, std::string_view message) {
    if (peer.kind == Peer::Kind::kUpstream) {
      if (options_.delay_ms == 0) return SendAll(peer, response_);
      return answers_.push_back({NowNs() + static_cast<uint64_t>(options_.delay_ms * 1e6), &peer});
    }
    peer.busy = false;
    if (options_.sheds && message.starts_with("HTTP/1.1 503 ")) {
      shed_latency_.Record(NowNs() - peer.sent_ns);
      ++shed_;
      if (message.contains("\r\nConnection: close\r\n")) return Lose(peer);
      if (options_.retry_ms == 0 || options_.rate != 0) return NextRequest(peer);
      return retries_.push_back({NowNs() + static_cast<uint64_t>(options_.retry_ms * 1e6), &peer});
    }
    if (!message.starts_with("HTTP/1.1 200 ")) Fail("wrong answer: " + std::string(message.substr(0, 300)));
    const size_t body = message.size() - message.find("\r\n\r\n") - 4;
    if (body_bytes_ == 0) body_bytes_ = body;
    if (body != body_bytes_) Fail("an answer of another length");
    latency_.Record(NowNs() - peer.sent_ns);
    ++completed_;
    NextRequest(peer);
  }

  const Options& options_;
  const int epoll_;
  std::string request_;
  std::string response_;
  std::vector<std::unique_ptr<Peer>> peers_;
  LatencyHistogram latency_;
  LatencyHistogram shed_latency_;
  uint64_t completed_ = 0;
  uint64_t shed_ = 0;
  uint64_t broken_ = 0;           // Connections that ended without the answer that was awaited.
  std::vector<Peer*> idle_;       // Open loop: connections that are free,
  std::deque<uint64_t> overdue_;  // or requests that wait for one, by when they were due.
  uint64_t next_due_ns_ = 0;
  std::deque<Due> answers_;
  std::deque<Due> retries_;
  size_t body_bytes_ = 0;
};

Options ParseArguments(int argc, char** argv) {
  Options options;
  for (int i = 1; i + 1 < argc; i += 2) {
    const std::string_view name = argv[i];
    const char* value = argv[i + 1];
    if (name == "--target")
      options.target = value;
    else if (name == "--upstream")
      options.upstream = value;
    else if (name == "--path")
      options.path = value;
    else if (name == "--post-file")
      options.post_file = value;
    else if (name == "--connections")
      options.connections = std::atoi(value);
    else if (name == "--warmup")
      options.warmup_seconds = std::atof(value);
    else if (name == "--seconds")
      options.seconds = std::atof(value);
    else if (name == "--body-bytes")
      options.body_bytes = std::atoi(value);
    else if (name == "--rate")
      options.rate = std::atof(value);
    else if (name == "--delay-ms")
      options.delay_ms = std::atof(value);
    else if (name == "--sheds")
      options.sheds = std::atoi(value) != 0;
    else if (name == "--retry-ms")
      options.retry_ms = std::atof(value);
    else if (name == "--pid")
      options.pids.push_back(std::atoi(value));
    else
      Fail("unknown argument " + std::string(name));
  }
  if (argc % 2 == 0) Fail("an argument lacks its value");
  return options;
}

}  // namespace

int main(int argc, char** argv) {
  const Options options = ParseArguments(argc, argv);
  Generator(options).Run();
  return 0;
}
