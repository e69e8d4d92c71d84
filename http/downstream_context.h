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
#include "http/request_identity.h"
#include "http/send_pieces.h"

namespace dpa {

class DownstreamConnection;
class ExchangeHandler;

struct DownstreamOptions {
  uint64_t header_timeout_ms = 10'000;  // --client-header-timeout: from the first byte of a head to its last.
  uint64_t body_timeout_ms = 30'000;    // --client-body-timeout: between two reads of a body.
  // --client-body-min-rate and --client-body-grace: a client may keep us waiting for its body for the grace and another
  // second for each `body_rate_min` bytes that it has sent, so that a byte now and then cannot hold an exchange, and a
  // connection to the delegate with it, for ever. Time in which we do not read does not count. Rate 0: no such limit.
  uint64_t body_rate_min = 240;  // Bytes a second. Slower than any modem; a 64 KiB body may take four minutes.
  uint64_t body_grace_ms = 10'000;
  uint64_t keep_alive_timeout_ms = 75'000;  // --keepalive-timeout: between two requests, and before the first.
  // What a connection has for its first request after draining has begun: it may be on its way.
  uint64_t drain_first_request_ms = 1'000;
  uint64_t send_timeout_ms = 30'000;  // 256 KiB of a response must get out within.
  // --client-half-close-timeout: for a client that has ended its sending side behind a request and takes nothing.
  // Nobody can tell it from one that has left, and what those asked for must not be worked on for long. 0: it has left.
  uint64_t half_close_timeout_ms = 1'000;
  uint64_t linger_timeout_ms = 2'000;  // Closing towards a client that still sends.
  uint64_t linger_bytes_max = 1 << 20;
  uint64_t drain_body_bytes_max = 256 << 10;  // An unread request body up to this is read to keep the connection.
  uint32_t exchanges_max = 0;                 // --max-requests-per-connection; then it is closed. 0: no limit.
  uint32_t in_flight_max = 0;                 // --requests-in-flight-per-worker; beyond it: 503. 0: no limit.
  ParserLimits parser;                        // --max-header-bytes and friends.
  BodyLimits body;
  IdentityOptions identity;  // --trusted-proxies and friends.
};

// What one request needs while it is under way.
struct ExchangeMemory {
  ExchangeMemory(const DownstreamOptions& options, BytePool& bytes)
      : reader(MessageParser::Role::kRequest, options.parser, options.body, bytes), head(bytes), body(bytes) {}
  MessageReader reader;
  ByteBuffer head;  // Of the response that is being sent.
  ByteBuffer body;  // Of an error of ours; trailers.
  RequestIdentity identity;
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
      : worker(w), handler(h), options(o), metrics(m), access_log(log), ids(o.identity.random_seed) {}

  // Numbers of connections and exchanges are unique in the process and stay below 2^53, which JSON readers can hold.
  uint64_t NextConnectionId() { return uint64_t{worker.index()} << 44 | ++connections_count; }
  uint64_t NextExchangeId() { return uint64_t{worker.index()} << 44 | ++exchanges_count; }

  std::unique_ptr<ExchangeMemory> TakeMemory();
  void GiveMemory(std::unique_ptr<ExchangeMemory> memory);

  Worker& worker;
  ExchangeHandler& handler;
  const DownstreamOptions options;
  HttpMetrics& metrics;
  AccessLog* const access_log;  // nullptr: off.
  DateClock date;
  IdSource ids;
  bool draining = false;
  uint64_t connections_count = 0;
  uint64_t exchanges_count = 0;
  bool proxy_header_warned = false;  // The first bad PROXY header is logged; all are counted.

 private:
  std::unique_ptr<ExchangeMemory> free_memory_;
};

}  // namespace dpa
