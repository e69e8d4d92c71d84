#include "grpc_bridge/protobuf_wire.h"

namespace dpa::wire {

bool Reader::Next() {
  if (failed_ || rest_.empty()) return false;
  uint64_t tag = 0;
  if (!ReadVarint(tag) || tag >> 32 != 0 || tag >> 3 == 0) return Fail();
  field_ = static_cast<uint32_t>(tag >> 3);
  type_ = static_cast<Type>(tag & 7);
  switch (type_) {
    case Type::kVarint:
      return ReadVarint(varint_) || Fail();
    case Type::kFixed64:
      return Take(8);
    case Type::kFixed32:
      return Take(4);
    case Type::kBytes: {
      uint64_t length = 0;
      if (!ReadVarint(length) || length > rest_.size()) return Fail();
      return Take(length);
    }
  }
  return Fail();
}

bool Reader::ReadVarint(uint64_t& value) {
  value = 0;
  for (unsigned i = 0; i < 10 && i < rest_.size(); ++i) {
    auto byte = static_cast<uint8_t>(rest_[i]);
    value |= static_cast<uint64_t>(byte & 0x7F) << (7 * i);
    if (byte < 0x80) {
      rest_.remove_prefix(i + 1);
      return true;
    }
  }
  return false;
}

bool Reader::Take(size_t size) {
  if (size > rest_.size()) return Fail();
  bytes_ = rest_.substr(0, size);
  rest_.remove_prefix(size);
  return true;
}

bool Reader::Fail() {
  failed_ = true;
  return false;
}

}  // namespace dpa::wire
