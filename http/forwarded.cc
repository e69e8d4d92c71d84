#include "http/forwarded.h"

#include <algorithm>

#include "http/bytes.h"

namespace dpa {
namespace {

// Calls `visit` with the elements of all fields of that name, from the right end of the last one, until it says false.
// `take` splits the last element off a list.
template <class Take, class Visit>
void VisitFromTheRight(std::span<const HeaderField> fields, std::string_view name, Take take, Visit visit) {
  int left = kForwardedHopsMax;
  for (auto field = fields.rbegin(); field != fields.rend(); ++field) {
    if (!EqualsIgnoreCase(field->name, name)) continue;
    std::string_view list = field->value;
    while (!list.empty()) {
      const std::string_view element = TrimBlanks(take(list));
      if (element.empty()) continue;  // RFC 9110 §5.6.1.2: empty elements count for nothing.
      if (left-- == 0 || !visit(element)) return;
    }
  }
}

std::string_view TakeLast(std::string_view& list) {
  const size_t comma = list.rfind(',');
  const std::string_view element = comma == std::string_view::npos ? list : list.substr(comma + 1);
  list = comma == std::string_view::npos ? std::string_view() : list.substr(0, comma);
  return element;
}

// The quote at `at` is inside of its string: an odd number of backslashes stands before it.
bool IsEscaped(std::string_view text, size_t at) {
  size_t backslashes = 0;
  while (backslashes < at && text[at - backslashes - 1] == '\\') ++backslashes;
  return backslashes % 2 == 1;
}

// As TakeLast, but a comma inside of quotes is none. From the right as well: whatever a client has put on the left, an
// open quote for instance, cannot change how our own proxies' elements are read.
std::string_view TakeLastQuoted(std::string_view& list) {
  bool quoted = false;
  for (size_t at = list.size(); at-- > 0;) {
    if (list[at] == '"' && !(quoted && IsEscaped(list, at))) quoted = !quoted;
    if (list[at] != ',' || quoted) continue;
    const std::string_view element = list.substr(at + 1);
    list = list.substr(0, at);
    return element;
  }
  const std::string_view element = list;
  list = {};
  return element;
}

ForwardedClient FindInXForwardedFor(std::span<const HeaderField> fields, const CidrSet& trusted,
                                    const IpAddress& peer) {
  ForwardedClient client{.address = peer};
  VisitFromTheRight(fields, "x-forwarded-for", TakeLast, [&](std::string_view element) {
    const IpAddress address = ParseForwardedAddress(element);
    if (!address.is_ip()) return false;
    client.address = address;
    return trusted.Contains(address);
  });
  return client;
}

// --- Forwarded, RFC 7239 §4 ---

struct Element {
  std::string_view node;
  std::string_view proto;
  std::string_view host;
};

// token "=" ( token / quoted-string ), taken off `pairs` with the ';' behind it.
bool TakePair(std::string_view& pairs, std::string_view& name, std::string_view& value) {
  const size_t equals = pairs.find('=');
  if (equals == std::string_view::npos) return false;
  name = TrimBlanks(pairs.substr(0, equals));
  pairs.remove_prefix(equals + 1);
  if (!IsToken(name)) return false;
  if (!pairs.starts_with('"')) {
    const size_t end = std::min(pairs.find(';'), pairs.size());
    value = TrimBlanks(pairs.substr(0, end));
    pairs.remove_prefix(end);
    // Ports and brackets ought to be quoted and often are not.
    if (value.empty() || value.find_first_of("\" \t\\") != std::string_view::npos) return false;
  } else {
    // No value that we read has anything to escape.
    const size_t end = pairs.find_first_of("\"\\", 1);
    if (end == std::string_view::npos || pairs[end] == '\\') return false;
    value = pairs.substr(1, end - 1);
    pairs = TrimBlanks(pairs.substr(end + 1));
  }
  if (pairs.empty()) return true;
  if (pairs.front() != ';') return false;
  pairs = TrimBlanks(pairs.substr(1));
  return true;
}

// A name occurs once at the most in an element.
bool ParseElement(std::string_view pairs, Element& element) {
  while (!pairs.empty()) {
    if (pairs.front() == ';') {  // Empty pairs are allowed.
      pairs = TrimBlanks(pairs.substr(1));
      continue;
    }
    std::string_view name, value;
    if (!TakePair(pairs, name, value)) return false;
    std::string_view* known = EqualsIgnoreCase(name, "for")     ? &element.node
                              : EqualsIgnoreCase(name, "proto") ? &element.proto
                              : EqualsIgnoreCase(name, "host")  ? &element.host
                                                                : nullptr;
    if (known == nullptr) continue;
    if (!known->empty()) return false;
    *known = value;
  }
  return true;
}

std::string_view KnownProto(std::string_view proto) {
  for (const std::string_view known : {"http", "https"}) {
    if (EqualsIgnoreCase(proto, known)) return known;
  }
  return {};
}

// Good enough to be sent on as a host; the delegate judges it like any other.
std::string_view KnownHost(std::string_view host) {
  const bool fine = std::all_of(host.begin(), host.end(), [](char c) {
    return HasClass(c, byte_class::kHost) || c == ':' || c == '[' || c == ']';
  });
  return fine ? host : std::string_view();
}

ForwardedClient FindInForwarded(std::span<const HeaderField> fields, const CidrSet& trusted, const IpAddress& peer) {
  ForwardedClient client{.address = peer};
  VisitFromTheRight(fields, "forwarded", TakeLastQuoted, [&](std::string_view text) {
    Element element;
    if (!ParseElement(text, element)) return false;
    const IpAddress address = ParseForwardedAddress(element.node);
    if (!address.is_ip()) return false;
    client = {address, KnownProto(element.proto), KnownHost(element.host)};
    return trusted.Contains(address);
  });
  return client;
}

}  // namespace

ForwardedClient FindForwardedClient(std::span<const HeaderField> fields, ForwardedHeader header, const CidrSet& trusted,
                                    const IpAddress& peer) {
  return header == ForwardedHeader::kForwarded ? FindInForwarded(fields, trusted, peer)
                                               : FindInXForwardedFor(fields, trusted, peer);
}

IpAddress ParseForwardedAddress(std::string_view text) {
  std::string_view port;
  const bool bracketed = text.starts_with('[');
  if (bracketed) {
    const size_t end = text.find(']');
    if (end == std::string_view::npos) return {};
    port = text.substr(end + 1);
    text = text.substr(1, end - 1);
    if (text.find(':') == std::string_view::npos) return {};
  } else if (std::count(text.begin(), text.end(), ':') == 1) {
    port = text.substr(text.find(':'));
    text = text.substr(0, text.find(':'));
  }
  const bool port_fine = port.empty() || (port.size() >= 2 && port.size() <= 6 && port.front() == ':' &&
                                          AllOf(port.substr(1), byte_class::kDigit));
  if (!port_fine) return {};
  return IpAddress::Parse(text).value_or(IpAddress());
}

}  // namespace dpa
