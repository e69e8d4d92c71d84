// BodyDecoder finds the end of a message body, and the payload inside it, in bytes as they arrive (RFC 9112 §6, §7).
//
// Payload is not copied: Decode returns views of the input. Chunked bodies are read by a strict decoder of our own
// rather than llhttp's, which copes with a missing LF and unbounded extensions:
//   size        1..15 hexadecimal digits, nothing before them
//   extension   from ';' (white space before it tolerated) to CRLF; bounded per body; dropped, never forwarded
//   data        exactly size bytes and CRLF
//   trailers    `name: value` CRLF, bounded, kept apart from the header fields; what RFC 9110 §6.5.1 forbids is dropped
// Every line ends with CRLF; a bare CR or LF is a violation.
//
//   for (;;) {
//     BodyDecoder::Step step = decoder.Decode(input);
//     … use step.payload …; input.remove_prefix(step.consumed);
//     if (step.state != BodyDecoder::State::kMore || input.empty()) break;
//   }

#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string_view>

#include "http/message.h"

namespace dpa {

struct BodyLimits {
  uint32_t extension_bytes_max = 4096;  // Of all chunks of one body together: extensions are pure overhead.
  uint16_t trailer_bytes_max = 4096;
  uint16_t trailers_max = 32;
};

class BodyDecoder {
 public:
  enum class State : uint8_t { kMore, kDone, kViolation };

  struct Step {
    size_t consumed = 0;       // Bytes of the input that belong to this body and are dealt with.
    std::string_view payload;  // Inside the input. May be empty.
    State state = State::kMore;
  };

  explicit BodyDecoder(const BodyLimits& limits = {});

  // Begins a body. kNone and a length of 0 are done at once.
  void Start(BodyFraming framing, uint64_t content_length);
  void Start(const RequestHead& head) { Start(head.framing, head.content_length); }
  void Start(const ResponseHead& head) { Start(head.framing, head.content_length); }

  // Takes bytes off the front of `input` and returns at most one piece of payload; call again with the rest. At least
  // one byte is consumed unless the input is empty or the state is not kMore. Bytes after the end are left alone.
  Step Decode(std::string_view input);

  // The peer has closed. True: the body is whole (it was done, or framed by the close). False: it is truncated.
  bool EndOfInput();

  State state() const { return state_; }
  bool done() const { return state_ == State::kDone; }
  HttpViolation violation() const { return violation_; }
  // Payload bytes that are still certain to come; 0 for kUntilClose. For chunked: of the current chunk.
  uint64_t remaining() const { return remaining_; }
  uint64_t payload_bytes() const { return payload_bytes_; }

  // REQUIRES: done. Views into this decoder, good until the next Start.
  std::span<const HeaderField> trailers() const;

 private:
  enum class ChunkState : uint8_t {
    kSizeFirst,
    kSize,
    kSizeSpace,
    kExtension,
    kSizeLf,
    kData,
    kDataCr,
    kDataLf,
    kTrailerFirst,
    kTrailer,
    kTrailerLf,
    kEndLf
  };
  struct Trailers;
  struct TrailersDeleter {
    void operator()(Trailers* trailers) const;
  };

  Step DecodeChunked(std::string_view input);
  HttpViolation FramingByte(char byte);
  HttpViolation SizeByte(char byte);
  HttpViolation ExtensionByte(char byte);
  HttpViolation TrailerByte(char byte);
  HttpViolation EndTrailer();
  void EndSizeLine();

  const BodyLimits limits_;
  State state_ = State::kDone;
  BodyFraming framing_ = BodyFraming::kNone;
  ChunkState chunk_state_ = ChunkState::kSizeFirst;
  HttpViolation violation_ = HttpViolation::kNone;
  uint8_t size_digits_ = 0;
  uint32_t extension_bytes_ = 0;
  uint64_t remaining_ = 0;
  uint64_t payload_bytes_ = 0;
  // Made for the first body that has trailers, kept for later ones.
  std::unique_ptr<Trailers, TrailersDeleter> trailers_;
};

// The line before a chunk's data: hexadecimal size and CRLF. Returns the count of bytes written to `out`.
inline constexpr size_t kChunkHeaderBytesMax = 18;
size_t WriteChunkHeader(char* out, uint64_t size);
inline constexpr std::string_view kChunkEnd = "\r\n";        // After a chunk's data.
inline constexpr std::string_view kLastChunk = "0\r\n\r\n";  // A whole body's end, without trailers.

}  // namespace dpa
