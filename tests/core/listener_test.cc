// A listening socket at its end.

#include "core/listener.h"

#include <gtest/gtest.h>
#include <sys/socket.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <thread>
#include <vector>

#include "core/worker_thread.h"

namespace dpa {
namespace {

Task<void> CloseAndTell(Listener& listener, std::atomic<bool>& closed) {
  co_await listener.Close();
  closed = true;
}

TEST(ListenerTest, ClosingTakesInWhoWaitsInTheBacklog) {
  // Nobody accepts before the end, so all of them are in the backlog then.
  Address address = *Address::Parse("127.0.0.1:0");
  const int fd = OpenListeners(address, 1).value()[0];
  std::vector<int> clients;
  for (int i = 0; i < 20; ++i) {
    clients.push_back(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
    ASSERT_EQ(connect(clients.back(), address.get(), address.bytes()), 0);
    ASSERT_EQ(send(clients.back(), "x", 1, 0), 1);
  }
  auto thread = WorkerThread::Start({}).value();
  std::vector<int> accepted;
  std::atomic<bool> closed{false};
  std::unique_ptr<Listener> listener;
  thread->Run([&](Worker& worker) {
    listener = std::make_unique<Listener>(worker, fd, ListenerOptions{}, [&](int one) { accepted.push_back(one); });
    worker.tasks().Spawn(CloseAndTell(*listener, closed));
  });
  for (int i = 0; i < 10'000 && !closed; ++i) std::this_thread::sleep_for(std::chrono::milliseconds(1));
  ASSERT_TRUE(closed);
  thread->Run([&](Worker&) { listener.reset(); });
  thread->Stop();
  EXPECT_EQ(accepted.size(), clients.size());
  for (const int one : accepted) {
    char byte = 0;
    EXPECT_EQ(recv(one, &byte, 1, 0), 1) << "what the client has said already is there";
    close(one);
  }
  for (const int client : clients) close(client);
}

TEST(ListenerTest, WhatTheKernelHoldsOfAnAcceptedConnectionCanBeBounded) {
  for (const char* where : {"127.0.0.1:0", "unix:@"}) {
    Address address = *Address::Parse(where[0] == 'u' ? "unix:" + testing::TempDir() + "bounded" : where);
    ListenerOptions options;
    options.socket_buffer_bytes = 16 << 10;
    const int fd = OpenListeners(address, 1, options).value()[0];
    const int client = socket(address.family(), SOCK_STREAM | SOCK_CLOEXEC, 0);
    ASSERT_EQ(connect(client, address.get(), address.bytes()), 0);
    const int accepted = accept(fd, nullptr, nullptr);
    for (const int name : {SO_RCVBUF, SO_SNDBUF}) {
      int bytes = 0;
      socklen_t size = sizeof bytes;
      getsockopt(accepted, SOL_SOCKET, name, &bytes, &size);
      // A unix socket's receiving side is bounded by its peer's sending side alone.
      if (!address.is_unix()) EXPECT_EQ(bytes, 2 * (16 << 10)) << name;
      getsockopt(fd, SOL_SOCKET, name, &bytes, &size);
      EXPECT_EQ(bytes, 2 * (16 << 10)) << name;
    }
    for (const int one : {client, accepted, fd}) close(one);
    if (address.is_unix()) unlink(address.unix_path().c_str());
  }
}

}  // namespace
}  // namespace dpa
