#include "http/request_identity.h"

#include <charconv>

namespace dpa {

void DownstreamPeer::Set(const IpAddress& address, uint16_t port, bool is_trusted) {
  address_ = address;
  is_trusted_ = is_trusted;
  text_bytes_ = host_begin_ = host_bytes_ = 0;
  if (!address.is_ip()) return;
  char* at = text_.data();
  const bool six = address.kind() == IpAddress::Kind::kIpv6;
  if (six) *at++ = '[';
  host_begin_ = six ? 1 : 0;
  host_bytes_ = static_cast<uint8_t>(address.Write(at));
  at += host_bytes_;
  if (six) *at++ = ']';
  *at++ = ':';
  at = std::to_chars(at, text_.data() + text_.size(), port).ptr;
  text_bytes_ = static_cast<uint8_t>(at - text_.data());
}

void RequestIdentity::Begin(const RequestHead& head, const DownstreamPeer& peer, const IdentityOptions& options,
                            IdSource& ids) {
  forwarding_ = {};
  ids_ = {};
  answered_ = {};
  added_count_ = 0;
  const Found found = FindIds(head);
  TakeClient(head, peer, options);
  TakeTraceContext(found, options, ids);
  TakeRequestId(found, peer, options, ids);
  forwarding_.added = {added_.data(), added_count_};
}

// One pass, told apart by length: nearly every field costs one comparison of a number.
RequestIdentity::Found RequestIdentity::FindIds(const RequestHead& head) {
  Found found;
  bool several_parents = false;
  bool several_ids = false;
  for (const HeaderField& field : head.fields) {
    switch (field.name.size()) {
      case 10:
        if (found.tracestate == nullptr && EqualsIgnoreCase(field.name, "tracestate")) found.tracestate = &field;
        break;
      case 11:
        if (!EqualsIgnoreCase(field.name, "traceparent")) break;
        several_parents = several_parents || found.traceparent != nullptr;
        found.traceparent = &field;
        break;
      case 12:
        if (!EqualsIgnoreCase(field.name, "x-request-id")) break;
        several_ids = several_ids || found.request_id != nullptr;
        found.request_id = &field;
        break;
      default:
        break;
    }
  }
  if (several_parents) found.traceparent = nullptr;
  if (several_ids) found.request_id = nullptr;
  return found;
}

void RequestIdentity::TakeClient(const RequestHead& head, const DownstreamPeer& peer, const IdentityOptions& options) {
  forwarding_.peer_address = peer.host();
  forwarding_.peer_trusted = peer.is_trusted();
  forwarding_.header = options.forwarded_header;
  client_ = peer.address();
  client_text_ = peer.text();
  if (!peer.is_trusted()) return;
  const ForwardedClient client =
      FindForwardedClient(head.fields, options.forwarded_header, options.trusted_proxies, peer.address());
  forwarding_.said = {{}, client.proto, client.host};
  if (client.address == peer.address()) return;
  client_ = client.address;
  client_text_ = {client_memory_.data(), client_.Write(client_memory_.data())};
  if (options.forwarded_header == ForwardedHeader::kForwarded) forwarding_.said.address = client_text_;
}

// A valid traceparent goes on as it is, written by us so that Connection cannot take it away. Without one a new trace
// begins, and the tracestate belongs to none (§3.3).
void RequestIdentity::TakeTraceContext(const Found& found, const IdentityOptions& options, IdSource& ids) {
  std::string_view trace_id = found.traceparent == nullptr ? "" : TraceIdOf(found.traceparent->value);
  if (!trace_id.empty()) {
    ids_.traceparent = found.traceparent->value;
    if (found.tracestate != nullptr) ids_.tracestate = found.tracestate->value;
  } else if (options.trace_contexts) {
    forwarding_.drop_tracestate = true;
    ids.WriteTraceparent(traceparent_memory_);
    ids_.traceparent = {traceparent_memory_.data(), traceparent_memory_.size()};
    trace_id = TraceIdOf(ids_.traceparent);
  }
  ids_.trace_id = {trace_id_memory_.data(), trace_id.copy(trace_id_memory_.data(), trace_id_memory_.size())};
  // Switched off, no field of it is ours to touch.
  if (options.trace_contexts) added_[added_count_++] = {"traceparent", ids_.traceparent};
}

void RequestIdentity::TakeRequestId(const Found& found, const DownstreamPeer& peer, const IdentityOptions& options,
                                    IdSource& ids) {
  if (!options.request_ids) return;
  size_t bytes = kRequestIdBytes;
  if (found.request_id != nullptr && peer.is_trusted() && IsRequestId(found.request_id->value)) {
    bytes = found.request_id->value.copy(request_id_memory_.data(), request_id_memory_.size());
  } else {
    ids.WriteRequestId(std::span(request_id_memory_).first<kRequestIdBytes>());
  }
  ids_.request_id = {request_id_memory_.data(), bytes};
  added_[added_count_] = {"X-Request-Id", ids_.request_id};
  answered_ = {&added_[added_count_++], 1};
}

}  // namespace dpa
