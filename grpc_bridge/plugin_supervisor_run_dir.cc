#include "grpc_bridge/plugin_supervisor_run_dir.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <filesystem>

#include "core/log.h"

namespace dpa {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view kPrefix = "dpa-plugins-";
constexpr const char* kLockName = "lock";
// A socket's path has 107 bytes; Go plugins need up to 17 for "/plugin" and ten digits, and our own names some ten.
constexpr size_t kPathBytesMax = 107 - 17 - 10;

std::string DefaultParent() {
  std::error_code error;
  const std::string dir = fs::temp_directory_path(error).string();
  return error || dir.size() > kPathBytesMax - kPrefix.size() - 8 ? std::string(P_tmpdir) : dir;
}

// Open and locked, or -1 (somebody else has it, or there is none).
OwnedFd TakeLock(const fs::path& dir, int flags) {
  OwnedFd fd(open((dir / kLockName).c_str(), O_RDWR | O_CLOEXEC | O_NOFOLLOW | flags, 0600));
  if (fd.get() >= 0 && flock(fd.get(), LOCK_EX | LOCK_NB) != 0) fd.Close();
  return fd;
}

bool IsOurs(const fs::path& path) {
  struct stat status{};
  return lstat(path.c_str(), &status) == 0 && S_ISDIR(status.st_mode) && status.st_uid == geteuid();
}

void RemoveStale(const std::string& parent) {
  std::error_code error;
  for (fs::directory_iterator entry(parent, error); !error && entry != fs::directory_iterator();
       entry.increment(error)) {
    const fs::path path = entry->path();
    if (!path.filename().string().starts_with(kPrefix) || !IsOurs(path)) continue;
    const OwnedFd lock = TakeLock(path, 0);
    if (lock.get() < 0) continue;
    std::error_code removal;
    fs::remove_all(path, removal);
    LogInfo("plugin_run_dir_removed", "path={} reason=left_behind", Quoted(path.string()));
  }
}

}  // namespace

std::expected<RunDir, std::string> RunDir::Make(const std::string& given_parent) {
  const std::string parent = given_parent.empty() ? DefaultParent() : given_parent;
  RemoveStale(parent);
  std::error_code error;
  std::string path = fs::absolute(parent, error).lexically_normal().string();
  if (!path.ends_with('/')) path += '/';
  path += std::string(kPrefix) + "XXXXXX";
  if (path.size() > kPathBytesMax) {
    return std::unexpected(fmt::format("directory {} is too deep for plugin sockets: {} bytes, at most {}", path,
                                       path.size(), kPathBytesMax));
  }
  if (mkdtemp(path.data()) == nullptr) {  // Mode 0700.
    return std::unexpected(
        fmt::format("cannot make a directory for plugin sockets in {}: {}", parent, std::strerror(errno)));
  }
  RunDir dir;
  dir.path_ = std::move(path);
  dir.lock_ = TakeLock(dir.path_, O_CREAT);
  if (dir.lock_.get() < 0) return std::unexpected(fmt::format("cannot lock {}: {}", dir.path_, std::strerror(errno)));
  return dir;
}

RunDir& RunDir::operator=(RunDir&& other) noexcept {
  std::swap(path_, other.path_);
  std::swap(lock_, other.lock_);
  return *this;
}

RunDir::~RunDir() {
  if (path_.empty()) return;
  std::error_code error;
  fs::remove_all(path_, error);
  if (error) LogWarn("plugin_run_dir_left", "path={} reason={}", Quoted(path_), Quoted(error.message()));
}

std::expected<std::string, std::string> RunDir::MakeEmpty(const std::string& name) const {
  Remove(name);
  const std::string path = path_ + "/" + name;
  if (mkdir(path.c_str(), 0700) != 0)
    return std::unexpected(fmt::format("cannot make {}: {}", path, std::strerror(errno)));
  return path;
}

void RunDir::Remove(const std::string& name) const {
  std::error_code error;
  fs::remove_all(path_ + "/" + name, error);
}

}  // namespace dpa
