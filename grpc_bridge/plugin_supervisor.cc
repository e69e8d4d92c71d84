#include "grpc_bridge/plugin_supervisor.h"

#include <fmt/format.h>
#include <poll.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <map>
#include <mutex>
#include <optional>
#include <thread>

#include "core/assert.h"
#include "core/log.h"
#include "grpc_bridge/handshake.h"
#include "grpc_bridge/plugin_log.h"
#include "grpc_bridge/plugin_manifest.h"
#include "grpc_bridge/plugin_supervisor_calls.h"
#include "grpc_bridge/plugin_supervisor_process.h"
#include "grpc_bridge/plugin_supervisor_run_dir.h"

extern char** environ;

namespace dpa {
namespace {

using Clock = std::chrono::steady_clock;
using std::chrono::milliseconds;

// How long a plugin that closed its stdout has until it counts as broken and not as about to exit.
constexpr milliseconds kClosedStdoutGrace{1000};
constexpr milliseconds kHealthRetryPause{100};
constexpr int64_t kHealthCallTimeoutMs = 5'000;
// Bytes taken from one pipe before the others get their turn.
constexpr size_t kReadBytesMax = 64 * 1024;

// ---- The environment of a plugin.

// Variables of a host's own that would change how a plugin serves, were they inherited: it would turn TLS or yamux on.
bool IsProtocolVariable(std::string_view variable) {
  return variable.starts_with("PLUGIN_") || variable.starts_with("grafana_plugin_type=");
}

// Later ones win in Go and in glibc's getenv the first one does, so no name may be there twice.
class Environment {
 public:
  Environment() {
    for (char** variable = environ; variable != nullptr && *variable != nullptr; ++variable) {
      const std::string_view text(*variable);
      const size_t equals = text.find('=');
      if (equals == std::string_view::npos || IsProtocolVariable(text)) continue;
      Set(text.substr(0, equals), text.substr(equals + 1));
    }
  }
  void Set(std::string_view name, std::string_view value) { variables_[std::string(name)] = value; }
  std::vector<std::string> ToList() const {
    std::vector<std::string> list;
    for (const auto& [name, value] : variables_) list.push_back(fmt::format("{}={}", name, value));
    return list;
  }

 private:
  std::map<std::string, std::string> variables_;
};

std::vector<std::string> EnvironmentOf(const PluginManifest& manifest, const PluginSupervisorOptions& options,
                                       const std::string& socket_dir) {
  Environment environment;
  environment.Set("GF_VERSION", options.grafana_version);
  environment.Set("GF_PLUGIN_VERSION", manifest.version);
  for (const auto& [name, value] : options.extra_environment) environment.Set(name, value);
  environment.Set("grafana_plugin_type", "datasource");  // The cookie, the same for every type.
  environment.Set("PLUGIN_PROTOCOL_VERSIONS", "2");
  environment.Set("PLUGIN_MIN_PORT", "10000");
  environment.Set("PLUGIN_MAX_PORT", "25000");
  environment.Set("PLUGIN_UNIX_SOCKET_DIR", socket_dir);
  return environment.ToList();
}

// ---- Events.

// An eventfd: one thread waits for it, any may set it.
class Signal {
 public:
  Signal() : fd_(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) { DPA_ASSERT(fd_.get() >= 0); }
  int fd() const { return fd_.get(); }
  void Set() const {
    const uint64_t one = 1;
    [[maybe_unused]] const ssize_t written = write(fd_.get(), &one, sizeof(one));
  }
  void Clear() const {
    uint64_t count = 0;
    [[maybe_unused]] const ssize_t got = read(fd_.get(), &count, sizeof(count));
  }

 private:
  OwnedFd fd_;
};

int PollTimeoutMs(std::optional<Clock::time_point> deadline) {
  if (!deadline) return -1;
  const auto left = std::chrono::ceil<milliseconds>(*deadline - Clock::now()).count();
  return static_cast<int>(std::clamp<int64_t>(left, 0, 3'600'000));
}

// Reads what is there, up to kReadBytesMax; closes the pipe at its end.
template <class Take>
void DrainPipe(OwnedFd* fd, Take take) {
  if (fd->get() < 0) return;
  char bytes[16 * 1024];
  for (size_t total = 0; total < kReadBytesMax;) {
    const ssize_t count = read(fd->get(), bytes, sizeof(bytes));
    if (count > 0) {
      take(std::string_view(bytes, static_cast<size_t>(count)));
      total += static_cast<size_t>(count);
      continue;
    }
    if (count < 0 && errno == EINTR) continue;
    if (count == 0 || errno != EAGAIN) fd->Close();
    return;
  }
}

// ---- One process, while it lives.

// Keeps a process's pipes drained while its owner waits for something.
class Incarnation {
 public:
  struct Turn {
    bool exited = false;
    bool stop = false;
    bool timeout = false;
  };

  Incarnation(PluginProcess process, PluginLog* log, int stop_fd)
      : process_(std::move(process)), log_(log), stop_fd_(stop_fd) {}

  // Waits for the next event: bytes from the plugin, an answer (wake_fd), its exit, a request to stop, or the deadline.
  Turn Wait(std::optional<Clock::time_point> deadline) {
    pollfd fds[] = {{process_.pidfd(), POLLIN, 0},
                    {stop_heard_ ? -1 : stop_fd_, POLLIN, 0},
                    {wake_.fd(), POLLIN, 0},
                    {process_.stdout_fd().get(), POLLIN, 0},
                    {process_.stderr_fd().get(), POLLIN, 0}};
    poll(fds, std::size(fds), PollTimeoutMs(deadline));
    if (fds[2].revents != 0) wake_.Clear();
    if (fds[3].revents != 0) DrainStdout();
    if (fds[4].revents != 0) DrainStderr();
    stop_heard_ = stop_heard_ || fds[1].revents != 0;
    return Turn{fds[0].revents != 0, stop_heard_, deadline && Clock::now() >= *deadline};
  }

  // Once its end is certain: takes the last words out of the pipes. Returns how it ended.
  std::string Bury() {
    std::string how = process_.Bury();
    for (int i = 0; i < 64 && process_.stderr_fd().get() >= 0; ++i) DrainStderr();
    log_->Finish();
    return how;
  }

  PluginProcess& process() { return process_; }
  const HandshakeReader& handshake() const { return handshake_; }
  HandshakeReader::State handshake_state() const { return handshake_state_; }
  bool stdout_closed() { return process_.stdout_fd().get() < 0; }
  int wake_fd() const { return wake_.fd(); }

 private:
  void DrainStdout() {
    DrainPipe(&process_.stdout_fd(), [this](std::string_view bytes) { handshake_state_ = handshake_.Feed(bytes); });
  }
  void DrainStderr() {
    DrainPipe(&process_.stderr_fd(), [this](std::string_view bytes) { log_->Feed(bytes); });
  }

  PluginProcess process_;
  PluginLog* const log_;
  const int stop_fd_;
  bool stop_heard_ = false;  // A set stop_fd stays readable; it is not polled twice.
  Signal wake_;
  HandshakeReader handshake_;
  HandshakeReader::State handshake_state_ = HandshakeReader::State::kWaiting;
};

// ---- One plugin.

// What a runner tells the supervisor.
struct RunnerReport {
  PluginEntry entry;
  PluginCounts counts;
};

class PluginRunner {
 public:
  using Publish = std::function<void(const RunnerReport&)>;

  PluginRunner(PluginManifest manifest, const PluginSupervisorOptions& options, const RunDir& run_dir,
               std::string dir_name, Publish publish)
      : manifest_(std::move(manifest)),
        options_(options),
        run_dir_(run_dir),
        dir_name_(std::move(dir_name)),
        publish_(std::move(publish)),
        log_(manifest_.id,
             PluginLogOptions{.lines_burst = options.log_lines_burst, .lines_per_s = options.log_lines_per_s},
             [](LogLevel level, std::string_view fields) { WriteLog(level, "plugin_log", fields); }) {
    report_.entry = PluginEntry{.id = manifest_.id, .type = manifest_.type, .version = manifest_.version};
    report_.counts.id = manifest_.id;
  }

  const RunnerReport& initial_report() const { return report_; }

  void Start() {
    thread_ = std::thread([this] { Run(); });
  }
  void RequestStop() const { stop_.Set(); }
  void Join() {
    if (thread_.joinable()) thread_.join();
  }

 private:
  // How one incarnation ended.
  struct Ending {
    bool stop = false;  // We wanted it.
    std::string failure;
    milliseconds ran{0};  // In state kRunning.
  };

  void Run() {
    for (milliseconds pause(options_.backoff_first_ms);;) {
      const Ending ending = RunOnce();
      run_dir_.Remove(dir_name_);
      if (ending.stop) break;
      if (ending.ran >= milliseconds(options_.backoff_reset_ms)) pause = milliseconds(options_.backoff_first_ms);
      LogError("plugin_failed", "plugin={} incarnation={} ran_ms={} retry_ms={} failure={}", manifest_.id,
               report_.entry.incarnation, ending.ran.count(), pause.count(), Quoted(ending.failure));
      Report(PluginState::kBackoff, "", 0, ending.failure);
      starting_ = fmt::format("starting again after: {}", ending.failure);
      if (!SleepUnlessStopped(pause)) break;
      pause = std::min(pause * 2, milliseconds(options_.backoff_max_ms));
    }
    Report(PluginState::kStopped, "", 0, "stopped");
  }

  Ending RunOnce() {
    ++report_.entry.incarnation;
    ++report_.counts.starts;
    if (report_.counts.starts > 1) ++report_.counts.restarts;
    Report(PluginState::kStarting, "", 0, starting_);
    log_.Reset();
    const auto deadline = Clock::now() + milliseconds(options_.start_timeout_ms);
    auto process = Launch();
    if (!process) return NeverRan(process.error());
    Incarnation incarnation(*std::move(process), &log_, stop_.fd());
    Report(PluginState::kStarting, "", incarnation.process().pid(), starting_);
    const auto handshake = AwaitHandshake(&incarnation, deadline);
    if (!handshake) return EndEarly(&incarnation, handshake.error());
    PluginCalls calls(handshake->address, incarnation.wake_fd());
    calls.DrainStdio();
    const auto healthy = AwaitHealth(&incarnation, &calls, deadline);
    if (!healthy) return EndEarly(&incarnation, healthy.error());
    Report(PluginState::kRunning, handshake->address, incarnation.process().pid(), "");
    LogInfo("plugin_started", "plugin={} version={} pid={} incarnation={} address={}", manifest_.id,
            Quoted(manifest_.version), incarnation.process().pid(), report_.entry.incarnation,
            Quoted(handshake->address));
    return Attend(&incarnation, &calls);
  }

  // ---- The steps of a start. Why one did not succeed: stop and exit are told apart from the plugin's own mistakes.

  enum class Cause { kStop, kExit, kMistake };
  struct Setback {
    Cause cause;
    std::string what;
  };

  std::expected<PluginProcess, std::string> Launch() {
    if (std::string why = CheckExecutable(manifest_); !why.empty()) return std::unexpected(std::move(why));
    auto socket_dir = run_dir_.MakeEmpty(dir_name_);
    if (!socket_dir) return std::unexpected(socket_dir.error());
    return PluginProcess::Launch({manifest_.executable_path, EnvironmentOf(manifest_, options_, *socket_dir)});
  }

  std::expected<Handshake, Setback> AwaitHandshake(Incarnation* incarnation, Clock::time_point deadline) {
    std::optional<Clock::time_point> closed_deadline;
    for (;;) {
      switch (incarnation->handshake_state()) {
        case HandshakeReader::State::kComplete: {
          auto handshake = ParseHandshake(incarnation->handshake().line());
          if (!handshake) return std::unexpected(Setback{Cause::kMistake, std::move(handshake.error())});
          return *std::move(handshake);
        }
        case HandshakeReader::State::kTooLong:
          return std::unexpected(
              Setback{Cause::kMistake, fmt::format("printed {} bytes without a handshake line", kHandshakeBytesMax)});
        case HandshakeReader::State::kWaiting:
          break;
      }
      if (incarnation->stdout_closed() && !closed_deadline) closed_deadline = Clock::now() + kClosedStdoutGrace;
      const auto turn = incarnation->Wait(closed_deadline ? std::min(deadline, *closed_deadline) : deadline);
      if (turn.stop) return std::unexpected(Setback{Cause::kStop, ""});
      if (incarnation->handshake_state() != HandshakeReader::State::kWaiting) continue;
      if (turn.exited) return std::unexpected(Setback{Cause::kExit, "before its handshake"});
      if (!turn.timeout) continue;
      if (closed_deadline) return std::unexpected(Setback{Cause::kMistake, "closed its stdout before its handshake"});
      return std::unexpected(
          Setback{Cause::kMistake, fmt::format("printed no handshake line within {} ms", options_.start_timeout_ms)});
    }
  }

  // Asks until it serves; a plugin may listen a moment after its handshake.
  std::expected<void, Setback> AwaitHealth(Incarnation* incarnation, PluginCalls* calls, Clock::time_point deadline) {
    std::string why = "no answer to the health check";
    for (;;) {
      const auto left = std::chrono::ceil<milliseconds>(deadline - Clock::now()).count();
      calls->CheckHealth(std::clamp<int64_t>(left, 1, kHealthCallTimeoutMs));
      std::optional<PluginCalls::HealthAnswer> answer;
      while (!(answer = calls->TakeHealth())) {
        if (auto setback = Interrupted(incarnation->Wait(std::nullopt))) return std::unexpected(*std::move(setback));
      }
      if (answer->health == PluginCalls::Health::kServing) return {};
      why = answer->why;
      const auto retry = std::min(deadline, Clock::now() + kHealthRetryPause);
      for (Incarnation::Turn turn; !turn.timeout;) {
        turn = incarnation->Wait(retry);
        if (auto setback = Interrupted(turn)) return std::unexpected(*std::move(setback));
      }
      if (Clock::now() >= deadline) {
        return std::unexpected(
            Setback{Cause::kMistake, fmt::format("not healthy within {} ms: {}", options_.start_timeout_ms, why)});
      }
    }
  }

  static std::optional<Setback> Interrupted(const Incarnation::Turn& turn) {
    if (turn.stop) return Setback{Cause::kStop, ""};
    if (turn.exited) return Setback{Cause::kExit, "before it was healthy"};
    return std::nullopt;
  }

  // ---- The ends.

  Ending NeverRan(std::string failure) {
    ++report_.counts.start_failures;
    return Ending{.failure = std::move(failure)};
  }

  Ending EndEarly(Incarnation* incarnation, const Setback& setback) {
    const std::string how = incarnation->Bury();
    if (setback.cause == Cause::kStop) return Ending{.stop = true};
    if (setback.cause == Cause::kExit) return NeverRan(WithLastWords(fmt::format("{} {}", how, setback.what)));
    return NeverRan(WithLastWords(setback.what));
  }

  // Stays with a running plugin until it ends or is to stop.
  Ending Attend(Incarnation* incarnation, PluginCalls* calls) {
    const auto began = Clock::now();
    for (;;) {
      const auto turn = incarnation->Wait(std::nullopt);
      const auto ran = std::chrono::duration_cast<milliseconds>(Clock::now() - began);
      if (turn.exited) {
        ++report_.counts.exits;
        return Ending{.failure = WithLastWords(incarnation->Bury()), .ran = ran};
      }
      if (turn.stop) {
        ShutDown(incarnation, calls);
        return Ending{.stop = true, .ran = ran};
      }
    }
  }

  void ShutDown(Incarnation* incarnation, PluginCalls* calls) {
    Report(PluginState::kStopped, "", incarnation->process().pid(), "stopping");
    const auto deadline = Clock::now() + milliseconds(options_.stop_timeout_ms);
    calls->Shutdown(options_.stop_timeout_ms);
    Incarnation::Turn turn;
    while (!turn.exited && !turn.timeout) {
      turn = incarnation->Wait(deadline);
      // Who has no such service may at least know the signal; it costs Rust plugins two seconds otherwise.
      if (calls->TakeShutdown() == PluginCalls::ShutdownAnswer::kUnsupported) incarnation->process().Signal(SIGTERM);
    }
    const std::string how = incarnation->Bury();
    LogInfo("plugin_stopped", "plugin={} in_time={} end={}", manifest_.id, turn.exited, Quoted(how));
  }

  std::string WithLastWords(std::string failure) const {
    if (log_.last_words().empty()) return failure;
    return fmt::format("{}; last words: {}", failure, Quoted(log_.last_words()));
  }

  bool SleepUnlessStopped(milliseconds pause) const {
    pollfd stop{.fd = stop_.fd(), .events = POLLIN, .revents = 0};
    return poll(&stop, 1, static_cast<int>(pause.count())) == 0;
  }

  void Report(PluginState state, std::string_view address, int pid, std::string_view failure) {
    report_.entry.state = state;
    report_.entry.address = address;
    report_.entry.pid = pid;
    report_.entry.failure = failure;
    report_.counts.log_lines_dropped = log_.lines_dropped();
    publish_(report_);
  }

  const PluginManifest manifest_;
  const PluginSupervisorOptions& options_;
  const RunDir& run_dir_;
  // A plugin that hangs at start is mostly in this state: why it came to it must not be lost with each new attempt.
  std::string starting_ = "starting";
  const std::string dir_name_;  // Of its socket's directory; short.
  const Publish publish_;
  PluginLog log_;
  RunnerReport report_;
  Signal stop_;
  std::thread thread_;
};

}  // namespace

// ---- All plugins.

struct PluginSupervisor::Impl {
  Impl(PluginSupervisorOptions given_options, OnChange given_on_change)
      : options(std::move(given_options)), on_change(std::move(given_on_change)) {}

  void Publish(const RunnerReport& report) {
    // Held over the callback, so that directories come out one at a time and in order.
    const std::lock_guard publishing(publish_mutex);
    std::shared_ptr<const PluginDirectory> newest;
    {
      const std::lock_guard lock(mutex);
      reports[report.entry.id] = report;
      newest = MakeDirectory();
      directory = newest;
    }
    if (on_change) on_change(newest);
  }

  // REQUIRES: mutex is held, or no runner runs.
  std::shared_ptr<const PluginDirectory> MakeDirectory() const {
    auto made = std::make_shared<PluginDirectory>();
    for (const auto& [id, report] : reports) made->plugins.push_back(report.entry);
    return made;
  }

  // Plugins whose plugin.json cannot be used have an entry too: silence would hide them from whoever looks at the
  // directory.
  void AddUnusable(const PluginProblem& problem) {
    LogError("plugin_unusable", "file={} problem={}", Quoted(problem.file), Quoted(problem.what));
    RunnerReport report;
    report.entry.id = problem.id;
    report.entry.state = PluginState::kStopped;
    report.entry.failure = fmt::format("{}: {}", problem.file, problem.what);
    report.counts.id = problem.id;
    reports.try_emplace(problem.id, std::move(report));
  }

  const PluginSupervisorOptions options;
  const OnChange on_change;
  RunDir run_dir;
  std::vector<std::unique_ptr<PluginRunner>> runners;  // Filled by Start, emptied by Stop.

  std::mutex publish_mutex;
  mutable std::mutex mutex;  // Guards what follows.
  std::map<std::string, RunnerReport, std::less<>> reports;
  std::shared_ptr<const PluginDirectory> directory = std::make_shared<PluginDirectory>();
};

PluginSupervisor::PluginSupervisor(PluginSupervisorOptions options, OnChange on_change)
    : impl_(std::make_unique<Impl>(std::move(options), std::move(on_change))) {}

PluginSupervisor::~PluginSupervisor() { Stop(); }

std::expected<void, std::string> PluginSupervisor::Start() {
  DPA_ASSERT(impl_->runners.empty());
  PluginScan scan = FindPlugins(impl_->options.dirs);
  for (const PluginProblem& problem : scan.problems) {
    if (problem.id.empty()) return std::unexpected(fmt::format("{}: {}", problem.file, problem.what));
  }
  auto run_dir = RunDir::Make(impl_->options.run_dir);
  if (!run_dir) return std::unexpected(run_dir.error());
  impl_->run_dir = *std::move(run_dir);

  for (PluginManifest& manifest : scan.plugins) {
    const std::string dir_name = fmt::format("{}", impl_->runners.size());
    impl_->runners.push_back(
        std::make_unique<PluginRunner>(std::move(manifest), impl_->options, impl_->run_dir, dir_name,
                                       [impl = impl_.get()](const RunnerReport& report) { impl->Publish(report); }));
    const RunnerReport& report = impl_->runners.back()->initial_report();
    impl_->reports[report.entry.id] = report;
  }
  for (const PluginProblem& problem : scan.problems) impl_->AddUnusable(problem);
  impl_->directory = impl_->MakeDirectory();
  if (impl_->on_change) impl_->on_change(impl_->directory);
  for (const auto& runner : impl_->runners) runner->Start();
  return {};
}

void PluginSupervisor::Stop() {
  for (const auto& runner : impl_->runners) runner->RequestStop();
  for (const auto& runner : impl_->runners) runner->Join();
  impl_->runners.clear();
  impl_->run_dir = RunDir();
}

std::shared_ptr<const PluginDirectory> PluginSupervisor::directory() const {
  const std::lock_guard lock(impl_->mutex);
  return impl_->directory;
}

std::vector<PluginCounts> PluginSupervisor::counts() const {
  const std::lock_guard lock(impl_->mutex);
  std::vector<PluginCounts> counts;
  for (const auto& [id, report] : impl_->reports) counts.push_back(report.counts);
  return counts;
}

}  // namespace dpa
