// Goal: an address is what its text says, or an error that says what was expected. Method: tables.

#include "core/address.h"

#include <gtest/gtest.h>

#include <string>

namespace dpa {
namespace {

TEST(AddressTest, ReadsAndWritesEveryForm) {
  const struct {
    std::string_view text, written, host;
    uint16_t port;
    int family;
  } rows[] = {
      {"127.0.0.1:80", "127.0.0.1:80", "127.0.0.1", 80, AF_INET},
      {"0.0.0.0:0", "0.0.0.0:0", "0.0.0.0", 0, AF_INET},
      {":8080", "0.0.0.0:8080", "0.0.0.0", 8080, AF_INET},
      {"localhost:65535", "127.0.0.1:65535", "127.0.0.1", 65535, AF_INET},
      {"[::1]:443", "[::1]:443", "::1", 443, AF_INET6},
      {"[::]:1", "[::]:1", "::", 1, AF_INET6},
      {"[2001:db8::1]:80", "[2001:db8::1]:80", "2001:db8::1", 80, AF_INET6},
      {"unix:/run/a.sock", "unix:/run/a.sock", "", 0, AF_UNIX},
      {"unix:relative", "unix:relative", "", 0, AF_UNIX},
  };
  for (const auto& row : rows) {
    const auto address = Address::Parse(row.text);
    ASSERT_TRUE(address) << row.text << ": " << address.error();
    EXPECT_EQ(address->ToString(), row.written);
    EXPECT_EQ(address->host(), row.host);
    EXPECT_EQ(address->port(), row.port);
    EXPECT_EQ(address->family(), row.family);
    EXPECT_EQ(*address, *Address::Parse(row.written));
  }
}

TEST(AddressTest, RefusesWhatNobodyMeansAndSaysWhy) {
  using namespace std::string_view_literals;
  const std::string long_path = "unix:/" + std::string(200, 'a');
  const std::string_view rows[] = {"",
                                   ":",
                                   "80",
                                   "127.0.0.1",
                                   "127.0.0.1:",
                                   "127.0.0.1:x",
                                   "127.0.0.1:65536",
                                   "127.0.0.1:-1",
                                   "127.0.0.1:+1",
                                   "127.0.0.1: 80",
                                   "127.0.0.1:80 ",
                                   "1:80",
                                   "0x7f.1:80",
                                   "010.0.0.1:80",
                                   "127.1:80",
                                   "example.org:80",
                                   "::1:80",
                                   "[::1]",
                                   "[::1:80",
                                   "[]:80",
                                   "[127.0.0.1]:80",
                                   "[::g]:80",
                                   "unix:",
                                   long_path,
                                   "127.0.0.1\0x:80"sv,
                                   "unix:a\0b"sv,
                                   "unix:\0abstract"sv,
                                   "256.0.0.1:80"};
  for (const std::string_view row : rows) {
    const auto address = Address::Parse(row);
    ASSERT_FALSE(address) << row << " became " << address->ToString();
    EXPECT_GT(address.error().size(), 10u);
  }
}

TEST(AddressTest, DifferentPlacesAreDifferent) {
  EXPECT_FALSE(*Address::Parse("127.0.0.1:80") == *Address::Parse("127.0.0.1:81"));
  EXPECT_FALSE(*Address::Parse("127.0.0.1:80") == *Address::Parse("[::1]:80"));
  EXPECT_FALSE(*Address::Parse("unix:a") == *Address::Parse("unix:ab"));
  EXPECT_EQ(Address().ToString(), "(none)");
}

TEST(AddressTest, ResolveTakesLiteralsAndSaysWhatItCannotResolve) {
  EXPECT_EQ(Address::Resolve("127.0.0.1:80")->ToString(), "127.0.0.1:80");
  const auto address = Address::Resolve("no-such-host.invalid:80");
  ASSERT_FALSE(address);
  EXPECT_NE(address.error().find("no-such-host.invalid"), std::string::npos);
}

}  // namespace
}  // namespace dpa
