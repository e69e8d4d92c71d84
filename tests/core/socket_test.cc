// Goal: sockets on a real io_uring deliver every byte in order, push back on fast senders, and end every wait on time.
// Method: one worker on its own ring; both ends of loopback TCP connections and unix socket pairs are Sockets of that
// worker.

#include "core/socket.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cstdio>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "core/listener.h"
#include "core/ring_uring.h"

namespace dpa {
namespace {

class SocketTest : public testing::Test {
 protected:
  static std::unique_ptr<UringRing> MakeRing() {
    UringOptions options;
    options.buffers.buffers_count = 64;
    auto ring = UringRing::Create(options);
    EXPECT_TRUE(ring) << ring.error();
    return std::move(*ring);
  }

  // Runs until every task is done, or fails after ten seconds.
  void RunAll() {
    const uint64_t give_up_ns = ring_->NowNs() + 10'000'000'000;
    while (worker_.tasks().running_count() != 0) {
      ASSERT_LT(ring_->NowNs(), give_up_ns) << "tasks still running";
      worker_.RunTurn(worker_.tasks().running_count() != 0);
    }
  }

  void MakeUnixPair(int pair[2]) {
    ASSERT_EQ(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, pair), 0);
  }

  std::unique_ptr<UringRing> ring_ = MakeRing();
  Worker worker_{*ring_, 0};
};

Task<void> SendText(Socket& socket, std::string_view text, bool end) {
  iovec piece{const_cast<char*>(text.data()), text.size()};
  const Result<void> sent = co_await socket.Send({&piece, 1});
  EXPECT_TRUE(sent);
  if (end) socket.ShutdownSend();
}

Task<void> ReceiveAll(Socket& socket, std::string& into, Error& end) {
  for (;;) {
    Result<BufferLease> lease = co_await socket.Receive();
    if (!lease) {
      end = lease.error();
      co_return;
    }
    into.append(lease->data(), lease->size());
  }
}

Task<void> CloseSocket(Socket& socket) { co_await socket.Close(); }

TEST_F(SocketTest, BytesAndEndOfStreamArriveInOrder) {
  int pair[2];
  MakeUnixPair(pair);
  Socket a(worker_, pair[0], true, ErrorSource::kDownstream);
  Socket b(worker_, pair[1], true, ErrorSource::kUpstream);
  std::string received;
  Error end;
  worker_.tasks().Spawn(ReceiveAll(b, received, end));
  worker_.tasks().Spawn(SendText(a, "hello", true));
  RunAll();
  EXPECT_EQ(received, "hello");
  EXPECT_EQ(end.code, ErrorCode::kClosed);
  EXPECT_EQ(end.source, ErrorSource::kUpstream);
  worker_.tasks().Spawn(CloseSocket(a));
  worker_.tasks().Spawn(CloseSocket(b));
  RunAll();
}

Task<void> AcceptOne(Worker& worker, std::unique_ptr<Socket>& into, int fd) {
  into = std::make_unique<Socket>(worker, fd, false, ErrorSource::kDownstream);
  co_return;
}

Task<void> ConnectTo(Worker& worker, const Address& address, Result<int>& into) {
  into = co_await Connect(worker, address, 1000, ErrorSource::kUpstream);
}

TEST_F(SocketTest, EightMebibytesOverTcpAreIntactAlthoughTheReaderStartsLate) {
  Address address = *Address::Parse("127.0.0.1:0");
  auto fds = OpenListeners(address, 1);
  ASSERT_TRUE(fds) << fds.error();
  std::unique_ptr<Socket> server;
  Listener listener(worker_, fds->front(), {}, [&](int fd) { worker_.tasks().Spawn(AcceptOne(worker_, server, fd)); });
  listener.Start();
  Result<int> fd = 0;
  worker_.tasks().Spawn(ConnectTo(worker_, address, fd));
  RunAll();
  ASSERT_TRUE(fd);
  while (!server) worker_.RunTurn(true);
  Socket client(worker_, *fd, false, ErrorSource::kUpstream);

  std::string big(8 << 20, '\0');
  for (size_t i = 0; i < big.size(); ++i) big[i] = static_cast<char>(i * 2654435761u >> 13);
  worker_.tasks().Spawn(SendText(client, big, true));
  for (int i = 0; i < 20; ++i) worker_.RunTurn(false);
  EXPECT_LE(ring_->buffers().lent_count(), 8u);
  std::string received;
  Error end;
  worker_.tasks().Spawn(ReceiveAll(*server, received, end));
  RunAll();
  EXPECT_TRUE(received == big);
  EXPECT_EQ(end.code, ErrorCode::kClosed);
  worker_.tasks().Spawn(CloseSocket(client));
  worker_.tasks().Spawn(CloseSocket(*server));
  worker_.tasks().Spawn(listener.Close());
  RunAll();
}

TEST_F(SocketTest, DeadlineEndsAReceiveWithItsReason) {
  int pair[2];
  MakeUnixPair(pair);
  Socket a(worker_, pair[0], true, ErrorSource::kDownstream);
  Socket b(worker_, pair[1], true, ErrorSource::kUpstream);
  std::string received;
  Error end;
  Deadline deadline(worker_.timers(), b, Error{ErrorCode::kTimeout, ErrorSource::kUpstream});
  deadline.ArmAfter(5);
  worker_.tasks().Spawn(ReceiveAll(b, received, end));
  RunAll();
  EXPECT_EQ(end.code, ErrorCode::kTimeout);
  EXPECT_TRUE(deadline.fired());
  worker_.tasks().Spawn(CloseSocket(a));
  worker_.tasks().Spawn(CloseSocket(b));
  RunAll();
}

TEST_F(SocketTest, SendToAPeerThatStoppedReadingEndsByCancel) {
  int pair[2];
  MakeUnixPair(pair);
  Socket a(worker_, pair[0], true, ErrorSource::kDownstream);
  Socket b(worker_, pair[1], true, ErrorSource::kUpstream);
  std::string big(4 << 20, 'x');
  Deadline deadline(worker_.timers(), a, Error{ErrorCode::kTimeout, ErrorSource::kDownstream});
  deadline.ArmAfter(20);
  struct Sender {
    static Task<void> Run(Socket& socket, std::string_view text, Error& end) {
      iovec piece{const_cast<char*>(text.data()), text.size()};
      const Result<void> sent = co_await socket.Send({&piece, 1});
      EXPECT_FALSE(sent);
      if (!sent) end = sent.error();
    }
  };
  Error end;
  worker_.tasks().Spawn(Sender::Run(a, big, end));
  RunAll();
  EXPECT_EQ(end.code, ErrorCode::kTimeout);
  worker_.tasks().Spawn(CloseSocket(a));
  worker_.tasks().Spawn(CloseSocket(b));
  RunAll();
}

TEST_F(SocketTest, ConnectingToNobodyIsRefusedAndRetrySafe) {
  Address nobody = *Address::Parse("127.0.0.1:1");
  Result<int> fd = 0;
  worker_.tasks().Spawn(ConnectTo(worker_, nobody, fd));
  RunAll();
  ASSERT_FALSE(fd);
  EXPECT_EQ(fd.error().code, ErrorCode::kRefused);
  EXPECT_TRUE(fd.error().retry_safe);
  Address no_socket = *Address::Parse("unix:./no-such-socket");
  worker_.tasks().Spawn(ConnectTo(worker_, no_socket, fd));
  RunAll();
  ASSERT_FALSE(fd);
  EXPECT_EQ(fd.error().code, ErrorCode::kRefused);
}

// --- A pool that is far too small ---

class TinyPoolTest : public SocketTest {
 protected:
  static std::unique_ptr<UringRing> MakeTinyRing() {
    UringOptions options;
    options.buffers = {.buffers_count = 4, .buffer_bytes = 1024};
    auto ring = UringRing::Create(options);
    EXPECT_TRUE(ring) << ring.error();
    return std::move(*ring);
  }
  void RunTinyUntil(const std::function<bool()>& done) {
    const uint64_t give_up_ns = tiny_ring_->NowNs() + 10'000'000'000;
    while (!done()) {
      ASSERT_LT(tiny_ring_->NowNs(), give_up_ns);
      tiny_worker_.RunTurn(true);
    }
  }
  // A connected pair over loopback TCP, which receives by multishot.
  void MakeTcpPair(int pair[2]) {
    Address address = *Address::Parse("127.0.0.1:0");
    auto fds = OpenListeners(address, 1);
    ASSERT_TRUE(fds) << fds.error();
    pair[0] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    ASSERT_EQ(connect(pair[0], address.get(), address.bytes()), 0);
    pair[1] = accept4(fds->front(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK);
    ASSERT_GE(pair[1], 0);
    ASSERT_EQ(fcntl(pair[0], F_SETFL, O_NONBLOCK), 0);
    ::close(fds->front());
  }

  std::unique_ptr<UringRing> tiny_ring_ = MakeTinyRing();
  Worker tiny_worker_{*tiny_ring_, 0};
};

TEST_F(TinyPoolTest, ManyConnectionsShareFourBuffersAndLoseNothing) {
  constexpr int kConnections = 20;
  const std::string text(50'000, 'x');
  std::vector<std::unique_ptr<Socket>> sockets;
  std::vector<std::string> received(kConnections);
  std::vector<Error> ends(kConnections);
  for (int i = 0; i < kConnections; ++i) {
    int pair[2];
    MakeTcpPair(pair);
    sockets.push_back(std::make_unique<Socket>(tiny_worker_, pair[0], false, ErrorSource::kUpstream));
    sockets.push_back(std::make_unique<Socket>(tiny_worker_, pair[1], false, ErrorSource::kDownstream));
    tiny_worker_.tasks().Spawn(SendText(*sockets[2 * i], text, true));
    tiny_worker_.tasks().Spawn(ReceiveAll(*sockets[2 * i + 1], received[i], ends[i]));
  }
  RunTinyUntil([&] { return tiny_worker_.tasks().running_count() == 0; });
  for (int i = 0; i < kConnections; ++i) {
    EXPECT_TRUE(received[i] == text) << received[i].size();
    EXPECT_EQ(ends[i].code, ErrorCode::kClosed);
  }
  EXPECT_GT(tiny_ring_->buffers().starved_count(), 0u) << "the pool was never dry: this test shows nothing";
  for (const auto& socket : sockets) tiny_worker_.tasks().Spawn(CloseSocket(*socket));
  RunTinyUntil([&] { return tiny_worker_.tasks().running_count() == 0; });
  EXPECT_EQ(tiny_ring_->buffers().lent_count(), 0u);
}

TEST_F(TinyPoolTest, ReadersThatStopReadingDoNotStarveTheOthers) {
  const std::string text(100'000, 'y');
  std::vector<std::unique_ptr<Socket>> sockets;
  struct Nothing final : SocketObserver {
    void OnPeerClosed(Socket&, Error) override {}
  };
  Nothing nothing;
  // Eight that are watched and never read from: their queues hold what has come.
  for (int i = 0; i < 8; ++i) {
    int pair[2];
    MakeTcpPair(pair);
    sockets.push_back(std::make_unique<Socket>(tiny_worker_, pair[0], false, ErrorSource::kUpstream));
    sockets.push_back(std::make_unique<Socket>(tiny_worker_, pair[1], false, ErrorSource::kDownstream));
    tiny_worker_.tasks().Spawn(SendText(*sockets[2 * i], text, false));
    sockets.back()->Watch(nothing);
  }
  RunTinyUntil([&] {
    for (int i = 0; i < 8; ++i) {
      if (!sockets[2 * i + 1]->has_unread()) return false;
    }
    return true;
  });
  int pair[2];
  MakeTcpPair(pair);
  Socket a(tiny_worker_, pair[0], false, ErrorSource::kUpstream);
  Socket b(tiny_worker_, pair[1], false, ErrorSource::kDownstream);
  std::string received;
  Error end;
  TaskScope served(tiny_worker_);
  served.Spawn(SendText(a, text, true));
  served.Spawn(ReceiveAll(b, received, end));
  RunTinyUntil([&] { return served.running_count() == 0; });
  EXPECT_TRUE(received == text);
  RunTinyUntil([&] { return tiny_worker_.tasks().running_count() == 0; });  // Their senders: the kernel took it all.
  for (const auto& socket : sockets) tiny_worker_.tasks().Spawn(CloseSocket(*socket));
  tiny_worker_.tasks().Spawn(CloseSocket(a));
  tiny_worker_.tasks().Spawn(CloseSocket(b));
  RunTinyUntil([&] { return tiny_worker_.tasks().running_count() == 0; });
  EXPECT_EQ(tiny_ring_->buffers().detached_count(), 0u);
}

TEST_F(TinyPoolTest, LingeringLetsThePeerReadAnAnswerAlthoughItWasStillSending) {
  int pair[2];
  MakeTcpPair(pair);
  ASSERT_EQ(fcntl(pair[0], F_SETFL, 0), 0);  // The peer is this test, with plain calls.
  Socket server(tiny_worker_, pair[1], false, ErrorSource::kDownstream);
  const std::string unread(5'000, 'u');
  ASSERT_EQ(write(pair[0], unread.data(), unread.size()), static_cast<ssize_t>(unread.size()));
  struct Answerer {
    static Task<void> Run(Socket& socket) {
      const std::string answer = "too much";
      iovec piece{const_cast<char*>(answer.data()), answer.size()};
      const Result<void> sent = co_await socket.Send({&piece, 1});
      EXPECT_TRUE(sent);
      co_await socket.LingerAndClose(5'000, 1 << 20);
    }
  };
  tiny_worker_.tasks().Spawn(Answerer::Run(server));
  // The answer, then the end of its sending side; only then does the peer close.
  for (int i = 0; i < 20; ++i) tiny_worker_.RunTurn(false);
  ASSERT_EQ(write(pair[0], unread.data(), unread.size()), static_cast<ssize_t>(unread.size()));
  char text[64];
  ASSERT_EQ(read(pair[0], text, sizeof text), 8);
  EXPECT_EQ(read(pair[0], text, sizeof text), 0);
  ::close(pair[0]);
  RunTinyUntil([&] { return tiny_worker_.tasks().running_count() == 0; });
}

TEST_F(TinyPoolTest, LingeringEndsAtItsTimeoutOrByteLimit) {
  for (const bool floods : {false, true}) {
    int pair[2];
    MakeTcpPair(pair);
    Socket server(tiny_worker_, pair[1], false, ErrorSource::kDownstream);
    struct Lingerer {
      static Task<void> Run(Socket& socket, bool by_bytes) {
        co_await socket.LingerAndClose(by_bytes ? 60'000 : 20, by_bytes ? 2'000 : 1 << 30);
      }
    };
    tiny_worker_.tasks().Spawn(Lingerer::Run(server, floods));
    const std::string flood(100'000, 'f');
    RunTinyUntil([&] {
      if (floods) [[maybe_unused]]
        const ssize_t sent = send(pair[0], flood.data(), flood.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
      return tiny_worker_.tasks().running_count() == 0;
    });
    ::close(pair[0]);
  }
}

TEST(ListenerTest, AFileThatIsNoSocketIsNeverRemovedAndAStaleSocketIs) {
  std::string folder = testing::TempDir() + "listener-test-XXXXXX";
  ASSERT_NE(mkdtemp(folder.data()), nullptr);
  const std::string path = folder + "/precious";
  Address address = *Address::Parse("unix:" + path);
  FILE* file = std::fopen(path.c_str(), "w");
  std::fputs("precious", file);
  std::fclose(file);
  const auto refused = OpenListeners(address, 1);
  ASSERT_FALSE(refused);
  EXPECT_NE(refused.error().find(path), std::string::npos) << refused.error();
  EXPECT_EQ(access(path.c_str(), F_OK), 0);
  unlink(path.c_str());

  const auto first = OpenListeners(address, 1);
  ASSERT_TRUE(first) << first.error();
  EXPECT_FALSE(OpenListeners(address, 1)) << "somebody answers there";
  ::close(first->front());
  const auto second = OpenListeners(address, 1);
  ASSERT_TRUE(second) << second.error() << ": left over by a crash";
  ::close(second->front());
  unlink(path.c_str());
  rmdir(folder.c_str());
}

TEST(ListenerTest, SecondProcessOnTheSamePortIsToldSo) {
  Address address = *Address::Parse("127.0.0.1:0");
  auto first = OpenListeners(address, 2);
  ASSERT_TRUE(first) << first.error();
  EXPECT_NE(address.port(), 0);
  auto second = OpenListeners(address, 2);
  ASSERT_FALSE(second);
  EXPECT_NE(second.error().find("Address already in use"), std::string::npos) << second.error();
  for (int fd : *first) ::close(fd);
}

// --- Sends that look first ---

Task<void> SendChecked(Socket& socket, SendCheck check, Result<void>& into) {
  iovec piece{const_cast<char*>("hello"), 5};
  const std::span<iovec> pieces(&piece, 1);
  into = co_await socket.Send(pieces, check);
}

class NoObserver final : public SocketObserver {
  void OnPeerClosed(Socket&, Error) override {}
};

// What the peer has done when a send with `check` is asked for, and whether a completion has told the socket of it.
TEST_F(SocketTest, ASendThatLooksFirstSendsNothingToAPeerThatHasSpokenOrGone) {
  struct Row {
    bool peer_sends;
    bool peer_closes;
    bool told;
    SendCheck check;
    std::optional<ErrorCode> error;
  };
  const Row rows[] = {{false, false, true, SendCheck::kAsked, std::nullopt},
                      {true, false, true, SendCheck::kNone, std::nullopt},
                      {true, false, true, SendCheck::kQuiet, ErrorCode::kMalformed},
                      {false, true, true, SendCheck::kQuiet, ErrorCode::kClosed},
                      {true, true, true, SendCheck::kQuiet, ErrorCode::kMalformed},
                      // Only the kernel knows.
                      {true, false, false, SendCheck::kQuiet, std::nullopt},
                      {true, false, false, SendCheck::kAsked, ErrorCode::kMalformed},
                      {false, true, false, SendCheck::kAsked, ErrorCode::kClosed}};
  for (const Row& row : rows) {
    int pair[2];
    MakeUnixPair(pair);
    Socket socket(worker_, pair[0], true, ErrorSource::kUpstream);
    NoObserver observer;
    if (row.told) socket.Watch(observer);
    worker_.RunTurn(false);
    if (row.peer_sends) ASSERT_EQ(write(pair[1], "hi", 2), 2);
    if (row.peer_closes) shutdown(pair[1], SHUT_WR);
    Result<void> sent;
    worker_.tasks().Spawn(SendChecked(socket, row.check, sent));
    RunAll();
    EXPECT_EQ(sent.has_value(), !row.error);
    if (!sent) EXPECT_EQ(sent.error().code, *row.error);
    EXPECT_EQ(socket.sent_bytes(), row.error ? 0u : 5u);
    worker_.tasks().Spawn(CloseSocket(socket));
    RunAll();
    close(pair[1]);
  }
}

// --- Connects that are cancelled ---

Task<void> ConnectCancellably(Worker& worker, const Address& address, Cancellation& cancel, Result<int>& into) {
  into = co_await Connect(worker, address, 600'000, ErrorSource::kUpstream, &cancel);
}

TEST_F(SocketTest, AConnectThatGetsNoAnswerEndsWhenItIsCancelled) {
  constexpr Error kReason{ErrorCode::kClosed, ErrorSource::kDownstream};
  const std::string path = "unix:" + testing::TempDir() + "dpa_socket_" + std::to_string(getpid());
  for (const std::string& where : {std::string("127.0.0.1:0"), path}) {
    Address address = *Address::Parse(where);
    auto fds = OpenListeners(address, 1);
    ASSERT_TRUE(fds) << fds.error();
    // A backlog that one connection fills: the next gets no answer.
    listen(fds->front(), 0);
    const int first = socket(address.family(), SOCK_STREAM | SOCK_CLOEXEC, 0);
    ASSERT_EQ(connect(first, address.get(), address.bytes()), 0);
    Cancellation cancel;
    Result<int> fd = 0;
    worker_.tasks().Spawn(ConnectCancellably(worker_, address, cancel, fd));
    for (int i = 0; i < 20; ++i) worker_.RunTurn(false);
    EXPECT_EQ(worker_.tasks().running_count(), 1u);
    cancel.Cancel(kReason);
    RunAll();
    ASSERT_FALSE(fd);
    EXPECT_EQ(fd.error(), kReason);
    Result<int> late = 0;
    worker_.tasks().Spawn(ConnectCancellably(worker_, address, cancel, late));
    EXPECT_EQ(worker_.tasks().running_count(), 0u) << "a story that has been cancelled begins no connect";
    close(first);
    close(fds->front());
  }
  unlink(path.substr(5).c_str());
}

}  // namespace
}  // namespace dpa
