// The rule of http/route_table.h in its plainest form: try every pattern, keep the most specific. For tests and
// fuzzing.

#pragma once

#include <algorithm>
#include <string>
#include <utility>
#include <vector>

namespace dpa {

// Patterns for every method only.
class Rule {
 public:
  explicit Rule(std::vector<std::string> patterns) : patterns_(std::move(patterns)) {}

  std::string Best(const std::string& path) const {
    std::string best, best_key;
    for (const std::string& pattern : patterns_) {
      // The literals as they are written, and all of them decoded.
      for (const bool decoded : {false, true}) {
        const std::string key = Key(Split(decoded ? Decoded(pattern) : pattern), Split(path));
        if (!key.empty() && (best.empty() || key < best_key)) best = pattern, best_key = key;
      }
    }
    return best.empty() ? "-" : best;
  }

 private:
  // Names have no escapes in them, and literals no separators.
  static std::string Decoded(const std::string& pattern) {
    std::string decoded;
    for (size_t i = 0; i < pattern.size(); ++i) {
      const bool escape = pattern[i] == '%';
      decoded += escape ? static_cast<char>(std::stoi(pattern.substr(i + 1, 2), nullptr, 16)) : pattern[i];
      if (escape) i += 2;
    }
    return decoded;
  }

  static std::vector<std::string> Split(const std::string& path) {
    std::vector<std::string> segments;
    for (size_t begin = 1; begin <= path.size();) {
      const size_t end = std::min(path.find('/', begin), path.size());
      segments.push_back(path.substr(begin, end - begin));
      begin = end + 1;
    }
    return segments;
  }

  // One letter per segment, in order of precedence; empty: no match.
  static std::string Key(const std::vector<std::string>& pattern, const std::vector<std::string>& path) {
    std::string key;
    for (size_t i = 0; i < pattern.size(); ++i) {
      if (pattern[i].ends_with("...}")) return i < path.size() ? key + 'w' : "";
      if (i >= path.size() || path[i].empty()) return "";
      if (pattern[i].starts_with('{')) {
        key += 'c';
      } else if (pattern[i] == path[i]) {
        key += 'L';
      } else {
        return "";
      }
    }
    return pattern.size() == path.size() ? key : "";
  }

  std::vector<std::string> patterns_;
};

}  // namespace dpa
