// Route tables and paths: lines of patterns, an empty line, a path. No crash, and the compiled trie agrees with the
// plain rule.

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string>
#include <string_view>
#include <vector>

#include "http/route_table.h"
#include "tests/http/route_rule.h"

using namespace dpa;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  std::string_view text(reinterpret_cast<const char*>(data), size);
  RouteTableBuilder builder;
  std::vector<std::string> patterns;
  while (!text.empty() && text.front() != '\n') {
    const size_t end = std::min(text.find('\n'), text.size());
    const std::string pattern(text.substr(0, end));
    if (builder.Add("", pattern, {.service_name = pattern})) patterns.push_back(pattern);
    text.remove_prefix(std::min(end + 1, text.size()));
  }
  if (!text.empty()) text.remove_prefix(1);

  const RouteTable table = builder.Build();
  RouteMatch match;
  table.Match("GET", text, match);
  const std::string found = match.target ? match.target->service_name : "-";
  const std::string path(text);
  if (found != (path.starts_with('/') ? Rule(patterns).Best(path) : "-")) std::abort();
  return 0;
}
