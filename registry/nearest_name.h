// The known name that somebody who wrote `given` probably meant.

#pragma once

#include <span>
#include <string>
#include <string_view>

namespace dpa {

// The element of `known` with the fewest edits from `given`, letter case not counted; empty when none is near
// (more than a third of the letters differ).
std::string_view NearestName(std::string_view given, std::span<const std::string_view> known);

// "; did you mean \"X\"?", or nothing when no known name is near.
std::string DidYouMean(std::string_view given, std::span<const std::string_view> known);

}  // namespace dpa
