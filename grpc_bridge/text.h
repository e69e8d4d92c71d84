// Text from peers and files on its way into protobuf strings and JSON: both must be valid UTF-8, and neither source
// promises it.

#pragma once

#include <string>
#include <string_view>

namespace dpa {

bool IsUtf8(std::string_view text);

// Appends `text` with every byte that is not part of a valid sequence replaced by U+FFFD.
void AppendUtf8(std::string_view text, std::string& out);

// Appends `text` as a JSON string with its quotes; repairs UTF-8 as AppendUtf8 does. No HTML escapes.
void AppendJsonString(std::string_view text, std::string& out);

}  // namespace dpa
