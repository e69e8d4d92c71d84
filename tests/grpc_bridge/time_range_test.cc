// Goal: time strings mean here what they mean to Grafana. Method: a table of text and instant, each side written as a
// date.

#include "grpc_bridge/time_range.h"

#include <gtest/gtest.h>

#include <chrono>
#include <string>
#include <vector>

namespace dpa {
namespace {

using std::chrono::days;
using std::chrono::hours;
using std::chrono::milliseconds;
using std::chrono::minutes;
using std::chrono::seconds;

int64_t At(int year, unsigned month, unsigned day, int h = 0, int m = 0, int s = 0, int ms = 0) {
  auto date = std::chrono::sys_days(std::chrono::year(year) / std::chrono::month(month) / std::chrono::day(day));
  auto time = date + hours(h) + minutes(m) + seconds(s) + milliseconds(ms);
  return std::chrono::duration_cast<milliseconds>(time.time_since_epoch()).count();
}

// A Thursday.
const int64_t kNow = At(2020, 3, 26, 15, 12, 56, 789);

struct Row {
  const char* text;
  int64_t from_ms;
  int64_t to_ms;
};

TEST(TimeRange, ReadsEveryFormOfGrafanasClients) {
  std::vector<Row> rows = {
      {"0", 0, 0},
      {"1585235576789", 1585235576789, 1585235576789},
      {"-312915600000", -312915600000, -312915600000},
      {"+5", 5, 5},
      {"2014", 2014, 2014},  // A number, not a year.
      {"9223372036854775807", INT64_MAX, INT64_MAX},

      {"5m", At(2020, 3, 26, 15, 7, 56, 789), At(2020, 3, 26, 15, 7, 56, 789)},
      {"1h30m", At(2020, 3, 26, 13, 42, 56, 789), At(2020, 3, 26, 13, 42, 56, 789)},
      {"1.5s", At(2020, 3, 26, 15, 12, 55, 289), At(2020, 3, 26, 15, 12, 55, 289)},
      {".5h", At(2020, 3, 26, 14, 42, 56, 789), At(2020, 3, 26, 14, 42, 56, 789)},
      {"1us", kNow - 1, kNow - 1},
      {"2d", At(2020, 3, 24, 15, 12, 56, 789), At(2020, 3, 24, 15, 12, 56, 789)},
      {"7d", At(2020, 3, 19, 15, 12, 56, 789), At(2020, 3, 19, 15, 12, 56, 789)},
      {"1w", At(2020, 3, 19, 15, 12, 56, 789), At(2020, 3, 19, 15, 12, 56, 789)},
      {"1M", At(2020, 2, 26, 15, 12, 56, 789), At(2020, 2, 26, 15, 12, 56, 789)},
      {"2y", At(2018, 3, 26, 15, 12, 56, 789), At(2018, 3, 26, 15, 12, 56, 789)},

      {"now", kNow, kNow},
      {"now-1h", kNow - 3'600'000, kNow - 3'600'000},
      {"now-h", kNow - 3'600'000, kNow - 3'600'000},
      {"now-1H", kNow - 3'600'000, kNow - 3'600'000},
      {"now+3w", At(2020, 4, 16, 15, 12, 56, 789), At(2020, 4, 16, 15, 12, 56, 789)},
      {"now-250ms", kNow - 250, kNow - 250},
      {"now/s", At(2020, 3, 26, 15, 12, 56), At(2020, 3, 26, 15, 12, 56, 999)},
      {"now/m", At(2020, 3, 26, 15, 12), At(2020, 3, 26, 15, 12, 59, 999)},
      {"now/h", At(2020, 3, 26, 15), At(2020, 3, 26, 15, 59, 59, 999)},
      {"now/d", At(2020, 3, 26), At(2020, 3, 26, 23, 59, 59, 999)},
      {"now-1d/d", At(2020, 3, 25), At(2020, 3, 25, 23, 59, 59, 999)},
      {"now/w", At(2020, 3, 23), At(2020, 3, 29, 23, 59, 59, 999)},
      {"now-1w/w", At(2020, 3, 16), At(2020, 3, 22, 23, 59, 59, 999)},
      {"now-1M/M", At(2020, 2, 1), At(2020, 2, 29, 23, 59, 59, 999)},
      {"now/Q", At(2020, 1, 1), At(2020, 3, 31, 23, 59, 59, 999)},
      {"now/fQ", At(2020, 1, 1), At(2020, 3, 31, 23, 59, 59, 999)},
      {"now+1Q/Q", At(2020, 4, 1), At(2020, 6, 30, 23, 59, 59, 999)},
      {"now/y", At(2020, 1, 1), At(2020, 12, 31, 23, 59, 59, 999)},
      {"now-1fy/fy", At(2019, 1, 1), At(2019, 12, 31, 23, 59, 59, 999)},
      {"now/d+8h", At(2020, 3, 26, 8), At(2020, 3, 27, 7, 59, 59, 999)},

      {"2020-03-26", At(2020, 3, 26), At(2020, 3, 26)},
      {"2014-05", At(2014, 5, 1), At(2014, 5, 1)},
      {"1960-02-01T07:00:00.000Z", At(1960, 2, 1, 7), At(1960, 2, 1, 7)},
      {"2014-05-30T20", At(2014, 5, 30, 20), At(2014, 5, 30, 20)},
      {"2014-05-30T20:21+03:00", At(2014, 5, 30, 17, 21), At(2014, 5, 30, 17, 21)},
      {"2014-05-30T20:21:35.1239", At(2014, 5, 30, 20, 21, 35, 123), At(2014, 5, 30, 20, 21, 35, 123)},
      {"2014-11-18T14||-1h", At(2014, 11, 18, 13), At(2014, 11, 18, 13)},
      {"2014-11-18||+1M/M+1h", At(2014, 12, 1, 1), At(2015, 1, 1, 0, 59, 59, 999)},
      {"2014-11-01T14:27:32||/w", At(2014, 10, 27), At(2014, 11, 2, 23, 59, 59, 999)},
      {"2014-05-30T20:21||", At(2014, 5, 30, 20, 21), At(2014, 5, 30, 20, 21)},
      {"2021-01-31||+1M", At(2021, 3, 3), At(2021, 3, 3)},  // As Go's AddDate.
      {"1969-12-31T23:59:59.999Z||/d", At(1969, 12, 31), At(1969, 12, 31, 23, 59, 59, 999)},
  };
  for (const Row& row : rows) {
    EXPECT_EQ(ParseTime(row.text, RangeEnd::kFrom, kNow), row.from_ms) << row.text;
    EXPECT_EQ(ParseTime(row.text, RangeEnd::kTo, kNow), row.to_ms) << row.text;
  }
}

TEST(TimeRange, RefusesWhatIsNoTime) {
  for (const char* text : {"",
                           " ",
                           "asdf",
                           "no",
                           "nows",
                           "now-",
                           "now-nope",
                           "now/",
                           "now/2d",
                           "now--1h",
                           "now-1h ",
                           "now1h",
                           "-5m",
                           "5m3",
                           "5 m",
                           "1x",
                           "d",
                           ".",
                           ".s",
                           "+-5",
                           "2014-13",
                           "2014-05-35",
                           "2014-02-30",
                           "2014-05-30T25",
                           "2014-05-30T20:60",
                           "2014-05-30T20:21:35.",
                           "2014-05-30T20:21+3",
                           "2014-05-30|",
                           "2014-05-30||x",
                           "9223372036854775808",
                           "9999999999y",
                           "now+9999999999y",
                           "now-99999999999d",
                           "9999999h9999999999999h",
                           "9999-12-31||+1d",
                           "definitely-nope",
                           "{{from}}"}) {
    auto parsed = ParseTime(text, RangeEnd::kFrom, kNow);
    EXPECT_FALSE(parsed.has_value()) << text << " → " << *parsed;
  }
}

}  // namespace
}  // namespace dpa
