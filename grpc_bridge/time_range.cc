#include "grpc_bridge/time_range.h"

#include <charconv>
#include <chrono>
#include <limits>

namespace dpa {
namespace {

constexpr int64_t kSecondMs = 1000;
constexpr int64_t kMinuteMs = 60 * kSecondMs;
constexpr int64_t kHourMs = 60 * kMinuteMs;
constexpr int64_t kDayMs = 24 * kHourMs;
constexpr int64_t kWeekMs = 7 * kDayMs;
constexpr int64_t kEarliestMs = -377'705'116'800'000;  // 1 January of year -9999.
constexpr int64_t kLatestMs = 253'402'300'799'999;     // The last millisecond of year 9999.
constexpr size_t kDigitsMax = 10;                      // Of a number in date math.

// Either a fixed length or a number of months.
struct Unit {
  int64_t ms = 0;
  int64_t months = 0;
};

class Cursor {
 public:
  explicit Cursor(std::string_view text) : rest_(text) {}

  bool done() const { return rest_.empty(); }
  char peek() const { return rest_.empty() ? '\0' : rest_.front(); }
  bool Eat(std::string_view prefix) {
    if (!rest_.starts_with(prefix)) return false;
    rest_.remove_prefix(prefix.size());
    return true;
  }
  // As many digits as there are, at most `max`.
  std::string_view Digits(size_t max) {
    size_t count = 0;
    while (count < rest_.size() && count < max && rest_[count] >= '0' && rest_[count] <= '9') ++count;
    std::string_view digits = rest_.substr(0, count);
    rest_.remove_prefix(count);
    return digits;
  }
  // Exactly `count` digits.
  std::optional<int> Number(size_t count) {
    std::string_view digits = Digits(count);
    if (digits.size() != count) return std::nullopt;
    int value = 0;
    std::from_chars(digits.data(), digits.data() + digits.size(), value);
    return value;
  }

 private:
  std::string_view rest_;
};

int64_t ToInt(std::string_view digits) {
  int64_t value = 0;
  std::from_chars(digits.data(), digits.data() + digits.size(), value);
  return value;
}

std::optional<int64_t> InRange(__int128 ms) {
  if (ms < kEarliestMs || ms > kLatestMs) return std::nullopt;
  return static_cast<int64_t>(ms);
}

std::optional<Unit> EatUnit(Cursor& cursor) {
  if (cursor.Eat("ms")) return Unit{.ms = 1};
  if (cursor.Eat("s")) return Unit{.ms = kSecondMs};
  if (cursor.Eat("m")) return Unit{.ms = kMinuteMs};
  if (cursor.Eat("h") || cursor.Eat("H")) return Unit{.ms = kHourMs};
  if (cursor.Eat("d")) return Unit{.ms = kDayMs};
  if (cursor.Eat("w")) return Unit{.ms = kWeekMs};
  if (cursor.Eat("M")) return Unit{.months = 1};
  if (cursor.Eat("Q") || cursor.Eat("fQ")) return Unit{.months = 3};
  if (cursor.Eat("y") || cursor.Eat("fy")) return Unit{.months = 12};
  return std::nullopt;
}

int64_t FloorDiv(int64_t value, int64_t by) { return value / by - (value % by < 0 ? 1 : 0); }

std::chrono::year_month_day DateOf(int64_t ms) {
  return std::chrono::sys_days(std::chrono::days(FloorDiv(ms, kDayMs)));
}

int64_t MsOfMonth(int64_t months_since_year_0) {
  int64_t year = FloorDiv(months_since_year_0, 12);
  auto month = static_cast<unsigned>(months_since_year_0 - year * 12 + 1);
  std::chrono::year_month_day first(std::chrono::year(static_cast<int>(year)), std::chrono::month(month),
                                    std::chrono::day(1));
  return std::chrono::sys_days(first).time_since_epoch().count() * kDayMs;
}

int64_t MonthsOf(std::chrono::year_month_day date) {
  return static_cast<int64_t>(static_cast<int>(date.year())) * 12 + static_cast<unsigned>(date.month()) - 1;
}

std::optional<int64_t> Add(int64_t ms, int64_t count, Unit unit) {
  if (unit.months == 0) return InRange(ms + static_cast<__int128>(count) * unit.ms);
  auto date = DateOf(ms);
  __int128 months = MonthsOf(date) + static_cast<__int128>(count) * unit.months;
  if (months < -9999 * 12 || months >= 10'000 * 12) return std::nullopt;
  int64_t day = static_cast<unsigned>(date.day()) - 1;
  int64_t time_of_day = ms - FloorDiv(ms, kDayMs) * kDayMs;
  return InRange(MsOfMonth(static_cast<int64_t>(months)) + day * kDayMs + time_of_day);
}

int64_t RoundDown(int64_t ms, Unit unit) {
  if (unit.months > 0) return MsOfMonth(FloorDiv(MonthsOf(DateOf(ms)), unit.months) * unit.months);
  // The epoch was a Thursday; weeks begin on Monday.
  int64_t shift = unit.ms == kWeekMs ? 3 * kDayMs : 0;
  return FloorDiv(ms + shift, unit.ms) * unit.ms - shift;
}

std::optional<int64_t> Round(int64_t ms, Unit unit, RangeEnd end) {
  int64_t down = RoundDown(ms, unit);
  if (end == RangeEnd::kFrom) return InRange(down);
  auto next = Add(down, 1, unit);
  return next ? std::optional(*next - 1) : std::nullopt;
}

// What follows the anchor: (+N|-N|/)<unit>, any number of times.
std::optional<int64_t> EvaluateMath(Cursor& cursor, int64_t ms, RangeEnd end) {
  std::optional<int64_t> at = ms;
  while (at && !cursor.done()) {
    char operation = cursor.peek();
    if (!cursor.Eat("+") && !cursor.Eat("-") && !cursor.Eat("/")) return std::nullopt;
    std::string_view digits = cursor.Digits(kDigitsMax);
    int64_t count = digits.empty() ? 1 : ToInt(digits);
    auto unit = EatUnit(cursor);
    if (!unit) return std::nullopt;
    if (operation == '/' && !digits.empty() && count != 1) return std::nullopt;
    at = operation == '/' ? Round(*at, *unit, end) : Add(*at, operation == '-' ? -count : count, *unit);
  }
  return at;
}

// Z, +hh:mm, -hh:mm or nothing (UTC).
std::optional<int64_t> EatOffset(Cursor& cursor) {
  if (cursor.done() || cursor.peek() == '|' || cursor.Eat("Z")) return 0;
  int sign = cursor.peek() == '-' ? -1 : 1;
  if (!cursor.Eat("+") && !cursor.Eat("-")) return std::nullopt;
  auto hours = cursor.Number(2);
  if (!hours) return std::nullopt;
  cursor.Eat(":");
  auto minutes = cursor.Number(2);
  if (!minutes || *hours > 23 || *minutes > 59) return std::nullopt;
  return sign * (*hours * kHourMs + *minutes * kMinuteMs);
}

// hh[:mm[:ss[.fraction]]] and an offset.
std::optional<int64_t> EatTimeOfDay(Cursor& cursor) {
  auto hours = cursor.Number(2);
  std::optional<int> minutes = 0;
  std::optional<int> seconds = 0;
  int64_t fraction_ms = 0;
  if (cursor.Eat(":")) {
    minutes = cursor.Number(2);
    if (cursor.Eat(":")) seconds = cursor.Number(2);
    if (cursor.Eat(".")) {
      std::string_view digits = cursor.Digits(9);
      if (digits.empty()) return std::nullopt;
      for (size_t i = 0; i < 3; ++i) fraction_ms = fraction_ms * 10 + (i < digits.size() ? digits[i] - '0' : 0);
    }
  }
  if (!hours || !minutes || !seconds || *hours > 23 || *minutes > 59 || *seconds > 59) return std::nullopt;
  auto offset = EatOffset(cursor);
  if (!offset) return std::nullopt;
  return *hours * kHourMs + *minutes * kMinuteMs + *seconds * kSecondMs + fraction_ms - *offset;
}

// YYYY-MM[-DD[Thh…]]; a year alone is a number of milliseconds.
std::optional<int64_t> EatDate(Cursor& cursor) {
  auto year = cursor.Number(4);
  if (!year || !cursor.Eat("-")) return std::nullopt;
  auto month = cursor.Number(2);
  auto day = cursor.Eat("-") ? cursor.Number(2) : std::optional(1);
  if (!month || !day) return std::nullopt;
  std::chrono::year_month_day date(std::chrono::year(*year), std::chrono::month(static_cast<unsigned>(*month)),
                                   std::chrono::day(static_cast<unsigned>(*day)));
  if (!date.ok()) return std::nullopt;
  int64_t ms = std::chrono::sys_days(date).time_since_epoch().count() * kDayMs;
  if (!cursor.Eat("T") && !cursor.Eat(" ")) return ms;
  auto time = EatTimeOfDay(cursor);
  return time ? std::optional(ms + *time) : std::nullopt;
}

std::optional<int64_t> ParseDateMath(std::string_view text, RangeEnd end, int64_t now_ms) {
  Cursor cursor(text);
  if (cursor.Eat("now")) return EvaluateMath(cursor, now_ms, end);
  auto anchor = EatDate(cursor);
  if (!anchor) return std::nullopt;
  if (cursor.Eat("||")) return EvaluateMath(cursor, *anchor, end);
  return cursor.done() ? anchor : std::nullopt;
}

// Nanoseconds of one unit of a Go duration, 0 if there is none here.
int64_t EatDurationUnit(Cursor& cursor) {
  if (cursor.Eat("ns")) return 1;
  if (cursor.Eat("us") || cursor.Eat("\xC2\xB5s") || cursor.Eat("\xCE\xBCs")) return 1000;
  if (cursor.Eat("ms")) return 1'000'000;
  if (cursor.Eat("s")) return kSecondMs * 1'000'000;
  if (cursor.Eat("m")) return kMinuteMs * 1'000'000;
  if (cursor.Eat("h")) return kHourMs * 1'000'000;
  return 0;
}

// A Go duration in nanoseconds: 1h30m, 1.5s, .5h. (Authority: Go's time.ParseDuration.)
std::optional<int64_t> ParseDurationNs(std::string_view text) {
  Cursor cursor(text);
  __int128 total_ns = 0;
  while (!cursor.done()) {
    std::string_view whole = cursor.Digits(18);
    std::string_view fraction = cursor.Eat(".") ? cursor.Digits(18) : std::string_view{};
    if (whole.empty() && fraction.empty()) return std::nullopt;
    int64_t unit_ns = EatDurationUnit(cursor);
    if (unit_ns == 0) return std::nullopt;
    int64_t scale = 1;
    for (size_t i = 0; i < fraction.size(); ++i) scale *= 10;
    total_ns += static_cast<__int128>(ToInt(whole)) * unit_ns;
    total_ns += static_cast<__int128>(ToInt(fraction)) * unit_ns / scale;
    if (total_ns > std::numeric_limits<int64_t>::max()) return std::nullopt;
  }
  return static_cast<int64_t>(total_ns);
}

std::optional<int64_t> ParseDurationAgo(std::string_view text, int64_t now_ms) {
  if (auto ns = ParseDurationNs(text)) {
    int64_t ms_up = *ns / 1'000'000 + (*ns % 1'000'000 != 0 ? 1 : 0);
    return InRange(static_cast<__int128>(now_ms) - ms_up);
  }
  Cursor cursor(text);
  std::string_view digits = cursor.Digits(kDigitsMax);
  if (digits.empty() || std::string_view("dwMy").find(cursor.peek()) == std::string_view::npos) return std::nullopt;
  auto unit = EatUnit(cursor);
  return unit && cursor.done() ? Add(now_ms, -ToInt(digits), *unit) : std::nullopt;
}

// Go's ParseInt takes a leading plus, from_chars does not.
std::optional<int64_t> ParseEpochMs(std::string_view text) {
  if (text.starts_with('+') && !text.starts_with("+-")) text.remove_prefix(1);
  int64_t ms = 0;
  auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), ms);
  if (error != std::errc{} || end != text.data() + text.size()) return std::nullopt;
  return ms;
}

}  // namespace

std::optional<int64_t> ParseTime(std::string_view text, RangeEnd end, int64_t now_ms) {
  if (text.empty()) return std::nullopt;
  if (auto ms = ParseEpochMs(text)) return ms;
  if (auto ms = ParseDurationAgo(text, now_ms)) return ms;
  return ParseDateMath(text, end, now_ms);
}

}  // namespace dpa
