#include "registry/nearest_name.h"

#include <algorithm>
#include <cstddef>
#include <numeric>
#include <vector>

namespace dpa {
namespace {

// Names that a manifest knows are short; a longer one is no slip of the finger.
constexpr size_t kGivenBytesMax = 64;

char Lower(char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c + ('a' - 'A')) : c; }

// Levenshtein distance, one row at a time.
size_t EditDistance(std::string_view a, std::string_view b) {
  std::vector<size_t> row(b.size() + 1);
  std::iota(row.begin(), row.end(), size_t{0});
  for (size_t i = 1; i <= a.size(); ++i) {
    size_t diagonal = row[0];
    row[0] = i;
    for (size_t j = 1; j <= b.size(); ++j) {
      const size_t substituted = diagonal + (Lower(a[i - 1]) == Lower(b[j - 1]) ? 0 : 1);
      diagonal = row[j];
      row[j] = std::min({row[j] + 1, row[j - 1] + 1, substituted});
    }
  }
  return row[b.size()];
}

}  // namespace

std::string_view NearestName(std::string_view given, std::span<const std::string_view> known) {
  if (given.empty() || given.size() > kGivenBytesMax) return {};
  std::string_view nearest;
  size_t nearest_edits = SIZE_MAX;
  for (const std::string_view name : known) {
    const size_t edits = EditDistance(given, name);
    if (edits < nearest_edits && edits <= std::max(given.size(), name.size()) / 3) {
      nearest = name;
      nearest_edits = edits;
    }
  }
  return nearest;
}

std::string DidYouMean(std::string_view given, std::span<const std::string_view> known) {
  const std::string_view nearest = NearestName(given, known);
  return nearest.empty() ? std::string() : "; did you mean \"" + std::string(nearest) + "\"?";
}

}  // namespace dpa
