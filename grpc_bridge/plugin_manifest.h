// PluginManifest is what the host needs of a plugin.json, and FindPlugins looks for those files as Grafana does:
//
//   DIR/plugin.json, DIR/*/plugin.json, …   nested ones are plugins of their own (children of an app)
//   DIR/*/dist/plugin.json                  where a dist folder has a plugin.json, it counts alone
//   <executable>_<os>_<arch>                beside it, in Go's names: gpx_x_linux_amd64
//
// Plugins without `"backend": true` have no process and are passed over. Everything else that is wrong is a Problem, in
// words that name file, line and field.

#pragma once

#include <expected>
#include <string>
#include <string_view>
#include <vector>

namespace dpa {

struct PluginManifest {
  std::string id;
  std::string type;  // "datasource", "app", ….
  std::string name;
  std::string version;          // info.version.
  std::string file;             // Path of the plugin.json.
  std::string executable_path;  // Absolute, with the suffix of this system. Not looked at yet; see CheckExecutable.
  bool backend = false;
};

struct PluginProblem {
  std::string file;  // plugin.json, or the directory that cannot be read.
  std::string id;    // As far as it was understood, else the name of its folder.
  std::string what;  // One line.
};

struct PluginScan {
  std::vector<PluginManifest> plugins;  // With a backend; sorted by id, ids are unique.
  std::vector<PluginProblem> problems;
};

// Reads a plugin.json. `file` is its path, for words and for finding the executable.
// Errors: one line that begins with the line or the field.
std::expected<PluginManifest, std::string> ParsePluginManifest(std::string_view text, const std::string& file);

PluginScan FindPlugins(const std::vector<std::string>& dirs);

// Why the plugin's executable cannot be started; empty if it can.
std::string CheckExecutable(const PluginManifest& manifest);

// "linux_amd64": this system in Go's names.
std::string_view GoPlatform();
// The system's and the CPU's name apart, for PluginContext.userAgent: "linux", "amd64".
std::string_view GoOs();
std::string_view GoArch();

}  // namespace dpa
