#include "tests/sim/sim_world.h"

#include <fmt/format.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <unistd.h>

#include <array>
#include <cstdlib>
#include <cstring>
#include <mutex>

#include "core/log.h"
#include "core/poison.h"

#ifdef DPA_POISON
#include <sanitizer/common_interface_defs.h>
#endif

namespace dpa {
namespace {

// A run takes a few thousand turns at the most.
constexpr uint64_t kTurnsMax = 2'000'000;

// The command line that repeats the run at hand; ready to be written from a signal handler.
std::array<char, 512> g_command{};

void PrintCommand() {
  const size_t bytes = std::strlen(g_command.data());
  [[maybe_unused]] const ssize_t written = write(STDERR_FILENO, g_command.data(), bytes);
}

void OnAbort(int) {
  PrintCommand();
  signal(SIGABRT, SIG_DFL);
}

void SetCommand(uint64_t seed) {
  const testing::TestInfo* test = testing::UnitTest::GetInstance()->current_test_info();
  const std::string command =
      fmt::format("repeat this run with: DPA_SIM_SEED={} DPA_SIM_RUNS=1 {} --gtest_filter={}.{}\n", seed,
                  program_invocation_short_name, test->test_suite_name(), test->name());
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
    signal(SIGABRT, OnAbort);
#ifdef DPA_POISON
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
  for (uint64_t seed = first; seed - first < count; ++seed) {
    SetCommand(seed);
    run(seed);
    if (testing::Test::HasFailure()) {
      PrintCommand();
      break;
    }
  }
  g_command.fill('\0');
}

}  // namespace dpa
