// SendPieces lays out one gathered send of a part of a message: head, chunk line, payload, chunk end, last chunk.
//
// Both directions of the relay use it. Nothing is copied but the descriptors of the pieces.

#pragma once

#include <sys/uio.h>

#include <array>
#include <cstddef>
#include <span>
#include <string_view>

#include "core/byte_buffer.h"
#include "http/body_framing.h"
#include "http/message_reader.h"

namespace dpa {

class SendPieces {
 public:
  static constexpr size_t kPayloadMax = 16;              // A run of a MessageReader.
  static constexpr size_t kPiecesMax = kPayloadMax + 6;  // And what stands around it.

  void Clear() { count_ = 0; }
  void Add(std::string_view bytes);
  // Adds `pieces`, in chunked framing if `chunked`, and the end of the body if `pieces.last`. `trailers` takes the
  // trailers while they are sent. REQUIRES: at most kPayloadMax of them; once between two Clear().
  void AddBody(const BodyPieces& pieces, bool chunked, ByteBuffer& trailers);

  std::span<iovec> pieces() { return {pieces_.data(), count_}; }
  bool empty() const { return count_ == 0; }

 private:
  std::array<iovec, kPiecesMax> pieces_;
  size_t count_ = 0;
  std::array<char, kChunkHeaderBytesMax> chunk_header_;
};

}  // namespace dpa
