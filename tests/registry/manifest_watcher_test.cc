// Goal: what stands in the folder is what is served, soon after any kind of change, and nothing bad ever replaces
// something good. Method: a watcher on a temporary folder; the test changes files as people and tools do, and waits, up
// to a bound, for the state that a user would see.

#include "registry/manifest_watcher.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

namespace dpa {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::SizeIs;

std::string Manifest(const std::string& group, const std::string& plugin = "p") {
  return "apiVersion: aggregation.grafana.app/v0alpha1\nkind: DataPlaneService\nmetadata: {name: v1." + group +
         "}\nspec:\n  pluginID: " + plugin + "\n  pluginType: datasource\n  group: " + group +
         "\n  version: v1\n  services: [{type: query}]\n";
}

class ManifestWatcherTest : public ::testing::Test {
 protected:
  void SetUp() override {
    std::string path = ::testing::TempDir() + "dpa_watch_XXXXXX";
    ASSERT_NE(::mkdtemp(path.data()), nullptr);
    root_ = path;
    folder_ = root_ / "services";
    fs::create_directory(folder_);
  }
  void TearDown() override {
    watcher_.reset();
    fs::remove_all(root_);
  }

  ManifestWatcherOptions Options() {
    ManifestWatcherOptions options;
    options.folder = folder_;
    options.support.types = {ServiceType::kQuery};
    // So long that a change which inotify should tell is not found by chance.
    options.rescan = std::chrono::hours(1);
    return options;
  }

  void Make(const ManifestWatcherOptions& options) {
    watcher_ = std::make_unique<ManifestWatcher>(options, [this](std::shared_ptr<const RouteTable> table) {
      const std::scoped_lock lock(mutex_);
      generations_.push_back(table->generation);
      table_ = std::move(table);
    });
  }
  // Loads, starts, and waits for the thread's first reading, so that a later change is found by the way under test.
  void Start(const ManifestWatcherOptions& options) {
    Make(options);
    EXPECT_THAT(watcher_->LoadOnce(), IsEmpty());
    watcher_->Start();
    EXPECT_TRUE(Eventually([&] { return watcher_->status().readings >= 2; }));
  }
  void Start() { Start(Options()); }

  void Write(const fs::path& path, const std::string& text) { std::ofstream(path) << text; }

  // The plugin that answers queries of `group` by the newest table; empty: the delegate.
  std::string Plugin(const std::string& group) {
    const std::scoped_lock lock(mutex_);
    if (table_ == nullptr) return {};
    RouteMatch match;
    table_->Match("POST", "/apis/" + group + "/v1/namespaces/n/datasources/u/query", match);
    return match.target == nullptr ? std::string() : match.target->plugin_id;
  }

  template <class F>
  static bool Eventually(F condition) {
    for (int i = 0; i < 2'000; ++i) {
      if (condition()) return true;
      std::this_thread::sleep_for(std::chrono::milliseconds(10));
    }
    return false;
  }
  bool Served(const std::string& group, const std::string& plugin) {
    return Eventually([&] { return Plugin(group) == plugin; });
  }
  bool HasProblem(const std::string& part) {
    return Eventually([&] {
      for (const Problem& problem : watcher_->status().problems) {
        if (ToString(problem).contains(part)) return true;
      }
      return false;
    });
  }
  bool IsClean() {
    return Eventually([&] { return watcher_->status().problems.empty(); });
  }

  fs::path root_;
  fs::path folder_;
  std::mutex mutex_;
  std::shared_ptr<const RouteTable> table_;
  std::vector<uint64_t> generations_;
  std::unique_ptr<ManifestWatcher> watcher_;
};

TEST_F(ManifestWatcherTest, LoadsAtStart) {
  Write(folder_ / "a.yaml", Manifest("a") + "---\n" + Manifest("b"));
  Make(Options());
  EXPECT_THAT(watcher_->LoadOnce(), IsEmpty());
  EXPECT_EQ(Plugin("a"), "p");
  EXPECT_EQ(Plugin("b"), "p");
  EXPECT_EQ(Plugin("c"), "");
  const ManifestStatus status = watcher_->status();
  EXPECT_EQ(status.generation, 1u);
  EXPECT_EQ(status.services_count, 2u);
  EXPECT_EQ(status.routes_count, 4u);
  EXPECT_EQ(status.loads_good, 1u);
  EXPECT_GT(status.last_good_load.time_since_epoch().count(), 0);
  // Once more, unchanged: nothing happens.
  EXPECT_THAT(watcher_->LoadOnce(), IsEmpty());
  EXPECT_THAT(generations_, SizeIs(1));
}

TEST_F(ManifestWatcherTest, AnEmptyFolderIsGoodAndAMissingOneIsNot) {
  Make(Options());
  EXPECT_THAT(watcher_->LoadOnce(), IsEmpty());
  EXPECT_THAT(generations_, SizeIs(1));
  ManifestWatcherOptions options = Options();
  options.folder = root_ / "missing";
  ManifestWatcher missing(options, {});
  ASSERT_THAT(missing.LoadOnce(), SizeIs(1));
  EXPECT_THAT(ToString(missing.LoadOnce()[0]),
              HasSubstr("missing: the folder of manifests cannot be read: No such file"));
  EXPECT_EQ(missing.status().generation, 0u);
}

TEST_F(ManifestWatcherTest, ABadFolderPublishesNothingAndNamesEveryProblem) {
  Write(folder_ / "a.yaml", Manifest("a"));
  Write(folder_ / "b.yaml", Manifest("a") + "extra: 1\n");
  Make(Options());
  const std::vector<Problem> problems = watcher_->LoadOnce();
  ASSERT_THAT(problems, SizeIs(2));
  EXPECT_EQ(ToString(problems[0]), (folder_ / "b.yaml").string() +
                                       ":7:10: spec.group: a/v1 is already declared by \"v1.a\" in " +
                                       (folder_ / "a.yaml").string() + ":1");
  EXPECT_EQ(ToString(problems[1]), (folder_ / "b.yaml").string() + ":10:1: extra: unknown field");
  EXPECT_THAT(generations_, IsEmpty());
}

TEST_F(ManifestWatcherTest, FollowsAddedChangedAndRemovedFiles) {
  Start();
  EXPECT_EQ(Plugin("a"), "");
  Write(folder_ / "a.yaml", Manifest("a"));
  EXPECT_TRUE(Served("a", "p"));
  Write(folder_ / "a.yaml", Manifest("a", "other"));
  EXPECT_TRUE(Served("a", "other"));
  fs::remove(folder_ / "a.yaml");
  EXPECT_TRUE(Served("a", ""));
  const std::scoped_lock lock(mutex_);
  EXPECT_TRUE(std::ranges::is_sorted(generations_));
  EXPECT_EQ(std::ranges::adjacent_find(generations_), generations_.end());
}

TEST_F(ManifestWatcherTest, FollowsRenamesOverAFileAndAway) {
  Write(folder_ / "a.yaml", Manifest("a"));
  Start();
  Write(folder_ / ".a.yaml.swp", Manifest("a", "renamed"));
  fs::rename(folder_ / ".a.yaml.swp", folder_ / "a.yaml");
  EXPECT_TRUE(Served("a", "renamed"));
  fs::rename(folder_ / "a.yaml", folder_ / "a.yaml.bak");
  EXPECT_TRUE(Served("a", ""));
}

TEST_F(ManifestWatcherTest, FollowsAConfigMapVolume) {
  fs::create_directory(folder_ / "..1");
  Write(folder_ / "..1" / "a.yaml", Manifest("a", "one"));
  fs::create_directory_symlink("..1", folder_ / "..data");
  fs::create_symlink("..data/a.yaml", folder_ / "a.yaml");
  Start();
  EXPECT_EQ(Plugin("a"), "one");
  fs::create_directory(folder_ / "..2");
  Write(folder_ / "..2" / "a.yaml", Manifest("a", "two"));
  fs::create_directory_symlink("..2", folder_ / "..data_tmp");
  fs::rename(folder_ / "..data_tmp", folder_ / "..data");
  EXPECT_TRUE(Served("a", "two"));
}

TEST_F(ManifestWatcherTest, KeepsTheLastGoodTableThroughABadChange) {
  Write(folder_ / "a.yaml", Manifest("a"));
  Write(folder_ / "b.yaml", Manifest("b"));
  Start();
  Write(folder_ / "b.yaml", "kind: [\n");
  EXPECT_TRUE(HasProblem("b.yaml"));
  EXPECT_EQ(Plugin("a"), "p");
  EXPECT_EQ(Plugin("b"), "p");
  EXPECT_EQ(watcher_->status().generation, 1u);
  EXPECT_EQ(watcher_->status().services_count, 2u);
  // A good change elsewhere waits until all is good.
  Write(folder_ / "a.yaml", Manifest("a", "next"));
  EXPECT_TRUE(Eventually([&] { return watcher_->status().loads_bad >= 2; }));
  EXPECT_EQ(Plugin("a"), "p");
  Write(folder_ / "b.yaml", Manifest("b"));
  EXPECT_TRUE(Served("a", "next"));
  EXPECT_TRUE(IsClean());
  EXPECT_EQ(watcher_->status().generation, 2u);
}

TEST_F(ManifestWatcherTest, GoingBackToTheSameContentClearsTheProblemAndPublishesNothing) {
  Write(folder_ / "a.yaml", Manifest("a"));
  Start();
  Write(folder_ / "b.yaml", "x");
  EXPECT_TRUE(HasProblem("b.yaml"));
  fs::remove(folder_ / "b.yaml");
  EXPECT_TRUE(IsClean());
  const std::scoped_lock lock(mutex_);
  EXPECT_THAT(generations_, SizeIs(1));
}

TEST_F(ManifestWatcherTest, KeepsTheLastGoodTableWhileTheFolderIsGoneAndFollowsItsReturn) {
  Write(folder_ / "a.yaml", Manifest("a"));
  Start();
  fs::rename(folder_, root_ / "away");
  EXPECT_TRUE(HasProblem("the folder of manifests cannot be read"));
  EXPECT_EQ(Plugin("a"), "p");
  fs::create_directory(folder_);
  Write(folder_ / "a.yaml", Manifest("a", "new"));
  EXPECT_TRUE(Served("a", "new"));
  EXPECT_TRUE(IsClean());
  // The new folder is the one that is watched now.
  Write(folder_ / "a.yaml", Manifest("a", "newer"));
  EXPECT_TRUE(Served("a", "newer"));
}

TEST_F(ManifestWatcherTest, ScansForWhatInotifyDoesNotTell) {
  Write(root_ / "elsewhere.yaml", Manifest("a"));
  fs::create_symlink(root_ / "elsewhere.yaml", folder_ / "a.yaml");
  ManifestWatcherOptions options = Options();
  options.rescan = std::chrono::milliseconds(50);
  Start(options);
  Write(root_ / "elsewhere.yaml", Manifest("a", "far"));
  EXPECT_TRUE(Served("a", "far"));
}

TEST_F(ManifestWatcherTest, RescansWhenAsked) {
  Write(root_ / "elsewhere.yaml", Manifest("a"));
  fs::create_symlink(root_ / "elsewhere.yaml", folder_ / "a.yaml");
  Start();
  Write(root_ / "elsewhere.yaml", Manifest("a", "asked"));
  watcher_->Rescan();
  EXPECT_TRUE(Served("a", "asked"));
}

TEST_F(ManifestWatcherTest, DoesNotReadAFileThatIsBeingWritten) {
  Write(folder_ / "a.yaml", Manifest("a"));
  ManifestWatcherOptions options = Options();
  options.settle = std::chrono::milliseconds(1);
  options.settle_max = std::chrono::hours(1);
  Start(options);
  {
    // Cut to nothing, as a shell's redirection does; the empty file is a valid manifest and must not be served.
    std::ofstream half(folder_ / "a.yaml");
    half << "#" << std::flush;
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
    EXPECT_EQ(Plugin("a"), "p");
    half << "\n" << Manifest("a", "whole");
  }
  EXPECT_TRUE(Served("a", "whole"));
}

TEST_F(ManifestWatcherTest, AWriterThatNeverClosesDelaysNothingForEver) {
  Start();
  std::ofstream open_file(folder_ / "a.yaml");
  open_file << Manifest("a") << std::flush;
  EXPECT_TRUE(Served("a", "p"));
}

TEST_F(ManifestWatcherTest, ABurstOfChangesEndsInItsLastState) {
  Start();
  for (int i = 0; i < 200; ++i) Write(folder_ / ("f" + std::to_string(i) + ".yaml"), Manifest("g" + std::to_string(i)));
  EXPECT_TRUE(Eventually([&] { return watcher_->status().services_count == 200; }));
  for (int i = 0; i < 199; ++i) fs::remove(folder_ / ("f" + std::to_string(i) + ".yaml"));
  EXPECT_TRUE(Eventually([&] { return watcher_->status().services_count == 1; }));
  EXPECT_EQ(Plugin("g199"), "p");
  EXPECT_TRUE(IsClean());
}

TEST_F(ManifestWatcherTest, AFifoOrASocketOfThatNameIsAProblemAndHoldsNothingUp) {
  Start();
  ASSERT_EQ(::mkfifo((folder_ / "a.yaml").c_str(), 0600), 0);
  EXPECT_TRUE(HasProblem("a.yaml: is not a regular file"));
  fs::remove(folder_ / "a.yaml");
  EXPECT_TRUE(IsClean());
}

TEST_F(ManifestWatcherTest, TellsWhatIsDeclaredButNotImplemented) {
  std::string text = Manifest("a");
  text.replace(text.find("[{type: query}]"), 15, "[{type: stream}]");
  Write(folder_ / "a.yaml", text);
  Make(Options());
  EXPECT_THAT(watcher_->LoadOnce(), IsEmpty());
  ASSERT_THAT(watcher_->status().warnings, SizeIs(1));
  EXPECT_THAT(ToString(watcher_->status().warnings[0]),
              HasSubstr("a.yaml:9:14: spec.services[0]: type stream is not implemented"));
}

TEST_F(ManifestWatcherTest, ReadingTheSameAgainPublishesNothing) {
  Write(folder_ / "a.yaml", Manifest("a"));
  ManifestWatcherOptions options = Options();
  options.rescan = std::chrono::milliseconds(1);
  Start(options);
  Write(folder_ / ".a.yaml.swp", Manifest("a"));
  fs::rename(folder_ / ".a.yaml.swp", folder_ / "a.yaml");
  const uint64_t readings = watcher_->status().readings;
  EXPECT_TRUE(Eventually([&] { return watcher_->status().readings >= readings + 20; }));
  EXPECT_EQ(watcher_->status().generation, 1u);
}

TEST_F(ManifestWatcherTest, StopsAtOnceAndTwice) {
  Start();
  watcher_->Stop();
  Write(folder_ / "a.yaml", Manifest("a"));
  watcher_->Rescan();
  watcher_->Stop();
  EXPECT_EQ(Plugin("a"), "");
}

}  // namespace
}  // namespace dpa
