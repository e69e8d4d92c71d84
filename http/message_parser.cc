#include "http/message_parser.h"

#include <llhttp.h>

#include <cstring>
#include <limits>

#include "core/assert.h"
#include "http/bytes.h"

namespace dpa {

namespace {

// Each names a field to remove, so their count times that of the fields is work.
constexpr uint32_t kConnectionOptionsMax = 32;
// What the start line holds beside the target: the longest method, two blanks, the version, and some grace, so that a
// start line without end is refused as a long target and not only as a large head.
constexpr uint32_t kStartLineExtraBytes = 64;
constexpr uint64_t kContentLengthMax = std::numeric_limits<int64_t>::max();

// Index of the first byte at or after `at` that is a control byte (CR and LF among them), or input.size(). Eight at a
// time: nearly all of a head is free of them.
size_t FindControl(std::string_view input, size_t at) {
  constexpr uint64_t kOnes = 0x0101010101010101u;
  constexpr uint64_t kHighs = kOnes * 0x80;
  while (at + 8 <= input.size()) {
    uint64_t word;
    std::memcpy(&word, input.data() + at, 8);
    // Both are exact in that they are zero when no byte qualifies; HTAB and borrows are sorted out bytewise.
    const uint64_t below_space = (word - kOnes * 0x20) & ~word & kHighs;
    const uint64_t xor_del = word ^ (kOnes * 0x7F);
    const uint64_t is_del = (xor_del - kOnes) & ~xor_del & kHighs;
    if ((below_space | is_del) == 0) {
      at += 8;
      continue;
    }
    for (const size_t end = at + 8; at < end; ++at) {
      if (IsControlByte(input[at])) return at;
    }
  }
  while (at < input.size() && !IsControlByte(input[at])) ++at;
  return at;
}

// RFC 9110 §8.6: digits and nothing else; no sign, blank, list or overflow.
bool ParseContentLength(std::string_view value, uint64_t& length) {
  if (value.empty() || value.size() > 19) return false;
  length = 0;
  for (const char c : value) {
    if (!IsDigit(c)) return false;
    length = length * 10 + static_cast<uint64_t>(c - '0');
  }
  return length <= kContentLengthMax;
}

// RFC 9110 §4.2.1, §7.2: host [":" port], with more care than RFC 3986: no user information, no percent-encoding, and
// nothing that a list or another parser could cut at.
bool IsHost(std::string_view value) {
  size_t host_end;
  if (value.starts_with('[')) {
    const size_t close = value.find(']');
    if (close == std::string_view::npos || close < 3) return false;
    for (const char c : value.substr(1, close - 1)) {
      const char lower = ToLower(c);
      if (!IsDigit(c) && !(lower >= 'a' && lower <= 'f') && c != ':' && c != '.') return false;
    }
    host_end = close + 1;
  } else {
    host_end = std::min(value.find(':'), value.size());
    if (host_end == 0 || !AllOf(value.substr(0, host_end), byte_class::kHost)) return false;
  }
  if (host_end == value.size()) return true;
  if (value[host_end] != ':') return false;
  const std::string_view port = value.substr(host_end + 1);
  uint64_t number = 0;
  return port.empty() || (port.size() <= 5 && ParseContentLength(port, number) && number <= 65'535);
}

// The methods that llhttp knows for HTTP: the registry's, more or less (RFC 9110 §16.1.1).
bool IsKnownMethod(std::string_view method) {
  static constexpr std::string_view kMethods[] = {
      "GET",    "HEAD",      "POST",        "PUT",      "DELETE",     "PATCH",    "OPTIONS", "COPY",
      "LOCK",   "MKCOL",     "MOVE",        "PROPFIND", "PROPPATCH",  "SEARCH",   "UNLOCK",  "BIND",
      "REBIND", "UNBIND",    "ACL",         "REPORT",   "MKACTIVITY", "CHECKOUT", "MERGE",   "M-SEARCH",
      "NOTIFY", "SUBSCRIBE", "UNSUBSCRIBE", "PURGE",    "MKCALENDAR", "LINK",     "UNLINK"};
  for (const std::string_view known : kMethods) {
    if (known == method) return true;
  }
  return false;
}

HttpViolation CheckMethod(std::string_view method) {
  if (method == "TRACE") return HttpViolation::kMethodTrace;
  if (method == "CONNECT") return HttpViolation::kMethodConnect;
  if (!IsToken(method)) return HttpViolation::kMethodInvalid;
  return IsKnownMethod(method) ? HttpViolation::kNone : HttpViolation::kMethodUnknown;
}

// RFC 9112 §2.3: HTTP-name is case-sensitive, one digit each. Sets `minor`.
HttpViolation CheckVersion(std::string_view version, uint8_t& minor) {
  if (version.size() != 8 || !version.starts_with("HTTP/") || !IsDigit(version[5]) || version[6] != '.' ||
      !IsDigit(version[7])) {
    return HttpViolation::kStartLineMalformed;
  }
  if (version[5] != '1' || version[7] > '1') return HttpViolation::kVersionUnsupported;
  minor = static_cast<uint8_t>(version[7] - '0');
  return HttpViolation::kNone;
}

void SplitQuery(std::string_view path_and_query, RequestHead& head) {
  const size_t mark = path_and_query.find('?');
  head.has_query = mark != std::string_view::npos;
  head.path = path_and_query.substr(0, mark);
  if (head.has_query) head.query = path_and_query.substr(mark + 1);
}

// "http://authority[/path][?query]". The fragment is excluded by the bytes already. The authority takes the place of
// Host.
HttpViolation ParseAbsoluteTarget(std::string_view target, RequestHead& head) {
  const size_t colon = target.find("://");
  if (colon == std::string_view::npos) return HttpViolation::kTargetInvalid;
  const std::string_view scheme = target.substr(0, colon);
  if (!EqualsIgnoreCase(scheme, "http") && !EqualsIgnoreCase(scheme, "https")) return HttpViolation::kTargetInvalid;
  const std::string_view rest = target.substr(colon + 3);
  const size_t authority_end = std::min(rest.find_first_of("/?"), rest.size());
  if (!IsHost(rest.substr(0, authority_end))) return HttpViolation::kTargetInvalid;
  head.target_form = TargetForm::kAbsolute;
  head.host = rest.substr(0, authority_end);
  SplitQuery(rest.substr(authority_end), head);
  // RFC 9112 §3.2.4: OPTIONS without a path means the server as a whole.
  if (head.path.empty()) head.path = head.method == "OPTIONS" && !head.has_query ? "*" : "/";
  return HttpViolation::kNone;
}

HttpViolation ParseTarget(std::string_view target, RequestHead& head) {
  if (target.empty() || !AllOf(target, byte_class::kTarget)) return HttpViolation::kTargetInvalid;
  head.target = target;
  if (target.front() == '/') {
    head.target_form = TargetForm::kOrigin;
    SplitQuery(target, head);
    return HttpViolation::kNone;
  }
  if (target == "*") {
    head.target_form = TargetForm::kAsterisk;
    head.path = target;
    return head.method == "OPTIONS" ? HttpViolation::kNone : HttpViolation::kTargetInvalid;
  }
  return ParseAbsoluteTarget(target, head);
}

// Start lines, checked first when they are whole and parsed into the head when everything is.
HttpViolation ParseRequestLine(std::string_view line, uint32_t target_bytes_max, RequestHead& head) {
  const size_t method_end = line.find(' ');
  const size_t version_begin = line.rfind(' ');
  if (method_end == std::string_view::npos || method_end == 0) {
    return HttpViolation::kStartLineMalformed;
  }
  head.method = line.substr(0, method_end);
  if (const HttpViolation fault = CheckMethod(head.method); fault == HttpViolation::kMethodInvalid) return fault;
  if (method_end == version_begin) return HttpViolation::kStartLineMalformed;  // HTTP/0.9, or no target.
  if (const HttpViolation fault = CheckVersion(line.substr(version_begin + 1), head.version_minor);
      fault != HttpViolation::kNone) {
    return fault;
  }
  if (const HttpViolation fault = CheckMethod(head.method); fault != HttpViolation::kNone) return fault;
  const std::string_view target = line.substr(method_end + 1, version_begin - method_end - 1);
  if (target.size() > target_bytes_max) return HttpViolation::kTargetTooLong;
  return ParseTarget(target, head);
}

// RFC 9112 §4. The blank after the status may be missing when there is no reason phrase: many servers leave it out.
HttpViolation ParseStatusLine(std::string_view line, ResponseHead& head) {
  if (line.size() < 12 || line[8] != ' ' || (line.size() > 12 && line[12] != ' '))
    return HttpViolation::kStartLineMalformed;
  if (const HttpViolation fault = CheckVersion(line.substr(0, 8), head.version_minor); fault != HttpViolation::kNone) {
    return fault;
  }
  if (!IsDigit(line[9]) || !IsDigit(line[10]) || !IsDigit(line[11])) return HttpViolation::kStatusInvalid;
  head.status = static_cast<uint16_t>((line[9] - '0') * 100 + (line[10] - '0') * 10 + (line[11] - '0'));
  if (head.status < 100 || head.status > 599) return HttpViolation::kStatusInvalid;
  head.reason = line.size() > 13 ? line.substr(13) : std::string_view();
  return HttpViolation::kNone;
}

// --- llhttp
// ----------------------------------------------------------------------------------------------------------------

// Collects the fields of one head. llhttp gives pieces of names and values; within one call they are contiguous.
struct FieldCollector {
  llhttp_t llhttp{};
  HeaderField* fields;
  uint16_t fields_max;
  uint16_t count = 0;
  bool name_open = false;
  bool complete = false;
  bool broken = false;  // Pieces that do not touch.

  void Extend(std::string_view& view, const char* at, size_t size) {
    if (view.data() == nullptr) {
      view = {at, size};
    } else if (view.data() + view.size() == at) {
      view = {view.data(), view.size() + size};
    } else {
      broken = true;
    }
  }
};

FieldCollector& CollectorOf(llhttp_t* llhttp) { return *static_cast<FieldCollector*>(llhttp->data); }

int OnFieldName(llhttp_t* llhttp, const char* at, size_t size) {
  FieldCollector& collector = CollectorOf(llhttp);
  if (!collector.name_open) {
    if (collector.count == collector.fields_max) return HPE_USER;
    collector.fields[collector.count++] = HeaderField{};
    collector.name_open = true;
  }
  collector.Extend(collector.fields[collector.count - 1].name, at, size);
  return 0;
}

int OnFieldValue(llhttp_t* llhttp, const char* at, size_t size) {
  FieldCollector& collector = CollectorOf(llhttp);
  collector.name_open = false;
  if (collector.count == 0) return HPE_USER;
  collector.Extend(collector.fields[collector.count - 1].value, at, size);
  return 0;
}

int OnFieldNameComplete(llhttp_t* llhttp) {
  CollectorOf(llhttp).name_open = false;
  return 0;
}

int OnHeadComplete(llhttp_t* llhttp) {
  CollectorOf(llhttp).complete = true;
  return HPE_PAUSED;  // Bodies are BodyDecoder's.
}

const llhttp_settings_t& Settings() {
  static const llhttp_settings_t kSettings = [] {
    llhttp_settings_t settings;
    llhttp_settings_init(&settings);
    settings.on_header_field = OnFieldName;
    settings.on_header_field_complete = OnFieldNameComplete;
    settings.on_header_value = OnFieldValue;
    settings.on_headers_complete = OnHeadComplete;
    return settings;
  }();
  return kSettings;
}

// --- Fields that mean something to a proxy
// ---------------------------------------------------------------------------------

struct ConnectionOptions {
  bool close = false;
  bool keep_alive = false;
  bool upgrade = false;
};

// The same for who takes '_' for '-', as CGI and its descendants do (RFC 3875 §4.1.18). `lower` has no '_'.
bool LooksLike(std::string_view name, std::string_view lower) {
  for (size_t i = 0; i < lower.size(); ++i) {
    if (name[i] != '_' ? ToLower(name[i]) != lower[i] : lower[i] != '-') return false;
  }
  return true;
}

// One pass over the fields: those that decide framing, routing and the life of the connection.
struct FramingFields {
  uint32_t length_count = 0;
  uint32_t encoding_count = 0;
  uint32_t chunked_count = 0;
  uint32_t host_count = 0;
  uint32_t options_count = 0;
  uint64_t content_length = 0;
  std::string_view host;
  std::string_view expect;
  std::string_view upgrade;
  ConnectionOptions connection;
  bool has_look_alike = false;  // Content_Length or Transfer_Encoding.
  HttpViolation fault = HttpViolation::kNone;

  void Fault(HttpViolation violation) {
    if (fault == HttpViolation::kNone) fault = violation;
  }
  void Visit(const HeaderField& field);
  void VisitExpect(std::string_view value);
  void VisitTransferEncoding(std::string_view value);
  void VisitConnection(std::string_view value);
  HttpViolation CheckFraming(uint8_t version_minor) const;
};

void FramingFields::Visit(const HeaderField& field) {
  // By length first: most fields are none of these.
  switch (field.name.size()) {
    case 4:
      if (EqualsIgnoreCase(field.name, "host")) ++host_count, host = field.value;
      break;
    case 6:
      if (EqualsIgnoreCase(field.name, "expect")) VisitExpect(field.value);
      break;
    case 7:
      if (EqualsIgnoreCase(field.name, "upgrade") && upgrade.empty()) upgrade = field.value;
      break;
    case 10:
      if (EqualsIgnoreCase(field.name, "connection")) VisitConnection(field.value);
      break;
    case 14:
      if (!EqualsIgnoreCase(field.name, "content-length")) {
        has_look_alike |= LooksLike(field.name, "content-length");
        break;
      }
      ++length_count;
      if (!ParseContentLength(field.value, content_length)) Fault(HttpViolation::kContentLengthInvalid);
      break;
    case 17:
      if (EqualsIgnoreCase(field.name, "transfer-encoding")) {
        VisitTransferEncoding(field.value);
      } else {
        has_look_alike |= LooksLike(field.name, "transfer-encoding");
      }
      break;
    default:
      break;
  }
}

// Two that differ are one that is unknown.
void FramingFields::VisitExpect(std::string_view value) {
  const bool agrees = !value.empty() && (expect.empty() || EqualsIgnoreCase(expect, value));
  expect = agrees ? value : "?";
}

void FramingFields::VisitConnection(std::string_view value) {
  std::string_view option;
  while (NextListElement(value, option)) {
    if (++options_count > kConnectionOptionsMax) return Fault(HttpViolation::kFieldsTooMany);
    connection.close |= EqualsIgnoreCase(option, "close");
    connection.keep_alive |= EqualsIgnoreCase(option, "keep-alive");
    connection.upgrade |= EqualsIgnoreCase(option, "upgrade");
  }
}

void FramingFields::VisitTransferEncoding(std::string_view value) {
  ++encoding_count;
  if (value.empty()) Fault(HttpViolation::kTransferEncodingInvalid);
  // An empty element, a parameter, anything after chunked: no sender of good faith writes that.
  while (!value.empty()) {
    const size_t comma = value.find(',');
    const std::string_view coding = TrimBlanks(value.substr(0, comma));
    const bool last = comma == std::string_view::npos;
    if (!IsToken(coding) || chunked_count > 0) {
      Fault(HttpViolation::kTransferEncodingInvalid);
    } else if (EqualsIgnoreCase(coding, "chunked")) {
      ++chunked_count;
      if (!last) Fault(HttpViolation::kTransferEncodingInvalid);
    } else {
      Fault(HttpViolation::kTransferCodingUnknown);
    }
    value = last ? std::string_view() : value.substr(comma + 1);
    if (!last && value.empty()) Fault(HttpViolation::kTransferEncodingInvalid);
  }
}

HttpViolation FramingFields::CheckFraming(uint8_t version_minor) const {
  if (length_count > 0 && encoding_count > 0) return HttpViolation::kLengthWithEncoding;
  if (encoding_count > 0 && version_minor == 0) return HttpViolation::kTransferEncodingVersion;
  if (length_count > 1) return HttpViolation::kContentLengthRepeated;
  return fault;
}

FramingFields VisitAll(std::span<const HeaderField> fields) {
  FramingFields framing;
  for (const HeaderField& field : fields) framing.Visit(field);
  return framing;
}

// RFC 9112 §9.3.
bool PersistentBy(const ConnectionOptions& connection, uint8_t version_minor) {
  if (connection.close) return false;
  return version_minor > 0 || connection.keep_alive;
}

bool Offers(std::string_view upgrade, std::string_view protocol) {
  std::string_view element;
  while (NextListElement(upgrade, element)) {
    if (EqualsIgnoreCase(element, protocol)) return true;
  }
  return false;
}

// Names what llhttp refused in lines that are whole and free of control bytes: its own codes are the same for a name
// and a value, for a repeated length and one beside an encoding. `lines` are the field lines; `fields` is room for as
// many. Only on refusal.
HttpViolation ExplainRefusal(std::string_view lines, HeaderField* fields, llhttp_errno_t error) {
  size_t count = 0;
  for (size_t end; (end = lines.find("\r\n")) != 0 && end != std::string_view::npos; lines.remove_prefix(end + 2)) {
    const std::string_view line = lines.substr(0, end);
    const size_t colon = std::min(line.find(':'), line.size());
    if (colon == line.size() || !IsToken(line.substr(0, colon))) return HttpViolation::kFieldNameInvalid;
    fields[count++] = HeaderField{line.substr(0, colon), TrimBlanks(line.substr(colon + 1))};
  }
  const HttpViolation fault = VisitAll({fields, count}).CheckFraming(1);
  if (fault != HttpViolation::kNone) return fault;
  return error == HPE_INVALID_URL ? HttpViolation::kTargetInvalid : HttpViolation::kHeadMalformed;
}

HttpViolation CheckHost(const FramingFields& framing, uint8_t version_minor) {
  if (framing.host_count > 1) return HttpViolation::kHostRepeated;
  if (framing.host_count == 0) return version_minor > 0 ? HttpViolation::kHostMissing : HttpViolation::kNone;
  return IsHost(framing.host) ? HttpViolation::kNone : HttpViolation::kHostInvalid;
}

}  // namespace

// --- MessageParser
// ---------------------------------------------------------------------------------------------------------

MessageParser::MessageParser(Role role, const ParserLimits& limits)
    : role_(role), limits_(limits), fields_(std::make_unique<HeaderField[]>(limits.fields_max)) {}

void MessageParser::Reset() {
  violation_ = HttpViolation::kNone;
  complete_ = false;
  answers_head_ = false;
  scanned_ = line_begin_ = start_begin_ = start_end_ = lines_count_ = head_size_ = 0;
  request_ = RequestHead{};
  response_ = ResponseHead{};
}

void MessageParser::SetRequestMethod(std::string_view method) { answers_head_ = method == "HEAD"; }

const RequestHead& MessageParser::request() const {
  DPA_ASSERT(role_ == Role::kRequest && complete_);
  return request_;
}

const ResponseHead& MessageParser::response() const {
  DPA_ASSERT(role_ == Role::kResponse && complete_);
  return response_;
}

bool MessageParser::started() const { return scanned_ > start_begin_; }

ParseStatus MessageParser::Feed(std::string_view head_so_far) {
  DPA_ASSERT(!complete_ && violation_ == HttpViolation::kNone);
  DPA_ASSERT(head_so_far.size() >= scanned_);
  violation_ = ScanLines(head_so_far.substr(0, limits_.head_bytes_max));
  if (violation_ == HttpViolation::kNone && head_size_ == 0) return ParseStatus::kNeedMore;
  if (violation_ == HttpViolation::kNone) violation_ = SplitFields(head_so_far.substr(0, head_size_));
  if (violation_ == HttpViolation::kNone) violation_ = role_ == Role::kRequest ? FinishRequest() : FinishResponse();
  complete_ = violation_ == HttpViolation::kNone;
  return complete_ ? ParseStatus::kComplete : ParseStatus::kViolation;
}

// Goes on from where the last call stopped, to the end of the head or of the input. A CR is dealt with only together
// with the byte after it, so a cut between CR and LF changes nothing.
HttpViolation MessageParser::ScanLines(std::string_view input) {
  while (head_size_ == 0) {
    const size_t at = FindControl(input, scanned_);
    scanned_ = static_cast<uint32_t>(at);
    if (start_end_ == 0 && at - start_begin_ > limits_.target_bytes_max + kStartLineExtraBytes) {
      return role_ == Role::kRequest ? HttpViolation::kTargetTooLong : HttpViolation::kHeadTooLarge;
    }
    if (scanned_ > line_begin_ && line_begin_ > start_begin_ &&
        (input[line_begin_] == ' ' || input[line_begin_] == '\t')) {
      return HttpViolation::kObsFold;
    }
    if (at == input.size()) break;
    if (input[at] == '\n') return HttpViolation::kBareLf;
    if (input[at] != '\r') return HttpViolation::kControlByte;
    if (at + 1 == input.size()) break;
    if (input[at + 1] != '\n') return HttpViolation::kBareCr;
    if (const HttpViolation fault = EndLine(input, at); fault != HttpViolation::kNone) return fault;
  }
  return head_size_ == 0 && input.size() >= limits_.head_bytes_max ? HttpViolation::kHeadTooLarge
                                                                   : HttpViolation::kNone;
}

// `line_end` is the CR's.
HttpViolation MessageParser::EndLine(std::string_view input, size_t line_end) {
  const std::string_view line = input.substr(line_begin_, line_end - line_begin_);
  const uint32_t next = static_cast<uint32_t>(line_end) + 2;
  scanned_ = line_begin_ = next;
  if (start_end_ != 0) {
    if (line.empty()) {
      head_size_ = next;
    } else if (++lines_count_ > limits_.fields_max) {
      return HttpViolation::kFieldsTooMany;
    }
    return HttpViolation::kNone;
  }
  if (line.empty()) {
    // RFC 9112 §2.2: one empty line, as some clients send after a body.
    if (role_ == Role::kResponse || start_begin_ != 0) return HttpViolation::kStartLineMalformed;
    start_begin_ = next;
    return HttpViolation::kNone;
  }
  start_end_ = static_cast<uint32_t>(line_end);
  return ParseStartLine(input);
}

HttpViolation MessageParser::ParseStartLine(std::string_view input) {
  start_line_base_ = input.data();
  const std::string_view line = input.substr(start_begin_, start_end_ - start_begin_);
  return role_ == Role::kRequest ? ParseRequestLine(line, limits_.target_bytes_max, request_)
                                 : ParseStatusLine(line, response_);
}

// The second judge. The input ends with the empty line; whatever llhttp makes of it has to be as many fields as we saw
// lines.
HttpViolation MessageParser::SplitFields(std::string_view head) {
  FieldCollector collector{.fields = fields_.get(), .fields_max = limits_.fields_max};
  llhttp_init(&collector.llhttp, role_ == Role::kRequest ? HTTP_REQUEST : HTTP_RESPONSE, &Settings());
  collector.llhttp.data = &collector;
  const llhttp_errno_t error =
      llhttp_execute(&collector.llhttp, head.data() + start_begin_, head.size() - start_begin_);
  if (!collector.complete || error != HPE_PAUSED) {
    return ExplainRefusal(head.substr(start_end_ + 2), fields_.get(), error);
  }
  if (collector.broken || collector.count != lines_count_) return HttpViolation::kHeadMalformed;

  const std::span<HeaderField> fields(fields_.get(), collector.count);
  for (HeaderField& field : fields) {
    field.value = TrimBlanks(field.value);
    if (!IsToken(field.name) || field.name.data()[field.name.size()] != ':') return HttpViolation::kFieldNameInvalid;
  }
  if (head.data() != start_line_base_) {
    const HttpViolation fault = ParseStartLine(head);
    DPA_ASSERT(fault == HttpViolation::kNone);
  }
  request_.fields = fields;
  response_.fields = fields;
  return HttpViolation::kNone;
}

HttpViolation MessageParser::FinishRequest() {
  RequestHead& head = request_;
  const FramingFields framing = VisitAll(head.fields);
  if (const HttpViolation fault = framing.CheckFraming(head.version_minor); fault != HttpViolation::kNone) return fault;
  // A body that only a backend sees. Responses may have such a field: clients do not fold names.
  if (framing.has_look_alike) return HttpViolation::kFieldNameInvalid;
  if (const HttpViolation fault = CheckHost(framing, head.version_minor); fault != HttpViolation::kNone) return fault;
  // RFC 9112 §3.2.2: the target's own authority takes the place of Host, which still had to be valid.
  if (head.target_form != TargetForm::kAbsolute) head.host = framing.host;

  head.content_length = framing.content_length;
  if (framing.length_count > 0) head.framing = BodyFraming::kContentLength;
  if (framing.chunked_count > 0) head.framing = BodyFraming::kChunked;
  head.keep_alive = PersistentBy(framing.connection, head.version_minor);
  const bool modern = head.version_minor > 0;
  if (modern && framing.connection.upgrade && !head.has_body() && !Offers(framing.upgrade, "h2c")) {
    head.upgrade = framing.upgrade;
  }

  if (framing.expect.empty() || !modern) return HttpViolation::kNone;
  if (!EqualsIgnoreCase(framing.expect, "100-continue")) return HttpViolation::kExpectationUnknown;
  head.expect_continue = head.has_body();
  return HttpViolation::kNone;
}

// RFC 9112 §6.3, in its order.
HttpViolation MessageParser::FinishResponse() {
  ResponseHead& head = response_;
  const FramingFields framing = VisitAll(head.fields);
  if (const HttpViolation fault = framing.CheckFraming(head.version_minor); fault != HttpViolation::kNone) return fault;

  head.has_content_length = framing.length_count > 0;
  head.content_length = framing.content_length;
  head.keep_alive = PersistentBy(framing.connection, head.version_minor);
  const bool never_a_body = head.status < 200 || head.status == 204;
  if (never_a_body || head.status == 304 || answers_head_) {
    head.framing = BodyFraming::kNone;
    // Such a server may well send that body too: its next bytes are not to be trusted.
    if (never_a_body && (framing.chunked_count > 0 || framing.content_length > 0)) head.keep_alive = false;
  } else if (framing.chunked_count > 0) {
    head.framing = BodyFraming::kChunked;
  } else if (head.has_content_length) {
    head.framing = BodyFraming::kContentLength;
  } else {
    head.framing = BodyFraming::kUntilClose;
    head.keep_alive = false;
  }
  return HttpViolation::kNone;
}

}  // namespace dpa
