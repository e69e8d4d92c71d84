#include "core/result.h"

#include <cerrno>

namespace dpa {

std::string_view ToString(ErrorCode code) {
  switch (code) {
    case ErrorCode::kClosed:
      return "closed";
    case ErrorCode::kReset:
      return "reset";
    case ErrorCode::kRefused:
      return "refused";
    case ErrorCode::kUnreachable:
      return "unreachable";
    case ErrorCode::kTimeout:
      return "timeout";
    case ErrorCode::kCancelled:
      return "cancelled";
    case ErrorCode::kShed:
      return "shed";
    case ErrorCode::kQueueTimeout:
      return "queue_timeout";
    case ErrorCode::kTooLarge:
      return "too_large";
    case ErrorCode::kMalformed:
      return "malformed";
    case ErrorCode::kUnsupported:
      return "unsupported";
    case ErrorCode::kUnavailable:
      return "unavailable";
    case ErrorCode::kInternal:
      return "internal";
  }
  return "unknown";
}

std::string_view ToString(ErrorSource source) {
  switch (source) {
    case ErrorSource::kInternal:
      return "internal";
    case ErrorSource::kDownstream:
      return "downstream";
    case ErrorSource::kUpstream:
      return "upstream";
    case ErrorSource::kPlugin:
      return "plugin";
  }
  return "unknown";
}

ErrorCode ErrorCodeFromErrno(int os_errno) {
  switch (os_errno) {
    case ECONNRESET:
    case EPIPE:
    case ECONNABORTED:
      return ErrorCode::kReset;
    case ECONNREFUSED:
    case ENOENT:
      return ErrorCode::kRefused;
    case ENETUNREACH:
    case EHOSTUNREACH:
    case ENETDOWN:
    case EHOSTDOWN:
    case EADDRNOTAVAIL:
      return ErrorCode::kUnreachable;
    case ETIMEDOUT:
    case ETIME:
      return ErrorCode::kTimeout;
    case ECANCELED:
      return ErrorCode::kCancelled;
    case EMFILE:
    case ENFILE:
    case ENOBUFS:
    case ENOMEM:
    case EAGAIN:
      return ErrorCode::kShed;
    default:
      return ErrorCode::kInternal;
  }
}

}  // namespace dpa
