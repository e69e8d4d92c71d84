#include "grpc_bridge/plugin_supervisor_process.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <climits>
#include <cstring>

#include "core/assert.h"
#include "core/log.h"

namespace dpa {
namespace {

constexpr int kBuryTimeoutMs = 5'000;
// Where the child keeps the pipe on which it reports that it could not start; everything above is closed.
constexpr int kReportFd = 3;

struct Pipe {
  OwnedFd read;
  OwnedFd write;
};

// Both ends close at exec and are above the numbers that the child rearranges.
std::expected<Pipe, std::string> MakePipe() {
  int fds[2];
  if (pipe2(fds, O_CLOEXEC) != 0) return std::unexpected(fmt::format("no pipe: {}", std::strerror(errno)));
  const Pipe low{OwnedFd(fds[0]), OwnedFd(fds[1])};
  Pipe pipe{OwnedFd(fcntl(fds[0], F_DUPFD_CLOEXEC, kReportFd + 1)),
            OwnedFd(fcntl(fds[1], F_DUPFD_CLOEXEC, kReportFd + 1))};
  if (pipe.read.get() < 0 || pipe.write.get() < 0)
    return std::unexpected(fmt::format("no pipe: {}", std::strerror(errno)));
  return pipe;
}

struct ChildPlan {
  const char* path;
  char* const* argv;
  char* const* envp;
  int stdout_fd;
  int stderr_fd;
  int report_fd;
  pid_t parent;
};

[[noreturn]] void Report(int fd) {
  const int reason = errno;
  [[maybe_unused]] const ssize_t written = write(fd, &reason, sizeof(reason));
  _exit(127);
}

// Runs in the child of a process with many threads: nothing but async-signal-safe calls until exec.
[[noreturn]] void RunChild(const ChildPlan& plan) {
  setpgid(0, 0);
  if (prctl(PR_SET_PDEATHSIG, SIGKILL) != 0) Report(plan.report_fd);
  if (getppid() != plan.parent) _exit(127);  // It died before prctl could tell us.
  // Ignored signals stay ignored over exec, and so does the mask.
  struct sigaction by_default{};
  by_default.sa_handler = SIG_DFL;
  for (int number = 1; number < NSIG; ++number) sigaction(number, &by_default, nullptr);
  sigset_t none;
  sigemptyset(&none);
  sigprocmask(SIG_SETMASK, &none, nullptr);
  const int null_fd = open("/dev/null", O_RDONLY);
  if (null_fd < 0 || dup2(null_fd, STDIN_FILENO) < 0) Report(plan.report_fd);
  if (dup2(plan.stdout_fd, STDOUT_FILENO) < 0 || dup2(plan.stderr_fd, STDERR_FILENO) < 0) Report(plan.report_fd);
  if (dup3(plan.report_fd, kReportFd, O_CLOEXEC) < 0) Report(plan.report_fd);
  close_range(kReportFd + 1, UINT_MAX, 0);
  execve(plan.path, plan.argv, plan.envp);
  Report(kReportFd);
}

// 0 once the executable runs (the pipe closed at exec), else the errno that the child reported.
int ReadReport(int fd) {
  int reason = 0;
  ssize_t count = 0;
  do {
    count = read(fd, &reason, sizeof(reason));
  } while (count < 0 && errno == EINTR);
  return count == sizeof(reason) ? reason : 0;
}

void SetNonBlocking(int fd) { fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK); }

// glibc 2.36 declares its wrapper without extern "C". The result closes at exec.
int OpenPidfd(pid_t pid) { return static_cast<int>(syscall(SYS_pidfd_open, pid, 0)); }

std::string Describe(const siginfo_t& info) {
  if (info.si_code == CLD_EXITED) return fmt::format("exited with code {}", info.si_status);
  const char* name = sigdescr_np(info.si_status);
  return fmt::format("was killed by signal {} ({})", info.si_status, name == nullptr ? "unknown" : name);
}

}  // namespace

OwnedFd::~OwnedFd() {
  if (fd_ >= 0) close(fd_);
}

std::expected<PluginProcess, std::string> PluginProcess::Launch(const PluginLaunch& launch) {
  auto out = MakePipe();
  auto err = MakePipe();
  auto report = MakePipe();
  if (!out || !err || !report) return std::unexpected(!out ? out.error() : !err ? err.error() : report.error());
  std::string path = launch.executable_path;
  char* argv[] = {path.data(), nullptr};
  std::vector<char*> envp;
  for (const std::string& variable : launch.environment) envp.push_back(const_cast<char*>(variable.c_str()));
  envp.push_back(nullptr);
  const ChildPlan plan{path.c_str(),        argv,    envp.data(), out->write.get(), err->write.get(),
                       report->write.get(), getpid()};

  const pid_t pid = fork();
  if (pid < 0) return std::unexpected(fmt::format("cannot fork: {}", std::strerror(errno)));
  if (pid == 0) RunChild(plan);
  report->write.Close();
  PluginProcess process(pid, OwnedFd(OpenPidfd(pid)), std::move(out->read), std::move(err->read));
  const int pidfd_errno = errno;
  const int reason = ReadReport(report->read.get());
  if (reason != 0) return std::unexpected(fmt::format("cannot start {}: {}", path, std::strerror(reason)));
  if (process.pidfd() < 0) return std::unexpected(fmt::format("no pidfd: {}", std::strerror(pidfd_errno)));
  SetNonBlocking(process.stdout_.get());
  SetNonBlocking(process.stderr_.get());
  return process;
}

PluginProcess::PluginProcess(int pid, OwnedFd pidfd, OwnedFd out, OwnedFd err)
    : pid_(pid), pidfd_(std::move(pidfd)), stdout_(std::move(out)), stderr_(std::move(err)) {}

PluginProcess::PluginProcess(PluginProcess&& other) noexcept
    : pid_(std::exchange(other.pid_, 0)),
      pidfd_(std::move(other.pidfd_)),
      stdout_(std::move(other.stdout_)),
      stderr_(std::move(other.stderr_)) {}

PluginProcess::~PluginProcess() {
  if (pid_ != 0) Bury();
}

void PluginProcess::Signal(int signal) const {
  DPA_ASSERT(pid_ > 0);
  // The child makes its group itself, but may not have come to it yet.
  if (kill(-pid_, signal) != 0) kill(pid_, signal);
}

std::string PluginProcess::Bury() {
  DPA_ASSERT(pid_ > 0);
  const int pid = std::exchange(pid_, 0);
  // Before waitid: until then the number is ours, afterwards it may be a stranger's.
  if (kill(-pid, SIGKILL) != 0) kill(pid, SIGKILL);
  pollfd end{.fd = pidfd_.get(), .events = POLLIN, .revents = 0};
  if (pidfd_.get() >= 0 && poll(&end, 1, kBuryTimeoutMs) == 0) {
    LogError("plugin_unkillable", "pid={} waited_ms={}", pid, kBuryTimeoutMs);
    return "cannot be killed";
  }
  siginfo_t info{};
  int result = 0;
  do {
    result = waitid(P_PID, static_cast<id_t>(pid), &info, WEXITED);
  } while (result != 0 && errno == EINTR);
  if (result != 0) return fmt::format("ended in a way that the system does not tell ({})", std::strerror(errno));
  return Describe(info);
}

}  // namespace dpa
