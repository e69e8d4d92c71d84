#include "tests/sim/sim_world.h"

#include <fmt/format.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <unistd.h>

#include <array>
#include <cstdlib>
#include <cstring>
#include <mutex>
#include <string>
#include <string_view>

#include "core/log.h"
#include "core/poison.h"

#ifdef DPA_POISON
#include <sanitizer/common_interface_defs.h>
#endif

namespace dpa {
namespace {

// A run takes a few thousand turns at the most.
constexpr uint64_t kTurnsMax = 2'000'000;
// And a few milliseconds; this is for one that turns in a circle inside of a turn.
constexpr unsigned kRealSecondsMax = 60;

// The command line that repeats the run at hand; ready to be written from a signal handler.
std::array<char, 512> g_command{};

void PrintCommand() {
  const size_t bytes = std::strlen(g_command.data());
  [[maybe_unused]] const ssize_t written = write(STDERR_FILENO, g_command.data(), bytes);
}

// Prints, and lets the signal do what it does.
void OnDeath(int number) {
  PrintCommand();
  signal(number, SIG_DFL);
  raise(number);
}

void OnHang(int) {
  constexpr std::string_view kText = "simulation: a run does not end\n";
  [[maybe_unused]] const ssize_t written = write(STDERR_FILENO, kText.data(), kText.size());
  std::abort();
}

// What the runs of one ForEachSeed came to.
struct Tally {
  uint64_t seeds = 0;
  uint64_t requests = 0;
  uint64_t faults = 0;
  uint64_t misdeeds = 0;
  uint64_t nuisances = 0;
} g_tally;

void PrintTally(bool failed) {
  fmt::print(
      "sim: {} seeds, {} requests, {} faults injected, {} failed ({} of the network, {} misdeeds of peers; "
      "besides {} delays and short counts)\n",
      g_tally.seeds, g_tally.requests, g_tally.faults + g_tally.misdeeds, failed ? 1 : 0, g_tally.faults,
      g_tally.misdeeds, g_tally.nuisances);
  std::fflush(stdout);
}

// As the shell takes it: the program as it was called, from the folder that it was called in.
void SetCommand(uint64_t seed) {
  const testing::TestInfo* test = testing::UnitTest::GetInstance()->current_test_info();
  const std::string command =
      fmt::format("repeat this run with: DPA_SIM_SEED={} DPA_SIM_RUNS=1 {} --gtest_filter={}.{}\n", seed,
                  program_invocation_name, test->test_suite_name(), test->name());
  g_command.fill('\0');
  command.copy(g_command.data(), g_command.size() - 1);
}

uint64_t FromEnvironment(const char* name, uint64_t otherwise) {
  const char* text = std::getenv(name);
  return text == nullptr ? otherwise : std::strtoull(text, nullptr, 10);
}

void PrepareOnce() {
  static std::once_flag once;
  std::call_once(once, [] {
    // What the code under test logs about injected faults is of no interest.
    StartLog(LogLevel::kOff, LogFormat::kText);
    signal(SIGABRT, OnDeath);
    signal(SIGALRM, OnHang);
#ifndef DPA_POISON
    // With a sanitizer these are its own, and end in the callback below.
    for (const int number : {SIGSEGV, SIGBUS, SIGILL, SIGFPE}) signal(number, OnDeath);
#else
    __sanitizer_set_death_callback(PrintCommand);
#endif
  });
}

SimRingOptions WithSeed(SimRingOptions options, uint64_t seed, bool keep_faults) {
  options.seed = seed;
  SimRandom random(~seed);
  if (!keep_faults) options.faults = SimFaults::Random(random);
  return options;
}

}  // namespace

SimWorld::SimWorld(uint64_t seed, SimRingOptions options, bool keep_faults)
    : random_(seed * 0x2545f4914f6cdd1d + 1),
      frames_before_(FramePool::alive_count()),
      ring_(WithSeed(options, seed, keep_faults)),
      worker_(ring_, 0) {
  PrepareOnce();
}

SimWorld::~SimWorld() {
  g_tally.requests += requests_count_;
  g_tally.misdeeds += misdeeds_count_;
  g_tally.faults += ring_.faults_count();
  g_tally.nuisances += ring_.nuisances_count();
  EXPECT_EQ(worker_.tasks().running_count(), 0u);
  EXPECT_EQ(worker_.timers().armed_count(), 0u);
  EXPECT_EQ(ring_.in_flight_count(), 1u) << "only the mailbox's poll may be left\n" << ring_.Dump();
  EXPECT_EQ(ring_.buffers().lent_count(), 0u);
  EXPECT_EQ(ring_.buffers().detached_count(), 0u);
  EXPECT_EQ(worker_.bytes().blocks_out(), 0);
  EXPECT_EQ(ring_.open_count(), 0u) << ring_.Dump();
  EXPECT_EQ(FramePool::alive_count(), frames_before_);
}

void SimWorld::RunUntil(const std::function<bool()>& done) {
  for (uint64_t turns = 0; !done(); ++turns) {
    if (turns == kTurnsMax) {
      std::fprintf(stderr, "simulation: no end after %lu turns\n%s", static_cast<unsigned long>(turns),
                   ring_.Dump().c_str());
      std::abort();
    }
    worker_.RunTurn(true);
  }
}

void SimWorld::RunUntilIdle() {
  RunUntil([this] { return worker_.tasks().running_count() == 0; });
}

void ForEachSeed(uint64_t runs, const std::function<void(uint64_t seed)>& run) {
  const uint64_t first = FromEnvironment("DPA_SIM_SEED", 1);
  const uint64_t count = FromEnvironment("DPA_SIM_RUNS", runs);
  PrepareOnce();
  g_tally = {};
  bool failed = false;
  for (uint64_t seed = first; seed - first < count && !failed; ++seed) {
    SetCommand(seed);
    alarm(kRealSecondsMax);
    run(seed);
    ++g_tally.seeds;
    failed = testing::Test::HasFailure();
    if (failed) PrintCommand();
  }
  alarm(0);
  g_command.fill('\0');
  PrintTally(failed);
}

}  // namespace dpa
