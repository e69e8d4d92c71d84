// Who the client is when a proxy of ours stands between: the chain of addresses that proxies write, read from its right
// end, where our own proxies are.
//
//     X-Forwarded-For: 203.0.113.9, 198.51.100.4, 10.0.0.2      the peer: 10.0.0.1
//                      anybody's    the client    trusted       trusted
//
// Every proxy appends the address of whoever it heard from, so from the right each element was written by the one after
// it. The first address that is not a trusted proxy's is the client; what stands left of it is hearsay. The same goes
// for Forwarded (RFC 7239), in its own words.
//
// Only one of the two families is believed (--forwarded-header): a proxy that looks after one of them usually lets a
// client's own version of the other through.
//
// Pure; nothing is allocated.

#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

#include "core/cidr.h"
#include "core/ip_address.h"
#include "http/message.h"

namespace dpa {

enum class ForwardedHeader : uint8_t {
  kXForwarded,  // X-Forwarded-For, -Proto, -Host and the like; Forwarded is removed.
  kForwarded,   // Forwarded; X-Forwarded-* are removed, and written anew from it.
};

// A chain is followed this far: longer ones are loops or malice.
inline constexpr int kForwardedHopsMax = 64;

struct ForwardedClient {
  IpAddress address;       // The peer's if the chain says nothing.
  std::string_view proto;  // Of Forwarded only: how that client came, "http" or "https"; empty if not said.
  std::string_view host;   // The same: what it asked for.
};

// The client of a request that the trusted `peer` has sent. A malformed element, `unknown` or an obfuscated name ends
// the chain: the client is then the last proxy that was named well.
ForwardedClient FindForwardedClient(std::span<const HeaderField> fields, ForwardedHeader header, const CidrSet& trusted,
                                    const IpAddress& peer);

// "192.0.2.1", "192.0.2.1:4711", "2001:db8::1", "[2001:db8::1]", "[2001:db8::1]:4711". kNone if it is none of these.
IpAddress ParseForwardedAddress(std::string_view text);

}  // namespace dpa
