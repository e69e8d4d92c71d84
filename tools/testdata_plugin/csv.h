// ParseCsv turns CSV text with a header line (RFC 4180, LF or CRLF) into the fields of a frame. A column's type is the
// first of time, number, boolean, string that fits all its cells; empty cells and the word null are nulls.

#pragma once

#include <expected>
#include <string>
#include <string_view>
#include <vector>

#include "tools/testdata_plugin/frame.h"

namespace dpa::testdata {

// Errors: one sentence that names the line.
std::expected<std::vector<Field>, std::string> ParseCsv(std::string_view text);

// RFC 3339 with up to nine fractional digits, "Z" or an offset.
std::optional<TimeNs> ParseTime(std::string_view text);

}  // namespace dpa::testdata
