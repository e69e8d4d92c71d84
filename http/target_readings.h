// PathReadings lists the ways in which servers could understand one request path, so that whoever decides by a path can
// ask whether all of them come to the same decision. The bytes themselves are never rewritten: what is forwarded is
// what was sent, and a path on whose meaning servers disagree is refused instead.
//
// A reading is the path after steps that some server or other takes (RFC 3986 §2.1, §3.3, §5.2.4, §6.2.2):
//
//     decoded         not at all, once, or twice (twice only where there is a "%25")
//     split           into segments before the decoding, between, or after it: "%2F" inside a segment, or between two
//     backslash       itself, or a '/'
//     parameters      ";…" part of a segment, or cut off it, as servlet containers do
//     empty segments  kept, or merged away
//     dot segments    kept, or resolved; what ends in one leaves a trailing slash (RFC 3986) or none (path cleaners)
//
// Dot segments make the order of steps matter, for they remove what other steps have or have not yet split or merged.
// So they are read only where none is still hidden, and ".." may only remove a segment that no step changes: not empty,
// and without an encoded separator or dot. Otherwise the path is ambiguous at once. With that, no other order of the
// steps leads anywhere else: tests/http/target_rule.h takes them in every order to show it.
//
// Nearly every path is plain, and the only reading of a plain path is the path.

#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace dpa {

// What is wrong with a path. Each is answered with 400 and the reason `ambiguous_path`.
enum class PathFault : uint8_t {
  kNone,
  kEscapeMalformed,  // '%' without two hexadecimal digits, which is no URI (RFC 3986 §2.1).
  kNul,              // "%00", at any depth of decoding: what C strings end at (RFC 3986 §7.3).
  kAboveRoot,        // ".." with nothing left to remove.
  kAmbiguous,        // Readings that disagree.
};
// For the client: a sentence without the path's bytes.
std::string_view ToString(PathFault fault);

// One scan: without '%', '\', ';', "//" and "/.", every server reads the same. "*" is plain, too.
bool IsPlainPath(std::string_view path);

// The byte that `text` begins with an escape of, into `byte`. False: it does not.
bool DecodeEscape(std::string_view text, char& byte);

struct PathReading {
  // '/' separates segments. NUL is a slash inside a segment, decoded after the split; there is no other NUL.
  std::string_view path;
  bool decoded;  // False: the escapes are still in it.
};

class PathReader {
 public:
  // False: this reading leads elsewhere than the path as sent; no more are wanted.
  virtual bool Agrees(const PathReading& reading) = 0;

 protected:
  ~PathReader() = default;
};

// Reused from path to path: its buffers grow to the longest unplain path (bounded by the parser's target limit) and
// stay.
class PathReadings {
 public:
  // Shows the readings of `path` to `reader`, the path as sent first; some may come twice. kAmbiguous: the reader said
  // no, or the order of steps would decide. REQUIRES: `path` begins with '/'.
  // Linear in the path: at most 16 forms, up to six shapes of each.
  PathFault Visit(std::string_view path, PathReader& reader);

 private:
  // Which of the steps that change bytes a form has had. Levels count decodings.
  struct Steps {
    uint8_t decodings;
    uint8_t split_level;      // '/' that decoding brings later is part of a segment.
    uint8_t backslash_level;  // '\' that is there by then is '/'. kNever: it is itself.
    bool cut_parameters;
  };
  static constexpr uint8_t kNever = 0xFF;

  struct Structure {
    uint32_t dots_count = 0;   // Segments "." and "..".
    bool has_empties = false;  // The last does not count: it is a trailing slash.
    bool ends_with_dots = false;
  };
  struct Shape {
    bool merge;       // Empty segments.
    bool resolve;     // Dot segments.
    bool drop_slash;  // Of a path that ended with a dot segment.
  };

  PathFault Examine(std::string_view path);
  PathFault VisitDecodings(std::string_view path, uint8_t decodings, PathReader& reader);
  PathFault VisitForm(std::string_view path, const Steps& steps, PathReader& reader);
  void MakeForm(std::string_view path, const Steps& steps);
  PathFault WriteShape(const Shape& shape);
  static Structure StructureOf(std::string_view form);

  std::string form_;   // The path after Steps.
  std::string shape_;  // form_ after a Shape.

  // Of the path under way.
  uint8_t decodings_max_ = 0;
  bool has_encoded_separator_ = false;
  bool has_backslash_ = false;  // As sent or encoded.
  bool has_parameters_ = false;
  uint32_t dots_count_ = 0;  // When nothing remains to be decoded, split or cut.
};

}  // namespace dpa
