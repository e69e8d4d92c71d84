// Address is where to listen or connect: an IP address and port, or the path of a unix socket.

#pragma once

#include <sys/socket.h>
#include <sys/un.h>

#include <expected>
#include <string>
#include <string_view>
#include <vector>

namespace dpa {

class Address {
 public:
  Address() = default;
  Address(const sockaddr* address, socklen_t bytes);

  // "HOST:PORT", "[::1]:PORT", ":PORT" (all interfaces), "unix:PATH". HOST must be a literal address; names are for
  // Resolve.
  // The error is a sentence: what was expected.
  static std::expected<Address, std::string> Parse(std::string_view text);
  // As Parse, but HOST may be a name: asks the resolver, so it blocks. Not for a worker's thread. The first answer.
  static std::expected<Address, std::string> Resolve(std::string_view text);

  // All answers, as often and in the order that the resolver gives them. Blocks.
  static std::expected<std::vector<Address>, std::string> ResolveAll(std::string_view text);

  const sockaddr* get() const { return reinterpret_cast<const sockaddr*>(&storage_); }
  socklen_t bytes() const { return bytes_; }
  int family() const { return storage_.ss_family; }
  bool is_unix() const { return storage_.ss_family == AF_UNIX; }
  uint16_t port() const;          // 0 for unix.
  std::string unix_path() const;  // "" unless unix.
  // "127.0.0.1:80", "[::1]:80", "unix:/path".
  std::string ToString() const;
  // The host part alone ("127.0.0.1", "::1"), "" for unix. For X-Forwarded-For.
  std::string host() const;

  friend bool operator==(const Address& a, const Address& b);

 private:
  sockaddr_storage storage_{};
  socklen_t bytes_ = 0;
};

}  // namespace dpa
