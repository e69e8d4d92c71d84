#include "registry/resource.h"

#include <fmt/format.h>

#include <array>
#include <utility>

#include "core/log.h"

namespace dpa {
namespace {

constexpr size_t kShownBytesMax = 80;

constexpr std::array<std::pair<std::string_view, ServiceType>, 8> kServiceTypes = {{
    {"query", ServiceType::kQuery},
    {"route", ServiceType::kRoute},
    {"health", ServiceType::kHealth},
    {"stream", ServiceType::kStream},
    {"admission", ServiceType::kAdmission},
    {"conversion", ServiceType::kConversion},
    {"datasource-proxy", ServiceType::kDatasourceProxy},
    {"datsource-proxy", ServiceType::kDatasourceProxy},
}};

}  // namespace

std::string ToString(const Problem& problem) {
  std::string text = problem.file;
  if (problem.line > 0) text += fmt::format(":{}:{}", problem.line, problem.column);
  if (!text.empty()) text += ": ";
  if (!problem.field.empty()) text += problem.field + ": ";
  return text + problem.message;
}

Problem ProblemAt(const DataPlaneService& service, SourcePosition at, std::string_view field, std::string message) {
  return Problem{service.file, at.line, at.column, service.field_prefix + std::string(field), std::move(message)};
}

std::optional<ServiceType> ServiceTypeOf(const ServiceEntry& entry) {
  for (const auto& [name, type] : kServiceTypes) {
    if (name != entry.type.value) continue;
    return type == ServiceType::kRoute && entry.path.value.empty() ? ServiceType::kResource : type;
  }
  return std::nullopt;
}

std::string Shown(std::string_view value) {
  if (value.size() <= kShownBytesMax) return Quoted(value);
  size_t end = kShownBytesMax;
  while (end > 0 && (static_cast<unsigned char>(value[end]) & 0xC0) == 0x80) --end;  // Never cut inside a character.
  return Quoted(value.substr(0, end)) + "…";
}

}  // namespace dpa
