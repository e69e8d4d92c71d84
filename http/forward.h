// Forward sends one request over one leased connection and brings its answer back: the request's body goes out while
// the response may already be coming in.
//
//     client --TakePieces, ReadPieces--> Forward --SendHead, SendBody--> upstream
//     client <--ForwardHead, ForwardBody-- Forward <--ReadHead, ReadPieces-- upstream

#pragma once

#include <cstdint>

#include "core/result.h"
#include "core/task.h"
#include "http/exchange.h"
#include "http/exchange_relay.h"
#include "http/upstream_group.h"

namespace dpa {

struct ForwardOptions {
  uint32_t interim_max = 16;  // 1xx answers to one request; beyond it the upstream is taken for broken.
};

// `first` is what has come of the request's body so far. On success the response has been given in full, and the lease
// is marked for reuse if both sides allow it.
// Errors: of either side, by source; what the client is told about them is the caller's.
Task<Result<void>> Forward(Exchange& exchange, UpstreamGroup::Choice& choice, const BodyPieces& first,
                           const ForwardOptions& options);

}  // namespace dpa
