// JSON written by hand where a tree would be waste: error bodies, access records.

#pragma once

#include <cstdint>
#include <string_view>

#include "core/byte_buffer.h"
#include "http/reason.h"

namespace dpa {

// How many bytes `text` takes at the most as the inside of a JSON string.
inline size_t JsonStringBytesMax(std::string_view text) { return text.size() * 6; }

// Writes `text` as the inside of a JSON string (no quotes) to `out`, which has JsonStringBytesMax(text) bytes; returns
// the end. The result is valid UTF-8: well-formed sequences pass as they are, every other byte above 0x7F becomes
// \u00XX, so that what a client sent can always be read back.
char* WriteJsonString(char* out, std::string_view text);

// A Kubernetes Status object for an error of ours (details.causes[0].reason is the reason word). `code` is the HTTP
// status.
void AppendStatusBody(ByteBuffer& out, Reason reason, int code, std::string_view message);

}  // namespace dpa
