// Bytes at the beginning of a connection: no crash, no read beyond them, the same verdict whatever the cuts, bounded.
// Seeds: the table of tests/http/proxy_protocol_test.cc.

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <vector>

#include "http/proxy_protocol.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace dpa;
  const char* bytes = reinterpret_cast<const char*>(data);
  const ProxyHeader whole = ParseProxyHeader({bytes, size});
  if (whole.state == ProxyHeader::State::kNeedMore && size >= kProxyHeaderBytesMax) std::abort();
  if (whole.state == ProxyHeader::State::kComplete && (whole.size > size || whole.size > kProxyHeaderBytesMax)) {
    std::abort();
  }
  if (whole.has_source && whole.state != ProxyHeader::State::kComplete) std::abort();
  // Every beginning either waits or says the same.
  const size_t step = size > 512 ? 37 : 1;
  for (size_t count = 0; count < size; count += step) {
    const std::vector<char> exact(bytes, bytes + count);
    const ProxyHeader part = ParseProxyHeader({exact.data(), exact.size()});
    if (part.state == ProxyHeader::State::kNeedMore) continue;
    const bool same = part.state == whole.state && part.violation == whole.violation && part.size == whole.size &&
                      part.has_source == whole.has_source && part.source == whole.source &&
                      part.source_port == whole.source_port;
    if (!same) std::abort();
  }
  return 0;
}
