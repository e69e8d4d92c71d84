// PluginProcess is one plugin process from launch to burial: its pid, a pidfd that becomes readable when it ends, and
// the reading ends of its stdout and stderr.
//
// The process leads a group of its own, so that what it starts itself ends with it. It gets no file descriptor of ours
// but the two pipes, /dev/null as stdin, default signal handling, and SIGKILL from the kernel when *the thread that
// launched it* ends (PR_SET_PDEATHSIG is per thread): so the thread that calls Launch is the one that buries it.

#pragma once

#include <cstdint>
#include <expected>
#include <string>
#include <utility>
#include <vector>

namespace dpa {

// A file descriptor with an owner.
class OwnedFd {
 public:
  OwnedFd() = default;
  explicit OwnedFd(int fd) : fd_(fd) {}
  OwnedFd(OwnedFd&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  OwnedFd& operator=(OwnedFd&& other) noexcept {
    std::swap(fd_, other.fd_);
    return *this;
  }
  ~OwnedFd();

  int get() const { return fd_; }
  void Close() { *this = OwnedFd(); }

 private:
  int fd_ = -1;
};

struct PluginLaunch {
  std::string executable_path;
  std::vector<std::string> environment;  // NAME=VALUE, all that the process gets.
};

class PluginProcess {
 public:
  // Returns when the executable runs (or could not be run). Errors: one line with the system's reason.
  static std::expected<PluginProcess, std::string> Launch(const PluginLaunch& launch);

  PluginProcess(PluginProcess&&) noexcept;
  PluginProcess& operator=(PluginProcess&&) = delete;
  // Kills and buries it, if Bury was not called.
  ~PluginProcess();

  int pid() const { return pid_; }
  int pidfd() const { return pidfd_.get(); }
  // Non-blocking reading ends.
  OwnedFd& stdout_fd() { return stdout_; }
  OwnedFd& stderr_fd() { return stderr_; }

  // `signal` to the whole group. REQUIRES: not buried.
  void Signal(int signal) const;
  // Kills what is left of the group, waits for the process, and says how it ended: "exited with code 7", "was killed by
  // signal 9 (Killed)". The wait ends after five seconds even if the kernel cannot end the process.
  std::string Bury();

 private:
  PluginProcess(int pid, OwnedFd pidfd, OwnedFd out, OwnedFd err);

  int pid_ = 0;  // 0: buried, or moved from.
  OwnedFd pidfd_;
  OwnedFd stdout_;
  OwnedFd stderr_;
};

}  // namespace dpa
