// MessageParser turns the bytes of one HTTP/1 message head into a RequestHead or a ResponseHead, or into a violation.
//
// Two judges look at every head and both must agree. The first is ours and runs as the bytes arrive: it finds the
// lines, refuses bare CR and LF, control bytes, folding and what is too long, and checks the start line as soon as it
// is whole. The second is llhttp (every lenient flag off), which splits the complete head into fields: as many as we
// saw lines. After that the framing rules of RFC 9112 §6 are ours again. llhttp 8.1.0 alone would accept a CR without
// LF as the end of a field line, among others.
//
//     bytes --> lines (ours, incremental) --> start line (ours) --> fields (llhttp, once) --> framing, host … (ours)
//     --> head
//
// Every byte is looked at once by each judge however the input is cut, so a peer that sends single bytes costs linear
// work, and the verdict never depends on the cuts. No allocation after construction.
//
//   MessageParser parser(MessageParser::Role::kRequest, limits);
//   while ((status = parser.Feed(buffer_so_far)) == ParseStatus::kNeedMore) … read more behind it …
//   body begins at buffer_so_far + parser.head_size()

#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string_view>

#include "http/message.h"

namespace dpa {

struct ParserLimits {
  uint32_t head_bytes_max = 64 * 1024;    // --max-header-bytes: start line, fields and the empty line. Beyond it: 431.
  uint32_t target_bytes_max = 16 * 1024;  // Beyond it: 414. Datasource queries in URLs get long.
  uint16_t fields_max = 128;              // Beyond it: 431.
};

enum class ParseStatus : uint8_t { kNeedMore, kComplete, kViolation };

class MessageParser {
 public:
  enum class Role : uint8_t { kRequest, kResponse };

  MessageParser(Role role, const ParserLimits& limits);
  MessageParser(const MessageParser&) = delete;
  MessageParser& operator=(const MessageParser&) = delete;

  // `head_so_far` holds all bytes from the first of this message on: those of the last call, unchanged but possibly at
  // another address, and new ones behind them. It may reach beyond the head (body, next request).
  // For a request one empty line before it is skipped (RFC 9112 §2.2) and is part of head_size().
  // REQUIRES: not called again after kComplete or kViolation, until Reset().
  ParseStatus Feed(std::string_view head_so_far);

  // Forgets everything; the next Feed begins a new message.
  void Reset();

  // A response only: the answer is to a HEAD, so no body follows (RFC 9112 §6.3). Call before Feed; Reset() clears it.
  void SetRequestMethod(std::string_view method);

  // REQUIRES: Feed returned kComplete. Views point into the bytes of that call and into this parser.
  const RequestHead& request() const;
  const ResponseHead& response() const;
  // Count of bytes up to and including the empty line. What follows is body or the next message.
  size_t head_size() const { return head_size_; }

  // kNone unless Feed returned kViolation.
  HttpViolation violation() const { return violation_; }
  // Whether any byte of a message has come (an empty line before a request is none): idle or in the middle of a head?
  bool started() const;

 private:
  HttpViolation ScanLines(std::string_view input);
  HttpViolation EndLine(std::string_view input, size_t line_end);
  HttpViolation ParseStartLine(std::string_view input);
  HttpViolation SplitFields(std::string_view head);
  HttpViolation FinishRequest();
  HttpViolation FinishResponse();

  const Role role_;
  const ParserLimits limits_;
  std::unique_ptr<HeaderField[]> fields_;  // limits_.fields_max of them.

  HttpViolation violation_ = HttpViolation::kNone;
  bool complete_ = false;
  bool answers_head_ = false;
  // All are offsets from the first byte of the message.
  uint32_t scanned_ = 0;      // Bytes that the first judge has seen.
  uint32_t line_begin_ = 0;   // Where the line that is being scanned begins.
  uint32_t start_begin_ = 0;  // Where the start line begins: 0, or 2 after a skipped empty line.
  uint32_t start_end_ = 0;    // Where the start line ends (its CR); 0 while it is incomplete.
  uint32_t lines_count_ = 0;  // Field lines seen.
  uint32_t head_size_ = 0;
  // Where the input was when the start line was parsed: parsed again if it has moved until the head is whole.
  const char* start_line_base_ = nullptr;

  RequestHead request_;
  ResponseHead response_;
};

}  // namespace dpa
