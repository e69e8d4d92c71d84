#include "core/cidr.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>

namespace dpa {
namespace {

constexpr std::string_view kForms =
    "an address such as 192.0.2.1, a network such as 192.0.2.0/24 or 2001:db8::/32, or unix";

// Digits only, without leading zeros; -1 otherwise.
int ParsePrefix(std::string_view digits) {
  int bits = -1;
  const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), bits);
  const bool whole = error == std::errc() && end == digits.data() + digits.size();
  return whole && bits >= 0 && digits.front() != '-' && (digits.size() == 1 || digits.front() != '0') ? bits : -1;
}

}  // namespace

std::expected<Cidr, std::string> Cidr::Parse(std::string_view text) {
  if (text == "unix") return Cidr{IpAddress::Unix(), IpAddress::Unix()};
  const size_t slash = text.find('/');
  const std::string_view host = text.substr(0, slash);
  const std::optional<IpAddress> address = IpAddress::Parse(host);
  if (!address) return std::unexpected(std::string(kForms));
  if (slash == std::string_view::npos) return Cidr{*address, *address};
  // A mapped address is written with 128 bits, of which the first 96 say that it is one.
  const bool mapped = address->kind() == IpAddress::Kind::kIpv4 && host.find(':') != std::string_view::npos;
  const int least = mapped ? 96 : 0;
  const int most = mapped ? 128 : static_cast<int>(address->bits_count());
  const int bits = ParsePrefix(text.substr(slash + 1));
  if (bits < least || bits > most) {
    return std::unexpected(fmt::format("a prefix length from {} to {} after the slash", least, most));
  }
  const auto prefix_bits = static_cast<uint32_t>(bits - least);
  const Cidr network{address->FirstOfNetwork(prefix_bits), address->LastOfNetwork(prefix_bits)};
  if (network.first != *address) {
    return std::unexpected(
        fmt::format("{}/{}, the network that {} is in", network.first.ToString(), prefix_bits, address->ToString()));
  }
  return network;
}

void CidrSet::Add(const Cidr& network) {
  ranges_.push_back(network);
  std::sort(ranges_.begin(), ranges_.end(), [](const Cidr& a, const Cidr& b) { return a.first < b.first; });
  size_t kept = 0;
  for (size_t i = 1; i < ranges_.size(); ++i) {
    if (ranges_[i].first <= ranges_[kept].last) {
      ranges_[kept].last = std::max(ranges_[kept].last, ranges_[i].last);
    } else {
      ranges_[++kept] = ranges_[i];
    }
  }
  ranges_.resize(kept + 1);
}

bool CidrSet::Contains(const IpAddress& address) const {
  const auto above = std::upper_bound(ranges_.begin(), ranges_.end(), address,
                                      [](const IpAddress& a, const Cidr& range) { return a < range.first; });
  return above != ranges_.begin() && address <= std::prev(above)->last;
}

}  // namespace dpa
