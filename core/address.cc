#include "core/address.h"

#include <arpa/inet.h>
#include <fmt/format.h>
#include <netdb.h>
#include <netinet/in.h>

#include <charconv>
#include <cstddef>
#include <cstring>

#include "core/assert.h"

namespace dpa {
namespace {

constexpr std::string_view kUnixPrefix = "unix:";

struct HostPort {
  std::string host;
  uint16_t port;
};

std::expected<HostPort, std::string> Split(std::string_view text) {
  const auto bad = [text](std::string_view why) {
    return std::unexpected(
        fmt::format("\"{}\" is not an address: {}; expected HOST:PORT, [IPV6]:PORT or unix:PATH", text, why));
  };
  const size_t colon = text.rfind(':');
  if (colon == std::string_view::npos) return bad("no port");
  std::string_view host = text.substr(0, colon);
  const std::string_view digits = text.substr(colon + 1);
  uint16_t port = 0;
  const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), port);
  if (error != std::errc() || end != digits.data() + digits.size()) return bad("the port is not a number up to 65535");
  if (host.find('\0') != std::string_view::npos) return bad("a NUL byte in the host");
  if (host.starts_with('[')) {
    if (!host.ends_with(']')) return bad("'[' without ']'");
    host = host.substr(1, host.size() - 2);
    if (host.find(':') == std::string_view::npos) return bad("brackets are for IPv6 addresses");
  } else if (host.find(':') != std::string_view::npos) {
    return bad("an IPv6 address needs brackets");
  }
  return HostPort{std::string(host), port};
}

std::expected<Address, std::string> UnixAddress(std::string_view path) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (path.empty()) return std::unexpected("unix: without a path");
  if (path.find('\0') != std::string_view::npos) return std::unexpected("unix: a NUL byte in the path");
  if (path.size() >= sizeof address.sun_path) {
    return std::unexpected(fmt::format("the socket path \"{}\" has {} bytes; the system takes at most {}", path,
                                       path.size(), sizeof address.sun_path - 1));
  }
  std::memcpy(address.sun_path, path.data(), path.size());
  const size_t bytes = offsetof(sockaddr_un, sun_path) + path.size() + 1;
  return Address(reinterpret_cast<const sockaddr*>(&address), static_cast<socklen_t>(bytes));
}

std::expected<std::vector<Address>, std::string> LookUpAll(const HostPort& host_port, std::string_view text,
                                                           bool literal_only) {
  addrinfo hints{};
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = AI_NUMERICSERV | (literal_only ? AI_NUMERICHOST : 0) | (host_port.host.empty() ? AI_PASSIVE : 0);
  if (host_port.host.empty()) hints.ai_family = AF_INET;
  addrinfo* found = nullptr;
  const std::string port = std::to_string(host_port.port);
  const char* host = host_port.host.empty() ? nullptr : host_port.host.c_str();
  const int failed = getaddrinfo(host, port.c_str(), &hints, &found);
  if (failed != 0) {
    return std::unexpected(literal_only ? fmt::format("\"{}\" does not name an IP address", text)
                                        : fmt::format("cannot resolve \"{}\": {}", text, gai_strerror(failed)));
  }
  std::vector<Address> addresses;
  for (const addrinfo* one = found; one != nullptr; one = one->ai_next) {
    addresses.emplace_back(one->ai_addr, one->ai_addrlen);
  }
  freeaddrinfo(found);
  return addresses;
}

std::expected<Address, std::string> LookUp(const HostPort& host_port, std::string_view text, bool literal_only) {
  const std::expected<std::vector<Address>, std::string> all = LookUpAll(host_port, text, literal_only);
  if (!all) return std::unexpected(all.error());
  return all->front();
}

}  // namespace

Address::Address(const sockaddr* address, socklen_t bytes) : bytes_(bytes) {
  DPA_ASSERT(bytes <= sizeof storage_);
  std::memcpy(&storage_, address, bytes);
}

std::expected<Address, std::string> Address::Parse(std::string_view text) {
  if (text.starts_with(kUnixPrefix)) return UnixAddress(text.substr(kUnixPrefix.size()));
  const std::expected<HostPort, std::string> split = Split(text);
  if (!split) return std::unexpected(split.error());
  if (split->host == "localhost") return LookUp(HostPort{"127.0.0.1", split->port}, text, true);
  // The resolver also takes "1", "0x7f.1" and octal digits for IPv4 addresses; nobody means them.
  in_addr four{};
  const bool is_ipv4 = split->host.empty() || inet_pton(AF_INET, split->host.c_str(), &four) == 1;
  if (!is_ipv4 && split->host.find(':') == std::string::npos) {
    return std::unexpected(fmt::format("\"{}\" does not name an IP address", text));
  }
  return LookUp(*split, text, true);
}

std::expected<Address, std::string> Address::Resolve(std::string_view text) {
  if (text.starts_with(kUnixPrefix)) return UnixAddress(text.substr(kUnixPrefix.size()));
  const std::expected<HostPort, std::string> split = Split(text);
  if (!split) return std::unexpected(split.error());
  return LookUp(*split, text, false);
}

std::expected<std::vector<Address>, std::string> Address::ResolveAll(std::string_view text) {
  if (text.starts_with(kUnixPrefix)) {
    const std::expected<Address, std::string> address = UnixAddress(text.substr(kUnixPrefix.size()));
    if (!address) return std::unexpected(address.error());
    return std::vector{*address};
  }
  const std::expected<HostPort, std::string> split = Split(text);
  if (!split) return std::unexpected(split.error());
  return LookUpAll(*split, text, false);
}

uint16_t Address::port() const {
  if (family() == AF_INET) return ntohs(reinterpret_cast<const sockaddr_in&>(storage_).sin_port);
  if (family() == AF_INET6) return ntohs(reinterpret_cast<const sockaddr_in6&>(storage_).sin6_port);
  return 0;
}

std::string Address::unix_path() const {
  if (!is_unix() || bytes_ <= offsetof(sockaddr_un, sun_path)) return {};
  return reinterpret_cast<const sockaddr_un&>(storage_).sun_path;
}

std::string Address::host() const {
  char text[INET6_ADDRSTRLEN] = "";
  if (family() == AF_INET) {
    inet_ntop(AF_INET, &reinterpret_cast<const sockaddr_in&>(storage_).sin_addr, text, sizeof text);
  } else if (family() == AF_INET6) {
    inet_ntop(AF_INET6, &reinterpret_cast<const sockaddr_in6&>(storage_).sin6_addr, text, sizeof text);
  }
  return text;
}

std::string Address::ToString() const {
  if (family() == AF_INET) return fmt::format("{}:{}", host(), port());
  if (family() == AF_INET6) return fmt::format("[{}]:{}", host(), port());
  if (is_unix()) return fmt::format("unix:{}", unix_path());
  return "(none)";
}

bool operator==(const Address& a, const Address& b) {
  return a.bytes_ == b.bytes_ && std::memcmp(&a.storage_, &b.storage_, a.bytes_) == 0;
}

}  // namespace dpa
