// The URLs of upstreams: what an operator writes for a delegate (--delegate) or a manifest for a backend
// (spec.backend), and the addresses that it stands for.
//
//     http://HOST[:PORT][/prefix]    unix:PATH
//
// A name may stand for several addresses, and for others tomorrow; UpstreamDirectory holds what is known now.

#pragma once

#include <cstdint>
#include <expected>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "core/address.h"

namespace dpa {

// A URL taken apart, before anybody is asked for its address.
struct UpstreamName {
  std::string host_port;    // "HOST:PORT" or "unix:PATH": what Address takes. `localhost` is 127.0.0.1.
  std::string authority;    // host[:port] as written, for requests that came without Host.
  std::string path_prefix;  // "" or "/a/b": put before each request's path.
  bool literal = false;     // An IP address or a path: there is nothing to resolve.
};
// The error is a sentence.
std::expected<UpstreamName, std::string> ParseUpstreamName(std::string_view url);

// One address of a URL.
struct UpstreamUrl {
  Address address;
  std::string authority;
  std::string path_prefix;
};

enum class Names : uint8_t { kLiteral, kResolve };

// The first address. With kLiteral, HOST is an IP address or `localhost`; kResolve also asks the resolver, so it
// blocks: not for a worker's thread. The error is a sentence.
std::expected<UpstreamUrl, std::string> ParseUpstreamUrl(std::string_view url, Names names);

// What every known URL stands for at the moment. Immutable; published to the workers as a Snapshot.
struct UpstreamDirectory {
  std::map<std::string, std::vector<UpstreamUrl>, std::less<>> addresses;  // By URL; in the order of Address.
};

}  // namespace dpa
