#include "tools/testdata_plugin/scenarios.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdlib>
#include <expected>
#include <limits>
#include <nlohmann/json.hpp>
#include <string_view>
#include <thread>

#include "tools/testdata_plugin/csv.h"

namespace dpa::testdata {
namespace {

using Json = nlohmann::ordered_json;

constexpr int64_t kPointsMax = 1'000'000;
constexpr int64_t kColumnsMax = 1'000;
constexpr int64_t kFloodBytesMax = 1 << 30;
constexpr int64_t kDelayMsMax = 600'000;
constexpr int64_t kNsPerMs = 1'000'000;

QueryAnswer Failure(std::string error, int status, std::string source = "plugin") {
  return QueryAnswer{.error = std::move(error), .status = status, .error_source = std::move(source)};
}

// The scenario's parameters out of the query's JSON. A wrong type is noted once, as `error`, and the default is used.
class Parameters {
 public:
  explicit Parameters(const std::string& text) : json_(Json::parse(text.empty() ? "{}" : text, nullptr, false)) {
    if (!json_.is_object()) error_ = "the query is not a JSON object";
  }

  const std::string& error() const { return error_; }

  int64_t Int(const char* name, int64_t fallback, int64_t min, int64_t max) {
    const Json* value = Find(name);
    if (value == nullptr) return fallback;
    if (!value->is_number_integer() || value->get<int64_t>() < min || value->get<int64_t>() > max) {
      return Wrong(fmt::format("{} must be an integer from {} to {}", name, min, max)), fallback;
    }
    return value->get<int64_t>();
  }
  double Number(const char* name, double fallback) {
    const Json* value = Find(name);
    if (value == nullptr) return fallback;
    if (!value->is_number()) return Wrong(fmt::format("{} must be a number", name)), fallback;
    return value->get<double>();
  }
  std::string Text(const char* name, std::string fallback) {
    const Json* value = Find(name);
    if (value == nullptr) return fallback;
    if (!value->is_string()) return Wrong(fmt::format("{} must be a string", name)), fallback;
    return value->get<std::string>();
  }
  std::map<std::string, std::string> TextMap(const char* name) {
    std::map<std::string, std::string> map;
    const Json* value = Find(name);
    if (value == nullptr) return map;
    if (!value->is_object()) return Wrong(fmt::format("{} must be an object of strings", name)), map;
    for (const auto& [key, text] : value->items()) {
      if (!text.is_string()) return Wrong(fmt::format("{}.{} must be a string", name, key)), map;
      map[key] = text.get<std::string>();
    }
    return map;
  }

 private:
  const Json* Find(const char* name) const {
    if (!json_.is_object()) return nullptr;
    const auto found = json_.find(name);
    return found == json_.end() || found->is_null() ? nullptr : &*found;
  }
  void Wrong(std::string what) {
    if (error_.empty()) error_ = std::move(what);
  }

  Json json_;
  std::string error_;
};

// splitmix64: small, and the same numbers from the same seed on every machine, which the standard's distributions do
// not give.
class Random {
 public:
  explicit Random(uint64_t seed) : state_(seed) {}
  uint64_t Next() {
    uint64_t z = (state_ += 0x9e3779b97f4a7c15u);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
  }
  double NextUnit() { return static_cast<double>(Next() >> 11) * 0x1p-53; }  // [0, 1)

 private:
  uint64_t state_;
};

uint64_t HashText(std::string_view text) {  // FNV-1a.
  uint64_t hash = 0xcbf29ce484222325u;
  for (const char c : text) hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001b3u;
  return hash;
}

// Text of `value` as the SDK prints it inside meta, config and JSON cells: < > & and the two line separators escaped.
std::string HtmlSafe(const Json& value) {
  const std::string plain = value.dump(-1, ' ', false, Json::error_handler_t::replace);
  std::string safe;
  for (size_t i = 0; i < plain.size(); ++i) {
    const std::string_view rest = std::string_view(plain).substr(i);
    if (rest.starts_with("\xe2\x80\xa8") || rest.starts_with("\xe2\x80\xa9")) {
      safe += rest[2] == '\xa8' ? "\\u2028" : "\\u2029";
      i += 2;
    } else if (rest[0] == '<' || rest[0] == '>' || rest[0] == '&') {
      safe += fmt::format("\\u{:04x}", static_cast<unsigned>(rest[0]));
    } else {
      safe += rest[0];
    }
  }
  return safe;
}

template <class T>
Field MakeField(std::string name, Cells<T> cells, bool nullable = false) {
  return Field{.name = std::move(name), .column = std::move(cells), .nullable = nullable};
}

// ---- random_walk, rows.

struct TimeGrid {
  int64_t from_ms = 0;
  int64_t step_ms = 1;
  int64_t count = 0;
};

// One point per interval, the interval widened until maxDataPoints suffice.
TimeGrid GridOf(const pluginv2::DataQuery& query) {
  TimeGrid grid;
  grid.from_ms = query.timerange().fromepochms();
  const int64_t span_ms = std::max<int64_t>(query.timerange().toepochms() - grid.from_ms, 0);
  const int64_t points_max = query.maxdatapoints() > 0 ? std::min(query.maxdatapoints(), kPointsMax) : kPointsMax;
  const int64_t wanted_ms = std::min(query.intervalms(), span_ms + 1);
  grid.step_ms = std::max({int64_t{1}, wanted_ms, (span_ms + points_max - 1) / points_max});
  grid.count = std::min((span_ms + grid.step_ms - 1) / grid.step_ms, points_max);
  return grid;
}

Cells<TimeNs> TimesOf(const TimeGrid& grid) {
  Cells<TimeNs> times;
  times.reserve(static_cast<size_t>(grid.count));
  for (int64_t i = 0; i < grid.count; ++i) times.push_back(TimeNs{(grid.from_ms + i * grid.step_ms) * kNsPerMs});
  return times;
}

Cells<double> Walk(Random* random, int64_t count, double start, double spread) {
  Cells<double> values;
  values.reserve(static_cast<size_t>(count));
  double value = start;
  for (int64_t i = 0; i < count; ++i, value += (random->NextUnit() - 0.5) * spread) values.push_back(value);
  return values;
}

// Milliseconds whose nanoseconds fit in 64 bits.
bool InNanosecondRange(int64_t ms) { return ms > -9'223'372'036'854 && ms < 9'223'372'036'854; }

QueryAnswer RandomWalk(const pluginv2::DataQuery& query, Parameters* parameters) {
  const auto default_seed = static_cast<int64_t>(HashText(query.refid()) >> 1);
  const int64_t seed = parameters->Int("seed", default_seed, INT64_MIN, INT64_MAX);
  const int64_t series = parameters->Int("seriesCount", 1, 0, kColumnsMax);
  const double start = parameters->Number("startValue", 50);
  const double spread = parameters->Number("spread", 2);
  auto labels = parameters->TextMap("labels");
  if (query.timerange().fromepochms() > query.timerange().toepochms())
    return Failure("timeRange ends before it begins", 400);
  if (!InNanosecondRange(query.timerange().fromepochms()) || !InNanosecondRange(query.timerange().toepochms())) {
    return Failure("timeRange is outside of the years 1678 to 2261", 400);
  }
  const TimeGrid grid = GridOf(query);
  QueryAnswer answer;
  for (int64_t i = 0; i < series; ++i) {
    Random random(static_cast<uint64_t>(seed) + static_cast<uint64_t>(i));
    Field values = MakeField<double>("value", Walk(&random, grid.count, start, spread));
    if (series > 1) labels["series"] = fmt::format("{}", i);
    if (!labels.empty()) values.labels = labels;
    answer.frames.push_back(
        Frame{.name = fmt::format("{}-series{}", query.refid(), series > 1 ? fmt::format("-{}", i) : ""),
              .ref_id = query.refid(),
              .meta_json = R"({"type":"timeseries-multi","typeVersion":[0,1]})",
              .fields = {MakeField<TimeNs>("time", TimesOf(grid)), std::move(values)}});
  }
  return answer;
}

QueryAnswer Rows(const pluginv2::DataQuery& query, Parameters* parameters) {
  const int64_t rows = parameters->Int("rows", 100, 0, kPointsMax);
  const int64_t columns = parameters->Int("columns", 2, 1, kColumnsMax);
  if (rows * columns > 20 * kPointsMax) return Failure("rows times columns is above 20 million", 400);
  const TimeGrid grid{.from_ms = query.timerange().fromepochms(), .step_ms = 1000, .count = rows};
  if (!InNanosecondRange(grid.from_ms) || !InNanosecondRange(grid.from_ms + rows * grid.step_ms)) {
    return Failure("timeRange is outside of the years 1678 to 2261", 400);
  }
  Frame frame{.name = "rows", .ref_id = query.refid(), .fields = {MakeField<TimeNs>("time", TimesOf(grid))}};
  for (int64_t column = 1; column < columns; ++column) {
    Random random(static_cast<uint64_t>(column));
    frame.fields.push_back(MakeField<double>(fmt::format("value{}", column), Walk(&random, rows, 0, 1)));
  }
  return QueryAnswer{.frames = {std::move(frame)}};
}

// ---- table: four rows of every type; the second one is null where a type can be.

template <class T>
void AddTwice(Frame* frame, std::string_view name, T a, T b, T c, T d) {
  frame->fields.push_back(MakeField<T>(std::string(name), {a, b, c, d}));
  frame->fields.push_back(MakeField<T>(fmt::format("{}_nullable", name), {a, std::nullopt, c, d}, true));
}

template <class T>
void AddLimits(Frame* frame, std::string_view name) {
  using Limits = std::numeric_limits<T>;
  AddTwice<T>(frame, name, Limits::min(), T{1}, T{42}, Limits::max());
}

Frame MakeTable(const std::string& ref_id) {
  Frame frame{.name = "table \"of\" <every> type", .ref_id = ref_id};
  AddTwice<TimeNs>(&frame, "time", {1'767'225'600'000'000'000}, {1'767'225'600'123'456'789}, {-1}, {-999'999'500});
  AddLimits<int8_t>(&frame, "int8");
  AddLimits<int16_t>(&frame, "int16");
  AddLimits<int32_t>(&frame, "int32");
  AddLimits<int64_t>(&frame, "int64");
  AddLimits<uint8_t>(&frame, "uint8");
  AddLimits<uint16_t>(&frame, "uint16");
  AddLimits<uint32_t>(&frame, "uint32");
  AddLimits<uint64_t>(&frame, "uint64");
  constexpr double kInf = std::numeric_limits<double>::infinity();
  AddTwice<float>(&frame, "float32", 0.1F, std::numeric_limits<float>::quiet_NaN(),
                  -std::numeric_limits<float>::infinity(), std::numeric_limits<float>::max());
  AddTwice<double>(&frame, "float64", 1e-7, std::numeric_limits<double>::quiet_NaN(), kInf, -kInf);
  AddTwice<double>(&frame, "float64_digits", -0.0, 1e21, 123'456'789'012'345'680'000.0, 5e-324);
  AddTwice<std::string>(&frame, "string", "plain", "", "<b>&\"\\\n\xe2\x80\xa8\xf0\x9f\x98\x80", "caf\xc3\xa9");
  AddTwice<bool>(&frame, "bool", true, false, false, true);
  AddTwice<RawJson>(&frame, "json", {R"({"a":[1,2.5,null]})"}, {}, {"[ 1, 2 ]"}, {R"("text")"});
  AddTwice<EnumIndex>(&frame, "enum", {0}, {1}, {2}, {1});
  frame.fields.push_back(frame.fields.front());  // Two columns of one name are legal.
  return frame;
}

void DecorateTable(Frame* frame) {
  frame->meta_json = HtmlSafe(Json{{"type", "table"},
                                   {"typeVersion", {0, 1}},
                                   {"custom", {{"note", "a < b & c"}, {"rows", 4}}},
                                   {"notices", {{{"severity", "info"}, {"text", "made up"}}}},
                                   {"preferredVisualisationType", "table"},
                                   {"executedQueryString", "SELECT * FROM everything"}});
  const std::string text = HtmlSafe(Json{{"type", {{"enum", {{"text", {"low", "middle", "high"}}}}}}});
  for (Field& field : frame->fields) {
    if (std::holds_alternative<Cells<EnumIndex>>(field.column)) field.config_json = text;
    if (field.name == "float64") {
      field.labels = {{"host", "web-1"}, {"a \"quoted\" key", "<value>"}};
      field.config_json = HtmlSafe(
          Json{{"displayName", "Load & more"}, {"unit", "percent"}, {"decimals", 2}, {"min", 0}, {"max", 100}});
    }
    if (field.name == "string") field.labels.emplace();  // Present but empty prints {}.
  }
}

QueryAnswer Table(const pluginv2::DataQuery& query) {
  Frame frame = MakeTable(query.refid());
  DecorateTable(&frame);
  return QueryAnswer{.frames = {std::move(frame)}, .chunk_rows = 2};
}

// ---- echo.

Json ToJson(const std::map<std::string, std::string>& map) {
  Json object = Json::object();
  for (const auto& [key, value] : map) object[key] = value;
  return object;
}

template <class ProtoMap>
Json MapJson(const ProtoMap& map) {
  return ToJson(std::map<std::string, std::string>(map.begin(), map.end()));
}

Json DataSourceJson(const pluginv2::DataSourceInstanceSettings& settings) {
  return Json{{"id", settings.id()},
              {"uid", settings.uid()},
              {"name", settings.name()},
              {"url", settings.url()},
              {"user", settings.user()},
              {"database", settings.database()},
              {"basicAuthEnabled", settings.basicauthenabled()},
              {"basicAuthUser", settings.basicauthuser()},
              {"jsonData", Json::parse(settings.jsondata(), nullptr, false)},
              {"decryptedSecureJsonData", MapJson(settings.decryptedsecurejsondata())},
              {"lastUpdatedMS", settings.lastupdatedms()},
              {"apiVersion", settings.apiversion()}};
}

Json ContextJson(const pluginv2::PluginContext& context) {
  Json json{{"orgId", context.orgid()},
            {"pluginId", context.pluginid()},
            {"pluginVersion", context.pluginversion()},
            {"userAgent", context.useragent()},
            {"apiVersion", context.apiversion()},
            {"namespace", context.namespace_()},
            {"grafanaConfig", MapJson(context.grafanaconfig())}};
  if (context.has_user()) {
    const auto& user = context.user();
    json["user"] = Json{{"login", user.login()}, {"name", user.name()}, {"email", user.email()}, {"role", user.role()}};
  }
  if (context.has_appinstancesettings()) {
    const auto& app = context.appinstancesettings();
    json["appInstanceSettings"] = Json{{"jsonData", Json::parse(app.jsondata(), nullptr, false)},
                                       {"decryptedSecureJsonData", MapJson(app.decryptedsecurejsondata())},
                                       {"lastUpdatedMS", app.lastupdatedms()}};
  }
  if (context.has_datasourceinstancesettings()) {
    json["dataSourceInstanceSettings"] = DataSourceJson(context.datasourceinstancesettings());
  }
  return json;
}

QueryAnswer Echo(const pluginv2::DataQuery& query, const QueryEnvironment& environment) {
  const auto raw = [](const Json& json) { return Cells<RawJson>{RawJson{HtmlSafe(json)}}; };
  Frame frame{.name = "echo", .ref_id = query.refid()};
  frame.fields.push_back(MakeField<std::string>("refId", {query.refid()}));
  frame.fields.push_back(MakeField<std::string>("queryType", {query.querytype()}));
  frame.fields.push_back(MakeField<bool>("hasTimeRange", {query.has_timerange()}));
  frame.fields.push_back(MakeField<int64_t>("fromEpochMS", {query.timerange().fromepochms()}));
  frame.fields.push_back(MakeField<int64_t>("toEpochMS", {query.timerange().toepochms()}));
  frame.fields.push_back(MakeField<int64_t>("maxDataPoints", {query.maxdatapoints()}));
  frame.fields.push_back(MakeField<int64_t>("intervalMS", {query.intervalms()}));
  frame.fields.push_back(MakeField<RawJson>("json", {RawJson{query.json()}}));
  frame.fields.push_back(MakeField<RawJson>("pluginContext", raw(ContextJson(*environment.context))));
  frame.fields.push_back(MakeField<RawJson>("headers", raw(ToJson(environment.headers))));
  frame.fields.push_back(MakeField<RawJson>("metadata", raw(ToJson(environment.metadata))));
  frame.fields.push_back(MakeField<std::string>("format", {pluginv2::DataFrameFormat_Name(environment.format)}));
  return QueryAnswer{.frames = {std::move(frame)}};
}

// ---- The scenarios that misbehave.

// False if the call was cancelled meanwhile.
bool Pause(int64_t delay_ms, const std::function<bool()>& cancelled) {
  using Clock = std::chrono::steady_clock;
  const auto end = Clock::now() + std::chrono::milliseconds(delay_ms);
  while (Clock::now() < end) {
    if (cancelled()) return false;
    std::this_thread::sleep_for(std::min<Clock::duration>(end - Clock::now(), std::chrono::milliseconds(5)));
  }
  return true;
}

QueryAnswer Slow(const pluginv2::DataQuery& query, Parameters* parameters, const QueryEnvironment& environment) {
  const int64_t delay_ms = parameters->Int("delayMs", 1000, 0, kDelayMsMax);
  if (!Pause(delay_ms, environment.cancelled)) return Failure("cancelled", 499);
  return RandomWalk(query, parameters);
}

[[noreturn]] void Crash(const std::string& how) {
  if (how == "exit") _exit(3);
  std::abort();
}

[[noreturn]] void Panic() {
  constexpr std::string_view kTrace =
      "panic: runtime error: index out of range [5] with length 3\n\ngoroutine 41 [running]:\n"
      "main.(*Datasource).query(0xc000112000)\n\t/src/pkg/plugin/datasource.go:118 +0x1d4\n";
  const ssize_t written = write(STDERR_FILENO, kTrace.data(), kTrace.size());
  _exit(written < 0 ? 3 : 2);
}

void PrintToStdout(int64_t bytes) {
  const std::string line = std::string(127, 'x') + "\n";
  for (int64_t left = bytes; left > 0;) {
    const ssize_t written = write(STDOUT_FILENO, line.data(), static_cast<size_t>(std::min<int64_t>(left, 128)));
    if (written <= 0) return;
    left -= written;
  }
}

QueryAnswer StdioFlood(const pluginv2::DataQuery& query, Parameters* parameters, const QueryEnvironment& environment) {
  const int64_t bytes = parameters->Int("bytes", 1 << 20, 0, kFloodBytesMax);
  if (parameters->Text("to", "stdout") == "stream") {
    for (int64_t left = bytes; left > 0; left -= 1024) {
      environment.print_to_stdio_stream(std::string(static_cast<size_t>(std::min<int64_t>(left, 1024)), 'x'));
    }
  } else {
    PrintToStdout(bytes);
  }
  return RandomWalk(query, parameters);
}

QueryAnswer GrpcError(Parameters* parameters) {
  QueryAnswer answer =
      Failure(parameters->Text("message", "made-up failure of the call"), 500, parameters->Text("errorSource", ""));
  answer.grpc_code = static_cast<int>(parameters->Int("code", 2, 1, 16));
  return answer;
}

QueryAnswer CsvContent(const pluginv2::DataQuery& query, Parameters* parameters) {
  auto fields = ParseCsv(parameters->Text("csvContent", ""));
  if (!fields) return Failure("csvContent: " + fields.error(), 400, "downstream");
  return QueryAnswer{.frames = {Frame{.name = "csv", .ref_id = query.refid(), .fields = *std::move(fields)}}};
}

QueryAnswer Run(const pluginv2::DataQuery& query, Parameters* parameters, const QueryEnvironment& environment) {
  const std::string scenario = parameters->Text("scenarioId", "random_walk");
  if (scenario == "random_walk") return RandomWalk(query, parameters);
  if (scenario == "csv_content") return CsvContent(query, parameters);
  if (scenario == "table") return Table(query);
  if (scenario == "rows") return Rows(query, parameters);
  if (scenario == "slow") return Slow(query, parameters, environment);
  if (scenario == "error") {
    return Failure(parameters->Text("message", "made-up failure of one query"),
                   static_cast<int>(parameters->Int("status", 500, 0, 999)), parameters->Text("errorSource", "plugin"));
  }
  if (scenario == "grpc_error") return GrpcError(parameters);
  if (scenario == "crash") Crash(parameters->Text("how", "abort"));
  if (scenario == "panic") Panic();
  if (scenario == "stdio_flood") return StdioFlood(query, parameters, environment);
  if (scenario == "arrow") {
    return QueryAnswer{.arrow_bytes = std::string("ARROW1\0\0", 8) + std::string(64, '\0') + "ARROW1"};
  }
  if (scenario == "status0") {
    QueryAnswer answer = RandomWalk(query, parameters);
    answer.status = 0;
    return answer;
  }
  if (scenario == "omit") return QueryAnswer{.omit = true};
  if (scenario == "echo") return Echo(query, environment);
  return Failure("unknown scenarioId \"" + scenario + "\"", 400, "downstream");
}

}  // namespace

QueryAnswer RunScenario(const pluginv2::DataQuery& query, const QueryEnvironment& environment) {
  Parameters parameters(query.json());
  const auto chunk_rows = static_cast<size_t>(parameters.Int("chunkRows", 0, 0, kPointsMax));
  if (!parameters.error().empty()) return Failure(parameters.error(), 400, "downstream");
  QueryAnswer answer = Run(query, &parameters, environment);
  if (!parameters.error().empty()) return Failure(parameters.error(), 400, "downstream");
  if (chunk_rows > 0) answer.chunk_rows = chunk_rows;
  return answer;
}

}  // namespace dpa::testdata
