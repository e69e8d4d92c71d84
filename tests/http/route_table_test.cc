// Which route answers which path, and what a table refuses.

#include "http/route_table.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <random>
#include <string>
#include <vector>

#include "tests/http/route_rule.h"

namespace dpa {
namespace {

struct Registered {
  std::string method;
  std::string pattern;
};

RouteTable Build(const std::vector<Registered>& routes) {
  RouteTableBuilder builder;
  for (const Registered& route : routes) {
    const auto added =
        builder.Add(route.method, route.pattern, RouteTarget{.service_name = route.method + route.pattern});
    EXPECT_TRUE(added) << added.error();
  }
  return builder.Build();
}

// "METHODpattern name=value …", "-" for nothing, "- method" for a path that only other methods have.
std::string Found(const RouteTable& table, std::string_view method, std::string_view path) {
  RouteMatch match;
  table.Match(method, path, match);
  if (!match.target) return match.method_mismatch ? "- method" : "-";
  std::string text = match.target->service_name;
  for (int i = 0; i < match.captures_count; ++i)
    text += fmt::format(" {}={}", match.captures[i].name, match.captures[i].value);
  return text;
}

std::string Fault(std::string_view pattern, std::string_view method = "") {
  RouteTableBuilder builder;
  const auto added = builder.Add(method, pattern, {});
  return added ? "" : added.error();
}

TEST(RouteTable, MatchesNothingWhenEmpty) {
  EXPECT_EQ(Found(RouteTable(), "GET", "/"), "-");
  EXPECT_EQ(Found(Build({}), "GET", "/"), "-");
  EXPECT_EQ(RouteTable().route_count(), 0u);
}

TEST(RouteTable, CapturesRawSegments) {
  const RouteTable table = Build({{"", "/apis/g.example/v1/namespaces/{ns}/datasources/{uid}/query"}});
  const std::string prefix = "/apis/g.example/v1/namespaces/";
  EXPECT_EQ(Found(table, "POST", prefix + "default/datasources/a%2Fb/query"),
            "/apis/g.example/v1/namespaces/{ns}/datasources/{uid}/query ns=default uid=a%2Fb");
  for (const std::string_view other :
       {"default/datasources/a/query/", "default/datasources//query", "default/datasources/a/b/query",
        "default/datasources/a", "default/datasources/a/quer", "default/datasources/a/queryx"}) {
    EXPECT_EQ(Found(table, "POST", prefix + std::string(other)), "-") << other;
  }
  for (const std::string_view other :
       {"", "/", "*", "apis", "//apis/g.example/v1/namespaces/x/datasources/a/query", "/apis%2Fg.example"}) {
    EXPECT_EQ(Found(table, "POST", other), "-") << other;
  }
}

TEST(RouteTable, PrefersLiteralThenCaptureThenWildcard) {
  const std::vector<Registered> routes = {
      {"", "/a/{rest...}"}, {"", "/a/{x}"}, {"", "/a/b"}, {"", "/a/{x}/c"}, {"", "/a/b/d"}};
  std::vector<Registered> order = routes;
  for (int round = 0; round < 2; ++round) {
    const RouteTable table = Build(order);
    EXPECT_EQ(Found(table, "GET", "/a/b"), "/a/b");
    EXPECT_EQ(Found(table, "GET", "/a/z"), "/a/{x} x=z");
    EXPECT_EQ(Found(table, "GET", "/a/b/d"), "/a/b/d");
    // The literal b leads nowhere: back to the capture, then to the wildcard.
    EXPECT_EQ(Found(table, "GET", "/a/b/c"), "/a/{x}/c x=b");
    EXPECT_EQ(Found(table, "GET", "/a/b/e"), "/a/{rest...} rest=b/e");
    EXPECT_EQ(Found(table, "GET", "/a/"), "/a/{rest...} rest=");
    EXPECT_EQ(Found(table, "GET", "/a/b/"), "/a/{rest...} rest=b/");
    EXPECT_EQ(Found(table, "GET", "/a//"), "/a/{rest...} rest=/");
    EXPECT_EQ(Found(table, "GET", "/a"), "-");
    std::reverse(order.begin(), order.end());
  }
}

TEST(RouteTable, AnswersMethodsAsRegistered) {
  const RouteTable table =
      Build({{"GET", "/m"}, {"", "/m/any"}, {"POST", "/m/any"}, {"HEAD", "/h"}, {"GET", "/h"}, {"", "/h"}});
  EXPECT_EQ(Found(table, "GET", "/m"), "GET/m");
  EXPECT_EQ(Found(table, "HEAD", "/m"), "GET/m");
  EXPECT_EQ(Found(table, "POST", "/m"), "- method");
  EXPECT_EQ(Found(table, "get", "/m"), "- method");
  EXPECT_EQ(Found(table, "POST", "/m/any"), "POST/m/any");
  EXPECT_EQ(Found(table, "PUT", "/m/any"), "/m/any");
  EXPECT_EQ(Found(table, "HEAD", "/h"), "HEAD/h");
  EXPECT_EQ(Found(table, "GET", "/h"), "GET/h");
  EXPECT_EQ(Found(table, "DELETE", "/h"), "/h");
}

TEST(RouteTable, BacksUpWhenOnlyTheMethodDiffers) {
  const RouteTable table = Build({{"GET", "/a/b"}, {"POST", "/a/{x}"}, {"", "/a/{rest...}"}});
  EXPECT_EQ(Found(table, "POST", "/a/b"), "POST/a/{x} x=b");
  EXPECT_EQ(Found(table, "PUT", "/a/b"), "/a/{rest...} rest=b");
}

TEST(RouteTable, NamesCapturesAsEachRouteDoes) {
  const RouteTable table = Build({{"GET", "/a/{x}/b"}, {"POST", "/a/{y}/b"}, {"", "/a/{z}/c/{w...}"}});
  EXPECT_EQ(Found(table, "GET", "/a/1/b"), "GET/a/{x}/b x=1");
  EXPECT_EQ(Found(table, "POST", "/a/1/b"), "POST/a/{y}/b y=1");
  EXPECT_EQ(Found(table, "GET", "/a/1/c/2/3"), "/a/{z}/c/{w...} z=1 w=2/3");
  RouteMatch match;
  table.Match("GET", "/a/1/c/2/3", match);
  EXPECT_EQ(match.capture("w"), "2/3");
  EXPECT_EQ(match.capture("none"), "");
}

TEST(RouteTable, SplitsChainsWherePatternsPart) {
  const RouteTable table = Build({{"", "/a/b/c/d"}, {"", "/a/b/c"}, {"", "/a/b/x/y"}, {"", "/a/bb"}, {"", "/ab"}});
  for (const std::string path : {"/a/b/c/d", "/a/b/c", "/a/b/x/y", "/a/bb", "/ab"})
    EXPECT_EQ(Found(table, "GET", path), path);
  for (const std::string path : {"/a", "/a/b", "/a/b/x", "/a/b/cd", "/a/b/c/", "/a/b/c/d/e", "/abb"})
    EXPECT_EQ(Found(table, "GET", path), "-");
}

TEST(RouteTable, FindsEachOfManySiblings) {
  std::vector<Registered> routes;
  for (int i = 0; i < 1000; ++i) routes.push_back({"", fmt::format("/apis/tenant-{:04}.example/v1/{{ns}}", i)});
  const RouteTable table = Build(routes);
  EXPECT_EQ(table.route_count(), 1000u);
  for (int i = 0; i < 1000; ++i) {
    EXPECT_EQ(Found(table, "GET", fmt::format("/apis/tenant-{:04}.example/v1/x", i)), routes[i].pattern + " ns=x");
    EXPECT_EQ(Found(table, "GET", fmt::format("/apis/tenant-{:04}.examplf/v1/x", i)), "-");
  }
}

TEST(RouteTable, KnowsALiteralByItsEscapesAndWithoutThem) {
  const RouteTable table = Build({{"", "/my%20files/caf%C3%A9/{x}"}, {"", "/my/{x}"}});
  EXPECT_EQ(Found(table, "GET", "/my%20files/caf%C3%A9/1"), "/my%20files/caf%C3%A9/{x} x=1");
  EXPECT_EQ(Found(table, "GET", "/my files/caf\xc3\xa9/1"), "/my%20files/caf%C3%A9/{x} x=1");
  EXPECT_EQ(Found(table, "GET", "/my files/caf%C3%A9/1"), "-");
  EXPECT_EQ(table.route_count(), 2u);
  RouteTableBuilder builder;
  ASSERT_TRUE(builder.Add("", "/a/{x}", {.service_name = "first"}));
  EXPECT_EQ(builder.Add("", "/%61/{y}", {.service_name = "second"}).error(),
            "pattern \"/%61/{y}\" for every method belongs to service \"first\" already");
}

TEST(RouteTable, SaysWhetherAWildcardMatched) {
  const RouteTable table = Build({{"", "/a/{x}"}, {"", "/a/{x}/{rest...}"}, {"POST", "/a/b/{rest...}"}});
  RouteMatch match;
  table.Match("GET", "/a/b/c", match);
  EXPECT_EQ(match.captures_count, 2);
  EXPECT_TRUE(match.has_wildcard);
  table.Match("GET", "/a/b", match);
  EXPECT_EQ(match.captures_count, 1);
  EXPECT_FALSE(match.has_wildcard);
  table.Match("GET", "/b", match);
  EXPECT_FALSE(match.has_wildcard);
}

TEST(RouteTable, MovesAndKeepsItsRoutes) {
  RouteTable table = Build({{"", "/a/{x}"}});
  RouteTable other = std::move(table);
  EXPECT_EQ(Found(other, "GET", "/a/1"), "/a/{x} x=1");
}

// Goal: a path made to back up everywhere costs no more than the table has nodes. Method: a table in which each of 8
// levels offers literal and capture, and a path that goes wrong only at the end; and a path as long as a head may be.
TEST(RouteTable, IsNotSlowedByAPathThatBacksUpEverywhere) {
  RouteTableBuilder builder;
  for (int bits = 0; bits < 256; ++bits) {
    std::string pattern;
    for (int level = 0; level < 8; ++level) pattern += (bits >> level) & 1 ? fmt::format("/{{c{}}}", level) : "/a";
    ASSERT_TRUE(builder.Add("", pattern + "/end", {.service_name = pattern}));
  }
  const RouteTable table = builder.Build();
  // Each walk sees at most 511 nodes: well under a second in all.
  for (int round = 0; round < 2'000; ++round) EXPECT_EQ(Found(table, "GET", "/a/a/a/a/a/a/a/a/wrong"), "-");
  std::string deep;
  for (int i = 0; i < 30'000; ++i) deep += "/a";
  EXPECT_EQ(Found(table, "GET", deep), "-");
  EXPECT_EQ(Found(table, "GET", "/a/a/b/a/a/a/a/a/end"), "/a/a/{c2}/a/a/a/a/a c2=b");
}

TEST(RouteTable, RefusesMalformedPatternsInWords) {
  EXPECT_EQ(Fault("a/b"), "pattern \"a/b\": it does not begin with '/'");
  EXPECT_EQ(Fault(""), "pattern \"\": it does not begin with '/'");
  EXPECT_EQ(Fault("/a//b"), "pattern \"/a//b\": segment 2 is empty");
  EXPECT_EQ(Fault("/a/"), "pattern \"/a/\": segment 2 is empty");
  EXPECT_NE(Fault("/a/../b").find("dot segment"), std::string::npos);
  EXPECT_NE(Fault("/a/{x}y").find("brace"), std::string::npos);
  EXPECT_NE(Fault("/a/{").find("brace"), std::string::npos);
  EXPECT_NE(Fault("/a/{}").find("needs a name"), std::string::npos);
  EXPECT_NE(Fault("/a/{$}").find("needs a name"), std::string::npos);
  EXPECT_NE(Fault("/a/{...}").find("needs a name"), std::string::npos);
  EXPECT_NE(Fault("/a/{1x}").find("needs a name"), std::string::npos);
  EXPECT_NE(Fault("/a?b").find("ends a path"), std::string::npos);
  EXPECT_NE(Fault("/a b").find("cannot hold"), std::string::npos);
  EXPECT_NE(Fault("/a;b").find("';'"), std::string::npos);
  EXPECT_NE(Fault("/a%2Fb").find("encoded separator"), std::string::npos);
  EXPECT_NE(Fault("/a%5cb").find("encoded separator"), std::string::npos);
  EXPECT_NE(Fault("/a%00").find("encoded separator"), std::string::npos);
  EXPECT_NE(Fault("/%2e%2E").find("encoded dot segment"), std::string::npos);
  EXPECT_NE(Fault("/a%4").find("malformed escape"), std::string::npos);
  EXPECT_NE(Fault("/{r...}/a").find("not the last"), std::string::npos);
  EXPECT_NE(Fault("/{x}/{x}").find("used twice"), std::string::npos);
  EXPECT_NE(Fault("/{a}/{b}/{c}/{d}/{e}/{f}/{g}/{h}/{i...}").find("9 captures, at most 8"), std::string::npos);
  EXPECT_EQ(Fault("/{a}/{b}/{c}/{d}/{e}/{f}/{g}/{h...}"), "");
  std::string deep;
  for (int i = 0; i < 65; ++i) deep += "/a";
  EXPECT_NE(Fault(deep).find("65 segments, at most 64"), std::string::npos);
  EXPECT_NE(Fault("/a", "GE T").find("not a method"), std::string::npos);
}

TEST(RouteTable, NamesTheOwnerOfAPatternThatIsTaken) {
  RouteTableBuilder builder;
  ASSERT_TRUE(builder.Add("GET", "/a/{x}", {.service_name = "first"}));
  ASSERT_TRUE(builder.Add("", "/a/{x}", {.service_name = "second"}));
  const auto added = builder.Add("GET", "/a/{y}", {.service_name = "third"});
  ASSERT_FALSE(added);
  EXPECT_EQ(added.error(), "pattern \"/a/{y}\" for GET belongs to service \"first\" already");
  const auto any = builder.Add("", "/a/{y}", {.service_name = "third"});
  ASSERT_FALSE(any);
  EXPECT_EQ(any.error(), "pattern \"/a/{y}\" for every method belongs to service \"second\" already");
  EXPECT_EQ(builder.Build().route_count(), 2u);
}

// Goal: the compiled trie and the rule in words agree. Method: random tables and paths over a tiny alphabet against a
// matcher that tries every pattern and keeps the most specific.
TEST(RouteTable, AgreesWithTheRuleOnRandomTables) {
  std::mt19937 random(20240611);
  const auto pick = [&](int n) { return static_cast<int>(random() % n); };
  for (int round = 0; round < 300; ++round) {
    RouteTableBuilder builder;
    std::vector<std::string> patterns;
    for (int i = 0; i < 1 + pick(25); ++i) {
      std::string pattern;
      const int depth = 1 + pick(5);
      for (int level = 0; level < depth; ++level) {
        const int kind = pick(10);
        if (level + 1 == depth && kind == 9)
          pattern += "/{w...}";
        else if (kind >= 6)
          pattern += fmt::format("/{{c{}}}", level);
        else
          pattern += kind < 3 ? "/a" : kind < 5 ? "/b" : "/ab";
      }
      if (builder.Add("", pattern, {.service_name = pattern})) patterns.push_back(pattern);
    }
    const RouteTable table = builder.Build();
    const Rule rule(patterns);
    for (int i = 0; i < 200; ++i) {
      std::string path;
      for (int level = 0, depth = 1 + pick(6); level < depth; ++level) {
        path += std::string("/") + std::vector<const char*>{"a", "b", "ab", "a", "b", "", "c"}[pick(7)];
      }
      RouteMatch match;
      table.Match("GET", path, match);
      EXPECT_EQ(match.target ? match.target->service_name : "-", rule.Best(path))
          << path << " in " << fmt::format("{}", fmt::join(patterns, " "));
    }
  }
}

TEST(ServiceType, HasTheNamesOfTheResource) {
  EXPECT_EQ(ToString(ServiceType::kQuery), "query");
  EXPECT_EQ(ToString(ServiceType::kDatasourceProxy), "datasource-proxy");
}

}  // namespace
}  // namespace dpa
