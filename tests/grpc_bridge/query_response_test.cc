// Goal: a plugin's reply becomes Grafana's body, its frames untouched; hostile bytes become errors.
// Method: serialize with the generated class (or by hand), render, compare text; cut and flip bytes.

#include "grpc_bridge/query_response.h"

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include <string>

#include "grpc_bridge/proto/pluginv2.pb.h"
#include "grpc_bridge/protobuf_wire.h"

namespace dpa {
namespace {

pluginv2::DataResponse JsonFrames(std::initializer_list<std::string> frames, int status = 200) {
  pluginv2::DataResponse response;
  for (const std::string& frame : frames) response.add_frames(frame);
  response.set_status(status);
  response.set_format(pluginv2::JSON);
  return response;
}

class QueryResponse : public testing::Test {
 protected:
  std::string Render(const pluginv2::QueryDataResponse& response) { return RenderBytes(response.SerializeAsString()); }
  std::string RenderBytes(std::string bytes) {
    message_ = std::move(bytes);
    auto done = RenderQueryResponse(message_, transcoder_, limits_, reply_);
    if (!done) {
      EXPECT_EQ(done.error().http_status, 502);
      EXPECT_EQ(ToString(done.error().reason), "plugin_bad_reply");
      EXPECT_EQ(reply_.content_length(), 0u);
      EXPECT_TRUE(reply_.pieces().empty());
      return "error: " + done.error().message;
    }
    EXPECT_EQ(reply_.Text().size(), reply_.content_length());
    return reply_.Text();
  }
  std::string RenderOne(const pluginv2::DataResponse& one) {
    pluginv2::QueryDataResponse response;
    (*response.mutable_responses())["A"] = one;
    return Render(response);
  }

  std::string message_;
  FrameTranscoder* transcoder_ = nullptr;
  QueryReplyLimits limits_;
  QueryReply reply_;
};

const std::string kFrame = R"({"schema":{"name":"test-frame","refId":"A","fields":[]},"data":{"values":[]}})";

TEST_F(QueryResponse, FramesAreSplicedAsTheyAre) {
  EXPECT_EQ(RenderOne(JsonFrames({kFrame})), R"({"results":{"A":{"status":200,"frames":[)" + kFrame + "]}}}");
  EXPECT_EQ(RenderOne(JsonFrames({kFrame, "{}", kFrame})),
            R"({"results":{"A":{"status":200,"frames":[)" + kFrame + ",{}," + kFrame + "]}}}");
  EXPECT_EQ(RenderOne(JsonFrames({})), R"({"results":{"A":{"status":200,"frames":[]}}})");
  EXPECT_EQ(RenderBytes(""), R"({"results":{}})");
}

TEST_F(QueryResponse, LargeFramesAreViewsIntoTheMessage) {
  std::string large = "{\"x\":\"" + std::string(100'000, 'y') + "\"}";
  EXPECT_EQ(RenderOne(JsonFrames({large, kFrame, large})),
            R"({"results":{"A":{"status":200,"frames":[)" + large + "," + kFrame + "," + large + "]}}}");
  ASSERT_EQ(reply_.pieces().size(), 5u);
  for (size_t i : {1u, 3u}) {
    auto* data = static_cast<const char*>(reply_.pieces()[i].iov_base);
    EXPECT_TRUE(data >= message_.data() && data < message_.data() + message_.size());
    EXPECT_EQ(reply_.pieces()[i].iov_len, large.size());
  }
}

TEST_F(QueryResponse, RefIdsAreSortedBytewise) {
  pluginv2::QueryDataResponse response;
  for (const char* id : {"b", "A", "\xC3\xA4", "B", "", "A1", "__har__x"})
    (*response.mutable_responses())[id] = JsonFrames({});
  EXPECT_EQ(
      Render(response),
      R"({"results":{"":{"status":200,"frames":[]},"A":{"status":200,"frames":[]},"A1":{"status":200,"frames":[]},)"
      R"("B":{"status":200,"frames":[]},"__har__x":{"status":200,"frames":[]},"b":{"status":200,"frames":[]},)"
      "\"\xC3\xA4\":{\"status\":200,\"frames\":[]}}}");
  ASSERT_EQ(reply_.results().size(), 7u);
  EXPECT_EQ(reply_.results()[1].ref_id, "A");
}

TEST_F(QueryResponse, ErrorsComeFirstAndInOrder) {
  pluginv2::DataResponse response = JsonFrames({kFrame}, 504);
  response.set_error("upstream \"slow\"\n<x>\x01");
  response.set_errorsource("downstream");
  response.set_jsonmeta("ignored");
  EXPECT_EQ(
      RenderOne(response),
      R"({"results":{"A":{"error":"upstream \"slow\"\n<x>\u0001","errorSource":"downstream","status":504,"frames":[)" +
          kFrame + "]}}}");
  EXPECT_TRUE(reply_.results()[0].is_error);
  EXPECT_EQ(reply_.results()[0].status, 504);
  response = JsonFrames({});
  response.set_error("e");
  EXPECT_EQ(RenderOne(response), R"({"results":{"A":{"error":"e","errorSource":"","status":200,"frames":[]}}})");
  response = JsonFrames({});
  response.set_errorsource("plugin");
  EXPECT_EQ(RenderOne(response), R"({"results":{"A":{"status":200,"frames":[]}}})")
      << "a source without an error is left out";
}

TEST_F(QueryResponse, StatusRules) {
  struct Row {
    int sent;
    const char* error;
    int shown;
  };
  for (const Row& row : std::initializer_list<Row>{{0, "", 200},
                                                   {0, "e", 500},
                                                   {99, "", 500},
                                                   {600, "", 500},
                                                   {-1, "", 500},
                                                   {100, "", 100},
                                                   {599, "", 599},
                                                   {404, "e", 404},
                                                   {INT32_MIN, "e", 500}}) {
    pluginv2::DataResponse response = JsonFrames({}, row.sent);
    response.set_error(row.error);
    RenderOne(response);
    EXPECT_EQ(reply_.results()[0].status, row.shown) << row.sent << " " << row.error;
    EXPECT_EQ(nlohmann::json::parse(reply_.Text())["results"]["A"]["status"], row.shown);
  }
}

TEST_F(QueryResponse, ArrowWithoutTranscoderIsAnErrorOfThatRefId) {
  pluginv2::QueryDataResponse response;
  auto& arrow = (*response.mutable_responses())["A"];
  arrow.add_frames("ARROW1\0\0");
  arrow.set_status(200);
  (*response.mutable_responses())["B"] = JsonFrames({kFrame});
  EXPECT_EQ(Render(response),
            R"({"results":{"A":{"error":"the plugin sent Arrow frames, which need the transcoder; )"
            R"(plugins built with SDK 0.290 or )"
            R"(later send JSON","errorSource":"plugin","status":500,"frames":[]},"B":{"status":200,"frames":[)" +
                kFrame + "]}}}");
  // Errors of old SDKs carry no frames and no format: nothing to convert.
  pluginv2::DataResponse old;
  old.set_error("boom");
  EXPECT_EQ(RenderOne(old), R"({"results":{"A":{"error":"boom","errorSource":"","status":500,"frames":[]}}})");
  old.add_frames("ARROW1");
  EXPECT_EQ(RenderOne(old),
            R"({"results":{"A":{"error":"boom (the plugin sent Arrow frames, which need the transcoder; )"
            R"(plugins built with SDK )"
            R"-(0.290 or later send JSON)","errorSource":"plugin","status":500,"frames":[]}}})-");
}

TEST_F(QueryResponse, FramesThatAreNotWhatTheySayAreAnErrorOfThatRefId) {
  for (const char* frame : {"ARROW1..", "", " ", "{", "[]", "null", "}", "{\"x\":1}]", "x{}"}) {
    EXPECT_EQ(RenderOne(JsonFrames({kFrame, frame})),
              R"({"results":{"A":{"error":"the plugin sent a frame as JSON that is not a JSON object",)"
              R"("errorSource":"plugin",)"
              R"("status":500,"frames":[]}}})")
        << frame;
  }
  EXPECT_EQ(RenderOne(JsonFrames({" {}\n"})), "{\"results\":{\"A\":{\"status\":200,\"frames\":[ {}\n]}}}");
  pluginv2::DataResponse unknown = JsonFrames({"{}"});
  unknown.set_format(static_cast<pluginv2::DataFrameFormat>(7));
  EXPECT_EQ(RenderOne(unknown),
            R"({"results":{"A":{"error":"the plugin sent frames in the unknown format 7","errorSource":)"
            R"("plugin","status":500,"frames":[]}}})");
}

class FakeTranscoder : public FrameTranscoder {
 public:
  std::expected<void, std::string> AppendJson(std::string_view arrow, std::string_view ref_id,
                                              std::string& out) override {
    out += "{\"half\":";
    if (arrow == "bad") return std::unexpected("frame is no Arrow file");
    out += '"' + std::string(arrow) + std::string(ref_id) + "\"}";
    return {};
  }
};

TEST_F(QueryResponse, ArrowGoesThroughTheTranscoder) {
  FakeTranscoder transcoder;
  transcoder_ = &transcoder;
  pluginv2::QueryDataResponse response;
  auto& good = (*response.mutable_responses())["A"];
  good.add_frames("x");
  good.add_frames("y");
  auto& bad = (*response.mutable_responses())["B"];
  bad.add_frames(std::string(1000, 'x'));
  bad.add_frames("bad");
  (*response.mutable_responses())["C"] = JsonFrames({"{\"z\":\"" + std::string(1000, 'z') + "\"}"});
  EXPECT_EQ(Render(response),
            R"({"results":{"A":{"status":200,"frames":[{"half":"xA"},{"half":"yA"}]},)"
            R"("B":{"error":"frame is no Arrow file","errorSource":"plugin","status":500,"frames":[]},)"
            R"("C":{"status":200,"frames":[{"z":")" +
                std::string(1000, 'z') + "\"}]}}}");
}

TEST_F(QueryResponse, TextThatIsNotUtf8IsRepaired) {
  std::string value;
  wire::AppendBytes(2, "bad \xFF\xED\xA0\x80 text", value);
  std::string entry;
  wire::AppendBytes(1, "A\xC0", entry);
  wire::AppendBytes(2, value, entry);
  std::string message;
  wire::AppendBytes(1, entry, message);
  std::string text = RenderBytes(message);
  EXPECT_TRUE(nlohmann::json::accept(text)) << text;
  EXPECT_NE(text.find("A\xEF\xBF\xBD"), std::string::npos);
}

TEST_F(QueryResponse, OfEqualRefIdsTheLastCounts) {
  std::string message;
  for (const char* frame : {"{\"n\":1}", "{\"n\":2}"}) {
    std::string entry;
    wire::AppendBytes(1, "A", entry);
    wire::AppendBytes(2, JsonFrames({frame}).SerializeAsString(), entry);
    wire::AppendBytes(1, entry, message);
  }
  EXPECT_EQ(RenderBytes(message), R"({"results":{"A":{"status":200,"frames":[{"n":2}]}}})");
}

TEST_F(QueryResponse, UnknownFieldsAreSkipped) {
  std::string value = JsonFrames({"{}"}).SerializeAsString();
  wire::AppendBytes(15, "new", value);
  value +=
      "\x75"
      "abcd";  // Field 14, fixed32.
  value +=
      "\x71"
      "abcdefgh";  // Field 14, fixed64.
  std::string entry;
  wire::AppendBytes(1, "A", entry);
  wire::AppendBytes(2, value, entry);
  std::string message;
  wire::AppendInt(9, 5, message);
  wire::AppendBytes(1, entry, message);
  EXPECT_EQ(RenderBytes(message), R"({"results":{"A":{"status":200,"frames":[{}]}}})");
}

TEST_F(QueryResponse, AResultWithoutAValueIsEmpty) {
  std::string entry;
  wire::AppendBytes(1, "A", entry);
  std::string message;
  wire::AppendBytes(1, entry, message);
  EXPECT_EQ(RenderBytes(message), R"({"results":{"A":{"status":200,"frames":[]}}})");
}

TEST_F(QueryResponse, MalformedBytesFailTheCall) {
  EXPECT_EQ(RenderBytes("\x0A"), "error: the plugin's reply is not a valid protobuf message");
  EXPECT_EQ(RenderBytes("\x0A\x05"
                        "abc"),
            "error: the plugin's reply is not a valid protobuf message");
  EXPECT_EQ(RenderBytes(std::string(12, '\xFF')), "error: the plugin's reply is not a valid protobuf message");
  EXPECT_EQ(RenderBytes(std::string("\x00", 1)), "error: the plugin's reply is not a valid protobuf message");
  EXPECT_EQ(RenderBytes("\x0B"), "error: the plugin's reply is not a valid protobuf message");
  EXPECT_EQ(RenderBytes("<html>502 Bad Gateway</html>"), "error: the plugin's reply is not a valid protobuf message");
  EXPECT_EQ(RenderBytes("\x0A\x02\x12\x05"), "error: the plugin's reply has a result that is not valid protobuf");
  EXPECT_EQ(RenderBytes("\x0A\x04\x12\x02\x0A\x09"),
            "error: the plugin's reply has a result that is not valid protobuf");
  EXPECT_EQ(RenderBytes(std::string("\x0A\x04\x12\x00\x12\x00", 6)),
            "error: the plugin's reply has a result with two values");
  limits_.results_max = 2;
  EXPECT_EQ(RenderBytes(std::string("\x0A\x00\x0A\x00\x0A\x00", 6)),
            "error: the plugin's reply has more than 2 results");
}

TEST_F(QueryResponse, EveryCutIsAnErrorOrValidJson) {
  pluginv2::QueryDataResponse response;
  (*response.mutable_responses())["A"] = JsonFrames({kFrame, kFrame});
  (*response.mutable_responses())["B"].set_error("boom");
  std::string whole = response.SerializeAsString();
  for (size_t size = 0; size < whole.size(); ++size) {
    message_ = whole.substr(0, size);
    if (RenderQueryResponse(message_, nullptr, limits_, reply_)) {
      EXPECT_TRUE(nlohmann::json::accept(reply_.Text())) << size;
    }
  }
}

TEST(StatusDetails, NameTheSourceOfAnError) {
  auto details = [](std::string_view type_url, std::string_view key, std::string_view value) {
    std::string info;
    wire::AppendString(1, "reason", info);
    wire::AppendMapEntry(3, "other", "x", info);
    wire::AppendMapEntry(3, key, value, info);
    std::string any;
    wire::AppendString(1, type_url, any);
    wire::AppendBytes(2, info, any);
    std::string status;
    wire::AppendInt(1, 2, status);
    wire::AppendString(2, "boom", status);
    wire::AppendBytes(3, any, status);
    return status;
  };
  constexpr std::string_view kInfo = "type.googleapis.com/google.rpc.ErrorInfo";
  std::string good = details(kInfo, "errorSource", "downstream");
  EXPECT_EQ(ErrorSourceFromStatusDetails(good), "downstream");
  EXPECT_EQ(ErrorSourceFromStatusDetails(details(kInfo, "errorSource", "plugin")), "plugin");
  EXPECT_EQ(ErrorSourceFromStatusDetails(details(kInfo, "errorSource", "evil\n")), "");
  EXPECT_EQ(ErrorSourceFromStatusDetails(details("type.googleapis.com/google.rpc.RetryInfo", "errorSource", "plugin")),
            "");
  EXPECT_EQ(ErrorSourceFromStatusDetails(""), "");
  for (size_t size = 0; size < good.size(); ++size) EXPECT_EQ(ErrorSourceFromStatusDetails(good.substr(0, size)), "");
}

}  // namespace
}  // namespace dpa
