// Goal: whatever the network and both peers do, a tunnel carries bytes in order, both ways, and never makes a stream
// that broke off look whole; it always ends, with one record, and nothing is left over. Method: upgraded connections
// through an HttpServer with a ProxyHandler on a simulated ring, under hundreds of seeds; both peers send patterns with
// pauses, end their streams, leave, or fall silent.

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cstdlib>
#include <memory>
#include <string>
#include <vector>

#include "core/listener.h"
#include "core/snapshot.h"
#include "http/proxy.h"
#include "http/server.h"
#include "tests/sim/sim_http.h"

namespace dpa {
namespace {

// Bytes that say whose they are and where they belong: an exchange that got those of another is noticed.
std::string Pattern(uint64_t id, size_t count) {
  std::string text;
  while (text.size() < count) text += fmt::format("<{}:{}>", id, text.size());
  text.resize(count);
  return text;
}

constexpr uint64_t kRuns = 200;
// Sent before the peer reads: two that each wait for the other to read more would wait for ever.
constexpr size_t kEarlyMax = 1000;

struct Log final : AccessLog {
  void Write(const AccessRecord& record) override {
    ++records_count;
    if (record.reason == Reason::kTunnelIdleTimeout || record.reason == Reason::kShuttingDown) ++given_up_count;
    if (record.upgraded_ns == 0) return;
    ++tunnels_count;
    EXPECT_EQ(record.status, 101);
    EXPECT_GE(record.finished_ns, record.upgraded_ns);
    if (record.reason == Reason::kOk) ++ok_count;
  }
  uint64_t records_count = 0;
  uint64_t tunnels_count = 0;
  uint64_t given_up_count = 0;
  uint64_t ok_count = 0;
};

// One peer of a tunnel.
struct End {
  End(SimWorld& world, int fd, bool is_unix, ErrorSource source) : socket(world.worker(), fd, is_unix, source) {}
  Socket socket;
  std::string to_send;
  bool leaves = false;  // May close at any moment.
  bool ended = false;   // Has sent all, and ended its stream.
  bool write_failed = false;
  bool saw_end = false;  // Of the other's stream, in order.
  std::string received;
};

struct Pair {
  std::string up;  // What the client means to send.
  std::string down;
  std::unique_ptr<End> client;
  std::unique_ptr<End> server;
};

class TunnelScene {
 public:
  TunnelScene(SimWorld& world, bool good)
      : world_(world),
        good_(good),
        address_(*Address::Parse(world.random().Chance(500) ? "127.0.0.1:80" : "unix:data")),
        delegate_(*Address::Parse(world.random().Chance(500) ? "127.0.0.1:9001" : "unix:delegate")),
        routes_(std::make_shared<RouteTable>()),
        tasks_(world.worker()),
        listener_(world.worker(), world.ring().Listen(delegate_), {}, [this](int fd) { tasks_.Spawn(Serve(fd)); }) {
    listener_.Start();
    ProxyOptions options;
    options.forward.tunnel_idle_timeout_ms = good_ ? 0 : world.random().Between(500, 5000);
    const std::vector<UpstreamUrl> urls = {{delegate_, "delegate.example", ""}};
    proxy_ = std::make_unique<ProxyHandler>(world.worker(), routes_, urls, nullptr, nullptr, options, metrics_);
    server_ = std::make_unique<HttpServer>(world.worker(), *proxy_, HttpServerOptions{}, metrics_, &log_);
    server_->Listen(world.ring().Listen(address_), address_.is_unix());
  }

  void Run(size_t count) {
    TaskScope clients(world_.worker());
    pairs_.resize(count);
    for (size_t i = 0; i < count; ++i) {
      pairs_[i].up = Pattern(2 * i, world_.random().Below(12'000));
      pairs_[i].down = Pattern(2 * i + 1, world_.random().Below(12'000));
      clients.Spawn(Connect(i));
    }
    const bool drains_early = !good_ && world_.random().Chance(200);
    if (drains_early) clients.Spawn(DrainLater());
    // What a client sent last is still under way when it is done.
    world_.RunUntil([&] { return clients.running_count() == 0 && (!good_ || tasks_.running_count() == 0); });
    world_.worker().tasks().Spawn(Finish(drains_early));
    world_.RunUntilIdle();
    Compare();
  }

 private:
  static size_t IndexOf(std::string_view head) {
    return std::strtoull(head.data() + head.find("/t/") + 3, nullptr, 10);
  }

  Task<void> Connect(size_t index) {
    const Result<int> fd = co_await dpa::Connect(world_.worker(), address_, 1000, ErrorSource::kDownstream);
    if (!fd) co_return;
    Pair& pair = pairs_[index];
    pair.client = std::make_unique<End>(world_, *fd, address_.is_unix(), ErrorSource::kDownstream);
    End& end = *pair.client;
    // Bytes that do not wait for the answer go through as well.
    const size_t early_bytes =
        world_.random().Chance(300) ? world_.random().Below(std::min(pair.up.size(), kEarlyMax) + 1) : 0;
    std::string head =
        "GET /t/" + std::to_string(index) + " HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: bytes\r\n\r\n";
    head += pair.up.substr(0, early_bytes);
    const bool sent = co_await Send(end, head);
    std::string answer;
    const bool answered = sent && co_await ReadHead(end, answer);
    if (answered && answer.starts_with("HTTP/1.1 101 ")) {
      end.to_send = pair.up.substr(early_bytes);
      co_await Relay(end);
    } else {
      EXPECT_FALSE(good_) << answer;
      end.received.clear();  // An error's text.
    }
    co_await end.socket.Close();
  }

  Task<void> Serve(int fd) {
    auto made = std::make_unique<End>(world_, fd, delegate_.is_unix(), ErrorSource::kUpstream);
    End& end = *made;
    std::string head;
    const bool asked = co_await ReadHead(end, head);
    if (asked) {
      Pair& pair = pairs_.at(IndexOf(head));
      EXPECT_EQ(pair.server, nullptr) << "an upgrade that was sent twice";
      pair.server = std::move(made);
      end.to_send = pair.down;
      // Its first bytes may stand right behind the head.
      const size_t early_bytes = world_.random().Below(std::min(end.to_send.size(), kEarlyMax) + 1);
      std::string answer = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: bytes\r\n\r\n";
      answer += end.to_send.substr(0, early_bytes);
      end.to_send.erase(0, early_bytes);
      const bool sent = co_await Send(end, answer);
      if (sent) co_await Relay(end);
    }
    co_await end.socket.Close();
  }

  Task<bool> Send(End& end, std::string& bytes) {
    std::array<iovec, 1> piece = {iovec{bytes.data(), bytes.size()}};
    const std::span<iovec> pieces = piece;
    const Result<void> sent = co_await end.socket.Send(pieces);
    end.write_failed = end.write_failed || !sent;
    co_return sent.has_value();
  }

  // What comes behind the head is received already.
  Task<bool> ReadHead(End& end, std::string& head) {
    size_t at = 0;
    while ((at = head.find("\r\n\r\n")) == std::string::npos) {
      Result<BufferLease> lease = co_await end.socket.Receive();
      if (!lease) co_return false;
      head.append(lease->data(), lease->size());
    }
    end.received = head.substr(at + 4);
    head.resize(at + 4);
    co_return true;
  }

  Task<void> Relay(End& end) {
    SimRandom& random = world_.random();
    Deadline leave(world_.worker().timers(), end.socket, Error{ErrorCode::kCancelled});
    // Without an idle timeout of ours, a peer that fell silent ends by itself.
    end.leaves = !good_ && random.Chance(300);
    if (end.leaves) leave.ArmAfter(random.Between(1, 200));
    TaskScope writing(world_.worker());
    writing.Spawn(Write(end));
    for (;;) {
      Result<BufferLease> lease = co_await end.socket.Receive();
      if (!lease) {
        end.saw_end = lease.error().code == ErrorCode::kClosed;
        break;
      }
      end.received.append(lease->data(), lease->size());
      if (random.Chance(100)) co_await world_.worker().Sleep(random.Below(20));
    }
    co_await writing.Join();
    // Its closing ends the stream as well.
    end.ended = end.ended || (end.to_send.empty() && !end.write_failed);
    leave.Disarm();
  }

  Task<void> Write(End& end) {
    SimRandom& random = world_.random();
    while (!end.to_send.empty()) {
      if (random.Chance(200)) co_await world_.worker().Sleep(random.Below(40));
      const size_t bytes = std::min<size_t>(end.to_send.size(), random.Between(1, 3000));
      std::string part = end.to_send.substr(0, bytes);
      end.to_send.erase(0, bytes);
      const bool sent = co_await Send(end, part);
      if (!sent) co_return;
    }
    // Some say no more, and do not end either: the idle timeout is for them.
    if (!good_ && random.Chance(100)) co_return;
    end.ended = true;
    end.socket.ShutdownSend();
  }

  Task<void> DrainLater() {
    co_await world_.worker().Sleep(world_.random().Below(200));
    co_await server_->Drain(world_.random().Below(500));
  }

  Task<void> Finish(bool drained) {
    if (!drained) co_await server_->Drain(world_.random().Below(5000));
    co_await proxy_->Drain();
    co_await listener_.Close();
    while (tasks_.running_count() != 0) co_await tasks_.Join();
  }

  void Compare() {
    EXPECT_EQ(metrics_.tunnels.value(), 0);
    EXPECT_EQ(metrics_.tunnels_started.value(), log_.tunnels_count);
    EXPECT_EQ(metrics_.requests_in_flight.value(), 0);
    EXPECT_EQ(metrics_.upstream_leased.value(), 0);
    for (const Pair& pair : pairs_) {
      if (good_) {
        ASSERT_TRUE(pair.client && pair.server);
        EXPECT_TRUE(pair.server->received == pair.up) << pair.server->received.size() << " of " << pair.up.size();
        EXPECT_TRUE(pair.client->received == pair.down) << pair.client->received.size() << " of " << pair.down.size();
        EXPECT_TRUE(pair.client->saw_end && pair.server->saw_end);
      }
      if (!pair.client || !pair.server) continue;
      CompareWay(*pair.client, *pair.server, pair.up);
      CompareWay(*pair.server, *pair.client, pair.down);
    }
    if (good_) EXPECT_EQ(log_.ok_count, pairs_.size());
  }

  void CompareWay(const End& from, const End& to, const std::string& bytes) {
    EXPECT_TRUE(bytes.starts_with(to.received)) << to.received.size() << " bytes that were not sent";
    // A reset is told once: whoever hears of it in a send sees an end of stream next. One that leaves ends its stream
    // in order, wherever it is; and tunnels that we give up end in order on both sides.
    if (!to.saw_end || to.write_failed || from.leaves || log_.given_up_count != 0) return;
    EXPECT_TRUE(from.ended) << "a stream that broke off looks whole";
    if (from.ended) EXPECT_EQ(to.received.size(), bytes.size()) << "a stream that broke off looks whole";
  }

  SimWorld& world_;
  const bool good_;
  const Address address_;
  const Address delegate_;
  Log log_;
  HttpMetrics metrics_;
  SnapshotPublisher<RouteTable> routes_;
  std::vector<Pair> pairs_;
  TaskScope tasks_;
  Listener listener_;
  std::unique_ptr<ProxyHandler> proxy_;
  std::unique_ptr<HttpServer> server_;
};

TEST(SimTunnelTest, EveryByteAndBothEndsOfStreamArriveWhenNothingFails) {
  ForEachSeed(kRuns, [](uint64_t seed) {
    SimRingOptions options;
    options.faults = SimFaults::Harmless();
    options.buffers = {.buffers_count = 16, .buffer_bytes = 256};
    SimWorld world(seed, options, /*keep_faults=*/true);
    TunnelScene scene(world, /*good=*/true);
    scene.Run(4);
  });
}

TEST(SimTunnelTest, UnderEveryFaultAStreamThatBrokeOffNeverLooksWhole) {
  ForEachSeed(kRuns, [](uint64_t seed) {
    SimRingOptions options;
    options.buffers = {.buffers_count = 16, .buffer_bytes = 256};
    SimWorld world(seed, options);
    TunnelScene scene(world, /*good=*/false);
    scene.Run(4);
  });
}

}  // namespace
}  // namespace dpa
