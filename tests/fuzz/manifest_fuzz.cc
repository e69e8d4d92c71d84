// Goal: no bytes in a manifest crash, hang or bloat the control plane, and what passes validation compiles. Method:
// read, validate, compile; every service that is accepted must be one whose patterns the route table takes or names as
// a problem.

#include <cstddef>
#include <cstdint>
#include <string_view>

#include "core/assert.h"
#include "registry/manifest.h"
#include "registry/route_compiler.h"
#include "registry/validation.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace dpa;
  const std::string_view bytes(reinterpret_cast<const char*>(data), size);
  Manifests manifests;
  ParseManifest(bytes, "fuzz.yaml", {}, manifests);
  ValidateServices(manifests.services, manifests.problems);
  for (const Problem& problem : manifests.problems) {
    DPA_ASSERT(!problem.message.empty());
    DPA_ASSERT(problem.line >= 0 && problem.column >= 0);
    DPA_ASSERT(ToString(problem).starts_with("fuzz.yaml:"));
  }
  if (!manifests.problems.empty()) return 0;
  const RouteSupport everything = {
      {ServiceType::kQuery, ServiceType::kRoute, ServiceType::kResource, ServiceType::kHealth, ServiceType::kStream,
       ServiceType::kAdmission, ServiceType::kConversion, ServiceType::kDatasourceProxy},
      true};
  const CompiledRoutes compiled = CompileRoutes(manifests.services, everything);
  DPA_ASSERT(compiled.warnings.empty());
  return 0;
}
