#include "registry/yaml_tree.h"

#include <fmt/format.h>
#include <simdjson.h>
#include <yaml-cpp/eventhandler.h>
#include <yaml-cpp/yaml.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <exception>
#include <sstream>
#include <stdexcept>
#include <unordered_map>

namespace dpa {
namespace {

using Kind = YamlNode::Kind;

// Thrown by the handler through yaml-cpp, which knows no other way to stop; caught in ParseYaml.
struct Refusal : std::runtime_error {
  Refusal(SourcePosition position, const std::string& message) : std::runtime_error(message), at(position) {}
  SourcePosition at;
};

SourcePosition PositionOf(const YAML::Mark& mark) { return {mark.line + 1, mark.column + 1}; }

bool IsBool(std::string_view text) {
  static constexpr std::array<std::string_view, 8> kBools = {"true", "false", "yes", "no", "on", "off", "y", "n"};
  std::string lower(text.substr(0, 8));
  std::ranges::transform(lower, lower.begin(), [](unsigned char c) { return c >= 'A' && c <= 'Z' ? c + 32 : c; });
  return text.size() <= 5 && std::ranges::find(kBools, lower) != kBools.end();
}

bool IsHexOrOctal(std::string_view text) {
  if (text.size() < 3 || text[0] != '0' || (text[1] != 'x' && text[1] != 'o' && text[1] != 'b')) return false;
  const int base = text[1] == 'x' ? 16 : text[1] == 'o' ? 8 : 2;
  unsigned long long ignored = 0;
  const auto [end, error] = std::from_chars(text.data() + 2, text.data() + text.size(), ignored, base);
  return error != std::errc::invalid_argument && end == text.data() + text.size();
}

bool IsNumber(std::string_view text) {
  if (!text.empty() && (text[0] == '-' || text[0] == '+')) text.remove_prefix(1);
  if (text == ".inf" || text == ".Inf" || text == ".INF" || text == ".nan" || text == ".NaN" || text == ".NAN")
    return true;
  const auto digit = [](char c) { return c >= '0' && c <= '9'; };
  if (text.empty() || !(digit(text[0]) || (text.size() > 1 && text[0] == '.' && digit(text[1])))) return false;
  if (IsHexOrOctal(text)) return true;
  double ignored = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), ignored);
  return error != std::errc::invalid_argument && end == text.data() + text.size();
}

Kind KindOfPlain(std::string_view text) {
  if (IsBool(text)) return Kind::kBool;
  return IsNumber(text) ? Kind::kNumber : Kind::kString;
}

// Builds the trees from yaml-cpp's events. `open_` is the path from the root to the mapping or list that is being
// filled.
class TreeBuilder final : public YAML::EventHandler {
 public:
  TreeBuilder(YamlFile& out, std::string_view file, const YamlLimits& limits, std::vector<Problem>& problems)
      : out_(out), file_(file), limits_(limits), problems_(problems) {}

  void OnDocumentStart(const YAML::Mark& mark) override {
    // yaml-cpp finds empty documents without end before some characters that begin nothing (a comma between objects).
    if (documents_count_ > 0 && PositionOf(mark) == document_at_) {
      throw Refusal(document_at_, "is not valid YAML or JSON: nothing can begin here");
    }
    document_at_ = PositionOf(mark);
    if (++documents_count_ > limits_.documents_max) {
      throw Refusal(PositionOf(mark), fmt::format("has more than {} documents", limits_.documents_max));
    }
    anchors_.clear();
    root_ = nullptr;
  }
  void OnDocumentEnd() override {
    if (root_ != nullptr && root_->kind != Kind::kNull) out_.roots.push_back(root_);
  }

  void OnNull(const YAML::Mark& mark, YAML::anchor_t anchor) override { Place(New(mark, Kind::kNull, anchor)); }

  void OnScalar(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
                const std::string& value) override {
    // yaml-cpp's tags: "?" plain, "!" quoted, else what the file says.
    const bool is_string = tag == "!" || tag == "tag:yaml.org,2002:str";
    if (!is_string && tag != "?") RefuseTag(mark, tag);
    YamlNode& node = New(mark, is_string ? Kind::kString : KindOfPlain(value), anchor);
    node.scalar = value;
    Place(node);
  }

  void OnAlias(const YAML::Mark& mark, YAML::anchor_t anchor) override {
    const auto found = anchors_.find(anchor);
    if (found == anchors_.end()) throw Refusal(PositionOf(mark), "has an alias to a value that contains it");
    Count(PositionOf(mark), written_out_.at(found->second));
    PlaceExisting(*found->second, PositionOf(mark), written_out_.at(found->second));
  }

  void OnSequenceStart(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
                       YAML::EmitterStyle::value) override {
    Open(mark, tag, Kind::kList, anchor);
  }
  void OnMapStart(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
                  YAML::EmitterStyle::value) override {
    Open(mark, tag, Kind::kMap, anchor);
  }
  void OnSequenceEnd() override { Close(); }
  void OnMapEnd() override { Close(); }

 private:
  struct Opened {
    YamlNode* node;
    YAML::anchor_t anchor;
    size_t written_out;  // Nodes in it so far, aliases written out.
    bool has_key;        // In a mapping: the next node is the value of `key`.
    bool drop_value;     // …of a key that was there before.
    std::string key;
    SourcePosition key_at;
  };

  YamlNode& New(const YAML::Mark& mark, Kind kind, YAML::anchor_t anchor) {
    Count(PositionOf(mark), 1);
    YamlNode& node = out_.nodes.emplace_back();
    node.kind = kind;
    node.at = PositionOf(mark);
    const bool leaf = kind != Kind::kList && kind != Kind::kMap;
    if (anchor != YAML::NullAnchor && leaf) Remember(anchor, node, 1);
    return node;
  }

  void Remember(YAML::anchor_t anchor, const YamlNode& node, size_t written_out) {
    anchors_[anchor] = &node;
    written_out_[&node] = written_out;
  }

  void Count(SourcePosition at, size_t nodes) {
    nodes_count_ += nodes;
    if (nodes_count_ > limits_.nodes_max) {
      throw Refusal(at, fmt::format("has more than {} values (aliases count as written out)", limits_.nodes_max));
    }
  }

  void RefuseTag(const YAML::Mark& mark, const std::string& tag) {
    throw Refusal(PositionOf(mark), fmt::format("has the tag {}, which manifests do not use", Shown(tag)));
  }

  void Open(const YAML::Mark& mark, const std::string& tag, Kind kind, YAML::anchor_t anchor) {
    const std::string_view own = kind == Kind::kMap ? "tag:yaml.org,2002:map" : "tag:yaml.org,2002:seq";
    if (!tag.empty() && tag != "?" && tag != "!" && tag != own) RefuseTag(mark, tag);
    if (open_.size() >= limits_.depth_max) {
      throw Refusal(PositionOf(mark), fmt::format("is nested deeper than {} levels", limits_.depth_max));
    }
    if (!open_.empty() && open_.back().node->kind == Kind::kMap && !open_.back().has_key) {
      throw Refusal(PositionOf(mark), "has a key that is not a string");
    }
    open_.push_back({&New(mark, kind, anchor), anchor, 1, false, false, {}, {}});
  }

  void Close() {
    const Opened closed = std::move(open_.back());
    open_.pop_back();
    if (closed.anchor != YAML::NullAnchor) Remember(closed.anchor, *closed.node, closed.written_out);
    PlaceExisting(*closed.node, closed.node->at, closed.written_out);
  }

  void Place(YamlNode& node) { PlaceExisting(node, node.at, 1); }

  // Puts a finished node where the innermost open mapping or list expects one.
  void PlaceExisting(const YamlNode& node, SourcePosition at, size_t written_out) {
    if (open_.empty()) {
      root_ = &node;
      return;
    }
    Opened& parent = open_.back();
    parent.written_out += written_out;
    if (parent.node->kind == Kind::kList) {
      parent.node->items.push_back(&node);
    } else if (!parent.has_key) {
      PlaceKey(parent, node, at);
    } else {
      if (!parent.drop_value) parent.node->entries.push_back({std::move(parent.key), parent.key_at, &node});
      parent.has_key = false;
    }
  }

  void PlaceKey(Opened& parent, const YamlNode& node, SourcePosition at) {
    if (node.kind == Kind::kList || node.kind == Kind::kMap || node.kind == Kind::kNull) {
      throw Refusal(at, "has a key that is not a string");
    }
    parent.has_key = true;
    parent.drop_value = false;
    parent.key = node.scalar;
    parent.key_at = at;
    if (parent.node->entries.size() < kScannedKeysMax) {
      ReportIfTwice(parent, std::ranges::find(parent.node->entries, node.scalar, &YamlNode::Entry::key), at);
    } else {
      throw Refusal(at, fmt::format("has a mapping of more than {} keys", kScannedKeysMax));
    }
  }

  void ReportIfTwice(Opened& parent, std::vector<YamlNode::Entry>::iterator first, SourcePosition at) {
    if (first == parent.node->entries.end()) return;
    parent.drop_value = true;
    problems_.push_back({std::string(file_),
                         at.line,
                         at.column,
                         {},
                         fmt::format("the key {} is given twice in one mapping (first in line {})", Shown(first->key),
                                     first->key_at.line)});
  }

  // No mapping of a manifest has that many keys; it keeps the search for a key given twice cheap.
  static constexpr size_t kScannedKeysMax = 1'000;

  YamlFile& out_;
  std::string_view file_;
  const YamlLimits& limits_;
  std::vector<Problem>& problems_;
  std::vector<Opened> open_;
  const YamlNode* root_ = nullptr;
  std::unordered_map<YAML::anchor_t, const YamlNode*> anchors_;
  std::unordered_map<const YamlNode*, size_t> written_out_;
  size_t nodes_count_ = 0;
  size_t documents_count_ = 0;
  SourcePosition document_at_;
};

// The position of the byte `offset` of `bytes`.
SourcePosition PositionAt(std::string_view bytes, size_t offset) {
  const std::string_view before = bytes.substr(0, offset);
  const size_t line_start = before.rfind('\n') + 1;  // npos + 1 is 0.
  return {static_cast<int>(std::ranges::count(before, '\n')) + 1, static_cast<int>(offset - line_start) + 1};
}

// The four hexadecimal digits after `\u` at `offset`, or -1.
int UnicodeEscapeAt(std::string_view bytes, size_t offset) {
  if (offset + 6 > bytes.size() || bytes[offset] != '\\' || bytes[offset + 1] != 'u') return -1;
  int value = 0;
  const char* const end = bytes.data() + offset + 6;
  const auto parsed = std::from_chars(bytes.data() + offset + 2, end, value, 16);
  return parsed.ec == std::errc() && parsed.ptr == end && value >= 0 ? value : -1;
}

void AppendUtf8(std::string& out, int code_point) {
  out += static_cast<char>(0xF0 | (code_point >> 18));
  out += static_cast<char>(0x80 | ((code_point >> 12) & 0x3F));
  out += static_cast<char>(0x80 | ((code_point >> 6) & 0x3F));
  out += static_cast<char>(0x80 | (code_point & 0x3F));
}

// JSON writes a character beyond U+FFFF as two \u escapes (RFC 8259 §7); yaml-cpp takes each for an invalid character.
// They are put in as UTF-8 before it reads. Only double-quoted text gives \u a meaning, and a pair has none elsewhere.
std::string JoinSurrogates(std::string_view bytes) {
  std::string out;
  out.reserve(bytes.size());
  for (size_t i = 0; i < bytes.size();) {
    const int high = UnicodeEscapeAt(bytes, i);
    const int low = high >= 0xD800 && high < 0xDC00 ? UnicodeEscapeAt(bytes, i + 6) : -1;
    if (low >= 0xDC00 && low < 0xE000) {
      AppendUtf8(out, 0x10000 + ((high - 0xD800) << 10) + (low - 0xDC00));
      i += 12;
    } else {
      const size_t taken = bytes[i] == '\\' && i + 1 < bytes.size() ? 2 : 1;  // "\\u" is a backslash and a u.
      out += bytes.substr(i, taken);
      i += taken;
    }
  }
  return out;
}

// Text that yaml-cpp would guess at (UTF-16 by its NUL bytes) or repair silently (invalid UTF-8) is refused before.
bool CheckText(std::string_view bytes, std::string_view file, std::vector<Problem>& problems) {
  if (const size_t nul = bytes.find('\0'); nul != std::string_view::npos) {
    const SourcePosition at = PositionAt(bytes, nul);
    problems.push_back({std::string(file), at.line, at.column, {}, "has a NUL byte; manifests are UTF-8 text"});
    return false;
  }
  const auto valid = simdjson::validate_utf8(bytes.data(), bytes.size());
  if (!valid) problems.push_back({std::string(file), 0, 0, {}, "is not UTF-8 text"});
  return valid;
}

}  // namespace

const YamlNode* YamlNode::Find(std::string_view key) const {
  const auto found = std::ranges::find(entries, key, &Entry::key);
  return found == entries.end() || found->value->kind == Kind::kNull ? nullptr : found->value;
}

std::string_view ToString(YamlNode::Kind kind) {
  switch (kind) {
    case Kind::kNull:
      return "null";
    case Kind::kBool:
      return "a boolean";
    case Kind::kNumber:
      return "a number";
    case Kind::kString:
      return "a string";
    case Kind::kList:
      return "a list";
    case Kind::kMap:
      return "a mapping";
  }
  return "unknown";
}

YamlFile ParseYaml(std::string_view bytes, std::string_view file, const YamlLimits& limits,
                   std::vector<Problem>& problems) {
  YamlFile out;
  if (!CheckText(bytes, file, problems)) return out;
  const auto report = [&](SourcePosition at, std::string message) {
    problems.push_back({std::string(file), at.line, at.column, {}, std::move(message)});
  };
  try {
    std::istringstream stream(JoinSurrogates(bytes));
    YAML::Parser parser(stream);
    TreeBuilder builder(out, file, limits, problems);
    while (parser.HandleNextDocument(builder)) {
    }
  } catch (const Refusal& refusal) {
    report(refusal.at, refusal.what());
  } catch (const YAML::Exception& error) {
    report(PositionOf(error.mark), "is not valid YAML or JSON: " + error.msg);
  } catch (const std::exception& error) {
    report({}, fmt::format("cannot be parsed: {}", error.what()));
  }
  return out;
}

}  // namespace dpa
