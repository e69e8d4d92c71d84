// What gRPC puts on top of HTTP/2, as pure functions and two small readers: length-prefixed messages, status fields,
// timeouts. (Authority: grpc/grpc, doc/PROTOCOL-HTTP2.md and doc/http-grpc-status-mapping.md.)
//
//     DATA    00 LL LL LL LL  message bytes …        00: not compressed; length big-endian
//
// A message may begin and end anywhere in the DATA frames.

#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "core/byte_buffer.h"
#include "core/result.h"

namespace dpa {

enum class GrpcCode : uint8_t {
  kOk = 0,
  kCancelled = 1,
  kUnknown = 2,
  kInvalidArgument = 3,
  kDeadlineExceeded = 4,
  kNotFound = 5,
  kAlreadyExists = 6,
  kPermissionDenied = 7,
  kResourceExhausted = 8,
  kFailedPrecondition = 9,
  kAborted = 10,
  kOutOfRange = 11,
  kUnimplemented = 12,
  kInternal = 13,
  kUnavailable = 14,
  kDataLoss = 15,
  kUnauthenticated = 16,
};
std::string_view ToString(GrpcCode code);  // "UNAVAILABLE"

struct GrpcStatus {
  GrpcCode code = GrpcCode::kOk;
  std::string message;  // Percent-decoded; any bytes.
  std::string details;  // grpc-status-details-bin, decoded: a serialized google.rpc.Status.
};

// What a peer did that gRPC does not allow, or that we do not take.
enum class GrpcFault : uint8_t {
  kNone,
  kContentType,  // 200 with a content-type that is not application/grpc.
  kCompressed,   // The compressed flag is set; we asked for identity.
  kPrefix,       // A flag byte that is neither 0 nor 1.
  kTooLarge,     // A message longer than the limit.
  kTruncated,    // The stream ended inside a message.
  kNoMessage,    // Status OK and no message, on a unary call.
  kTwoMessages,  // More than one message on a unary call.
  kNoStatus,     // The stream ended without grpc-status.
};
std::string_view ToString(GrpcFault fault);  // The end of a sentence: "sent a compressed message".
Error ErrorOf(GrpcFault fault);

inline constexpr size_t kGrpcPrefixBytes = 5;
// REQUIRES: `message_bytes` < 2^32.
std::array<char, kGrpcPrefixBytes> GrpcPrefix(size_t message_bytes);

// `milliseconds` as a grpc-timeout, rounded up where the unit grows: at most 8 digits. The view is into `text`.
using GrpcTimeoutText = std::array<char, 12>;
std::string_view EncodeGrpcTimeout(uint64_t milliseconds, GrpcTimeoutText& text);

// Values that are no number, or out of range, are kUnknown.
GrpcCode ParseGrpcCode(std::string_view value);
GrpcCode GrpcCodeFromHttpStatus(int http_status);
// Undoes percent-encoding; what is not a valid escape stays as it is, as the protocol demands of clients.
std::string DecodeGrpcMessage(std::string_view value);
// Padded or not. Nothing if it is not base64.
std::optional<std::string> DecodeBase64(std::string_view value);

// The fields of one response: head, trailers, or both in one block.
class GrpcResponseFields {
 public:
  void OnField(std::string_view name, std::string_view value);
  // A block has ended. Errors: kContentType. An answer that is not gRPC's but HTTP's (status other than 200 without
  // grpc-status) is given a status by the mapping; no more need be read then.
  GrpcFault OnFieldsEnd();

  bool head_complete() const { return head_complete_; }  // Beyond interim (1xx) heads.
  bool has_status() const { return has_status_; }
  // A status that HTTP gave: what follows is no gRPC.
  bool http_refusal() const { return http_refusal_; }
  int http_status() const { return http_status_; }
  GrpcStatus& status() { return status_; }
  const GrpcStatus& status() const { return status_; }

 private:
  GrpcStatus status_;
  int http_status_ = 0;
  bool is_grpc_ = false;
  bool has_status_ = false;
  bool head_complete_ = false;
  bool http_refusal_ = false;
};

// Puts one message together out of pieces of the stream.
class GrpcMessageReader {
 public:
  // `pool` outlives the reader.
  GrpcMessageReader(BytePool& pool, size_t message_bytes_max) : message_(pool), message_bytes_max_(message_bytes_max) {}

  // Takes from the front of `bytes` up to the end of the current message; what is left belongs to the next one. Returns
  // the fault, after which the reader is of no use. REQUIRES: !complete().
  GrpcFault Take(std::string_view& bytes);

  bool complete() const { return prefix_bytes_ == kGrpcPrefixBytes && message_.size() == length_; }
  bool empty() const { return prefix_bytes_ == 0; }
  // Hands the message out and begins the next. REQUIRES: complete().
  ByteBuffer TakeMessage();
  void Clear();

 private:
  GrpcFault TakePrefix(std::string_view& bytes);

  ByteBuffer message_;
  const size_t message_bytes_max_;
  std::array<unsigned char, kGrpcPrefixBytes> prefix_{};
  size_t prefix_bytes_ = 0;
  size_t length_ = 0;
};

}  // namespace dpa
