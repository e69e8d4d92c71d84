// A YAML or JSON file as trees with positions, one per document, within limits.
//
// It keeps what a manifest needs and yaml-cpp's own Node does not: where every key and value stands, whether a scalar
// was quoted, and keys that are given twice. Aliases share the node that they name, so that a file of nested aliases
// (the "billion laughs") costs no memory; what it would be when written out is counted, and refused beyond the limit.

#pragma once

#include <cstddef>
#include <deque>
#include <string>
#include <string_view>
#include <vector>

#include "registry/resource.h"

namespace dpa {

struct YamlLimits {
  size_t depth_max = 32;       // Mappings and lists within each other.
  size_t nodes_max = 100'000;  // Per file, aliases counted as written out.
  size_t documents_max = 1'000;
};

struct YamlNode {
  // What Kubernetes' YAML reader makes of it: unquoted 1.0, yes, null are not strings.
  enum class Kind : unsigned char { kNull, kBool, kNumber, kString, kList, kMap };
  struct Entry {
    std::string key;
    SourcePosition key_at;
    const YamlNode* value = nullptr;
  };

  Kind kind = Kind::kNull;
  SourcePosition at;
  std::string scalar;                  // kBool, kNumber, kString: its text.
  std::vector<const YamlNode*> items;  // kList
  std::vector<Entry> entries;          // kMap, in the order of the file; a key stands once.

  // nullptr if this is no mapping, has no such key, or has null there (which Kubernetes takes for absent).
  const YamlNode* Find(std::string_view key) const;
};
// "a string", "a list", … for messages.
std::string_view ToString(YamlNode::Kind kind);

struct YamlFile {
  std::deque<YamlNode> nodes;          // Owns; addresses are stable.
  std::vector<const YamlNode*> roots;  // One per document that is not empty.
};

// Parses `bytes`; problems go to `problems` under the name `file`. After a syntax error or a passed limit the documents
// before it are there and the rest is not. Never throws.
YamlFile ParseYaml(std::string_view bytes, std::string_view file, const YamlLimits& limits,
                   std::vector<Problem>& problems);

}  // namespace dpa
