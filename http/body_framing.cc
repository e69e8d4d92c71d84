#include "http/body_framing.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <vector>

#include "core/assert.h"
#include "http/believed_fields.h"
#include "http/bytes.h"

namespace dpa {

namespace {

// 15 hexadecimal digits are below 2^60: no arithmetic on sizes can overflow.
constexpr uint8_t kSizeDigitsMax = 15;

int HexValue(char c) {
  if (IsDigit(c)) return c - '0';
  const char lower = ToLower(c);
  return lower >= 'a' && lower <= 'f' ? lower - 'a' + 10 : -1;
}

// RFC 9110 §6.5.1: what decides framing, routing, authentication, request modifiers, response control or how content is
// read has no business after the body; a recipient that merged it would be told two things.
bool IsForbiddenTrailer(std::string_view name) {
  static constexpr std::string_view kForbidden[] = {"accept-encoding",
                                                    "age",
                                                    "authorization",
                                                    "cache-control",
                                                    "connection",
                                                    "content-encoding",
                                                    "content-length",
                                                    "content-location",
                                                    "content-range",
                                                    "content-type",
                                                    "cookie",
                                                    "date",
                                                    "expect",
                                                    "expires",
                                                    "forwarded",
                                                    "host",
                                                    "keep-alive",
                                                    "location",
                                                    "max-forwards",
                                                    "origin",
                                                    "pragma",
                                                    "proxy-authenticate",
                                                    "proxy-authorization",
                                                    "proxy-connection",
                                                    "range",
                                                    "retry-after",
                                                    "set-cookie",
                                                    "te",
                                                    "traceparent",
                                                    "tracestate",
                                                    "trailer",
                                                    "transfer-encoding",
                                                    "upgrade",
                                                    "vary",
                                                    "via",
                                                    "warning",
                                                    "www-authenticate",
                                                    "x-request-id"};
  static constexpr std::string_view kForbiddenPrefixes[] = {"access-control-", "if-", "impersonate-", "x-grafana-",
                                                            "x-remote-"};
  for (const std::string_view forbidden : kForbidden) {
    if (EqualsIgnoreCase(name, forbidden)) return true;
  }
  for (const std::string_view prefix : kForbiddenPrefixes) {
    if (name.size() >= prefix.size() && EqualsIgnoreCase(name.substr(0, prefix.size()), prefix)) return true;
  }
  return IsIdentityField(name) || IsForwardingField(name);
}

}  // namespace

// The trailer section, collected: its lines may arrive in pieces.
struct BodyDecoder::Trailers {
  explicit Trailers(const BodyLimits& limits) : bytes(std::make_unique<char[]>(limits.trailer_bytes_max)) {
    fields.reserve(limits.trailers_max);
  }

  std::unique_ptr<char[]> bytes;
  size_t size = 0;
  size_t line_begin = 0;
  uint32_t lines_count = 0;
  std::vector<HeaderField> fields;
};

void BodyDecoder::TrailersDeleter::operator()(Trailers* trailers) const { delete trailers; }

BodyDecoder::BodyDecoder(const BodyLimits& limits) : limits_(limits) {}

void BodyDecoder::Start(BodyFraming framing, uint64_t content_length) {
  framing_ = framing;
  chunk_state_ = ChunkState::kSizeFirst;
  violation_ = HttpViolation::kNone;
  size_digits_ = 0;
  extension_bytes_ = 0;
  payload_bytes_ = 0;
  remaining_ = framing == BodyFraming::kContentLength ? content_length : 0;
  const bool empty = framing == BodyFraming::kNone || (framing == BodyFraming::kContentLength && content_length == 0);
  state_ = empty ? State::kDone : State::kMore;
  if (trailers_) {
    trailers_->size = trailers_->line_begin = 0;
    trailers_->lines_count = 0;
    trailers_->fields.clear();
  }
}

BodyDecoder::Step BodyDecoder::Decode(std::string_view input) {
  if (state_ != State::kMore) return {0, {}, state_};
  if (framing_ == BodyFraming::kChunked) return DecodeChunked(input);

  if (framing_ == BodyFraming::kContentLength) {
    input = input.substr(0, remaining_);
    remaining_ -= input.size();
    if (remaining_ == 0) state_ = State::kDone;
  }
  payload_bytes_ += input.size();
  return {input.size(), input, state_};
}

bool BodyDecoder::EndOfInput() {
  if (state_ == State::kMore && framing_ == BodyFraming::kUntilClose) state_ = State::kDone;
  return state_ == State::kDone;
}

std::span<const HeaderField> BodyDecoder::trailers() const {
  DPA_ASSERT(state_ == State::kDone);
  return trailers_ ? std::span<const HeaderField>(trailers_->fields) : std::span<const HeaderField>();
}

// Framing, at most one piece of payload, and the framing behind it: so that the end is known with the last payload.
BodyDecoder::Step BodyDecoder::DecodeChunked(std::string_view input) {
  Step step;
  while (step.consumed < input.size() && state_ == State::kMore) {
    if (chunk_state_ != ChunkState::kData) {
      violation_ = FramingByte(input[step.consumed++]);
      if (violation_ != HttpViolation::kNone) state_ = State::kViolation;
      continue;
    }
    if (!step.payload.empty()) break;
    step.payload = input.substr(step.consumed, remaining_);
    step.consumed += step.payload.size();
    payload_bytes_ += step.payload.size();
    remaining_ -= step.payload.size();
    if (remaining_ == 0) chunk_state_ = ChunkState::kDataCr;
  }
  step.state = state_;
  return step;
}

HttpViolation BodyDecoder::FramingByte(char byte) {
  switch (chunk_state_) {
    case ChunkState::kSizeFirst:
    case ChunkState::kSize:
      return SizeByte(byte);
    case ChunkState::kSizeSpace:
    case ChunkState::kExtension:
      return ExtensionByte(byte);
    case ChunkState::kSizeLf:
      if (byte != '\n') return HttpViolation::kBareCr;
      EndSizeLine();
      return HttpViolation::kNone;
    case ChunkState::kDataCr:
      chunk_state_ = ChunkState::kDataLf;
      return byte == '\r' ? HttpViolation::kNone : HttpViolation::kChunkUnterminated;
    case ChunkState::kDataLf:
      chunk_state_ = ChunkState::kSizeFirst;
      return byte == '\n' ? HttpViolation::kNone : HttpViolation::kChunkUnterminated;
    case ChunkState::kEndLf:
      state_ = State::kDone;
      return byte == '\n' ? HttpViolation::kNone : HttpViolation::kBareCr;
    case ChunkState::kTrailerFirst:
    case ChunkState::kTrailer:
    case ChunkState::kTrailerLf:
      return TrailerByte(byte);
    case ChunkState::kData:
      break;
  }
  DPA_ASSERT(false);
}

HttpViolation BodyDecoder::SizeByte(char byte) {
  if (const int value = HexValue(byte); value >= 0) {
    if (++size_digits_ > kSizeDigitsMax) return HttpViolation::kChunkSizeTooLarge;
    remaining_ = remaining_ * 16 + static_cast<uint64_t>(value);
    chunk_state_ = ChunkState::kSize;
    return HttpViolation::kNone;
  }
  if (byte == '\n') return HttpViolation::kBareLf;
  if (chunk_state_ == ChunkState::kSizeFirst) return HttpViolation::kChunkSizeInvalid;
  if (byte == '\r') {
    chunk_state_ = ChunkState::kSizeLf;
    return HttpViolation::kNone;
  }
  chunk_state_ = ChunkState::kSizeSpace;
  return ExtensionByte(byte);
}

// RFC 9112 §7.1.1: white space is for a bad sender, and only before a ';'.
HttpViolation BodyDecoder::ExtensionByte(char byte) {
  if (++extension_bytes_ > limits_.extension_bytes_max) return HttpViolation::kChunkExtensionInvalid;
  if (byte == '\n') return HttpViolation::kBareLf;
  if (chunk_state_ == ChunkState::kSizeSpace) {
    if (byte == ';') chunk_state_ = ChunkState::kExtension;
    return byte == ';' || byte == ' ' || byte == '\t' ? HttpViolation::kNone : HttpViolation::kChunkSizeInvalid;
  }
  if (byte == '\r') {
    chunk_state_ = ChunkState::kSizeLf;
    return HttpViolation::kNone;
  }
  return IsControlByte(byte) ? HttpViolation::kChunkExtensionInvalid : HttpViolation::kNone;
}

void BodyDecoder::EndSizeLine() {
  chunk_state_ = remaining_ > 0 ? ChunkState::kData : ChunkState::kTrailerFirst;
  size_digits_ = 0;
}

HttpViolation BodyDecoder::TrailerByte(char byte) {
  if (chunk_state_ == ChunkState::kTrailerLf) {
    chunk_state_ = ChunkState::kTrailerFirst;
    return byte == '\n' ? EndTrailer() : HttpViolation::kBareCr;
  }
  if (byte == '\n') return HttpViolation::kBareLf;
  const bool first = chunk_state_ == ChunkState::kTrailerFirst;
  if (byte == '\r') {
    chunk_state_ = first ? ChunkState::kEndLf : ChunkState::kTrailerLf;
    return HttpViolation::kNone;
  }
  if (IsControlByte(byte)) return HttpViolation::kTrailerInvalid;
  if (first && (byte == ' ' || byte == '\t')) return HttpViolation::kObsFold;
  if (!trailers_) trailers_.reset(new Trailers(limits_));
  if (trailers_->size == limits_.trailer_bytes_max) return HttpViolation::kTrailersTooLarge;
  trailers_->bytes[trailers_->size++] = byte;
  chunk_state_ = ChunkState::kTrailer;
  return HttpViolation::kNone;
}

HttpViolation BodyDecoder::EndTrailer() {
  Trailers& trailers = *trailers_;
  if (++trailers.lines_count > limits_.trailers_max) return HttpViolation::kTrailersTooLarge;
  const std::string_view line(trailers.bytes.get() + trailers.line_begin, trailers.size - trailers.line_begin);
  trailers.line_begin = trailers.size;
  const size_t colon = line.find(':');
  if (colon == std::string_view::npos || !IsToken(line.substr(0, colon))) return HttpViolation::kTrailerInvalid;
  const HeaderField field{line.substr(0, colon), TrimBlanks(line.substr(colon + 1))};
  if (!IsForbiddenTrailer(field.name)) trailers.fields.push_back(field);
  return HttpViolation::kNone;
}

size_t WriteChunkHeader(char* out, uint64_t size) {
  static constexpr char kDigits[] = "0123456789abcdef";
  size_t digits = 1;
  while (digits < 16 && (size >> (4 * digits)) != 0) ++digits;
  for (size_t i = 0; i < digits; ++i) out[i] = kDigits[(size >> (4 * (digits - 1 - i))) & 0xF];
  out[digits] = '\r';
  out[digits + 1] = '\n';
  return digits + 2;
}

}  // namespace dpa
