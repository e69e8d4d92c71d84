// Who answers which path, and which paths are refused because servers do not agree on them.

#include "http/target_judge.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <map>
#include <random>
#include <set>
#include <string>
#include <vector>

#include "http/header_rewrite.h"
#include "tests/http/target_rule.h"
#include "tests/wire/target_table.h"

namespace dpa {
namespace {

std::string_view WordOf(PathFault fault) {
  switch (fault) {
    case PathFault::kNone:
      return "none";
    case PathFault::kEscapeMalformed:
      return "escape_malformed";
    case PathFault::kNul:
      return "nul";
    case PathFault::kAboveRoot:
      return "above_root";
    case PathFault::kAmbiguous:
      return "ambiguous";
  }
  return "?";
}

class Judged {
 public:
  explicit Judged(RouteTable routes) : routes_(std::move(routes)), local_(checks_, "1.2.3", false) {}

  PathFault Fault(std::string_view method, std::string_view path) {
    routes_.Match(method, path, match_);
    return judge_.Judge(routes_, &local_, method, path, match_);
  }
  const RouteTable& routes() const { return routes_; }
  const LocalPaths& local() const { return local_; }

 private:
  RouteTable routes_;
  HealthChecks checks_;
  LocalPaths local_;
  TargetJudge judge_;
  RouteMatch match_;
};

class TargetTable : public testing::TestWithParam<wire::TargetRow> {};

// Goal: each row of the table goes to whom it says. Method: the judge, and if it lets the path pass the plain rule's
// name for the answerer of the bytes as sent.
TEST_P(TargetTable, GoesWhereTheRowSays) {
  const wire::TargetRow& row = GetParam();
  Judged judged(wire::TargetRoutes());
  const PathFault fault = judged.Fault("POST", row.path);
  std::string decision = fmt::format("400 {}", WordOf(fault));
  if (fault == PathFault::kNone) {
    decision = TargetRule(judged.routes(), judged.local()).Decide("POST", std::string(row.path));
    if (const size_t at = decision.find(" at "); at != std::string::npos) {
      decision.erase(at, decision.find(' ', at + 4) - at);
    }
    if (decision.starts_with("local ")) decision = "local";
  }
  EXPECT_EQ(decision, row.decision) << row.path << ", RFC " << row.section;
}

// Goal: what passes is forwarded as it was sent. Method: the head that goes to the delegate begins with the path.
TEST_P(TargetTable, IsForwardedAsSent) {
  const wire::TargetRow& row = GetParam();
  const RequestHead head{.method = "GET", .path = row.path, .host = "h"};
  char region[1024];
  HeadWriter writer(region, sizeof region);
  WriteRequestHead(writer, head, {});
  EXPECT_TRUE(writer.written().starts_with(fmt::format("GET {} HTTP/1.1\r\n", row.path)));
}

INSTANTIATE_TEST_SUITE_P(Target, TargetTable, testing::ValuesIn(wire::kTargets),
                         [](const auto& info) { return std::string(info.param.name); });

// Goal: a path that is not plain is never taken for one. Method: every mark at every place of paths of many lengths,
// and all paths of up to three bytes against the definition.
TEST(PlainPath, IsOneWithoutAnyMark) {
  for (size_t size = 1; size < 70; ++size) {
    const std::string plain = "/" + std::string(size, 'a') + "/b-c_d.e~f";
    EXPECT_TRUE(IsPlainPath(plain)) << plain;
    for (const std::string_view mark : {"%", "\\", ";", "//", "/.", "/..", "/./"}) {
      for (size_t at = 0; at <= plain.size(); ++at) {
        const std::string marked = std::string(plain).insert(at, mark);
        EXPECT_FALSE(IsPlainPath(marked)) << marked;
      }
    }
  }
  for (int bytes = 0; bytes < 1 << 24; ++bytes) {
    const std::string path = {static_cast<char>(bytes >> 16), static_cast<char>(bytes >> 8), static_cast<char>(bytes)};
    if (path.find_first_not_of("/.%\\;ab*") != std::string::npos) continue;
    const bool marked = path.find_first_of("%\\;") != std::string::npos || path.find("//") != std::string::npos ||
                        path.find("/.") != std::string::npos;
    EXPECT_EQ(IsPlainPath(path), !marked) << path;
  }
  EXPECT_TRUE(IsPlainPath(""));
  EXPECT_TRUE(IsPlainPath("*"));
}

struct Collected final : PathReader {
  bool Agrees(const PathReading& reading) override {
    std::string path(reading.path);
    std::replace(path.begin(), path.end(), '\0', '!');
    readings.insert(path);
    return true;
  }
  std::set<std::string> readings;
};

std::set<std::string> ReadingsOf(std::string_view path) {
  PathReadings readings;
  Collected collected;
  EXPECT_EQ(readings.Visit(path, collected), PathFault::kNone) << path;
  return collected.readings;
}

TEST(PathReadings, AreWhatServersMake) {
  using Paths = std::set<std::string>;
  EXPECT_EQ(ReadingsOf("/a"), Paths({"/a"}));
  EXPECT_EQ(ReadingsOf("/%61"), Paths({"/%61", "/a"}));
  EXPECT_EQ(ReadingsOf("/a%2Fb"), Paths({"/a%2Fb", "/a!b", "/a/b"}));
  EXPECT_EQ(ReadingsOf("/a%252fb"), Paths({"/a%252fb", "/a%2fb", "/a!b", "/a/b"}));
  EXPECT_EQ(ReadingsOf("/a\\b%5Cc"), Paths({"/a\\b%5Cc", "/a/b%5Cc", "/a\\b\\c", "/a/b\\c", "/a/b/c"}));
  EXPECT_EQ(ReadingsOf("/a;x=1/b;"), Paths({"/a;x=1/b;", "/a/b"}));
  EXPECT_EQ(ReadingsOf("//a///b//"), Paths({"//a///b//", "/a/b/"}));
  EXPECT_EQ(ReadingsOf("/a/./b/../c"), Paths({"/a/./b/../c", "/a/c"}));
  EXPECT_EQ(ReadingsOf("/a/b/.."), Paths({"/a/b/..", "/a/", "/a"}));
  EXPECT_EQ(ReadingsOf("/a/."), Paths({"/a/.", "/a/", "/a"}));
  EXPECT_EQ(ReadingsOf("/a/.."), Paths({"/a/..", "/"}));
  EXPECT_EQ(ReadingsOf("/a/%2e%2E/b"), Paths({"/a/%2e%2E/b", "/a/../b", "/b"}));
  EXPECT_EQ(ReadingsOf("//a/../b"), Paths({"//a/../b", "//b", "/b", "/a/../b"}));
  EXPECT_EQ(ReadingsOf("/..."), Paths({"/..."}));
}

TEST(PathReadings, StopAtTheFirstThatDisagrees) {
  struct Stubborn final : PathReader {
    bool Agrees(const PathReading&) override { return ++count < 2; }
    int count = 0;
  } stubborn;
  PathReadings readings;
  EXPECT_EQ(readings.Visit("/a%20b//c", stubborn), PathFault::kAmbiguous);
  EXPECT_EQ(stubborn.count, 2);
}

// A path of the longest kind that a parser lets through, with every mark, is read to its end.
TEST(PathReadings, ReadLongPaths) {
  std::string path = "/a%252f";
  while (path.size() < 16 * 1024) path += "%5Cb//%2f%20x";
  EXPECT_GT(ReadingsOf(path).size(), 10u);
  path = "/a";
  while (path.size() < 16 * 1024) path += "/b/./c/..";
  EXPECT_EQ(ReadingsOf(path).size(), 3u);
}

// Short patterns, so that random paths meet them.
RouteTable SmallRoutes() {
  RouteTableBuilder builder;
  for (const std::string pattern :
       {"/a", "/a/{x}", "/a/b/{rest...}", "/a/{x}/c", "/b/{rest...}", "/c%20c/{y}", "/a/b/c/{z}/{rest...}"}) {
    EXPECT_TRUE(builder.Add("", pattern, {.type = ServiceType::kRoute, .service_name = "s", .path = pattern}));
  }
  EXPECT_TRUE(builder.Add("GET", "/a/d", {.type = ServiceType::kQuery, .service_name = "s"}));
  return builder.Build();
}

std::string RandomPath(std::mt19937_64& random, std::span<const std::string_view> parts) {
  static constexpr std::string_view kBeginnings[] = {"/", "/", "/a/", "/b/", "/a/b/", "/c%20c/"};
  std::string path(kBeginnings[random() % std::size(kBeginnings)]);
  for (size_t left = random() % 8; left > 0; --left) path += parts[random() % parts.size()];
  return path;
}

// Goal: no path passes on which any order of decoding, splitting, merging, resolving and cutting leads to another
// answerer. Method: random paths out of the parts that matter; the plain rule takes the steps in every order.
TEST(TargetJudge, AgreesWithEveryOrderOfTheSteps) {
  static constexpr std::string_view kParts[] = {
      "/",   "/",     "/",     "a",       "b",     "c",       "d",         "c%20c", ".",     "..",  "..",    "%2e",
      "%2E", "%2F",   "%2f",   "%5C",     "\\",    ";",       ";x",        "%61",   "%2561", "%25", "%252F", "%252e",
      "%20", "%255C", "livez", "/readyz", "/a/b/", "/%2e%2e", "%2F%2e%2e", "/../",  "/..;/", "%3B", "/..\\", "//",
  };
  Judged judged(SmallRoutes());
  const TargetRule rule(judged.routes(), judged.local());
  std::map<std::string, int> outcomes;
  for (uint64_t seed = 0; seed < 20'000; ++seed) {
    std::mt19937_64 random(seed);
    const std::string path = RandomPath(random, kParts);
    const PathFault fault = judged.Fault("GET", path);
    if (fault != PathFault::kNone) {
      ++outcomes[std::string(WordOf(fault))];
      continue;
    }
    const auto everybody = rule.Everybody("GET", path, 100'000);
    ASSERT_TRUE(everybody) << "seed " << seed << ": " << path;
    ASSERT_NE(*everybody, "?") << "seed " << seed << ": " << path;
    if (!IsPlainPath(path)) ++outcomes[everybody->substr(0, everybody->find(' '))];
  }
  for (const char* outcome : {"delegate", "route", "ambiguous", "above_root"}) {
    EXPECT_GT(outcomes[outcome], 100) << outcome << ": the random paths have become too tame";
  }
}

// Goal: nothing is refused without need. Method: without dot segments and parameters, where no caution beyond the rule
// is taken, a refused path has orders of steps that disagree.
TEST(TargetJudge, RefusesOnlyWhatIsReadDifferently) {
  static constexpr std::string_view kParts[] = {"/",     "/",     "/",   "a",      "b",   "c",    "d",
                                                "c%20c", "%2F",   "%2f", "\\",     "%5C", "%61",  "%252F",
                                                "%20",   "livez", "//",  "readyz", "%41", "/a/b/"};
  Judged judged(SmallRoutes());
  const TargetRule rule(judged.routes(), judged.local());
  int refused = 0;
  for (uint64_t seed = 0; seed < 20'000; ++seed) {
    std::mt19937_64 random(seed);
    const std::string path = RandomPath(random, kParts);
    const PathFault fault = judged.Fault("GET", path);
    const auto everybody = rule.Everybody("GET", path, 100'000);
    ASSERT_TRUE(everybody) << "seed " << seed << ": " << path;
    ASSERT_EQ(fault == PathFault::kAmbiguous, *everybody == "?") << "seed " << seed << ": " << path;
    refused += fault == PathFault::kAmbiguous;
  }
  EXPECT_GT(refused, 1000);
}

}  // namespace
}  // namespace dpa
