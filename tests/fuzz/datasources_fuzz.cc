// Any bytes as a provisioning file: problems with sentences, and data sources whose jsonData is JSON.

#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>

#include "core/assert.h"
#include "grpc_bridge/datasources.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  dpa::DataSourceLoadOptions options;
  options.environment = [](const std::string& name) { return name == "UNSET" ? std::nullopt : std::optional(name); };
  options.nodes_max = 2000;
  // A small limit also keeps $__file from reading anything of interest.
  options.file_bytes_max = 1 << 16;
  std::string_view text(reinterpret_cast<const char*>(data), size);
  auto load = dpa::LoadDataSourcesFromText(text, "fuzz.yaml", options, nullptr);
  for (const auto& problem : load.problems) DPA_ASSERT(!problem.message.empty());
  for (const auto& source : load.set->sources()) {
    DPA_ASSERT(nlohmann::json::accept(source.json_data) && source.json_data.starts_with('{'));
    DPA_ASSERT(!source.name.empty() && !source.type.empty() && !source.uid.empty() && source.id > 0);
    DPA_ASSERT(load.set->Find(source.org_id, source.uid) == &source);
  }
  auto again = dpa::LoadDataSourcesFromText(text, "fuzz.yaml", options, load.set.get());
  DPA_ASSERT(again.set->sources().size() == load.set->sources().size());
  for (size_t i = 0; i < load.set->sources().size(); ++i) {
    DPA_ASSERT(again.set->sources()[i].id == load.set->sources()[i].id);
    DPA_ASSERT(again.set->sources()[i].last_updated_ms == load.set->sources()[i].last_updated_ms);
  }
  return 0;
}
