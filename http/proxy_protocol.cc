#include "http/proxy_protocol.h"

#include <algorithm>
#include <array>
#include <charconv>

namespace dpa {
namespace {

constexpr std::string_view kLinePrefix = "PROXY ";
constexpr std::string_view kSignature("\r\n\r\n\0\r\nQUIT\n", 12);
constexpr size_t kFixedBytes = 16;
constexpr uint8_t kTlvCrc32c = 0x03;

constexpr ProxyHeader kNeedMore;

ProxyHeader Invalid(ProxyViolation violation) {
  return {.state = ProxyHeader::State::kInvalid, .violation = violation};
}

ProxyHeader Complete(size_t size) { return {.state = ProxyHeader::State::kComplete, .size = size}; }

uint8_t ByteAt(std::string_view bytes, size_t index) { return static_cast<uint8_t>(bytes[index]); }

uint16_t Load16(std::string_view bytes, size_t index) {
  return static_cast<uint16_t>(ByteAt(bytes, index) << 8 | ByteAt(bytes, index + 1));
}

// `so_far` and `expected` agree as far as both go.
bool MayBecome(std::string_view so_far, std::string_view expected) {
  const size_t count = std::min(so_far.size(), expected.size());
  return so_far.substr(0, count) == expected.substr(0, count);
}

// --- Version 1 ---

// Up to the next space, which is taken off, too. One space exactly stands between two words.
std::string_view NextWord(std::string_view& line) {
  const size_t space = line.find(' ');
  const std::string_view word = line.substr(0, space);
  line = space == std::string_view::npos ? std::string_view() : line.substr(space + 1);
  return word;
}

// Decimal, 0 to 65535, without leading zeros.
bool ParsePort(std::string_view text, uint16_t& port) {
  if (text.empty() || (text.size() > 1 && text.front() == '0')) return false;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), port);
  return error == std::errc() && end == text.data() + text.size();
}

// A dotted address is TCP4's and one with colons is TCP6's, whatever number it stands for.
bool ParseLineAddress(std::string_view text, bool six, IpAddress& address) {
  const std::optional<IpAddress> parsed = IpAddress::Parse(text);
  if (!parsed || (text.find(':') != std::string_view::npos) != six) return false;
  address = *parsed;
  return true;
}

// `line` is what stands between "PROXY " and CRLF.
ProxyHeader ParseLine(std::string_view line, size_t size) {
  const std::string_view family = NextWord(line);
  // Whatever an UNKNOWN says behind the word is to be ignored.
  if (family == "UNKNOWN") return Complete(size);
  if (family != "TCP4" && family != "TCP6") return Invalid(ProxyViolation::kLineMalformed);
  if (std::count(line.begin(), line.end(), ' ') != 3) return Invalid(ProxyViolation::kLineMalformed);
  ProxyHeader header = Complete(size);
  header.has_source = true;
  const bool six = family == "TCP6";
  IpAddress destination;
  uint16_t destination_port = 0;
  const bool addresses =
      ParseLineAddress(NextWord(line), six, header.source) && ParseLineAddress(NextWord(line), six, destination);
  if (!addresses || !ParsePort(NextWord(line), header.source_port) || !ParsePort(line, destination_port)) {
    return Invalid(ProxyViolation::kAddressInvalid);
  }
  return header;
}

ProxyHeader ParseVersion1(std::string_view so_far) {
  const std::string_view line = so_far.substr(0, kProxyLineBytesMax);
  const size_t cr = line.find('\r');
  if (cr == std::string_view::npos) {
    return line.size() == kProxyLineBytesMax ? Invalid(ProxyViolation::kLineMalformed) : kNeedMore;
  }
  if (cr < kLinePrefix.size()) return Invalid(ProxyViolation::kLineMalformed);
  if (cr + 1 == so_far.size() && cr + 1 < kProxyLineBytesMax) return kNeedMore;
  if (cr + 1 >= line.size() || line[cr + 1] != '\n') return Invalid(ProxyViolation::kLineMalformed);
  return ParseLine(line.substr(kLinePrefix.size(), cr - kLinePrefix.size()), cr + 2);
}

// --- Version 2 ---

// Bytes that the addresses of the family take; -1 for families that there are not.
int AddressBytes(uint8_t family) {
  switch (family) {
    case 0x00:
      return 0;
    case 0x11:  // TCP, and UDP for clients that came by QUIC.
    case 0x12:
      return 12;
    case 0x21:
    case 0x22:
      return 36;
    case 0x31:
    case 0x32:
      return 216;
    default:
      return -1;
  }
}

// §2.2.3: the checksum covers the header with its own four bytes taken as zero.
bool ChecksumMatches(std::string_view header, size_t checksum_at) {
  constexpr std::string_view kZeros("\0\0\0\0", 4);
  uint32_t crc = Crc32c(0, header.substr(0, checksum_at));
  crc = Crc32c(crc, kZeros);
  crc = Crc32c(crc, header.substr(checksum_at + 4));
  return crc == (uint32_t{Load16(header, checksum_at)} << 16 | Load16(header, checksum_at + 2));
}

ProxyViolation CheckTlvs(std::string_view header, size_t at) {
  while (at < header.size()) {
    if (header.size() - at < 3) return ProxyViolation::kTlvMalformed;
    const uint8_t type = ByteAt(header, at);
    const size_t length = Load16(header, at + 1);
    at += 3;
    if (length > header.size() - at) return ProxyViolation::kTlvMalformed;
    if (type == kTlvCrc32c) {
      if (length != 4) return ProxyViolation::kTlvMalformed;
      if (!ChecksumMatches(header, at)) return ProxyViolation::kChecksumInvalid;
    }
    at += length;
  }
  return ProxyViolation::kNone;
}

void TakeSource(std::string_view header, uint8_t family, ProxyHeader& parsed) {
  const char* addresses = header.data() + kFixedBytes;
  parsed.has_source = true;
  if (family >> 4 == 1) {
    parsed.source = IpAddress::FromIpv4(addresses);
    parsed.source_port = Load16(header, kFixedBytes + 8);
  } else if (family >> 4 == 2) {
    parsed.source = IpAddress::FromIpv6(addresses);
    parsed.source_port = Load16(header, kFixedBytes + 32);
  }
}

ProxyHeader ParseVersion2(std::string_view so_far) {
  // Each byte is judged as soon as it is there.
  if (so_far.size() <= 12) return kNeedMore;
  const uint8_t version_and_command = ByteAt(so_far, 12);
  if (version_and_command != 0x20 && version_and_command != 0x21) return Invalid(ProxyViolation::kVersionUnknown);
  const bool local = version_and_command == 0x20;
  if (so_far.size() <= 13) return kNeedMore;
  const uint8_t family = ByteAt(so_far, 13);
  const int address_bytes = local ? 0 : AddressBytes(family);  // LOCAL: "discard the protocol block", family included.
  if (address_bytes < 0) return Invalid(ProxyViolation::kFamilyUnknown);
  if (so_far.size() < kFixedBytes) return kNeedMore;
  const size_t size = kFixedBytes + Load16(so_far, 14);
  if (size > kProxyHeaderBytesMax || size < kFixedBytes + static_cast<size_t>(address_bytes)) {
    return Invalid(ProxyViolation::kLengthInvalid);
  }
  if (so_far.size() < size) return kNeedMore;
  ProxyHeader parsed = Complete(size);
  if (address_bytes == 0) return parsed;
  const std::string_view header = so_far.substr(0, size);
  const ProxyViolation violation = CheckTlvs(header, kFixedBytes + static_cast<size_t>(address_bytes));
  if (violation != ProxyViolation::kNone) return Invalid(violation);
  TakeSource(header, family, parsed);
  return parsed;
}

}  // namespace

ProxyHeader ParseProxyHeader(std::string_view so_far) {
  if (so_far.empty()) return kNeedMore;
  if (MayBecome(so_far, kLinePrefix)) return ParseVersion1(so_far);
  if (MayBecome(so_far, kSignature)) return ParseVersion2(so_far);
  return Invalid(ProxyViolation::kNotAHeader);
}

std::string_view ToString(ProxyViolation violation) {
  switch (violation) {
    case ProxyViolation::kNone:
      return "none";
    case ProxyViolation::kNotAHeader:
      return "not_a_header";
    case ProxyViolation::kLineMalformed:
      return "line_malformed";
    case ProxyViolation::kAddressInvalid:
      return "address_invalid";
    case ProxyViolation::kVersionUnknown:
      return "version_unknown";
    case ProxyViolation::kFamilyUnknown:
      return "family_unknown";
    case ProxyViolation::kLengthInvalid:
      return "length_invalid";
    case ProxyViolation::kTlvMalformed:
      return "tlv_malformed";
    case ProxyViolation::kChecksumInvalid:
      return "checksum_invalid";
  }
  return "unknown";
}

// --- CRC32C ---

namespace {

consteval std::array<uint32_t, 256> MakeCrcTable() {
  std::array<uint32_t, 256> table{};
  for (uint32_t byte = 0; byte < 256; ++byte) {
    uint32_t crc = byte;
    for (int bit = 0; bit < 8; ++bit) crc = crc >> 1 ^ (crc & 1 ? 0x82F63B78u : 0);
    table[byte] = crc;
  }
  return table;
}
constexpr std::array<uint32_t, 256> kCrcTable = MakeCrcTable();

}  // namespace

uint32_t Crc32c(uint32_t crc, std::string_view bytes) {
  crc = ~crc;
  for (const char byte : bytes) crc = kCrcTable[(crc ^ static_cast<uint8_t>(byte)) & 0xFF] ^ crc >> 8;
  return ~crc;
}

}  // namespace dpa
