// Goal: a query body becomes exactly the request that Grafana's aggregator would send, or a clear refusal.
// Method: translate, parse the bytes with the generated class, compare fields; tables of bodies and errors.

#include "grpc_bridge/query_translation.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "grpc_bridge/proto/pluginv2.pb.h"
#include "grpc_bridge/time_range.h"

namespace dpa {
namespace {

using Reason = QueryError::Reason;

constexpr int64_t kNow = 1'585'235'576'789;  // 2020-03-26T15:12:56.789Z
const std::string kDs = R"("datasource":{"type":"testds","uid":"123","apiVersion":"v1"})";

class QueryTranslation : public testing::Test {
 protected:
  QueryTranslation() {
    DataSource source;
    source.uid = "123";
    source.name = "n";
    source.type = "testds";
    auto sources = std::make_shared<const DataSourceSet>(std::vector{source}, nullptr);
    contexts_ = PluginContexts(sources, PluginDirectory{}, {});
    target_ = {.plugin_id = "testds", .uid = "123", .namespace_name = "default", .context = contexts_.Find(1, "123")};
  }

  std::expected<QuerySummary, QueryError> Run(std::string_view body) {
    // Exactly as large as required, so that the sanitizer sees a read past the padding.
    std::vector<char> padded(body.begin(), body.end());
    padded.resize(body.size() + kQueryBodyPadding, '"');
    out_.clear();
    return translator_.Translate({padded.data(), body.size()}, target_, kNow, out_);
  }
  pluginv2::QueryDataRequest Good(std::string_view body) {
    auto done = Run(body);
    EXPECT_TRUE(done.has_value()) << body << "\n" << (done ? "" : done.error().message);
    pluginv2::QueryDataRequest request;
    EXPECT_TRUE(request.ParseFromString(out_));
    if (done) EXPECT_EQ(done->query_count, static_cast<size_t>(request.queries_size()));
    return request;
  }
  // The request of a body with one query that has these members beside refId and datasource.
  pluginv2::DataQuery One(std::string_view members, std::string_view top = "") {
    auto request = Good(fmt::format(R"({{"queries":[{{"refId":"A",{}{}}}]{}}})", kDs, members, top));
    return request.queries_size() == 1 ? request.queries(0) : pluginv2::DataQuery();
  }
  void Bad(std::string_view body, Reason reason, std::string_view message) {
    auto done = Run(body);
    std::string_view shown = body.substr(0, 300);
    ASSERT_FALSE(done.has_value()) << shown;
    EXPECT_EQ(done.error().http_status, 400) << shown;
    EXPECT_EQ(ToString(done.error().reason), ToString(reason)) << shown;
    EXPECT_EQ(done.error().message, message) << shown;
    EXPECT_TRUE(out_.empty()) << shown;
  }
  void BadOne(std::string_view members, Reason reason, std::string_view message, std::string_view top = "") {
    Bad(fmt::format(R"({{"queries":[{{"refId":"A",{}{}}}]{}}})", kDs, members, top), reason, message);
  }

  PluginContexts contexts_;
  QueryTarget target_;
  QueryTranslator translator_;
  std::string out_;
};

TEST_F(QueryTranslation, TheFixtureOfTheOriginalIsTranslated) {
  auto request =
      Good(R"({"from":"","to":"","queries":[{"refId":"1","resultAssertions":{},"timeRange":{"from":"","to":""},)" +
           kDs + "}]}");
  ASSERT_EQ(request.queries_size(), 1);
  const auto& query = request.queries(0);
  EXPECT_EQ(query.refid(), "1");
  EXPECT_EQ(query.maxdatapoints(), 100);
  EXPECT_EQ(query.intervalms(), 1000);
  ASSERT_TRUE(query.has_timerange());
  EXPECT_EQ(query.timerange().fromepochms(), kGoZeroTimeMs);
  EXPECT_EQ(query.timerange().toepochms(), kGoZeroTimeMs);
  EXPECT_EQ(query.json(), R"({"refId":"1","resultAssertions":{},)" + kDs + "}");
  EXPECT_EQ(request.format(), pluginv2::JSON);
  EXPECT_TRUE(request.has_plugincontext());
  EXPECT_EQ(request.plugincontext().datasourceinstancesettings().uid(), "123");
  EXPECT_EQ(request.headers_size(), 0);
}

TEST_F(QueryTranslation, DefaultsAndNumbers) {
  EXPECT_EQ(One("").maxdatapoints(), 100);
  EXPECT_EQ(One(R"(,"maxDataPoints":0)").maxdatapoints(), 100);
  EXPECT_EQ(One(R"(,"maxDataPoints":null)").maxdatapoints(), 100);
  EXPECT_EQ(One(R"(,"maxDataPoints":1500)").maxdatapoints(), 1500);
  EXPECT_EQ(One(R"(,"maxDataPoints":"1500")").maxdatapoints(), 1500);
  EXPECT_EQ(One(R"(,"maxDataPoints":1.5e3)").maxdatapoints(), 1500);
  EXPECT_EQ(One(R"(,"maxDataPoints":-7)").maxdatapoints(), -7);
  EXPECT_EQ(One("").intervalms(), 1000);
  EXPECT_EQ(One(R"(,"intervalMs":1500.9)").intervalms(), 1500);
  EXPECT_EQ(One(R"(,"intervalMs":0)").intervalms(), 1000);
  EXPECT_EQ(One(R"(,"intervalMs":-5)").intervalms(), 1000);
  EXPECT_EQ(One(R"(,"intervalMs":0.5)").intervalms(), 0);
  EXPECT_EQ(One(R"(,"queryType":"random_walk")").querytype(), "random_walk");
  // Defaults are for the protocol's fields; the JSON stays the client's.
  EXPECT_EQ(One("").json(), R"({"refId":"A",)" + kDs + "}");
}

TEST_F(QueryTranslation, JsonIsTheClientsBytesWithoutTimeRange) {
  struct Row {
    std::string query, json;
  };
  std::string range = R"("timeRange":{"from":"1","to":"2"})";
  std::vector<Row> rows = {
      {"{" + range + "," + kDs + "}", "{" + kDs + "}"},
      {"{" + kDs + "," + range + "}", "{" + kDs + "}"},
      {"{" + kDs + " , \n" + range + " }", "{" + kDs + " }"},
      {"{ " + kDs + "," + range + R"( , "expr" : "a<b" })", "{ " + kDs + R"(,"expr" : "a<b" })"},
      {"{" + kDs + "," + range + "," + range + "}", "{" + kDs + "}"},
      {"{" + range + "," + kDs + "," + range + R"(,"x":1,)" + range + "}", "{" + kDs + R"(,"x":1})"},
      {"{" + kDs + R"(,"time\u0052ange":null})", "{" + kDs + "}"},
      {"{" + kDs + R"(,"x":{"timeRange":{"from":"5"}},"s":"\"timeRange\":{}"})",
       "{" + kDs + R"(,"x":{"timeRange":{"from":"5"}},"s":"\"timeRange\":{}"})"},
      {"{" + kDs + R"(,"big":12345678901234567890123,"e":1E-7,"u":"\ud800","n":[[],{},[null,true,false]],"hide":true})",
       "{" + kDs +
           R"(,"big":12345678901234567890123,"e":1E-7,"u":"\ud800","n":[[],{},[null,true,false]],"hide":true})"},
  };
  for (const Row& row : rows) {
    auto request = Good(R"({"queries":[)" + row.query + "  ]}");
    ASSERT_EQ(request.queries_size(), 1) << row.query;
    EXPECT_EQ(request.queries(0).json(), row.json);
  }
}

TEST_F(QueryTranslation, OwnTimeRangeWinsOverTheRequests) {
  std::string top = R"(,"from":"now-1h","to":"now")";
  auto query = One("", top);
  EXPECT_EQ(query.timerange().fromepochms(), kNow - 3'600'000);
  EXPECT_EQ(query.timerange().toepochms(), kNow);
  query = One(R"(,"timeRange":{"from":"5m","to":"1585235576000"})", top);
  EXPECT_EQ(query.timerange().fromepochms(), kNow - 300'000);
  EXPECT_EQ(query.timerange().toepochms(), 1'585'235'576'000);
  query = One(R"(,"timeRange":{"from":"now-1d/d","to":"now-1d/d"})");
  EXPECT_EQ(query.timerange().toepochms() - query.timerange().fromepochms(), 86'399'999);
  query = One(R"(,"timeRange":{"from":"0","to":"0"})", top);
  ASSERT_TRUE(query.has_timerange()) << "also a range of zeros must be there, plugins dereference it";
  EXPECT_EQ(query.timerange().fromepochms(), 0);
  EXPECT_EQ(One(R"(,"timeRange":{})", top).timerange().toepochms(), kNow);
  EXPECT_EQ(One("", R"(,"to":"now")").timerange().toepochms(), kGoZeroTimeMs);
}

TEST_F(QueryTranslation, TopLevelKeysInAnyCaseAndOrder) {
  auto request =
      Good(R"({"QUERIES":[{"refId":"A",)" + kDs + R"(}],"From":"1","TO":"2","Debug":true,"other":[{}],"debug":null})");
  EXPECT_EQ(request.queries(0).timerange().fromepochms(), 1);
  EXPECT_EQ(request.queries(0).timerange().toepochms(), 2);
  request = Good(R"({"from":"1","to":"2","queries":[{"refId":"old"}],"queries":[{"refId":"A",)" + kDs + "}]}");
  ASSERT_EQ(request.queries_size(), 1) << "the last one counts";
  EXPECT_EQ(request.queries(0).refid(), "A");
}

TEST_F(QueryTranslation, QueriesKeepTheirOrder) {
  std::string body = R"({"queries":[)";
  for (int i = 0; i < 20; ++i) body += fmt::format(R"({}{{"refId":"q{}",{}}})", i > 0 ? ",\n" : "", 19 - i, kDs);
  auto request = Good(body + "]}");
  ASSERT_EQ(request.queries_size(), 20);
  for (int i = 0; i < 20; ++i) EXPECT_EQ(request.queries(i).refid(), fmt::format("q{}", 19 - i));
}

TEST_F(QueryTranslation, TrailingBytesAreIgnored) {
  std::string body = R"({"queries":[{"refId":"A\"}",)" + kDs + "}]}";
  for (const char* tail : {"", "\n", "  \r\n\t", "garbage", "}", "{\"queries\":[]}", "\"", "\xFF", "\\\"", "]]]]"}) {
    EXPECT_EQ(Good(body + tail).queries(0).refid(), "A\"}") << tail;
  }
}

TEST_F(QueryTranslation, LaterQueriesNeedNoDatasource) {
  EXPECT_EQ(Good(R"({"queries":[{"refId":"A",)" + kDs + R"(},{"refId":"B"},{"refId":"C","datasource":null}]})")
                .queries_size(),
            3);
}

TEST_F(QueryTranslation, ReferenceErrorsAreThoseOfTheOriginal) {
  Bad("{}", Reason::kDatasourceMissing, "missing datasource reference");
  Bad(R"({"queries":null})", Reason::kDatasourceMissing, "missing datasource reference");
  Bad(R"({"queries":[]})", Reason::kDatasourceMissing, "missing datasource reference");
  Bad(R"({"queries":[{"refId":"A"}]})", Reason::kDatasourceMissing, "missing datasource reference");
  Bad(R"({"queries":[{"refId":"A"},{"refId":"B",)" + kDs + "}]}", Reason::kDatasourceMissing,
      "missing datasource reference");
  Bad(R"({"queries":[{"datasource":{"type":"wrongds","uid":"123"}}]})", Reason::kDatasourceMismatch,
      "invalid datasource type");
  Bad(R"({"queries":[{"datasource":"123"}]})", Reason::kDatasourceMismatch, "invalid datasource type");
  Bad(R"({"queries":[{"datasource":{}}]})", Reason::kDatasourceMismatch, "invalid datasource type");
  Bad(R"({"queries":[{"datasource":{"type":"testds","uid":"abc"}}]})", Reason::kDatasourceMismatch,
      "invalid datasource UID");
  Bad(R"({"queries":[{)" + kDs + R"(},{"refId":"B","datasource":{"type":"x","uid":"123"}}]})",
      Reason::kDatasourceMismatch, "expect same datasource types");
  Bad(R"({"queries":[{)" + kDs + R"(},{"refId":"B","datasource":{"type":"testds","uid":"x"}}]})",
      Reason::kDatasourceMismatch, "expect same datasource UID");
  // Queries among each other are compared before the first one is compared with the path.
  Bad(R"({"queries":[{"datasource":{"type":"y","uid":"y"}},{"datasource":{"type":"x","uid":"x"}}]})",
      Reason::kDatasourceMismatch, "expect same datasource types");
}

TEST_F(QueryTranslation, RefIdsMustDiffer) {
  Good(R"({"queries":[{)" + kDs + R"(},{"refId":"A"}]})");
  Bad(R"({"queries":[{"refId":"A",)" + kDs + R"(},{"refId":"B"},{"refId":"\u0041"}]})", Reason::kDuplicateRefId,
      "two queries have the refId \"A\"");
  Bad(R"({"queries":[{)" + kDs + R"(},{"refId":""}]})", Reason::kDuplicateRefId, "two queries have the refId \"\"");
}

TEST_F(QueryTranslation, WrongTypesAreNamed) {
  Bad("[]", Reason::kBadQuery, "the body must be a JSON object");
  Bad("null", Reason::kBadQuery, "the body must be a JSON object");
  Bad("17", Reason::kBadQuery, "the body must be a JSON object");
  Bad(R"({"from":1})", Reason::kBadQuery, "from must be a string");
  Bad(R"({"debug":"yes"})", Reason::kBadQuery, "debug must be true or false");
  Bad(R"({"queries":{}})", Reason::kBadQuery, "queries must be an array");
  Bad(R"({"queries":[{)" + kDs + R"(},null]})", Reason::kBadQuery, "queries[1] must be an object");
  Bad(R"({"queries":["A"]})", Reason::kBadQuery, "queries[0] must be an object");
  Bad(R"({"queries":[{"refId":7}]})", Reason::kBadQuery, "queries[0].refId must be a string");
  Bad(R"({"queries":[{"datasource":7}]})", Reason::kBadQuery,
      "queries[0].datasource must be an object with type and uid");
  Bad(R"({"queries":[{"datasource":{"uid":7}}]})", Reason::kBadQuery, "queries[0].datasource.uid must be a string");
  BadOne(R"(,"timeRange":"now")", Reason::kBadQuery, "queries[0].timeRange must be an object with from and to");
  BadOne(R"(,"timeRange":{"from":1585235576789})", Reason::kBadQuery, "queries[0].timeRange.from must be a string");
  for (const char* value : {"1.5", "\"\"", "\"x\"", "\"1.0\"", "true", "[]", "1e30", "9223372036854775808", "\" 5\""}) {
    BadOne(fmt::format(R"(,"maxDataPoints":{})", value), Reason::kBadQuery,
           "queries[0].maxDataPoints must be a whole number, or a string that holds one");
  }
  BadOne(R"(,"intervalMs":"5")", Reason::kBadQuery, "queries[0].intervalMs must be a number");
  BadOne(R"(,"intervalMs":1e300)", Reason::kBadQuery,
         "queries[0].intervalMs must be a number of milliseconds below 9.2e12");
  BadOne(R"(,"queryType":[])", Reason::kBadQuery, "queries[0].queryType must be a string");
  BadOne(R"(,"hide":1)", Reason::kBadQuery, "queries[0].hide must be true or false");
  BadOne(R"(,"datasourceId":"1")", Reason::kBadQuery, "queries[0].datasourceId must be a number");
  BadOne(R"(,"resultAssertions":[])", Reason::kBadQuery, "queries[0].resultAssertions must be an object");
}

TEST_F(QueryTranslation, TimesThatCannotBeReadAreRefused) {
  BadOne("", Reason::kBadTime,
         "from cannot be read as a time: \"garb\\\"age\" (expected milliseconds since the epoch, a duration as 5m, "
         "date math as "
         "now-1h/h, or a date)",
         R"(,"from":"garb\"age","to":"now")");
  BadOne(R"(,"timeRange":{"from":"now","to":"soon"})", Reason::kBadTime,
         "queries[0].timeRange.to cannot be read as a time: \"soon\" (expected milliseconds since the epoch, a "
         "duration as 5m, "
         "date math as now-1h/h, or a date)");
  BadOne("", Reason::kBadTime, "to is missing, but the other end of the range is given", R"(,"from":"now-1h")");
  BadOne(R"(,"timeRange":{"to":"now"})", Reason::kBadTime,
         "queries[0].timeRange.from is missing, but the other end of the range is given");
}

TEST_F(QueryTranslation, BadJsonIsRefusedWhereverItStands) {
  Bad("", Reason::kBadJson, "the body is empty");
  Bad(" \n ", Reason::kBadJson, "the body is empty");
  Bad("{\"queries\":[{\"x\":tru}]}", Reason::kBadJson, "the body is not valid JSON: an unknown word at byte 17");
  Bad(R"({"x":01})", Reason::kBadJson, "the body is not valid JSON: a malformed number at byte 5");
  Bad(R"({"x":"\q"})", Reason::kBadJson, "the body is not valid JSON: a bad escape in a string at byte 5");
  Bad(R"({"x":"\u12g4"})", Reason::kBadJson, "the body is not valid JSON: a bad escape in a string at byte 5");
  Bad(R"({"\q":1})", Reason::kBadJson, "the body is not valid JSON: a bad escape in a key at byte 2");
  Bad(R"({"queries":[{"refId":"\q"}]})", Reason::kBadJson,
      "the body is not valid JSON: queries[0].refId holds a bad escape");
  std::string tail = R"(,"queries":[{"refId":"A",)" + kDs + "}]}";
  for (const char* head : {"{\"x\":}",    "{\"x\"}",           "{\"x\":1,}",
                           "{x:1}",       "{\"x\":[1,]}",      "{\"x\":[1 2]}",
                           "{\"x\":[1}}", "{\"x\":{\"y\":1]}", "{\"x\":\"\n\"}",
                           "{\"x\":nul}", "{\"x\":1.}",        "{\"x\":-}",
                           "{\"x\":+1}",  "{\"x\":1e}",        "{\"x\":.5}",
                           "{\"x\":NaN}", "{\"x\":\"\xFF\"}",  "{\"x\":\"\xED\xA0\x80\"}",
                           "{,\"x\":1}",  "{\"x\":[,]}",       "{\"x\" 1}",
                           "{'x':1}",     "{\"x\":1//c\n}",    "\xEF\xBB\xBF{}",
                           "{\"x\":0x1}"}) {
    auto done = Run(head);
    ASSERT_FALSE(done) << head;
    EXPECT_EQ(ToString(done.error().reason), "bad_json") << head << ": " << done.error().message;
    std::string longer(head);
    longer.pop_back();
    ASSERT_FALSE(Run(longer + tail)) << longer << tail;
  }
  for (size_t size = 1; size < tail.size(); ++size) {
    std::string cut = "{\"from\":\"1\"" + tail.substr(0, size);
    if (size + 1 < tail.size()) EXPECT_FALSE(Run(cut)) << cut;
  }
}

TEST_F(QueryTranslation, DeepNestingIsRefused) {
  auto nested = [](size_t levels) {
    return fmt::format(R"({{"x":{}{},"queries":[{{"refId":"A",{}}}]}})", std::string(levels, '['),
                       std::string(levels, ']'), kDs);
  };
  Good(nested(255));
  Bad(nested(256), Reason::kTooDeep, "the body is nested deeper than 256 levels");
  Bad(nested(200'000), Reason::kTooDeep, "the body is nested deeper than 256 levels");
  EXPECT_FALSE(Run(R"({"queries":[{"x":)" + std::string(100'000, '[')));
  EXPECT_FALSE(Run(std::string(100'000, '{')));
}

TEST_F(QueryTranslation, TooManyQueriesAreRefused) {
  translator_ = QueryTranslator({.queries_max = 2});
  Bad(R"({"queries":[{},{},{}]})", Reason::kTooManyQueries, "more than 2 queries in one request");
}

TEST_F(QueryTranslation, HeadersAreSentAsThePluginReadsThem) {
  std::vector<QueryHeader> headers = {{"X-Dashboard-Uid", "d1"},
                                      {"FromAlert", "true"},
                                      {"X-Panel-Title", "a\xFF\xC3\xA9%b"},
                                      {"X-Dashboard-Title", "caf\xC3\xA9"},
                                      {"X-Panel-Id", ""},
                                      {"X-\xFF", "dropped"}};
  target_.headers = headers;
  auto request = Good(R"({"queries":[{)" + kDs + "}]}");
  EXPECT_EQ(request.headers_size(), 4);
  EXPECT_EQ(request.headers().at("http_X-Dashboard-Uid"), "d1");
  EXPECT_EQ(request.headers().at("FromAlert"), "true");
  EXPECT_EQ(request.headers().at("http_X-Panel-Title"), "a%FF%C3%A9%b");
  EXPECT_EQ(request.headers().at("http_X-Dashboard-Title"), "caf\xC3\xA9");
  EXPECT_EQ(ForwardedHeaderName("x-dashboard-uid"), "X-Dashboard-Uid");
  EXPECT_EQ(ForwardedHeaderName("FROMALERT"), "FromAlert");
  EXPECT_EQ(ForwardedHeaderName("Authorization"), "");
  EXPECT_EQ(ForwardedHeaderName("Cookie"), "");
  EXPECT_EQ(ForwardedHeaderName("X-Id-Token"), "");
}

TEST_F(QueryTranslation, TheUidOfThePathIsComparedDecoded) {
  target_.uid = "a/b \xC3\xA9";
  auto done = Run(R"({"queries":[{"datasource":{"type":"testds","uid":"a\/b \u00e9"}}]})");
  EXPECT_TRUE(done.has_value());
}

TEST_F(QueryTranslation, AppendsBehindAFramePrefixAndTakesItBackOnError) {
  std::string body = R"({"queries":[{)" + kDs + "}]}" + std::string(kQueryBodyPadding, ' ');
  std::string_view view(body.data(), body.size() - kQueryBodyPadding);
  std::string out(5, '\0');
  ASSERT_TRUE(translator_.Translate(view, target_, kNow, out));
  pluginv2::QueryDataRequest request;
  EXPECT_TRUE(request.ParseFromString(out.substr(5)));
  out = "12345";
  target_.uid = "other";
  ASSERT_FALSE(translator_.Translate(view, target_, kNow, out));
  EXPECT_EQ(out, "12345");
}

TEST_F(QueryTranslation, MemoryOfALargeBodyIsGivenBack) {
  Good(R"({"queries":[{)" + kDs + "}]}");
  std::string large = R"({"queries":[{)" + kDs + R"(,"x":")" + std::string(4 << 20, 'y') + "\"}]}";
  EXPECT_EQ(Good(large).queries(0).json().size(), large.size() - 14);
  EXPECT_LT(translator_.held_bytes(), 1u << 20);
  Good(R"({"queries":[{)" + kDs + "}]}");
}

}  // namespace
}  // namespace dpa
