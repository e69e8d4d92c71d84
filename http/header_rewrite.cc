#include "http/header_rewrite.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <cstring>
#include <limits>

#include "http/believed_fields.h"
#include "http/bytes.h"
#include "http/status.h"

namespace dpa {

void HeadWriter::Append(std::string_view bytes) {
  if (failed_ || bytes.size() > capacity_ - size_) {
    failed_ = true;
    return;
  }
  if (!bytes.empty()) std::memcpy(region_ + size_, bytes.data(), bytes.size());
  size_ += bytes.size();
}

void HeadWriter::AppendNumber(uint64_t number) {
  char digits[20];
  const auto end = std::to_chars(digits, digits + sizeof digits, number);
  Append({digits, static_cast<size_t>(end.ptr - digits)});
}

void HeadWriter::AppendField(std::string_view name, std::string_view value) {
  // Most of a head is written here: one check for the whole line.
  if (failed_ || name.size() + value.size() + 4 > capacity_ - size_) {
    failed_ = true;
    return;
  }
  char* at = region_ + size_;
  at = std::copy(name.begin(), name.end(), at);
  *at++ = ':';
  *at++ = ' ';
  at = std::copy(value.begin(), value.end(), at);
  *at++ = '\r';
  *at++ = '\n';
  size_ = static_cast<size_t>(at - region_);
}

namespace {

// RFC 9110 §7.6.1 and what came before it. Content-Length is here too: framing is ours to write.
bool IsConnectionField(std::string_view name) {
  switch (name.size()) {
    case 2:
      return EqualsIgnoreCase(name, "te");
    case 7:
      return EqualsIgnoreCase(name, "upgrade");
    case 10:
      return EqualsIgnoreCase(name, "connection") || EqualsIgnoreCase(name, "keep-alive");
    case 14:
      return EqualsIgnoreCase(name, "content-length") || EqualsIgnoreCase(name, "http2-settings");
    case 16:
      return EqualsIgnoreCase(name, "proxy-connection");
    case 17:
      return EqualsIgnoreCase(name, "transfer-encoding");
    default:
      return false;
  }
}

// The options of all Connection fields, gathered once. Past its size (the parser admits no more, but heads can have
// other makers) look-ups go through the fields again.
class ConnectionOptions {
 public:
  explicit ConnectionOptions(std::span<const HeaderField> fields) : fields_(fields) {
    ForEach([this](std::string_view option) {
      if (count_ < options_.size()) options_[count_] = option;
      ++count_;
      return false;
    });
  }

  bool Names(std::string_view name) const {
    if (count_ > options_.size()) {
      return ForEach([name](std::string_view option) { return EqualsIgnoreCase(option, name); });
    }
    for (size_t i = 0; i < count_; ++i) {
      if (EqualsIgnoreCase(options_[i], name)) return true;
    }
    return false;
  }

 private:
  // Until `visit` says true.
  template <class Visit>
  bool ForEach(Visit visit) const {
    for (const HeaderField& field : fields_) {
      if (!EqualsIgnoreCase(field.name, "connection")) continue;
      std::string_view list = field.value;
      std::string_view option;
      while (NextListElement(list, option)) {
        if (visit(option)) return true;
      }
    }
    return false;
  }

  std::span<const HeaderField> fields_;
  std::array<std::string_view, 32> options_;
  size_t count_ = 0;
};

bool IsOneOf(std::span<const HeaderField> added, std::string_view name) { return FindField(added, name) != nullptr; }

// --- The request
// -----------------------------------------------------------------------------------------------------------

// kChain: the believed chain of addresses, which goes out as one field with the peer at its end.
enum class Treatment : uint8_t { kCopy, kDrop, kHost, kChain, kMaxForwards };

constexpr std::string_view kOptions = "OPTIONS";
constexpr std::string_view kMaxForwards = "max-forwards";

bool IsBelieved(const RequestForwarding& forward, ForwardedHeader header) {
  return forward.peer_trusted && forward.header == header;
}

// Only the usual spelling is a proxy's; one with '_' has come through it.
Treatment TreatmentOfForwarding(std::string_view name, const RequestForwarding& forward) {
  const bool believed = IsBelieved(forward, ForwardedHeader::kXForwarded) && name.find('_') == std::string_view::npos;
  if (!believed) return Treatment::kDrop;
  return EqualsIgnoreCase(name, "x-forwarded-for") ? Treatment::kChain : Treatment::kCopy;
}

Treatment TreatmentOf(std::string_view name, const RequestHead& head, const RequestForwarding& forward,
                      const ConnectionOptions& options) {
  if (name.size() == 4 && EqualsIgnoreCase(name, "host")) return Treatment::kHost;
  if (IsConnectionField(name)) return Treatment::kDrop;
  if (ToLower(name.front()) == 'x') {
    if (IsIdentityField(name)) return Treatment::kDrop;
    if (IsForwardingField(name)) return TreatmentOfForwarding(name, forward);
  }
  if (name.size() == 9 && EqualsIgnoreCase(name, "forwarded")) {
    return IsBelieved(forward, ForwardedHeader::kForwarded) ? Treatment::kChain : Treatment::kDrop;
  }
  if (options.Names(name) || IsOneOf(forward.added, name)) return Treatment::kDrop;
  // RFC 9110 §10.1.1: of an HTTP/1.0 client, or without a body, it was ignored; as HTTP/1.1 it would be obeyed.
  if ((!forward.forward_expect || !head.expect_continue) && EqualsIgnoreCase(name, "expect")) return Treatment::kDrop;
  // RFC 9110 §6.6.2: it announces trailers, which only chunked has.
  if (head.framing != BodyFraming::kChunked && EqualsIgnoreCase(name, "trailer")) return Treatment::kDrop;
  if (head.method == kOptions && EqualsIgnoreCase(name, kMaxForwards)) return Treatment::kMaxForwards;
  if (forward.drop_tracestate && EqualsIgnoreCase(name, "tracestate")) return Treatment::kDrop;
  return Treatment::kCopy;
}

void WriteRequestLine(HeadWriter& writer, const RequestHead& head, const RequestForwarding& forward) {
  writer.Append(head.method);
  writer.Append(" ");
  if (head.path.starts_with('/')) writer.Append(forward.path_prefix);
  writer.Append(head.path);
  if (head.has_query) {
    writer.Append("?");
    writer.Append(head.query);
  }
  writer.Append(" HTTP/1.1\r\n");
}

// One field for a whole list: many backends read only the first.
class ListField {
 public:
  ListField(HeadWriter& writer, std::string_view name) : writer_(writer), name_(name) {}

  // The next value is to be appended to the writer.
  void BeginValue() {
    writer_.Append(open_ ? ", " : name_);
    if (!open_) writer_.Append(": ");
    open_ = true;
  }
  void Add(std::string_view value) {
    if (value.empty()) return;
    BeginValue();
    writer_.Append(value);
  }
  // The fields of that name as they are.
  void AddAll(std::span<const HeaderField> fields) {
    for (const HeaderField& field : fields) {
      if (EqualsIgnoreCase(field.name, name_)) Add(field.value);
    }
  }
  void End() {
    if (open_) writer_.Append("\r\n");
  }

 private:
  HeadWriter& writer_;
  const std::string_view name_;
  bool open_ = false;
};

void WriteXForwarded(HeadWriter& writer, const RequestHead& head, const RequestForwarding& forward) {
  const bool believed = IsBelieved(forward, ForwardedHeader::kXForwarded);
  ListField chain(writer, "X-Forwarded-For");
  if (believed) chain.AddAll(head.fields);
  if (forward.said.address != forward.peer_address) chain.Add(forward.said.address);
  chain.Add(forward.peer_address);
  chain.End();
  if (!believed || !head.FindField("x-forwarded-proto")) {
    writer.AppendField("X-Forwarded-Proto", forward.said.proto.empty() ? forward.proto : forward.said.proto);
  }
  const std::string_view host = forward.said.host.empty() ? head.host : forward.said.host;
  if (!host.empty() && !(believed && head.FindField("x-forwarded-host"))) writer.AppendField("X-Forwarded-Host", host);
}

// RFC 7239 §4: ours behind those of a trusted peer.
void WriteForwardedElements(HeadWriter& writer, const RequestHead& head, const RequestForwarding& forward) {
  ListField elements(writer, "Forwarded");
  if (IsBelieved(forward, ForwardedHeader::kForwarded)) elements.AddAll(head.fields);
  elements.BeginValue();
  const bool six = forward.peer_address.find(':') != std::string_view::npos;
  writer.Append(six ? "for=\"[" : "for=");
  writer.Append(forward.peer_address.empty() ? "unknown" : forward.peer_address);
  if (six) writer.Append("]\"");
  // A quote or a backslash would have to be escaped; no host that the parser takes has one.
  if (!head.host.empty() && head.host.find_first_of("\"\\") == std::string_view::npos) {
    const bool token = IsToken(head.host);
    writer.Append(token ? ";host=" : ";host=\"");
    writer.Append(head.host);
    if (!token) writer.Append("\"");
  }
  writer.Append(";proto=");
  writer.Append(forward.proto);
  elements.End();
}

void WriteForwarded(HeadWriter& writer, const RequestHead& head, const RequestForwarding& forward) {
  WriteXForwarded(writer, head, forward);
  if (forward.header == ForwardedHeader::kForwarded) WriteForwardedElements(writer, head, forward);
  // RFC 9110 §7.6.3: the version that came in.
  writer.AppendField("Via", head.version_minor == 0 ? "1.0 dpa" : "1.1 dpa");
}

bool AcceptsTrailers(const RequestHead& head) {
  for (const HeaderField& field : head.fields) {
    if (!EqualsIgnoreCase(field.name, "te")) continue;
    std::string_view list = field.value;
    std::string_view coding;
    while (NextListElement(list, coding)) {
      if (EqualsIgnoreCase(coding, "trailers")) return true;
    }
  }
  return false;
}

// RFC 9110 §7.8, §10.1.4: Upgrade and TE have to be named in Connection.
void WriteRequestConnection(HeadWriter& writer, const RequestHead& head, const RequestForwarding& forward) {
  const bool upgrade = forward.forward_upgrade && !head.upgrade.empty();
  const bool te = head.version_minor > 0 && AcceptsTrailers(head);
  if (upgrade) writer.AppendField("Upgrade", head.upgrade);
  if (te) writer.AppendField("TE", "trailers");
  if (upgrade || te) writer.AppendField("Connection", upgrade && te ? "Upgrade, TE" : upgrade ? "Upgrade" : "TE");
}

void WriteFraming(HeadWriter& writer, BodyFraming framing, uint64_t content_length) {
  if (framing == BodyFraming::kChunked) writer.Append("Transfer-Encoding: chunked\r\n");
  if (framing == BodyFraming::kContentLength) {
    writer.Append("Content-Length: ");
    writer.AppendNumber(content_length);
    writer.Append("\r\n");
  }
}

void WriteMaxForwards(HeadWriter& writer, uint32_t received) {
  writer.Append("Max-Forwards: ");
  writer.AppendNumber(received > 0 ? received - 1 : 0);
  writer.Append("\r\n");
}

void WriteAdded(HeadWriter& writer, std::span<const HeaderField> added) {
  for (const HeaderField& field : added) writer.AppendField(field.name, field.value);
  writer.Append("\r\n");
}

}  // namespace

bool IsHopByHop(std::span<const HeaderField> fields, std::string_view name) {
  if (EqualsIgnoreCase(name, "content-length") || EqualsIgnoreCase(name, "host")) return false;
  return IsConnectionField(name) || ConnectionOptions(fields).Names(name);
}

std::optional<uint32_t> MaxForwards(const RequestHead& head) {
  if (head.method != kOptions) return std::nullopt;
  const HeaderField* field = head.FindField(kMaxForwards);
  if (!field || field->value.empty() || !AllOf(field->value, byte_class::kDigit)) return std::nullopt;
  uint32_t count = 0;
  const char* const end = field->value.data() + field->value.size();
  // RFC 9110 §7.6.2: more than we can count is the most that we can.
  const bool fits = std::from_chars(field->value.data(), end, count).ec == std::errc();
  return fits ? count : std::numeric_limits<uint32_t>::max();
}

size_t RequestHeadBytesMax(const RequestHead& head, const RequestForwarding& forward) {
  // Names, separators and numbers of the fields that are written whatever the client sends.
  constexpr size_t kOurOwnBytesMax = 512;
  // The host stands in Host, X-Forwarded-Host and Forwarded, the peer's address in X-Forwarded-For and Forwarded.
  size_t bytes = kOurOwnBytesMax + head.method.size() + head.target.size() + forward.path_prefix.size() +
                 3 * head.host.size() + forward.default_host.size() + head.upgrade.size() +
                 2 * forward.peer_address.size() + 2 * forward.proto.size() + forward.said.address.size() +
                 forward.said.proto.size() + forward.said.host.size();
  // "name:value" may become "name: value".
  for (const HeaderField& field : head.fields) bytes += field.name.size() + field.value.size() + 4;
  for (const HeaderField& field : forward.added) bytes += field.name.size() + field.value.size() + 4;
  return bytes;
}

void WriteRequestHead(HeadWriter& writer, const RequestHead& head, const RequestForwarding& forward) {
  const ConnectionOptions options(head.fields);
  WriteRequestLine(writer, head, forward);
  const std::optional<uint32_t> max_forwards = MaxForwards(head);
  bool host_written = false;
  for (const HeaderField& field : head.fields) {
    const Treatment treatment = TreatmentOf(field.name, head, forward, options);
    if (treatment == Treatment::kCopy) writer.AppendField(field.name, field.value);
    if (treatment == Treatment::kHost && !host_written) {
      writer.AppendField(field.name, head.host);
      host_written = true;
    }
  }
  if (max_forwards) WriteMaxForwards(writer, *max_forwards);
  if (!host_written) writer.AppendField("Host", head.host.empty() ? forward.default_host : head.host);
  WriteForwarded(writer, head, forward);
  WriteRequestConnection(writer, head, forward);
  WriteFraming(writer, head.framing, head.content_length);
  WriteAdded(writer, forward.added);
}

// --- The response
// ----------------------------------------------------------------------------------------------------------

ResponseFraming ChooseResponseFraming(const RequestHead& request, const ResponseHead& response,
                                      bool keep_alive_wanted) {
  ResponseFraming framing{response.framing, response.content_length, request.keep_alive && keep_alive_wanted};
  if (response.framing != BodyFraming::kChunked && response.framing != BodyFraming::kUntilClose) return framing;
  framing.content_length = 0;
  framing.framing = request.version_minor > 0 ? BodyFraming::kChunked : BodyFraming::kUntilClose;
  if (framing.framing == BodyFraming::kUntilClose) framing.keep_alive = false;
  return framing;
}

namespace {

void WriteStatusLine(HeadWriter& writer, const ResponseHead& response) {
  writer.Append("HTTP/1.1 ");
  writer.AppendNumber(response.status);
  writer.Append(" ");
  writer.Append(response.reason.empty() ? ReasonPhrase(response.status) : response.reason);
  writer.Append("\r\n");
}

// 101 answers an Upgrade, 426 asks for one (RFC 9110 §15.2.2, §15.5.22).
bool SpeaksOfUpgrade(const ResponseHead& response) { return response.status == 101 || response.status == 426; }

void WriteResponseConnection(HeadWriter& writer, const RequestHead& request, const ResponseHead& response,
                             const ResponseFraming& framing) {
  if (response.interim()) return;
  const bool upgrade = SpeaksOfUpgrade(response) && response.FindField("upgrade");
  if (response.status == 101 || framing.keep_alive) {
    if (upgrade)
      writer.AppendField("Connection", "Upgrade");
    else if (request.version_minor == 0)
      writer.AppendField("Connection", "keep-alive");
    return;
  }
  writer.AppendField("Connection", upgrade ? "Upgrade, close" : "close");
}

// Answers to HEAD and 304 keep the length that a GET would have had (RFC 9110 §8.6); 1xx and 204 may not have one.
void WriteResponseFraming(HeadWriter& writer, const ResponseHead& response, const ResponseFraming& framing) {
  if (framing.framing != BodyFraming::kNone) return WriteFraming(writer, framing.framing, framing.content_length);
  const bool never = response.status < 200 || response.status == 204;
  if (!never && response.has_content_length) WriteFraming(writer, BodyFraming::kContentLength, response.content_length);
}

}  // namespace

void WriteResponseHead(HeadWriter& writer, const RequestHead& request, const ResponseHead& response,
                       const ResponseFraming& framing, std::span<const HeaderField> added) {
  const ConnectionOptions options(response.fields);
  WriteStatusLine(writer, response);
  for (const HeaderField& field : response.fields) {
    const bool upgrade = SpeaksOfUpgrade(response) && EqualsIgnoreCase(field.name, "upgrade");
    const bool drop = IsConnectionField(field.name) || options.Names(field.name) || IsOneOf(added, field.name) ||
                      (framing.framing != BodyFraming::kChunked && EqualsIgnoreCase(field.name, "trailer"));
    if (upgrade || !drop) writer.AppendField(field.name, field.value);
  }
  if (!response.interim()) writer.AppendField("Via", response.version_minor == 0 ? "1.0 dpa" : "1.1 dpa");
  WriteResponseConnection(writer, request, response, framing);
  WriteResponseFraming(writer, response, framing);
  WriteAdded(writer, added);
}

}  // namespace dpa
