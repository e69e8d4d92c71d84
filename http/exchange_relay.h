// ExchangeRelay is what the proxy needs of an Exchange beyond answering it: the request's body as it comes, in pieces,
// and a response whose head and body come from an upstream.
//
// The request's body may be read by one coroutine while another sends the response; nothing here sends towards the
// client on behalf of reading (SendContinue is a call of its own).

#pragma once

#include <span>
#include <string_view>

#include "core/result.h"
#include "core/snapshot.h"
#include "core/task.h"
#include "http/message.h"
#include "http/message_reader.h"
#include "http/reason.h"
#include "http/route_table.h"

namespace dpa {

class ExchangeRelay {
 public:
  using RoutesPin = SnapshotReader<RouteTable>::Pin;

  // Keeps the table that match() points into until the access record is written.
  virtual void HoldRoutes(RoutesPin pin) = 0;
  // The client's IP address without port; empty for a unix socket.
  virtual std::string_view client_host() const = 0;

  // --- The request's body ---

  // Sends `100 Continue` if the client waits for it and has sent no body yet. Before the response only.
  virtual Task<Result<void>> SendContinue() = 0;
  // The client waits for `100 Continue`: it has sent `Expect`, no body yet, and nothing has been answered.
  virtual bool awaits_continue() const = 0;
  // As MessageReader::TakePieces and ReadPieces, with the errors of Exchange::ReadBody.
  virtual BodyPieces TakePieces() = 0;
  virtual Task<Result<BodyPieces>> ReadPieces() = 0;
  // Ends the ReadPieces that another coroutine waits in, with `reason`. No-op if there is none.
  virtual void InterruptRead(Error reason) = 0;

  // --- The response ---

  // A 1xx from upstream, for HTTP/1.1 clients; HTTP/1.0 ones get nothing.
  virtual Task<Result<void>> ForwardInterim(const ResponseHead& head) = 0;
  // The final head, rewritten, and the first pieces of its body, in one send.
  virtual Task<Result<void>> ForwardHead(const ResponseHead& head, const BodyPieces& first) = 0;
  // More of the body; its end, when `pieces.last`.
  virtual Task<Result<void>> ForwardBody(const BodyPieces& pieces) = 0;

  // --- A tunnel: what an Upgrade becomes ---

  // Sends the 101 head. From now on ReadPieces and ForwardBody carry the bytes of another protocol, unframed and
  // without deadlines; `last` is the end of stream of the side that they come from.
  virtual Task<Result<void>> StartTunnel(const ResponseHead& head) = 0;
  // Ends, with `reason`, what waits for the client and all that will. `reset`: the client is to see that its connection
  // broke off.
  virtual void CancelClient(Error reason, bool reset) = 0;
  // How the tunnel ended; after both ways have.
  virtual void EndTunnel(Reason reason) = 0;

 protected:
  ~ExchangeRelay() = default;
};

}  // namespace dpa
