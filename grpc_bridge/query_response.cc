#include "grpc_bridge/query_response.h"

#include <fmt/format.h>

#include <algorithm>
#include <iterator>

#include "grpc_bridge/protobuf_wire.h"
#include "grpc_bridge/text.h"

namespace dpa {
namespace {

constexpr int64_t kFormatArrow = 0;
constexpr int64_t kFormatJson = 1;
constexpr int kStatusMin = 100;
constexpr int kStatusMax = 599;
constexpr std::string_view kWhiteSpace = " \t\n\r";

// A pluginv2.DataResponse but for its frames, which are visited where they stand.
struct DataResponse {
  std::string_view error;
  std::string_view error_source;
  int32_t status = 0;
  int64_t format = kFormatArrow;
  size_t frame_count = 0;
};

bool ReadDataResponse(std::string_view message, DataResponse& response) {
  wire::Reader reader(message);
  while (reader.Next()) {
    if (reader.IsBytes(1)) ++response.frame_count;
    if (reader.IsBytes(2)) response.error = reader.bytes();
    if (reader.IsVarint(4)) response.status = static_cast<int32_t>(reader.varint());
    if (reader.IsBytes(5)) response.error_source = reader.bytes();
    if (reader.IsVarint(6)) response.format = static_cast<int32_t>(reader.varint());
  }
  return !reader.failed();
}

int HttpStatus(const DataResponse& response) {
  if (response.status >= kStatusMin && response.status <= kStatusMax) return response.status;
  return response.status == 0 && response.error.empty() ? 200 : 500;
}

// A look at both ends; the rest is the plugin's word.
bool LooksLikeJsonObject(std::string_view frame) {
  size_t first = frame.find_first_not_of(kWhiteSpace);
  if (first == std::string_view::npos || frame[first] != '{') return false;
  size_t last = frame.find_last_not_of(kWhiteSpace);
  return last > first && frame[last] == '}';
}

}  // namespace

// Fills one QueryReply. Text is collected in reply.text_; a frame that is passed on closes the run of text before it.
class QueryReplyRenderer {
 public:
  QueryReplyRenderer(FrameTranscoder* transcoder, const QueryReplyLimits& limits, QueryReply& reply)
      : transcoder_(transcoder), limits_(limits), reply_(reply) {}

  std::expected<void, QueryError> Render(std::string_view message);

 private:
  // Where the reply stood, to go back to.
  struct Mark {
    size_t parts_count, text_size, run_begin;
  };

  void Clear();
  bool FindResults(std::string_view message);
  bool FindResult(std::string_view entry);
  void SortResults();
  bool AppendResult(const QueryReply::Result& result);
  void AppendHeader(const DataResponse& response);
  bool AppendFrames(const QueryReply::Result& result, const DataResponse& response);
  bool AppendFrame(std::string_view frame, std::string_view ref_id, int64_t format);
  bool AppendJsonFrame(std::string_view frame);
  bool AppendArrowFrame(std::string_view frame, std::string_view ref_id);
  void EndRun();
  void Finish();
  bool Fail(std::string message) {
    failure_ = std::move(message);
    return false;
  }

  Mark Here() const { return {reply_.parts_.size(), reply_.text_.size(), run_begin_}; }
  void GoBack(const Mark& mark) {
    reply_.parts_.resize(mark.parts_count);
    reply_.text_.resize(mark.text_size);
    run_begin_ = mark.run_begin;
  }

  FrameTranscoder* transcoder_;
  const QueryReplyLimits& limits_;
  QueryReply& reply_;
  size_t run_begin_ = 0;  // Of the text that is in no part yet.
  std::string failure_;
};

std::expected<void, QueryError> QueryReplyRenderer::Render(std::string_view message) {
  Clear();
  bool ok = FindResults(message);
  if (ok) SortResults();
  reply_.text_ += "{\"results\":{";
  for (size_t i = 0; ok && i < reply_.found_.size(); ++i) {
    if (i > 0) reply_.text_ += ',';
    ok = AppendResult(reply_.found_[i]);
  }
  if (!ok) {
    Clear();
    return std::unexpected(QueryError{502, QueryError::Reason::kPluginBadReply, std::move(failure_)});
  }
  reply_.text_ += "}}";
  Finish();
  return {};
}

void QueryReplyRenderer::Clear() {
  reply_.found_.clear();
  reply_.parts_.clear();
  reply_.pieces_.clear();
  reply_.summaries_.clear();
  reply_.text_.clear();
  if (reply_.text_.capacity() > limits_.kept_bytes_max) reply_.text_ = {};
  reply_.content_length_ = 0;
  run_begin_ = 0;
}

bool QueryReplyRenderer::FindResults(std::string_view message) {
  wire::Reader reader(message);
  while (reader.Next()) {
    if (!reader.IsBytes(1)) continue;
    if (reply_.found_.size() == limits_.results_max) {
      return Fail(fmt::format("the plugin's reply has more than {} results", limits_.results_max));
    }
    if (!FindResult(reader.bytes())) return false;
  }
  return !reader.failed() || Fail("the plugin's reply is not a valid protobuf message");
}

// One entry of map<string, DataResponse>.
bool QueryReplyRenderer::FindResult(std::string_view entry) {
  QueryReply::Result result{.order = static_cast<uint32_t>(reply_.found_.size())};
  bool has_value = false;
  wire::Reader reader(entry);
  while (reader.Next()) {
    if (reader.IsBytes(1)) result.ref_id = reader.bytes();
    if (!reader.IsBytes(2)) continue;
    // Protobuf would merge two values; no encoder writes them, and merging would cost a copy.
    if (has_value) return Fail("the plugin's reply has a result with two values");
    has_value = true;
    result.value = reader.bytes();
  }
  if (reader.failed()) return Fail("the plugin's reply has a result that is not valid protobuf");
  reply_.found_.push_back(result);
  return true;
}

// Of several entries with one key the last one counts, as in every protobuf map.
void QueryReplyRenderer::SortResults() {
  auto& found = reply_.found_;
  std::ranges::sort(found, [](const auto& a, const auto& b) {
    return a.ref_id != b.ref_id ? a.ref_id < b.ref_id : a.order > b.order;
  });
  auto surplus = std::ranges::unique(found, {}, &QueryReply::Result::ref_id);
  found.erase(surplus.begin(), surplus.end());
}

bool QueryReplyRenderer::AppendResult(const QueryReply::Result& result) {
  DataResponse response;
  if (!ReadDataResponse(result.value, response))
    return Fail("the plugin's reply has a result that is not valid protobuf");
  AppendJsonString(result.ref_id, reply_.text_);
  reply_.text_ += ':';
  Mark begin = Here();
  AppendHeader(response);
  int status = HttpStatus(response);
  bool is_error = !response.error.empty();
  if (!AppendFrames(result, response)) {
    // What the plugin itself had to say about this refId must not be lost over our own complaint.
    if (is_error) failure_ = fmt::format("{} ({})", response.error, failure_);
    GoBack(begin);
    AppendHeader({.error = failure_, .error_source = "plugin", .status = 500});
    reply_.text_ += "]}";
    status = 500;
    is_error = true;
  }
  reply_.summaries_.push_back({result.ref_id, status, is_error});
  return true;
}

void QueryReplyRenderer::AppendHeader(const DataResponse& response) {
  std::string& text = reply_.text_;
  text += '{';
  if (!response.error.empty()) {
    text += "\"error\":";
    AppendJsonString(response.error, text);
    text += ",\"errorSource\":";
    AppendJsonString(response.error_source, text);
    text += ',';
  }
  fmt::format_to(std::back_inserter(text), "\"status\":{},\"frames\":[", HttpStatus(response));
}

bool QueryReplyRenderer::AppendFrames(const QueryReply::Result& result, const DataResponse& response) {
  bool first = true;
  wire::Reader reader(result.value);
  while (reader.Next()) {
    if (!reader.IsBytes(1)) continue;
    if (!first) reply_.text_ += ',';
    first = false;
    if (!AppendFrame(reader.bytes(), result.ref_id, response.format)) return false;
  }
  reply_.text_ += "]}";
  return true;
}

bool QueryReplyRenderer::AppendFrame(std::string_view frame, std::string_view ref_id, int64_t format) {
  if (format == kFormatJson) return AppendJsonFrame(frame);
  if (format == kFormatArrow) return AppendArrowFrame(frame, ref_id);
  return Fail(fmt::format("the plugin sent frames in the unknown format {}", format));
}

bool QueryReplyRenderer::AppendJsonFrame(std::string_view frame) {
  if (!LooksLikeJsonObject(frame)) return Fail("the plugin sent a frame as JSON that is not a JSON object");
  if (frame.size() < limits_.inline_bytes_max) {
    reply_.text_ += frame;
    return true;
  }
  EndRun();
  reply_.parts_.push_back({.data = frame.data(), .size = frame.size()});
  return true;
}

bool QueryReplyRenderer::AppendArrowFrame(std::string_view frame, std::string_view ref_id) {
  if (transcoder_ == nullptr) {
    return Fail(
        "the plugin sent Arrow frames, which need the transcoder; plugins built with SDK 0.290 or later send JSON");
  }
  auto done = transcoder_->AppendJson(frame, ref_id, reply_.text_);
  return done.has_value() || Fail(std::move(done.error()));
}

void QueryReplyRenderer::EndRun() {
  size_t size = reply_.text_.size() - run_begin_;
  if (size > 0) reply_.parts_.push_back({.offset = run_begin_, .size = size});
  run_begin_ = reply_.text_.size();
}

// Only now does the text stay where it is.
void QueryReplyRenderer::Finish() {
  EndRun();
  for (const QueryReply::Piece& part : reply_.parts_) {
    const char* data = part.data != nullptr ? part.data : reply_.text_.data() + part.offset;
    reply_.pieces_.push_back({const_cast<char*>(data), part.size});
    reply_.content_length_ += part.size;
  }
}

std::string QueryReply::Text() const {
  std::string text;
  text.reserve(content_length_);
  for (const iovec& piece : pieces_) text.append(static_cast<const char*>(piece.iov_base), piece.iov_len);
  return text;
}

std::expected<void, QueryError> RenderQueryResponse(std::string_view message, FrameTranscoder* transcoder,
                                                    const QueryReplyLimits& limits, QueryReply& reply) {
  return QueryReplyRenderer(transcoder, limits, reply).Render(message);
}

// ---- Status details.

namespace {

// google.rpc.ErrorInfo: metadata is map<string, string>, field 3.
std::string_view ErrorSourceOfInfo(std::string_view info) {
  wire::Reader reader(info);
  while (reader.Next()) {
    if (!reader.IsBytes(3)) continue;
    std::string_view key;
    std::string_view value;
    wire::Reader entry(reader.bytes());
    while (entry.Next()) {
      if (entry.IsBytes(1)) key = entry.bytes();
      if (entry.IsBytes(2)) value = entry.bytes();
    }
    if (entry.failed() || key != "errorSource") continue;
    if (value == "plugin") return "plugin";
    if (value == "downstream") return "downstream";
  }
  return {};
}

// google.protobuf.Any.
std::string_view ErrorSourceOfDetail(std::string_view detail) {
  std::string_view type_url;
  std::string_view value;
  wire::Reader reader(detail);
  while (reader.Next()) {
    if (reader.IsBytes(1)) type_url = reader.bytes();
    if (reader.IsBytes(2)) value = reader.bytes();
  }
  return !reader.failed() && type_url.ends_with("/google.rpc.ErrorInfo") ? ErrorSourceOfInfo(value)
                                                                         : std::string_view{};
}

}  // namespace

std::string_view ErrorSourceFromStatusDetails(std::string_view status) {
  wire::Reader reader(status);
  while (reader.Next()) {
    if (!reader.IsBytes(3)) continue;
    std::string_view source = ErrorSourceOfDetail(reader.bytes());
    if (!source.empty()) return source;
  }
  return {};
}

}  // namespace dpa
