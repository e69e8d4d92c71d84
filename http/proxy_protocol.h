// The PROXY protocol, versions 1 and 2 (HAProxy's proxy-protocol.txt): what a proxy in front says, ahead of the first
// byte of HTTP, about the connection that it relays.
//
//     1   PROXY TCP4 192.0.2.1 198.51.100.1 56324 443 CRLF    at most 107 bytes; also TCP6 and UNKNOWN
//     2   signature (12) · version and command · family · length (2) · addresses · TLVs
//
// Who sends one and who does not is known beforehand, by the peer's address (--proxy-protocol-from): a receiver that
// guessed would let every client choose its own address.
//
// Pure. A header may come in any number of pieces: call again with all bytes from the first on.

#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

#include "core/ip_address.h"

namespace dpa {

// Version 1 with its CRLF, §2.1.
inline constexpr size_t kProxyLineBytesMax = 107;
// Version 2, all of it. The length field allows 64 KiB; senders stay below an MSS, with TLS details below 2 KiB.
inline constexpr size_t kProxyHeaderBytesMax = 4096;

// Everything that makes a header invalid. The connection is closed then, and nothing of it is read as HTTP.
enum class ProxyViolation : uint8_t {
  kNone,
  kNotAHeader,       // Neither signature.
  kLineMalformed,    // Version 1: another form than above, or longer.
  kAddressInvalid,   // Version 1: not an address of the family, or not a port.
  kVersionUnknown,   // Version 2: another version, or a command other than LOCAL and PROXY.
  kFamilyUnknown,    // Version 2: a family or transport that it does not have.
  kLengthInvalid,    // Version 2: too short for the addresses, or over kProxyHeaderBytesMax.
  kTlvMalformed,     // Version 2: a TLV reaches beyond the header.
  kChecksumInvalid,  // Version 2: the CRC32C is not that of the header.
};
std::string_view ToString(ProxyViolation violation);

struct ProxyHeader {
  enum class State : uint8_t { kNeedMore, kComplete, kInvalid };
  State state = State::kNeedMore;
  ProxyViolation violation = ProxyViolation::kNone;
  size_t size = 0;  // When complete: bytes of the header. HTTP begins behind them.
  // The client's address and port. False: the sender speaks for itself (LOCAL: a health check) or does not know
  // (UNKNOWN, UNSPEC), and the connection's own peer is the client.
  bool has_source = false;
  IpAddress source;  // kNone for a client on a unix socket of the sender's: it is nobody that we know.
  uint16_t source_port = 0;
};

// Reads the header at the beginning of `so_far`. Work is linear in the header, however it is cut.
ProxyHeader ParseProxyHeader(std::string_view so_far);

// CRC32C (Castagnoli; RFC 4960 appendix B) of `bytes`, continued from `crc`, which is 0 to begin with.
uint32_t Crc32c(uint32_t crc, std::string_view bytes);

}  // namespace dpa
