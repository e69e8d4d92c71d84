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

}  // namespace
}  // namespace dpa
