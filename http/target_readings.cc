#include "http/target_readings.h"

#include <algorithm>
#include <cstring>

#include "core/assert.h"
#include "http/bytes.h"

namespace dpa {
namespace {

// What stands for a slash that is part of a segment: an encoded NUL is refused, so no reading has one of its own.
constexpr char kInnerSlash = '\0';

constexpr std::string_view kUnsettled("\\;\0", 3);
constexpr std::string_view kUnsettledEscapes = "/\\.%";

int HexValue(char c) {
  if (IsDigit(c)) return c - '0';
  const char lower = ToLower(c);
  return lower >= 'a' && lower <= 'f' ? lower - 'a' + 10 : -1;
}

// In place. What is no escape stays, as it was decoded from what is one.
void Decode(std::string& text, char slash) {
  const size_t first = std::min(text.find('%'), text.size());
  size_t end = first;
  for (size_t at = first; at < text.size(); ++at) {
    char byte = text[at];
    if (DecodeEscape(std::string_view(text).substr(at), byte)) {
      at += 2;
      if (byte == '/') byte = slash;
    }
    text[end++] = byte;
  }
  text.resize(end);
}

// From each ';' to the end of its segment.
void CutParameters(std::string& text) {
  size_t end = 0;
  bool inside = false;
  for (const char c : text) {
    inside = c != '/' && (inside || c == ';');
    if (!inside) text[end++] = c;
  }
  text.resize(end);
}

bool IsDots(std::string_view segment) { return segment == "." || segment == ".."; }

// Takes the next segment off `rest`, which begins with its '/'.
std::string_view NextSegment(std::string_view& rest) {
  rest.remove_prefix(1);
  const void* slash = std::memchr(rest.data(), '/', rest.size());
  const size_t size = slash ? static_cast<const char*>(slash) - rest.data() : rest.size();
  const std::string_view segment = rest.substr(0, size);
  rest.remove_prefix(size);
  return segment;
}

constexpr ptrdiff_t kStepBytes = 16;

uint8_t IsMark(char c) { return static_cast<uint8_t>((c == '%') | (c == '\\') | (c == ';')); }

uint8_t MarkAt(const char* at) {
  return IsMark(at[0]) | static_cast<uint8_t>((at[0] == '/') & ((at[1] == '/') | (at[1] == '.')));
}

// Without a branch, so that the compiler makes it one vector. Reads one byte more.
uint8_t MarksFrom(const char* at) {
  uint8_t marked = 0;
  for (ptrdiff_t i = 0; i < kStepBytes; ++i) marked |= MarkAt(at + i);
  return marked;
}

// One segment to everybody, whatever is still to be done to it, and no dot segment.
bool IsSettled(std::string_view segment) {
  if (segment.empty() || segment.find_first_of(kUnsettled) != std::string_view::npos) return false;
  for (size_t at = segment.find('%'); at < segment.size(); at = segment.find('%', at + 1)) {
    char byte;
    if (DecodeEscape(segment.substr(at), byte) && kUnsettledEscapes.contains(byte)) return false;
  }
  return true;
}

}  // namespace

std::string_view ToString(PathFault fault) {
  switch (fault) {
    case PathFault::kNone:
      return "the path is fine";
    case PathFault::kEscapeMalformed:
      return "the path has a '%' that two hexadecimal digits do not follow";
    case PathFault::kNul:
      return "the path has an encoded NUL";
    case PathFault::kAboveRoot:
      return "the path climbs above its root";
    case PathFault::kAmbiguous:
      return "servers read this path differently (encoded or repeated separators, dot segments, parameters), and who "
             "answers would depend on it";
  }
  return "unknown";
}

bool DecodeEscape(std::string_view text, char& byte) {
  if (text.size() < 3 || text[0] != '%') return false;
  const int high = HexValue(text[1]);
  const int low = HexValue(text[2]);
  if (high < 0 || low < 0) return false;
  byte = static_cast<char>(high * 16 + low);
  return true;
}

// In steps of sixteen bytes, the last over bytes already seen: nearly all paths go through to their end.
bool IsPlainPath(std::string_view path) {
  if (path.empty()) return true;
  const char* const begin = path.data();
  const char* const last = begin + path.size() - 1;
  uint8_t marked = IsMark(*last);
  if (path.size() <= kStepBytes) {
    for (const char* at = begin; at < last; ++at) marked |= MarkAt(at);
    return marked == 0;
  }
  for (const char* at = begin; at + kStepBytes <= last; at += kStepBytes) marked |= MarksFrom(at);
  marked |= MarksFrom(last - kStepBytes);
  return marked == 0;
}

PathFault PathReadings::Visit(std::string_view path, PathReader& reader) {
  DPA_ASSERT(path.starts_with('/'));
  if (const PathFault fault = Examine(path); fault != PathFault::kNone) return fault;
  for (uint8_t decodings = 0; decodings <= decodings_max_; ++decodings) {
    if (const PathFault fault = VisitDecodings(path, decodings, reader); fault != PathFault::kNone) return fault;
  }
  return PathFault::kNone;
}

// Finds which steps can make a difference, and what is wrong whatever the reader says.
PathFault PathReadings::Examine(std::string_view path) {
  decodings_max_ = 0;
  has_encoded_separator_ = false;
  for (size_t at = path.find('%'); at < path.size(); at = path.find('%', at + 3)) {
    char byte;
    if (!DecodeEscape(path.substr(at), byte)) return PathFault::kEscapeMalformed;
    if (byte == '\0') return PathFault::kNul;
    has_encoded_separator_ |= byte == '/' || byte == '\\' || byte == '%';
    decodings_max_ = std::max<uint8_t>(decodings_max_, byte == '%' ? 2 : 1);
  }
  has_parameters_ = path.contains(';');

  MakeForm(path, {decodings_max_, decodings_max_, kNever, false});
  if (form_.contains('\0')) return PathFault::kNul;  // "%2500": the first decoding had none.
  has_backslash_ = form_.contains('\\');
  // Each may hide the other, depending on which server looks for which first.
  if (has_parameters_ && has_backslash_) return PathFault::kAmbiguous;
  MakeForm(path, {decodings_max_, decodings_max_, decodings_max_, true});
  dots_count_ = StructureOf(form_).dots_count;
  return PathFault::kNone;
}

PathFault PathReadings::VisitDecodings(std::string_view path, uint8_t decodings, PathReader& reader) {
  // Where nothing encoded splits, when it is split does not matter.
  for (uint8_t split = has_encoded_separator_ ? 0 : decodings; split <= decodings; ++split) {
    Steps steps{decodings, split, kNever, false};
    if (const PathFault fault = VisitForm(path, steps, reader); fault != PathFault::kNone) return fault;
    for (uint8_t level = 0; has_backslash_ && level <= split; ++level) {
      steps.backslash_level = level;
      if (const PathFault fault = VisitForm(path, steps, reader); fault != PathFault::kNone) return fault;
    }
    if (!has_parameters_) continue;
    steps = {decodings, split, kNever, true};
    if (const PathFault fault = VisitForm(path, steps, reader); fault != PathFault::kNone) return fault;
  }
  return PathFault::kNone;
}

PathFault PathReadings::VisitForm(std::string_view path, const Steps& steps, PathReader& reader) {
  MakeForm(path, steps);
  const bool decoded = steps.decodings > 0;
  if (!reader.Agrees({form_, decoded})) return PathFault::kAmbiguous;
  const Structure structure = StructureOf(form_);
  // Some are hidden: whether they are found before or after the others are resolved would matter.
  if (structure.dots_count > 0 && structure.dots_count != dots_count_) return PathFault::kAmbiguous;
  for (const bool merge : {false, true}) {
    for (const bool resolve : {false, true}) {
      for (const bool drop_slash : {false, true}) {
        const bool as_it_is = !merge && !resolve;
        const bool impossible = (merge && !structure.has_empties) || (resolve && structure.dots_count == 0) ||
                                (drop_slash && !(resolve && structure.ends_with_dots));
        if (as_it_is || impossible) continue;
        if (const PathFault fault = WriteShape({merge, resolve, drop_slash}); fault != PathFault::kNone) return fault;
        if (!reader.Agrees({shape_, decoded})) return PathFault::kAmbiguous;
      }
    }
  }
  return PathFault::kNone;
}

void PathReadings::MakeForm(std::string_view path, const Steps& steps) {
  form_.assign(path);
  if (steps.cut_parameters) CutParameters(form_);
  for (uint8_t level = 0;; ++level) {
    if (level == steps.backslash_level) std::replace(form_.begin(), form_.end(), '\\', '/');
    if (level == steps.decodings) return;
    Decode(form_, level < steps.split_level ? '/' : kInnerSlash);
  }
}

// RFC 3986 §5.2.4. An empty last segment is a trailing slash, and is no empty segment.
PathFault PathReadings::WriteShape(const Shape& shape) {
  shape_.clear();
  for (std::string_view rest = form_; !rest.empty();) {
    const std::string_view segment = NextSegment(rest);
    const bool last = rest.empty();
    if (shape.resolve && IsDots(segment)) {
      if (segment == "..") {
        if (shape_.empty()) return PathFault::kAboveRoot;
        const size_t slash = shape_.rfind('/');
        if (!IsSettled(std::string_view(shape_).substr(slash + 1))) return PathFault::kAmbiguous;
        shape_.resize(slash);
      }
      if (last && (!shape.drop_slash || shape_.empty())) shape_ += '/';
    } else if (last || !segment.empty() || !shape.merge) {
      shape_ += '/';
      shape_ += segment;
    }
  }
  return PathFault::kNone;
}

PathReadings::Structure PathReadings::StructureOf(std::string_view form) {
  Structure structure;
  for (std::string_view rest = form; !rest.empty();) {
    const std::string_view segment = NextSegment(rest);
    structure.dots_count += IsDots(segment);
    structure.has_empties |= segment.empty() && !rest.empty();
    structure.ends_with_dots = IsDots(segment);
  }
  return structure;
}

}  // namespace dpa
