// Goal: whatever the network does, a socket delivers bytes intact and in order or an error, never hangs, and leaves
// nothing over.
// Method: both ends of every connection are Sockets of one worker on a simulated ring; each test runs under hundreds of
// seeds, each with its own mix of delays, short counts, errors, resets, stalls and empty pools.

#include "core/socket.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <memory>
#include <string>
#include <vector>

#include "core/listener.h"
#include "tests/sim/sim_world.h"

namespace dpa {
namespace {

constexpr uint64_t kRuns = 300;

char ByteAt(uint64_t offset) { return static_cast<char>((offset * 2654435761u) >> 11); }

std::string Bytes(size_t count) {
  std::string bytes(count, '\0');
  for (size_t i = 0; i < count; ++i) bytes[i] = ByteAt(i);
  return bytes;
}

// Sends `bytes` in random messages of random pieces, then ends the sending side.
Task<void> SendAll(SimWorld& world, Socket& socket, std::string_view bytes, Result<void>& result) {
  SimRandom& random = world.random();
  std::vector<iovec> pieces;
  while (!bytes.empty() && result) {
    pieces.clear();
    const uint64_t pieces_count = random.Between(1, 5);
    for (uint64_t i = 0; i < pieces_count; ++i) {
      const size_t length = std::min<size_t>(random.Below(3000), bytes.size());
      pieces.push_back({const_cast<char*>(bytes.data()), length});
      bytes.remove_prefix(length);
    }
    result = co_await socket.Send(pieces);
    if (random.Chance(100)) co_await world.worker().Sleep(random.Below(20));
  }
  if (result) socket.ShutdownSend();
}

// Sends back what it receives, until the end of stream or an error.
Task<void> Echo(Socket& socket, Error& end) {
  for (;;) {
    Result<BufferLease> lease = co_await socket.Receive();
    if (!lease) {
      end = lease.error();
      break;
    }
    iovec piece{lease->data(), lease->size()};
    const Result<void> sent = co_await socket.Send({&piece, 1});
    if (!sent) {
      end = sent.error();
      break;
    }
  }
  if (end.code == ErrorCode::kClosed) {
    co_await socket.LingerAndClose(5000, 1 << 20);
  } else {
    co_await socket.Close();
  }
}

// Receives and compares with what ByteAt() says, until the end of stream or an error.
Task<void> ReceiveAndCheck(SimWorld& world, Socket& socket, uint64_t& received_bytes, Error& end) {
  for (;;) {
    Result<BufferLease> lease = co_await socket.Receive();
    if (!lease) {
      end = lease.error();
      co_return;
    }
    EXPECT_GT(lease->size(), 0u);
    for (uint32_t i = 0; i < lease->size(); ++i) {
      if (lease->data()[i] != ByteAt(received_bytes + i)) {
        ADD_FAILURE() << "byte " << received_bytes + i << " is wrong";
        break;
      }
    }
    received_bytes += lease->size();
    // Held for a while, as a relay to a slow peer would.
    if (world.random().Chance(100)) co_await world.worker().Sleep(world.random().Below(20));
  }
}

struct EchoClient {
  explicit EchoClient(SimWorld& w, int fd, bool is_unix)
      : world(w), socket(w.worker(), fd, is_unix, ErrorSource::kUpstream), tasks(w.worker()) {}

  Task<void> Run(std::string_view bytes) {
    tasks.Spawn(SendAll(world, socket, bytes, sent));
    co_await ReceiveAndCheck(world, socket, received_bytes, end);
    // A sender that still waits must be told: nobody will take its bytes.
    if (end.code != ErrorCode::kClosed || received_bytes != bytes.size()) socket.Cancel(end);
    while (tasks.running_count() != 0) co_await tasks.Join();
    co_await socket.Close();
  }

  SimWorld& world;
  Socket socket;
  TaskScope tasks;
  Result<void> sent;
  uint64_t received_bytes = 0;
  Error end;
};

TEST(SimSocketTest, EveryByteComesBackWhenNothingFails) {
  ForEachSeed(kRuns, [](uint64_t seed) {
    SimRingOptions options;
    options.faults = SimFaults::Harmless();
    SimWorld world(seed, options, /*keep_faults=*/true);
    const bool is_unix = world.random().Chance(500);
    const auto [a, b] = world.ring().MakePair(is_unix);
    EchoClient client(world, a, is_unix);
    Socket server(world.worker(), b, is_unix, ErrorSource::kDownstream);
    const std::string bytes = Bytes(world.random().Below(60'000));
    Error server_end;
    world.worker().tasks().Spawn(client.Run(bytes));
    world.worker().tasks().Spawn(Echo(server, server_end));
    world.RunUntilIdle();
    EXPECT_TRUE(client.sent);
    EXPECT_EQ(client.received_bytes, bytes.size());
    EXPECT_EQ(client.end.code, ErrorCode::kClosed);
    EXPECT_EQ(server_end.code, ErrorCode::kClosed);
  });
}

TEST(SimSocketTest, UnderEveryFaultBytesAreIntactOrAnErrorIsTold) {
  ForEachSeed(kRuns, [](uint64_t seed) {
    SimWorld world(seed);
    const bool is_unix = world.random().Chance(500);
    const auto [a, b] = world.ring().MakePair(is_unix);
    EchoClient client(world, a, is_unix);
    Socket server(world.worker(), b, is_unix, ErrorSource::kDownstream);
    const std::string bytes = Bytes(world.random().Below(20'000));
    Error server_end;
    world.worker().tasks().Spawn(client.Run(bytes));
    world.worker().tasks().Spawn(Echo(server, server_end));
    world.RunUntilIdle();
    EXPECT_LE(client.received_bytes, bytes.size());
    EXPECT_NE(client.end.code, ErrorCode::kInternal);
    EXPECT_EQ(client.end.source, ErrorSource::kUpstream);
    EXPECT_EQ(server_end.source, ErrorSource::kDownstream);
    // An orderly end on both sides means that everything arrived.
    if (client.sent && client.end.code == ErrorCode::kClosed && server_end.code == ErrorCode::kClosed) {
      EXPECT_EQ(client.received_bytes, bytes.size());
    }
  });
}

Task<void> CancelAfter(SimWorld& world, Socket& socket, uint64_t milliseconds, Error reason) {
  co_await world.worker().Sleep(milliseconds);
  socket.Cancel(reason);
}

TEST(SimSocketTest, CancelAtAnyMomentEndsEveryWaitWithTheFirstReason) {
  ForEachSeed(kRuns, [](uint64_t seed) {
    SimWorld world(seed);
    const bool is_unix = world.random().Chance(500);
    const auto [a, b] = world.ring().MakePair(is_unix);
    EchoClient client(world, a, is_unix);
    Socket server(world.worker(), b, is_unix, ErrorSource::kDownstream);
    const std::string bytes = Bytes(40'000);
    Error server_end;
    const Error shed{ErrorCode::kShed, ErrorSource::kInternal};
    const Error timeout{ErrorCode::kTimeout, ErrorSource::kUpstream};
    Deadline deadline(world.worker().timers(), client.socket, timeout);
    deadline.ArmAfter(world.random().Between(1, 30));
    world.worker().tasks().Spawn(client.Run(bytes));
    world.worker().tasks().Spawn(Echo(server, server_end));
    world.worker().tasks().Spawn(CancelAfter(world, client.socket, world.random().Below(30), shed));
    world.RunUntilIdle();
    deadline.Disarm();
    EXPECT_TRUE(client.socket.cancelled());
    if (client.end == shed || client.end == timeout) {
      EXPECT_EQ(client.end, client.socket.cancel_reason());
    }
    // An error that is not the network's (which may break the connection first, and then has an errno) is the reason of
    // the cancel.
    if (!client.sent && client.sent.error().os_errno == 0)
      EXPECT_EQ(client.sent.error(), client.socket.cancel_reason());
  });
}

// Goal: a reset is never taken for an orderly end, although the ring tells of it only once.
// Method: the peer resets, and a send is told before the receive asks.
Task<void> SendThenReceive(Socket& socket, Error& sent, Error& received) {
  char byte = 'x';
  Result<void> result;
  while (result) {
    iovec piece{&byte, 1};
    result = co_await socket.Send({&piece, 1});
  }
  sent = result.error();
  for (;;) {
    const Result<BufferLease> lease = co_await socket.Receive();
    if (lease) continue;
    received = lease.error();
    break;
  }
  co_await socket.Close();
}

TEST(SimSocketTest, AResetThatASendWasToldOfIsNoOrderlyEnd) {
  ForEachSeed(kRuns / 3, [](uint64_t seed) {
    SimRingOptions options;
    options.faults = SimFaults::Harmless();
    SimWorld world(seed, options, /*keep_faults=*/true);
    const auto [a, b] = world.ring().MakePair(false);
    Socket socket(world.worker(), a, false, ErrorSource::kUpstream);
    world.ring().Reset(b);
    Error sent;
    Error received;
    world.worker().tasks().Spawn(SendThenReceive(socket, sent, received));
    world.RunUntilIdle();
    world.ring().Close(b);
    EXPECT_EQ(sent.code, ErrorCode::kReset);
    EXPECT_EQ(received.code, ErrorCode::kReset);
  });
}

// Goal: a socket on which posted bytes have failed can be closed at any moment, whatever its user does in between.
// Method: the peer resets at some moment while bytes are posted, whenever they may be.
Task<void> PostThenClose(SimWorld& world, int fd) {
  Socket socket(world.worker(), fd, false, ErrorSource::kDownstream);
  char byte = 'x';
  for (uint64_t count = world.random().Between(1, 20); count != 0; --count) {
    iovec piece{&byte, 1};
    if (socket.CanPost(1)) socket.Post({&piece, 1});
    if (world.random().Chance(500)) co_await world.worker().Sleep(world.random().Below(3));
  }
  co_await socket.Close();
}

Task<void> ResetLater(SimWorld& world, int fd) {
  co_await world.worker().Sleep(world.random().Below(10));
  world.ring().Reset(fd);
}

TEST(SimSocketTest, MayBeClosedWheneverPostedBytesHaveFailed) {
  ForEachSeed(kRuns, [](uint64_t seed) {
    SimWorld world(seed);
    const auto [a, b] = world.ring().MakePair(false);
    world.worker().tasks().Spawn(PostThenClose(world, a));
    world.worker().tasks().Spawn(ResetLater(world, b));
    world.RunUntilIdle();
    world.ring().Close(b);
  });
}

// --- Back-pressure ---

Task<void> TakeSlowly(SimWorld& world, Socket& socket, uint64_t& received_bytes, uint64_t& waiting_max) {
  for (;;) {
    co_await world.worker().Sleep(world.random().Below(10));
    waiting_max = std::max(waiting_max, socket.received_bytes() - received_bytes);
    Result<BufferLease> lease = co_await socket.Receive();
    if (!lease) break;
    received_bytes += lease->size();
  }
  co_await socket.Close();
}

Task<void> SendAndClose(SimWorld& world, Socket& socket, std::string_view bytes, Result<void>& result) {
  co_await SendAll(world, socket, bytes, result);
  if (!result) socket.Cancel(result.error());
  co_await socket.LingerAndClose(60'000, 1 << 20);
}

TEST(SimSocketTest, ASlowReaderStopsItsSenderAndKeepsFewBytesWaiting) {
  ForEachSeed(kRuns / 3, [](uint64_t seed) {
    SimRingOptions options;
    options.faults = SimFaults::Harmless();
    options.buffers.buffers_count = 64;
    SimWorld world(seed, options, /*keep_faults=*/true);
    const bool is_unix = world.random().Chance(300);
    const auto [a, b] = world.ring().MakePair(is_unix);
    Socket sender(world.worker(), a, is_unix, ErrorSource::kUpstream);
    Socket receiver(world.worker(), b, is_unix, ErrorSource::kDownstream);
    const std::string bytes = Bytes(100'000);
    Result<void> sent;
    uint64_t received_bytes = 0;
    uint64_t waiting_max = 0;
    world.worker().tasks().Spawn(SendAndClose(world, sender, bytes, sent));
    world.worker().tasks().Spawn(TakeSlowly(world, receiver, received_bytes, waiting_max));
    world.RunUntilIdle();
    EXPECT_TRUE(sent);
    EXPECT_EQ(received_bytes, bytes.size());
    // Four buffers, and what the ring still delivers until the cancel takes effect: the pass in which there were four,
    // and three more at the most, each of a full stream.
    EXPECT_LE(waiting_max, 4 * (options.buffers.buffer_bytes + options.stream_bytes_max));
  });
}

TEST(SimSocketTest, SlowReadersThatHoldEveryLeaseDoNotStopOthers) {
  ForEachSeed(kRuns / 3, [](uint64_t seed) {
    SimRingOptions options;
    options.faults = SimFaults::Harmless();
    options.buffers = {.buffers_count = 4, .buffer_bytes = 64};
    SimWorld world(seed, options, /*keep_faults=*/true);
    struct Holder {
      static Task<void> Run(SimWorld& w, Socket& socket, const bool& released, std::vector<BufferLease>& held) {
        while (held.size() < 3) {
          Result<BufferLease> lease = co_await socket.Receive();
          if (!lease) break;
          held.push_back(std::move(*lease));
        }
        while (!released) co_await w.worker().Sleep(5);
        held.clear();
        co_await socket.Close();
      }
    };
    bool released = false;
    std::vector<std::unique_ptr<Socket>> sockets;
    std::vector<std::vector<BufferLease>> held(4);
    std::vector<Result<void>> sent(4);
    const std::string bytes = Bytes(4000);
    for (size_t i = 0; i < held.size(); ++i) {
      const auto [a, b] = world.ring().MakePair(false);
      sockets.push_back(std::make_unique<Socket>(world.worker(), a, false, ErrorSource::kUpstream));
      sockets.push_back(std::make_unique<Socket>(world.worker(), b, false, ErrorSource::kDownstream));
      world.worker().tasks().Spawn(SendAndClose(world, *sockets[2 * i], bytes, sent[i]));
      world.worker().tasks().Spawn(Holder::Run(world, *sockets[2 * i + 1], released, held[i]));
    }
    world.RunUntil([&] { return std::ranges::all_of(held, [](const auto& leases) { return leases.size() == 3; }); });
    // With all that held, somebody else is served.
    const auto [a, b] = world.ring().MakePair(false);
    EchoClient client(world, a, false);
    Socket server(world.worker(), b, false, ErrorSource::kDownstream);
    Error server_end;
    TaskScope others(world.worker());
    others.Spawn(client.Run(bytes));
    others.Spawn(Echo(server, server_end));
    world.RunUntil([&] { return others.running_count() == 0; });
    EXPECT_EQ(client.received_bytes, bytes.size());
    released = true;
    world.RunUntilIdle();
  });
}

// --- Observers ---

struct Watcher final : SocketObserver {
  void OnPeerClosed(Socket&, Error error) override {
    ++closed_count;
    end = error;
  }
  void OnUnreadBytes(Socket&) override { ++unread_count; }
  int closed_count = 0;
  int unread_count = 0;
  Error end;
};

Task<void> CloseWhen(SimWorld& world, Socket& socket, uint64_t milliseconds) {
  co_await world.worker().Sleep(milliseconds);
  co_await socket.Close();
}

TEST(SimSocketTest, AWatchedIdleConnectionTellsOfItsPeersEndOnce) {
  ForEachSeed(kRuns, [](uint64_t seed) {
    SimWorld world(seed);
    const bool is_unix = world.random().Chance(500);
    const auto [a, b] = world.ring().MakePair(is_unix);
    Socket idle(world.worker(), a, is_unix, ErrorSource::kUpstream);
    Socket peer(world.worker(), b, is_unix, ErrorSource::kDownstream);
    Watcher watcher;
    idle.Watch(watcher);
    world.worker().tasks().Spawn(CloseWhen(world, peer, world.random().Below(50)));
    if (world.random().Chance(300)) world.ring().Reset(a);
    world.RunUntil([&] { return watcher.closed_count != 0; });
    EXPECT_TRUE(idle.peer_closed());
    EXPECT_EQ(watcher.unread_count, 0);
    world.worker().tasks().Spawn(CloseWhen(world, idle, 1));
    world.RunUntilIdle();
    EXPECT_EQ(watcher.closed_count, 1);
  });
}

TEST(SimSocketTest, AWatchedSocketMayBeCancelledAndClosedAtAnyMoment) {
  ForEachSeed(kRuns, [](uint64_t seed) {
    SimRingOptions options;
    options.buffers = {.buffers_count = 2, .buffer_bytes = 64};
    SimWorld world(seed, options);
    world.ring().faults().no_buffers = 300;
    const bool is_unix = world.random().Chance(300);
    const auto [a, b] = world.ring().MakePair(is_unix);
    Socket watched(world.worker(), a, is_unix, ErrorSource::kUpstream);
    Socket peer(world.worker(), b, is_unix, ErrorSource::kDownstream);
    Watcher watcher;
    watched.Watch(watcher);
    // Others hold the whole pool for a while: who finds it empty waits, and stops waiting when it is cancelled.
    struct Holder {
      static Task<void> Run(SimWorld& w, Socket& socket) {
        Result<BufferLease> lease = co_await socket.Receive();
        co_await w.worker().Sleep(w.random().Below(60));
        lease = Result<BufferLease>();
        co_await socket.Close();
      }
    };
    std::vector<std::unique_ptr<Socket>> others;
    std::vector<Result<void>> others_sent(4);
    const std::string bytes = Bytes(10'000);
    for (size_t i = 0; i < others_sent.size(); ++i) {
      const auto [c, d] = world.ring().MakePair(false);
      others.push_back(std::make_unique<Socket>(world.worker(), c, false, ErrorSource::kUpstream));
      others.push_back(std::make_unique<Socket>(world.worker(), d, false, ErrorSource::kDownstream));
      world.worker().tasks().Spawn(SendAndClose(world, *others[2 * i], bytes, others_sent[i]));
      world.worker().tasks().Spawn(Holder::Run(world, *others[2 * i + 1]));
    }
    Result<void> sent;
    world.worker().tasks().Spawn(SendAndClose(world, peer, bytes, sent));
    world.worker().tasks().Spawn(CancelAfter(world, watched, world.random().Below(20), Error{ErrorCode::kShed}));
    world.worker().tasks().Spawn(CloseWhen(world, watched, world.random().Between(1, 40)));
    world.RunUntilIdle();
    EXPECT_LE(watcher.closed_count, 1);
  });
}

// --- Connecting and accepting ---

struct Server {
  Server(SimWorld& w, const Address& address)
      : world(w),
        is_unix(address.is_unix()),
        tasks(w.worker()),
        listener(w.worker(), w.ring().Listen(address), {}, [this](int fd) { OnAccept(fd); }) {
    listener.Start();
  }
  void OnAccept(int fd) {
    sockets.push_back(std::make_unique<Socket>(world.worker(), fd, is_unix, ErrorSource::kDownstream));
    ends.push_back(std::make_unique<Error>());
    tasks.Spawn(Echo(*sockets.back(), *ends.back()));
  }
  Task<void> Close() {
    co_await listener.Close();
    while (tasks.running_count() != 0) co_await tasks.Join();
  }
  SimWorld& world;
  const bool is_unix;
  TaskScope tasks;
  std::vector<std::unique_ptr<Socket>> sockets;
  std::vector<std::unique_ptr<Error>> ends;
  Listener listener;
};

struct Tally {
  int echoed = 0;
  int broken = 0;
  int not_connected = 0;
};

Task<void> ConnectAndEcho(SimWorld& world, const Address& address, std::string_view bytes, Tally& tally) {
  co_await world.worker().Sleep(world.random().Below(50));
  const uint64_t began_ms = world.worker().now_ms();
  const Result<int> fd = co_await Connect(world.worker(), address, 1000, ErrorSource::kUpstream);
  if (!fd) {
    ++tally.not_connected;
    EXPECT_TRUE(fd.error().retry_safe);
    EXPECT_NE(fd.error().code, ErrorCode::kInternal);
    EXPECT_NE(fd.error().code, ErrorCode::kCancelled);
    EXPECT_EQ(fd.error().source, ErrorSource::kUpstream);
    // Never before its time.
    if (fd.error().code == ErrorCode::kTimeout) EXPECT_GE(world.worker().now_ms(), began_ms + 1000);
    co_return;
  }
  EchoClient client(world, *fd, address.is_unix());
  Deadline deadline(world.worker().timers(), client.socket, Error{ErrorCode::kTimeout, ErrorSource::kUpstream});
  deadline.ArmAfter(60'000);
  co_await client.Run(bytes);
  ++(client.received_bytes == bytes.size() ? tally.echoed : tally.broken);
}

TEST(SimConnectTest, EveryClientIsServedOrToldWhyNot) {
  ForEachSeed(kRuns, [](uint64_t seed) {
    SimWorld world(seed);
    const Address address = *Address::Parse(world.random().Chance(500) ? "127.0.0.1:8080" : "unix:simulated");
    Server server(world, address);
    const std::string bytes = Bytes(2000);
    constexpr int kClients = 12;
    Tally tally;
    TaskScope clients(world.worker());
    for (int i = 0; i < kClients; ++i) clients.Spawn(ConnectAndEcho(world, address, bytes, tally));
    world.RunUntil([&] { return clients.running_count() == 0; });
    world.worker().tasks().Spawn(server.Close());
    world.RunUntilIdle();
    EXPECT_EQ(tally.echoed + tally.broken + tally.not_connected, kClients);
  });
}

TEST(SimConnectTest, AListenerOutOfDescriptorsGoesOnAfterAPause) {
  ForEachSeed(kRuns / 3, [](uint64_t seed) {
    SimRingOptions options;
    options.faults = SimFaults::Harmless();
    options.faults.accept_error = 700;
    SimWorld world(seed, options, /*keep_faults=*/true);
    const Address address = *Address::Parse("127.0.0.1:8080");
    Server server(world, address);
    const std::string bytes = Bytes(500);
    constexpr int kClients = 6;
    Tally tally;
    TaskScope clients(world.worker());
    for (int i = 0; i < kClients; ++i) clients.Spawn(ConnectAndEcho(world, address, bytes, tally));
    world.RunUntil([&] { return clients.running_count() == 0; });
    EXPECT_EQ(tally.echoed, kClients);
    EXPECT_EQ(server.listener.accepted_count(), static_cast<uint64_t>(kClients));
    world.worker().tasks().Spawn(server.Close());
    world.RunUntilIdle();
  });
}

TEST(SimConnectTest, AListenerMayCloseAtAnyMomentWhileClientsCome) {
  ForEachSeed(kRuns, [](uint64_t seed) {
    SimWorld world(seed);
    const Address address = *Address::Parse(world.random().Chance(500) ? "127.0.0.1:8080" : "unix:simulated");
    auto server = std::make_unique<Server>(world, address);
    struct Closer {
      static Task<void> Run(SimWorld& w, Server& server) {
        co_await w.worker().Sleep(w.random().Below(60));
        co_await server.Close();
      }
    };
    const std::string bytes = Bytes(1000);
    Tally tally;
    for (int i = 0; i < 6; ++i) world.worker().tasks().Spawn(ConnectAndEcho(world, address, bytes, tally));
    world.worker().tasks().Spawn(Closer::Run(world, *server));
    world.RunUntilIdle();
    EXPECT_EQ(tally.echoed + tally.broken + tally.not_connected, 6);
  });
}

TEST(SimConnectTest, ATimeoutArmedAfterALongIdleTimeCountsFromNow) {
  ForEachSeed(kRuns / 3, [](uint64_t seed) {
    SimRingOptions options;
    options.faults = SimFaults::Harmless();
    // Turns in which the ring sleeps for long and is then woken by bytes, not by a timer.
    options.faults.stall = 500;
    options.faults.stall_ms_max = 60'000;
    SimWorld world(seed, options, /*keep_faults=*/true);
    const auto [a, b] = world.ring().MakePair(false);
    Socket waiting(world.worker(), a, false, ErrorSource::kDownstream);
    Socket peer(world.worker(), b, false, ErrorSource::kUpstream);
    struct Waiter {
      // Its receive is completed by a turn that may have slept for a minute; what it arms then must not be due in that
      // turn.
      static Task<void> Run(SimWorld& w, Socket& socket, uint64_t& waited_ms) {
        Result<BufferLease> lease = co_await socket.Receive();
        EXPECT_TRUE(lease);
        const uint64_t began_ms = w.worker().now_ms();
        Deadline deadline(w.worker().timers(), socket, Error{ErrorCode::kTimeout, ErrorSource::kDownstream});
        deadline.ArmAfter(1000);
        lease = co_await socket.Receive();
        EXPECT_FALSE(lease);
        waited_ms = w.worker().now_ms() - began_ms;
        co_await socket.Close();
      }
      static Task<void> Speak(SimWorld& w, Socket& socket) {
        co_await w.worker().Sleep(w.random().Below(10));
        char byte = 'x';
        iovec piece{&byte, 1};
        const Result<void> sent = co_await socket.Send({&piece, 1});
        EXPECT_TRUE(sent);
        Result<BufferLease> end = co_await socket.Receive();
        EXPECT_FALSE(end);
        co_await socket.Close();
      }
    };
    uint64_t waited_ms = 0;
    world.worker().tasks().Spawn(Waiter::Run(world, waiting, waited_ms));
    world.worker().tasks().Spawn(Waiter::Speak(world, peer));
    world.RunUntilIdle();
    EXPECT_GE(waited_ms, 1000u);
  });
}

}  // namespace
}  // namespace dpa
