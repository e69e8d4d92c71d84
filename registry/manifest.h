// Manifests: files that declare DataPlaneServices, read as kubectl would read them.
//
// A folder's *.yaml, *.yml and *.json files in the order of their names, hidden ones (editors' and ConfigMaps' own) and
// sub-folders left out. A file holds any number of documents, each one object or a List of them. What `kubectl get -o
// yaml` adds (status, metadata.uid, …) is accepted and not used. Nothing is guessed: an unknown field, a key given
// twice, or a number where a string belongs is a Problem, and all problems are collected, not the first alone.
//
// Everything here is pure but ReadManifestFolder, and nothing throws.

#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

#include "registry/resource.h"
#include "registry/yaml_tree.h"

namespace dpa {

struct ManifestLimits {
  size_t files_max = 10'000;              // Per folder.
  size_t file_bytes_max = 1 << 20;        // What etcd, behind a Kubernetes API, takes for one object is 1.5 MiB.
  size_t folder_bytes_max = 64ull << 20;  // All files together; the watcher keeps them to see what changed.
  YamlLimits yaml;
};

struct ManifestFile {
  std::string path;
  std::string bytes;

  friend bool operator==(const ManifestFile&, const ManifestFile&) = default;
};

struct ManifestFolder {
  std::vector<ManifestFile> files;  // In the order of their names.
  std::vector<Problem> problems;    // The folder or a file cannot be read.

  friend bool operator==(const ManifestFolder&, const ManifestFolder&) = default;
};

struct Manifests {
  std::vector<DataPlaneService> services;  // In the order of files and documents.
  std::vector<Problem> problems;
};

// True for the names that ReadManifestFolder reads.
bool IsManifestName(std::string_view name);

// Reads the files of `folder`; waits for the disk. A file that disappears meanwhile is left out.
ManifestFolder ReadManifestFolder(const std::string& folder, const ManifestLimits& limits);

// Adds the objects of one file to `out`, with every problem that reading finds. What the values mean is checked by
// ValidateServices.
void ParseManifest(std::string_view bytes, std::string_view file, const ManifestLimits& limits, Manifests& out);

// ParseManifest of each file; the folder's own problems come first.
Manifests ParseManifests(const ManifestFolder& folder, const ManifestLimits& limits);

}  // namespace dpa
