#include "http/send_pieces.h"

#include "core/assert.h"

namespace dpa {
namespace {

void WriteTrailers(std::span<const HeaderField> trailers, ByteBuffer& out) {
  out.Clear();
  for (const HeaderField& trailer : trailers) {
    out.Append(trailer.name);
    out.Append(": ");
    out.Append(trailer.value);
    out.Append("\r\n");
  }
}

}  // namespace

void SendPieces::Add(std::string_view bytes) {
  DPA_ASSERT(count_ < kPiecesMax);
  if (!bytes.empty()) pieces_[count_++] = {const_cast<char*>(bytes.data()), bytes.size()};
}

void SendPieces::AddBody(const BodyPieces& pieces, bool chunked, ByteBuffer& trailers) {
  DPA_ASSERT(pieces.pieces.size() <= kPayloadMax);
  const bool framed = chunked && pieces.bytes != 0;  // A chunk of no bytes would end the body.
  if (framed) Add({chunk_header_.data(), WriteChunkHeader(chunk_header_.data(), pieces.bytes)});
  for (const iovec& piece : pieces.pieces) pieces_[count_++] = piece;
  if (framed) Add(kChunkEnd);
  if (!chunked || !pieces.last) return;
  if (pieces.trailers.empty()) return Add(kLastChunk);
  WriteTrailers(pieces.trailers, trailers);
  Add("0\r\n");
  Add(trailers.view());
  Add("\r\n");
}

}  // namespace dpa
