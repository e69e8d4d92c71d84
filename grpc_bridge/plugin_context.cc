#include "grpc_bridge/plugin_context.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <optional>
#include <tuple>
#include <utility>

#include "core/assert.h"
#include "grpc_bridge/protobuf_wire.h"
#include "grpc_bridge/text.h"

namespace dpa {
namespace {

// Field numbers of pluginv2.PluginContext.
constexpr unsigned kOrgId = 1;
constexpr unsigned kPluginId = 2;
constexpr unsigned kUser = 3;
constexpr unsigned kDataSource = 5;
constexpr unsigned kGrafanaConfig = 6;
constexpr unsigned kPluginVersion = 7;
constexpr unsigned kUserAgent = 8;
constexpr unsigned kNamespace = 10;

#if defined(__x86_64__)
constexpr std::string_view kGoArch = "amd64";
#elif defined(__aarch64__)
constexpr std::string_view kGoArch = "arm64";
#else
constexpr std::string_view kGoArch = "unknown";
#endif

void AppendText(unsigned field, std::string_view text, std::string& out) {
  if (IsUtf8(text)) {
    wire::AppendString(field, text, out);
    return;
  }
  std::string repaired;
  AppendUtf8(text, repaired);
  wire::AppendString(field, repaired, out);
}

void AppendTextMap(unsigned field, const std::map<std::string, std::string>& map, std::string& out) {
  std::string entry;
  for (const auto& [key, value] : map) {
    entry.clear();
    AppendText(1, key, entry);
    AppendText(2, value, entry);
    wire::AppendBytes(field, entry, out);
  }
}

// pluginv2.DataSourceInstanceSettings.
std::string SerializeDataSource(const DataSource& source) {
  std::string out;
  wire::AppendInt(1, source.id, out);
  AppendText(2, source.name, out);
  AppendText(3, source.url, out);
  AppendText(4, source.user, out);
  AppendText(5, source.database, out);
  wire::AppendInt(6, source.basic_auth ? 1 : 0, out);
  AppendText(7, source.basic_auth_user, out);
  wire::AppendString(8, source.json_data.empty() ? "{}" : source.json_data, out);
  AppendTextMap(9, source.secure_json_data, out);
  wire::AppendInt(10, source.last_updated_ms, out);
  AppendText(11, source.uid, out);
  return out;
}

std::string SerializeBody(const DataSource& source, std::string_view plugin_version, std::string_view user_agent,
                          const PluginContextOptions& options) {
  std::string out;
  wire::AppendInt(kOrgId, source.org_id, out);
  AppendText(kPluginId, source.type, out);
  wire::AppendBytes(kDataSource, SerializeDataSource(source), out);
  AppendTextMap(kGrafanaConfig, options.grafana_config, out);
  AppendText(kPluginVersion, plugin_version, out);
  AppendText(kUserAgent, user_agent, out);
  return out;
}

size_t UserSize(const PluginUser& user) {
  return wire::StringFieldSize(user.login) + wire::StringFieldSize(user.name) + wire::StringFieldSize(user.email) +
         wire::StringFieldSize(user.role);
}

// REQUIRES: all text is UTF-8.
void AppendParts(std::string_view body, std::string_view namespace_name, const PluginUser* user, std::string& out) {
  size_t user_size = user != nullptr ? UserSize(*user) : 0;
  size_t size =
      body.size() + wire::StringFieldSize(namespace_name) + (user != nullptr ? wire::BytesFieldSize(user_size) : 0);
  wire::AppendHead(1, size, out);
  out.append(body);
  wire::AppendString(kNamespace, namespace_name, out);
  if (user == nullptr) return;
  wire::AppendHead(kUser, user_size, out);
  wire::AppendString(1, user->login, out);
  wire::AppendString(2, user->name, out);
  wire::AppendString(3, user->email, out);
  wire::AppendString(4, user->role, out);
}

bool IsCleanUser(const PluginUser& user) {
  return IsUtf8(user.login) && IsUtf8(user.name) && IsUtf8(user.email) && IsUtf8(user.role);
}

// The usual case copies nothing; only text that must be repaired is put together anew.
void AppendRepairedParts(std::string_view body, std::string_view namespace_name, const PluginUser* user,
                         std::string& out) {
  std::string namespace_text;
  std::string texts[4];
  AppendUtf8(namespace_name, namespace_text);
  if (user == nullptr) return AppendParts(body, namespace_text, nullptr, out);
  std::string_view members[] = {user->login, user->name, user->email, user->role};
  for (size_t i = 0; i < 4; ++i) AppendUtf8(members[i], texts[i]);
  PluginUser repaired{texts[0], texts[1], texts[2], texts[3]};
  AppendParts(body, namespace_text, &repaired, out);
}

void AppendContext(std::string_view body, std::string_view namespace_name, const PluginUser* user, std::string& out) {
  bool clean = IsUtf8(namespace_name) && (user == nullptr || IsCleanUser(*user));
  clean ? AppendParts(body, namespace_name, user, out) : AppendRepairedParts(body, namespace_name, user, out);
}

// Decimal without sign or leading zeros, so that one organisation has one name.
std::optional<int64_t> PositiveNumber(std::string_view digits) {
  int64_t value = 0;
  auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), value);
  bool whole = error == std::errc{} && end == digits.data() + digits.size();
  if (!whole || value < 1 || digits.starts_with('0')) return std::nullopt;
  return value;
}

// The length of MAJOR.MINOR.PATCH at the front, 0 if there is none.
size_t VersionCoreLength(std::string_view text) {
  size_t at = 0;
  for (int part = 0; part < 3; ++part) {
    if (part > 0 && (at >= text.size() || text[at++] != '.')) return 0;
    size_t begin = at;
    while (at < text.size() && text[at] >= '0' && text[at] <= '9') ++at;
    if (at == begin) return 0;
  }
  return at;
}

}  // namespace

std::expected<NamespaceInfo, std::string> ParseNamespace(std::string_view name) {
  if (name == "default") return NamespaceInfo{.org_id = 1};
  if (name.starts_with("org-")) {
    auto org_id = PositiveNumber(name.substr(4));
    if (!org_id) return std::unexpected("invalid org id in namespace: expected org-N with N from 2");
    if (*org_id == 1) return std::unexpected("use the namespace \"default\" for organisation 1");
    return NamespaceInfo{.org_id = *org_id};
  }
  for (std::string_view prefix : {"stacks-", "stack-"}) {
    if (!name.starts_with(prefix)) continue;
    auto stack_id = PositiveNumber(name.substr(prefix.size()));
    if (!stack_id) return std::unexpected("invalid stack id in namespace: expected stacks-N with N from 1");
    return NamespaceInfo{.org_id = 1, .stack_id = *stack_id};
  }
  return std::unexpected("unknown namespace: expected default, org-N or stacks-N");
}

std::map<std::string, std::string> DefaultGrafanaConfig() {
  return {
      {"GF_SQL_ROW_LIMIT", "1000000"},
      {"GF_SQL_MAX_OPEN_CONNS_DEFAULT", "100"},
      {"GF_SQL_MAX_IDLE_CONNS_DEFAULT", "100"},
      {"GF_SQL_MAX_CONN_LIFETIME_SECONDS_DEFAULT", "14400"},
  };
}

std::expected<std::string, std::string> GrafanaUserAgent(std::string_view version) {
  size_t core = VersionCoreLength(version);
  auto is_bad = [](char c) { return static_cast<uint8_t>(c) <= 0x20 || c == 0x7F; };
  if (core == 0 || std::ranges::any_of(version, is_bad) || !IsUtf8(version)) {
    return std::unexpected("the Grafana version must be MAJOR.MINOR.PATCH with an optional suffix without spaces");
  }
  return fmt::format("Grafana/{} (linux; {})", version, kGoArch);
}

PluginContexts::PluginContexts() : sources_(std::make_shared<DataSourceSet>()) {}

PluginContexts::PluginContexts(std::shared_ptr<const DataSourceSet> sources, const PluginDirectory& plugins,
                               const PluginContextOptions& options)
    : sources_(std::move(sources)) {
  auto user_agent = GrafanaUserAgent(options.grafana_version);
  DPA_ASSERT(user_agent.has_value());
  for (const DataSource& source : sources_->sources()) {
    auto plugin = std::ranges::find(plugins.plugins, source.type, &PluginEntry::id);
    std::string_view version = plugin == plugins.plugins.end() ? std::string_view{} : plugin->version;
    entries_.push_back({&source, SerializeBody(source, version, *user_agent, options)});
  }
}

const PluginContextEntry* PluginContexts::Find(int64_t org_id, std::string_view uid) const {
  auto key = [](const PluginContextEntry& entry) {
    return std::pair<int64_t, std::string_view>(entry.source->org_id, entry.source->uid);
  };
  std::pair<int64_t, std::string_view> wanted(org_id, uid);
  auto found = std::ranges::lower_bound(entries_, wanted, {}, key);
  return found != entries_.end() && key(*found) == wanted ? &*found : nullptr;
}

void AppendPluginContext(const PluginContextEntry& entry, std::string_view namespace_name, const PluginUser* user,
                         std::string& out) {
  AppendContext(entry.body, namespace_name, user, out);
}

void AppendPluginContext(std::string_view plugin_id, std::string_view plugin_version, int64_t org_id,
                         std::string_view namespace_name, const PluginContextOptions& options, std::string& out) {
  std::string body;
  wire::AppendInt(kOrgId, org_id, body);
  AppendText(kPluginId, plugin_id, body);
  AppendTextMap(kGrafanaConfig, options.grafana_config, body);
  AppendText(kPluginVersion, plugin_version, body);
  if (auto user_agent = GrafanaUserAgent(options.grafana_version)) AppendText(kUserAgent, *user_agent, body);
  AppendContext(body, namespace_name, nullptr, out);
}

}  // namespace dpa
