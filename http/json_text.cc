#include "http/json_text.h"

#include <array>
#include <charconv>
#include <cstring>

namespace dpa {
namespace {

constexpr char kHex[] = "0123456789abcdef";

// Bytes that stand for themselves in a JSON string.
constexpr std::array<bool, 256> kPlain = [] {
  std::array<bool, 256> plain{};
  for (int c = 0x20; c < 0x7F; ++c) plain[c] = c != '"' && c != '\\';
  return plain;
}();

size_t PlainRunBytes(const char* text, size_t bytes) {
  size_t run = 0;
  while (run < bytes && kPlain[static_cast<unsigned char>(text[run])]) ++run;
  return run;
}

// Length of the well-formed UTF-8 sequence at `text` (RFC 3629 §4), 0 if there is none.
size_t Utf8SequenceBytes(std::string_view text) {
  const auto byte = [text](size_t i) { return i < text.size() ? static_cast<unsigned char>(text[i]) : 0u; };
  const auto follows = [&byte](size_t i) { return (byte(i) & 0xC0u) == 0x80u; };
  const unsigned first = byte(0);
  if (first >= 0xC2 && first <= 0xDF) return follows(1) ? 2 : 0;
  if (first >= 0xE0 && first <= 0xEF) {
    if (first == 0xE0 && byte(1) < 0xA0) return 0;
    if (first == 0xED && byte(1) > 0x9F) return 0;
    return follows(1) && follows(2) ? 3 : 0;
  }
  if (first >= 0xF0 && first <= 0xF4) {
    if (first == 0xF0 && byte(1) < 0x90) return 0;
    if (first == 0xF4 && byte(1) > 0x8F) return 0;
    return follows(1) && follows(2) && follows(3) ? 4 : 0;
  }
  return 0;
}

char* WriteEscape(char* out, unsigned char c) {
  *out++ = '\\';
  switch (c) {
    case '"':
    case '\\':
      *out++ = static_cast<char>(c);
      return out;
    case '\n':
      *out++ = 'n';
      return out;
    case '\r':
      *out++ = 'r';
      return out;
    case '\t':
      *out++ = 't';
      return out;
    default:
      break;
  }
  std::memcpy(out, "u00", 3);
  out[3] = kHex[c >> 4];
  out[4] = kHex[c & 15];
  return out + 5;
}

void AppendJsonString(ByteBuffer& out, std::string_view text) {
  char* begin = out.Tail(JsonStringBytesMax(text));
  out.Grow(static_cast<size_t>(WriteJsonString(begin, text) - begin));
}

}  // namespace

char* WriteJsonString(char* out, std::string_view text) {
  for (size_t i = 0; i < text.size();) {
    const size_t run = PlainRunBytes(text.data() + i, text.size() - i);
    std::memcpy(out, text.data() + i, run);
    out += run;
    i += run;
    if (i == text.size()) break;
    const auto c = static_cast<unsigned char>(text[i]);
    const size_t sequence_bytes = c >= 0x80 ? Utf8SequenceBytes(text.substr(i)) : 0;
    if (sequence_bytes == 0) {
      out = WriteEscape(out, c);
      ++i;
      continue;
    }
    std::memcpy(out, text.data() + i, sequence_bytes);
    out += sequence_bytes;
    i += sequence_bytes;
  }
  return out;
}

void AppendStatusBody(ByteBuffer& out, Reason reason, int code, std::string_view message) {
  const ReasonInfo& info = Info(reason);
  out.Append(R"({"kind":"Status","apiVersion":"v1","metadata":{},"status":"Failure","message":")");
  AppendJsonString(out, message);
  if (!info.kubernetes_reason.empty()) {
    out.Append(R"(","reason":")");
    out.Append(info.kubernetes_reason);
  }
  out.Append(R"(","details":{"causes":[{"reason":")");
  out.Append(info.word);
  out.Append(info.retry_after ? R"("}],"retryAfterSeconds":1},"code":)" : R"("}]},"code":)");
  char digits[16];
  const auto end = std::to_chars(digits, digits + sizeof digits, code);
  out.Append({digits, static_cast<size_t>(end.ptr - digits)});
  out.Append("}\n");
}

}  // namespace dpa
