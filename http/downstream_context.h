// DownstreamContext is what all client connections of one worker and one server share: the handler, limits, counters,
// and the memory that a connection borrows while a request is under way. An idle connection holds none of it.

#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <string_view>
#include <vector>

#include "core/byte_buffer.h"
#include "core/worker.h"
#include "http/access_record.h"
#include "http/http_metrics.h"
#include "http/message_reader.h"
#include "http/send_pieces.h"

namespace dpa {

class DownstreamConnection;
class ExchangeHandler;

struct DownstreamOptions {
  uint64_t header_timeout_ms = 10'000;      // --client-header-timeout: from the first byte of a head to its last.
  uint64_t body_timeout_ms = 30'000;        // --client-body-timeout: between two reads of a body.
  uint64_t keep_alive_timeout_ms = 75'000;  // --keepalive-timeout: between two requests, and before the first.
  uint64_t send_timeout_ms = 30'000;        // 256 KiB of a response must get out within.
  // --client-half-close-timeout: for a client that has ended its sending side behind a request and takes nothing.
  // Nobody can tell it from one that has left, and what those asked for must not be worked on for long. 0: it has left.
  uint64_t half_close_timeout_ms = 1'000;
  uint64_t linger_timeout_ms = 2'000;  // Closing towards a client that still sends.
  uint64_t linger_bytes_max = 1 << 20;
  uint64_t drain_body_bytes_max = 256 << 10;  // An unread request body up to this is read to keep the connection.
  uint32_t exchanges_max = 0;                 // Per connection; then it is closed. 0: no limit.
  ParserLimits parser;                        // --max-header-bytes and friends.
  BodyLimits body;
};

// What one request needs while it is under way.
struct ExchangeMemory {
  ExchangeMemory(const DownstreamOptions& options, BytePool& bytes)
      : reader(MessageParser::Role::kRequest, options.parser, options.body, bytes), head(bytes), body(bytes) {}
  MessageReader reader;
  ByteBuffer head;  // Of the response that is being sent.
  ByteBuffer body;  // Of an error of ours; trailers.
  SendPieces out;
  std::unique_ptr<ExchangeMemory> next_free;
};

// The value of the Date field (RFC 9110 §5.6.7), made once a second.
class DateClock {
 public:
  std::string_view At(uint64_t now_ms);

 private:
  uint64_t valid_until_ms_ = 0;
  std::array<char, 29> text_;
};

struct DownstreamContext {
  DownstreamContext(Worker& w, ExchangeHandler& h, const DownstreamOptions& o, HttpMetrics& m, AccessLog* log)
      : worker(w), handler(h), options(o), metrics(m), access_log(log) {}

  std::unique_ptr<ExchangeMemory> TakeMemory();
  void GiveMemory(std::unique_ptr<ExchangeMemory> memory);

  Worker& worker;
  ExchangeHandler& handler;
  const DownstreamOptions options;
  HttpMetrics& metrics;
  AccessLog* const access_log;  // nullptr: off.
  DateClock date;
  bool draining = false;
  uint64_t connections_count = 0;
  uint64_t exchanges_count = 0;

 private:
  std::unique_ptr<ExchangeMemory> free_memory_;
};

}  // namespace dpa
