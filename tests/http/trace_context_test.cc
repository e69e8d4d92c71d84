// Goal: a trace goes on if its traceparent is valid by the W3C's rules, and ids of ours are valid, unique and safe in
// logs. Method: texts in, verdicts out.

#include "http/trace_context.h"

#include <gtest/gtest.h>

#include <array>
#include <set>
#include <string>
#include <vector>

namespace dpa {
namespace {

const std::string kTraceId = "0af7651916cd43dd8448eb211c80319c";
const std::string kValid = "00-" + kTraceId + "-b7ad6b7169203331-01";

TEST(Traceparent, IsValidByTheRulesOfItsVersion) {
  EXPECT_EQ(TraceIdOf(kValid), kTraceId);
  EXPECT_EQ(TraceIdOf("00-" + kTraceId + "-b7ad6b7169203331-ff"), kTraceId);
  // Later versions: what is known of them holds, and more may follow behind a dash.
  EXPECT_EQ(TraceIdOf("01-" + kTraceId + "-b7ad6b7169203331-01"), kTraceId);
  EXPECT_EQ(TraceIdOf("cc-" + kTraceId + "-b7ad6b7169203331-01-what-the-future-brings"), kTraceId);
  for (const std::string& broken : std::vector<std::string>{
           std::string(),
           std::string("00"),
           kValid.substr(0, 54),
           kValid + "-",
           kValid + "-x",
           kValid + "0",
           " " + kValid,
           kValid + " ",
           kValid + "," + kValid,
           "ff-" + kTraceId + "-b7ad6b7169203331-01",
           "01-" + kTraceId + "-b7ad6b7169203331-01x",
           "0g-" + kTraceId + "-b7ad6b7169203331-01",
           "00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01",
           "00-" + kTraceId + "-B7AD6B7169203331-01",
           "00-" + kTraceId + "-b7ad6b7169203331-0A",
           "00-" + std::string(32, '0') + "-b7ad6b7169203331-01",
           "00-" + kTraceId + "-0000000000000000-01",
           "00_" + kTraceId + "-b7ad6b7169203331-01",
           "00-" + kTraceId + "_b7ad6b7169203331-01",
           "00-" + kTraceId + "-b7ad6b7169203331_01",
           "00-" + kTraceId + "-b7ad6b716920333-001",
       }) {
    EXPECT_EQ(TraceIdOf(broken), "") << broken;
  }
}

TEST(RequestId, IsShortAndHarmless) {
  for (const std::string& fine : {std::string("a"), std::string("7b1f3c2e-9d1a-4c55-8f0e-2f1d3c4b5a69"),
                                  std::string("Root=1-67891233-abcdef012345678912345678"), std::string("a/b+c==:@~_."),
                                  std::string(kRequestIdBytesMax, 'x')}) {
    EXPECT_TRUE(IsRequestId(fine)) << fine;
  }
  for (const std::string& bad :
       {std::string(), std::string("a b"), std::string("a,b"), std::string("a\"b"), std::string("a\\b"),
        std::string("a;b"), std::string("{}"), std::string("<script>"), std::string("\xC3\xA4"), std::string("a\tb"),
        std::string("a\0b", 3), std::string("$(x)"), std::string(kRequestIdBytesMax + 1, 'x')}) {
    EXPECT_FALSE(IsRequestId(bad)) << bad;
  }
}

TEST(IdSource, MakesValidIdsThatDiffer) {
  IdSource ids;
  IdSource others;
  std::set<std::string> seen;
  for (int i = 0; i < 10000; ++i) {
    for (IdSource* source : {&ids, &others}) {
      std::array<char, kRequestIdBytes> request_id;
      source->WriteRequestId(request_id);
      const std::string text(request_id.data(), request_id.size());
      ASSERT_TRUE(IsRequestId(text));
      ASSERT_EQ(text.find_first_not_of("0123456789abcdef"), std::string::npos);
      ASSERT_TRUE(seen.insert(text).second);
      std::array<char, kTraceparentBytes> traceparent;
      source->WriteTraceparent(traceparent);
      const std::string parent(traceparent.data(), traceparent.size());
      ASSERT_TRUE(parent.starts_with("00-") && parent.ends_with("-00")) << parent;
      ASSERT_TRUE(seen.insert(std::string(TraceIdOf(parent))).second) << parent;
    }
  }
}

// Runs of the simulated ring are to be repeated.
TEST(IdSource, RepeatsItselfForASeed) {
  IdSource one(42), two(42), other(43);
  for (int i = 0; i < 100; ++i) {
    const uint64_t number = one.Next();
    EXPECT_EQ(number, two.Next());
    EXPECT_NE(number, other.Next());
  }
  // Every bit is set about half of the time.
  std::array<int, 64> set_count{};
  for (int i = 0; i < 4096; ++i) {
    const uint64_t number = one.Next();
    for (size_t bit = 0; bit < 64; ++bit) set_count[bit] += static_cast<int>(number >> bit & 1);
  }
  for (const int count : set_count) EXPECT_NEAR(count, 2048, 256);
}

}  // namespace
}  // namespace dpa
