// Goal: the same bytes mean the same to us in both roles, however the network cuts them, and nothing ambiguous is
// accepted. Method: every row of the table whole and in pieces of 1 to 31 bytes, each time at a new address.

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <regex>
#include <set>
#include <sstream>
#include <string>

#include "tests/wire/response_table.h"
#include "tests/wire/target_table.h"
#include "tests/wire/wire_meaning.h"
#include "tests/wire/wire_table.h"

namespace dpa::wire {
namespace {

constexpr size_t kPieceMax = 31;
constexpr size_t kWhole = 1 << 20;

class RequestTable : public testing::TestWithParam<RequestRow> {};
class ResponseTable : public testing::TestWithParam<ResponseRow> {};

TEST_P(RequestTable, MeansTheSameInEveryCut) {
  const RequestRow& row = GetParam();
  const Limits limits = row.tight ? kTight : Limits{};
  EXPECT_EQ(RequestMeaning(row.bytes, Every(kWhole), limits), row.meaning) << "RFC " << row.section << ", whole";
  for (size_t piece = 1; piece <= kPieceMax; ++piece) {
    EXPECT_EQ(RequestMeaning(row.bytes, Every(piece), limits), row.meaning)
        << "RFC " << row.section << ", pieces of " << piece;
  }
}

TEST_P(ResponseTable, MeansTheSameInEveryCut) {
  const ResponseRow& row = GetParam();
  const std::string_view method = row.request_method;
  const Limits limits = row.tight ? kTight : Limits{};
  EXPECT_EQ(ResponseMeaning(method, row.bytes, Every(kWhole), limits), row.meaning)
      << "RFC " << row.section << ", whole";
  for (size_t piece = 1; piece <= kPieceMax; ++piece) {
    EXPECT_EQ(ResponseMeaning(method, row.bytes, Every(piece), limits), row.meaning)
        << "RFC " << row.section << ", pieces of " << piece;
  }
}

const auto kNameOf = [](const auto& info) { return std::string(info.param.name); };
INSTANTIATE_TEST_SUITE_P(Wire, RequestTable, testing::ValuesIn(kRequests), kNameOf);
INSTANTIATE_TEST_SUITE_P(Wire, ResponseTable, testing::ValuesIn(kResponses), kNameOf);

TEST(WireTable, NamesARowOnce) {
  std::set<std::string_view> requests, responses, targets;
  for (const RequestRow& row : kRequests) EXPECT_TRUE(requests.insert(row.name).second) << row.name;
  for (const ResponseRow& row : kResponses) EXPECT_TRUE(responses.insert(row.name).second) << row.name;
  for (const TargetRow& row : kTargets) EXPECT_TRUE(targets.insert(row.name).second) << row.name;
}

// Goal: nothing is refused, or accepted, without a rule that says so. Method: each row names a section of an RFC.
TEST(WireTable, NamesTheSectionThatSettlesARow) {
  const std::regex section("(3986|6585|8297|8615|9110|9112|9113) §[0-9]+(\\.[0-9]+)*");
  const auto check = [&](const auto& rows) {
    for (const auto& row : rows) EXPECT_TRUE(std::regex_match(std::string(row.section), section)) << row.name;
  };
  check(kRequests);
  check(kResponses);
  check(kTargets);
}

bool OnlyInRequests(HttpViolation violation) {
  switch (violation) {
    case HttpViolation::kMethodInvalid:
    case HttpViolation::kMethodUnknown:
    case HttpViolation::kMethodTrace:
    case HttpViolation::kMethodConnect:
    case HttpViolation::kTargetInvalid:
    case HttpViolation::kTargetTooLong:
    case HttpViolation::kHostMissing:
    case HttpViolation::kHostRepeated:
    case HttpViolation::kHostInvalid:
    case HttpViolation::kExpectationUnknown:
      return true;
    default:
      return false;
  }
}

bool OnlyInResponses(HttpViolation violation) { return violation == HttpViolation::kStatusInvalid; }

// Goal: the closed list of violations is covered in full, in each role. Method: every word of it ends some row, unless
// the role has no such line; and no row has one that its role cannot have.
TEST(WireTable, HasARowForEachViolationInEachRole) {
  const auto rows_with = [](const auto& rows, HttpViolation violation) {
    return std::ranges::count_if(rows, [&](const auto& row) { return row.meaning.ends_with(Refused(violation)); });
  };
  for (auto i = static_cast<int>(HttpViolation::kNone) + 1; i < static_cast<int>(HttpViolation::kCount); ++i) {
    const auto violation = static_cast<HttpViolation>(i);
    EXPECT_EQ(rows_with(kRequests, violation) > 0, !OnlyInResponses(violation)) << ReasonOf(violation);
    EXPECT_EQ(rows_with(kResponses, violation) > 0, !OnlyInRequests(violation)) << ReasonOf(violation);
  }
}

// The corpora of the fuzz targets are the rows of this table. Goal: they stay so. Method: compare the files with the
// rows; with DPA_WRITE_CORPUS set in the environment, write them instead.
class Corpus : public testing::Test {
 protected:
  static void Hold(const std::string& target, std::string_view name, const std::string& bytes) {
    const std::filesystem::path folder = std::filesystem::path(DPA_SOURCE_DIR) / "tests/fuzz/corpus" / target;
    const std::filesystem::path file = folder / std::string(name);
    if (std::getenv("DPA_WRITE_CORPUS")) {
      std::filesystem::create_directories(folder);
      std::ofstream(file, std::ios::binary) << bytes;
    }
    std::stringstream found;
    found << std::ifstream(file, std::ios::binary).rdbuf();
    EXPECT_EQ(found.str(), bytes) << file << " is not the row of the table; set DPA_WRITE_CORPUS=1 to write it";
  }
};

TEST_F(Corpus, HoldsTheRequestsOfTheTable) {
  for (const RequestRow& row : kRequests) Hold("request_head_fuzz", row.name, std::string(row.bytes));
}

// The first byte chooses the method of the request: 'H' for HEAD.
TEST_F(Corpus, HoldsTheResponsesOfTheTable) {
  for (const ResponseRow& row : kResponses) {
    Hold("response_head_fuzz", row.name, (row.request_method == "HEAD" ? "H" : "G") + std::string(row.bytes));
  }
}

TEST_F(Corpus, HoldsTheChunkedBodiesOfTheTable) {
  for (const RequestRow& row : kRequests) {
    if (row.meaning.find(" chunked[") == std::string_view::npos) continue;
    const size_t head_end = row.bytes.find("\r\n\r\n") + 4;
    Hold("chunked_body_fuzz", row.name, std::string(row.bytes.substr(head_end)));
  }
}

TEST_F(Corpus, HoldsTheTargetsOfTheTable) {
  for (const TargetRow& row : kTargets) Hold("target_readings_fuzz", row.name, std::string(row.path));
}

}  // namespace
}  // namespace dpa::wire
