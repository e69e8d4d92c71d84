// Bounds and reuse of the decoder; which bytes mean what is in tests/wire.

#include "http/body_framing.h"

#include <gtest/gtest.h>

#include <string>

namespace dpa {
namespace {

// Decodes all of `input` in pieces; returns the payload.
std::string DecodeAll(BodyDecoder& decoder, std::string_view input, size_t piece = 1 << 20) {
  std::string payload;
  while (!input.empty() && decoder.state() == BodyDecoder::State::kMore) {
    const BodyDecoder::Step step = decoder.Decode(input.substr(0, piece));
    EXPECT_GT(step.consumed, 0u);
    payload += step.payload;
    input.remove_prefix(step.consumed);
  }
  return payload;
}

HttpViolation RefusalOf(const std::string& body, const BodyLimits& limits) {
  BodyDecoder decoder(limits);
  decoder.Start(BodyFraming::kChunked, 0);
  DecodeAll(decoder, body, 3);
  return decoder.violation();
}

TEST(BodyDecoder, IsDoneAtOnceWithoutABody) {
  BodyDecoder decoder;
  decoder.Start(BodyFraming::kNone, 0);
  EXPECT_TRUE(decoder.done());
  decoder.Start(BodyFraming::kContentLength, 0);
  EXPECT_TRUE(decoder.done());
  EXPECT_EQ(decoder.Decode("GET").consumed, 0u);
}

TEST(BodyDecoder, GivesPayloadWithoutCopying) {
  const std::string_view input = "3\r\nabc\r\n2\r\nde\r\n0\r\n\r\nnext";
  BodyDecoder decoder;
  decoder.Start(BodyFraming::kChunked, 0);
  const BodyDecoder::Step first = decoder.Decode(input);
  EXPECT_EQ(first.payload.data(), input.data() + 3);
  EXPECT_EQ(first.payload, "abc");
  const BodyDecoder::Step second = decoder.Decode(input.substr(first.consumed));
  EXPECT_EQ(second.payload, "de");
  // The end is known together with the last payload, and what follows is left alone.
  EXPECT_EQ(second.state, BodyDecoder::State::kDone);
  EXPECT_EQ(input.substr(first.consumed + second.consumed), "next");
  EXPECT_EQ(decoder.payload_bytes(), 5u);
}

TEST(BodyDecoder, TellsATruncatedBodyFromAWholeOne) {
  BodyDecoder decoder;
  decoder.Start(BodyFraming::kContentLength, 5);
  DecodeAll(decoder, "abc");
  EXPECT_EQ(decoder.remaining(), 2u);
  EXPECT_FALSE(decoder.EndOfInput());
  decoder.Start(BodyFraming::kChunked, 0);
  DecodeAll(decoder, "1\r\nx\r\n0\r\n");
  EXPECT_FALSE(decoder.EndOfInput());
  decoder.Start(BodyFraming::kUntilClose, 0);
  DecodeAll(decoder, "abc");
  EXPECT_FALSE(decoder.done());
  EXPECT_TRUE(decoder.EndOfInput());
}

TEST(BodyDecoder, TakesLengthsBeyond32Bits) {
  BodyDecoder decoder;
  decoder.Start(BodyFraming::kContentLength, uint64_t{5} << 32);
  DecodeAll(decoder, std::string(1000, 'x'));
  EXPECT_EQ(decoder.remaining(), (uint64_t{5} << 32) - 1000);
  decoder.Start(BodyFraming::kChunked, 0);
  DecodeAll(decoder, "FFFFFFFFFFFFFFF\r\nx");
  EXPECT_EQ(decoder.violation(), HttpViolation::kNone);
  EXPECT_EQ(decoder.remaining(), (uint64_t{1} << 60) - 2);
}

TEST(BodyDecoder, BoundsTheExtensionsOfAWholeBody) {
  std::string body;
  for (int i = 0; i < 10; ++i) body += "1;" + std::string(99, 'e') + "\r\nx\r\n";
  body += "0\r\n\r\n";
  // Each has ';', 99 bytes and the CR.
  EXPECT_EQ(RefusalOf(body, {.extension_bytes_max = 1010}), HttpViolation::kNone);
  EXPECT_EQ(RefusalOf(body, {.extension_bytes_max = 1009}), HttpViolation::kChunkExtensionInvalid);
}

TEST(BodyDecoder, BoundsTrailersInBytesAndInCount) {
  const std::string body = "0\r\nA: 1\r\nBb: 22\r\n\r\n";
  EXPECT_EQ(RefusalOf(body, {.trailer_bytes_max = 10}), HttpViolation::kNone);
  EXPECT_EQ(RefusalOf(body, {.trailer_bytes_max = 9}), HttpViolation::kTrailersTooLarge);
  EXPECT_EQ(RefusalOf(body, {.trailers_max = 2}), HttpViolation::kNone);
  EXPECT_EQ(RefusalOf(body, {.trailers_max = 1}), HttpViolation::kTrailersTooLarge);
}

TEST(BodyDecoder, ForgetsTheTrailersOfTheBodyBefore) {
  BodyDecoder decoder;
  for (int round = 0; round < 3; ++round) {
    decoder.Start(BodyFraming::kChunked, 0);
    DecodeAll(decoder, "0\r\nA: 1\r\nTransfer-Encoding: chunked\r\nIf-Match: x\r\n\r\n", 2);
    ASSERT_EQ(decoder.trailers().size(), 1u);
    EXPECT_EQ(decoder.trailers()[0].name, "A");
    EXPECT_EQ(decoder.trailers()[0].value, "1");
  }
  decoder.Start(BodyFraming::kChunked, 0);
  DecodeAll(decoder, "0\r\n\r\n");
  EXPECT_TRUE(decoder.trailers().empty());
}

TEST(ChunkHeader, IsReadBackByTheDecoder) {
  for (const uint64_t size : {uint64_t{1}, uint64_t{15}, uint64_t{16}, uint64_t{0xabcdef}, uint64_t{1} << 59}) {
    char header[kChunkHeaderBytesMax];
    const size_t header_size = WriteChunkHeader(header, size);
    BodyDecoder decoder;
    decoder.Start(BodyFraming::kChunked, 0);
    DecodeAll(decoder, std::string_view(header, header_size));
    EXPECT_EQ(decoder.violation(), HttpViolation::kNone);
    EXPECT_EQ(decoder.remaining(), size);
  }
  char header[kChunkHeaderBytesMax];
  EXPECT_EQ(std::string_view(header, WriteChunkHeader(header, UINT64_MAX)), "ffffffffffffffff\r\n");
}

}  // namespace
}  // namespace dpa
