// Chains of addresses that proxies and their clients write: no crash, and nothing on the left, where clients write,
// changes who is found when our own proxy's element on the right names an address that is not trusted.

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string>

#include "http/forwarded.h"
#include "http/trace_context.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace dpa;
  static const CidrSet trusted = [] {
    CidrSet set;
    set.Add(*Cidr::Parse("10.0.0.0/8"));
    return set;
  }();
  static const IpAddress peer = *IpAddress::Parse("10.0.0.1");
  static const IpAddress client = *IpAddress::Parse("192.0.2.7");
  const std::string text(reinterpret_cast<const char*>(data), size);
  for (const ForwardedHeader header : {ForwardedHeader::kXForwarded, ForwardedHeader::kForwarded}) {
    const bool forwarded = header == ForwardedHeader::kForwarded;
    const std::string_view name = forwarded ? "Forwarded" : "X-Forwarded-For";
    const std::string ours = forwarded ? "for=192.0.2.7;host=h;proto=https" : "192.0.2.7";
    const HeaderField alone[] = {{name, text}};
    static_cast<void>(FindForwardedClient(alone, header, trusted, peer));
    const std::string appended = text + ", " + ours;
    const HeaderField one[] = {{name, appended}};
    const HeaderField two[] = {{name, text}, {name, ours}};
    for (const std::span<const HeaderField> fields :
         {std::span<const HeaderField>(one), std::span<const HeaderField>(two)}) {
      const ForwardedClient found = FindForwardedClient(fields, header, trusted, peer);
      if (found.address != client || (forwarded && (found.proto != "https" || found.host != "h"))) std::abort();
    }
  }
  const std::string_view trace_id = TraceIdOf(text);
  if (!trace_id.empty() && trace_id.size() != kTraceIdBytes) std::abort();
  if (IsRequestId(text) && text.size() > kRequestIdBytesMax) std::abort();
  return 0;
}
