// Protobuf's wire format, as far as messages that are written or walked by hand need it: a writer that appends to a
// string and a reader that hands out views without copying. (Authority: protobuf.dev, "Encoding".)

#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace dpa::wire {

enum class Type : uint8_t { kVarint = 0, kFixed64 = 1, kBytes = 2, kFixed32 = 5 };

constexpr size_t VarintSize(uint64_t value) {
  size_t size = 1;
  for (; value >= 0x80; value >>= 7) ++size;
  return size;
}
// Of a field with a number below 16, whose tag is one byte.
constexpr size_t BytesFieldSize(size_t length) { return 1 + VarintSize(length) + length; }
// proto3 leaves a zero out.
constexpr size_t IntFieldSize(int64_t value) { return value == 0 ? 0 : 1 + VarintSize(static_cast<uint64_t>(value)); }
constexpr size_t StringFieldSize(std::string_view value) { return value.empty() ? 0 : BytesFieldSize(value.size()); }

inline void AppendVarint(uint64_t value, std::string& out) {
  char bytes[10];
  size_t size = 0;
  for (; value >= 0x80; value >>= 7) bytes[size++] = static_cast<char>(value | 0x80);
  bytes[size++] = static_cast<char>(value);
  out.append(bytes, size);
}
// REQUIRES of all that follow: 1 ≤ field ≤ 15.
inline void AppendTag(unsigned field, Type type, std::string& out) {
  out.push_back(static_cast<char>(field << 3 | static_cast<unsigned>(type)));
}
// Tag and length of a nested message or string; `length` bytes must follow.
inline void AppendHead(unsigned field, size_t length, std::string& out) {
  AppendTag(field, Type::kBytes, out);
  AppendVarint(length, out);
}
inline void AppendBytes(unsigned field, std::string_view value, std::string& out) {
  AppendHead(field, value.size(), out);
  out.append(value);
}
inline void AppendString(unsigned field, std::string_view value, std::string& out) {
  if (!value.empty()) AppendBytes(field, value, out);
}
inline void AppendInt(unsigned field, int64_t value, std::string& out) {
  if (value == 0) return;
  AppendTag(field, Type::kVarint, out);
  AppendVarint(static_cast<uint64_t>(value), out);
}
// One entry of a map<string, string>.
inline void AppendMapEntry(unsigned field, std::string_view key, std::string_view value, std::string& out) {
  AppendHead(field, StringFieldSize(key) + StringFieldSize(value), out);
  AppendString(1, key, out);
  AppendString(2, value, out);
}

// Walks the fields of one message. Hostile bytes end the walk with failed().
//
//   for (Reader reader(message); reader.Next();) if (reader.IsBytes(1)) Use(reader.bytes());
class Reader {
 public:
  explicit Reader(std::string_view message) : rest_(message) {}

  // Goes to the next field; false at the end or when the bytes are no message. Groups count as malformed.
  bool Next();
  bool failed() const { return failed_; }

  uint32_t field() const { return field_; }
  Type type() const { return type_; }
  bool IsBytes(uint32_t field) const { return field_ == field && type_ == Type::kBytes; }
  bool IsVarint(uint32_t field) const { return field_ == field && type_ == Type::kVarint; }
  std::string_view bytes() const { return bytes_; }
  uint64_t varint() const { return varint_; }

 private:
  bool ReadVarint(uint64_t& value);
  bool Take(size_t size);
  bool Fail();

  std::string_view rest_;
  std::string_view bytes_;
  uint64_t varint_ = 0;
  uint32_t field_ = 0;
  Type type_ = Type::kVarint;
  bool failed_ = false;
};

}  // namespace dpa::wire
