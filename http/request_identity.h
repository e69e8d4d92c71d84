// RequestIdentity is what is believed of one request beside its own words: who the client is, by which numbers it is
// followed, and what is added to its head on the way on.
//
//     socket's peer --(PROXY header)--> peer --(chain, if the peer is trusted)--> client
//
// The peer is whoever speaks to us, or whom a PROXY header has announced in its place; trust goes by the peer
// (--trusted-proxies). The client is what the log shows and what limits count; the peer is what we append to
// X-Forwarded-For, since the client stands there already.
//
// Lives in the memory of an exchange; its views are good until the next Begin.

#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string_view>

#include "core/cidr.h"
#include "core/ip_address.h"
#include "http/forwarded.h"
#include "http/header_rewrite.h"
#include "http/message.h"
#include "http/trace_context.h"

namespace dpa {

struct IdentityOptions {
  CidrSet trusted_proxies;      // --trusted-proxies: whose Forwarded or X-Forwarded-*, and X-Request-Id, are believed.
  CidrSet proxy_protocol_from;  // --proxy-protocol-from: whose connections begin with a PROXY header.
  ForwardedHeader forwarded_header = ForwardedHeader::kXForwarded;  // --forwarded-header
  bool request_ids = true;                                          // --request-id: made, passed on, answered with.
  bool trace_contexts = true;           // --trace-context: a traceparent is made where there is no valid one.
  std::optional<uint64_t> random_seed;  // For runs that are to be repeated. None: by the kernel.
};

// The other end of one client connection. Immovable once its views are taken.
class DownstreamPeer {
 public:
  // `port` is shown only; `is_trusted` by IdentityOptions::trusted_proxies.
  void Set(const IpAddress& address, uint16_t port, bool is_trusted);

  const IpAddress& address() const { return address_; }
  bool is_trusted() const { return is_trusted_; }
  // "192.0.2.1:80", "[2001:db8::1]:80"; empty if it is no IP address.
  std::string_view text() const { return {text_.data(), text_bytes_}; }
  // "192.0.2.1", "2001:db8::1".
  std::string_view host() const { return text().substr(host_begin_, host_bytes_); }

 private:
  IpAddress address_;
  bool is_trusted_ = false;
  uint8_t text_bytes_ = 0;
  uint8_t host_begin_ = 0;
  uint8_t host_bytes_ = 0;
  std::array<char, IpAddress::kTextBytesMax + 8> text_;
};

// The numbers that a request is followed by. Empty: there is none.
struct RequestIds {
  std::string_view traceparent;  // Valid.
  std::string_view tracestate;   // The first field of the name, beside a valid traceparent.
  // These two stay where they are when the head is moved (MessageReader::KeepHead): the log wants them at the end.
  std::string_view trace_id;
  std::string_view request_id;  // X-Request-Id.
};

class RequestIdentity {
 public:
  // `head`, `peer` and `options` outlive the exchange.
  void Begin(const RequestHead& head, const DownstreamPeer& peer, const IdentityOptions& options, IdSource& ids);

  // Without path_prefix and default_host, which depend on where it goes.
  const RequestForwarding& forwarding() const { return forwarding_; }
  const RequestIds& ids() const { return ids_; }
  // The client: its address, and its text for the log (with its port, if it is the peer).
  const IpAddress& client() const { return client_; }
  std::string_view client_text() const { return client_text_; }
  // What goes into every answer to it: X-Request-Id, or nothing.
  std::span<const HeaderField> answered() const { return answered_; }

 private:
  // The ids among the fields of a head. nullptr: there is none, or several, which is as good as none.
  struct Found {
    const HeaderField* traceparent = nullptr;
    const HeaderField* tracestate = nullptr;
    const HeaderField* request_id = nullptr;
  };
  static Found FindIds(const RequestHead& head);

  void TakeClient(const RequestHead& head, const DownstreamPeer& peer, const IdentityOptions& options);
  void TakeTraceContext(const Found& found, const IdentityOptions& options, IdSource& ids);
  void TakeRequestId(const Found& found, const DownstreamPeer& peer, const IdentityOptions& options, IdSource& ids);

  RequestForwarding forwarding_;
  RequestIds ids_;
  IpAddress client_;
  std::string_view client_text_;
  std::span<const HeaderField> answered_;
  std::array<HeaderField, 2> added_;  // traceparent, X-Request-Id.
  size_t added_count_ = 0;
  std::array<char, IpAddress::kTextBytesMax> client_memory_;
  std::array<char, kTraceparentBytes> traceparent_memory_;
  std::array<char, kTraceIdBytes> trace_id_memory_;
  std::array<char, kRequestIdBytesMax> request_id_memory_;
};

}  // namespace dpa
