// RunDir is the supervisor's own directory for the plugins' sockets: made at start with mode 0700, locked while in use,
// removed at the end. A directory that nobody has locked any more was left by a process that was killed, and is removed
// too.

#pragma once

#include <expected>
#include <string>
#include <utility>

#include "grpc_bridge/plugin_supervisor_process.h"

namespace dpa {

class RunDir {
 public:
  // Makes one below `parent` (empty: the system's directory for temporary files). Errors: one line.
  static std::expected<RunDir, std::string> Make(const std::string& parent);

  RunDir() = default;
  RunDir(RunDir&& other) noexcept { *this = std::move(other); }
  RunDir& operator=(RunDir&& other) noexcept;
  ~RunDir();

  // An empty directory of that name, made anew; its path. Errors: one line.
  std::expected<std::string, std::string> MakeEmpty(const std::string& name) const;
  void Remove(const std::string& name) const;

  const std::string& path() const { return path_; }

 private:
  std::string path_;  // Empty: none.
  OwnedFd lock_;
};

}  // namespace dpa
