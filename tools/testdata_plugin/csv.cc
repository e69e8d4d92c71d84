#include "tools/testdata_plugin/csv.h"

#include <fmt/format.h>

#include <charconv>
#include <chrono>
#include <utility>

namespace dpa::testdata {
namespace {

using Record = std::vector<std::string>;

// Reads `text` record by record.
class CsvReader {
 public:
  explicit CsvReader(std::string_view text) : rest_(text) {}

  bool done() const { return rest_.empty(); }
  int line() const { return line_; }  // Of the record read last, from 1.

  std::expected<Record, std::string> Next() {
    line_ = next_line_;
    Record record;
    do {
      auto cell = NextCell();
      if (!cell) return std::unexpected(std::move(cell.error()));
      record.push_back(std::move(*cell));
    } while (Skip(','));
    Skip('\r');
    if (!Skip('\n') && !done()) return std::unexpected(fmt::format("line {}: text after a closing quote", line_));
    ++next_line_;
    return record;
  }

 private:
  bool Skip(char c) {
    if (!rest_.starts_with(c)) return false;
    rest_.remove_prefix(1);
    return true;
  }

  std::expected<std::string, std::string> NextCell() {
    if (Skip('"')) return QuotedCell();
    const size_t end = std::min(rest_.find_first_of(",\r\n"), rest_.size());
    std::string cell(rest_.substr(0, end));
    rest_.remove_prefix(end);
    return cell;
  }

  std::expected<std::string, std::string> QuotedCell() {
    std::string cell;
    while (!done()) {
      const char c = rest_.front();
      rest_.remove_prefix(1);
      if (c == '"' && !Skip('"')) return cell;
      if (c == '\n') ++next_line_;
      cell.push_back(c);
    }
    return std::unexpected(fmt::format("line {}: quote without its end", line_));
  }

  std::string_view rest_;
  int line_ = 0;
  int next_line_ = 1;
};

bool IsNull(std::string_view cell) { return cell.empty() || cell == "null"; }

std::optional<double> ParseNumber(std::string_view text) {
  double value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return value;
}

std::optional<bool> ParseBool(std::string_view text) {
  if (text == "true") return true;
  if (text == "false") return false;
  return std::nullopt;
}

std::optional<std::string> ParseString(std::string_view text) { return std::string(text); }

// The whole column by `parse`, or nothing if one cell does not fit.
template <class T, class Parse>
std::optional<Field> TryColumn(const std::string& name, const std::vector<Record>& rows, size_t column, Parse parse) {
  Cells<T> cells;
  cells.reserve(rows.size());
  bool any = false;
  for (const Record& row : rows) {
    if (IsNull(row[column])) {
      cells.emplace_back();
      continue;
    }
    std::optional<T> value = parse(row[column]);
    if (!value) return std::nullopt;
    any = true;
    cells.push_back(std::move(value));
  }
  if (!any && !std::is_same_v<T, std::string>) return std::nullopt;
  return Field{.name = name, .column = std::move(cells), .nullable = true};
}

Field InferColumn(const std::string& name, const std::vector<Record>& rows, size_t column) {
  if (auto field = TryColumn<TimeNs>(name, rows, column, ParseTime)) return *std::move(field);
  if (auto field = TryColumn<double>(name, rows, column, ParseNumber)) return *std::move(field);
  if (auto field = TryColumn<bool>(name, rows, column, ParseBool)) return *std::move(field);
  return *TryColumn<std::string>(name, rows, column, ParseString);
}

// Reads exactly `width` digits.
std::optional<int> Digits(std::string_view* text, size_t width) {
  int value = 0;
  if (text->size() < width) return std::nullopt;
  const auto [end, error] = std::from_chars(text->data(), text->data() + width, value);
  if (error != std::errc() || end != text->data() + width || text->front() == '-') return std::nullopt;
  text->remove_prefix(width);
  return value;
}

bool Expect(std::string_view* text, char c) {
  if (!text->starts_with(c)) return false;
  text->remove_prefix(1);
  return true;
}

std::optional<int64_t> ParseDateSeconds(std::string_view* text) {
  const auto y = Digits(text, 4);
  if (!y || !Expect(text, '-')) return std::nullopt;
  const auto m = Digits(text, 2);
  if (!m || !Expect(text, '-')) return std::nullopt;
  const auto d = Digits(text, 2);
  if (!d) return std::nullopt;
  const std::chrono::year_month_day date{std::chrono::year(*y), std::chrono::month(static_cast<unsigned>(*m)),
                                         std::chrono::day(static_cast<unsigned>(*d))};
  // Outside these years nanoseconds since 1970 do not fit in 64 bits.
  if (!date.ok() || *y < 1678 || *y > 2261) return std::nullopt;
  return std::chrono::sys_days(date).time_since_epoch().count() * int64_t{86400};
}

std::optional<int64_t> ParseClockSeconds(std::string_view* text) {
  const auto h = Digits(text, 2);
  if (!h || *h > 23 || !Expect(text, ':')) return std::nullopt;
  const auto m = Digits(text, 2);
  if (!m || *m > 59) return std::nullopt;
  return (*h * 60 + *m) * int64_t{60};
}

std::optional<int64_t> ParseFractionNs(std::string_view* text) {
  if (!Expect(text, '.')) return 0;
  const size_t width = std::min(text->find_first_not_of("0123456789"), text->size());
  if (width == 0 || width > 9) return std::nullopt;
  int64_t ns = *Digits(text, width);
  for (size_t i = width; i < 9; ++i) ns *= 10;
  return ns;
}

std::optional<int64_t> ParseOffsetSeconds(std::string_view* text) {
  if (Expect(text, 'Z')) return 0;
  const bool minus = text->starts_with('-');
  if (!minus && !text->starts_with('+')) return std::nullopt;
  text->remove_prefix(1);
  const auto seconds = ParseClockSeconds(text);
  if (!seconds) return std::nullopt;
  return minus ? -*seconds : *seconds;
}

}  // namespace

std::optional<TimeNs> ParseTime(std::string_view text) {
  const auto date = ParseDateSeconds(&text);
  if (!date || !Expect(&text, 'T')) return std::nullopt;
  const auto clock = ParseClockSeconds(&text);
  if (!clock || !Expect(&text, ':')) return std::nullopt;
  const auto seconds = Digits(&text, 2);
  if (!seconds || *seconds > 59) return std::nullopt;
  const auto fraction = ParseFractionNs(&text);
  if (!fraction) return std::nullopt;
  const auto offset = ParseOffsetSeconds(&text);
  if (!offset || !text.empty()) return std::nullopt;
  return TimeNs{(*date + *clock + *seconds - *offset) * 1'000'000'000 + *fraction};
}

std::expected<std::vector<Field>, std::string> ParseCsv(std::string_view text) {
  CsvReader reader(text);
  if (reader.done()) return std::unexpected("no header line");
  auto header = reader.Next();
  if (!header) return std::unexpected(std::move(header.error()));
  std::vector<Record> rows;
  while (!reader.done()) {
    auto row = reader.Next();
    if (!row) return std::unexpected(std::move(row.error()));
    if (row->size() == 1 && row->front().empty() && header->size() > 1) continue;  // A blank line.
    if (row->size() != header->size()) {
      return std::unexpected(
          fmt::format("line {}: {} cells, where the header has {}", reader.line(), row->size(), header->size()));
    }
    rows.push_back(*std::move(row));
  }
  std::vector<Field> fields;
  for (size_t column = 0; column < header->size(); ++column)
    fields.push_back(InferColumn((*header)[column], rows, column));
  return fields;
}

}  // namespace dpa::testdata
