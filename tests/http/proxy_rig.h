// What the end-to-end tests of http/ share: a worker thread with a ProxyHandler and an HttpServer on a real ring, and
// peers (clients, upstreams) that the test plays itself with blocking sockets, every wait bounded.

#pragma once

#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <chrono>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

#include "core/listener.h"
#include "core/snapshot.h"
#include "core/worker_thread.h"
#include "http/proxy.h"
#include "http/server.h"

namespace dpa::test {

inline constexpr int kPatienceMs = 10'000;

// A blocking socket with bounded waits. Move-only.
class Peer {
 public:
  explicit Peer(int fd = -1) : fd_(fd) {}
  Peer(Peer&& other) noexcept : fd_(std::exchange(other.fd_, -1)), read_(std::move(other.read_)) {}
  Peer& operator=(Peer&& other) noexcept {
    Close();
    fd_ = std::exchange(other.fd_, -1);
    read_ = std::move(other.read_);
    return *this;
  }
  ~Peer() { Close(); }

  int fd() const { return fd_; }
  void Close() {
    if (fd_ >= 0) close(std::exchange(fd_, -1));
  }
  void Reset() {
    const linger hard{1, 0};
    setsockopt(fd_, SOL_SOCKET, SO_LINGER, &hard, sizeof hard);
    Close();
  }

  bool Send(std::string_view bytes) {
    while (!bytes.empty()) {
      const ssize_t sent = send(fd_, bytes.data(), bytes.size(), MSG_NOSIGNAL);
      if (sent <= 0) return false;
      bytes.remove_prefix(static_cast<size_t>(sent));
    }
    return true;
  }
  // More bytes into the buffer; false at the end, after an error, or out of patience (which fails the test).
  bool Fill(size_t bytes_max = 65536) {
    pollfd waited{fd_, POLLIN, 0};
    if (poll(&waited, 1, kPatienceMs) != 1) {
      ADD_FAILURE() << "the peer said nothing in time; so far: " << read_.substr(0, 400);
      return false;
    }
    std::string chunk(bytes_max, '\0');
    const ssize_t got = recv(fd_, chunk.data(), chunk.size(), 0);
    reset_ = got < 0;
    if (got <= 0) return false;
    read_.append(chunk, 0, static_cast<size_t>(got));
    return true;
  }
  // Everything up to and including `mark`.
  std::string Until(std::string_view mark) {
    size_t at = 0;
    while ((at = read_.find(mark)) == std::string::npos) {
      if (!Fill()) return Take(read_.size());
    }
    return Take(at + mark.size());
  }
  std::string Exactly(size_t bytes) {
    while (read_.size() < bytes) {
      if (!Fill()) break;
    }
    return Take(std::min(bytes, read_.size()));
  }
  std::string UntilEnd() {
    while (Fill()) {
    }
    return Take(read_.size());
  }
  std::string Head() { return Until("\r\n\r\n"); }
  // A head and its Content-Length body.
  std::string Message() {
    std::string head = Head();
    const size_t at = head.find("Content-Length: ");
    if (at == std::string::npos) return head;
    return head + Exactly(std::stoul(head.substr(at + 16)));
  }
  // Nothing comes for `ms`, and the connection stays.
  bool SilentFor(int ms) {
    pollfd waited{fd_, POLLIN, 0};
    return read_.empty() && poll(&waited, 1, ms) == 0;
  }
  bool was_reset() const { return reset_; }

 private:
  std::string Take(size_t bytes) {
    std::string taken = read_.substr(0, bytes);
    read_.erase(0, bytes);
    return taken;
  }
  int fd_;
  std::string read_;
  bool reset_ = false;
};

inline Peer ConnectTo(const Address& address) {
  Peer peer(socket(address.family(), SOCK_STREAM | SOCK_CLOEXEC, 0));
  const timeval patience{kPatienceMs / 1000, 0};
  setsockopt(peer.fd(), SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof patience);
  if (connect(peer.fd(), address.get(), address.bytes()) != 0) peer.Close();
  return peer;
}

// A listening socket that the test accepts from.
class Upstream {
 public:
  explicit Upstream(std::string_view where = "127.0.0.1:0") : address_(*Address::Parse(where)) {
    fd_ = OpenListeners(address_, 1).value()[0];
  }
  ~Upstream() { Close(); }
  void Close() {
    if (fd_ >= 0) close(std::exchange(fd_, -1));
    if (address_.is_unix()) unlink(address_.unix_path().c_str());
  }
  const Address& address() const { return address_; }
  UpstreamUrl url(std::string prefix = "") const { return {address_, "upstream.test", std::move(prefix)}; }
  Peer Accept() {
    pollfd waited{fd_, POLLIN, 0};
    if (poll(&waited, 1, kPatienceMs) != 1) {
      ADD_FAILURE() << "no connection came in time";
      return Peer();
    }
    Peer peer(accept4(fd_, nullptr, nullptr, SOCK_CLOEXEC));
    const timeval patience{kPatienceMs / 1000, 0};
    setsockopt(peer.fd(), SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof patience);
    return peer;
  }
  bool NobodyConnectsFor(int ms) {
    pollfd waited{fd_, POLLIN, 0};
    return poll(&waited, 1, ms) == 0;
  }

 private:
  Address address_;
  int fd_ = -1;
};

// Keeps what the tests ask for.
class RecordedLog final : public AccessLog {
 public:
  struct Entry {
    int status;
    Reason reason;
    std::string target;
    std::string route;
    uint64_t request_bytes;
    uint64_t response_bytes;
    uint32_t retries;
    bool upstream_reused;
    std::string client;
    std::string request_id;
    std::string trace_id;
  };
  void Write(const AccessRecord& record) override {
    const std::lock_guard lock(mutex_);
    entries_.push_back({record.status, record.reason, std::string(record.target), std::string(record.route),
                        record.request_body_bytes, record.response_body_bytes, record.retries_count,
                        record.upstream_reused, std::string(record.client), std::string(record.request_id),
                        std::string(record.trace_id)});
  }
  // The entry number `index`, waited for.
  Entry At(size_t index) {
    for (int i = 0; i < kPatienceMs; ++i) {
      {
        const std::lock_guard lock(mutex_);
        if (index < entries_.size()) return entries_[index];
      }
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
    ADD_FAILURE() << "no record number " << index;
    return {};
  }
  size_t size() {
    const std::lock_guard lock(mutex_);
    return entries_.size();
  }

 private:
  std::mutex mutex_;
  std::vector<Entry> entries_;
};

struct RigOptions {
  HttpServerOptions server;
  ProxyOptions proxy;
  std::string listen = "127.0.0.1:0";
  uint32_t buffers_count = 64;
};

class Rig {
 public:
  Rig(const std::vector<UpstreamUrl>& delegates, const RigOptions& options = {}, LocalPaths* local = nullptr,
      ExchangeHandler* handler = nullptr)
      : routes_(std::make_shared<RouteTable>()), address_(*Address::Parse(options.listen)) {
    WorkerThreadOptions thread_options;
    thread_options.ring.buffers.buffers_count = options.buffers_count;
    thread_ = WorkerThread::Start(thread_options).value();
    const int fd = OpenListeners(address_, 1).value()[0];
    thread_->Run([&](Worker& worker) {
      metrics_ = std::make_unique<HttpMetrics>();
      proxy_ = std::make_unique<ProxyHandler>(worker, routes_, delegates, nullptr, local, options.proxy, *metrics_);
      ExchangeHandler& chosen = handler != nullptr ? *handler : *proxy_;
      server_ = std::make_unique<HttpServer>(worker, chosen, options.server, *metrics_, &log);
      server_->Listen(fd, address_.is_unix());
    });
  }
  ~Rig() {
    if (server_) Drain(0);
  }

  Peer Connect() { return ConnectTo(address_); }
  const Address& address() const { return address_; }
  HttpMetrics& metrics() { return *metrics_; }

  // Holds the worker up while `what` runs: it sees all of it at once, in its next turn.
  template <class What>
  void WhileHeldUp(What what) {
    thread_->Run([&](Worker&) { what(); });
  }

  void BeginDrain(uint64_t timeout_ms) {
    thread_->Run([&](Worker& worker) { worker.tasks().Spawn(DrainAll(worker, timeout_ms)); });
  }
  // Waits for the drain and ends everything; asserts that nothing was left.
  void FinishDrain() {
    for (int i = 0; i < kPatienceMs && !drained_; ++i) std::this_thread::sleep_for(std::chrono::milliseconds(1));
    ASSERT_TRUE(drained_) << "the drain did not end";
    thread_->Run([&](Worker& worker) {
      server_.reset();
      proxy_.reset();
      EXPECT_EQ(worker.ring().buffers().lent_count(), 0u);
      EXPECT_EQ(worker.bytes().blocks_out(), 0);
    });
    thread_->Stop();
  }
  void Drain(uint64_t timeout_ms) {
    BeginDrain(timeout_ms);
    FinishDrain();
  }
  void Publish(RouteTable table) {
    routes_.Publish(std::make_shared<RouteTable>(std::move(table)));
    thread_->Run([](Worker&) {});
    thread_->Run([](Worker&) {});
  }

  RecordedLog log;

 private:
  Task<void> DrainAll(Worker& worker, uint64_t timeout_ms) {
    static_cast<void>(worker);
    co_await server_->Drain(timeout_ms);
    co_await proxy_->Drain();
    drained_ = true;
  }

  SnapshotPublisher<RouteTable> routes_;
  Address address_;
  std::unique_ptr<WorkerThread> thread_;
  std::unique_ptr<HttpMetrics> metrics_;
  std::unique_ptr<ProxyHandler> proxy_;
  std::unique_ptr<HttpServer> server_;
  std::atomic<bool> drained_{false};
};

}  // namespace dpa::test
