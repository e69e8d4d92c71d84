#include "registry/validation.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <map>
#include <set>
#include <utility>

#include "registry/nearest_name.h"

namespace dpa {
namespace {

constexpr std::array<std::string_view, 2> kPluginTypes = {"app", "datasource"};
constexpr std::array<std::string_view, 2> kBackendTypes = {"plugin", "http"};
constexpr std::array<std::string_view, 7> kServiceTypeNames = {"query",     "route",      "health",          "stream",
                                                               "admission", "conversion", "datasource-proxy"};
// The methods that an HTTP/1 front end takes (IANA's registry, without CONNECT, which has no path).
constexpr std::array<std::string_view, 31> kMethods = {
    "GET",    "HEAD",   "POST",     "PUT",        "PATCH",      "DELETE",   "OPTIONS",   "TRACE",
    "ACL",    "BIND",   "CHECKOUT", "COPY",       "LINK",       "LOCK",     "MERGE",     "MKCOL",
    "MOVE",   "NOTIFY", "PURGE",    "REBIND",     "REPORT",     "SEARCH",   "SUBSCRIBE", "UNBIND",
    "UNLINK", "UNLOCK", "M-SEARCH", "MKACTIVITY", "MKCALENDAR", "PROPFIND", "PROPPATCH"};

constexpr size_t kDnsNameBytesMax = 253;
constexpr size_t kDnsLabelBytesMax = 63;
constexpr size_t kPluginIdBytesMax = 128;
constexpr size_t kUnixPathBytesMax = 107;  // sockaddr_un, less its terminating zero.
// The namespace takes one of the captures of a match.
constexpr size_t kPathCapturesMax = RouteMatch::kCapturesMax - 1;

bool IsDigit(char c) { return c >= '0' && c <= '9'; }
bool IsLower(char c) { return c >= 'a' && c <= 'z'; }
bool IsAlphanumeric(char c) { return IsDigit(c) || IsLower(c) || (c >= 'A' && c <= 'Z'); }
bool IsHex(char c) { return IsDigit(c) || (c >= 'a' && c <= 'f') || (c >= 'A' && c <= 'F'); }

std::string Listed(std::span<const std::string_view> words) { return fmt::format("{}", fmt::join(words, ", ")); }

template <class F>
void ForEachPart(std::string_view text, char separator, F visit) {
  while (true) {
    const size_t end = text.find(separator);
    visit(text.substr(0, end), end == std::string_view::npos);
    if (end == std::string_view::npos) return;
    text.remove_prefix(end + 1);
  }
}

bool IsDnsLabel(std::string_view label) {
  const auto inner = [](char c) { return IsLower(c) || IsDigit(c) || c == '-'; };
  return !label.empty() && label.size() <= kDnsLabelBytesMax && label.front() != '-' && label.back() != '-' &&
         std::ranges::all_of(label, inner);
}

// Takes a number without a leading zero off `text`; `zero` allows 0 itself.
bool TakeNumber(std::string_view& text, bool zero) {
  const size_t digits = std::ranges::find_if_not(text, IsDigit) - text.begin();
  const bool leading_zero = digits > 0 && text[0] == '0';
  if (digits == 0 || (leading_zero && (digits > 1 || !zero))) return false;
  text.remove_prefix(digits);
  return true;
}

using Problems = std::vector<Problem>;

// Reports an absent or empty field and returns false.
bool CheckPresent(const DataPlaneService& service, const Field& field, std::string_view name, Problems& problems) {
  if (!field.value.empty()) return true;
  problems.push_back(ProblemAt(service, field.at, name, field.present ? "must not be empty" : "is required"));
  return false;
}

void CheckOneOf(const DataPlaneService& service, const Field& field, std::string_view name,
                std::span<const std::string_view> words, Problems& problems) {
  if (std::ranges::find(words, field.value) != words.end()) return;
  problems.push_back(ProblemAt(
      service, field.at, name,
      fmt::format("must be one of {}, not {}{}", Listed(words), Shown(field.value), DidYouMean(field.value, words))));
}

void ValidateGroupAndVersion(const DataPlaneService& service, Problems& problems) {
  const std::string& group = service.group.value;
  if (CheckPresent(service, service.group, "spec.group", problems)) {
    if (!IsDnsSubdomain(group)) {
      problems.push_back(ProblemAt(service, service.group.at, "spec.group",
                                   fmt::format("must be a DNS name in lower case (RFC 1123), not {}", Shown(group))));
    } else if (group == kAggregationGroup) {
      problems.push_back(ProblemAt(service, service.group.at, "spec.group",
                                   fmt::format("must not be {}: that is the registry's own group", kAggregationGroup)));
    }
  }
  if (CheckPresent(service, service.version, "spec.version", problems) && !IsApiVersion(service.version.value)) {
    problems.push_back(ProblemAt(
        service, service.version.at, "spec.version",
        fmt::format("must be a version such as v1, v1beta2 or v0alpha1, not {}", Shown(service.version.value))));
  }
}

void ValidateName(const DataPlaneService& service, Problems& problems) {
  if (!CheckPresent(service, service.name, "metadata.name", problems)) return;
  if (service.group.value.empty() || service.version.value.empty()) return;
  const std::string expected = service.version.value + "." + service.group.value;
  if (service.name.value == expected) return;
  problems.push_back(ProblemAt(
      service, service.name.at, "metadata.name",
      fmt::format("must be <version>.<group> of the spec, {}, not {}", Shown(expected), Shown(service.name.value))));
}

void ValidatePlugin(const DataPlaneService& service, Problems& problems) {
  const auto id_char = [](char c) { return IsAlphanumeric(c) || c == '.' || c == '_' || c == '-'; };
  const std::string& id = service.plugin_id.value;
  const bool required = !service.http_backend();
  if (required ? CheckPresent(service, service.plugin_id, "spec.pluginID", problems) : !id.empty()) {
    if (id.size() > kPluginIdBytesMax || !std::ranges::all_of(id, id_char) || !IsAlphanumeric(id.front())) {
      problems.push_back(
          ProblemAt(service, service.plugin_id.at, "spec.pluginID",
                    fmt::format("must be at most {} letters, digits, '.', '_' or '-', the first a letter "
                                "or digit, not {}",
                                kPluginIdBytesMax, Shown(id))));
    }
  }
  const bool has_type = required ? CheckPresent(service, service.plugin_type, "spec.pluginType", problems)
                                 : !service.plugin_type.value.empty();
  if (has_type) CheckOneOf(service, service.plugin_type, "spec.pluginType", kPluginTypes, problems);
}

void ValidateBackend(const DataPlaneService& service, Problems& problems) {
  const BackendSpec& backend = service.backend;
  if (!backend.present) return;
  if (!CheckPresent(service, backend.type, "spec.backend.type", problems)) return;
  CheckOneOf(service, backend.type, "spec.backend.type", kBackendTypes, problems);
  if (!service.http_backend()) {
    if (backend.base_url.present) {
      problems.push_back(
          ProblemAt(service, backend.base_url.at, "spec.backend.baseURL", "is only for a backend of type http"));
    }
    return;
  }
  if (!CheckPresent(service, backend.base_url, "spec.backend.baseURL", problems)) return;
  if (const auto checked = CheckBaseUrl(backend.base_url.value); !checked) {
    problems.push_back(ProblemAt(service, backend.base_url.at, "spec.backend.baseURL", checked.error()));
  }
}

void ValidateMethod(const DataPlaneService& service, const Field& method, const std::string& name, Problems& problems) {
  if (method.value.empty() || std::ranges::find(kMethods, method.value) != kMethods.end()) return;
  problems.push_back(
      ProblemAt(service, method.at, name,
                fmt::format("must be an HTTP method in upper case, or left out for every method, not {}{}",
                            Shown(method.value), DidYouMean(method.value, kMethods))));
}

void ValidateRoute(const DataPlaneService& service, const ServiceEntry& entry, const std::string& name,
                   Problems& problems) {
  ValidateMethod(service, entry.method, name + ".method", problems);
  if (entry.path.value.empty()) return;
  if (const auto checked = CheckRoutePath(entry.path.value); !checked) {
    problems.push_back(ProblemAt(service, entry.path.at, name + ".path", checked.error()));
  }
}

// A service of a type other than route has its paths by its type.
void ValidateFixedService(const DataPlaneService& service, const ServiceEntry& entry, const std::string& name,
                          Problems& problems) {
  const std::string type = Shown(entry.type.value);
  for (const auto& [field, key] : {std::pair{&entry.method, "method"}, std::pair{&entry.path, "path"}}) {
    if (field->value.empty()) continue;
    problems.push_back(
        ProblemAt(service, field->at, fmt::format("{}.{}", name, key),
                  fmt::format("is only for services of type route; {} has its paths by its type", type)));
  }
  if (service.http_backend()) {
    problems.push_back(ProblemAt(service, entry.type.at, name + ".type",
                                 fmt::format("an HTTP backend serves type route only; {} needs a plugin", type)));
  }
}

// The path with its captures' names left out: two paths of the same shape are the same pattern.
std::string ShapeOf(std::string_view path) {
  std::string shape;
  for (bool inside = false; const char c : path) {
    if (!inside || c == '}' || c == '.') shape += c;
    inside = c == '{' || (inside && c != '}');
  }
  return shape;
}

// What may stand once in an object: a type, or a route's method and path.
std::string IdentityOf(const ServiceEntry& entry, ServiceType type) {
  if (type != ServiceType::kRoute && type != ServiceType::kResource) return fmt::format("{}", static_cast<int>(type));
  return fmt::format("route {} {}", entry.method.value, ShapeOf(entry.path.value));
}

void ValidateServiceList(const DataPlaneService& service, Problems& problems) {
  std::map<std::string, size_t> first_of;
  for (size_t i = 0; i < service.services.size(); ++i) {
    const ServiceEntry& entry = service.services[i];
    if (!entry.type.present) continue;  // Reported by the reader.
    const std::string name = fmt::format("spec.services[{}]", i);
    const auto type = ServiceTypeOf(entry);
    if (!type) {
      CheckOneOf(service, entry.type, name + ".type", kServiceTypeNames, problems);
      continue;
    }
    const bool is_route = *type == ServiceType::kRoute || *type == ServiceType::kResource;
    is_route ? ValidateRoute(service, entry, name, problems) : ValidateFixedService(service, entry, name, problems);
    const auto [first, inserted] = first_of.emplace(IdentityOf(entry, *type), i);
    if (inserted) continue;
    const std::string_view what = is_route ? "declares the same method and path as" : "declares the same type as";
    problems.push_back(ProblemAt(
        service, entry.at, name,
        fmt::format("{} spec.services[{}] in line {}", what, first->second, service.services[first->second].at.line)));
  }
}

std::string PlaceOf(const DataPlaneService& service) {
  if (service.file.empty()) return Shown(service.name.value);
  return fmt::format("{} in {}:{}", Shown(service.name.value), service.file, service.at.line);
}

bool IsCaptureName(std::string_view name) {
  return !name.empty() && !IsDigit(name[0]) &&
         std::ranges::all_of(name, [](char c) { return IsAlphanumeric(c) || c == '_'; });
}

// What a `{…}` segment captures: nullopt if it is none, else the name, with `wildcard` set for `{name...}`.
std::expected<std::string_view, std::string> CaptureName(std::string_view segment, bool is_last) {
  if (segment.front() != '{' || segment.back() != '}') {
    return std::unexpected(fmt::format("the segment {} must be a literal or a whole {{name}}", Shown(segment)));
  }
  std::string_view name = segment.substr(1, segment.size() - 2);
  if (name == "$") return std::unexpected(std::string("{$} is not supported: a path must not end in a slash"));
  const bool wildcard = name.ends_with("...");
  if (wildcard) name.remove_suffix(3);
  if (!IsCaptureName(name)) {
    return std::unexpected(
        fmt::format("the name in {} must be letters, digits and '_', not starting with a digit", Shown(segment)));
  }
  if (name == "ns")
    return std::unexpected(std::string("the name in {ns} is taken: it is the namespace before the path"));
  if (wildcard && !is_last) return std::unexpected(fmt::format("{} must be the last segment", Shown(segment)));
  return name;
}

std::string PercentDecoded(std::string_view segment) {
  std::string out;
  for (size_t i = 0; i < segment.size(); ++i) {
    unsigned value = 0;
    const bool escape = segment[i] == '%' && i + 2 < segment.size() && IsHex(segment[i + 1]) && IsHex(segment[i + 2]);
    if (escape) std::from_chars(segment.data() + i + 1, segment.data() + i + 3, value, 16);
    out += escape ? static_cast<char>(value) : segment[i];
    if (escape) i += 2;
  }
  return out;
}

std::expected<void, std::string> CheckLiteral(std::string_view segment) {
  static constexpr std::string_view kMarks = "-._~!$&'()*+,;=:@";  // RFC 3986 §3.3, pchar.
  for (size_t i = 0; i < segment.size(); ++i) {
    const char c = segment[i];
    if (IsAlphanumeric(c) || kMarks.contains(c)) continue;
    if (c == '%' && i + 2 < segment.size() && IsHex(segment[i + 1]) && IsHex(segment[i + 2])) continue;
    if (c == '?' || c == '#') return std::unexpected(fmt::format("must be a path alone, without '{}'", c));
    return std::unexpected(
        fmt::format("the segment {} has a character that must be percent-encoded in a URL", Shown(segment)));
  }
  const std::string decoded = PercentDecoded(segment);
  if (decoded == "." || decoded == "..") return std::unexpected(std::string("must not have '.' or '..' segments"));
  for (const char c : decoded) {
    if (c != '/' && c != '\\' && c != '\0' && c != ';') continue;
    return std::unexpected(fmt::format(
        "the segment {} has a ';' or an encoded separator or NUL, which servers read differently", Shown(segment)));
  }
  return {};
}

std::expected<void, std::string> CheckPort(std::string_view port) {
  unsigned value = 0;
  const auto parsed = std::from_chars(port.data(), port.data() + port.size(), value);
  if (parsed.ec != std::errc() || parsed.ptr != port.data() + port.size() || value == 0 || value > 65535) {
    return std::unexpected(fmt::format("the port {} must be a number from 1 to 65535", Shown(port)));
  }
  return {};
}

std::expected<void, std::string> CheckAuthority(std::string_view authority) {
  if (authority.contains('@')) return std::unexpected(std::string("must not hold a user or password"));
  std::string_view host = authority;
  std::string_view rest;
  if (authority.starts_with('[')) {
    const size_t end = authority.find(']');
    if (end == std::string_view::npos) return std::unexpected(std::string("the IPv6 address must end with ']'"));
    host = authority.substr(1, end - 1);
    rest = authority.substr(end + 1);
    const auto address_char = [](char c) { return IsHex(c) || c == ':' || c == '.'; };
    if (!host.contains(':') || !std::ranges::all_of(host, address_char)) {
      return std::unexpected(fmt::format("{} is no IPv6 address", Shown(host)));
    }
  } else {
    host = authority.substr(0, authority.find(':'));
    rest = authority.substr(host.size());
    const auto host_char = [](char c) { return IsAlphanumeric(c) || c == '.' || c == '-' || c == '_'; };
    if (host.empty() || host.size() > kDnsNameBytesMax || !std::ranges::all_of(host, host_char)) {
      return std::unexpected(fmt::format("the host {} must be a name or an address", Shown(host)));
    }
  }
  if (rest.empty()) return {};
  if (rest[0] != ':') return std::unexpected(fmt::format("{} after the host is not understood", Shown(rest)));
  return CheckPort(rest.substr(1));
}

std::expected<void, std::string> CheckUrlPath(std::string_view path) {
  if (path.contains('?') || path.contains('#'))
    return std::unexpected(std::string("must not have a query or fragment"));
  std::expected<void, std::string> checked;
  ForEachPart(path.substr(std::min<size_t>(1, path.size())), '/', [&](std::string_view segment, bool) {
    if (checked) checked = CheckLiteral(segment);
  });
  return checked;
}

std::expected<void, std::string> CheckUnixPath(std::string_view path) {
  const bool printable = std::ranges::all_of(path, [](unsigned char c) { return c >= 0x20 && c != 0x7f; });
  if (path.empty() || path.size() > kUnixPathBytesMax || !printable) {
    return std::unexpected(fmt::format("the socket's path must have 1 to {} bytes", kUnixPathBytesMax));
  }
  return {};
}

}  // namespace

bool IsDnsSubdomain(std::string_view name) {
  bool valid = name.size() <= kDnsNameBytesMax;
  ForEachPart(name, '.', [&](std::string_view label, bool) { valid = valid && IsDnsLabel(label); });
  return valid;
}

bool IsApiVersion(std::string_view version) {
  if (version.size() > kDnsLabelBytesMax || !version.starts_with('v')) return false;
  version.remove_prefix(1);
  if (!TakeNumber(version, true)) return false;
  if (version.empty()) return true;
  for (const std::string_view stage : {"alpha", "beta"}) {
    if (!version.starts_with(stage)) continue;
    version.remove_prefix(stage.size());
    return TakeNumber(version, false) && version.empty();
  }
  return false;
}

std::expected<void, std::string> CheckRoutePath(std::string_view path) {
  if (!path.starts_with('/')) return std::unexpected(fmt::format("must begin with '/', not {}", Shown(path)));
  std::set<std::string_view> names;
  std::expected<void, std::string> checked;
  ForEachPart(path.substr(1), '/', [&](std::string_view segment, bool is_last) {
    if (!checked) return;
    if (segment.empty()) {
      checked = std::unexpected(std::string("must not have an empty segment or end in a slash"));
    } else if (!segment.contains('{') && !segment.contains('}')) {
      checked = CheckLiteral(segment);
    } else if (const auto name = CaptureName(segment, is_last); !name) {
      checked = std::unexpected(name.error());
    } else if (!names.insert(*name).second) {
      checked = std::unexpected(fmt::format("has the name {} twice", Shown(*name)));
    } else if (names.size() > kPathCapturesMax) {
      checked = std::unexpected(fmt::format("has more than {} names in braces", kPathCapturesMax));
    }
  });
  return checked;
}

std::expected<void, std::string> CheckBaseUrl(std::string_view url) {
  if (url.starts_with("unix:")) return CheckUnixPath(url.substr(5));
  const std::string_view scheme = url.starts_with("http://")    ? "http://"
                                  : url.starts_with("https://") ? "https://"
                                                                : "";
  if (scheme.empty()) {
    return std::unexpected(
        fmt::format("must be http://HOST[:PORT][/PATH], https://HOST[:PORT][/PATH] or unix:PATH, not {}", Shown(url)));
  }
  const std::string_view rest = url.substr(scheme.size());
  const size_t authority_bytes = std::min(rest.find_first_of("/?#"), rest.size());
  if (const auto checked = CheckAuthority(rest.substr(0, authority_bytes)); !checked) return checked;
  return CheckUrlPath(rest.substr(authority_bytes));
}

void ValidateService(const DataPlaneService& service, std::vector<Problem>& problems) {
  ValidateGroupAndVersion(service, problems);
  ValidateName(service, problems);
  ValidatePlugin(service, problems);
  ValidateBackend(service, problems);
  ValidateServiceList(service, problems);
}

void ValidateServices(std::span<const DataPlaneService> services, std::vector<Problem>& problems) {
  std::map<std::pair<std::string_view, std::string_view>, const DataPlaneService*> owners;
  for (const DataPlaneService& service : services) {
    ValidateService(service, problems);
    if (service.group.value.empty() || service.version.value.empty()) continue;
    const auto [owner, inserted] = owners.emplace(
        std::pair{std::string_view(service.group.value), std::string_view(service.version.value)}, &service);
    if (inserted) continue;
    problems.push_back(ProblemAt(service, service.group.at, "spec.group",
                                 fmt::format("{}/{} is already declared by {}", service.group.value,
                                             service.version.value, PlaceOf(*owner->second))));
  }
}

}  // namespace dpa
