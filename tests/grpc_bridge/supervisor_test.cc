// Goal: plugins of every temper are started, restarted and stopped as promised, and nothing of them is left. Method:
// the bundled plugin as a real process, told by its environment to misbehave.

#include "grpc_bridge/plugin_supervisor.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <optional>
#include <thread>

#include "grpc_bridge/plugin_manifest.h"
#include "grpc_bridge/plugin_supervisor_process.h"
#include "grpc_bridge/proto/pluginv2.grpc.pb.h"
#include "tests/support/plugin_watch.h"
#include "tests/support/temp_dir.h"

namespace dpa {
namespace {

namespace fs = std::filesystem;
using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::StartsWith;

const char kTestdata[] = "dpa-testdata-datasource";

bool ProcessExists(int pid) { return kill(pid, 0) == 0; }

std::string ReadFile(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  return std::string(std::istreambuf_iterator<char>(in), {});
}

class SupervisorTest : public ::testing::Test {
 protected:
  PluginSupervisorOptions Options() {
    return PluginSupervisorOptions{.dirs = {DPA_BINARY_DIR "/plugins/dpa-testdata-datasource"},
                                   .backoff_first_ms = 10,
                                   .backoff_max_ms = 50,
                                   .run_dir = run_.path()};
  }
  void Start(PluginSupervisorOptions options) {
    supervisor_.emplace(std::move(options), watch_.Receiver());
    const auto started = supervisor_->Start();
    ASSERT_TRUE(started.has_value()) << started.error();
  }
  void Start(const std::string& name, const std::string& value, int64_t start_timeout_ms = 30'000) {
    PluginSupervisorOptions options = Options();
    options.extra_environment = {{name, value}};
    options.start_timeout_ms = start_timeout_ms;
    Start(std::move(options));
  }
  std::string AwaitFailure() { return watch_.AwaitState(kTestdata, PluginState::kBackoff).failure; }

  TempDir run_;
  PluginWatch watch_;
  std::optional<PluginSupervisor> supervisor_;
};

TEST_F(SupervisorTest, StartsThePluginAndStopLeavesNeitherProcessNorSocket) {
  Start(Options());
  const PluginEntry running = watch_.AwaitState(kTestdata, PluginState::kRunning);
  ASSERT_THAT(running.address, StartsWith("unix:" + run_.path()));
  EXPECT_EQ(running.failure, "");
  EXPECT_EQ(running.type, "datasource");
  EXPECT_TRUE(ProcessExists(running.pid));
  const fs::path socket = running.address.substr(5);
  EXPECT_TRUE(fs::is_socket(socket));
  EXPECT_EQ(fs::status(socket.parent_path()).permissions(), fs::perms::owner_all);
  supervisor_->Stop();
  EXPECT_FALSE(ProcessExists(running.pid));
  EXPECT_TRUE(fs::is_empty(run_.path()));
  EXPECT_EQ(supervisor_->directory()->Find(kTestdata)->state, PluginState::kStopped);
  EXPECT_EQ(supervisor_->counts()[0].exits, 0u);
}

TEST_F(SupervisorTest, NoHandshakeIsGivenUpAtTheStartTimeout) {
  Start("DPA_TESTDATA_HANDSHAKE", "none", 300);
  EXPECT_THAT(AwaitFailure(), HasSubstr("printed no handshake line within 300 ms"));
}

TEST_F(SupervisorTest, AddressWhereNobodyListensIsGivenUpAtTheStartTimeout) {
  Start("DPA_TESTDATA_HANDSHAKE", "nobody", 1000);
  EXPECT_THAT(AwaitFailure(), HasSubstr("not healthy within 1000 ms: health check failed"));
}

TEST_F(SupervisorTest, ExitBeforeTheHandshakeIsSeenAtOnceWithItsCode) {
  Start("DPA_TESTDATA_HANDSHAKE", "exit");
  EXPECT_THAT(AwaitFailure(), HasSubstr("exited with code 7 before its handshake"));
}

struct Refused {
  const char* handshake;
  const char* words;
};
class SupervisorRefuses : public SupervisorTest, public ::testing::WithParamInterface<Refused> {};

TEST_P(SupervisorRefuses, SaysWhyAndTriesAgain) {
  Start("DPA_TESTDATA_HANDSHAKE", GetParam().handshake);
  EXPECT_THAT(AwaitFailure(), HasSubstr(GetParam().words));
  const PluginEntry again = watch_.AwaitState(kTestdata, PluginState::kBackoff, 3);
  EXPECT_EQ(again.incarnation, 3u);
  EXPECT_GE(supervisor_->counts()[0].start_failures, 3u);
  EXPECT_GE(supervisor_->counts()[0].restarts, 2u);
}

INSTANTIATE_TEST_SUITE_P(Handshakes, SupervisorRefuses,
                         ::testing::Values(Refused{"garbage", "not a handshake: \"Hello, I am a program"},
                                           Refused{"binary", "printed 65536 bytes without a handshake line"},
                                           Refused{"wrong_core", "core protocol \"9\""},
                                           Refused{"wrong_version", "plugin protocol \"7\""},
                                           Refused{"netrpc", "\"netrpc\" instead of grpc"}),
                         [](const auto& row) { return std::string(row.param.handshake); });

struct Accepted {
  const char* variable;
  const char* value;
};
class SupervisorAccepts : public SupervisorTest, public ::testing::WithParamInterface<Accepted> {};

TEST_P(SupervisorAccepts, RunsItAndStopsIt) {
  Start(GetParam().variable, GetParam().value);
  const PluginEntry running = watch_.AwaitState(kTestdata, PluginState::kRunning);
  ASSERT_EQ(running.id, kTestdata);
  auto stub = pluginv2::Diagnostics::NewStub(grpc::CreateChannel(running.address, grpc::InsecureChannelCredentials()));
  grpc::ClientContext context;
  pluginv2::CheckHealthResponse reply;
  const grpc::Status status = stub->CheckHealth(&context, {}, &reply);
  EXPECT_TRUE(status.ok()) << status.error_message();
  supervisor_->Stop();
  EXPECT_FALSE(ProcessExists(running.pid));
  EXPECT_TRUE(fs::is_empty(run_.path()));
}

INSTANTIATE_TEST_SUITE_P(
    Kinds, SupervisorAccepts,
    ::testing::Values(Accepted{"DPA_TESTDATA_HANDSHAKE", "five_fields"}, Accepted{"DPA_TESTDATA_HANDSHAKE", "tcp"},
                      Accepted{"DPA_TESTDATA_HANDSHAKE", "chatty"}, Accepted{"DPA_TESTDATA_SERVICES", "no_health"},
                      Accepted{"DPA_TESTDATA_SERVICES", "no_go_plugin"}, Accepted{"DPA_TESTDATA_LOG", "debug"}),
    [](const auto& row) { return std::string(row.param.value); });

TEST_F(SupervisorTest, KilledPluginIsReportedAndStartedAgain) {
  Start(Options());
  const PluginEntry first = watch_.AwaitState(kTestdata, PluginState::kRunning);
  ASSERT_EQ(first.incarnation, 1u);
  kill(first.pid, SIGKILL);
  EXPECT_THAT(AwaitFailure(), HasSubstr("was killed by signal 9 (Killed)"));
  const PluginEntry second = watch_.AwaitState(kTestdata, PluginState::kRunning, 2);
  EXPECT_EQ(second.incarnation, 2u);
  EXPECT_NE(second.pid, first.pid);
  EXPECT_TRUE(fs::is_socket(second.address.substr(5)));
  EXPECT_EQ(supervisor_->counts()[0].exits, 1u);
  EXPECT_EQ(supervisor_->counts()[0].restarts, 1u);
}

TEST_F(SupervisorTest, StopDuringAStartLeavesNoProcess) {
  Start("DPA_TESTDATA_HANDSHAKE", "none");
  const PluginEntry starting = watch_.Await(kTestdata, [](const PluginEntry& entry) { return entry.pid != 0; });
  ASSERT_EQ(starting.state, PluginState::kStarting);
  supervisor_->Stop();
  EXPECT_FALSE(ProcessExists(starting.pid));
  EXPECT_TRUE(fs::is_empty(run_.path()));
}

TEST_F(SupervisorTest, StopRightAfterStartLeavesNothing) {
  Start(Options());
  supervisor_->Stop();
  EXPECT_TRUE(fs::is_empty(run_.path()));
  EXPECT_EQ(supervisor_->directory()->plugins[0].pid, 0);
}

TEST_F(SupervisorTest, PluginThatIgnoresShutdownIsKilledWithEverythingThatItStarted) {
  // Orphans come to this process, so that their end can be seen.
  ASSERT_EQ(prctl(PR_SET_CHILD_SUBREAPER, 1), 0);
  PluginSupervisorOptions options = Options();
  options.extra_environment = {{"DPA_TESTDATA_SHUTDOWN", "ignore"}, {"DPA_TESTDATA_CHILD", "1"}};
  options.stop_timeout_ms = 200;
  Start(std::move(options));
  const PluginEntry running = watch_.AwaitState(kTestdata, PluginState::kRunning);
  ASSERT_GT(running.pid, 0);
  supervisor_->Stop();
  EXPECT_FALSE(ProcessExists(running.pid));
  int status = 0;
  ASSERT_GT(waitpid(-running.pid, &status, 0), 0);  // The plugin's own child.
  EXPECT_TRUE(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
}

TEST_F(SupervisorTest, ProcessDiesWithTheThreadThatLaunchedIt) {
  std::optional<PluginProcess> process;
  std::thread([&] {
    const PluginLaunch launch{
        DPA_BINARY_DIR "/plugins/dpa-testdata-datasource/gpx_testdata_" + std::string(GoPlatform()),
        {"grafana_plugin_type=datasource", "DPA_TESTDATA_HANDSHAKE=none"}};
    auto launched = PluginProcess::Launch(launch);
    ASSERT_TRUE(launched.has_value()) << launched.error();
    process.emplace(*std::move(launched));
  }).join();
  ASSERT_TRUE(process.has_value());
  pollfd end{.fd = process->pidfd(), .events = POLLIN, .revents = 0};
  EXPECT_EQ(poll(&end, 1, 30'000), 1);
  EXPECT_EQ(process->Bury(), "was killed by signal 9 (Killed)");
}

TEST_F(SupervisorTest, InheritsNeitherDescriptorsNorProtocolVariables) {
  const int leaky = open("/dev/zero", O_RDONLY);  // Without O_CLOEXEC, as a careless library would.
  setenv("PLUGIN_MULTIPLEX_GRPC", "true", 1);
  setenv("PLUGIN_CLIENT_CERT", "x", 1);
  setenv("DPA_TEST_ORDINARY", "kept", 1);
  Start(Options());
  const PluginEntry running = watch_.AwaitState(kTestdata, PluginState::kRunning);
  ASSERT_GT(running.pid, 0);
  const std::string proc = "/proc/" + std::to_string(running.pid);
  const std::string environment = ReadFile(proc + "/environ");
  EXPECT_THAT(environment, AllOf(HasSubstr("grafana_plugin_type=datasource"), HasSubstr("PLUGIN_PROTOCOL_VERSIONS=2"),
                                 HasSubstr("DPA_TEST_ORDINARY=kept"), HasSubstr("GF_VERSION=")));
  EXPECT_THAT(environment, AllOf(Not(HasSubstr("PLUGIN_MULTIPLEX_GRPC")), Not(HasSubstr("PLUGIN_CLIENT_CERT"))));
  for (const auto& entry : fs::directory_iterator(proc + "/fd")) {
    std::error_code error;
    EXPECT_NE(fs::read_symlink(entry.path(), error), "/dev/zero");
  }
  for (const char* name : {"PLUGIN_MULTIPLEX_GRPC", "PLUGIN_CLIENT_CERT", "DPA_TEST_ORDINARY"}) unsetenv(name);
  close(leaky);
}

TEST_F(SupervisorTest, FileThatCannotBeExecutedIsSaidAndRunsOnceItWasMended) {
  const TempDir plugins;
  const std::string real_dir = DPA_BINARY_DIR "/plugins/dpa-testdata-datasource/";
  plugins.Write("x/plugin.json", ReadFile(real_dir + "plugin.json"));
  const std::string name = "gpx_testdata_" + std::string(GoPlatform());
  const std::string executable = plugins.Write("x/" + name, "this is no program\n");
  fs::permissions(executable, fs::perms::owner_all);
  PluginSupervisorOptions options = Options();
  options.dirs = {plugins.path()};
  Start(std::move(options));
  EXPECT_THAT(AwaitFailure(), AllOf(HasSubstr("cannot start"), HasSubstr("Exec format error")));
  fs::permissions(executable, fs::perms::owner_read);
  EXPECT_NE(watch_
                .Await(kTestdata,
                       [](const PluginEntry& e) { return e.failure.find("Permission denied") != std::string::npos; })
                .id,
            "");
  fs::remove(executable);
  EXPECT_NE(
      watch_.Await(kTestdata, [](const PluginEntry& e) { return e.failure.find("No such file") != std::string::npos; })
          .id,
      "");
  fs::create_symlink(real_dir + name, executable);
  EXPECT_EQ(watch_.AwaitState(kTestdata, PluginState::kRunning).id, kTestdata);
}

TEST_F(SupervisorTest, UnusableManifestIsInTheDirectoryWithItsFailure) {
  const TempDir plugins;
  plugins.Write("broken/plugin.json", "{\n\"id\": \"a-broken-datasource\", \"type\": 7}");
  PluginSupervisorOptions options = Options();
  options.dirs = {plugins.path()};
  Start(std::move(options));
  const PluginEntry* entry = supervisor_->directory()->Find("a-broken-datasource");
  ASSERT_NE(entry, nullptr);
  EXPECT_EQ(entry->state, PluginState::kStopped);
  EXPECT_THAT(entry->failure, AllOf(HasSubstr("broken/plugin.json"), HasSubstr("field type must be a string")));
}

TEST_F(SupervisorTest, DirectoryThatIsMissingFailsTheStart) {
  PluginSupervisorOptions options = Options();
  options.dirs = {run_.path() + "/none"};
  PluginSupervisor supervisor(options, nullptr);
  const auto started = supervisor.Start();
  ASSERT_FALSE(started.has_value());
  EXPECT_THAT(started.error(), HasSubstr("/none: cannot be searched for plugins: No such file or directory"));
}

TEST_F(SupervisorTest, RunDirectoryTooDeepForSocketsFailsTheStart) {
  PluginSupervisorOptions options = Options();
  options.run_dir = run_.path() + "/" + std::string(80, 'd');
  fs::create_directory(options.run_dir);
  PluginSupervisor supervisor(options, nullptr);
  const auto started = supervisor.Start();
  ASSERT_FALSE(started.has_value());
  EXPECT_THAT(started.error(), HasSubstr("too deep for plugin sockets"));
}

TEST_F(SupervisorTest, WhatAKilledSupervisorLeftBehindIsRemoved) {
  run_.Write("dpa-plugins-aaaaaa/lock", "");
  run_.Write("dpa-plugins-aaaaaa/0/plugin1", "");
  run_.Write("unrelated/lock", "");
  Start(Options());
  EXPECT_FALSE(fs::exists(run_.path() + "/dpa-plugins-aaaaaa"));
  EXPECT_TRUE(fs::exists(run_.path() + "/unrelated/lock"));
  // A second one beside it is in use, and stays.
  PluginSupervisor second(Options(), nullptr);
  ASSERT_TRUE(second.Start().has_value());
  EXPECT_EQ(watch_.AwaitState(kTestdata, PluginState::kRunning).id, kTestdata);
}

}  // namespace
}  // namespace dpa
