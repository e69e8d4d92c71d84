// Bytes of a client: no crash, the same verdict whatever the cuts, and what we would forward is read back by our own
// rules as the same request. Seeds: the request rows of tests/wire.

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string>
#include <vector>

#include "http/header_rewrite.h"
#include "tests/wire/wire_meaning.h"

namespace {

using namespace dpa;

// Piece sizes out of a seed: 1 to 8 bytes.
wire::Cuts Scattered(uint32_t seed) {
  return [seed]() mutable {
    seed = seed * 1664525u + 1013904223u;
    return size_t{1} + (seed >> 29);
  };
}

void CheckForwarded(std::string_view bytes) {
  MessageParser parser(MessageParser::Role::kRequest, {});
  if (parser.Feed(bytes) != ParseStatus::kComplete) return;
  const RequestHead& head = parser.request();
  std::vector<char> region(2 * bytes.size() + 4096);
  HeadWriter writer(region.data(), region.size());
  WriteRequestHead(writer, head, {.peer_address = "192.0.2.1", .default_host = "d"});
  if (writer.failed()) std::abort();
  const std::string forwarded(writer.written());
  MessageParser again(MessageParser::Role::kRequest,
                      {.head_bytes_max = 1 << 20, .target_bytes_max = 1 << 20, .fields_max = 256});
  if (again.Feed(forwarded) != ParseStatus::kComplete || again.head_size() != forwarded.size()) std::abort();
  const RequestHead& other = again.request();
  const bool same = other.method == head.method && other.path == head.path && other.query == head.query &&
                    other.has_query == head.has_query && other.framing == head.framing &&
                    other.content_length == head.content_length && other.upgrade == head.upgrade &&
                    (head.host.empty() || other.host == head.host);
  if (!same) std::abort();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view bytes(reinterpret_cast<const char*>(data), size);
  for (const wire::Limits& limits : {wire::Limits{}, wire::kTight}) {
    const std::string whole = wire::RequestMeaning(bytes, wire::Every(size + 1), limits, true);
    const auto seed = static_cast<uint32_t>(size * 2654435761u + (size ? data[0] : 0));
    if (wire::RequestMeaning(bytes, Scattered(seed), limits, true) != whole) std::abort();
    if (size <= 256 && wire::RequestMeaning(bytes, wire::Every(1), limits, true) != whole) std::abort();
  }
  CheckForwarded(bytes);
  return 0;
}
