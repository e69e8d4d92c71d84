// Goal: a run that fails, however it does, leaves behind the command that repeats it.
// Method: this program runs itself with a test that fails at one seed, in every way that there is; the command that it
// printed is then run as it stands, and has to fail at that seed as well.

#include "tests/sim/sim_world.h"

#include <gtest/gtest.h>
#include <sys/wait.h>

#include <array>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <string_view>

#include "core/assert.h"

namespace dpa {
namespace {

constexpr uint64_t kFailingSeed = 7;

// Fails at one seed in the way that the environment asks for, if it does.
TEST(SimWorldTest, RunsEverySeedUnlessAskedToFail) {
  const char* const asked = std::getenv("DPA_SIM_FAIL");
  const std::string_view way = asked == nullptr ? "" : asked;
  uint64_t runs = 0;
  ForEachSeed(20, [&](uint64_t seed) {
    SimWorld world(seed);
    ++runs;
    if (seed != kFailingSeed) return;
    EXPECT_NE(way, "expectation");
    DPA_ASSERT(way != "assertion");
    if (way == "leak") world.ring().MakePair(false);
    const volatile int* volatile nowhere = nullptr;
    if (way == "crash") EXPECT_EQ(*nowhere, 0);
  });
  if (way.empty() && std::getenv("DPA_SIM_RUNS") == nullptr) EXPECT_EQ(runs, 20u);
}

// What `command` prints. False: it succeeded.
bool Fails(const std::string& command, std::string& printed) {
  printed.clear();
  FILE* pipe = popen((command + " 2>&1").c_str(), "r");
  if (pipe == nullptr) return false;
  std::array<char, 4096> chunk;
  for (size_t bytes; (bytes = fread(chunk.data(), 1, chunk.size(), pipe)) != 0;) printed.append(chunk.data(), bytes);
  return pclose(pipe) != 0;
}

std::string CommandIn(std::string_view printed) {
  constexpr std::string_view kBefore = "repeat this run with: ";
  const size_t at = printed.find(kBefore);
  if (at == std::string_view::npos) return "";
  printed.remove_prefix(at + kBefore.size());
  return std::string(printed.substr(0, printed.find('\n')));
}

TEST(SimWorldTest, AFailingRunPrintsTheCommandThatRepeatsIt) {
  // The runs inside have a first seed and a count of their own.
  unsetenv("DPA_SIM_SEED");
  unsetenv("DPA_SIM_RUNS");
  for (const char* way : {"expectation", "assertion", "leak", "crash"}) {
    SCOPED_TRACE(way);
    setenv("DPA_SIM_FAIL", way, 1);
    std::string printed;
    const std::string first =
        std::string(program_invocation_name) + " --gtest_filter=SimWorldTest.RunsEverySeedUnlessAskedToFail";
    ASSERT_TRUE(Fails(first, printed)) << printed;
    const std::string command = CommandIn(printed);
    ASSERT_NE(command.find("DPA_SIM_SEED=7 DPA_SIM_RUNS=1 "), std::string::npos) << printed;
    std::string repeated;
    EXPECT_TRUE(Fails(command, repeated)) << command;
    EXPECT_EQ(CommandIn(repeated), command) << repeated;
  }
  unsetenv("DPA_SIM_FAIL");
}

TEST(SimWorldTest, TheSameSeedMakesTheSameRun) {
  const auto run = [](uint64_t seed) {
    SimWorld world(seed);
    const auto [a, b] = world.ring().MakePair(false);
    std::string bytes(3000, 'x');
    iovec piece{bytes.data(), bytes.size()};
    const msghdr message{.msg_iov = &piece, .msg_iovlen = 1};
    std::array<ssize_t, 5> sent;
    for (ssize_t& count : sent) count = world.ring().SendNow(a, message);
    world.ring().Close(a);
    world.ring().Close(b);
    return sent;
  };
  for (uint64_t seed = 1; seed < 50; ++seed) EXPECT_EQ(run(seed), run(seed));
}

}  // namespace
}  // namespace dpa
