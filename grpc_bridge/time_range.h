// Time strings as Grafana's clients send them, turned into milliseconds since the epoch (UTC throughout):
//
//     1700000000000            base-10 int64: milliseconds since the epoch
//     5m  1h30m  2d            a duration: that long before now; Go's units (ns us ms s m h) and, alone, d w M y
//     now  now-1h  now-1d/d    date math: now, then any of +N<unit>, -N<unit>, /<unit>; N may be left out (1)
//     2026-11-20T12:00:00Z     a date (time and offset optional), also with date math after "||": 2026-11-20||+1M/d
//
// Units of date math: ms s m h d w M Q y, and fQ fy with a fiscal year that begins in January. Weeks begin on Monday.
// Rounding (`/d`) goes down to the start of the unit for the `from` end and up to its last millisecond for `to`.
// Months are added as Go adds them: a day past the end of the month runs into the next (31 January + 1M = 3 March).

#pragma once

#include <cstdint>
#include <optional>
#include <string_view>

namespace dpa {

// Go's zero time (1 January of year 1): what a plugin sees as "no time range".
inline constexpr int64_t kGoZeroTimeMs = -62135596800000;

struct TimeRangeMs {
  int64_t from_ms = kGoZeroTimeMs;
  int64_t to_ms = kGoZeroTimeMs;

  friend bool operator==(const TimeRangeMs&, const TimeRangeMs&) = default;
};

enum class RangeEnd : uint8_t { kFrom, kTo };

// Milliseconds since the epoch, or nothing if `text` is none of the forms above or leaves the range of years -9999 to
// 9999 (an int64 of milliseconds is taken as it is). `now_ms` is the caller's clock.
std::optional<int64_t> ParseTime(std::string_view text, RangeEnd end, int64_t now_ms);

}  // namespace dpa
