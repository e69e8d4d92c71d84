// IpAddress is who a peer is, without a port: an IPv4 or IPv6 address, "somebody on a unix socket", or nobody known.
//
// A small value that compares fast, for deciding whom to believe; core/address.h is where to connect. An IPv4-mapped
// IPv6 address (::ffff:192.0.2.1, what a dual-stack listener reports) is the IPv4 address, so that a peer is the same
// one whichever listener it came to.

#pragma once

#include <sys/socket.h>

#include <compare>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace dpa {

class IpAddress {
 public:
  enum class Kind : uint8_t { kNone, kUnix, kIpv4, kIpv6 };
  static constexpr size_t kTextBytesMax = 45;

  constexpr IpAddress() = default;
  static constexpr IpAddress Unix() { return {Kind::kUnix, 0, 0}; }
  // 4 and 16 bytes in network order.
  static IpAddress FromIpv4(const void* bytes);
  static IpAddress FromIpv6(const void* bytes);
  // kNone for other families.
  static IpAddress FromSocketAddress(const sockaddr* address, socklen_t address_bytes);
  // "192.0.2.1" or "2001:db8::1": nothing around it, no zone, no port, no octal or short forms.
  static std::optional<IpAddress> Parse(std::string_view text);

  Kind kind() const { return kind_; }
  bool is_ip() const { return kind_ == Kind::kIpv4 || kind_ == Kind::kIpv6; }
  // 32 or 128; 0 without an address.
  uint32_t bits_count() const { return kind_ == Kind::kIpv4 ? 32 : kind_ == Kind::kIpv6 ? 128 : 0; }

  // The first and the last address of its network of `prefix_bits`. REQUIRES: prefix_bits <= bits_count().
  IpAddress FirstOfNetwork(uint32_t prefix_bits) const;
  IpAddress LastOfNetwork(uint32_t prefix_bits) const;

  // The usual text (RFC 5952) into `out`, which has room for kTextBytesMax. The count of bytes; 0 if not an IP address.
  size_t Write(char* out) const;
  std::string ToString() const;

  // By kind, then by number: each network is one run.
  friend constexpr auto operator<=>(const IpAddress&, const IpAddress&) = default;

 private:
  constexpr IpAddress(Kind kind, uint64_t high, uint64_t low) : kind_(kind), high_(high), low_(low) {}

  Kind kind_ = Kind::kNone;
  uint64_t high_ = 0;  // IPv6: the first half. IPv4: 0.
  uint64_t low_ = 0;   // IPv4: the whole number.
};

}  // namespace dpa
