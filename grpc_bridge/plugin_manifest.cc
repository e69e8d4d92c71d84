#include "grpc_bridge/plugin_manifest.h"

#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>

#if defined(__linux__)
#define DPA_GOOS "linux"
#elif defined(__APPLE__)
#define DPA_GOOS "darwin"
#elif defined(__FreeBSD__)
#define DPA_GOOS "freebsd"
#else
#error "no Go name known for this system"
#endif

#if defined(__x86_64__)
#define DPA_GOARCH "amd64"
#elif defined(__aarch64__)
#define DPA_GOARCH "arm64"
#elif defined(__arm__)
#define DPA_GOARCH "arm"
#elif defined(__riscv) && __riscv_xlen == 64
#define DPA_GOARCH "riscv64"
#elif defined(__powerpc64__) && defined(__LITTLE_ENDIAN__)
#define DPA_GOARCH "ppc64le"
#elif defined(__s390x__)
#define DPA_GOARCH "s390x"
#elif defined(__i386__)
#define DPA_GOARCH "386"
#else
#error "no Go name known for this CPU"
#endif

namespace dpa {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::json;

constexpr size_t kFileBytesMax = 1 << 20;
constexpr int kDepthMax = 6;  // Below a named directory; also what ends a circle of links.

// A field of the document; `path` is its name in dots. Fills `error` with the first thing wrong.
class Fields {
 public:
  explicit Fields(const Json& document) : document_(document) {}

  const std::string& error() const { return error_; }

  const Json* Find(std::string_view path) {
    const Json* at = &document_;
    for (std::string_view rest = path; !rest.empty();) {
      const std::string_view name = rest.substr(0, rest.find('.'));
      if (!at->is_object()) return nullptr;
      const auto found = at->find(std::string(name));
      if (found == at->end()) return nullptr;
      at = &*found;
      rest.remove_prefix(std::min(name.size() + 1, rest.size()));
    }
    return at;
  }
  std::string RequiredText(std::string_view path) {
    const Json* value = Find(path);
    if (value == nullptr) return Fail(path, "is missing"), "";
    if (!value->is_string()) return Fail(path, "must be a string"), "";
    if (value->get_ref<const std::string&>().empty()) return Fail(path, "must not be empty"), "";
    return value->get<std::string>();
  }
  bool OptionalBool(std::string_view path) {
    const Json* value = Find(path);
    if (value == nullptr) return false;
    if (!value->is_boolean()) return Fail(path, "must be true or false"), false;
    return value->get<bool>();
  }
  void RequireObject(std::string_view path) {
    const Json* value = Find(path);
    if (value == nullptr) return Fail(path, "is missing");
    if (!value->is_object()) Fail(path, "must be an object");
  }
  void Fail(std::string_view path, std::string_view what) {
    if (error_.empty()) error_ = fmt::format("field {} {}", path, what);
  }

 private:
  const Json& document_;
  std::string error_;
};

// ^[0-9a-z]+-([0-9a-z]+-)?(app|panel|datasource|secretsmanager|transformer)$, and `renderer` of older ones.
bool IsPluginId(std::string_view id) {
  const size_t last = id.rfind('-');
  if (last == std::string_view::npos) return false;
  const std::string_view kind = id.substr(last + 1);
  constexpr std::string_view kKinds[] = {"app", "panel", "datasource", "secretsmanager", "transformer", "renderer"};
  if (std::ranges::find(kKinds, kind) == std::end(kKinds)) return false;
  const std::string_view owner = id.substr(0, last);
  const auto is_word = [](std::string_view word) {
    return !word.empty() && word.find_first_not_of("0123456789abcdefghijklmnopqrstuvwxyz") == std::string_view::npos;
  };
  const size_t dash = owner.find('-');
  return dash == std::string_view::npos ? is_word(owner)
                                        : is_word(owner.substr(0, dash)) && is_word(owner.substr(dash + 1));
}

void CheckType(std::string_view type, Fields* fields) {
  constexpr std::string_view kTypes[] = {"app", "datasource", "panel", "renderer", "secretsmanager", "transformer"};
  if (std::ranges::find(kTypes, type) != std::end(kTypes)) return;
  fields->Fail(
      "type", fmt::format("is \"{}\"; expected app, datasource, panel, renderer, secretsmanager or transformer", type));
}

std::string ExecutablePath(const std::string& file, const std::string& executable) {
  std::error_code error;
  const fs::path path =
      fs::absolute(fs::path(file).parent_path() / (executable + "_" + std::string(GoPlatform())), error);
  return path.lexically_normal().string();
}

// What the schema asks of every plugin, then what a backend needs.
std::expected<PluginManifest, std::string> ReadManifest(const Json& document, const std::string& file) {
  if (!document.is_object()) return std::unexpected("line 1: not a JSON object");
  Fields fields(document);
  PluginManifest manifest{.id = fields.RequiredText("id"),
                          .type = fields.RequiredText("type"),
                          .name = fields.RequiredText("name"),
                          .version = "",
                          .file = file,
                          .executable_path = "",
                          .backend = fields.OptionalBool("backend")};
  if (fields.error().empty() && !IsPluginId(manifest.id)) {
    fields.Fail("id", fmt::format("is \"{}\"; expected owner-name-type in lower case letters and digits, such as "
                                  "acme-metrics-datasource",
                                  manifest.id));
  }
  if (fields.error().empty()) CheckType(manifest.type, &fields);
  fields.RequireObject("info");
  manifest.version = fields.RequiredText("info.version");
  fields.RequireObject("dependencies");
  fields.RequiredText("dependencies.grafanaDependency");
  if (manifest.backend) manifest.executable_path = ExecutablePath(file, fields.RequiredText("executable"));
  if (!fields.error().empty()) return std::unexpected(fields.error());
  return manifest;
}

std::expected<std::string, std::string> ReadText(const std::string& file) {
  std::ifstream in(file, std::ios::binary);
  if (!in) return std::unexpected(fmt::format("cannot be read: {}", std::strerror(errno)));
  std::string text(kFileBytesMax + 1, '\0');
  in.read(text.data(), static_cast<std::streamsize>(text.size()));
  if (in.bad()) return std::unexpected(std::string("cannot be read"));
  text.resize(static_cast<size_t>(in.gcount()));
  if (text.size() > kFileBytesMax) return std::unexpected(fmt::format("is larger than {} bytes", kFileBytesMax));
  return text;
}

// The id in a plugin.json that is wrong elsewhere, or else the name of its folder: a name to complain under.
std::string GuessId(std::string_view text, const fs::path& file) {
  const Json document = Json::parse(text, nullptr, false);
  if (document.is_object() && document.contains("id") && document["id"].is_string() &&
      IsPluginId(document["id"].get<std::string>())) {
    return document["id"];
  }
  const fs::path folder = fs::absolute(file).parent_path();
  return (folder.filename() == "dist" ? folder.parent_path() : folder).filename().string();
}

class Finder {
 public:
  PluginScan Take() && {
    std::ranges::sort(scan_.plugins, {}, &PluginManifest::id);
    return std::move(scan_);
  }

  void FindBelow(const std::string& dir) {
    std::error_code error;
    if (!fs::is_directory(dir, error)) {
      const std::string why = error ? error.message() : "not a directory";
      scan_.problems.push_back({dir, "", fmt::format("cannot be searched for plugins: {}", why)});
      return;
    }
    Visit(dir, 0);
  }

 private:
  void Visit(const fs::path& dir, int depth) {
    std::error_code error;
    const fs::path real = fs::canonical(dir, error);
    if (error || !visited_.insert(real).second) return;
    const fs::path dist = dir / "dist";
    const bool has_dist = fs::exists(dist / "plugin.json", error);
    const fs::path home = has_dist ? dist : dir;
    if (fs::exists(home / "plugin.json", error)) Add(home / "plugin.json");
    if (depth < kDepthMax) VisitChildren(home, depth + 1);
  }

  void VisitChildren(const fs::path& dir, int depth) {
    std::error_code error;
    fs::directory_iterator entries(dir, error);
    if (error) {
      scan_.problems.push_back(
          {dir.string(), dir.filename().string(), "cannot be searched for plugins: " + error.message()});
      return;
    }
    std::vector<fs::path> children;
    for (; entries != fs::directory_iterator(); entries.increment(error)) {
      if (error) break;
      const std::string name = entries->path().filename().string();
      if (name.starts_with('.') || name == "node_modules") continue;
      if (entries->is_directory(error)) children.push_back(entries->path());
    }
    std::ranges::sort(children);  // So that of two plugins with one id the same one wins every time.
    for (const fs::path& child : children) Visit(child, depth);
  }

  void Add(const fs::path& file) {
    const auto text = ReadText(file.string());
    if (!text) return AddProblem(file, "", text.error());
    auto manifest = ParsePluginManifest(*text, file.string());
    if (!manifest) return AddProblem(file, *text, manifest.error());
    if (!manifest->backend) return;
    for (const PluginManifest& other : scan_.plugins) {
      if (other.id != manifest->id) continue;
      return AddProblem(file, *text, fmt::format("field id: \"{}\" is already taken by {}", other.id, other.file));
    }
    scan_.plugins.push_back(*std::move(manifest));
  }

  void AddProblem(const fs::path& file, std::string_view text, std::string what) {
    scan_.problems.push_back({file.string(), GuessId(text, file), std::move(what)});
  }

  PluginScan scan_;
  std::set<fs::path> visited_;
};

}  // namespace

std::expected<PluginManifest, std::string> ParsePluginManifest(std::string_view text, const std::string& file) {
  try {
    return ReadManifest(Json::parse(text), file);
  } catch (const Json::parse_error& error) {
    const size_t at = std::min(error.byte, text.size());
    const auto line = 1 + std::ranges::count(text.substr(0, at > 0 ? at - 1 : 0), '\n');
    return std::unexpected(fmt::format("line {}: not valid JSON", line));
  }
}

PluginScan FindPlugins(const std::vector<std::string>& dirs) {
  Finder finder;
  for (const std::string& dir : dirs) finder.FindBelow(dir);
  return std::move(finder).Take();
}

std::string CheckExecutable(const PluginManifest& manifest) {
  struct stat status{};
  const char* path = manifest.executable_path.c_str();
  if (stat(path, &status) != 0) return fmt::format("executable {}: {}", path, std::strerror(errno));
  if (!S_ISREG(status.st_mode)) return fmt::format("executable {}: not a file", path);
  if (access(path, X_OK) != 0) return fmt::format("executable {}: {}", path, std::strerror(errno));
  return {};
}

std::string_view GoPlatform() { return DPA_GOOS "_" DPA_GOARCH; }
std::string_view GoOs() { return DPA_GOOS; }
std::string_view GoArch() { return DPA_GOARCH; }

}  // namespace dpa
