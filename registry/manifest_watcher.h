// ManifestWatcher turns a folder of manifests into RouteTables, at start-up and at every change.
//
//     events ──▶ quiet for `settle` or `settle_max` after the first ──▶ read ──▶ same bytes? ─yes─▶ nothing
//                                                                                 │no
//                                            last good table stays ◀─problems─ parse, validate, compile
//                                            status() says why                    │good
//                                                                        publish, generation + 1
//
// A table is all manifests of one reading or none: one bad file keeps the last good table as a whole, because half of a
// change is a state that nobody has written down. Each distinct set of problems is logged once.
//
// It watches with inotify on a thread of its own: plain writes, renames over a file, and the swap of a ConfigMap
// volume's
// `..data` link. A file that somebody has begun to write is not read before it is closed, or `settle_max` has passed.
// Every `rescan` it reads the folder anyway, for what inotify cannot see (a link's far end, a network file system, a
// replaced folder); without inotify, or while the folder is missing, every `poll`.
//
// Thread safety: status(), Rescan() and Stop() from any thread; the rest from the owner's.

#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "registry/manifest.h"
#include "registry/route_compiler.h"

namespace dpa {

struct ManifestWatcherOptions {
  std::string folder;
  RouteSupport support;
  ManifestLimits limits;
  std::chrono::milliseconds settle{100};      // Quiet time after an event before the folder is read.
  std::chrono::milliseconds settle_max{500};  // …but never longer than this after the first event.
  std::chrono::milliseconds rescan{5'000};
  std::chrono::milliseconds poll{500};
};

struct ManifestStatus {
  uint64_t generation = 0;        // Of the table in force; 0 before the first good load.
  size_t services_count = 0;      // DataPlaneServices in it.
  size_t routes_count = 0;        // Patterns in it.
  std::vector<Problem> problems;  // Of the last attempt; empty: the folder's content is in force.
  std::vector<Problem> warnings;  // Of the table in force.
  uint64_t readings = 0;          // Of the folder, whether its content had changed or not.
  uint64_t loads_good = 0;        // Attempts on new content that were put in force.
  uint64_t loads_bad = 0;         // …that were refused.
  std::chrono::system_clock::time_point last_good_load;
};

class ManifestWatcher {
 public:
  // Called with each new table on the thread that loaded it: LoadOnce's caller, then the watcher's. It must not block
  // for long, and must not call back into the watcher.
  using Publish = std::function<void(std::shared_ptr<const RouteTable>)>;

  // `publish` may be empty (--check).
  ManifestWatcher(ManifestWatcherOptions options, Publish publish);
  ~ManifestWatcher();  // Stops.
  ManifestWatcher(const ManifestWatcher&) = delete;
  ManifestWatcher& operator=(const ManifestWatcher&) = delete;

  // Reads the folder now, and publishes if it is good. Returns its problems; a missing folder is one.
  // REQUIRES: not started.
  std::vector<Problem> LoadOnce();

  // Begins to watch; the first act is to read the folder, so nothing is missed since LoadOnce.
  // REQUIRES: called once.
  void Start();

  // Reads the folder soon, without waiting for an event (SIGHUP). Does nothing unless started.
  void Rescan();

  // Ends the thread; no Publish begins after it returns. May be called again.
  void Stop();

  ManifestStatus status() const;

 private:
  class FolderWatch;
  struct Attempt;

  void Run(const std::stop_token& stop);
  void Load();
  void ReadAndPublish();
  void Accept(Attempt& attempt);
  void Refuse(const Attempt& attempt);
  void SetProblems(const std::vector<Problem>& problems, bool counted);

  const ManifestWatcherOptions options_;
  const Publish publish_;

  // Of the loading thread.
  bool attempted_ = false;
  ManifestFolder last_content_;  // Of the last attempt.
  ManifestFolder good_content_;  // Of the table in force.
  std::vector<Problem> logged_problems_;

  mutable std::mutex mutex_;
  ManifestStatus status_;  // Guarded by mutex_.

  int wake_fd_ = -1;  // eventfd: Rescan and Stop.
  std::jthread thread_;
};

}  // namespace dpa
