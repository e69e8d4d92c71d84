#include "tools/aggregator/option_values.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <set>
#include <utility>

namespace dpa {
namespace {

constexpr uint64_t kDurationMsMax = 30ull * 24 * 3600 * 1000;
constexpr uint64_t kBytesMax = 1ull << 40;
constexpr int kCpusMax = 4096;
constexpr size_t kUnixPathBytesMax = 107;  // sizeof(sockaddr_un::sun_path) less the final NUL.

// The number at the front of `text`, which is shortened by it.
std::optional<uint64_t> TakeNumber(std::string_view& text) {
  uint64_t number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (error != std::errc() || end == text.data()) return std::nullopt;
  text.remove_prefix(static_cast<size_t>(end - text.data()));
  return number;
}

std::optional<uint64_t> WholeNumber(std::string_view text) {
  const auto number = TakeNumber(text);
  return text.empty() ? number : std::nullopt;
}

bool IsPort(std::string_view text) {
  const auto port = WholeNumber(text);
  return port && *port <= 65535 && text.size() <= 5;
}

bool IsHostName(std::string_view text) {
  if (text.empty() || text.size() > 253) return false;
  return std::all_of(text.begin(), text.end(), [](unsigned char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '.' || c == '-' ||
           c == '_';
  });
}

bool IsIpv6(std::string_view text) {
  if (text.size() < 2 || std::count(text.begin(), text.end(), ':') < 2) return false;
  const auto zone = text.substr(0, text.find('%'));
  return std::all_of(zone.begin(), zone.end(), [](unsigned char c) {
    return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f') || (c >= 'A' && c <= 'F') || c == ':' || c == '.';
  });
}

bool IsUnixPath(std::string_view path) {
  return !path.empty() && path.size() <= kUnixPathBytesMax && path.find('\0') == std::string_view::npos;
}

// HOST:PORT into its halves, brackets of an IPv6 address included in the host; false if it is neither form.
bool SplitHostPort(std::string_view text, std::string_view& host, std::string_view& port) {
  const size_t colon = text.rfind(':');
  if (colon == std::string_view::npos) return false;
  host = text.substr(0, colon);
  port = text.substr(colon + 1);
  const bool bracketed = host.size() > 2 && host.front() == '[' && host.back() == ']';
  const bool host_ok = bracketed ? IsIpv6(host.substr(1, host.size() - 2)) : IsHostName(host);
  return host_ok && IsPort(port);
}

size_t EditDistance(std::string_view a, std::string_view b) {
  std::vector<size_t> row(b.size() + 1);
  for (size_t j = 0; j <= b.size(); ++j) row[j] = j;
  for (size_t i = 1; i <= a.size(); ++i) {
    size_t diagonal = std::exchange(row[0], i);
    for (size_t j = 1; j <= b.size(); ++j) {
      const size_t substituted = diagonal + (a[i - 1] != b[j - 1]);
      diagonal = row[j];
      row[j] = std::min({row[j] + 1, row[j - 1] + 1, substituted});
    }
  }
  return row.back();
}

}  // namespace

std::optional<std::chrono::milliseconds> ParseDuration(std::string_view text) {
  if (text == "0") return std::chrono::milliseconds(0);
  constexpr std::array<std::pair<std::string_view, uint64_t>, 4> kUnits{
      {{"h", 3'600'000}, {"m", 60'000}, {"s", 1'000}, {"ms", 1}}};
  uint64_t total_ms = 0;
  size_t units_used = 0;  // Units before this index are behind us: they come from large to small, each once.
  if (text.empty()) return std::nullopt;
  while (!text.empty()) {
    const auto number = TakeNumber(text);
    if (!number || *number > kDurationMsMax) return std::nullopt;
    const std::string_view unit = text.substr(0, std::min(text.find_first_of("0123456789"), text.size()));
    const auto* found = std::find_if(kUnits.begin() + units_used, kUnits.end(),
                                     [&](const auto& candidate) { return candidate.first == unit; });
    if (found == kUnits.end()) return std::nullopt;
    units_used = static_cast<size_t>(found - kUnits.begin()) + 1;
    total_ms += *number * found->second;
    if (total_ms > kDurationMsMax) return std::nullopt;
    text.remove_prefix(unit.size());
  }
  return std::chrono::milliseconds(total_ms);
}

std::optional<uint64_t> ParseBytes(std::string_view text) {
  const auto number = TakeNumber(text);
  if (!number || *number > kBytesMax) return std::nullopt;
  int shift = -1;
  if (text.empty() || text == "B") shift = 0;
  if (text == "KiB") shift = 10;
  if (text == "MiB") shift = 20;
  if (text == "GiB") shift = 30;
  if (shift < 0 || *number > (kBytesMax >> shift)) return std::nullopt;
  return *number << shift;
}

std::optional<uint32_t> ParseCount(std::string_view text) {
  const auto number = WholeNumber(text);
  if (!number || *number > 1'000'000'000) return std::nullopt;
  return static_cast<uint32_t>(*number);
}

std::optional<std::vector<int>> ParseCpuList(std::string_view text) {
  std::set<int> cpus;
  while (true) {
    const auto first = TakeNumber(text);
    if (!first || *first >= kCpusMax) return std::nullopt;
    uint64_t last = *first;
    if (!text.empty() && text.front() == '-') {
      text.remove_prefix(1);
      const auto end = TakeNumber(text);
      if (!end || *end < *first || *end >= kCpusMax) return std::nullopt;
      last = *end;
    }
    for (uint64_t cpu = *first; cpu <= last; ++cpu) cpus.insert(static_cast<int>(cpu));
    if (text.empty()) return std::vector<int>(cpus.begin(), cpus.end());
    if (text.front() != ',') return std::nullopt;
    text.remove_prefix(1);
  }
}

std::optional<bool> ParseBool(std::string_view text) {
  if (text == "true" || text == "1" || text == "yes" || text == "on") return true;
  if (text == "false" || text == "0" || text == "no" || text == "off") return false;
  return std::nullopt;
}

bool IsAddress(std::string_view text) {
  if (text.starts_with("unix:")) return IsUnixPath(text.substr(5));
  if (text.starts_with(':')) return IsPort(text.substr(1));
  std::string_view host, port;
  return SplitHostPort(text, host, port);
}

std::optional<std::string> NormaliseHttpUrl(std::string_view text) {
  if (text.starts_with("unix:")) return IsUnixPath(text.substr(5)) ? std::optional<std::string>(text) : std::nullopt;
  constexpr std::string_view kScheme = "http://";
  if (!text.starts_with(kScheme)) return std::nullopt;
  text.remove_prefix(kScheme.size());
  const size_t slash = std::min(text.find('/'), text.size());
  std::string authority(text.substr(0, slash));
  std::string_view prefix = text.substr(slash);
  const bool visible = std::all_of(prefix.begin(), prefix.end(), [](unsigned char c) { return c > 0x20 && c < 0x7f; });
  if (!visible || prefix.find_first_of("?#") != std::string_view::npos) return std::nullopt;
  while (prefix.ends_with('/')) prefix.remove_suffix(1);
  const bool has_port = authority.rfind(':') != std::string::npos && !authority.ends_with(']');
  if (!has_port) authority += ":80";
  std::string_view host, port;
  if (!SplitHostPort(authority, host, port) || WholeNumber(port) == 0) return std::nullopt;
  return std::string(kScheme) + authority + std::string(prefix);
}

bool IsRequestPath(std::string_view text) {
  return text.starts_with('/') &&
         std::all_of(text.begin(), text.end(), [](unsigned char c) { return c > 0x20 && c < 0x7f && c != '#'; });
}

std::string_view Nearest(std::string_view word, const std::vector<std::string_view>& candidates) {
  std::string_view nearest;
  size_t best = word.size() / 3 + 2;  // Further away than this is another word, not a slip of the hand.
  for (const std::string_view candidate : candidates) {
    // A beginning or an end of the word counts as one slip: `--timeout` for `--drain-timeout`.
    const bool part = word.size() >= 4 && (candidate.starts_with(word) || candidate.ends_with(word));
    const size_t distance = part ? 1 : EditDistance(word, candidate);
    if (distance < best) {
      best = distance;
      nearest = candidate;
    }
  }
  return nearest;
}

}  // namespace dpa
