#include "http/header_rewrite.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <cstring>
#include <limits>

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

// '_' counts as '-': backends that put fields into environment variables cannot tell them apart.
bool EqualsFolded(std::string_view name, std::string_view lower) {
  if (name.size() != lower.size()) return false;
  for (size_t i = 0; i < name.size(); ++i) {
    if ((name[i] == '_' ? '-' : ToLower(name[i])) != lower[i]) return false;
  }
  return true;
}

bool StartsWithFolded(std::string_view name, std::string_view lower) {
  return name.size() >= lower.size() && EqualsFolded(name.substr(0, lower.size()), lower);
}

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

enum class Treatment : uint8_t { kCopy, kDrop, kHost, kForwardedFor, kMaxForwards };

constexpr std::string_view kOptions = "OPTIONS";
constexpr std::string_view kMaxForwards = "max-forwards";

bool IsIdentity(std::string_view name) {
  return EqualsFolded(name, "x-remote-user") || EqualsFolded(name, "x-remote-uid") ||
         EqualsFolded(name, "x-remote-group") || StartsWithFolded(name, "x-remote-extra-");
}

bool IsGrafanaIdentity(std::string_view name) {
  return StartsWithFolded(name, "x-webauth-") || EqualsFolded(name, "x-grafana-id") ||
         EqualsFolded(name, "x-grafana-user") || EqualsFolded(name, "x-access-token");
}

Treatment TreatmentOfXField(std::string_view name, bool peer_trusted) {
  if (IsIdentity(name)) return Treatment::kDrop;
  if (EqualsFolded(name, "x-forwarded-for")) return peer_trusted ? Treatment::kForwardedFor : Treatment::kDrop;
  if (peer_trusted) return Treatment::kCopy;
  return StartsWithFolded(name, "x-forwarded-") || IsGrafanaIdentity(name) ? Treatment::kDrop : Treatment::kCopy;
}

Treatment TreatmentOf(std::string_view name, const RequestHead& head, const RequestForwarding& forward,
                      const ConnectionOptions& options) {
  if (name.size() == 4 && EqualsIgnoreCase(name, "host")) return Treatment::kHost;
  if (IsConnectionField(name) || options.Names(name) || IsOneOf(forward.added, name)) return Treatment::kDrop;
  if (name.size() > 2 && ToLower(name.front()) == 'x') return TreatmentOfXField(name, forward.peer_trusted);
  if (!forward.peer_trusted && EqualsIgnoreCase(name, "forwarded")) return Treatment::kDrop;
  // RFC 9110 §10.1.1: of an HTTP/1.0 client, or without a body, it was ignored; as HTTP/1.1 it would be obeyed.
  if ((!forward.forward_expect || !head.expect_continue) && EqualsIgnoreCase(name, "expect")) return Treatment::kDrop;
  // RFC 9110 §6.6.2: it announces trailers, which only chunked has.
  if (head.framing != BodyFraming::kChunked && EqualsIgnoreCase(name, "trailer")) return Treatment::kDrop;
  if (head.method == kOptions && EqualsIgnoreCase(name, kMaxForwards)) return Treatment::kMaxForwards;
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

// One line for the whole list: many backends read only the first.
void WriteForwardedFor(HeadWriter& writer, const RequestHead& head, const RequestForwarding& forward,
                       const ConnectionOptions& options) {
  bool open = false;
  const auto add = [&](std::string_view value) {
    if (value.empty()) return;
    writer.Append(open ? ", " : "X-Forwarded-For: ");
    writer.Append(value);
    open = true;
  };
  for (const HeaderField& field : head.fields) {
    if (TreatmentOf(field.name, head, forward, options) == Treatment::kForwardedFor) add(field.value);
  }
  add(forward.client_address);
  if (open) writer.Append("\r\n");
}

void WriteForwarded(HeadWriter& writer, const RequestHead& head, const RequestForwarding& forward,
                    const ConnectionOptions& options) {
  WriteForwardedFor(writer, head, forward, options);
  const auto believed = [&](std::string_view name) {
    return forward.peer_trusted && head.FindField(name) && !options.Names(name);
  };
  if (!believed("x-forwarded-proto")) writer.AppendField("X-Forwarded-Proto", forward.proto);
  if (!head.host.empty() && !believed("x-forwarded-host")) writer.AppendField("X-Forwarded-Host", head.host);
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
  WriteForwarded(writer, head, forward, options);
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
