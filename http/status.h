// Reason phrases of status codes (RFC 9110 §15 and the IANA registry).

#pragma once

#include <string_view>

namespace dpa {

// "Unknown" for a code that is not registered.
std::string_view ReasonPhrase(int status);

}  // namespace dpa
