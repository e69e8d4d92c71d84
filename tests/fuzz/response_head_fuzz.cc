// Bytes of an upstream: no crash, the same verdict whatever the cuts, and what we would send to the client is read back
// as the same response. The first byte chooses the request's method. Seeds: the response rows of tests/wire.

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string>
#include <vector>

#include "http/header_rewrite.h"
#include "tests/wire/wire_meaning.h"

namespace {

using namespace dpa;

void CheckForwarded(std::string_view method, std::string_view bytes, uint8_t client_minor) {
  MessageParser parser(MessageParser::Role::kResponse, {});
  parser.SetRequestMethod(method);
  if (parser.Feed(bytes) != ParseStatus::kComplete) return;
  const ResponseHead& head = parser.response();
  const RequestHead request{.method = method, .version_minor = client_minor};
  const ResponseFraming framing = ChooseResponseFraming(request, head, true);
  std::vector<char> region(2 * bytes.size() + 4096);
  HeadWriter writer(region.data(), region.size());
  WriteResponseHead(writer, request, head, framing);
  if (writer.failed()) std::abort();
  const std::string forwarded(writer.written());
  MessageParser again(MessageParser::Role::kResponse, {.head_bytes_max = 1 << 20, .fields_max = 256});
  again.SetRequestMethod(method);
  if (again.Feed(forwarded) != ParseStatus::kComplete || again.head_size() != forwarded.size()) std::abort();
  const ResponseHead& other = again.response();
  const bool same = other.status == head.status && other.framing == framing.framing &&
                    (framing.framing != BodyFraming::kContentLength || other.content_length == head.content_length);
  if (!same || (client_minor == 0 && other.framing == BodyFraming::kChunked)) std::abort();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  const std::string_view method = data[0] == 'H' ? "HEAD" : "GET";
  const std::string_view bytes(reinterpret_cast<const char*>(data) + 1, size - 1);
  for (const wire::Limits& limits : {wire::Limits{}, wire::kTight}) {
    const std::string whole = wire::ResponseMeaning(method, bytes, wire::Every(size), limits, true);
    if (wire::ResponseMeaning(method, bytes, wire::Every(1 + data[0] % 7), limits, true) != whole) std::abort();
    if (size <= 256 && wire::ResponseMeaning(method, bytes, wire::Every(1), limits, true) != whole) std::abort();
  }
  CheckForwarded(method, bytes, 1);
  CheckForwarded(method, bytes, 0);
  return 0;
}
