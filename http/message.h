// The heads of HTTP/1 messages as the rest of the data plane sees them, and the closed list of what is refused.
//
// Everything here is views: into the bytes that the caller gave to the MessageParser, and (fields) into the parser's
// array. They are good until the caller moves or changes those bytes or resets the parser.

#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

#include "core/result.h"

namespace dpa {

struct HeaderField {
  std::string_view name;   // As sent, case kept.
  std::string_view value;  // Without the white space around it. May be empty; may hold obs-text (bytes >= 0x80).
};

// ASCII only, as field names, methods' fields and codings are compared (RFC 9110 §5.1).
bool EqualsIgnoreCase(std::string_view a, std::string_view b);

// The first field of that name, nullptr if there is none. Case does not matter.
const HeaderField* FindField(std::span<const HeaderField> fields, std::string_view name);

// Takes the next element off a comma-separated list (RFC 9110 §5.6.1), trimmed; empty elements are skipped.
// False: the list is at its end. Quoted strings are not understood: for lists of tokens (Connection, Upgrade, TE …).
bool NextListElement(std::string_view& list, std::string_view& element);

// `value` is one or more token characters (RFC 9110 §5.6.2).
bool IsToken(std::string_view value);

// Where a body ends (RFC 9112 §6.3).
enum class BodyFraming : uint8_t { kNone, kContentLength, kChunked, kUntilClose };
std::string_view ToString(BodyFraming framing);

// RFC 9112 §3.2. The authority form belongs to CONNECT, which is refused.
enum class TargetForm : uint8_t { kOrigin, kAbsolute, kAsterisk };

struct RequestHead {
  std::string_view method;
  std::string_view target;  // As sent. For the log; forward `path` and `query`.
  std::string_view path;    // Never empty: begins with '/', or is "*" (OPTIONS only). Raw: not decoded, not normalised.
  std::string_view query;   // After the '?', without it.
  std::string_view host;    // Of an absolute target, else of the Host field. Empty only for HTTP/1.0 without Host.
  // Value of Upgrade, if it is to be honoured: HTTP/1.1, named in Connection, and without a body. An Upgrade beside a
  // body is ignored, as RFC 9110 §7.8 allows: no byte of a body can then ever be taken for one of the new protocol. So
  // is h2c (RFC 9113 §3.1 withdrew it): inside such a tunnel requests would pass that nobody here has seen.
  std::string_view upgrade;
  std::span<const HeaderField> fields;
  uint64_t content_length = 0;  // 0 unless framing is kContentLength.
  BodyFraming framing = BodyFraming::kNone;
  TargetForm target_form = TargetForm::kOrigin;
  uint8_t version_minor = 1;     // HTTP/1.0 or HTTP/1.1.
  bool has_query = false;        // A '?' was there, even with nothing after it.
  bool keep_alive = true;        // The client expects another request to be possible (RFC 9112 §9.3).
  bool expect_continue = false;  // HTTP/1.1, a body, and `Expect: 100-continue`.

  bool has_body() const { return framing == BodyFraming::kChunked || content_length > 0; }
  const HeaderField* FindField(std::string_view name) const { return dpa::FindField(fields, name); }
};

struct ResponseHead {
  std::string_view reason;  // Reason phrase as sent, possibly empty.
  std::span<const HeaderField> fields;
  uint64_t content_length = 0;  // As declared, when has_content_length. For HEAD and 304: what a GET would have had.
  uint16_t status = 0;          // 100..599.
  BodyFraming framing = BodyFraming::kNone;  // kNone for 1xx, 204, 304 and answers to HEAD, whatever is declared.
  uint8_t version_minor = 1;
  bool has_content_length = false;
  // False also for kUntilClose, and where a declared length contradicts the status (204 with a body).
  bool keep_alive = true;

  bool interim() const { return status < 200 && status != 101; }
  const HeaderField* FindField(std::string_view name) const { return dpa::FindField(fields, name); }
};

// Everything that is refused, in requests and in responses. The list is closed: each has one reason word (metrics,
// access record, answer) and one status. Of an upstream each means 502, and the connection is closed in both cases.
enum class HttpViolation : uint8_t {
  kNone,
  // The bytes of a head.
  kBareCr,        // 400. CR without LF. RFC 9112 §2.2
  kBareLf,        // 400. LF without CR; tolerated by RFC 9112 §2.2, refused here: peers that disagree on lines smuggle.
  kControlByte,   // 400. NUL, other controls, DEL. RFC 9110 §5.5
  kObsFold,       // 400. Line folding, or white space before the first field. RFC 9112 §5.2, §2.2
  kHeadTooLarge,  // 431. RFC 6585 §5
  kFieldsTooMany,  // 431. Or more than 32 options in Connection.
  kHeadMalformed,  // 400. llhttp refuses what our own checks let pass, a HTAB after a length for one. RFC 9112 §2.1
  // The start line.
  kStartLineMalformed,  // 400. RFC 9112 §3, §4
  kMethodInvalid,       // 400. Not a token. RFC 9110 §9.1
  kMethodUnknown,       // 501. A token that is no registered method. RFC 9110 §9.1
  kMethodTrace,         // 405. It reflects credentials. RFC 9110 §9.3.8
  kMethodConnect,       // 501. Nothing here tunnels to an authority of the client's choice. RFC 9110 §9.3.6, §15.6.2
  kTargetInvalid,       // 400. Not of a form for the method, or a byte that no target may hold. RFC 9112 §3.2
  kTargetTooLong,       // 414. Or a start line without end. RFC 9110 §15.5.15
  kVersionUnsupported,  // 505. Neither HTTP/1.0 nor HTTP/1.1. RFC 9110 §15.6.6
  kStatusInvalid,       // 502. Not 100..599. RFC 9110 §15
  // Fields.
  kFieldNameInvalid,  // 400. Not a token, white space before the colon, or Content_Length and the like. RFC 9112 §5.1
  kContentLengthInvalid,     // 400. Not just digits, or beyond 2^63-1. RFC 9110 §8.6
  kContentLengthRepeated,    // 400. Even with equal values. RFC 9112 §6.3
  kLengthWithEncoding,       // 400. Content-Length beside Transfer-Encoding. RFC 9112 §6.1, §6.3
  kTransferEncodingInvalid,  // 400. Empty, chunked twice or not last, with parameters. RFC 9112 §6.1, §7
  kTransferCodingUnknown,    // 501. Any coding but chunked. RFC 9112 §6.1
  kTransferEncodingVersion,  // 400. In HTTP/1.0. RFC 9112 §6.1
  kHostMissing,              // 400. RFC 9112 §3.2
  kHostRepeated,             // 400. RFC 9112 §3.2
  kHostInvalid,              // 400. RFC 9112 §3.2, RFC 9110 §4.2
  kExpectationUnknown,       // 417. RFC 9110 §10.1.1
  // Bodies.
  kChunkSizeInvalid,       // 400. Not hexadecimal, or no line end after it. RFC 9112 §7.1
  kChunkSizeTooLarge,      // 400. More than 15 digits. RFC 9112 §7.1
  kChunkExtensionInvalid,  // 400. Too long, or control bytes. RFC 9112 §7.1.1
  kChunkUnterminated,      // 400. No CRLF after the data. RFC 9112 §7.1
  kTrailerInvalid,         // 400. RFC 9112 §7.1.2
  kTrailersTooLarge,       // 431. RFC 9112 §7.1.2
  kCount,
};

// The status to answer a request with. REQUIRES: not kNone, not kCount.
int StatusOf(HttpViolation violation);
// A word for metrics and log: snake_case, unique. "none" for kNone.
std::string_view ReasonOf(HttpViolation violation);
// kTooLarge, kUnsupported or kMalformed. `source` says whose bytes they were: kDownstream or kUpstream.
Error ErrorOf(HttpViolation violation, ErrorSource source);

}  // namespace dpa
