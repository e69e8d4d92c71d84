#include "core/ip_address.h"

#include <arpa/inet.h>
#include <netinet/in.h>

#include <bit>
#include <cstring>

#include "core/assert.h"

namespace dpa {
namespace {

template <class Number>
Number LoadBigEndian(const void* bytes) {
  Number number;
  std::memcpy(&number, bytes, sizeof number);
  return std::endian::native == std::endian::little ? std::byteswap(number) : number;
}

template <class Number>
void StoreBigEndian(Number number, void* bytes) {
  if (std::endian::native == std::endian::little) number = std::byteswap(number);
  std::memcpy(bytes, &number, sizeof number);
}

// The `count` highest of 64 bits.
constexpr uint64_t HighBits(uint32_t count) { return count == 0 ? 0 : ~uint64_t{0} << (64 - count); }

struct Mask {
  uint64_t high;
  uint64_t low;
};

Mask NetworkMask(const IpAddress& address, uint32_t prefix_bits) {
  DPA_ASSERT(prefix_bits <= address.bits_count());
  const uint32_t bits = prefix_bits + 128 - address.bits_count();  // An IPv4 address is the last 32 of 128 bits.
  return {HighBits(bits < 64 ? bits : 64), HighBits(bits < 64 ? 0 : bits - 64)};
}

}  // namespace

IpAddress IpAddress::FromIpv4(const void* bytes) { return {Kind::kIpv4, 0, LoadBigEndian<uint32_t>(bytes)}; }

IpAddress IpAddress::FromIpv6(const void* bytes) {
  const auto high = LoadBigEndian<uint64_t>(bytes);
  const auto low = LoadBigEndian<uint64_t>(static_cast<const char*>(bytes) + 8);
  if (high == 0 && low >> 32 == 0xFFFF) return {Kind::kIpv4, 0, low & 0xFFFFFFFF};  // RFC 4291 §2.5.5.2.
  return {Kind::kIpv6, high, low};
}

IpAddress IpAddress::FromSocketAddress(const sockaddr* address, socklen_t address_bytes) {
  if (address_bytes < sizeof address->sa_family) return {};
  if (address->sa_family == AF_UNIX) return Unix();
  if (address->sa_family == AF_INET && address_bytes >= sizeof(sockaddr_in)) {
    return FromIpv4(&reinterpret_cast<const sockaddr_in*>(address)->sin_addr);
  }
  if (address->sa_family == AF_INET6 && address_bytes >= sizeof(sockaddr_in6)) {
    return FromIpv6(&reinterpret_cast<const sockaddr_in6*>(address)->sin6_addr);
  }
  return {};
}

std::optional<IpAddress> IpAddress::Parse(std::string_view text) {
  char terminated[kTextBytesMax + 1];
  if (text.empty() || text.size() >= sizeof terminated || text.find('\0') != std::string_view::npos)
    return std::nullopt;
  std::memcpy(terminated, text.data(), text.size());
  terminated[text.size()] = '\0';
  unsigned char bytes[16];
  if (inet_pton(AF_INET, terminated, bytes) == 1) return FromIpv4(bytes);
  if (inet_pton(AF_INET6, terminated, bytes) == 1) return FromIpv6(bytes);
  return std::nullopt;
}

IpAddress IpAddress::FirstOfNetwork(uint32_t prefix_bits) const {
  const Mask mask = NetworkMask(*this, prefix_bits);
  return {kind_, high_ & mask.high, low_ & mask.low};
}

IpAddress IpAddress::LastOfNetwork(uint32_t prefix_bits) const {
  const Mask mask = NetworkMask(*this, prefix_bits);
  return {kind_, high_ | ~mask.high, low_ | ~mask.low};
}

size_t IpAddress::Write(char* out) const {
  if (!is_ip()) return 0;
  char text[kTextBytesMax + 1];
  unsigned char bytes[16];
  if (kind_ == Kind::kIpv4) {
    StoreBigEndian(static_cast<uint32_t>(low_), bytes);
    inet_ntop(AF_INET, bytes, text, sizeof text);
  } else {
    StoreBigEndian(high_, bytes);
    StoreBigEndian(low_, bytes + 8);
    inet_ntop(AF_INET6, bytes, text, sizeof text);
  }
  const size_t size = std::strlen(text);
  std::memcpy(out, text, size);
  return size;
}

std::string IpAddress::ToString() const {
  if (kind_ == Kind::kUnix) return "unix";
  char text[kTextBytesMax];
  return std::string(text, Write(text));
}

}  // namespace dpa
