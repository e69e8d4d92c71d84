#include "grpc_bridge/datasources.h"

#include <fmt/format.h>
#include <openssl/sha.h>
#include <yaml-cpp/eventhandler.h>
#include <yaml-cpp/yaml.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <charconv>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <expected>
#include <filesystem>
#include <fstream>
#include <set>
#include <sstream>
#include <tuple>
#include <utility>

#include "core/assert.h"
#include "grpc_bridge/text.h"

namespace dpa {
namespace {

using Severity = DataSourceProblem::Severity;

constexpr int64_t kIdMask = (int64_t{1} << 53) - 1;         // Exact in a double, which is how JSON readers keep it.
constexpr uint64_t kUpdatedMask = (uint64_t{1} << 40) - 1;  // 34.8 years of milliseconds …
constexpr int64_t kUpdatedBaseMs = 631'152'000'000;         // … from 1990 on.

// ---- Identity.

// Of all parts with their lengths, so that ("ab", "c") and ("a", "bc") differ.
class Digest {
 public:
  void Add(std::string_view part) {
    bytes_ += fmt::format("{}:", part.size());
    bytes_ += part;
  }
  void Add(int64_t number) { Add(fmt::format("{}", number)); }
  uint64_t First8() const {
    auto sum = Sum(bytes_);
    uint64_t value = 0;
    for (int i = 0; i < 8; ++i) value = value << 8 | sum[i];
    return value;
  }
  static std::array<uint8_t, SHA256_DIGEST_LENGTH> Sum(std::string_view bytes) {
    std::array<uint8_t, SHA256_DIGEST_LENGTH> sum;
    SHA256(reinterpret_cast<const uint8_t*>(bytes.data()), bytes.size(), sum.data());
    return sum;
  }

 private:
  std::string bytes_;
};

std::string DefaultUid(std::string_view name) {
  auto sum = Digest::Sum(name);
  std::string uid = "P";
  for (int i = 0; i < 8; ++i) uid += fmt::format("{:02X}", sum[i]);
  return uid;
}

int64_t CandidateId(const DataSource& source, int64_t attempt) {
  Digest digest;
  digest.Add(source.org_id);
  digest.Add(source.uid);
  digest.Add(attempt);
  return static_cast<int64_t>(digest.First8()) & kIdMask;
}

// Everything that the plugin is told about the data source but its id.
Digest ContentDigest(const DataSource& source) {
  Digest digest;
  digest.Add(source.org_id);
  for (const std::string* text : {&source.uid, &source.name, &source.type, &source.url, &source.user, &source.database,
                                  &source.basic_auth_user, &source.json_data}) {
    digest.Add(*text);
  }
  digest.Add(source.basic_auth ? 1 : 0);
  for (const auto& [key, value] : source.secure_json_data) {
    digest.Add(key);
    digest.Add(value);
  }
  return digest;
}

bool SameContent(const DataSource& a, const DataSource& b) {
  auto content = [](const DataSource& s) {
    return std::tie(s.org_id, s.uid, s.name, s.type, s.url, s.user, s.database, s.basic_auth, s.basic_auth_user,
                    s.json_data, s.secure_json_data);
  };
  return content(a) == content(b);
}

int64_t LastUpdatedMs(const DataSource& source, const DataSource* before) {
  if (before != nullptr && SameContent(source, *before)) return before->last_updated_ms;
  int64_t updated_ms = kUpdatedBaseMs + static_cast<int64_t>(ContentDigest(source).First8() & kUpdatedMask);
  bool collides = before != nullptr && before->last_updated_ms == updated_ms;
  return collides ? updated_ms + 1 : updated_ms;
}

std::pair<int64_t, std::string_view> KeyOf(const DataSource& source) { return {source.org_id, source.uid}; }

// ---- Interpolation.

bool IsNameByte(char c) {
  return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_';
}

std::string_view TrimSpace(std::string_view text) {
  constexpr std::string_view kSpace = " \t\n\v\f\r";
  size_t begin = text.find_first_not_of(kSpace);
  if (begin == std::string_view::npos) return {};
  return text.substr(begin, text.find_last_not_of(kSpace) - begin + 1);
}

// At most `bytes_max` bytes of a regular file, or a sentence.
std::expected<std::string, std::string> ReadFile(const std::string& path, size_t bytes_max) {
  std::error_code code;
  auto status = std::filesystem::status(path, code);
  if (!std::filesystem::exists(status)) return std::unexpected("does not exist");
  if (!std::filesystem::is_regular_file(status)) return std::unexpected("is not a regular file");
  std::ifstream stream(path, std::ios::binary);
  if (!stream) return std::unexpected(fmt::format("cannot be opened: {}", std::strerror(errno)));
  std::string bytes(bytes_max + 1, '\0');
  stream.read(bytes.data(), static_cast<std::streamsize>(bytes.size()));
  if (stream.bad()) return std::unexpected("cannot be read");
  bytes.resize(static_cast<size_t>(stream.gcount()));
  if (bytes.size() > bytes_max) return std::unexpected(fmt::format("is larger than {} bytes", bytes_max));
  bytes.shrink_to_fit();
  return bytes;
}

// ---- JSON of YAML scalars (YAML 1.2 core schema, §10.3.2).

bool IsOneOf(std::string_view text, std::initializer_list<std::string_view> words) {
  return std::ranges::find(words, text) != words.end();
}
bool IsNull(std::string_view text) { return IsOneOf(text, {"", "~", "null", "Null", "NULL"}); }
bool IsTrue(std::string_view text) { return IsOneOf(text, {"true", "True", "TRUE"}); }
bool IsFalse(std::string_view text) { return IsOneOf(text, {"false", "False", "FALSE"}); }
bool IsNotFinite(std::string_view text) {
  if (text.starts_with('+') || text.starts_with('-')) text.remove_prefix(1);
  return IsOneOf(text, {".inf", ".Inf", ".INF", ".nan", ".NaN", ".NAN"});
}

bool AllOf(std::string_view text, std::string_view allowed) {
  return !text.empty() && text.find_first_not_of(allowed) == std::string_view::npos;
}

// [-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?
bool IsCoreFloat(std::string_view text) {
  constexpr std::string_view kDigits = "0123456789";
  if (text.starts_with('+') || text.starts_with('-')) text.remove_prefix(1);
  size_t exponent = text.find_first_of("eE");
  if (exponent != std::string_view::npos) {
    std::string_view digits = text.substr(exponent + 1);
    if (digits.starts_with('+') || digits.starts_with('-')) digits.remove_prefix(1);
    if (!AllOf(digits, kDigits)) return false;
    text = text.substr(0, exponent);
  }
  size_t dot = text.find('.');
  if (dot == std::string_view::npos) return AllOf(text, kDigits);
  std::string_view whole = text.substr(0, dot);
  std::string_view fraction = text.substr(dot + 1);
  if (whole.empty()) return AllOf(fraction, kDigits);
  return AllOf(whole, kDigits) && (fraction.empty() || AllOf(fraction, kDigits));
}

// The JSON of a number, empty if the text is none. Integers keep their digits.
std::string JsonNumber(std::string_view text) {
  for (auto [prefix, radix] : {std::pair("0x", 16), std::pair("0o", 8)}) {
    if (!text.starts_with(prefix)) continue;
    uint64_t value = 0;
    auto [end, code] = std::from_chars(text.data() + 2, text.data() + text.size(), value, radix);
    return code == std::errc{} && end == text.data() + text.size() ? fmt::format("{}", value) : std::string{};
  }
  if (!IsCoreFloat(text)) return {};
  std::string_view digits = text.starts_with('+') || text.starts_with('-') ? text.substr(1) : text;
  std::string sign = text.starts_with('-') ? "-" : "";
  if (AllOf(digits, "0123456789")) {
    size_t first = std::min(digits.find_first_not_of('0'), digits.size() - 1);
    return sign + std::string(digits.substr(first));
  }
  double value = std::strtod(std::string(digits).c_str(), nullptr);
  return std::isfinite(value) ? sign + fmt::format("{}", value) : std::string{};
}

// The JSON of an unquoted scalar, empty if it is a string.
std::string JsonOfPlain(std::string_view text) {
  if (IsNull(text)) return "null";
  if (IsTrue(text)) return "true";
  if (IsFalse(text)) return "false";
  return JsonNumber(text);
}

bool IsPlain(const YAML::Node& node) { return node.Tag() == "?" || node.Tag().empty(); }

int LineOf(const YAML::Node& node) { return node.Mark().line + 1; }

// ---- One file.

// Keys of the old form (no apiVersion) and what they are called since.
constexpr std::array kOldKeys = {
    std::pair<std::string_view, std::string_view>("org_id", "orgId"),
    std::pair<std::string_view, std::string_view>("org_name", "orgName"),
    std::pair<std::string_view, std::string_view>("basic_auth", "basicAuth"),
    std::pair<std::string_view, std::string_view>("basic_auth_user", "basicAuthUser"),
    std::pair<std::string_view, std::string_view>("with_credentials", "withCredentials"),
    std::pair<std::string_view, std::string_view>("is_default", "isDefault"),
    std::pair<std::string_view, std::string_view>("json_data", "jsonData"),
    std::pair<std::string_view, std::string_view>("secure_json_data", "secureJsonData"),
};

// Notes where a document begins and builds nothing.
class DocumentProbe : public YAML::EventHandler {
 public:
  void OnDocumentStart(const YAML::Mark& mark) override { line_ = mark.line + 1; }
  void OnDocumentEnd() override {}
  void OnNull(const YAML::Mark&, YAML::anchor_t) override {}
  void OnAlias(const YAML::Mark&, YAML::anchor_t) override {}
  void OnScalar(const YAML::Mark&, const std::string&, YAML::anchor_t, const std::string&) override {}
  void OnSequenceStart(const YAML::Mark&, const std::string&, YAML::anchor_t, YAML::EmitterStyle::value) override {}
  void OnSequenceEnd() override {}
  void OnMapStart(const YAML::Mark&, const std::string&, YAML::anchor_t, YAML::EmitterStyle::value) override {}
  void OnMapEnd() override {}

  int line() const { return line_; }

 private:
  int line_ = 0;
};

// 0 if there is only one. Not YAML::LoadAll: version 0.7 never comes back from text that begins with a stray comma,
// because its parser ends one empty document after the other without taking the token.
int SecondDocumentLine(const std::string& yaml) {
  std::istringstream stream(yaml);
  YAML::Parser parser(stream);
  DocumentProbe probe;
  if (!parser.HandleNextDocument(probe) || !parser.HandleNextDocument(probe)) return 0;
  return probe.line();
}

struct TextMember {
  std::string_view key;
  std::string DataSource::* member;
};
constexpr std::array kTextMembers = {
    TextMember{"name", &DataSource::name},         TextMember{"type", &DataSource::type},
    TextMember{"uid", &DataSource::uid},           TextMember{"access", &DataSource::access},
    TextMember{"url", &DataSource::url},           TextMember{"user", &DataSource::user},
    TextMember{"database", &DataSource::database}, TextMember{"basicAuthUser", &DataSource::basic_auth_user},
};
struct BoolMember {
  std::string_view key;
  bool DataSource::* member;
};
constexpr std::array kBoolMembers = {
    BoolMember{"basicAuth", &DataSource::basic_auth},
    BoolMember{"withCredentials", &DataSource::with_credentials},
    BoolMember{"isDefault", &DataSource::is_default},
};

class FileLoader {
 public:
  FileLoader(std::string file, const DataSourceLoadOptions& options, std::vector<DataSource>& sources,
             std::vector<DataSourceProblem>& problems)
      : file_(std::move(file)), options_(options), sources_(sources), problems_(problems) {}

  void LoadPath();
  void LoadText(const std::string& yaml);

 private:
  void LoadDocument(const YAML::Node& root);
  void LoadEntry(const YAML::Node& entry);
  void LoadMember(std::string_view key, const YAML::Node& value, DataSource& source);
  void Finish(const YAML::Node& entry, DataSource source);
  std::string_view CurrentKey(std::string_view key) const;

  std::string Text(std::string_view key, const YAML::Node& value);
  bool Bool(std::string_view key, const YAML::Node& value);
  int64_t OrgId(const YAML::Node& value);
  std::string JsonData(const YAML::Node& value);
  void SecureJsonData(const YAML::Node& value, DataSource& source);

  void AppendJson(const YAML::Node& node, size_t depth, std::string& out);
  void AppendJsonMap(const YAML::Node& node, size_t depth, std::string& out);
  void AppendJsonScalar(const YAML::Node& node, std::string& out);
  bool Spend(const YAML::Node& node);

  std::string Interpolate(const std::string& text, int line);
  size_t ExpandBraces(std::string_view text, size_t brace, std::string_view provider, int line, std::string& out);
  void AppendVariable(const std::string& name, int line, std::string& out);
  void AppendFile(const std::string& path, int line, std::string& out);

  void Problem(Severity severity, int line, std::string message) {
    if (severity == Severity::kError) entry_ok_ = false;
    problems_.push_back({severity, file_, line, std::move(message)});
  }
  void Error(int line, std::string message) { Problem(Severity::kError, line, std::move(message)); }
  void Warn(int line, std::string message) { Problem(Severity::kWarning, line, std::move(message)); }

  std::string file_;
  const DataSourceLoadOptions& options_;
  std::vector<DataSource>& sources_;
  std::vector<DataSourceProblem>& problems_;
  bool old_form_ = false;
  bool entry_ok_ = true;  // Of the entry being read.
  bool out_of_budget_ = false;
  size_t nodes_spent_ = 0;
};

void FileLoader::LoadPath() {
  auto bytes = ReadFile(file_, options_.file_bytes_max);
  if (!bytes) return Error(0, bytes.error());
  LoadText(*bytes);
}

void FileLoader::LoadText(const std::string& yaml) {
  try {
    if (yaml.size() > options_.file_bytes_max)
      return Error(0, fmt::format("is larger than {} bytes", options_.file_bytes_max));
    if (int line = SecondDocumentLine(yaml); line > 0) {
      return Error(line, "only one YAML document per file is read; move this one to a file of its own");
    }
    LoadDocument(YAML::Load(yaml));
  } catch (const YAML::Exception& exception) {
    Error(exception.mark.line + 1, fmt::format("not valid YAML: {}", exception.msg));
  }
}

void FileLoader::LoadDocument(const YAML::Node& root) {
  if (root.IsNull()) return;
  if (!root.IsMap()) return Error(LineOf(root), "expected a mapping with the key datasources");
  YAML::Node version = root["apiVersion"];
  old_form_ = !version || (version.IsScalar() && version.Scalar() == "0");
  if (!old_form_ && !(version.IsScalar() && version.Scalar() == "1"))
    return Error(LineOf(version), "apiVersion must be 1");
  for (const auto& member : root) {
    if (!member.first.IsScalar()) {
      Error(LineOf(member.first), "a key must be a string");
      continue;
    }
    const std::string& key = member.first.Scalar();
    if (key == "datasources" && !member.second.IsNull()) {
      if (!member.second.IsSequence()) return Error(LineOf(member.second), "datasources must be a list");
      for (const YAML::Node& entry : member.second) LoadEntry(entry);
    } else if (!IsOneOf(key, {"apiVersion", "datasources", "deleteDatasources", "delete_datasources", "prune"})) {
      Warn(LineOf(member.first), fmt::format("unknown key {} is ignored", key));
    }
  }
}

void FileLoader::LoadEntry(const YAML::Node& entry) {
  entry_ok_ = true;
  if (!Spend(entry)) return;
  if (!entry.IsMap()) return Error(LineOf(entry), "a data source must be a mapping");
  DataSource source;
  std::set<std::string, std::less<>> seen;
  for (const auto& member : entry) {
    int line = LineOf(member.first);
    if (!member.first.IsScalar()) return Error(line, "a key must be a string");
    std::string_view key = CurrentKey(member.first.Scalar());
    if (!seen.emplace(key).second) return Error(line, fmt::format("{} is given twice", key));
    LoadMember(key, member.second, source);
  }
  Finish(entry, std::move(source));
}

std::string_view FileLoader::CurrentKey(std::string_view key) const {
  if (!old_form_) return key;
  auto found = std::ranges::find(kOldKeys, key, [](const auto& pair) { return pair.first; });
  return found == kOldKeys.end() ? key : found->second;
}

void FileLoader::LoadMember(std::string_view key, const YAML::Node& value, DataSource& source) {
  if (value.IsNull()) return;
  auto text = std::ranges::find(kTextMembers, key, &TextMember::key);
  auto flag = std::ranges::find(kBoolMembers, key, &BoolMember::key);
  if (text != kTextMembers.end()) {
    source.*(text->member) = Text(key, value);
  } else if (flag != kBoolMembers.end()) {
    source.*(flag->member) = Bool(key, value);
  } else if (key == "orgId") {
    source.org_id = OrgId(value);
  } else if (key == "orgName") {
    Error(LineOf(value), "orgName cannot be resolved without Grafana's database; use orgId");
  } else if (key == "jsonData") {
    source.json_data = JsonData(value);
  } else if (key == "secureJsonData") {
    SecureJsonData(value, source);
  } else if (!IsOneOf(key, {"editable", "version", "correlations", "apiVersion"})) {
    std::string_view hint = old_form_ ? " (is `apiVersion: 1` missing?)" : "";
    Warn(LineOf(value), fmt::format("unknown key {} is ignored{}", key, hint));
  }
}

void FileLoader::Finish(const YAML::Node& entry, DataSource source) {
  int line = LineOf(entry);
  if (source.name.empty()) Error(line, "name is missing");
  if (source.type.empty()) Error(line, "type is missing (the plugin id)");
  if (source.access != "direct") source.access = "proxy";
  if (source.uid.empty()) source.uid = DefaultUid(source.name);
  source.file = file_;
  source.line = line;
  if (entry_ok_) sources_.push_back(std::move(source));
}

std::string FileLoader::Text(std::string_view key, const YAML::Node& value) {
  if (!value.IsScalar()) {
    Error(LineOf(value), fmt::format("{} must be a string", key));
    return {};
  }
  std::string text = Interpolate(value.Scalar(), LineOf(value));
  if (!IsUtf8(text)) Error(LineOf(value), fmt::format("{} is not valid UTF-8", key));
  return text;
}

// As Go's ParseBool reads it, after interpolation.
bool FileLoader::Bool(std::string_view key, const YAML::Node& value) {
  std::string text = Text(key, value);
  if (IsOneOf(text, {"1", "t", "T"}) || IsTrue(text)) return true;
  bool known = IsOneOf(text, {"", "0", "f", "F"}) || IsFalse(text);
  if (!known && value.IsScalar()) Error(LineOf(value), fmt::format("{} must be true or false", key));
  return false;
}

int64_t FileLoader::OrgId(const YAML::Node& value) {
  std::string text = Text("orgId", value);
  int64_t org_id = 0;
  auto [end, code] = std::from_chars(text.data(), text.data() + text.size(), org_id);
  bool ok = text.empty() || (code == std::errc{} && end == text.data() + text.size() && org_id >= 0);
  if (!ok && value.IsScalar()) Error(LineOf(value), "orgId must be a positive number");
  return org_id == 0 ? 1 : org_id;
}

std::string FileLoader::JsonData(const YAML::Node& value) {
  std::string json;
  if (!value.IsMap()) {
    Error(LineOf(value), "jsonData must be a mapping");
  } else {
    AppendJson(value, 1, json);
  }
  return json;
}

void FileLoader::SecureJsonData(const YAML::Node& value, DataSource& source) {
  if (!value.IsMap()) return Error(LineOf(value), "secureJsonData must be a mapping");
  for (const auto& member : value) {
    if (!Spend(member.second)) return;
    int line = LineOf(member.first);
    if (!member.first.IsScalar()) return Error(line, "a key must be a string");
    const std::string& key = member.first.Scalar();
    std::string text = member.second.IsNull() ? std::string{} : Text("secureJsonData." + key, member.second);
    if (!source.secure_json_data.emplace(key, std::move(text)).second) {
      Error(line, fmt::format("secureJsonData.{} is given twice", key));
    }
  }
}

// Aliases make a small file large when they are followed; the budget counts what is followed.
bool FileLoader::Spend(const YAML::Node& node) {
  if (++nodes_spent_ <= options_.nodes_max) return true;
  entry_ok_ = false;
  if (!out_of_budget_)
    Error(LineOf(node), fmt::format("more than {} YAML nodes with aliases expanded", options_.nodes_max));
  out_of_budget_ = true;
  return false;
}

void FileLoader::AppendJson(const YAML::Node& node, size_t depth, std::string& out) {
  if (!Spend(node)) return;
  if (depth > options_.json_depth_max) {
    return Error(LineOf(node), fmt::format("jsonData is nested deeper than {} levels", options_.json_depth_max));
  }
  if (node.IsMap()) return AppendJsonMap(node, depth, out);
  if (!node.IsSequence()) return AppendJsonScalar(node, out);
  out += '[';
  bool first = true;
  for (const YAML::Node& element : node) {
    if (!entry_ok_) return;
    if (!std::exchange(first, false)) out += ',';
    AppendJson(element, depth + 1, out);
  }
  out += ']';
}

// Keys are sorted: their order in the file means nothing, and the plugin must not see a change where there is none.
void FileLoader::AppendJsonMap(const YAML::Node& node, size_t depth, std::string& out) {
  std::map<std::string, YAML::Node> members;
  for (const auto& member : node) {
    int line = LineOf(member.first);
    if (!member.first.IsScalar()) return Error(line, "a key must be a string");
    const std::string& key = member.first.Scalar();
    if (key == "<<" && IsPlain(member.first))
      return Error(line, "merge keys (<<) are not supported; write the members out");
    if (!members.emplace(key, member.second).second) return Error(line, fmt::format("{} is given twice", key));
  }
  out += '{';
  bool first = true;
  for (const auto& [key, value] : members) {
    if (!entry_ok_) return;
    if (!std::exchange(first, false)) out += ',';
    AppendJsonString(key, out);
    out += ':';
    AppendJson(value, depth + 1, out);
  }
  out += '}';
}

void FileLoader::AppendJsonScalar(const YAML::Node& node, std::string& out) {
  if (node.IsNull()) {
    out += "null";
    return;
  }
  const std::string& text = node.Scalar();
  bool quoted = node.Tag() == "!" || node.Tag().ends_with(":str");
  if (!quoted && IsNotFinite(text)) {
    return Error(LineOf(node), "JSON has no infinity and no NaN; quote it to make it a string");
  }
  std::string json = quoted ? std::string{} : JsonOfPlain(text);
  if (!json.empty()) {
    out += json;
    return;
  }
  std::string value = Interpolate(text, LineOf(node));
  if (!IsUtf8(value)) Error(LineOf(node), "a value of jsonData is not valid UTF-8");
  AppendJsonString(value, out);
}

// $$ is a dollar; $ before anything that names nothing stays as it is.
std::string FileLoader::Interpolate(const std::string& text, int line) {
  constexpr std::string_view kShellNames = "*#@!?-0123456789";  // One byte long each, as in a shell.
  std::string out;
  for (size_t i = 0; i < text.size();) {
    if (text[i] != '$' || i + 1 == text.size()) {
      out += text[i++];
      continue;
    }
    size_t end = i + 1;
    while (end < text.size() && IsNameByte(text[end])) ++end;
    std::string name = text.substr(i + 1, end - i - 1);
    bool provider = name.starts_with("__") && end < text.size() && text[end] == '{';
    if (text[i + 1] == '$') {
      out += '$';
      i += 2;
    } else if (text[i + 1] == '{' || provider) {
      i = ExpandBraces(text, end, name, line, out);
    } else if (kShellNames.find(text[i + 1]) != std::string_view::npos) {
      AppendVariable(std::string(1, text[i + 1]), line, out);
      i += 2;
    } else if (!name.empty()) {
      AppendVariable(name, line, out);
      i = end;
    } else {
      out += text[i++];
    }
  }
  return out;
}

// text[brace] is the opening one. Returns the place behind the closing one.
size_t FileLoader::ExpandBraces(std::string_view text, size_t brace, std::string_view provider, int line,
                                std::string& out) {
  size_t close = text.find('}', brace);
  if (close == std::string_view::npos || close == brace + 1) {
    Error(line, "a ${…} is empty or has no end; write $$ for a dollar");
    return text.size();
  }
  std::string inside(text.substr(brace + 1, close - brace - 1));
  if (provider.empty() || provider == "__env") {
    AppendVariable(inside, line, out);
  } else if (provider == "__file") {
    AppendFile(inside, line, out);
  } else {
    Error(line, fmt::format("${}{{}} is not known; there are $__env{{NAME}} and $__file{{PATH}}", provider));
  }
  return close + 1;
}

void FileLoader::AppendVariable(const std::string& name, int line, std::string& out) {
  std::optional<std::string> value;
  if (options_.environment) {
    value = options_.environment(name);
  } else if (const char* text = std::getenv(name.c_str())) {
    value = text;
  }
  if (value) {
    out += *value;
  } else {
    Warn(line,
         fmt::format("the environment variable {} is not set; nothing is put in its place (write $$ for a dollar)",
                     name));
  }
}

void FileLoader::AppendFile(const std::string& path, int line, std::string& out) {
  auto bytes = ReadFile(path, options_.file_bytes_max);
  if (!bytes) return Error(line, fmt::format("$__file{{{}}} {}", path, bytes.error()));
  out += TrimSpace(*bytes);
}

// ---- All files.

bool IsYamlName(const std::filesystem::path& path) { return path.extension() == ".yaml" || path.extension() == ".yml"; }

// The files that `path` means, in order.
std::vector<std::string> FilesOf(const std::string& path, std::vector<DataSourceProblem>& problems) {
  std::error_code code;
  if (!std::filesystem::is_directory(path, code)) return {path};
  std::vector<std::string> files;
  std::filesystem::directory_iterator folder(path, code);
  for (; !code && folder != std::filesystem::directory_iterator(); folder.increment(code)) {
    std::error_code ignored;
    if (IsYamlName(folder->path()) && folder->is_regular_file(ignored)) files.push_back(folder->path().string());
  }
  if (code)
    problems.push_back({Severity::kError, path, 0, fmt::format("the folder cannot be read: {}", code.message())});
  std::ranges::sort(files);
  return files;
}

std::string PlaceOf(const DataSource& source) { return fmt::format("{}:{}", source.file, source.line); }

// The first of several stands; each later one is a problem.
std::vector<DataSource> WithoutDuplicates(std::vector<DataSource> found, std::vector<DataSourceProblem>& problems) {
  using Key = std::pair<int64_t, std::string>;
  std::map<Key, std::string> uids;
  std::map<Key, std::string> names;
  std::map<int64_t, std::string> defaults;
  std::vector<DataSource> kept;
  for (DataSource& source : found) {
    auto problem = [&](std::string_view what, const std::string& place) {
      problems.push_back({Severity::kError, source.file, source.line,
                          fmt::format("{} is already given at {} (organisation {})", what, place, source.org_id)});
    };
    auto uid = uids.find({source.org_id, source.uid});
    auto name = names.find({source.org_id, source.name});
    auto standard = defaults.find(source.org_id);
    if (uid != uids.end()) {
      problem(fmt::format("the uid {}", source.uid), uid->second);
    } else if (name != names.end()) {
      problem(fmt::format("the name {}", source.name), name->second);
    } else {
      if (source.is_default && standard != defaults.end()) {
        problem("a data source with isDefault", standard->second);
        source.is_default = false;
      }
      std::string place = PlaceOf(source);
      uids.emplace(Key{source.org_id, source.uid}, place);
      names.emplace(Key{source.org_id, source.name}, place);
      if (source.is_default) defaults.emplace(source.org_id, place);
      kept.push_back(std::move(source));
    }
  }
  return kept;
}

DataSourceLoad MakeLoad(std::vector<DataSource> found, std::vector<DataSourceProblem> problems,
                        const DataSourceSet* previous) {
  auto kept = WithoutDuplicates(std::move(found), problems);
  return {std::make_shared<const DataSourceSet>(std::move(kept), previous), std::move(problems)};
}

}  // namespace

DataSourceSet::DataSourceSet(std::vector<DataSource> sources, const DataSourceSet* previous)
    : sources_(std::move(sources)) {
  std::ranges::sort(sources_, {}, KeyOf);
  DPA_ASSERT(std::ranges::adjacent_find(sources_, {}, KeyOf) == sources_.end());
  std::set<int64_t> taken;
  for (DataSource& source : sources_) {
    const DataSource* before = previous != nullptr ? previous->Find(source.org_id, source.uid) : nullptr;
    source.last_updated_ms = LastUpdatedMs(source, before);
    source.id = before != nullptr ? before->id : 0;
    if (source.id != 0) taken.insert(source.id);
  }
  for (DataSource& source : sources_) {
    for (int64_t attempt = 0; source.id == 0; ++attempt) {
      int64_t id = CandidateId(source, attempt);
      if (id != 0 && taken.insert(id).second) source.id = id;
    }
  }
}

const DataSource* DataSourceSet::Find(int64_t org_id, std::string_view uid) const {
  std::pair<int64_t, std::string_view> wanted(org_id, uid);
  auto found = std::ranges::lower_bound(sources_, wanted, {}, KeyOf);
  return found != sources_.end() && KeyOf(*found) == wanted ? &*found : nullptr;
}

std::string DataSourceProblem::ToString() const {
  return line > 0 ? fmt::format("{}:{}: {}", file, line, message) : fmt::format("{}: {}", file, message);
}

bool DataSourceLoad::has_errors() const {
  return std::ranges::any_of(problems, [](const auto& problem) { return problem.severity == Severity::kError; });
}

DataSourceLoad LoadDataSources(std::span<const std::string> paths, const DataSourceLoadOptions& options,
                               const DataSourceSet* previous) {
  std::vector<DataSource> found;
  std::vector<DataSourceProblem> problems;
  for (const std::string& path : paths) {
    for (const std::string& file : FilesOf(path, problems)) FileLoader(file, options, found, problems).LoadPath();
  }
  return MakeLoad(std::move(found), std::move(problems), previous);
}

DataSourceLoad LoadDataSourcesFromText(std::string_view yaml, const std::string& file,
                                       const DataSourceLoadOptions& options, const DataSourceSet* previous) {
  std::vector<DataSource> found;
  std::vector<DataSourceProblem> problems;
  FileLoader(file, options, found, problems).LoadText(std::string(yaml));
  return MakeLoad(std::move(found), std::move(problems), previous);
}

}  // namespace dpa
