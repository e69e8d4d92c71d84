// Goal: the client is whom our own proxies name, never whom a client names. Method: tables of fields and who is found.
// Trusted are 10.0.0.0/8 and 2001:db8:a::/48; the peer is 10.0.0.1.

#include "http/forwarded.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

namespace dpa {
namespace {

struct Chain {
  std::vector<std::string> values;  // One per field.
  std::string client;
};

ForwardedClient Find(const std::vector<std::string>& values, ForwardedHeader header) {
  CidrSet trusted;
  for (const std::string_view network : {"10.0.0.0/8", "2001:db8:a::/48"}) trusted.Add(*Cidr::Parse(network));
  std::vector<HeaderField> fields = {{"Host", "h"}};
  for (const std::string& value : values) {
    fields.push_back({header == ForwardedHeader::kForwarded ? "forwarded" : "x-forwarded-FOR", value});
    fields.push_back({"X-Other", "9.9.9.9"});
  }
  return FindForwardedClient(fields, header, trusted, *IpAddress::Parse("10.0.0.1"));
}

TEST(XForwardedFor, NamesTheRightmostAddressThatIsNoProxyOfOurs) {
  const Chain chains[] = {
      {{}, "10.0.0.1"},
      {{""}, "10.0.0.1"},
      {{"192.0.2.7"}, "192.0.2.7"},
      {{"203.0.113.9, 192.0.2.7"}, "192.0.2.7"},
      {{"203.0.113.9, 192.0.2.7, 10.0.0.2"}, "192.0.2.7"},
      {{"203.0.113.9", "192.0.2.7, 10.9.9.9", "10.0.0.2"}, "192.0.2.7"},
      {{"203.0.113.9,192.0.2.7\t ,  10.0.0.2"}, "192.0.2.7"},
      {{"192.0.2.7, , ,10.0.0.2,"}, "192.0.2.7"},
      {{"192.0.2.7, 2001:db8:a::5"}, "192.0.2.7"},
      {{"2001:db8:b::5, [2001:db8:a::5]:443"}, "2001:db8:b::5"},
      {{"192.0.2.7:5555"}, "192.0.2.7"},
      {{"[2001:db8:b::5]:1"}, "2001:db8:b::5"},
      {{"[2001:db8:b::5]"}, "2001:db8:b::5"},
      {{"::ffff:192.0.2.7"}, "192.0.2.7"},
      {{"10.0.0.3, 10.0.0.2"}, "10.0.0.3"},  // All ours: the one furthest away.
  };
  for (const Chain& chain : chains) {
    EXPECT_EQ(Find(chain.values, ForwardedHeader::kXForwarded).address.ToString(), chain.client)
        << testing::PrintToString(chain.values);
  }
}

TEST(XForwardedFor, EndsAtWhatIsNoAddress) {
  for (const std::string element :
       {"unknown", "-", "1.2.3", "01.2.3.4", "1.2.3.4:", "1.2.3.4:123456", "1.2.3.4:8a", "[::1", "[1.2.3.4]", "[]",
        "::1]", "\"192.0.2.9\"", "192.0.2.9 192.0.2.8", "localhost", "for=1.2.3.4", "[::1]x", "1.2.3.4%1"}) {
    const std::vector<std::string> at_the_end = {"192.0.2.7, " + element};
    const std::vector<std::string> behind_a_proxy = {"192.0.2.7, " + element + ", 10.0.0.2"};
    EXPECT_EQ(Find(at_the_end, ForwardedHeader::kXForwarded).address.ToString(), "10.0.0.1") << element;
    EXPECT_EQ(Find(behind_a_proxy, ForwardedHeader::kXForwarded).address.ToString(), "10.0.0.2") << element;
  }
}

TEST(XForwardedFor, IsFollowedOnlySoFar) {
  std::string loop = "192.0.2.7";
  for (int i = 0; i < 5000; ++i) loop += ",10.1.1.1";
  EXPECT_EQ(Find({loop}, ForwardedHeader::kXForwarded).address.ToString(), "10.1.1.1");
}

TEST(Forwarded, NamesTheRightmostAddressThatIsNoProxyOfOurs) {
  const Chain chains[] = {
      {{}, "10.0.0.1||"},
      {{"for=192.0.2.7"}, "192.0.2.7||"},
      {{"for=203.0.113.9, for=192.0.2.7;proto=https;by=10.0.0.2"}, "192.0.2.7|https|"},
      {{"for=192.0.2.7;proto=HTTPS;host=a.example, for=10.0.0.2;proto=http;host=b"}, "192.0.2.7|https|a.example"},
      {{"for=1.1.1.1", "FOR=\"192.0.2.7:80\";Host=\"a:8443\"", "for=10.0.0.2"}, "192.0.2.7||a:8443"},
      {{"for=\"[2001:db8:b::5]:4711\""}, "2001:db8:b::5||"},
      {{"for=192.0.2.7:80 ; proto = http"}, "192.0.2.7|http|"},
      {{"for=192.0.2.7;secret=\"a,b;c=\\\"d\\\"\", for=10.0.0.2"}, "10.0.0.2||"},  // Escapes: not read.
      {{"for=192.0.2.7;note=\"a, for=6.6.6.6\", for=10.0.0.2"}, "192.0.2.7||"},
      {{"for=192.0.2.7;;proto=http;"}, "192.0.2.7|http|"},
      {{"for=192.0.2.7;proto=gopher;host=\"a b\""}, "192.0.2.7||"},
      {{"proto=https;for=10.0.0.3, for=10.0.0.2"}, "10.0.0.3|https|"},
      // An open quote on the left, where clients write, does not swallow what our proxies have appended.
      {{"for=\"6.6.6.6, for=192.0.2.7"}, "192.0.2.7||"},
      {{"for=\"6.6.6.6", "for=192.0.2.7;proto=http"}, "192.0.2.7|http|"},
      {{"x=\"\\, for=192.0.2.7"}, "192.0.2.7||"},
  };
  for (const Chain& chain : chains) {
    const ForwardedClient found = Find(chain.values, ForwardedHeader::kForwarded);
    EXPECT_EQ(found.address.ToString() + "|" + std::string(found.proto) + "|" + std::string(found.host), chain.client)
        << testing::PrintToString(chain.values);
  }
}

TEST(Forwarded, EndsAtWhatCannotBeRead) {
  for (const std::string element :
       {"for=unknown", "for=_hidden", "proto=https", "for=\"192.0.2.9", "for", "=1.2.3.4", "for=", "for=\"\"",
        "f or=1.2.3.4", "for=192.0.2.9 x", "for=192.0.2.9;for=192.0.2.8", "for=\"192.0.2.9\"x", "for=2001:db8:b::5:x",
        "192.0.2.9"}) {
    const std::vector<std::string> values = {"for=192.0.2.7", element, "for=10.0.0.2"};
    EXPECT_EQ(Find(values, ForwardedHeader::kForwarded).address.ToString(), "10.0.0.2") << element;
  }
}

TEST(Forwarded, AndXForwardedForAreNotMixed) {
  const HeaderField fields[] = {{"X-Forwarded-For", "192.0.2.1"}, {"Forwarded", "for=192.0.2.2"}};
  CidrSet trusted;
  const IpAddress peer = *IpAddress::Parse("10.0.0.1");
  EXPECT_EQ(FindForwardedClient(fields, ForwardedHeader::kXForwarded, trusted, peer).address.ToString(), "192.0.2.1");
  EXPECT_EQ(FindForwardedClient(fields, ForwardedHeader::kForwarded, trusted, peer).address.ToString(), "192.0.2.2");
}

}  // namespace
}  // namespace dpa
