// Goal: what plugins write to stderr arrives in our log with level and fields, and no plugin can flood or garble it.
// Method: lines as real plugins print them, in pieces of every size.

#include "grpc_bridge/plugin_log.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <vector>

namespace dpa {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Pair;

class PluginLogTest : public ::testing::Test {
 protected:
  PluginLog Make(PluginLogOptions options = {}) {
    return PluginLog("p", options,
                     [this](LogLevel level, std::string_view fields) { lines_.emplace_back(level, fields); });
  }
  std::vector<std::pair<LogLevel, std::string>> lines_;
};

TEST_F(PluginLogTest, HclogLineKeepsLevelMessageAndFields) {
  const std::string_view text =
      R"({"@level":"warn","@message":"slow \"query\"","@module":"db","@timestamp":"2026-11-20T10:11:21.806224Z","ms":12,"q":{"a":1}})"
      "\n";
  for (size_t piece = 1; piece <= text.size(); ++piece) {
    lines_.clear();
    PluginLog log = Make();
    for (size_t at = 0; at < text.size(); at += piece) log.Feed(text.substr(at, piece));
    EXPECT_THAT(lines_, ElementsAre(Pair(LogLevel::kWarn,
                                         R"(plugin=p message="slow \"query\"" module="db" ms="12" q="{\"a\":1}")")));
  }
}

TEST_F(PluginLogTest, LevelsInCapitalsAreKnownAndUnknownOnesLeaveTheLineAsText) {
  PluginLog log = Make();
  log.Feed("{\"@level\":\"INFO\",\"@message\":\"from Rust\"}\n{\"@level\":5,\"@message\":{}}\n[ERROR] plain\nquiet\n");
  EXPECT_THAT(lines_, ElementsAre(Pair(LogLevel::kInfo, "plugin=p message=\"from Rust\""),
                                  Pair(LogLevel::kError, "plugin=p message=\"[ERROR] plain\"")));
}

TEST_F(PluginLogTest, MessageOfAnotherTypeIsPrintedAndHarmsNothing) {
  PluginLog log = Make();
  log.Feed("{\"@level\":\"info\",\"@message\":{\"a\":[1]},\"bad key\\n\":null}\n");
  EXPECT_THAT(lines_, ElementsAre(Pair(LogLevel::kInfo, R"(plugin=p message="{\"a\":[1]}" bad_key_="null")")));
}

TEST_F(PluginLogTest, PanicIsAnErrorLineByLineAndItsBeginningIsTheLastWord) {
  PluginLog log = Make();
  log.Feed("panic: boom\n\ngoroutine 1 [running]:\n{\"@level\":\"info\",\"@message\":\"other thread\"}\nmain.main()");
  log.Finish();
  ASSERT_EQ(lines_.size(), 4u);
  EXPECT_EQ(lines_[0].first, LogLevel::kError);
  EXPECT_EQ(lines_[1].first, LogLevel::kError);
  EXPECT_EQ(lines_[2].first, LogLevel::kInfo);
  EXPECT_EQ(lines_[3], std::pair(LogLevel::kError, std::string("plugin=p message=\"main.main()\"")));
  EXPECT_EQ(log.last_words(), "panic: boom");
}

TEST_F(PluginLogTest, FloodIsCutAtTheBurstAndTheRestIsCounted) {
  PluginLog log = Make({.lines_burst = 3, .lines_per_s = 0});
  for (int i = 0; i < 10; ++i) log.Feed("{\"@level\":\"info\",\"@message\":\"x\"}\n");
  log.Finish();
  ASSERT_EQ(lines_.size(), 4u);
  EXPECT_EQ(lines_[3], std::pair(LogLevel::kWarn, std::string("plugin=p lines_dropped=7")));
  EXPECT_EQ(log.lines_dropped(), 7u);
}

TEST_F(PluginLogTest, EndlessLineIsCutIntoPiecesOfBoundedSize) {
  PluginLog log = Make({.line_bytes_max = 100, .message_bytes_max = 20});
  log.Feed("[INFO] " + std::string(1000, 'x') + "\n{\"@level\":\"info\",\"@message\":\"next\"}\n");
  ASSERT_EQ(lines_.size(), 2u);  // The pieces after the first have no prefix: debug.
  EXPECT_LE(lines_[0].second.size(), 60u);
  EXPECT_THAT(lines_[1].second, HasSubstr("next"));
}

TEST_F(PluginLogTest, BytesThatAreNoTextCannotGarbleALine) {
  PluginLog log = Make();
  log.Feed(std::string_view("[WARN] a\xff\0b\x1b[31m \"\n", 19));
  EXPECT_THAT(lines_,
              ElementsAre(Pair(LogLevel::kWarn, "plugin=p message=\"[WARN] a\xef\xbf\xbd\\u0000b\\u001b[31m \\\"\"")));
}

}  // namespace
}  // namespace dpa
