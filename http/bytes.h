// Classes of bytes that HTTP/1 distinguishes (RFC 9110 §5.6, RFC 3986 §2), as one table look-up each.

#pragma once

#include <array>
#include <cstdint>
#include <string_view>

namespace dpa {

namespace byte_class {

inline constexpr uint8_t kToken = 1;   // tchar, RFC 9110 §5.6.2.
inline constexpr uint8_t kTarget = 2;  // Visible ASCII but '#': what a request target may hold. Wider than RFC 3986,
                                       // which excludes " < > \ ^ ` { | }; browsers and Grafana's queries send them.
inline constexpr uint8_t kHost = 4;  // Letters, digits, - . _ ~: a registered name as it is used. No sub-delims, no %.
inline constexpr uint8_t kControl = 8;  // 0x00-0x1F and 0x7F, but not HTAB.
inline constexpr uint8_t kDigit = 16;

consteval std::array<uint8_t, 256> MakeTable() {
  std::array<uint8_t, 256> table{};
  for (int c = 0; c < 256; ++c) {
    const bool digit = c >= '0' && c <= '9';
    const bool letter = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
    uint8_t flags = 0;
    if (digit) flags |= kDigit;
    if (digit || letter || std::string_view("!#$%&'*+-.^_`|~").contains(static_cast<char>(c))) flags |= kToken;
    if (c > 0x20 && c < 0x7F && c != '#') flags |= kTarget;
    if (digit || letter || c == '-' || c == '.' || c == '_' || c == '~') flags |= kHost;
    if ((c < 0x20 && c != '\t') || c == 0x7F) flags |= kControl;
    table[c] = flags;
  }
  return table;
}

inline constexpr std::array<uint8_t, 256> kTable = MakeTable();

}  // namespace byte_class

inline bool HasClass(char c, uint8_t flags) { return byte_class::kTable[static_cast<unsigned char>(c)] & flags; }
inline bool IsTokenByte(char c) { return HasClass(c, byte_class::kToken); }
inline bool IsControlByte(char c) { return HasClass(c, byte_class::kControl); }
inline bool IsDigit(char c) { return c >= '0' && c <= '9'; }
inline char ToLower(char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c | 0x20) : c; }

// Every byte of `text` is of the class.
inline bool AllOf(std::string_view text, uint8_t flags) {
  for (const char c : text) {
    if (!HasClass(c, flags)) return false;
  }
  return true;
}

// Without SP and HTAB around it (OWS, RFC 9110 §5.6.3).
inline std::string_view TrimBlanks(std::string_view text) {
  while (!text.empty() && (text.front() == ' ' || text.front() == '\t')) text.remove_prefix(1);
  while (!text.empty() && (text.back() == ' ' || text.back() == '\t')) text.remove_suffix(1);
  return text;
}

}  // namespace dpa
