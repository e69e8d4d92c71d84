// CidrSet is a list of networks, as operators write them, and the question whether an address is in one of them.
//
//     192.0.2.0/24   2001:db8::/32   192.0.2.1   2001:db8::1   unix (peers on unix sockets)
//
// Families are kept apart: ::/0 holds no IPv4 address, 0.0.0.0/0 holds no IPv6 one. An IPv4-mapped network
// (::ffff:192.0.2.0/120) is the IPv4 network.
//
// Inside they are ranges, sorted and joined where they touch, so a question is one binary search whatever the length of
// the list (published lists of edge networks have thousands). Immutable in use: fill it first, then share it.

#pragma once

#include <expected>
#include <string>
#include <string_view>
#include <vector>

#include "core/ip_address.h"

namespace dpa {

struct Cidr {
  IpAddress first;
  IpAddress last;

  // The error completes "expected …". Bits set beyond the prefix are an error that names the network: 10.1.2.3/8 is
  // either a slip in the address or one in the length, and the two mean very different sets.
  static std::expected<Cidr, std::string> Parse(std::string_view text);
};

class CidrSet {
 public:
  void Add(const Cidr& network);
  bool Contains(const IpAddress& address) const;
  bool empty() const { return ranges_.empty(); }
  size_t ranges_count() const { return ranges_.size(); }

 private:
  std::vector<Cidr> ranges_;  // By first; disjoint.
};

}  // namespace dpa
