// W3C Trace Context (https://www.w3.org/TR/trace-context/) and request ids: the two numbers by which a request is
// followed from log to log.
//
//     traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01
//                  version  trace-id                   parent-id        flags
//
// We make no spans, so a valid traceparent goes on unchanged, as other proxies do it: with an id of our own in it the
// next one's parent would be a span that nobody ever reports.

#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string_view>

#include "http/message.h"

namespace dpa {

inline constexpr size_t kTraceparentBytes = 55;  // Of version 00, which is the one that we write.
inline constexpr size_t kTraceIdBytes = 32;
inline constexpr size_t kRequestIdBytes = 32;      // Of one that we make: 128 random bits in hexadecimal.
inline constexpr size_t kRequestIdBytesMax = 128;  // Of one that we take over.

// §3.2: the trace id inside of a valid traceparent; empty if it is not valid. Of versions above 00 what is known of
// them is checked (§4.3).
std::string_view TraceIdOf(std::string_view traceparent);

// Fit for logs and headers: at most kRequestIdBytesMax letters, digits and - . _ ~ + / = : @.
bool IsRequestId(std::string_view text);

// Random numbers for ids: unique with the certainty of 128 bits, cheap, and no secret. One per worker.
class IdSource {
 public:
  // Seeded by the kernel; or by `seed`, for runs that are to be repeated.
  explicit IdSource(std::optional<uint64_t> seed = std::nullopt);

  uint64_t Next();
  void WriteRequestId(std::span<char, kRequestIdBytes> out);
  // A traceparent of version 00, not sampled (§3.2.2.5.1): nobody has recorded anything.
  void WriteTraceparent(std::span<char, kTraceparentBytes> out);

 private:
  std::array<uint64_t, 4> state_;
};

}  // namespace dpa
