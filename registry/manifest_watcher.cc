#include "registry/manifest_watcher.h"

#include <poll.h>
#include <sys/eventfd.h>
#include <sys/inotify.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <optional>
#include <set>
#include <stop_token>
#include <string_view>
#include <utility>

#include "core/assert.h"
#include "core/log.h"
#include "registry/validation.h"

namespace dpa {
namespace {

using Clock = std::chrono::steady_clock;
using Milliseconds = std::chrono::milliseconds;

// Lines that one bad load may write; the rest is in status().
constexpr size_t kProblemsLoggedMax = 20;

constexpr uint32_t kWatchedEvents = IN_CREATE | IN_MODIFY | IN_CLOSE_WRITE | IN_MOVED_FROM | IN_MOVED_TO | IN_DELETE |
                                    IN_ATTRIB | IN_DELETE_SELF | IN_MOVE_SELF | IN_ONLYDIR;

// Kubernetes swaps the link `..data` when a ConfigMap changes; the manifests themselves are links through it.
bool IsRelevantName(std::string_view name) { return IsManifestName(name) || name.starts_with(".."); }

void LogProblems(std::string_view event, const std::vector<Problem>& problems, LogLevel level) {
  for (size_t i = 0; i < std::min(problems.size(), kProblemsLoggedMax); ++i) {
    const Problem& problem = problems[i];
    if (!LogEnabled(level)) return;
    WriteLog(level, event,
             fmt::format("file={} line={} column={} field={} problem={}", Quoted(problem.file), problem.line,
                         problem.column, Quoted(problem.field), Quoted(problem.message)));
  }
}

}  // namespace

// The inotify watch on the folder, and when what it has told is due to be read.
class ManifestWatcher::FolderWatch {
 public:
  explicit FolderWatch(const ManifestWatcherOptions& options)
      : options_(options), fd_(::inotify_init1(IN_CLOEXEC | IN_NONBLOCK)) {
    if (fd_ < 0) WarnOnce(errno);
  }
  FolderWatch(const FolderWatch&) = delete;
  FolderWatch& operator=(const FolderWatch&) = delete;
  ~FolderWatch() {
    if (fd_ >= 0) ::close(fd_);
  }

  // Watches what the folder's name stands for now, which a replaced folder or a changed link makes another than before.
  void Arm() {
    if (fd_ < 0) return;
    const int watch = ::inotify_add_watch(fd_, options_.folder.c_str(), kWatchedEvents);
    if (watch < 0 && errno != ENOENT && errno != ENOTDIR) WarnOnce(errno);
    if (watch_ >= 0 && watch_ != watch) ::inotify_rm_watch(fd_, watch_);
    if (watch_ != watch) being_written_.clear();
    watch_ = watch;
  }

  // Takes the events that have come, and moves due() accordingly.
  void TakeEvents(Clock::time_point now) {
    alignas(inotify_event) std::array<char, size_t{16} * 1024> buffer;
    while (true) {
      const ssize_t count = ::read(fd_, buffer.data(), buffer.size());
      if (count < 0 && errno == EINTR) continue;
      if (count <= 0) return;
      for (ssize_t offset = 0; offset < count;) {
        const auto* event = reinterpret_cast<const inotify_event*>(buffer.data() + offset);
        TakeEvent(*event, now);
        offset += static_cast<ssize_t>(sizeof(inotify_event) + event->len);
      }
    }
  }

  void MarkChanged(Clock::time_point now) {
    if (!first_event_) first_event_ = now;
    last_event_ = now;
  }

  // When the folder is to be read: after the events at hand have settled, else at the next regular scan.
  Clock::time_point due() const {
    const Clock::time_point regular = scanned_ + (watch_ >= 0 ? options_.rescan : options_.poll);
    if (!first_event_) return regular;
    const Clock::time_point latest = *first_event_ + options_.settle_max;
    return being_written_.empty() ? std::min(last_event_ + options_.settle, latest) : latest;
  }

  void MarkScanned(Clock::time_point now) {
    scanned_ = now;
    first_event_.reset();
  }

  int fd() const { return fd_; }

 private:
  void TakeEvent(const inotify_event& event, Clock::time_point now) {
    if ((event.mask & IN_Q_OVERFLOW) != 0) {
      being_written_.clear();
      return MarkChanged(now);
    }
    if (event.wd != watch_) return;  // Of a watch that has been replaced.
    if ((event.mask & (IN_IGNORED | IN_DELETE_SELF | IN_MOVE_SELF)) != 0) return MarkChanged(now);
    const std::string_view name = event.len > 0 ? std::string_view(event.name) : std::string_view();
    if (!IsRelevantName(name)) return;
    if ((event.mask & IN_MODIFY) != 0) {
      being_written_.emplace(name);
    } else if ((event.mask & (IN_CLOSE_WRITE | IN_DELETE | IN_MOVED_FROM | IN_MOVED_TO)) != 0) {
      being_written_.erase(std::string(name));
    }
    MarkChanged(now);
  }

  void WarnOnce(int os_errno) {
    if (std::exchange(warned_, true)) return;
    LogWarn("manifests_not_watched",
            "folder={} errno={} error={} consequence=\"changes are found by reading it every {} ms\"",
            Quoted(options_.folder), os_errno, Quoted(std::strerror(os_errno)), options_.poll.count());
  }

  const ManifestWatcherOptions& options_;
  const int fd_;
  int watch_ = -1;
  bool warned_ = false;
  std::set<std::string> being_written_;  // Modified and not yet closed: may be half a file.
  std::optional<Clock::time_point> first_event_;
  Clock::time_point last_event_;
  Clock::time_point scanned_;
};

// One reading of the folder, taken as far as it is good.
struct ManifestWatcher::Attempt {
  Manifests manifests;
  CompiledRoutes routes;
  std::vector<Problem> problems;

  Attempt(const ManifestFolder& folder, const ManifestWatcherOptions& options)
      : manifests(ParseManifests(folder, options.limits)), problems(manifests.problems) {
    ValidateServices(manifests.services, problems);
    if (problems.empty()) {
      routes = CompileRoutes(manifests.services, options.support);
      problems = routes.problems;
    }
    std::ranges::sort(problems);
    problems.erase(std::unique(problems.begin(), problems.end()), problems.end());
  }
};

ManifestWatcher::ManifestWatcher(ManifestWatcherOptions options, Publish publish)
    : options_(std::move(options)), publish_(std::move(publish)) {}

ManifestWatcher::~ManifestWatcher() {
  Stop();
  if (wake_fd_ >= 0) ::close(wake_fd_);
}

std::vector<Problem> ManifestWatcher::LoadOnce() {
  DPA_ASSERT(!thread_.joinable());
  Load();
  return status().problems;
}

void ManifestWatcher::Start() {
  DPA_ASSERT(wake_fd_ < 0);
  wake_fd_ = ::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  if (wake_fd_ < 0) {
    LogWarn("manifests_no_eventfd", "errno={} consequence=\"stopping and reloading wait for the next scan\"", errno);
  }
  thread_ = std::jthread([this](const std::stop_token& stop) { Run(stop); });
}

void ManifestWatcher::Rescan() {
  if (wake_fd_ < 0) return;
  const uint64_t one = 1;
  // A full counter has woken the thread already.
  [[maybe_unused]] const ssize_t written = ::write(wake_fd_, &one, sizeof one);
}

void ManifestWatcher::Stop() {
  if (!thread_.joinable()) return;
  thread_.request_stop();
  Rescan();
  thread_.join();
}

ManifestStatus ManifestWatcher::status() const {
  const std::scoped_lock lock(mutex_);
  return status_;
}

void ManifestWatcher::Run(const std::stop_token& stop) {
  FolderWatch watch(options_);
  while (!stop.stop_requested()) {
    // Armed before reading: what changes during the reading comes as an event and is read again.
    watch.Arm();
    watch.MarkScanned(Clock::now());
    Load();
    bool rescan = false;
    while (!rescan && !stop.stop_requested() && Clock::now() < watch.due()) {
      const auto wait = std::chrono::ceil<Milliseconds>(watch.due() - Clock::now());
      std::array<pollfd, 2> polled = {pollfd{watch.fd(), POLLIN, 0}, pollfd{wake_fd_, POLLIN, 0}};
      ::poll(polled.data(), polled.size(), static_cast<int>(std::max<int64_t>(0, wait.count())));
      if ((polled[0].revents & POLLIN) != 0) watch.TakeEvents(Clock::now());
      uint64_t ignored = 0;
      rescan = (polled[1].revents & POLLIN) != 0 && ::read(wake_fd_, &ignored, sizeof ignored) > 0;
    }
  }
}

void ManifestWatcher::Load() {
  ReadAndPublish();
  const std::scoped_lock lock(mutex_);
  ++status_.readings;
}

void ManifestWatcher::ReadAndPublish() {
  ManifestFolder content = ReadManifestFolder(options_.folder, options_.limits);
  if (attempted_ && content == last_content_) return;
  attempted_ = true;
  const bool is_good_again = status_.generation > 0 && content == good_content_;
  last_content_ = std::move(content);
  if (is_good_again) {
    LogInfo("manifests_restored", "folder={} generation={}", Quoted(options_.folder), status_.generation);
    logged_problems_.clear();
    SetProblems({}, false);
    return;
  }
  Attempt attempt(last_content_, options_);
  attempt.problems.empty() ? Accept(attempt) : Refuse(attempt);
}

void ManifestWatcher::Accept(Attempt& attempt) {
  good_content_ = last_content_;
  logged_problems_.clear();
  auto table = std::make_shared<RouteTable>(std::move(attempt.routes.table));
  {
    const std::scoped_lock lock(mutex_);
    table->generation = ++status_.generation;
    status_.services_count = attempt.manifests.services.size();
    status_.routes_count = table->route_count();
    status_.problems.clear();
    std::swap(status_.warnings, attempt.routes.warnings);
    status_.last_good_load = std::chrono::system_clock::now();
    ++status_.loads_good;
  }
  LogInfo("manifests_loaded", "folder={} generation={} files={} services={} routes={}", Quoted(options_.folder),
          table->generation, good_content_.files.size(), attempt.manifests.services.size(), table->route_count());
  // The swap has left the warnings of the table before: the same ones are not logged again.
  if (attempt.routes.warnings != status_.warnings) LogProblems("manifest_warning", status_.warnings, LogLevel::kWarn);
  if (publish_) publish_(std::move(table));
}

void ManifestWatcher::Refuse(const Attempt& attempt) {
  SetProblems(attempt.problems, true);
  if (attempt.problems == logged_problems_) return;
  logged_problems_ = attempt.problems;
  LogProblems("manifest_problem", attempt.problems, LogLevel::kError);
  LogError("manifests_refused", "folder={} problems={} kept_generation={}", Quoted(options_.folder),
           attempt.problems.size(), status_.generation);
}

void ManifestWatcher::SetProblems(const std::vector<Problem>& problems, bool counted) {
  const std::scoped_lock lock(mutex_);
  status_.problems = problems;
  status_.loads_bad += counted ? 1 : 0;
}

}  // namespace dpa
