// Goal: messages from any thread arrive once, in each sender's order, and wake a worker that sleeps.
// Method: several posting threads against one delivering thread that sleeps on the eventfd; run under ThreadSanitizer
// as well.

#include "core/mailbox.h"

#include <gtest/gtest.h>
#include <poll.h>
#include <unistd.h>

#include <memory>
#include <thread>
#include <vector>

namespace dpa {
namespace {

// Sleeps until woken; false: not within ten seconds.
bool SleepUntilWoken(Mailbox& mailbox) {
  pollfd waited{mailbox.event_fd(), POLLIN, 0};
  if (poll(&waited, 1, 10'000) != 1) return false;
  uint64_t count = 0;
  return read(mailbox.event_fd(), &count, sizeof count) == sizeof count;
}

TEST(MailboxTest, EveryMessageOfEverySenderArrivesOnceAndInOrder) {
  constexpr int kSenders = 4;
  constexpr int kMessages = 5000;
  Mailbox mailbox;
  std::vector<int> next(kSenders, 0);
  bool in_order = true;
  std::vector<std::thread> senders;
  for (int sender = 0; sender < kSenders; ++sender) {
    senders.emplace_back([&, sender] {
      for (int i = 0; i < kMessages; ++i) {
        EXPECT_TRUE(mailbox.Post([&, sender, i] { in_order &= next[sender]++ == i; }));
      }
    });
  }
  size_t delivered = 0;
  // Only ever woken by the eventfd: a lost wake-up would end this by the ten seconds.
  while (delivered < size_t{kSenders} * kMessages) {
    ASSERT_TRUE(SleepUntilWoken(mailbox)) << "after " << delivered;
    delivered += mailbox.Deliver();
  }
  for (std::thread& sender : senders) sender.join();
  EXPECT_TRUE(in_order);
  EXPECT_EQ(mailbox.Deliver(), 0u);
}

TEST(MailboxTest, AMessageThatPostsIsNotDeliveredInTheSameRound) {
  Mailbox mailbox;
  int ran = 0;
  mailbox.Post([&] { mailbox.Post([&] { ++ran; }); });
  EXPECT_EQ(mailbox.Deliver(), 1u);
  EXPECT_EQ(ran, 0);
  EXPECT_TRUE(SleepUntilWoken(mailbox));
  EXPECT_EQ(mailbox.Deliver(), 1u);
  EXPECT_EQ(ran, 1);
}

TEST(MailboxTest, AClosedMailboxRefusesAndAnUndeliveredMessageIsFreed) {
  const auto owned = std::make_shared<int>(1);
  {
    Mailbox mailbox;
    EXPECT_TRUE(mailbox.Post([owned] {}));
    mailbox.Close();
    EXPECT_FALSE(mailbox.Post([owned] {}));
    EXPECT_EQ(owned.use_count(), 2);
  }
  EXPECT_EQ(owned.use_count(), 1);
}

TEST(MailboxTest, WakeAloneWakes) {
  Mailbox mailbox;
  mailbox.Wake();
  mailbox.Wake();
  EXPECT_TRUE(SleepUntilWoken(mailbox));
  EXPECT_EQ(mailbox.Deliver(), 0u);
}

}  // namespace
}  // namespace dpa
