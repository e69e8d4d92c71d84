#include "grpc_bridge/grpc_framing.h"

#include <algorithm>
#include <charconv>
#include <cstring>
#include <utility>

#include "core/assert.h"

namespace dpa {
namespace {

constexpr std::array<std::string_view, 17> kCodeNames = {
    "OK",        "CANCELLED",      "UNKNOWN",           "INVALID_ARGUMENT",   "DEADLINE_EXCEEDED",
    "NOT_FOUND", "ALREADY_EXISTS", "PERMISSION_DENIED", "RESOURCE_EXHAUSTED", "FAILED_PRECONDITION",
    "ABORTED",   "OUT_OF_RANGE",   "UNIMPLEMENTED",     "INTERNAL",           "UNAVAILABLE",
    "DATA_LOSS", "UNAUTHENTICATED"};

// A length is only a claim until the bytes come: more than this is reserved as they do.
constexpr size_t kReservedAtOnceMax = 1u << 20;

int HexValue(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return -1;
}

int Base64Value(char c) {
  if (c >= 'A' && c <= 'Z') return c - 'A';
  if (c >= 'a' && c <= 'z') return c - 'a' + 26;
  if (c >= '0' && c <= '9') return c - '0' + 52;
  if (c == '+') return 62;
  if (c == '/') return 63;
  return -1;
}

// "application/grpc", alone or followed by "+proto", ";charset=…".
bool IsGrpcContentType(std::string_view value) {
  constexpr std::string_view kType = "application/grpc";
  if (value.size() < kType.size()) return false;
  for (size_t i = 0; i < kType.size(); ++i) {
    const char lower = value[i] >= 'A' && value[i] <= 'Z' ? static_cast<char>(value[i] + 32) : value[i];
    if (lower != kType[i]) return false;
  }
  return value.size() == kType.size() || value[kType.size()] == '+' || value[kType.size()] == ';';
}

}  // namespace

std::string_view ToString(GrpcCode code) { return kCodeNames[static_cast<size_t>(code)]; }

std::string_view ToString(GrpcFault fault) {
  switch (fault) {
    case GrpcFault::kNone:
      return "did nothing wrong";
    case GrpcFault::kContentType:
      return "answered with a content type that is not gRPC's";
    case GrpcFault::kCompressed:
      return "sent a compressed message, which was not asked for";
    case GrpcFault::kPrefix:
      return "sent a message with an unknown flag";
    case GrpcFault::kTooLarge:
      return "sent a message larger than the limit";
    case GrpcFault::kTruncated:
      return "ended its answer inside a message";
    case GrpcFault::kNoMessage:
      return "ended its answer with status OK and without a message";
    case GrpcFault::kTwoMessages:
      return "sent more than one message where one is the rule";
    case GrpcFault::kNoStatus:
      return "ended its answer without a gRPC status";
  }
  return "";
}

Error ErrorOf(GrpcFault fault) {
  const ErrorCode code = fault == GrpcFault::kTooLarge ? ErrorCode::kTooLarge : ErrorCode::kMalformed;
  return Error{code, ErrorSource::kPlugin};
}

std::array<char, kGrpcPrefixBytes> GrpcPrefix(size_t message_bytes) {
  DPA_ASSERT(message_bytes <= UINT32_MAX);
  return {0, static_cast<char>(message_bytes >> 24), static_cast<char>(message_bytes >> 16),
          static_cast<char>(message_bytes >> 8), static_cast<char>(message_bytes)};
}

std::string_view EncodeGrpcTimeout(uint64_t milliseconds, GrpcTimeoutText& text) {
  constexpr uint64_t kDigitsMax = 99'999'999;
  uint64_t value = milliseconds;
  char unit = 'm';
  for (const auto& [factor, larger] : {std::pair{1000u, 'S'}, std::pair{60u, 'M'}, std::pair{60u, 'H'}}) {
    if (value <= kDigitsMax) break;
    value = value / factor + (value % factor != 0);
    unit = larger;
  }
  char* end = std::to_chars(text.data(), text.data() + 8, std::min(value, kDigitsMax)).ptr;
  *end++ = unit;
  return {text.data(), static_cast<size_t>(end - text.data())};
}

GrpcCode ParseGrpcCode(std::string_view value) {
  uint32_t number = 0;
  const auto [end, error] = std::from_chars(value.data(), value.data() + value.size(), number);
  const bool whole = error == std::errc() && end == value.data() + value.size();
  return whole && number < kCodeNames.size() ? static_cast<GrpcCode>(number) : GrpcCode::kUnknown;
}

GrpcCode GrpcCodeFromHttpStatus(int http_status) {
  switch (http_status) {
    case 400:
      return GrpcCode::kInternal;
    case 401:
      return GrpcCode::kUnauthenticated;
    case 403:
      return GrpcCode::kPermissionDenied;
    case 404:
      return GrpcCode::kUnimplemented;
    case 429:
    case 502:
    case 503:
    case 504:
      return GrpcCode::kUnavailable;
    default:
      return GrpcCode::kUnknown;
  }
}

std::string DecodeGrpcMessage(std::string_view value) {
  std::string out;
  out.reserve(value.size());
  for (size_t i = 0; i < value.size(); ++i) {
    const int high = value[i] == '%' && i + 2 < value.size() ? HexValue(value[i + 1]) : -1;
    const int low = high >= 0 ? HexValue(value[i + 2]) : -1;
    if (low < 0) {
      out.push_back(value[i]);
      continue;
    }
    out.push_back(static_cast<char>(high << 4 | low));
    i += 2;
  }
  return out;
}

std::optional<std::string> DecodeBase64(std::string_view value) {
  for (int padding = 0; padding < 2 && !value.empty() && value.back() == '='; ++padding) value.remove_suffix(1);
  if (value.size() % 4 == 1) return std::nullopt;
  std::string out;
  out.reserve(value.size() * 3 / 4);
  uint32_t bits = 0;
  int bits_count = 0;
  for (const char c : value) {
    const int digit = Base64Value(c);
    if (digit < 0) return std::nullopt;
    bits = bits << 6 | static_cast<uint32_t>(digit);
    bits_count += 6;
    if (bits_count < 8) continue;
    bits_count -= 8;
    out.push_back(static_cast<char>(bits >> bits_count));
  }
  return out;
}

// --- Fields ---

void GrpcResponseFields::OnField(std::string_view name, std::string_view value) {
  if (name == ":status") {
    http_status_ = 0;
    std::from_chars(value.data(), value.data() + value.size(), http_status_);
  } else if (name == "content-type") {
    if (!head_complete_) is_grpc_ = IsGrpcContentType(value);
  } else if (name == "grpc-status") {
    has_status_ = true;
    status_.code = ParseGrpcCode(value);
  } else if (name == "grpc-message") {
    status_.message = DecodeGrpcMessage(value);
  } else if (name == "grpc-status-details-bin") {
    // Several values may be joined by commas; the first one is the status.
    status_.details = DecodeBase64(value.substr(0, value.find(','))).value_or("");
  }
}

GrpcFault GrpcResponseFields::OnFieldsEnd() {
  if (head_complete_) return GrpcFault::kNone;
  if (http_status_ >= 100 && http_status_ < 200) return GrpcFault::kNone;
  head_complete_ = true;
  if (has_status_) return GrpcFault::kNone;
  if (http_status_ != 200) {
    http_refusal_ = has_status_ = true;
    status_.code = GrpcCodeFromHttpStatus(http_status_);
    status_.message = "HTTP status " + std::to_string(http_status_);
    return GrpcFault::kNone;
  }
  return is_grpc_ ? GrpcFault::kNone : GrpcFault::kContentType;
}

// --- Messages ---

GrpcFault GrpcMessageReader::Take(std::string_view& bytes) {
  DPA_ASSERT(!complete());
  if (prefix_bytes_ < kGrpcPrefixBytes) {
    const GrpcFault fault = TakePrefix(bytes);
    if (fault != GrpcFault::kNone || prefix_bytes_ < kGrpcPrefixBytes) return fault;
  }
  const std::string_view piece = bytes.substr(0, length_ - message_.size());
  message_.Append(piece);
  bytes.remove_prefix(piece.size());
  return GrpcFault::kNone;
}

GrpcFault GrpcMessageReader::TakePrefix(std::string_view& bytes) {
  const size_t count = std::min(bytes.size(), kGrpcPrefixBytes - prefix_bytes_);
  std::memcpy(prefix_.data() + prefix_bytes_, bytes.data(), count);
  bytes.remove_prefix(count);
  prefix_bytes_ += count;
  if (prefix_bytes_ < kGrpcPrefixBytes) return GrpcFault::kNone;
  length_ = size_t{prefix_[1]} << 24 | size_t{prefix_[2]} << 16 | size_t{prefix_[3]} << 8 | prefix_[4];
  if (prefix_[0] == 1) return GrpcFault::kCompressed;
  if (prefix_[0] != 0) return GrpcFault::kPrefix;
  if (length_ > message_bytes_max_) return GrpcFault::kTooLarge;
  if (length_ != 0) message_.Reserve(std::min(length_, kReservedAtOnceMax));
  return GrpcFault::kNone;
}

ByteBuffer GrpcMessageReader::TakeMessage() {
  DPA_ASSERT(complete());
  prefix_bytes_ = 0;
  length_ = 0;
  return std::move(message_);
}

void GrpcMessageReader::Clear() {
  message_.Release();
  prefix_bytes_ = 0;
  length_ = 0;
}

}  // namespace dpa
