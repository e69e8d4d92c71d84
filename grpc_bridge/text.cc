#include "grpc_bridge/text.h"

#include <simdjson.h>

#include <cstddef>
#include <cstdint>

namespace dpa {
namespace {

constexpr std::string_view kReplacement = "\xEF\xBF\xBD";

// Length of the valid sequence at `at`, 0 if there is none. (Authority: RFC 3629 §4.)
size_t SequenceLength(std::string_view text, size_t at) {
  auto byte = [&](size_t i) { return at + i < text.size() ? static_cast<uint8_t>(text[at + i]) : uint8_t{0}; };
  auto tail = [&](size_t i) { return (byte(i) & 0xC0) == 0x80; };
  uint8_t first = byte(0);
  uint8_t second = byte(1);
  if (first < 0x80) return 1;
  if (first < 0xC2 || first > 0xF4) return 0;
  if (first < 0xE0) return tail(1) ? 2 : 0;
  if (first < 0xF0) {
    bool overlong = first == 0xE0 && second < 0xA0;
    bool surrogate = first == 0xED && second > 0x9F;
    return tail(1) && tail(2) && !overlong && !surrogate ? 3 : 0;
  }
  bool overlong = first == 0xF0 && second < 0x90;
  bool too_large = first == 0xF4 && second > 0x8F;
  return tail(1) && tail(2) && tail(3) && !overlong && !too_large ? 4 : 0;
}

void AppendJsonEscape(char byte, std::string& out) {
  constexpr char kHex[] = "0123456789abcdef";
  switch (byte) {
    case '"':
      out += "\\\"";
      return;
    case '\\':
      out += "\\\\";
      return;
    case '\n':
      out += "\\n";
      return;
    case '\r':
      out += "\\r";
      return;
    case '\t':
      out += "\\t";
      return;
    default:
      out += "\\u00";
      out += kHex[static_cast<uint8_t>(byte) >> 4];
      out += kHex[byte & 0xF];
  }
}

bool NeedsEscape(char byte) { return static_cast<uint8_t>(byte) < 0x20 || byte == '"' || byte == '\\'; }

// Valid UTF-8 goes in runs; only what must be escaped interrupts them.
void AppendEscaped(std::string_view text, std::string& out) {
  size_t run = 0;
  for (size_t i = 0; i < text.size(); ++i) {
    if (!NeedsEscape(text[i])) continue;
    out.append(text, run, i - run);
    AppendJsonEscape(text[i], out);
    run = i + 1;
  }
  out.append(text, run);
}

}  // namespace

bool IsUtf8(std::string_view text) { return simdjson::validate_utf8(text.data(), text.size()); }

void AppendUtf8(std::string_view text, std::string& out) {
  if (IsUtf8(text)) {
    out.append(text);
    return;
  }
  for (size_t i = 0; i < text.size();) {
    size_t length = SequenceLength(text, i);
    out.append(length > 0 ? text.substr(i, length) : kReplacement);
    i += length > 0 ? length : 1;
  }
}

void AppendJsonString(std::string_view text, std::string& out) {
  out.push_back('"');
  if (IsUtf8(text)) {
    AppendEscaped(text, out);
  } else {
    std::string repaired;
    AppendUtf8(text, repaired);
    AppendEscaped(repaired, out);
  }
  out.push_back('"');
}

}  // namespace dpa
