// Chunked bodies: no crash, the same payload, verdict and rest whatever the cuts, progress in every step, and a body of
// ours around the payload is read back as that payload. Seeds: the chunked rows of tests/wire.

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string>

#include "tests/wire/wire_meaning.h"

using namespace dpa;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view bytes(reinterpret_cast<const char*>(data), size);
  for (const wire::Limits& limits : {wire::kTight, wire::Limits{}}) {
    const auto render = [&](size_t piece) {
      return wire::RenderBody(BodyFraming::kChunked, 0, bytes, wire::Every(piece), limits.body);
    };
    const std::string whole = render(size + 1);
    for (const size_t piece : {1, 2, 3, 7, 31}) {
      if (render(piece) != whole) std::abort();
    }
    if (whole.find("progress") != std::string::npos && bytes.find("progress") == std::string_view::npos) std::abort();
  }

  if (size == 0) return 0;
  char header[kChunkHeaderBytesMax];
  std::string body(header, WriteChunkHeader(header, size));
  body += bytes;
  body += kChunkEnd;
  body += kLastChunk;
  if (wire::RenderBody(BodyFraming::kChunked, 0, body, wire::Every(5)) != " chunked[" + std::string(bytes) + "]")
    std::abort();
  return 0;
}
