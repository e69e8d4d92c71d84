// The body is walked once with simdjson's on-demand parser; what the protocol wants is noted in ParsedQuery, the rest
// only checked. Then sizes are summed and the message is written in one go:
//
//     body    {"queries":[ {"refId":"A", "timeRange":{…}, "expr":"up"}, … ], "from":"now-1h", "to":"now"}
//                          └──────────┘ └─── a Cut ──┘ └───────────┘
//                          └──────── DataQuery.json: two runs of the body's own bytes ────────┘
//
// The on-demand parser does not look at what it skips, so every value is visited: scalars by their own grammar,
// containers by iteration.

#include "grpc_bridge/query_translation.h"

#include <fmt/format.h>
#include <simdjson.h>

#include <algorithm>
#include <array>
#include <bit>
#include <charconv>
#include <cmath>
#include <optional>
#include <vector>

#include "core/assert.h"
#include "grpc_bridge/protobuf_wire.h"
#include "grpc_bridge/text.h"
#include "grpc_bridge/time_range.h"

namespace dpa {
namespace {

namespace ondemand = simdjson::ondemand;

static_assert(kQueryBodyPadding >= simdjson::SIMDJSON_PADDING);

constexpr int64_t kMaxDataPointsDefault = 100;
constexpr int64_t kIntervalDefaultMs = 1000;
constexpr double kIntervalMaxMs = 9.2e12;  // What Go's time.Duration can hold.
constexpr int64_t kFrameFormatJson = 1;
constexpr std::string_view kHeaderPrefix = "http_";
constexpr std::string_view kWhiteSpace = " \t\n\r";

// Half-open range of the body's bytes to leave out of DataQuery.json.
struct Cut {
  const char* begin = nullptr;
  const char* end = nullptr;
};

struct ParsedQuery {
  std::string_view object;  // From its '{' to its '}'.
  std::string_view ref_id;
  std::string_view query_type;
  std::string_view datasource_type;
  std::string_view datasource_uid;
  bool has_datasource = false;
  std::string_view from;
  std::string_view to;
  int64_t max_data_points = 0;
  double interval_ms = 0;
  TimeRangeMs range;
  uint32_t cuts_begin = 0;
  uint32_t cuts_end = 0;
  size_t json_size = 0;
};

std::string_view Trimmed(std::string_view token) { return token.substr(0, token.find_last_not_of(kWhiteSpace) + 1); }

bool IsDigit(char c) { return c >= '0' && c <= '9'; }
bool IsHexDigit(char c) { return IsDigit(c) || (c >= 'a' && c <= 'f') || (c >= 'A' && c <= 'F'); }

// RFC 8259 §6.
bool IsJsonNumber(std::string_view text) {
  size_t i = text.starts_with('-') ? 1 : 0;
  auto digits = [&] {
    size_t begin = i;
    while (i < text.size() && IsDigit(text[i])) ++i;
    return i > begin;
  };
  bool leading_zero = i < text.size() && text[i] == '0';
  if (leading_zero ? (++i, false) : !digits()) return false;
  if (i < text.size() && text[i] == '.' && (++i, !digits())) return false;
  if (i < text.size() && (text[i] == 'e' || text[i] == 'E')) {
    ++i;
    if (i < text.size() && (text[i] == '+' || text[i] == '-')) ++i;
    if (!digits()) return false;
  }
  return i == text.size();
}

// Escapes of a string's inside; that it ends and holds no control bytes the parser has seen already. A lone surrogate
// is let through: Go reads it as U+FFFD.
bool HasGoodEscapes(std::string_view inside) {
  for (size_t i = inside.find('\\'); i != std::string_view::npos; i = inside.find('\\', i)) {
    if (i + 1 >= inside.size()) return false;
    char kind = inside[i + 1];
    if (kind == 'u') {
      if (i + 6 > inside.size() || !std::ranges::all_of(inside.substr(i + 2, 4), IsHexDigit)) return false;
      i += 6;
    } else if (std::string_view("\"\\/bfnrt").find(kind) != std::string_view::npos) {
      i += 2;
    } else {
      return false;
    }
  }
  return true;
}

// A key without its quotes, from the first byte after the opening one.
std::string_view KeyInside(const char* begin) {
  const char* end = begin;
  while (*end != '"') end += *end == '\\' ? 2 : 1;
  return {begin, static_cast<size_t>(end - begin)};
}

bool EqualsIgnoringCase(std::string_view a, std::string_view b) {
  auto lower = [](char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c + ('a' - 'A')) : c; };
  return a.size() == b.size() &&
         std::equal(a.begin(), a.end(), b.begin(), [&](char x, char y) { return lower(x) == lower(y); });
}

// Where the first JSON value ends if it is an object, npos if it does not end. Only for bodies that are no JSON as a
// whole.
size_t FirstObjectEnd(std::string_view body) {
  size_t depth = 0;
  bool in_string = false;
  for (size_t i = body.find_first_not_of(kWhiteSpace); i < body.size(); ++i) {
    char c = body[i];
    if (in_string) {
      if (c == '\\') ++i;
      in_string = c != '"';
    } else if (c == '"') {
      in_string = true;
    } else if (c == '{' || c == '[') {
      ++depth;
    } else if ((c == '}' || c == ']') && depth > 0 && --depth == 0) {
      return i + 1;
    } else if (depth == 0) {
      return std::string_view::npos;
    }
  }
  return std::string_view::npos;
}

// Adds the member that begins at `key` and after which `next` follows (the next key, or the closing brace). The last
// member takes the comma before it along; the others the one behind them.
void AddCut(const char* object_begin, const char* key, const char* next, uint32_t cuts_begin, std::vector<Cut>& cuts) {
  if (cuts.size() > cuts_begin && cuts.back().end == key) {
    key = cuts.back().begin;
    cuts.pop_back();
  }
  if (*next == '}') {
    while (key - 1 > object_begin && kWhiteSpace.find(key[-1]) != std::string_view::npos) --key;
    if (key[-1] == ',') --key;
  }
  cuts.push_back({key, next});
}

}  // namespace

std::string_view ForwardedHeaderName(std::string_view name) {
  static constexpr std::array kNames = {
      std::string_view("X-Dashboard-Uid"),     std::string_view("X-Panel-Id"),
      std::string_view("X-Query-Group-Id"),    std::string_view("X-Datasource-Uid"),
      std::string_view("X-Grafana-From-Expr"), std::string_view("X-Grafana-Org-Id"),
      std::string_view("X-Panel-Plugin-Id"),   std::string_view("X-Dashboard-Title"),
      std::string_view("X-Panel-Title"),       std::string_view("X-Rule-Name"),
      std::string_view("X-Rule-Uid"),          std::string_view("X-Rule-Folder"),
      std::string_view("X-Rule-Source"),       std::string_view("X-Rule-Type"),
      std::string_view("X-Rule-Version"),      std::string_view("X-Rule-Origin"),
      std::string_view("FromAlert"),
  };
  auto found = std::ranges::find_if(kNames, [&](std::string_view known) { return EqualsIgnoringCase(known, name); });
  return found == kNames.end() ? std::string_view{} : *found;
}

struct QueryTranslator::Impl {
  explicit Impl(const QueryLimits& l) : limits(l) {}

  // The story.
  bool Translate(std::string_view body, const QueryTarget& target, int64_t now_ms, std::string& out);
  bool Read(std::string_view body);
  bool ReadOrFirstValue(std::string_view body);
  bool Check(const QueryTarget& target, int64_t now_ms);
  void Write(const QueryTarget& target, std::string& out);
  void GiveBack();

  // Reading.
  bool ReadTop(ondemand::document& document);
  bool ReadTopMember(std::string_view key, ondemand::value value);
  bool ReadQueries(ondemand::value value);
  bool ReadQuery(ondemand::value value, ondemand::document& document);
  bool ReadQueryMember(std::string_view key, ondemand::value value, ParsedQuery& query);
  bool ReadDatasource(ondemand::value value, ParsedQuery& query);
  bool ReadTimeRange(ondemand::value value, ParsedQuery& query);
  bool ReadMaxDataPoints(ondemand::value value, ParsedQuery& query);
  bool ReadInterval(ondemand::value value, ParsedQuery& query);
  bool ReadString(ondemand::value value, std::string_view key, std::string_view& text);
  bool ReadBool(ondemand::value value, std::string_view key);
  bool SkipTyped(ondemand::value value, ondemand::json_type type, std::string_view key, std::string_view wanted);
  template <class Visit>
  bool EachMember(ondemand::object object, Visit visit);
  bool Skip(ondemand::value value);
  bool SkipScalar(ondemand::value value, ondemand::json_type type);
  bool TypeOf(ondemand::value value, ondemand::json_type& type);

  // Checking.
  bool CheckSameDatasource(const ParsedQuery& query);
  bool ResolveTimes(ParsedQuery& query, int64_t now_ms);
  bool ResolveTime(std::string_view text, RangeEnd end, std::string_view key, int64_t now_ms, int64_t& ms);
  bool CheckTarget(const QueryTarget& target);
  bool CheckRefIds();

  // Writing.
  void WriteHeaders(std::span<const QueryHeader> headers, std::string& out);
  void WriteQuery(const ParsedQuery& query, std::string& out);
  std::string_view SafeHeaderValue(std::string_view value);

  bool Fail(Reason reason, std::string message) {
    error = {400, reason, std::move(message)};
    return false;
  }
  bool FailType(std::string_view key, std::string_view wanted) {
    return Fail(Reason::kBadQuery, fmt::format("{} must be {}", Where(key), wanted));
  }
  bool FailJson(simdjson::error_code code) {
    return Fail(Reason::kBadJson, fmt::format("the body is not valid JSON: {}", simdjson::error_message(code)));
  }
  bool FailJson(std::string_view what, std::string_view token) {
    return Fail(Reason::kBadJson, fmt::format("the body is not valid JSON: {} at byte {}", what, token.data() - base));
  }
  // "from", or "queries[3].refId" while a query is read or checked.
  std::string Where(std::string_view key) const {
    if (!in_query) return std::string(key);
    return key.empty() ? fmt::format("queries[{}]", query_index) : fmt::format("queries[{}].{}", query_index, key);
  }

  QueryLimits limits;
  ondemand::parser parser;
  std::vector<ParsedQuery> queries;
  std::vector<Cut> cuts;
  std::vector<std::string_view> ref_ids;
  std::string first_value;   // The first JSON value of a body that has more, padded.
  std::string header_value;  // A header value in its safe form.
  std::string_view from;
  std::string_view to;
  const char* base = nullptr;
  ondemand::document* document = nullptr;
  size_t depth = 0;
  size_t query_index = 0;
  bool in_query = false;
  QueryError error;
};

bool QueryTranslator::Impl::Translate(std::string_view body, const QueryTarget& target, int64_t now_ms,
                                      std::string& out) {
  if (!ReadOrFirstValue(body) || !Check(target, now_ms)) return false;
  Write(target, out);
  return true;
}

// ---- Reading.

bool QueryTranslator::Impl::ReadOrFirstValue(std::string_view body) {
  if (body.find_first_not_of(kWhiteSpace) == std::string_view::npos) return Fail(Reason::kBadJson, "the body is empty");
  if (Read(body)) return true;
  if (error.reason != Reason::kBadJson) return false;
  size_t end = FirstObjectEnd(body);
  if (end == std::string_view::npos || body.find_first_not_of(kWhiteSpace, end) == std::string_view::npos) return false;
  first_value.assign(body, 0, end);
  first_value.append(kQueryBodyPadding, ' ');
  return Read(std::string_view(first_value).substr(0, end));
}

bool QueryTranslator::Impl::Read(std::string_view body) {
  queries.clear();
  cuts.clear();
  from = to = {};
  depth = 0;
  in_query = false;
  base = body.data();
  if (parser.capacity() < body.size()) {
    if (auto code = parser.allocate(std::bit_ceil(body.size()))) return FailJson(code);
  }
  ondemand::document read;
  auto code = parser.iterate(body.data(), body.size(), body.size() + kQueryBodyPadding).get(read);
  if (code) return FailJson(code);
  document = &read;
  bool ok = ReadTop(read);
  document = nullptr;
  return ok;
}

bool QueryTranslator::Impl::ReadTop(ondemand::document& read) {
  ondemand::json_type type;
  if (auto code = read.type().get(type)) return FailJson(code);
  if (type != ondemand::json_type::object) return Fail(Reason::kBadQuery, "the body must be a JSON object");
  ondemand::object top;
  if (auto code = read.get_object().get(top)) return FailJson(code);
  depth = 1;
  return EachMember(
      top, [&](std::string_view key, const char*, ondemand::value value) { return ReadTopMember(key, value); });
}

bool QueryTranslator::Impl::ReadTopMember(std::string_view key, ondemand::value value) {
  if (EqualsIgnoringCase(key, "from")) return ReadString(value, "from", from);
  if (EqualsIgnoringCase(key, "to")) return ReadString(value, "to", to);
  if (EqualsIgnoringCase(key, "queries")) return ReadQueries(value);
  if (EqualsIgnoringCase(key, "debug")) return ReadBool(value, "debug");
  return Skip(value);
}

bool QueryTranslator::Impl::ReadQueries(ondemand::value value) {
  queries.clear();
  cuts.clear();
  ondemand::json_type type;
  if (!TypeOf(value, type)) return false;
  if (type == ondemand::json_type::null) return Skip(value);
  ondemand::array array;
  if (type != ondemand::json_type::array) return FailType("queries", "an array");
  if (auto code = value.get_array().get(array)) return FailJson(code);
  ++depth;
  for (auto element : array) {
    ondemand::value query;
    if (auto code = std::move(element).get(query)) return FailJson(code);
    if (queries.size() == limits.queries_max) {
      return Fail(Reason::kTooManyQueries, fmt::format("more than {} queries in one request", limits.queries_max));
    }
    in_query = true;
    query_index = queries.size();
    if (!ReadQuery(query, *document)) return false;
    in_query = false;
  }
  --depth;
  return true;
}

bool QueryTranslator::Impl::ReadQuery(ondemand::value value, ondemand::document& read) {
  ondemand::json_type type;
  if (!TypeOf(value, type)) return false;
  if (type != ondemand::json_type::object) return FailType("", "an object");
  ParsedQuery query{.cuts_begin = static_cast<uint32_t>(cuts.size())};
  const char* begin = value.raw_json_token().data();
  ondemand::object object;
  if (auto code = value.get_object().get(object)) return FailJson(code);
  ++depth;
  const char* open_cut = nullptr;  // The key of a timeRange whose end is not known yet.
  bool ok = EachMember(object, [&](std::string_view key, const char* at, ondemand::value member) {
    if (open_cut != nullptr) AddCut(begin, open_cut, at, query.cuts_begin, cuts);
    open_cut = key == "timeRange" ? at : nullptr;
    return ReadQueryMember(key, member, query);
  });
  if (!ok) return false;
  --depth;
  const char* next = nullptr;  // The token behind the object: there is one, for we are inside the body's own object.
  if (auto code = read.current_location().get(next)) return FailJson(code);
  query.object = Trimmed({begin, static_cast<size_t>(next - begin)});
  if (open_cut != nullptr) AddCut(begin, open_cut, &query.object.back(), query.cuts_begin, cuts);
  query.cuts_end = static_cast<uint32_t>(cuts.size());
  query.json_size = query.object.size();
  for (size_t i = query.cuts_begin; i < query.cuts_end; ++i) query.json_size -= cuts[i].end - cuts[i].begin;
  queries.push_back(query);
  return true;
}

bool QueryTranslator::Impl::ReadQueryMember(std::string_view key, ondemand::value value, ParsedQuery& query) {
  if (key == "refId") return ReadString(value, key, query.ref_id);
  if (key == "datasource") return ReadDatasource(value, query);
  if (key == "timeRange") return ReadTimeRange(value, query);
  if (key == "maxDataPoints") return ReadMaxDataPoints(value, query);
  if (key == "intervalMs") return ReadInterval(value, query);
  if (key == "queryType") return ReadString(value, key, query.query_type);
  if (key == "hide") return ReadBool(value, key);
  if (key == "datasourceId") return SkipTyped(value, ondemand::json_type::number, key, "a number");
  if (key == "resultAssertions") return SkipTyped(value, ondemand::json_type::object, key, "an object");
  return Skip(value);
}

bool QueryTranslator::Impl::ReadDatasource(ondemand::value value, ParsedQuery& query) {
  query.datasource_type = query.datasource_uid = {};
  query.has_datasource = true;
  ondemand::json_type type;
  if (!TypeOf(value, type)) return false;
  if (type == ondemand::json_type::null) {
    query.has_datasource = false;
    return Skip(value);
  }
  if (type == ondemand::json_type::string) return ReadString(value, "datasource", query.datasource_uid);
  ondemand::object object;
  if (type != ondemand::json_type::object) return FailType("datasource", "an object with type and uid");
  if (auto code = value.get_object().get(object)) return FailJson(code);
  ++depth;
  bool ok = EachMember(object, [&](std::string_view key, const char*, ondemand::value member) {
    std::string_view api_version;
    if (key == "type") return ReadString(member, "datasource.type", query.datasource_type);
    if (key == "uid") return ReadString(member, "datasource.uid", query.datasource_uid);
    if (key == "apiVersion") return ReadString(member, "datasource.apiVersion", api_version);
    return Skip(member);
  });
  --depth;
  return ok;
}

bool QueryTranslator::Impl::ReadTimeRange(ondemand::value value, ParsedQuery& query) {
  query.from = query.to = {};
  ondemand::json_type type;
  if (!TypeOf(value, type)) return false;
  if (type == ondemand::json_type::null) return Skip(value);
  ondemand::object object;
  if (type != ondemand::json_type::object) return FailType("timeRange", "an object with from and to");
  if (auto code = value.get_object().get(object)) return FailJson(code);
  ++depth;
  bool ok = EachMember(object, [&](std::string_view key, const char*, ondemand::value member) {
    if (key == "from") return ReadString(member, "timeRange.from", query.from);
    if (key == "to") return ReadString(member, "timeRange.to", query.to);
    return Skip(member);
  });
  --depth;
  return ok;
}

// A number or a string with one; a number with a fraction or exponent counts if its value is whole.
bool QueryTranslator::Impl::ReadMaxDataPoints(ondemand::value value, ParsedQuery& query) {
  constexpr std::string_view kKey = "maxDataPoints";
  constexpr std::string_view kWanted = "a whole number, or a string that holds one";
  query.max_data_points = 0;
  ondemand::json_type type;
  if (!TypeOf(value, type)) return false;
  if (type == ondemand::json_type::null) return Skip(value);
  std::string_view text;
  if (type == ondemand::json_type::string) {
    if (!ReadString(value, kKey, text)) return false;
  } else if (type == ondemand::json_type::number) {
    text = Trimmed(value.raw_json_token());
    if (!SkipScalar(value, type)) return false;
  } else {
    return FailType(kKey, kWanted);
  }
  const char* end = text.data() + text.size();
  auto [stop, code] = std::from_chars(text.data(), end, query.max_data_points);
  if (code == std::errc{} && stop == end) return true;
  double number = 0;
  auto [float_stop, float_code] = std::from_chars(text.data(), end, number);
  bool whole =
      float_code == std::errc{} && float_stop == end && std::trunc(number) == number && std::abs(number) < 9e18;
  if (!whole || type == ondemand::json_type::string) return FailType(kKey, kWanted);
  query.max_data_points = static_cast<int64_t>(number);
  return true;
}

bool QueryTranslator::Impl::ReadInterval(ondemand::value value, ParsedQuery& query) {
  query.interval_ms = 0;
  ondemand::json_type type;
  if (!TypeOf(value, type)) return false;
  if (type == ondemand::json_type::null) return Skip(value);
  if (type != ondemand::json_type::number) return FailType("intervalMs", "a number");
  std::string_view text = Trimmed(value.raw_json_token());
  if (!SkipScalar(value, type)) return false;
  auto [stop, code] = std::from_chars(text.data(), text.data() + text.size(), query.interval_ms);
  bool ok = code == std::errc{} && query.interval_ms <= kIntervalMaxMs;
  return ok || FailType("intervalMs", "a number of milliseconds below 9.2e12");
}

bool QueryTranslator::Impl::ReadString(ondemand::value value, std::string_view key, std::string_view& text) {
  text = {};
  ondemand::json_type type;
  if (!TypeOf(value, type)) return false;
  if (type == ondemand::json_type::null) return Skip(value);
  if (type != ondemand::json_type::string) return FailType(key, "a string");
  if (!value.get_string().get(text)) return true;
  return Fail(Reason::kBadJson, fmt::format("the body is not valid JSON: {} holds a bad escape", Where(key)));
}

bool QueryTranslator::Impl::ReadBool(ondemand::value value, std::string_view key) {
  return SkipTyped(value, ondemand::json_type::boolean, key, "true or false");
}

// Null counts as absent, as Go reads it.
bool QueryTranslator::Impl::SkipTyped(ondemand::value value, ondemand::json_type wanted_type, std::string_view key,
                                      std::string_view wanted) {
  ondemand::json_type type;
  if (!TypeOf(value, type)) return false;
  if (type != wanted_type && type != ondemand::json_type::null) return FailType(key, wanted);
  return Skip(value);
}

bool QueryTranslator::Impl::TypeOf(ondemand::value value, ondemand::json_type& type) {
  if (value.type().get(type)) return FailJson("a value is missing or unknown", value.raw_json_token());
  if (type == ondemand::json_type::object || type == ondemand::json_type::array) {
    if (depth + 1 > limits.depth_max) {
      return Fail(Reason::kTooDeep, fmt::format("the body is nested deeper than {} levels", limits.depth_max));
    }
  }
  return true;
}

// Calls visit(key, where the key's quote stands, value) for each member until it returns false.
template <class Visit>
bool QueryTranslator::Impl::EachMember(ondemand::object object, Visit visit) {
  for (auto member : object) {
    ondemand::field field;
    if (auto code = std::move(member).get(field)) return FailJson(code);
    std::string_view inside = KeyInside(field.key().raw());
    std::string_view key = inside;
    if (inside.find('\\') != std::string_view::npos) {
      if (!HasGoodEscapes(inside)) return FailJson("a bad escape in a key", inside);
      // A lone surrogate cannot be unescaped; no key that we know has one.
      if (field.unescaped_key().get(key)) key = inside;
    }
    if (!visit(key, inside.data() - 1, field.value())) return false;
  }
  return true;
}

bool QueryTranslator::Impl::Skip(ondemand::value value) {
  ondemand::json_type type;
  if (!TypeOf(value, type)) return false;
  if (type == ondemand::json_type::object) {
    ondemand::object object;
    if (auto code = value.get_object().get(object)) return FailJson(code);
    ++depth;
    if (!EachMember(object, [&](std::string_view, const char*, ondemand::value member) { return Skip(member); }))
      return false;
    --depth;
    return true;
  }
  if (type != ondemand::json_type::array) return SkipScalar(value, type);
  ondemand::array array;
  if (auto code = value.get_array().get(array)) return FailJson(code);
  ++depth;
  for (auto element : array) {
    ondemand::value item;
    if (auto code = std::move(element).get(item)) return FailJson(code);
    if (!Skip(item)) return false;
  }
  --depth;
  return true;
}

bool QueryTranslator::Impl::SkipScalar(ondemand::value value, ondemand::json_type type) {
  std::string_view token = Trimmed(value.raw_json_token());
  switch (type) {
    case ondemand::json_type::string:
      if (token.size() >= 2 && token.back() == '"' && HasGoodEscapes(token.substr(1, token.size() - 2))) return true;
      return FailJson("a bad escape in a string", token);
    case ondemand::json_type::number:
      return IsJsonNumber(token) || FailJson("a malformed number", token);
    case ondemand::json_type::boolean:
      return token == "true" || token == "false" || FailJson("an unknown word", token);
    default:
      return token == "null" || FailJson("an unknown word", token);
  }
}

// ---- Checking.

bool QueryTranslator::Impl::Check(const QueryTarget& target, int64_t now_ms) {
  in_query = true;
  for (query_index = 0; query_index < queries.size(); ++query_index) {
    ParsedQuery& query = queries[query_index];
    if (!CheckSameDatasource(query) || !ResolveTimes(query, now_ms)) return false;
  }
  return CheckTarget(target) && CheckRefIds();
}

// Texts of this and of CheckTarget are those of Grafana's aggregator, which clients may look for.
bool QueryTranslator::Impl::CheckSameDatasource(const ParsedQuery& query) {
  const ParsedQuery& first = queries.front();
  if (!first.has_datasource || !query.has_datasource) return true;
  if (query.datasource_type != first.datasource_type) {
    return Fail(Reason::kDatasourceMismatch, "expect same datasource types");
  }
  return query.datasource_uid == first.datasource_uid ||
         Fail(Reason::kDatasourceMismatch, "expect same datasource UID");
}

// The query's own range, else the request's, else Go's zero time. A range counts when it has a `from`.
bool QueryTranslator::Impl::ResolveTimes(ParsedQuery& query, int64_t now_ms) {
  bool own = !query.from.empty() || !query.to.empty();
  std::string_view range_from = own ? query.from : from;
  std::string_view range_to = own ? query.to : to;
  if (!own && range_from.empty()) return true;
  return ResolveTime(range_from, RangeEnd::kFrom, own ? "timeRange.from" : "from", now_ms, query.range.from_ms) &&
         ResolveTime(range_to, RangeEnd::kTo, own ? "timeRange.to" : "to", now_ms, query.range.to_ms);
}

bool QueryTranslator::Impl::ResolveTime(std::string_view text, RangeEnd end, std::string_view key, int64_t now_ms,
                                        int64_t& ms) {
  if (auto parsed = ParseTime(text, end, now_ms)) {
    ms = *parsed;
    return true;
  }
  bool of_query = key.starts_with("timeRange");
  std::string where = of_query ? Where(key) : std::string(key);
  if (text.empty())
    return Fail(Reason::kBadTime, fmt::format("{} is missing, but the other end of the range is given", where));
  std::string shown;
  AppendJsonString(text.substr(0, 64), shown);
  return Fail(Reason::kBadTime, fmt::format("{} cannot be read as a time: {} (expected milliseconds since the epoch, a "
                                            "duration as 5m, date math as now-1h/h, or a date)",
                                            where, shown));
}

bool QueryTranslator::Impl::CheckTarget(const QueryTarget& target) {
  if (queries.empty() || !queries.front().has_datasource) {
    return Fail(Reason::kDatasourceMissing, "missing datasource reference");
  }
  if (queries.front().datasource_type != target.plugin_id) {
    return Fail(Reason::kDatasourceMismatch, "invalid datasource type");
  }
  return queries.front().datasource_uid == target.uid || Fail(Reason::kDatasourceMismatch, "invalid datasource UID");
}

bool QueryTranslator::Impl::CheckRefIds() {
  ref_ids.clear();
  for (const ParsedQuery& query : queries) ref_ids.push_back(query.ref_id);
  std::ranges::sort(ref_ids);
  auto twice = std::ranges::adjacent_find(ref_ids);
  if (twice == ref_ids.end()) return true;
  std::string shown;
  AppendJsonString(twice->substr(0, 64), shown);
  return Fail(Reason::kDuplicateRefId, fmt::format("two queries have the refId {}", shown));
}

// ---- Writing.

void QueryTranslator::Impl::Write(const QueryTarget& target, std::string& out) {
  AppendPluginContext(*target.context, target.namespace_name, target.user, out);
  WriteHeaders(target.headers, out);
  for (const ParsedQuery& query : queries) WriteQuery(query, out);
  wire::AppendInt(4, kFrameFormatJson, out);
}

void QueryTranslator::Impl::WriteHeaders(std::span<const QueryHeader> headers, std::string& out) {
  for (const QueryHeader& header : headers) {
    if (header.value.empty() || !IsUtf8(header.name)) continue;
    // Plugins look for this one by its bare name.
    std::string_view prefix = header.name == "FromAlert" ? std::string_view{} : kHeaderPrefix;
    std::string_view value = SafeHeaderValue(header.value);
    size_t name_size = prefix.size() + header.name.size();
    wire::AppendHead(2, wire::BytesFieldSize(name_size) + wire::BytesFieldSize(value.size()), out);
    wire::AppendHead(1, name_size, out);
    out.append(prefix).append(header.name);
    wire::AppendBytes(2, value, out);
  }
}

// As Grafana does it: bytes of a value that is not UTF-8 are percent-encoded, beginning with the first byte that is not
// ASCII.
std::string_view QueryTranslator::Impl::SafeHeaderValue(std::string_view value) {
  if (IsUtf8(value)) return value;
  constexpr char kHex[] = "0123456789ABCDEF";
  header_value.clear();
  for (char c : value) {
    auto byte = static_cast<uint8_t>(c);
    if (byte >= 0x20 && byte < 0x7F) {
      header_value += c;
    } else {
      header_value += {'%', kHex[byte >> 4], kHex[byte & 0xF]};
    }
  }
  return header_value;
}

void QueryTranslator::Impl::WriteQuery(const ParsedQuery& query, std::string& out) {
  int64_t max_data_points = query.max_data_points == 0 ? kMaxDataPointsDefault : query.max_data_points;
  int64_t interval_ms = query.interval_ms > 0 ? static_cast<int64_t>(query.interval_ms) : kIntervalDefaultMs;
  size_t range_size = wire::IntFieldSize(query.range.from_ms) + wire::IntFieldSize(query.range.to_ms);
  size_t size = wire::StringFieldSize(query.ref_id) + wire::IntFieldSize(max_data_points) +
                wire::IntFieldSize(interval_ms) + wire::BytesFieldSize(range_size) +
                wire::BytesFieldSize(query.json_size) + wire::StringFieldSize(query.query_type);
  wire::AppendHead(3, size, out);
  wire::AppendString(1, query.ref_id, out);
  wire::AppendInt(2, max_data_points, out);
  wire::AppendInt(3, interval_ms, out);
  wire::AppendHead(4, range_size, out);
  wire::AppendInt(1, query.range.from_ms, out);
  wire::AppendInt(2, query.range.to_ms, out);
  wire::AppendHead(5, query.json_size, out);
  const char* at = query.object.data();
  for (size_t i = query.cuts_begin; i < query.cuts_end; ++i) {
    out.append(at, cuts[i].begin);
    at = cuts[i].end;
  }
  out.append(at, query.object.data() + query.object.size());
  wire::AppendString(6, query.query_type, out);
}

// One large body must not keep its working memory (about six times its size) for the life of the worker.
void QueryTranslator::Impl::GiveBack() {
  if (parser.capacity() > limits.kept_bytes_max) parser = ondemand::parser();
  if (first_value.capacity() > limits.kept_bytes_max) first_value = {};
  if (cuts.capacity() * sizeof(Cut) > limits.kept_bytes_max) cuts = {};
}

// ---- The class.

QueryTranslator::QueryTranslator(const QueryLimits& limits) : impl_(std::make_unique<Impl>(limits)) {}
QueryTranslator::~QueryTranslator() = default;
QueryTranslator::QueryTranslator(QueryTranslator&&) noexcept = default;
QueryTranslator& QueryTranslator::operator=(QueryTranslator&&) noexcept = default;

std::expected<QuerySummary, QueryError> QueryTranslator::Translate(std::string_view body, const QueryTarget& target,
                                                                   int64_t now_ms, std::string& out) {
  DPA_ASSERT(target.context != nullptr);
  bool ok = impl_->Translate(body, target, now_ms, out);
  QuerySummary summary{.query_count = impl_->queries.size()};
  impl_->GiveBack();
  if (!ok) return std::unexpected(std::move(impl_->error));
  return summary;
}

size_t QueryTranslator::held_bytes() const {
  // simdjson keeps 4 bytes per structural index and 5/3 for unescaped strings, both for each byte of its capacity.
  return impl_->parser.capacity() * 17 / 3 + impl_->queries.capacity() * sizeof(ParsedQuery) +
         impl_->cuts.capacity() * sizeof(Cut) + impl_->first_value.capacity() +
         impl_->ref_ids.capacity() * sizeof(std::string_view);
}

}  // namespace dpa
