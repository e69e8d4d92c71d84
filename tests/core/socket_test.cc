// Goal: sockets on a real io_uring deliver every byte in order, push back on fast senders, and end every wait on time.
// Method: one worker on its own ring; both ends of loopback TCP connections and unix socket pairs are Sockets of that worker.

#include "core/socket.h"

#include <gtest/gtest.h>
#include <sys/socket.h>

#include <string>

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

}  // namespace
}  // namespace dpa
