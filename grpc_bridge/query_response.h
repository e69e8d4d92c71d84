// A serialized pluginv2.QueryDataResponse turned into the HTTP body, without copying its frames:
//
//     message   [..entry "B": frame ████████ ..][..entry "A": frame ██████ ..]
//     pieces    {"results":{"A":{"status":200,"frames":[ ██████ ]},"B":{"status":200,"frames":[ ████████ ]}}}
//               └──────────── text ────────────────────┘ └view┘ └───── text ─────────────────┘ └─view──┘ └text┘
//
// refIds are sorted bytewise; members come in the order error, errorSource, status, frames; no white space. `error` and
// `errorSource` are there only when there is an error, `status` and `frames` always.
// status: 100–599 as sent; 0 (what SDKs before 0.142 send) is 200 without an error; anything else is 500. (Grafana
// shows 500 for 0 even when all is well.)
// Frames that the plugin calls JSON are passed on unparsed after a look at their first and last byte; a plugin that
// lies about the middle breaks its own answer. Frames in Arrow go through the FrameTranscoder; without one, or if it
// fails, that refId has an error in place of its frames. refIds that the plugin left out are left out, those that it
// added are passed on.

#pragma once

#include <sys/uio.h>

#include <cstddef>
#include <cstdint>
#include <expected>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "grpc_bridge/query_translation.h"

namespace dpa {

// Turns an Arrow frame (one IPC file) into a JSON frame.
class FrameTranscoder {
 public:
  virtual ~FrameTranscoder() = default;
  // Appends `{"schema":…,"data":…}`. `ref_id` stands in when the frame has none of its own.
  // Errors: a sentence for the client; what was appended is then cut off by the caller.
  virtual std::expected<void, std::string> AppendJson(std::string_view arrow_file, std::string_view ref_id,
                                                      std::string& out) = 0;
};

struct QueryReplyLimits {
  size_t results_max = 10'000;
  size_t inline_bytes_max = 512;    // A smaller frame is copied: a gather entry costs more than the bytes.
  size_t kept_bytes_max = 1 << 20;  // Working memory above this is given back at the next call.
};

struct QueryResultSummary {
  std::string_view ref_id;  // As sent; a view into the message.
  int status = 200;
  bool is_error = false;
};

// The body and what it says. Reused from call to call, so that the steady state does not allocate.
class QueryReply {
 public:
  // The body in order. Good until the next Render and while the message lives. May be more than IOV_MAX.
  std::span<const iovec> pieces() const { return pieces_; }
  size_t content_length() const { return content_length_; }
  // In order of refId.
  std::span<const QueryResultSummary> results() const { return summaries_; }
  // All pieces in one string, for tests and small tools.
  std::string Text() const;

 private:
  friend class QueryReplyRenderer;
  struct Result {
    std::string_view ref_id;
    std::string_view value;  // A serialized DataResponse.
    uint32_t order = 0;
  };
  struct Piece {
    const char* data = nullptr;  // nullptr: at `offset` in text_.
    size_t offset = 0;
    size_t size = 0;
  };
  std::vector<Result> found_;
  std::vector<Piece> parts_;
  std::vector<iovec> pieces_;
  std::vector<QueryResultSummary> summaries_;
  std::string text_;
  size_t content_length_ = 0;
};

// `message` is one whole message without its frame prefix. `transcoder` may be nullptr.
// Errors: kPluginBadReply (502) if `message` is not a QueryDataResponse or passes a limit; `reply` is then empty.
std::expected<void, QueryError> RenderQueryResponse(std::string_view message, FrameTranscoder* transcoder,
                                                    const QueryReplyLimits& limits, QueryReply& reply);

// Whose fault a failed call was, from the decoded bytes of the trailer `grpc-status-details-bin` (google.rpc.Status
// with a google.rpc.ErrorInfo): "plugin" or "downstream"; empty if it does not say or cannot be read.
std::string_view ErrorSourceFromStatusDetails(std::string_view status);

}  // namespace dpa
