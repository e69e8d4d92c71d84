// Exchange is one request and its response, as those who answer it see it: http/proxy.cc (the story), a PluginHost, the
// admin endpoints. DownstreamConnection makes one per request, hands it to its Handler and finishes it: access record,
// metrics, keep the connection or close it.
//
// Exactly one response is given, by Respond, RespondError, or StartResponse … FinishResponse. A Handler that returns
// without one gets a 500; one that returns with a response started and not finished has the connection aborted, so that
// a truncated body never looks whole.
//
// Writes are gathered by the worker's turn. Errors from writing mean that the client has gone; stop and return.

#pragma once

#include <sys/uio.h>

#include <cstdint>
#include <span>
#include <string_view>

#include "core/byte_buffer.h"
#include "core/result.h"
#include "core/task.h"
#include "core/timer_wheel.h"
#include "core/worker.h"
#include "http/access_record.h"
#include "http/message.h"
#include "http/reason.h"
#include "http/request_identity.h"
#include "http/route_table.h"

namespace dpa {

class ExchangeRelay;

// Whole answers of a known length.
struct Response {
  int status = 200;
  std::string_view content_type = "application/json";
  std::span<const HeaderField> fields;  // Besides Content-Type, Content-Length, Date and Connection.
};

class Exchange {
 public:
  virtual Worker& worker() = 0;
  // Views are good until the exchange ends.
  virtual const RequestHead& request() const = 0;
  virtual RouteMatch& match() = 0;
  virtual AccessRecord& record() = 0;
  // The numbers that the request is followed by, for those who send it on.
  virtual const RequestIds& ids() const = 0;

  // --- Request body. `100 Continue` is sent by the first read if the client waits for it. ---

  // The next bytes of the body, without framing; empty at its end. Good until the next read.
  // Errors: kTimeout (client stalled), kClosed or kReset (client left), kMalformed (bad chunk), kTooLarge.
  virtual Task<Result<std::string_view>> ReadBody() = 0;
  // The whole body appended to `into`, which gets `padding_bytes` readable bytes behind it. Errors: as ReadBody;
  // kTooLarge beyond `bytes_max` (by Content-Length before a byte is read).
  virtual Task<Result<void>> ReadWholeBody(ByteBuffer& into, size_t bytes_max, size_t padding_bytes) = 0;

  // --- Response. ---

  // Head and body with Content-Length in one gathered send. `body` belongs to the call until it is done.
  // A HEAD request gets the head alone.
  virtual Task<Result<void>> Respond(const Response& response, std::span<iovec> body) = 0;
  // An error of ours: HTTP status by the reason's table, a Kubernetes Status body with `message` and the reason word,
  // record and metric set. Before a response has started; afterwards only the record is set and the connection is
  // aborted.
  virtual Task<Result<void>> RespondError(Reason reason, std::string_view message) = 0;
  // As RespondError, with extra header fields (`Allow`, …).
  virtual Task<Result<void>> RespondError(Reason reason, std::string_view message,
                                          std::span<const HeaderField> fields) = 0;
  // A body of unknown length: chunked, or until close for HTTP/1.0.
  virtual Task<Result<void>> StartResponse(const Response& response) = 0;
  virtual Task<Result<void>> WriteBody(std::span<iovec> pieces) = 0;
  virtual Task<Result<void>> FinishResponse() = 0;
  virtual bool response_started() const = 0;

  // The proxy's way in: bodies in pieces, heads that come from an upstream.
  // nullptr: this kind of exchange is never relayed.
  virtual ExchangeRelay* relay() { return nullptr; }

  // While set, `target` is cancelled when the client goes away (end of stream or reset), with source downstream.
  // nullptr to stop. At once if the client has gone already.
  virtual void CancelWhenClientGone(Cancellable* target) = 0;

 protected:
  ~Exchange() = default;
};

// Answers exchanges. One per worker and listener kind; runs many at once.
class ExchangeHandler {
 public:
  virtual ~ExchangeHandler() = default;
  virtual Task<void> Handle(Exchange& exchange) = 0;
};

}  // namespace dpa
