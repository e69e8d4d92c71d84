// Goal: an operator's list means the networks that its text says, and a slip in it is told with its remedy. Method:
// texts in, membership and error texts out.

#include "core/cidr.h"

#include <arpa/inet.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/un.h>

namespace dpa {
namespace {

using ::testing::HasSubstr;

IpAddress At(std::string_view text) { return text == "unix" ? IpAddress::Unix() : IpAddress::Parse(text).value(); }

CidrSet SetOf(std::initializer_list<std::string_view> networks) {
  CidrSet set;
  for (const std::string_view text : networks) {
    const auto network = Cidr::Parse(text);
    EXPECT_TRUE(network) << text << ": expected " << network.error();
    if (network) set.Add(*network);
  }
  return set;
}

std::string ErrorOf(std::string_view text) {
  const auto network = Cidr::Parse(text);
  EXPECT_FALSE(network) << text;
  return network ? "" : network.error();
}

TEST(IpAddress, IsWrittenInTheUsualForm) {
  EXPECT_EQ(At("192.0.2.1").ToString(), "192.0.2.1");
  EXPECT_EQ(At("2001:DB8:0:0:0:0:0:1").ToString(), "2001:db8::1");
  EXPECT_EQ(At("::").ToString(), "::");
  EXPECT_EQ(At("::ffff:192.0.2.1").ToString(), "192.0.2.1");
  EXPECT_EQ(At("::ffff:c000:201"), At("192.0.2.1"));
  EXPECT_EQ(IpAddress().ToString(), "");
  const std::string longest = "1111:2222:3333:4444:5555:6666:7777:8888";
  EXPECT_EQ(At(longest).ToString(), longest);
}

TEST(IpAddress, IsNothingButAnAddress) {
  for (const std::string_view text :
       {"", "1", "1.2.3", "1.2.3.4.5", "1.2.3.256", "01.2.3.4", "0x7f.0.0.1", " 1.2.3.4", "1.2.3.4 ", "1.2.3.4:80",
        "[::1]", "::1%lo", ":::", "1:2:3:4:5:6:7", "1:2:3:4:5:6:7:8:9", "12345::", "localhost",
        "1111:2222:3333:4444:5555:6666:7777:8888:9999:aaaa"}) {
    EXPECT_FALSE(IpAddress::Parse(text)) << text;
  }
  EXPECT_FALSE(IpAddress::Parse(std::string_view("1.2.3.4\0", 8)));
}

TEST(IpAddress, IsThatOfThePeersSocket) {
  sockaddr_in four{.sin_family = AF_INET, .sin_port = htons(80), .sin_addr = {htonl(0xC0000201)}, .sin_zero = {}};
  EXPECT_EQ(IpAddress::FromSocketAddress(reinterpret_cast<sockaddr*>(&four), sizeof four), At("192.0.2.1"));
  sockaddr_in6 six{};
  six.sin6_family = AF_INET6;
  inet_pton(AF_INET6, "::ffff:192.0.2.1", &six.sin6_addr);
  EXPECT_EQ(IpAddress::FromSocketAddress(reinterpret_cast<sockaddr*>(&six), sizeof six), At("192.0.2.1"));
  inet_pton(AF_INET6, "2001:db8::1", &six.sin6_addr);
  EXPECT_EQ(IpAddress::FromSocketAddress(reinterpret_cast<sockaddr*>(&six), sizeof six), At("2001:db8::1"));
  sockaddr_un local{};
  local.sun_family = AF_UNIX;
  EXPECT_EQ(IpAddress::FromSocketAddress(reinterpret_cast<sockaddr*>(&local), 2), At("unix"));
  EXPECT_EQ(IpAddress::FromSocketAddress(reinterpret_cast<sockaddr*>(&four), 1), IpAddress());
}

TEST(Cidr, HoldsItsNetworkAndNothingBeside) {
  const CidrSet set = SetOf({"192.0.2.0/24", "10.0.0.0/8", "2001:db8::/32", "203.0.113.7", "2001:db9::1"});
  for (const std::string_view in :
       {"192.0.2.0", "192.0.2.255", "10.0.0.0", "10.255.255.255",
        "2001:db8::", "2001:db8:ffff:ffff:ffff:ffff:ffff:ffff", "203.0.113.7", "2001:db9::1", "::ffff:192.0.2.9"}) {
    EXPECT_TRUE(set.Contains(At(in))) << in;
  }
  for (const std::string_view out : {"192.0.1.255", "192.0.3.0", "9.255.255.255", "11.0.0.0", "2001:db7:ffff::",
                                     "2001:db9::", "2001:db9::2", "203.0.113.6", "203.0.113.8", "::", "unix"}) {
    EXPECT_FALSE(set.Contains(At(out))) << out;
  }
  EXPECT_FALSE(set.Contains(IpAddress()));
}

TEST(Cidr, KeepsTheFamiliesApart) {
  const CidrSet four = SetOf({"0.0.0.0/0"});
  EXPECT_TRUE(four.Contains(At("0.0.0.0")));
  EXPECT_TRUE(four.Contains(At("255.255.255.255")));
  EXPECT_TRUE(four.Contains(At("::ffff:1.2.3.4")));
  EXPECT_FALSE(four.Contains(At("::")));
  EXPECT_FALSE(four.Contains(At("unix")));
  const CidrSet six = SetOf({"::/0"});
  EXPECT_TRUE(six.Contains(At("::")));
  EXPECT_TRUE(six.Contains(At("ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff")));
  EXPECT_FALSE(six.Contains(At("1.2.3.4")));
  const CidrSet local = SetOf({"unix"});
  EXPECT_TRUE(local.Contains(At("unix")));
  EXPECT_FALSE(local.Contains(At("127.0.0.1")));
  EXPECT_FALSE(local.Contains(IpAddress()));
  EXPECT_FALSE(CidrSet().Contains(At("127.0.0.1")));
}

TEST(Cidr, OfTheFullLengthIsOneAddress) {
  const CidrSet set = SetOf({"192.0.2.1/32", "2001:db8::1/128"});
  EXPECT_TRUE(set.Contains(At("192.0.2.1")));
  EXPECT_FALSE(set.Contains(At("192.0.2.0")));
  EXPECT_FALSE(set.Contains(At("192.0.2.2")));
  EXPECT_TRUE(set.Contains(At("2001:db8::1")));
  EXPECT_FALSE(set.Contains(At("2001:db8::")));
  EXPECT_FALSE(set.Contains(At("2001:db8::2")));
}

TEST(Cidr, OfMappedAddressesIsTheIpv4Network) {
  const CidrSet set = SetOf({"::ffff:192.0.2.0/120"});
  EXPECT_TRUE(set.Contains(At("192.0.2.77")));
  EXPECT_FALSE(set.Contains(At("192.0.3.0")));
  EXPECT_TRUE(SetOf({"::ffff:0:0/96"}).Contains(At("192.0.2.77")));
  EXPECT_EQ(ErrorOf("::ffff:192.0.2.0/95"), "a prefix length from 96 to 128 after the slash");
}

TEST(Cidr, WithHostBitsIsRefusedAndTheNetworkNamed) {
  EXPECT_EQ(ErrorOf("10.1.2.3/8"), "10.0.0.0/8, the network that 10.1.2.3 is in");
  EXPECT_EQ(ErrorOf("192.0.2.1/0"), "0.0.0.0/0, the network that 192.0.2.1 is in");
  EXPECT_EQ(ErrorOf("2001:db8::1/32"), "2001:db8::/32, the network that 2001:db8::1 is in");
  EXPECT_EQ(ErrorOf("::ffff:10.1.2.3/104"), "10.0.0.0/8, the network that 10.1.2.3 is in");
}

TEST(Cidr, ThatIsNoneIsRefused) {
  for (const std::string_view text : {"", "/", "/8", "unix/0", "UNIX", "localhost", "10.0.0/8", "10.0.0.0.0/8", "*",
                                      "10.0.0.0-10.0.0.9", " 10.0.0.0/8"}) {
    EXPECT_THAT(ErrorOf(text), HasSubstr("192.0.2.0/24")) << text;
  }
  for (const std::string_view text : {"10.0.0.0/", "10.0.0.0/33", "10.0.0.0/-1", "10.0.0.0/+8", "10.0.0.0/08",
                                      "10.0.0.0/8 ", "10.0.0.0/8/8", "10.0.0.0/255.0.0.0", "10.0.0.0/99999999999"}) {
    EXPECT_EQ(ErrorOf(text), "a prefix length from 0 to 32 after the slash") << text;
  }
  EXPECT_EQ(ErrorOf("2001:db8::/129"), "a prefix length from 0 to 128 after the slash");
}

TEST(CidrSet, JoinsWhatOverlapsWhateverTheOrder) {
  const CidrSet set = SetOf({"10.2.0.0/16", "10.0.0.0/8", "10.1.0.0/16", "9.0.0.0/8", "10.255.255.255"});
  EXPECT_EQ(set.ranges_count(), 2u);
  EXPECT_TRUE(set.Contains(At("10.200.0.1")));
  EXPECT_TRUE(set.Contains(At("9.1.1.1")));
  EXPECT_FALSE(set.Contains(At("11.0.0.0")));
}

TEST(CidrSet, AnswersAsALookAtEveryNetworkWould) {
  // 256 networks of mixed lengths against a few thousand addresses around their edges.
  std::vector<Cidr> networks;
  CidrSet set;
  uint32_t seed = 1;
  const auto next = [&seed] { return seed = seed * 1664525u + 1013904223u; };
  const auto address_of = [](uint32_t number) {
    const uint32_t network_order = htonl(number);
    return IpAddress::FromIpv4(&network_order);
  };
  for (int i = 0; i < 256; ++i) {
    const uint32_t bits = 8 + next() % 25;
    const IpAddress address = address_of(next());
    networks.push_back({address.FirstOfNetwork(bits), address.LastOfNetwork(bits)});
    set.Add(networks.back());
  }
  for (int i = 0; i < 20000; ++i) {
    const IpAddress address = address_of(next());
    bool expected = false;
    for (const Cidr& network : networks) expected |= network.first <= address && address <= network.last;
    ASSERT_EQ(set.Contains(address), expected) << address.ToString();
  }
  for (const Cidr& network : networks) {
    EXPECT_TRUE(set.Contains(network.first));
    EXPECT_TRUE(set.Contains(network.last));
  }
}

}  // namespace
}  // namespace dpa
