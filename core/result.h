// Result<T> is a value or an Error. An Error is small and trivially copyable: what happened, on whose side, and whether
// the same request may be sent again. It is found in many places and handled, logged and answered in one.

#pragma once

#include <cstdint>
#include <expected>
#include <string_view>

namespace dpa {

enum class ErrorCode : uint8_t {
  kClosed,        // The peer ended its side in an orderly way (end of stream).
  kReset,         // The peer broke the connection off.
  kRefused,       // Nobody listens at that address, or the name of the socket does not exist.
  kUnreachable,   // No route, no network, no such host.
  kTimeout,       // A Deadline fired.
  kCancelled,     // We gave up ourselves: shutdown, or the other side of the exchange has gone.
  kShed,          // A queue or pool is full.
  kQueueTimeout,  // Waited too long in a queue of ours.
  kTooLarge,      // A limit on size was passed.
  kMalformed,     // The peer broke the protocol.
  kUnsupported,   // Well-formed, but nothing that we do.
  kUnavailable,   // The peer is known not to be ready (plugin starting, no delegate).
  kInternal,      // Our own fault or the system's (os_errno says which).
};

enum class ErrorSource : uint8_t { kInternal, kDownstream, kUpstream, kPlugin };

struct Error {
  ErrorCode code = ErrorCode::kInternal;
  ErrorSource source = ErrorSource::kInternal;
  // Set by whoever knows that the request certainly had no effect, so that it may be sent once more.
  bool retry_safe = false;
  // The errno behind it, 0 if none.
  int16_t os_errno = 0;

  friend bool operator==(const Error&, const Error&) = default;
};
static_assert(sizeof(Error) <= 8);

std::string_view ToString(ErrorCode code);
std::string_view ToString(ErrorSource source);

// The one table from errno to ErrorCode.
ErrorCode ErrorCodeFromErrno(int os_errno);

inline Error ErrorFromErrno(int os_errno, ErrorSource source) {
  return Error{ErrorCodeFromErrno(os_errno), source, false, static_cast<int16_t>(os_errno)};
}

template <class T>
using Result = std::expected<T, Error>;

}  // namespace dpa
