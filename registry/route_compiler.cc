#include "registry/route_compiler.h"

#include <fmt/format.h>

#include <algorithm>
#include <initializer_list>
#include <string_view>
#include <utility>

#include "core/assert.h"

namespace dpa {
namespace {

ServiceType TypeOf(const ServiceEntry& entry) {
  const auto type = ServiceTypeOf(entry);
  DPA_ASSERT(type.has_value());
  return *type;
}

std::string ApiPrefix(const DataPlaneService& service) {
  return fmt::format("/apis/{}/{}", service.group.value, service.version.value);
}

// `suffixes` below a data source, in both generations of URLs.
std::vector<RoutePattern> UnderDataSource(const DataPlaneService& service, std::string_view method,
                                          std::initializer_list<std::string_view> suffixes) {
  std::vector<RoutePattern> patterns;
  for (const std::string_view collection : {"datasources", "connections"}) {
    for (const std::string_view suffix : suffixes) {
      patterns.push_back({std::string(method),
                          fmt::format("{}/namespaces/{{ns}}/{}/{{uid}}/{}", ApiPrefix(service), collection, suffix)});
    }
  }
  return patterns;
}

RouteTarget TargetOf(const DataPlaneService& service, const ServiceEntry& entry) {
  RouteTarget target;
  target.type = TypeOf(entry);
  target.service_name = service.name.value;
  target.group = service.group.value;
  target.version = service.version.value;
  if (service.http_backend()) {
    target.backend_url = service.backend.base_url.value;
  } else {
    target.plugin_id = service.plugin_id.value;
    target.plugin_type = service.plugin_type.value;
  }
  target.path = entry.path.value;
  return target;
}

// Why this build cannot answer `entry`; empty if it can.
std::string Unsupported(const DataPlaneService& service, const ServiceEntry& entry, const RouteSupport& support) {
  if (service.http_backend() && !support.http_backends) return "a backend of type http";
  if (std::ranges::find(support.types, TypeOf(entry)) != support.types.end()) return {};
  if (TypeOf(entry) == ServiceType::kResource) return "type route without a path";
  return "type " + entry.type.value;
}

}  // namespace

std::vector<RoutePattern> PatternsOf(const DataPlaneService& service, const ServiceEntry& entry) {
  const std::string prefix = ApiPrefix(service);
  switch (TypeOf(entry)) {
    case ServiceType::kQuery:
      return UnderDataSource(service, "", {"query"});
    case ServiceType::kResource:
      return UnderDataSource(service, entry.method.value, {"resources", "resources/{path...}"});
    case ServiceType::kHealth:
      return UnderDataSource(service, "", {"health"});
    case ServiceType::kStream:
      return UnderDataSource(service, "", {"stream/{path...}"});
    case ServiceType::kDatasourceProxy:
      return UnderDataSource(service, "", {"proxy", "proxy/{path...}"});
    case ServiceType::kRoute:
      return {{entry.method.value, prefix + "/namespaces/{ns}" + entry.path.value}};
    case ServiceType::kAdmission:
      return {{"", prefix + "/admission/mutate"}, {"", prefix + "/admission/validate"}};
    case ServiceType::kConversion:
      return {{"", prefix + "/conversion"}};
  }
  return {};
}

CompiledRoutes CompileRoutes(std::span<const DataPlaneService> services, const RouteSupport& support) {
  CompiledRoutes out;
  RouteTableBuilder builder;
  for (const DataPlaneService& service : services) {
    for (size_t i = 0; i < service.services.size(); ++i) {
      const ServiceEntry& entry = service.services[i];
      const std::string field = fmt::format("spec.services[{}]", i);
      if (const std::string what = Unsupported(service, entry, support); !what.empty()) {
        out.warnings.push_back(ProblemAt(service, entry.at, field,
                                         what + " is not implemented in this build; its requests go to the delegate"));
        continue;
      }
      for (const RoutePattern& pattern : PatternsOf(service, entry)) {
        const auto added = builder.Add(pattern.method, pattern.pattern, TargetOf(service, entry));
        if (!added) out.problems.push_back(ProblemAt(service, entry.at, field, added.error()));
      }
    }
  }
  out.table = builder.Build();
  return out;
}

}  // namespace dpa
