#include "http/target_judge.h"

#include "http/bytes.h"

namespace dpa {
namespace {

// A capture's bytes, decoded once, one by one.
class Decoded {
 public:
  Decoded(std::string_view text, bool already) : text_(text), already_(already) {}

  // -1 at the end.
  int Next() {
    if (text_.empty()) return -1;
    size_t size = 1;
    char byte = text_.front();
    if (!already_ && DecodeEscape(text_, byte)) size = 3;
    text_.remove_prefix(size);
    // A slash inside a segment, as PathReading has it.
    return static_cast<unsigned char>(byte == '\0' ? '/' : byte);
  }

 private:
  std::string_view text_;
  bool already_;
};

bool SameValue(std::string_view sent, const RouteMatch::Capture& capture, bool decoded) {
  Decoded ours(sent, false);
  Decoded theirs(capture.value, decoded);
  for (;;) {
    const int byte = ours.Next();
    if (byte != theirs.Next()) return false;
    if (byte < 0) return true;
  }
}

// The readings in the eyes of one request.
class Comparison final : public PathReader {
 public:
  Comparison(const RouteTable& routes, const LocalPaths* local, std::string_view method, std::string_view path,
             const RouteMatch& match)
      : routes_(routes), local_(local), method_(method), path_(path), match_(match), local_as_sent_(IsLocal(path)) {}

  bool Agrees(const PathReading& reading) override {
    // A local path has no escapes and no captures: it is read as itself or not at all.
    if (local_as_sent_ || IsLocal(reading.path)) return reading.path == path_;
    RouteMatch match;
    routes_.Match(method_, reading.path, match);
    if (match.target == nullptr || match_.target == nullptr) return match.target == match_.target;
    return *match.target == *match_.target && SameCaptures(match, reading.decoded);
  }

 private:
  bool IsLocal(std::string_view path) const { return local_ != nullptr && local_->Owns(path); }

  bool SameCaptures(const RouteMatch& match, bool decoded) const {
    const size_t count = match_.captures_count - match_.has_wildcard;
    if (count != static_cast<size_t>(match.captures_count - match.has_wildcard)) return false;
    for (size_t i = 0; i < count; ++i) {
      if (match.captures[i].name != match_.captures[i].name) return false;
      if (!SameValue(match_.captures[i].value, match.captures[i], decoded)) return false;
    }
    return true;
  }

  const RouteTable& routes_;
  const LocalPaths* const local_;
  const std::string_view method_;
  const std::string_view path_;
  const RouteMatch& match_;
  const bool local_as_sent_;
};

}  // namespace

PathFault TargetJudge::JudgeReadings(const RouteTable& routes, const LocalPaths* local, std::string_view method,
                                     std::string_view path, const RouteMatch& match) {
  Comparison comparison(routes, local, method, path, match);
  return readings_.Visit(path, comparison);
}

}  // namespace dpa
