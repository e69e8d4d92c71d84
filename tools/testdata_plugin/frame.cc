#include "tools/testdata_plugin/frame.h"

#include <charconv>
#include <cmath>
#include <concepts>
#include <type_traits>

#include "core/assert.h"

namespace dpa::testdata {
namespace {

constexpr int64_t kNsPerMs = 1'000'000;

template <class T>
struct TypeNames;
#define DPA_FRAME_TYPE(cpp, json, frame_name)              \
  template <>                                              \
  struct TypeNames<cpp> {                                  \
    static constexpr std::string_view kJson = json;        \
    static constexpr std::string_view kFrame = frame_name; \
  };
DPA_FRAME_TYPE(int8_t, "number", "int8")
DPA_FRAME_TYPE(int16_t, "number", "int16")
DPA_FRAME_TYPE(int32_t, "number", "int32")
DPA_FRAME_TYPE(int64_t, "number", "int64")
DPA_FRAME_TYPE(uint8_t, "number", "uint8")
DPA_FRAME_TYPE(uint16_t, "number", "uint16")
DPA_FRAME_TYPE(uint32_t, "number", "uint32")
DPA_FRAME_TYPE(uint64_t, "number", "uint64")
DPA_FRAME_TYPE(float, "number", "float32")
DPA_FRAME_TYPE(double, "number", "float64")
DPA_FRAME_TYPE(std::string, "string", "string")
DPA_FRAME_TYPE(bool, "boolean", "bool")
DPA_FRAME_TYPE(TimeNs, "time", "time.Time")
DPA_FRAME_TYPE(RawJson, "other", "json.RawMessage")
DPA_FRAME_TYPE(EnumIndex, "enum", "enum")
#undef DPA_FRAME_TYPE

template <class C>
using CellOf = typename std::remove_cvref_t<C>::value_type::value_type;

// Floor, so that the rest is 0..999999 also before 1970.
int64_t FloorMs(int64_t ns) { return ns / kNsPerMs - (ns % kNsPerMs < 0 ? 1 : 0); }
int64_t RestNs(int64_t ns) { return ns - FloorMs(ns) * kNsPerMs; }

void AppendInt(std::string* out, std::integral auto value) {
  char digits[24];
  const auto end = std::to_chars(digits, digits + sizeof(digits), value).ptr;
  out->append(digits, end);
}

// `digits` is d or d.ddd, the value is ±digits × 10^exponent.
void AppendPlainDecimal(std::string* out, std::string_view digits, int exponent) {
  std::string all(1, digits[0]);
  if (digits.size() > 2) all += digits.substr(2);
  if (exponent < 0) {
    out->append("0.").append(static_cast<size_t>(-exponent - 1), '0').append(all);
    return;
  }
  const size_t whole = static_cast<size_t>(exponent) + 1;
  if (all.size() <= whole) {
    out->append(all).append(whole - all.size(), '0');
  } else {
    out->append(all, 0, whole).append(".").append(all, whole);
  }
}

// Through the scientific form: std::to_chars' own fixed form prints the exact value of large numbers, Go pads with
// zeros.
template <std::floating_point F>
void AppendFloatOf(std::string* out, F x) {
  if (std::signbit(x)) out->push_back('-');
  const F abs = std::fabs(x);
  char text[40];
  const auto end = std::to_chars(text, text + sizeof(text), abs, std::chars_format::scientific).ptr;
  const std::string_view scientific(text, static_cast<size_t>(end - text));
  if (abs != 0 && (abs < static_cast<F>(1e-6) || abs >= static_cast<F>(1e21))) {
    out->append(scientific);
    return;
  }
  const size_t e = scientific.find('e');
  int exponent = 0;
  const char* first = text + e + 1 + (text[e + 1] == '+' ? 1 : 0);
  std::from_chars(first, end, exponent);
  AppendPlainDecimal(out, scientific.substr(0, e), exponent);
}

void AppendUnicodeEscape(std::string* out, unsigned code) {
  constexpr std::string_view kHex = "0123456789abcdef";
  out->append("\\u");
  for (int shift = 12; shift >= 0; shift -= 4) out->push_back(kHex[(code >> shift) & 0xf]);
}

bool AppendAsciiEscape(std::string* out, unsigned char c, Escape escape) {
  switch (c) {
    case '"':
      out->append("\\\"");
      return true;
    case '\\':
      out->append("\\\\");
      return true;
    case '\n':
      out->append("\\n");
      return true;
    case '\r':
      out->append("\\r");
      return true;
    case '\t':
      out->append("\\t");
      return true;
    default:
      break;
  }
  if (c >= 0x20 && !(escape == Escape::kHtml && (c == '<' || c == '>' || c == '&'))) return false;
  AppendUnicodeEscape(out, c);
  return true;
}

// Count of bytes of the UTF-8 sequence that `text` starts with; 0 if it is not one (RFC 3629 §4).
size_t Utf8Length(std::string_view text) {
  const auto byte = [&](size_t i) { return i < text.size() ? static_cast<unsigned char>(text[i]) : 0u; };
  const auto follows = [&](size_t i) { return (byte(i) & 0xc0u) == 0x80u; };
  const unsigned c = byte(0);
  if (c < 0x80) return 1;
  if (c >= 0xc2 && c <= 0xdf) return follows(1) ? 2 : 0;
  if (c >= 0xe0 && c <= 0xef) {
    const bool overlong = c == 0xe0 && byte(1) < 0xa0;
    const bool surrogate = c == 0xed && byte(1) >= 0xa0;
    return follows(1) && follows(2) && !overlong && !surrogate ? 3 : 0;
  }
  if (c >= 0xf0 && c <= 0xf4) {
    const bool overlong = c == 0xf0 && byte(1) < 0x90;
    const bool too_big = c == 0xf4 && byte(1) >= 0x90;
    return follows(1) && follows(2) && follows(3) && !overlong && !too_big ? 4 : 0;
  }
  return 0;
}

// ---- Cells.

template <std::integral T>
void AppendCell(std::string* out, T value) {
  AppendInt(out, value);
}
void AppendCell(std::string* out, bool value) { out->append(value ? "true" : "false"); }
void AppendCell(std::string* out, float value) {
  std::isfinite(value) ? AppendFloat(out, value) : void(out->append("null"));
}
void AppendCell(std::string* out, double value) {
  std::isfinite(value) ? AppendFloat(out, value) : void(out->append("null"));
}
void AppendCell(std::string* out, const std::string& value) { AppendJsonString(out, value, Escape::kHtml); }
void AppendCell(std::string* out, TimeNs value) { AppendInt(out, FloorMs(value.ns)); }
void AppendCell(std::string* out, const RawJson& value) { out->append(value.text.empty() ? "null" : value.text); }
void AppendCell(std::string* out, EnumIndex value) { AppendInt(out, value.index); }

template <class T>
void AppendCells(std::string* out, const Cells<T>& cells, size_t begin, size_t end) {
  out->push_back('[');
  for (size_t row = begin; row < end; ++row) {
    if (row > begin) out->push_back(',');
    if (cells[row]) {
      AppendCell(out, *cells[row]);
    } else {
      out->append("null");
    }
  }
  out->push_back(']');
}

// ---- Entities: which rows hold what JSON cannot say.

struct Entities {
  std::vector<size_t> nan, inf, neg_inf;
  bool empty() const { return nan.empty() && inf.empty() && neg_inf.empty(); }
};

template <class T>
Entities FindEntities(const Cells<T>& cells, size_t begin, size_t end) {
  Entities found;
  if constexpr (std::is_floating_point_v<T>) {
    for (size_t row = begin; row < end; ++row) {
      if (!cells[row] || std::isfinite(*cells[row])) continue;
      const T x = *cells[row];
      (std::isnan(x) ? found.nan : x > 0 ? found.inf : found.neg_inf).push_back(row - begin);
    }
  }
  return found;
}

void AppendRows(std::string* out, std::string_view name, const std::vector<size_t>& rows) {
  if (rows.empty()) return;
  if (out->back() != '{') out->push_back(',');
  out->append("\"").append(name).append("\":[");
  for (size_t i = 0; i < rows.size(); ++i) {
    if (i > 0) out->push_back(',');
    AppendInt(out, rows[i]);
  }
  out->push_back(']');
}

void AppendEntities(std::string* out, const Frame& frame, size_t begin, size_t end) {
  std::string text = ",\"entities\":[";
  bool any = false;
  for (const Field& field : frame.fields) {
    if (text.back() != '[') text.push_back(',');
    const Entities found = std::visit([&](const auto& cells) { return FindEntities(cells, begin, end); }, field.column);
    if (found.empty()) {
      text.append("null");
      continue;
    }
    any = true;
    text.push_back('{');
    AppendRows(&text, "NaN", found.nan);
    AppendRows(&text, "Inf", found.inf);
    AppendRows(&text, "NegInf", found.neg_inf);
    text.push_back('}');
  }
  if (any) out->append(text).append("]");
}

// ---- Nanos: what is left of a time below a millisecond.

// Empty if all are whole milliseconds.
std::string NanosOf(const Column& column, size_t begin, size_t end) {
  const auto* times = std::get_if<Cells<TimeNs>>(&column);
  if (times == nullptr) return {};
  std::string text = "[";
  bool any = false;
  for (size_t row = begin; row < end; ++row) {
    const int64_t rest = (*times)[row] ? RestNs((*times)[row]->ns) : 0;
    any = any || rest != 0;
    if (row > begin) text.push_back(',');
    AppendInt(&text, rest);
  }
  return any ? text + "]" : std::string();
}

void AppendNanos(std::string* out, const Frame& frame, size_t begin, size_t end) {
  std::string text = ",\"nanos\":[";
  bool any = false;
  for (const Field& field : frame.fields) {
    if (text.back() != '[') text.push_back(',');
    const std::string nanos = NanosOf(field.column, begin, end);
    any = any || !nanos.empty();
    text.append(nanos.empty() ? "null" : nanos);
  }
  if (any) out->append(text).append("]");
}

// ---- Schema and data.

void AppendLabels(std::string* out, const std::map<std::string, std::string>& labels) {
  out->append(",\"labels\":{");
  for (const auto& [key, value] : labels) {
    if (out->back() != '{') out->push_back(',');
    AppendJsonString(out, key, Escape::kRaw);
    out->push_back(':');
    AppendJsonString(out, value, Escape::kRaw);
  }
  out->push_back('}');
}

void AppendFieldSchema(std::string* out, const Field& field) {
  out->push_back('{');
  if (!field.name.empty()) {
    out->append("\"name\":");
    AppendJsonString(out, field.name, Escape::kRaw);
    out->push_back(',');
  }
  std::visit(
      [&](const auto& cells) {
        using Names = TypeNames<CellOf<decltype(cells)>>;
        out->append("\"type\":\"").append(Names::kJson).append("\",\"typeInfo\":{\"frame\":\"").append(Names::kFrame);
      },
      field.column);
  out->append(field.nullable ? "\",\"nullable\":true}" : "\"}");
  if (field.labels) AppendLabels(out, *field.labels);
  if (!field.config_json.empty()) out->append(",\"config\":").append(field.config_json);
  out->push_back('}');
}

void AppendSchema(std::string* out, const Frame& frame) {
  out->append("\"schema\":{");
  if (!frame.name.empty()) {
    out->append("\"name\":");
    AppendJsonString(out, frame.name, Escape::kRaw);
    out->push_back(',');
  }
  if (!frame.ref_id.empty()) {
    out->append("\"refId\":");
    AppendJsonString(out, frame.ref_id, Escape::kRaw);
    out->push_back(',');
  }
  if (!frame.meta_json.empty()) out->append("\"meta\":").append(frame.meta_json).append(",");
  out->append("\"fields\":[");
  for (const Field& field : frame.fields) {
    if (&field != frame.fields.data()) out->push_back(',');
    AppendFieldSchema(out, field);
  }
  out->append("]},");
}

void AppendData(std::string* out, const Frame& frame, size_t begin, size_t end) {
  out->append("\"data\":{\"values\":[");
  for (const Field& field : frame.fields) {
    if (&field != frame.fields.data()) out->push_back(',');
    std::visit([&](const auto& cells) { AppendCells(out, cells, begin, end); }, field.column);
  }
  out->push_back(']');
  AppendEntities(out, frame, begin, end);
  AppendNanos(out, frame, begin, end);
  out->push_back('}');
}

size_t LengthOf(const Column& column) {
  return std::visit([](const auto& cells) { return cells.size(); }, column);
}

}  // namespace

size_t Frame::RowCount() const { return fields.empty() ? 0 : LengthOf(fields.front().column); }

std::string WriteFrameJson(const Frame& frame) { return WriteFrameChunkJson(frame, 0, frame.RowCount(), true); }

std::string WriteFrameChunkJson(const Frame& frame, size_t begin, size_t end, bool with_schema) {
  for (const Field& field : frame.fields) DPA_ASSERT(LengthOf(field.column) == frame.RowCount());
  DPA_ASSERT(begin <= end && end <= frame.RowCount());
  std::string out = "{";
  out.reserve(256 + (end - begin) * frame.fields.size() * 20);
  if (with_schema) AppendSchema(&out, frame);
  AppendData(&out, frame, begin, end);
  out.push_back('}');
  return out;
}

void AppendFloat(std::string* out, double x) { AppendFloatOf(out, x); }
void AppendFloat(std::string* out, float x) { AppendFloatOf(out, x); }

void AppendJsonString(std::string* out, std::string_view text, Escape escape) {
  out->push_back('"');
  while (!text.empty()) {
    const auto c = static_cast<unsigned char>(text.front());
    size_t length = 1;
    if (c < 0x80 || escape == Escape::kRaw) {
      if (!AppendAsciiEscape(out, c, escape)) out->push_back(text.front());
    } else if (length = Utf8Length(text); length == 0) {
      out->append("\\ufffd");
      length = 1;
    } else if (text.starts_with("\xe2\x80\xa8") || text.starts_with("\xe2\x80\xa9")) {
      AppendUnicodeEscape(out, text[2] == '\xa8' ? 0x2028 : 0x2029);
    } else {
      out->append(text, 0, length);
    }
    text.remove_prefix(length);
  }
  out->push_back('"');
}

}  // namespace dpa::testdata
