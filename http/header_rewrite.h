// What is changed between the head that came in and the head that goes out; everything else is byte-identical, in
// order, duplicates and case kept.
//
// Both ways the hop-by-hop fields go: Connection and every field that it names, Keep-Alive, Proxy-Connection, TE (but
// `TE: trailers` of a request stays), Transfer-Encoding, Upgrade (RFC 9110 §7.6.1). Framing is written anew by us,
// never copied. A client cannot remove what we add by naming it in Connection: removal comes first, adding after.
//
//   char region[…];
//   HeadWriter writer(region, sizeof region);
//   WriteRequestHead(writer, head, forward);
//   if (writer.failed()) … the region is too small …
//   send(writer.written())

#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string_view>

#include "http/forwarded.h"
#include "http/message.h"

namespace dpa {

// Appends to a region of the caller's. Once something does not fit nothing more is written, and failed() stays true.
class HeadWriter {
 public:
  // `region` must live as long as the writer.
  HeadWriter(char* region, size_t capacity) : region_(region), capacity_(capacity) {}

  void Append(std::string_view bytes);
  void AppendNumber(uint64_t number);
  // `name: value` CRLF. REQUIRES: both are free of CR, LF and NUL.
  void AppendField(std::string_view name, std::string_view value);

  bool failed() const { return failed_; }
  std::string_view written() const { return {region_, size_}; }
  size_t size() const { return size_; }

 private:
  char* region_;
  size_t capacity_;
  size_t size_ = 0;
  bool failed_ = false;
};

// What the exchange knows beside the request. Made by RequestIdentity (http/request_identity.h); who forwards it adds
// where to.
//
// Who a caller is (IsIdentityField) is removed always. What is said of whom the request was forwarded for
// (IsForwardingField, Forwarded) is removed and written anew, unless the peer is trusted: then it is kept and extended
// by the peer's address. Naming such a field in Connection does not remove it: a proxy that passes its client's
// Connection on would let the client hide.
struct RequestForwarding {
  // What a trusted peer's Forwarded says of the client, where that is what is believed. Empty: nothing.
  struct Said {
    std::string_view address;  // As peer_address.
    std::string_view proto;
    std::string_view host;
  };

  // Of whoever has sent the request, for X-Forwarded-For: without port; IPv6 without brackets. Empty: no IP address.
  std::string_view peer_address;
  std::string_view proto = "http";  // For X-Forwarded-Proto: how the request came to us.
  bool peer_trusted = false;        // It is a proxy whose `header` is believed.
  ForwardedHeader header = ForwardedHeader::kXForwarded;
  Said said;
  std::string_view path_prefix;   // Path of the delegate's URL, without trailing slash: put before the request's path.
  std::string_view default_host;  // For Host, when the request has none (HTTP/1.0): the delegate's authority.
  bool forward_upgrade = true;    // Send Upgrade on, when head.upgrade is not empty.
  // False: we have answered `Expect: 100-continue` ourselves. Without head.expect_continue it is never sent on.
  bool forward_expect = true;
  bool drop_tracestate = false;  // It belongs to no valid traceparent (Trace Context §3.3).
  // Of our own making (request id, trace context), written last. Fields of the same name from the client are removed.
  std::span<const HeaderField> added;
};

// How many more proxies an OPTIONS request may pass (RFC 9110 §7.6.2); at 0 we are the one to answer it. Nothing: it
// does not say, or is not to be understood. Other methods do not care, and TRACE does not get here.
std::optional<uint32_t> MaxForwards(const RequestHead& head);

// The most bytes that WriteRequestHead writes.
size_t RequestHeadBytesMax(const RequestHead& head, const RequestForwarding& forward);

// Writes the head for the upstream, always as HTTP/1.1, empty line included; Max-Forwards of an OPTIONS counts down.
// Body framing: that of `head` (its payload
// is to be sent with Content-Length or chunked alike).
void WriteRequestHead(HeadWriter& writer, const RequestHead& head, const RequestForwarding& forward);

// How the response goes to the client.
struct ResponseFraming {
  BodyFraming framing = BodyFraming::kNone;
  uint64_t content_length = 0;  // For kContentLength.
  bool keep_alive = true;       // The connection to the client can be used again after this response.
};

// RFC 9112 §6.1, §6.3, §9.3: an HTTP/1.0 client never gets chunked; a body of unknown length goes out until close to it
// and chunked to HTTP/1.1. `keep_alive_wanted`: our own side agrees (not draining, request body read to its end).
ResponseFraming ChooseResponseFraming(const RequestHead& request, const ResponseHead& response, bool keep_alive_wanted);

// Writes the head for the client, always as HTTP/1.1 (RFC 9110 §2.5), empty line included. For a 1xx no framing and no
// Connection are written, but 101 keeps Upgrade and `Connection: upgrade`. `framing` comes from ChooseResponseFraming.
// `added` as in RequestForwarding.
void WriteResponseHead(HeadWriter& writer, const RequestHead& request, const ResponseHead& response,
                       const ResponseFraming& framing, std::span<const HeaderField> added = {});

// The connection to the upstream may carry another request: what it declared, and what has happened. A response that
// ended before the request did, or bytes behind its end, leave the two out of step for ever.
inline bool MayReuseUpstream(const ResponseHead& response, bool request_sent, bool body_done, size_t surplus_bytes) {
  return response.keep_alive && response.status != 101 && request_sent && body_done && surplus_bytes == 0;
}

// The field is one that concerns one connection only, by its own name or because a Connection field names it.
bool IsHopByHop(std::span<const HeaderField> fields, std::string_view name);

}  // namespace dpa
