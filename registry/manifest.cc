#include "registry/manifest.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <expected>
#include <filesystem>
#include <span>
#include <system_error>
#include <utility>

#include "registry/nearest_name.h"

namespace dpa {
namespace {

using Kind = YamlNode::Kind;

constexpr std::array<std::string_view, 5> kObjectFields = {"apiVersion", "kind", "metadata", "spec", "status"};
constexpr std::array<std::string_view, 4> kListFields = {"apiVersion", "kind", "metadata", "items"};
// ObjectMeta of Kubernetes, complete: what an API server prints may be applied again.
constexpr std::array<std::string_view, 16> kMetadataFields = {"name",
                                                              "labels",
                                                              "annotations",
                                                              "namespace",
                                                              "generateName",
                                                              "uid",
                                                              "resourceVersion",
                                                              "generation",
                                                              "selfLink",
                                                              "creationTimestamp",
                                                              "deletionTimestamp",
                                                              "deletionGracePeriodSeconds",
                                                              "finalizers",
                                                              "ownerReferences",
                                                              "managedFields",
                                                              "clusterName"};
constexpr std::array<std::string_view, 6> kSpecFields = {"pluginID", "pluginType", "group",
                                                         "version",  "services",   "backend"};
constexpr std::array<std::string_view, 3> kServiceFields = {"type", "method", "path"};
constexpr std::array<std::string_view, 2> kBackendFields = {"type", "baseURL"};

// Reads one file's trees into objects.
class ManifestReader {
 public:
  ManifestReader(std::string_view file, Manifests& out) : file_(file), out_(out) {}

  void ReadDocument(const YamlNode& root) {
    const YamlNode* kind = root.kind == Kind::kMap ? root.Find("kind") : nullptr;
    const bool is_list = kind != nullptr && (kind->scalar == "List" || kind->scalar == "DataPlaneServiceList");
    is_list ? ReadList(root, kind->scalar) : ReadObject(root, "", false);
  }

 private:
  void Report(SourcePosition at, std::string field, std::string message) {
    out_.problems.push_back({std::string(file_), at.line, at.column, std::move(field), std::move(message)});
  }

  // True if `node` is a mapping with no fields but `known`; the unknown ones are reported and do not make it false.
  bool ReadMapping(const YamlNode& node, const std::string& field, std::span<const std::string_view> known) {
    if (node.kind != Kind::kMap) {
      Report(node.at, field, fmt::format("must be a mapping, not {}", ToString(node.kind)));
      return false;
    }
    for (const YamlNode::Entry& entry : node.entries) {
      if (std::ranges::find(known, entry.key) != known.end()) continue;
      const std::string prefix = field.empty() ? "" : field + ".";
      Report(entry.key_at, prefix + Plain(entry.key),
             entry.key == "<<" ? "merge keys are not supported; write the fields out"
                               : "unknown field" + DidYouMean(entry.key, known));
    }
    return true;
  }

  // A key as part of a field's name: as it is when it can be read, else quoted.
  static std::string Plain(const std::string& key) {
    const bool readable = std::ranges::all_of(key, [](unsigned char c) { return c > 0x20 && c < 0x7f; });
    return readable && !key.empty() && key.size() <= 64 ? key : Shown(key);
  }

  Field ReadString(const YamlNode& map, const std::string& prefix, std::string_view key) {
    Field field{{}, map.at, false};
    const YamlNode* node = map.Find(key);
    if (node == nullptr) return field;
    field.at = node->at;
    field.present = true;
    if (node->kind == Kind::kString) {
      field.value = node->scalar;
    } else {
      ReportNotString(*node, prefix + std::string(key));
      field.value = node->scalar;  // What was meant, most likely; spares a second complaint about the same field.
    }
    return field;
  }

  void ReportNotString(const YamlNode& node, std::string field) {
    const bool scalar = node.kind == Kind::kBool || node.kind == Kind::kNumber;
    Report(node.at, std::move(field),
           scalar ? fmt::format("must be a string, but {} is {}: put it in quotes", node.scalar.substr(0, 40),
                                ToString(node.kind))
                  : fmt::format("must be a string, not {}", ToString(node.kind)));
  }

  std::map<std::string, std::string> ReadStrings(const YamlNode& map, const std::string& prefix, std::string_view key) {
    std::map<std::string, std::string> strings;
    const YamlNode* node = map.Find(key);
    if (node == nullptr) return strings;
    const std::string field = prefix + std::string(key);
    if (node->kind != Kind::kMap) {
      Report(node->at, field, fmt::format("must be a mapping of strings, not {}", ToString(node->kind)));
      return strings;
    }
    for (const YamlNode::Entry& entry : node->entries) {
      if (entry.value->kind == Kind::kString) {
        strings[entry.key] = entry.value->scalar;
      } else {
        ReportNotString(*entry.value, fmt::format("{}[{}]", field, Plain(entry.key)));
      }
    }
    return strings;
  }

  // `in_list`: an API server leaves apiVersion and kind out of a DataPlaneServiceList's items.
  bool CheckIdentity(const YamlNode& root, const std::string& prefix, bool in_list) {
    const size_t problems_before = out_.problems.size();
    const Field api_version = ReadString(root, prefix, "apiVersion");
    const Field kind = ReadString(root, prefix, "kind");
    if (out_.problems.size() != problems_before) return false;
    if (in_list && !api_version.present && !kind.present) return true;
    CheckWord(api_version, prefix + "apiVersion", kAggregationApiVersion);
    CheckWord(kind, prefix + "kind", kDataPlaneServiceKind);
    return out_.problems.size() == problems_before;
  }

  void CheckWord(const Field& field, std::string name, std::string_view expected) {
    if (!field.present) {
      Report(field.at, std::move(name), fmt::format("is required and must be {}", expected));
    } else if (field.value != expected) {
      Report(field.at, std::move(name), fmt::format("must be {}, not {}", expected, Shown(field.value)));
    }
  }

  void ReadObject(const YamlNode& root, const std::string& prefix, bool in_list) {
    const std::string own = prefix.empty() ? "" : prefix.substr(0, prefix.size() - 1);
    if (root.kind != Kind::kMap) {
      Report(root.at, own, fmt::format("must be a {} object, not {}", kDataPlaneServiceKind, ToString(root.kind)));
      return;
    }
    // The fields of another kind are none of our business: one complaint is enough.
    if (!CheckIdentity(root, prefix, in_list)) return;
    ReadMapping(root, own, kObjectFields);
    DataPlaneService service;
    service.file = file_;
    service.field_prefix = prefix;
    service.at = root.at;
    const bool has_metadata = ReadMetadata(root, prefix, service);
    const bool has_spec = ReadSpec(root, prefix, service);
    if (has_metadata && has_spec) out_.services.push_back(std::move(service));
  }

  const YamlNode* Required(const YamlNode& root, const std::string& prefix, std::string_view key) {
    const YamlNode* node = root.Find(key);
    if (node == nullptr) Report(root.at, prefix + std::string(key), "is required");
    return node;
  }

  bool ReadMetadata(const YamlNode& root, const std::string& prefix, DataPlaneService& service) {
    const YamlNode* metadata = Required(root, prefix, "metadata");
    if (metadata == nullptr || !ReadMapping(*metadata, prefix + "metadata", kMetadataFields)) return false;
    const std::string inner = prefix + "metadata.";
    service.name = ReadString(*metadata, inner, "name");
    service.labels = ReadStrings(*metadata, inner, "labels");
    service.annotations = ReadStrings(*metadata, inner, "annotations");
    const Field name_space = ReadString(*metadata, inner, "namespace");
    if (!name_space.value.empty()) {
      Report(name_space.at, inner + "namespace", "must be left out: a DataPlaneService is cluster-scoped");
    }
    return true;
  }

  bool ReadSpec(const YamlNode& root, const std::string& prefix, DataPlaneService& service) {
    const YamlNode* spec = Required(root, prefix, "spec");
    if (spec == nullptr || !ReadMapping(*spec, prefix + "spec", kSpecFields)) return false;
    const std::string inner = prefix + "spec.";
    service.plugin_id = ReadString(*spec, inner, "pluginID");
    service.plugin_type = ReadString(*spec, inner, "pluginType");
    service.group = ReadString(*spec, inner, "group");
    service.version = ReadString(*spec, inner, "version");
    ReadServices(*spec, inner + "services", service);
    ReadBackend(*spec, inner + "backend", service);
    return true;
  }

  void ReadServices(const YamlNode& spec, const std::string& field, DataPlaneService& service) {
    const YamlNode* services = spec.Find("services");
    if (services == nullptr) return;
    if (services->kind != Kind::kList) {
      Report(services->at, field, fmt::format("must be a list, not {}", ToString(services->kind)));
      return;
    }
    for (size_t i = 0; i < services->items.size(); ++i) {
      const YamlNode& item = *services->items[i];
      const std::string own = fmt::format("{}[{}]", field, i);
      // An unusable entry keeps its place, so that indices in later messages are those of the file.
      ServiceEntry& entry = service.services.emplace_back();
      entry.at = item.at;
      if (!ReadMapping(item, own, kServiceFields)) continue;
      entry.type = ReadString(item, own + ".", "type");
      entry.method = ReadString(item, own + ".", "method");
      entry.path = ReadString(item, own + ".", "path");
      if (!entry.type.present) Report(item.at, own + ".type", "is required");
    }
  }

  void ReadBackend(const YamlNode& spec, const std::string& field, DataPlaneService& service) {
    const YamlNode* backend = spec.Find("backend");
    if (backend == nullptr || !ReadMapping(*backend, field, kBackendFields)) return;
    service.backend.present = true;
    service.backend.at = backend->at;
    service.backend.type = ReadString(*backend, field + ".", "type");
    service.backend.base_url = ReadString(*backend, field + ".", "baseURL");
  }

  void ReadList(const YamlNode& root, const std::string& kind) {
    const bool own_kind = kind == "DataPlaneServiceList";
    ReadMapping(root, "", kListFields);
    CheckWord(ReadString(root, "", "apiVersion"), "apiVersion", own_kind ? kAggregationApiVersion : "v1");
    const YamlNode* items = root.Find("items");
    if (items == nullptr) return;
    if (items->kind != Kind::kList) {
      Report(items->at, "items", fmt::format("must be a list, not {}", ToString(items->kind)));
      return;
    }
    for (size_t i = 0; i < items->items.size(); ++i) {
      ReadObject(*items->items[i], fmt::format("items[{}].", i), own_kind);
    }
  }

  std::string_view file_;
  Manifests& out_;
};

class Descriptor {
 public:
  explicit Descriptor(int fd) : fd_(fd) {}
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  ~Descriptor() {
    if (fd_ >= 0) ::close(fd_);
  }
  int fd() const { return fd_; }

 private:
  int fd_;
};

bool Exists(const std::string& path) {
  struct stat info{};
  return ::lstat(path.c_str(), &info) == 0;
}

// The file's bytes, or a sentence. An empty sentence: it has disappeared, which is no problem.
std::expected<std::string, std::string> ReadFile(const std::string& path, size_t bytes_max) {
  // Non-blocking, or a FIFO of that name would hold us for ever.
  const Descriptor file(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
  if (file.fd() < 0) {
    const int open_errno = errno;
    if (open_errno == ENOENT && !Exists(path)) return std::unexpected(std::string());
    return std::unexpected(fmt::format("cannot be opened: {}", std::strerror(open_errno)));
  }
  struct stat info{};
  if (::fstat(file.fd(), &info) != 0) return std::unexpected(fmt::format("cannot be read: {}", std::strerror(errno)));
  if (!S_ISREG(info.st_mode)) return std::unexpected(std::string("is not a regular file"));
  std::string bytes;
  std::array<char, size_t{64} * 1024> chunk;
  while (true) {
    const ssize_t count = ::read(file.fd(), chunk.data(), chunk.size());
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) return std::unexpected(fmt::format("cannot be read: {}", std::strerror(errno)));
    if (count == 0) return bytes;
    bytes.append(chunk.data(), static_cast<size_t>(count));
    if (bytes.size() > bytes_max) return std::unexpected(fmt::format("is larger than {} bytes", bytes_max));
  }
}

std::expected<std::vector<std::string>, std::string> ManifestNames(const std::string& folder) {
  std::vector<std::string> names;
  std::error_code error;
  std::filesystem::directory_iterator entries(folder, error);
  while (!error && entries != std::filesystem::directory_iterator()) {
    std::string name = entries->path().filename().string();
    if (IsManifestName(name)) names.push_back(std::move(name));
    entries.increment(error);
  }
  if (error) return std::unexpected(error.message());
  std::ranges::sort(names);
  return names;
}

}  // namespace

bool IsManifestName(std::string_view name) {
  return !name.starts_with('.') && (name.ends_with(".yaml") || name.ends_with(".yml") || name.ends_with(".json"));
}

ManifestFolder ReadManifestFolder(const std::string& folder, const ManifestLimits& limits) {
  ManifestFolder out;
  const auto names = ManifestNames(folder);
  if (!names) {
    out.problems.push_back({folder, 0, 0, {}, "the folder of manifests cannot be read: " + names.error()});
    return out;
  }
  if (names->size() > limits.files_max) {
    out.problems.push_back({folder, 0, 0, {}, fmt::format("has more than {} manifest files", limits.files_max)});
    return out;
  }
  size_t folder_bytes = 0;
  for (const std::string& name : *names) {
    std::string path = (std::filesystem::path(folder) / name).string();
    auto bytes = ReadFile(path, limits.file_bytes_max);
    if (!bytes) {
      if (!bytes.error().empty()) out.problems.push_back({std::move(path), 0, 0, {}, std::move(bytes.error())});
      continue;
    }
    folder_bytes += bytes->size();
    if (folder_bytes > limits.folder_bytes_max) {
      out.problems.push_back(
          {folder, 0, 0, {}, fmt::format("has manifests of more than {} bytes together", limits.folder_bytes_max)});
      return out;
    }
    out.files.push_back({std::move(path), std::move(*bytes)});
  }
  return out;
}

void ParseManifest(std::string_view bytes, std::string_view file, const ManifestLimits& limits, Manifests& out) {
  if (bytes.size() > limits.file_bytes_max) {
    out.problems.push_back(
        {std::string(file), 0, 0, {}, fmt::format("is larger than {} bytes", limits.file_bytes_max)});
    return;
  }
  const YamlFile yaml = ParseYaml(bytes, file, limits.yaml, out.problems);
  ManifestReader reader(file, out);
  for (const YamlNode* root : yaml.roots) reader.ReadDocument(*root);
}

Manifests ParseManifests(const ManifestFolder& folder, const ManifestLimits& limits) {
  Manifests out;
  out.problems = folder.problems;
  for (const ManifestFile& file : folder.files) ParseManifest(file.bytes, file.path, limits, out);
  return out;
}

}  // namespace dpa
