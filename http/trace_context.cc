#include "http/trace_context.h"

#include <sys/random.h>

#include <algorithm>
#include <bit>

#include "core/assert.h"
#include "http/bytes.h"

namespace dpa {
namespace {

// HEXDIGLC: lower case only.
bool IsHex(std::string_view text) {
  return std::all_of(text.begin(), text.end(), [](char c) { return IsDigit(c) || (c >= 'a' && c <= 'f'); });
}

bool IsZero(std::string_view text) { return text.find_first_not_of('0') == std::string_view::npos; }

void WriteHex(uint64_t number, char* out) {
  static constexpr char kDigits[] = "0123456789abcdef";
  for (int i = 15; i >= 0; --i, number >>= 4) out[i] = kDigits[number & 15];
}

}  // namespace

std::string_view TraceIdOf(std::string_view traceparent) {
  if (traceparent.size() < kTraceparentBytes) return {};
  const std::string_view version = traceparent.substr(0, 2);
  const std::string_view trace_id = traceparent.substr(3, kTraceIdBytes);
  const std::string_view parent_id = traceparent.substr(36, 16);
  const std::string_view flags = traceparent.substr(53, 2);
  if (traceparent[2] != '-' || traceparent[35] != '-' || traceparent[52] != '-') return {};
  if (!IsHex(version) || version == "ff" || !IsHex(trace_id) || !IsHex(parent_id) || !IsHex(flags)) return {};
  if (IsZero(trace_id) || IsZero(parent_id)) return {};
  // Version 00 ends here; later ones may go on behind another dash.
  const bool longer = traceparent.size() > kTraceparentBytes;
  if (longer && (version == "00" || traceparent[kTraceparentBytes] != '-')) return {};
  return trace_id;
}

bool IsRequestId(std::string_view text) {
  static constexpr std::string_view kMarks = "-._~+/=:@";
  if (text.empty() || text.size() > kRequestIdBytesMax) return false;
  return std::all_of(text.begin(), text.end(), [](char c) {
    const char lower = ToLower(c);
    return IsDigit(c) || (lower >= 'a' && lower <= 'z') || kMarks.find(c) != std::string_view::npos;
  });
}

// --- IdSource: xoshiro256** (Blackman and Vigna) ---

IdSource::IdSource(std::optional<uint64_t> seed) {
  if (!seed) {
    const ssize_t got = getrandom(state_.data(), sizeof state_, 0);
    // Up to 256 bytes are never cut short nor interrupted once the kernel's pool is ready, which it is long before us.
    DPA_ASSERT(got == sizeof state_);
  } else {
    // SplitMix64 spreads the seed, as the authors ask for.
    uint64_t spread = *seed;
    for (uint64_t& word : state_) {
      uint64_t mixed = spread += 0x9E3779B97F4A7C15;
      mixed = (mixed ^ mixed >> 30) * 0xBF58476D1CE4E5B9;
      mixed = (mixed ^ mixed >> 27) * 0x94D049BB133111EB;
      word = mixed ^ mixed >> 31;
    }
  }
  state_[0] |= 1;  // All zeros would stay so.
}

uint64_t IdSource::Next() {
  const uint64_t result = std::rotl(state_[1] * 5, 7) * 9;
  const uint64_t shifted = state_[1] << 17;
  state_[2] ^= state_[0];
  state_[3] ^= state_[1];
  state_[1] ^= state_[2];
  state_[0] ^= state_[3];
  state_[2] ^= shifted;
  state_[3] = std::rotl(state_[3], 45);
  return result;
}

void IdSource::WriteRequestId(std::span<char, kRequestIdBytes> out) {
  WriteHex(Next(), out.data());
  WriteHex(Next(), out.data() + 16);
}

void IdSource::WriteTraceparent(std::span<char, kTraceparentBytes> out) {
  char* at = out.data();
  const auto put = [&at](std::string_view text) { at = std::copy(text.begin(), text.end(), at); };
  put("00-");
  WriteHex(Next() | 1, at);  // All zeros would be invalid (§3.2.2.3, §3.2.2.4).
  WriteHex(Next(), at + 16);
  at += kTraceIdBytes;
  put("-");
  WriteHex(Next() | 1, at);
  at += 16;
  put("-00");
}

}  // namespace dpa
