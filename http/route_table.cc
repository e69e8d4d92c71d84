// The builder keeps a plain trie, one node per segment. Build compiles it into arrays:
//
//   nodes    first edge and count of edges (literal children), capture child, answers here, answers of the wildcard
//   here edges    a label of one or more segments ("apis/g.example/v1/namespaces": chains without a choice are one
//   edge) and a child slots    for nodes with many edges: open addressing by the hash of the label's first segment
//   (siblings always differ there) answers  method, target, capture names
//
// Match walks nodes depth first: literal, capture, wildcard.

#include "http/route_table.h"

#include <fmt/format.h>

#include <cstring>
#include <limits>
#include <map>
#include <set>
#include <utility>

#include "core/assert.h"
#include "http/message.h"
#include "http/target_readings.h"

namespace dpa {

std::string_view ToString(ServiceType type) {
  switch (type) {
    case ServiceType::kQuery:
      return "query";
    case ServiceType::kRoute:
      return "route";
    case ServiceType::kResource:
      return "resource";
    case ServiceType::kHealth:
      return "health";
    case ServiceType::kStream:
      return "stream";
    case ServiceType::kAdmission:
      return "admission";
    case ServiceType::kConversion:
      return "conversion";
    case ServiceType::kDatasourceProxy:
      return "datasource-proxy";
  }
  return "unknown";
}

namespace {

constexpr uint32_t kNoNode = std::numeric_limits<uint32_t>::max();
// Up to this many siblings a linear look at their keys is quicker than the slots.
constexpr uint32_t kLinearEdgesMax = 8;

// Mixes length and bytes, eight at a time. Labels come from configuration, so no secret is needed; a client's segment
// that collides costs one comparison.
uint32_t HashSegment(std::string_view segment) {
  constexpr uint64_t kMultiplier = 0x9E3779B97F4A7C15u;
  uint64_t hash = segment.size() * kMultiplier;
  const char* at = segment.data();
  size_t left = segment.size();
  for (; left >= 8; at += 8, left -= 8) {
    uint64_t word;
    std::memcpy(&word, at, 8);
    hash = (hash ^ word) * kMultiplier;
    hash ^= hash >> 29;
  }
  uint64_t tail = 0;
  for (size_t i = 0; i < left; ++i) tail |= static_cast<uint64_t>(static_cast<unsigned char>(at[i])) << (8 * i);
  hash = (hash ^ tail) * kMultiplier;
  return static_cast<uint32_t>(hash >> 32);
}

std::string_view FirstSegment(std::string_view path) {
  const void* slash = std::memchr(path.data(), '/', path.size());
  return slash ? path.substr(0, static_cast<const char*>(slash) - path.data()) : path;
}

}  // namespace

// --- Match
// -----------------------------------------------------------------------------------------------------------------

struct RouteTable::Trie {
  struct Answer {
    std::string method;  // Empty: every method.
    uint32_t target;
    std::vector<std::string> names;  // Of the captures, the wildcard's last.
  };
  struct Answers {
    uint32_t first = 0;
    uint32_t count = 0;
  };
  struct Edge {
    uint32_t hash;
    uint32_t first_size;  // Of the label's first segment.
    uint32_t child;
    std::string label;
  };
  struct Node {
    uint32_t edges_first = 0;
    uint32_t edges_count = 0;
    uint32_t slots_first = 0;
    uint32_t slots_mask = 0;  // 0: no slots.
    uint32_t segment_size_max = 0;
    uint32_t capture = kNoNode;
    Answers here;
    Answers wildcard;
  };

  std::vector<Node> nodes;
  std::vector<Edge> edges;
  std::vector<uint32_t> slots;  // Index of an edge plus one; 0 is free.
  std::vector<Answer> answers;
  std::vector<RouteTarget> targets;

  const Edge* FindEdge(const Node& node, std::string_view segment) const;
};

const RouteTable::Trie::Edge* RouteTable::Trie::FindEdge(const Node& node, std::string_view segment) const {
  // A segment longer than every label is not even hashed.
  if (node.edges_count == 0 || segment.empty() || segment.size() > node.segment_size_max) return nullptr;
  const auto is = [&](const Edge& edge) {
    return edge.first_size == segment.size() && std::memcmp(edge.label.data(), segment.data(), segment.size()) == 0;
  };
  if (node.slots_mask == 0) {
    for (uint32_t i = 0; i < node.edges_count; ++i) {
      const Edge& edge = edges[node.edges_first + i];
      if (is(edge)) return &edge;
    }
    return nullptr;
  }
  const uint32_t hash = HashSegment(segment);
  for (uint32_t at = hash & node.slots_mask; slots[node.slots_first + at] != 0; at = (at + 1) & node.slots_mask) {
    const Edge& edge = edges[slots[node.slots_first + at] - 1];
    if (edge.hash == hash && is(edge)) return &edge;
  }
  return nullptr;
}

namespace {

// One Match in progress. Recursion goes at most RouteTableBuilder::kSegmentsMax deep.
template <class Trie>
class Walk {
 public:
  Walk(const Trie& trie, std::string_view method, std::string_view path, RouteMatch& match)
      : trie_(trie), method_(method), path_(path), match_(match) {}

  // `at` is where the next segment begins; path_.size() + 1 when the path has been used up.
  bool From(uint32_t node_index, size_t at, uint8_t captures_count) {
    const auto& node = trie_.nodes[node_index];
    if (at > path_.size()) return Accept(node.here, captures_count);

    const std::string_view rest = path_.substr(at);
    const std::string_view segment = FirstSegment(rest);
    if (const auto* edge = trie_.FindEdge(node, segment); edge && Follows(rest, edge->label)) {
      if (From(edge->child, at + edge->label.size() + 1, captures_count)) return true;
    }
    if (node.capture != kNoNode && !segment.empty()) {
      match_.captures[captures_count].value = segment;
      if (From(node.capture, at + segment.size() + 1, captures_count + 1)) return true;
    }
    if (node.wildcard.count == 0) return false;
    match_.captures[captures_count].value = rest;
    match_.has_wildcard = Accept(node.wildcard, captures_count + 1);
    return match_.has_wildcard;
  }

 private:
  // `rest` begins with the label, up to the end of a segment.
  static bool Follows(std::string_view rest, std::string_view label) {
    return rest.starts_with(label) && (rest.size() == label.size() || rest[label.size()] == '/');
  }

  bool Accept(const typename Trie::Answers& answers, uint8_t captures_count) {
    if (answers.count == 0) return false;
    const auto* best = BestFor(answers);
    if (!best) {
      match_.method_mismatch = true;
      return false;
    }
    match_.target = &trie_.targets[best->target];
    match_.method_mismatch = false;
    match_.captures_count = captures_count;
    for (uint8_t i = 0; i < captures_count; ++i) match_.captures[i].name = best->names[i];
    return true;
  }

  const typename Trie::Answer* BestFor(const typename Trie::Answers& answers) const {
    const typename Trie::Answer* best = nullptr;
    int best_rank = 0;
    for (uint32_t i = 0; i < answers.count; ++i) {
      const auto& answer = trie_.answers[answers.first + i];
      const int rank = Rank(answer.method);
      if (rank > best_rank) best = &answer, best_rank = rank;
    }
    return best;
  }

  // The method itself, then GET for HEAD, then every method.
  int Rank(std::string_view registered) const {
    if (registered == method_) return 3;
    if (registered == "GET" && method_ == "HEAD") return 2;
    return registered.empty() ? 1 : 0;
  }

  const Trie& trie_;
  const std::string_view method_;
  const std::string_view path_;
  RouteMatch& match_;
};

}  // namespace

RouteTable::RouteTable() = default;
RouteTable::~RouteTable() = default;
RouteTable::RouteTable(RouteTable&&) noexcept = default;
RouteTable& RouteTable::operator=(RouteTable&&) noexcept = default;

void RouteTable::Match(std::string_view method, std::string_view path, RouteMatch& match) const noexcept {
  match.target = nullptr;
  match.method_mismatch = false;
  match.captures_count = 0;
  match.has_wildcard = false;
  if (!trie_ || !path.starts_with('/') || method.empty()) return;
  Walk<Trie>(*trie_, method, path, match).From(0, 1, 0);
}

std::vector<std::string> RouteTable::BackendUrls() const {
  std::set<std::string> urls;
  if (trie_) {
    for (const RouteTarget& target : trie_->targets) {
      if (!target.backend_url.empty()) urls.insert(target.backend_url);
    }
  }
  return {urls.begin(), urls.end()};
}

size_t RouteTable::route_count() const { return trie_ ? trie_->targets.size() : 0; }

// --- Build
// -----------------------------------------------------------------------------------------------------------------

struct RouteTableBuilder::Node {
  using Answer = RouteTable::Trie::Answer;

  std::map<std::string, std::unique_ptr<Node>, std::less<>> literals;
  std::unique_ptr<Node> capture;
  std::vector<Answer> here;
  std::vector<Answer> wildcard;

  // Writes this node and what is below it into `trie`; returns its index.
  uint32_t Compile(RouteTable::Trie& trie);

 private:
  // There is no choice at this node: it can be folded into the edge that leads to it.
  bool is_link() const { return here.empty() && wildcard.empty() && !capture && literals.size() == 1; }
  void CompileEdges(RouteTable::Trie& trie, uint32_t index);
  static RouteTable::Trie::Answers CompileAnswers(RouteTable::Trie& trie, std::vector<Answer>& answers);
  static void MakeSlots(RouteTable::Trie& trie, uint32_t index);
};

namespace {

enum class SegmentKind : uint8_t { kLiteral, kCapture, kWildcard };

struct Segment {
  SegmentKind kind;
  std::string text;  // The literal, or the name.
};

using ParsedPattern = std::expected<std::vector<Segment>, std::string>;

bool IsIdentifier(std::string_view name) {
  const auto is_letter = [](char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_'; };
  if (name.empty() || !is_letter(name[0])) return false;
  for (const char c : name) {
    if (!is_letter(c) && !(c >= '0' && c <= '9')) return false;
  }
  return true;
}

std::string DecodedLiteral(std::string_view text) {
  std::string decoded;
  for (; !text.empty(); text.remove_prefix(1)) {
    char byte = text.front();
    if (DecodeEscape(text, byte)) text.remove_prefix(2);
    decoded += byte;
  }
  return decoded;
}

// What is wrong with a literal segment, empty if nothing.
std::string LiteralFault(std::string_view text) {
  if (text.empty()) return "is empty";
  if (text == "." || text == "..") return "is a dot segment, which clients remove";
  for (const char c : text) {
    if (c == '{' || c == '}') return fmt::format("\"{}\" has a brace that is not around the whole segment", text);
    if (c == '?' || c == '#') return fmt::format("\"{}\" has a '{}', which ends a path", text, c);
    if (c == ';') return fmt::format("\"{}\" has a ';', which servers cut a segment at", text);
    if (c <= ' ' || c > '~') return "has a byte that a path cannot hold (encode it)";
  }
  for (size_t at = text.find('%'); at < text.size(); at = text.find('%', at + 3)) {
    char byte;
    if (!DecodeEscape(text.substr(at), byte)) return fmt::format("\"{}\" has a malformed escape", text);
  }
  const std::string decoded = DecodedLiteral(text);
  if (decoded == "." || decoded == "..") return "is an encoded dot segment, which servers remove";
  for (const char c : decoded) {
    if (c != '/' && c != '\\' && c != '\0') continue;
    return fmt::format("\"{}\" has an encoded separator, which servers read differently", text);
  }
  return {};
}

std::expected<Segment, std::string> ParseSegment(std::string_view text) {
  if (text.size() < 2 || text.front() != '{' || text.back() != '}') {
    if (std::string fault = LiteralFault(text); !fault.empty()) return std::unexpected(std::move(fault));
    return Segment{SegmentKind::kLiteral, std::string(text)};
  }
  std::string_view name = text.substr(1, text.size() - 2);
  SegmentKind kind = SegmentKind::kCapture;
  if (name.ends_with("...")) {
    name.remove_suffix(3);
    kind = SegmentKind::kWildcard;
  }
  if (!IsIdentifier(name)) {
    return std::unexpected(fmt::format("\"{}\" needs a name of letters, digits and '_' between the braces", text));
  }
  return Segment{kind, std::string(name)};
}

std::string CheckCaptures(const std::vector<Segment>& segments) {
  size_t captures_count = 0;
  for (size_t i = 0; i < segments.size(); ++i) {
    if (segments[i].kind == SegmentKind::kLiteral) continue;
    ++captures_count;
    if (segments[i].kind == SegmentKind::kWildcard && i + 1 != segments.size()) {
      return fmt::format("the wildcard \"{{{}...}}\" is not the last segment", segments[i].text);
    }
    for (size_t earlier = 0; earlier < i; ++earlier) {
      if (segments[earlier].kind != SegmentKind::kLiteral && segments[earlier].text == segments[i].text) {
        return fmt::format("the name \"{}\" is used twice", segments[i].text);
      }
    }
  }
  if (captures_count <= RouteMatch::kCapturesMax) return {};
  return fmt::format("{} captures, at most {} are possible", captures_count, RouteMatch::kCapturesMax);
}

ParsedPattern ParsePattern(std::string_view pattern) {
  if (!pattern.starts_with('/')) return std::unexpected("it does not begin with '/'");
  std::vector<Segment> segments;
  for (size_t begin = 1; begin <= pattern.size();) {
    const size_t end = std::min(pattern.find('/', begin), pattern.size());
    auto segment = ParseSegment(pattern.substr(begin, end - begin));
    if (!segment) return std::unexpected(fmt::format("segment {} {}", segments.size() + 1, segment.error()));
    segments.push_back(std::move(*segment));
    begin = end + 1;
  }
  if (segments.size() > RouteTableBuilder::kSegmentsMax) {
    return std::unexpected(
        fmt::format("{} segments, at most {} are possible", segments.size(), RouteTableBuilder::kSegmentsMax));
  }
  if (std::string fault = CheckCaptures(segments); !fault.empty()) return std::unexpected(std::move(fault));
  return segments;
}

// Where the answers of a pattern stand; the way there is made.
template <class Node>
auto& PlaceOf(Node& root, const std::vector<Segment>& segments) {
  Node* node = &root;
  for (const Segment& segment : segments) {
    if (segment.kind == SegmentKind::kWildcard) return node->wildcard;
    const bool capture = segment.kind == SegmentKind::kCapture;
    std::unique_ptr<Node>& child = capture ? node->capture : node->literals[segment.text];
    if (!child) child = std::make_unique<Node>();
    node = child.get();
  }
  return node->here;
}

// Returns whether there was anything to decode.
bool DecodeLiterals(std::vector<Segment>& segments) {
  bool decoded = false;
  for (Segment& segment : segments) {
    if (segment.kind != SegmentKind::kLiteral || !segment.text.contains('%')) continue;
    segment.text = DecodedLiteral(segment.text);
    decoded = true;
  }
  return decoded;
}

std::vector<std::string> NamesOf(const std::vector<Segment>& segments) {
  std::vector<std::string> names;
  for (const Segment& segment : segments) {
    if (segment.kind != SegmentKind::kLiteral) names.push_back(segment.text);
  }
  return names;
}

}  // namespace

RouteTableBuilder::RouteTableBuilder() : root_(std::make_unique<Node>()) {}
RouteTableBuilder::~RouteTableBuilder() = default;

std::expected<void, std::string> RouteTableBuilder::Add(std::string_view method, std::string_view pattern,
                                                        RouteTarget target) {
  if (!method.empty() && !IsToken(method)) {
    return std::unexpected(fmt::format("pattern \"{}\": \"{}\" is not a method", pattern, method));
  }
  ParsedPattern segments = ParsePattern(pattern);
  if (!segments) return std::unexpected(fmt::format("pattern \"{}\": {}", pattern, segments.error()));

  std::vector<std::vector<Node::Answer>*> places = {&PlaceOf(*root_, *segments)};
  if (DecodeLiterals(*segments)) places.push_back(&PlaceOf(*root_, *segments));
  for (const auto* answers : places) {
    for (const Node::Answer& other : *answers) {
      if (other.method != method) continue;
      return std::unexpected(fmt::format("pattern \"{}\" for {} belongs to service \"{}\" already", pattern,
                                         method.empty() ? "every method" : method,
                                         targets_[other.target].service_name));
    }
  }
  Node::Answer answer{std::string(method), static_cast<uint32_t>(targets_.size()), NamesOf(*segments)};
  for (auto* answers : places) answers->push_back(answer);
  targets_.push_back(std::move(target));
  return {};
}

RouteTable RouteTableBuilder::Build() {
  DPA_ASSERT(root_ != nullptr);
  RouteTable table;
  table.trie_ = std::make_unique<RouteTable::Trie>();
  root_->Compile(*table.trie_);
  table.trie_->targets = std::move(targets_);
  root_.reset();
  return table;
}

uint32_t RouteTableBuilder::Node::Compile(RouteTable::Trie& trie) {
  const auto index = static_cast<uint32_t>(trie.nodes.size());
  trie.nodes.emplace_back();
  trie.nodes[index].here = CompileAnswers(trie, here);
  trie.nodes[index].wildcard = CompileAnswers(trie, wildcard);
  CompileEdges(trie, index);
  if (capture) {
    // Compile may move the array, so it comes before the look-up.
    const uint32_t child = capture->Compile(trie);
    trie.nodes[index].capture = child;
  }
  return index;
}

RouteTable::Trie::Answers RouteTableBuilder::Node::CompileAnswers(RouteTable::Trie& trie,
                                                                  std::vector<Answer>& answers) {
  const RouteTable::Trie::Answers range{static_cast<uint32_t>(trie.answers.size()),
                                        static_cast<uint32_t>(answers.size())};
  for (Answer& answer : answers) trie.answers.push_back(std::move(answer));
  return range;
}

void RouteTableBuilder::Node::CompileEdges(RouteTable::Trie& trie, uint32_t index) {
  const auto first = static_cast<uint32_t>(trie.edges.size());
  const auto count = static_cast<uint32_t>(literals.size());
  trie.edges.resize(first + count);
  trie.nodes[index].edges_first = first;
  trie.nodes[index].edges_count = count;
  uint32_t at = first;
  for (auto& [text, child] : literals) {
    std::string label = text;
    Node* end = child.get();
    while (end->is_link()) {
      label += '/';
      label += end->literals.begin()->first;
      end = end->literals.begin()->second.get();
    }
    const auto size = static_cast<uint32_t>(text.size());
    trie.nodes[index].segment_size_max = std::max(trie.nodes[index].segment_size_max, size);
    const uint32_t child_index = end->Compile(trie);
    trie.edges[at++] = RouteTable::Trie::Edge{HashSegment(text), size, child_index, std::move(label)};
  }
  MakeSlots(trie, index);
}

void RouteTableBuilder::Node::MakeSlots(RouteTable::Trie& trie, uint32_t index) {
  RouteTable::Trie::Node& node = trie.nodes[index];
  if (node.edges_count <= kLinearEdgesMax) return;
  uint32_t size = 2 * kLinearEdgesMax;
  while (size < 2 * node.edges_count) size *= 2;
  node.slots_first = static_cast<uint32_t>(trie.slots.size());
  node.slots_mask = size - 1;
  trie.slots.resize(trie.slots.size() + size, 0);
  for (uint32_t i = 0; i < node.edges_count; ++i) {
    uint32_t at = trie.edges[node.edges_first + i].hash & node.slots_mask;
    while (trie.slots[node.slots_first + at] != 0) at = (at + 1) & node.slots_mask;
    trie.slots[node.slots_first + at] = node.edges_first + i + 1;
  }
}

}  // namespace dpa
