#include "grpc_bridge/handshake.h"

#include <fmt/format.h>

#include <charconv>
#include <cstdint>
#include <vector>

#include "core/log.h"
#include "grpc_bridge/plugin_log.h"

namespace dpa {
namespace {

constexpr size_t kQuoteBytesMax = 120;
// sizeof(sockaddr_un::sun_path) less the closing zero.
constexpr size_t kSocketPathBytesMax = 107;
// go-plugin takes a sixth field of up to this length for something other than a certificate.
constexpr size_t kNoCertificateBytesMax = 50;

std::string Shown(std::string_view text) {
  if (text.size() <= kQuoteBytesMax) return Quoted(CleanText(text));
  return Quoted(CleanText(text.substr(0, kQuoteBytesMax)) + "…");
}

std::string_view Trim(std::string_view text) {
  constexpr std::string_view kSpace = " \t\r\n\v\f";
  const size_t first = text.find_first_not_of(kSpace);
  if (first == std::string_view::npos) return {};
  return text.substr(first, text.find_last_not_of(kSpace) - first + 1);
}

std::vector<std::string_view> Split(std::string_view line) {
  std::vector<std::string_view> fields;
  for (;;) {
    const size_t bar = line.find('|');
    fields.push_back(line.substr(0, bar));
    if (bar == std::string_view::npos) return fields;
    line.remove_prefix(bar + 1);
  }
}

bool IsPort(std::string_view text) {
  uint16_t port = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), port);
  return error == std::errc() && end == text.data() + text.size() && port != 0;
}

std::expected<Handshake, std::string> UnixAddress(std::string_view path) {
  if (!path.starts_with('/'))
    return std::unexpected(fmt::format("handshake names the socket {}, not an absolute path", Shown(path)));
  if (path.size() > kSocketPathBytesMax) {
    return std::unexpected(fmt::format("handshake names a socket path of {} bytes, above the system's limit of {}",
                                       path.size(), kSocketPathBytesMax));
  }
  return Handshake{fmt::format("unix:{}", path)};
}

// ":PORT", as a standalone plugin may say, means this host.
std::expected<Handshake, std::string> TcpAddress(std::string_view address) {
  const size_t colon = address.rfind(':');
  if (colon == std::string_view::npos || !IsPort(address.substr(colon + 1))) {
    return std::unexpected(fmt::format("handshake names the address {}, expected HOST:PORT", Shown(address)));
  }
  const std::string_view host = address.substr(0, colon);
  const bool any = host.empty() || host == "[::]" || host == "0.0.0.0";
  return Handshake{any ? fmt::format("127.0.0.1:{}", address.substr(colon + 1)) : std::string(address)};
}

}  // namespace

std::expected<Handshake, std::string> ParseHandshake(std::string_view line) {
  const std::string_view text = Trim(line);
  const std::vector<std::string_view> fields = Split(text);
  if (fields.size() < 4)
    return std::unexpected(fmt::format("first line on stdout is not a handshake: {}", Shown(text)));
  if (fields[0] != "1") {
    return std::unexpected(fmt::format("speaks go-plugin core protocol {}, only 1 is known", Shown(fields[0])));
  }
  if (fields[1] != "2")
    return std::unexpected(fmt::format("speaks plugin protocol {}, only 2 is known", Shown(fields[1])));
  const std::string_view protocol = fields.size() > 4 ? fields[4] : "netrpc";  // go-plugin's default.
  if (protocol != "grpc") return std::unexpected(fmt::format("speaks {} instead of grpc", Shown(protocol)));
  if (fields.size() > 5 && fields[5].size() > kNoCertificateBytesMax) {
    return std::unexpected(std::string("demands TLS, which was not asked for"));
  }
  if (fields[2] == "unix") return UnixAddress(fields[3]);
  if (fields[2] == "tcp") return TcpAddress(fields[3]);
  return std::unexpected(fmt::format("handshake names the network {}, expected unix or tcp", Shown(fields[2])));
}

HandshakeReader::State HandshakeReader::Feed(std::string_view bytes) {
  if (state_ != State::kWaiting) return state_;
  const size_t end = bytes.find('\n');
  line_.append(bytes.substr(0, end));
  if (line_.size() > kHandshakeBytesMax) {
    line_.resize(kHandshakeBytesMax);
    return state_ = State::kTooLong;
  }
  if (end != std::string_view::npos) state_ = State::kComplete;
  return state_;
}

}  // namespace dpa
