// Frame is a table of typed columns, and WriteFrameJson prints it as Grafana's data frame JSON:
//
//   {"schema":{"name":…,"refId":…,"meta":…,"fields":[{"name","type","typeInfo","labels","config"}…]},
//    "data":{"values":[[…],[…]],"entities":[…],"nanos":[…]}}
//
// The text follows what Grafana's own SDK prints, digit for digit: key order, no white space, floats in Go's shortest
// form, NaN and infinities as null plus an entry in `entities`, times as milliseconds (rounded down) plus the rest in
// `nanos`.

#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

namespace dpa::testdata {

struct TimeNs {
  int64_t ns = 0;  // Since 1970, also negative.
};
struct EnumIndex {
  uint16_t index = 0;  // Into config.type.enum.text.
};
struct RawJson {
  std::string text;  // One JSON value; empty prints null.
};

// An empty cell is printed as null; only nullable fields may have them.
template <class T>
using Cells = std::vector<std::optional<T>>;

using Column = std::variant<Cells<int8_t>, Cells<int16_t>, Cells<int32_t>, Cells<int64_t>, Cells<uint8_t>,
                            Cells<uint16_t>, Cells<uint32_t>, Cells<uint64_t>, Cells<float>, Cells<double>,
                            Cells<std::string>, Cells<bool>, Cells<TimeNs>, Cells<RawJson>, Cells<EnumIndex>>;

struct Field {
  std::string name;
  Column column;
  bool nullable = false;
  std::optional<std::map<std::string, std::string>> labels;  // std::map: printed in byte order.
  std::string config_json;                                   // A JSON object; empty means none.
};

struct Frame {
  std::string name;
  std::string ref_id;
  std::string meta_json;  // A JSON object; empty means none.
  std::vector<Field> fields;

  // Of the first column. REQUIRES: all columns are of that length.
  size_t RowCount() const;
};

// The whole frame.
std::string WriteFrameJson(const Frame& frame);
// Rows [begin, end) of it: with the schema for the first piece, {"data":…} alone for those that follow. Row numbers in
// `entities` and the rows of `nanos` count from `begin`.
std::string WriteFrameChunkJson(const Frame& frame, size_t begin, size_t end, bool with_schema);

// Go's shortest form: plain decimal for 1e-6 <= |x| < 1e21, otherwise d.ddde±dd. REQUIRES: x is finite.
void AppendFloat(std::string* out, double x);
void AppendFloat(std::string* out, float x);

// `text` as a JSON string with its quotes. kHtml also escapes < > & and U+2028/U+2029, and replaces invalid UTF-8; kRaw
// leaves all bytes from 0x20 on but quote and backslash. (Cells are printed kHtml, names and labels kRaw.)
enum class Escape : uint8_t { kRaw, kHtml };
void AppendJsonString(std::string* out, std::string_view text, Escape escape);

}  // namespace dpa::testdata
