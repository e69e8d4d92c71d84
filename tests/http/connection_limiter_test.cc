// Who is let in, and that what is counted is given back, whichever threads count.

#include "http/connection_limiter.h"

#include <gtest/gtest.h>

#include <atomic>
#include <string>
#include <thread>
#include <vector>

namespace dpa {
namespace {

using Verdict = ConnectionLimiter::Verdict;

Address At(const std::string& text) { return *Address::Parse(text); }

TEST(ConnectionLimits, OfAllClientsTogetherAreExactAndPlacesComeBack) {
  ConnectionLimiter limiter({.connections_max = 2});
  const ConnectionLimiter::Ticket first = limiter.Admit(Address());
  EXPECT_EQ(limiter.Admit(Address()).verdict, Verdict::kAdmitted);
  EXPECT_EQ(limiter.Admit(Address()).verdict, Verdict::kFull);
  limiter.Leave(first);
  EXPECT_EQ(limiter.Admit(Address()).verdict, Verdict::kAdmitted);
  EXPECT_EQ(limiter.count(), 2u);
}

TEST(ConnectionLimits, OfOneAddressLeaveOthersAlone) {
  ConnectionLimiter limiter({.connections_per_client_max = 2});
  const ConnectionLimiter::Ticket first = limiter.Admit(At("192.0.2.1:1000"));
  EXPECT_EQ(limiter.Admit(At("192.0.2.1:1001")).verdict, Verdict::kAdmitted);
  EXPECT_EQ(limiter.Admit(At("192.0.2.1:1002")).verdict, Verdict::kClientFull);
  EXPECT_EQ(limiter.Admit(At("192.0.2.2:1000")).verdict, Verdict::kAdmitted);
  limiter.Leave(first);
  EXPECT_EQ(limiter.Admit(At("192.0.2.1:1003")).verdict, Verdict::kAdmitted);
  EXPECT_EQ(limiter.count(), 3u) << "a refused connection is not counted";
}

TEST(ConnectionLimits, TakeAnIpv6NetworkOf64BitsForOneClient) {
  ConnectionLimiter limiter({.connections_per_client_max = 1});
  EXPECT_EQ(limiter.Admit(At("[2001:db8:0:1::1]:80")).verdict, Verdict::kAdmitted);
  EXPECT_EQ(limiter.Admit(At("[2001:db8:0:1:ffff::2]:80")).verdict, Verdict::kClientFull);
  EXPECT_EQ(limiter.Admit(At("[2001:db8:0:2::1]:80")).verdict, Verdict::kAdmitted);
}

TEST(ConnectionLimits, OfOneAddressDoNotHoldForUnixPeersAndThoseExempt) {
  const std::string trusted = At("192.0.2.9:1").host();
  ConnectionLimiter limiter(
      {.connections_per_client_max = 1, .exempt = [&](const Address& peer) { return peer.host() == trusted; }});
  for (int i = 0; i < 5; ++i) {
    EXPECT_EQ(limiter.Admit(Address()).verdict, Verdict::kAdmitted);
    EXPECT_EQ(limiter.Admit(At("192.0.2.9:1")).verdict, Verdict::kAdmitted);
  }
}

// Goal: no count is lost or invented by threads that meet in one word. Method: as many as fit come and go at random on
// several threads, from more clients than there are words in a bucket; never more than the limit are inside, and at the
// end nobody is.
TEST(ConnectionLimits, HoldAndAreGivenBackWhenManyThreadsMeet) {
  constexpr uint32_t kMax = 5;
  constexpr int kClients = 600;
  ConnectionLimiter limiter({.connections_per_client_max = kMax});
  std::vector<Address> clients;
  for (int i = 0; i < kClients; ++i)
    clients.push_back(At("10.1." + std::to_string(i / 200) + "." + std::to_string(i % 200) + ":9"));
  std::vector<std::atomic<uint32_t>> inside(kClients);
  std::atomic<uint32_t> most{0};
  std::vector<std::thread> threads;
  for (uint32_t number = 0; number < 4; ++number) {
    threads.emplace_back([&, state = number + 1]() mutable {
      std::vector<std::pair<int, ConnectionLimiter::Ticket>> held;
      for (int step = 0; step < 100'000; ++step) {
        state = state * 1664525 + 1013904223;
        // Every second step is about one of three clients, so that their limit is met again and again.
        const int client = static_cast<int>(state % 2 == 0 ? (state >> 8) % 3 : (state >> 8) % kClients) % kClients;
        if (held.size() > 8) {
          --inside[held.front().first];
          limiter.Leave(held.front().second);
          held.erase(held.begin());
        }
        const ConnectionLimiter::Ticket ticket = limiter.Admit(clients[client]);
        if (ticket.verdict != Verdict::kAdmitted) continue;
        const uint32_t now = ++inside[client];
        if (ticket.client != 0 && now > most) most = now;
        held.emplace_back(client, ticket);
      }
      for (const auto& [client, ticket] : held) {
        --inside[client];
        limiter.Leave(ticket);
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_LE(most, kMax);
  EXPECT_EQ(limiter.count(), 0u);
  for (const Address& client : clients) EXPECT_EQ(limiter.client_count(client), 0u);
}

}  // namespace
}  // namespace dpa
