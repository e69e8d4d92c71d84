// The rule of http/target_judge.h in its plainest form: take the steps that servers take in every order, and see who
// answers each time. Exponential, and independent of the way in which PathReadings lists readings. For tests and
// fuzzing.

#pragma once

#include <algorithm>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <tuple>
#include <vector>

#include "http/local_paths.h"
#include "http/route_table.h"

namespace dpa {

class TargetRule {
 public:
  TargetRule(const RouteTable& routes, const LocalPaths& local) : routes_(routes), local_(local) {}

  // Who answers `path`, read as it is: "local PATH", "delegate", or the route and its captures, decoded.
  std::string Decide(std::string_view method, const std::string& path, bool decoded = false) const {
    if (local_.Owns(path)) return "local " + path;
    RouteMatch match;
    routes_.Match(method, path, match);
    if (match.target == nullptr) return "delegate";
    std::string text(ToString(match.target->type));
    text += match.target->path.empty() ? "" : " at " + match.target->path;
    for (int i = 0; i < match.captures_count - match.has_wildcard; ++i) {
      std::string value(match.captures[i].value);
      if (!decoded) value = Decode(value, '/').value_or("NUL");
      std::replace(value.begin(), value.end(), '\0', '/');
      text += " " + std::string(match.captures[i].name) + "=" + value;
    }
    return text;
  }

  // What everybody decides; "?" when it differs, when a reading has a NUL or climbs above the root. Nothing: there are
  // more than `states_max` intermediate states.
  std::optional<std::string> Everybody(std::string_view method, const std::string& path, size_t states_max) const {
    const std::string as_sent = Decide(method, path);
    std::set<State> seen;
    std::vector<State> open = {State{path, 0, false}};
    while (!open.empty()) {
      const State state = open.back();
      open.pop_back();
      if (!seen.insert(state).second) continue;
      if (seen.size() > states_max) return std::nullopt;
      if (Decide(method, state.path, state.decodings > 0) != as_sent) return "?";
      if (!Step(state, open)) return "?";
    }
    return as_sent;
  }

 private:
  struct State {
    std::string path;
    int decodings;
    bool split;  // '/' that decoding brings from now on is inside a segment, and written NUL.
    bool operator<(const State& other) const {
      return std::tie(path, decodings, split) < std::tie(other.path, other.decodings, other.split);
    }
  };
  using Segments = std::vector<std::string>;

  static bool IsHex(char c) { return std::string_view("0123456789abcdefABCDEF").contains(c); }

  // Nothing: there is a NUL in it.
  static std::optional<std::string> Decode(const std::string& text, char slash) {
    std::string decoded;
    for (size_t i = 0; i < text.size(); ++i) {
      const bool escape = text[i] == '%' && i + 2 < text.size() && IsHex(text[i + 1]) && IsHex(text[i + 2]);
      const char byte = escape ? static_cast<char>(std::stoi(text.substr(i + 1, 2), nullptr, 16)) : text[i];
      if (escape && byte == '\0') return std::nullopt;
      decoded += escape && byte == '/' ? slash : byte;
      if (escape) i += 2;
    }
    return decoded;
  }

  static Segments Split(const std::string& path) {
    Segments segments;
    for (size_t begin = 1; begin <= path.size();) {
      const size_t end = std::min(path.find('/', begin), path.size());
      segments.push_back(path.substr(begin, end - begin));
      begin = end + 1;
    }
    return segments;
  }

  static std::string Join(const Segments& segments) {
    std::string path;
    for (const std::string& segment : segments) path += "/" + segment;
    return path.empty() ? "/" : path;
  }

  static Segments Merge(const Segments& segments) {
    Segments merged;
    for (size_t i = 0; i < segments.size(); ++i) {
      if (!segments[i].empty() || i + 1 == segments.size()) merged.push_back(segments[i]);
    }
    return merged;
  }

  static std::optional<Segments> Resolve(const Segments& segments, bool slash) {
    Segments resolved;
    for (size_t i = 0; i < segments.size(); ++i) {
      const bool up = segments[i] == "..";
      if (up && resolved.empty()) return std::nullopt;
      if (up) resolved.pop_back();
      if (!up && segments[i] != ".") resolved.push_back(segments[i]);
      const bool dots = up || segments[i] == ".";
      if (dots && i + 1 == segments.size() && slash) resolved.push_back("");
    }
    return resolved;
  }

  static Segments CutParameters(Segments segments) {
    for (std::string& segment : segments) segment = segment.substr(0, segment.find(';'));
    return segments;
  }

  // What one more step makes of `state`. False: there is a NUL, or the path climbs above its root.
  static bool Step(const State& state, std::vector<State>& open) {
    const Segments segments = Split(state.path);
    const auto go = [&](const Segments& next) { open.push_back({Join(next), state.decodings, state.split}); };
    if (state.decodings < 2) {
      const std::optional<std::string> decoded = Decode(state.path, state.split ? '\0' : '/');
      if (!decoded) return false;
      open.push_back({*decoded, state.decodings + 1, state.split});
    }
    open.push_back({state.path, state.decodings, true});
    if (!state.split) {
      std::string slashes = state.path;
      std::replace(slashes.begin(), slashes.end(), '\\', '/');
      open.push_back({slashes, state.decodings, false});
    }
    if (state.decodings == 0) go(CutParameters(segments));
    go(Merge(segments));
    for (const bool slash : {true, false}) {
      const std::optional<Segments> resolved = Resolve(segments, slash);
      if (!resolved) return false;
      go(*resolved);
    }
    return true;
  }

  const RouteTable& routes_;
  const LocalPaths& local_;
};

}  // namespace dpa
