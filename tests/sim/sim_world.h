// SimWorld is one simulated run: a SimRing, a Worker on it, and the check at its end that nothing is left over.
//
//   TEST(SocketSimTest, …) {
//     ForEachSeed(300, [](uint64_t seed) {
//       SimWorld world(seed);
//       … spawn tasks on world.worker(), then
//       world.RunUntilIdle();
//     });
//   }
//
// A run that fails, aborts, crashes, hangs or dies under a sanitizer prints the command line that repeats it. At the
// end of a test stands what its runs came to:
//
//   sim: 10000 seeds, 312456 requests, 45678 faults injected, 0 failed
//
// Environment: DPA_SIM_SEED=N begins with that seed, DPA_SIM_RUNS=N makes that many runs.

#pragma once

#include <cstdint>
#include <functional>

#include "core/worker.h"
#include "tests/sim/sim_ring.h"

namespace dpa {

class SimWorld {
 public:
  // The seed of `options` is replaced, and unless `keep_faults`, so are its faults: drawn from the seed.
  explicit SimWorld(uint64_t seed, SimRingOptions options = {}, bool keep_faults = false);
  // The end-of-run check: no task, timer or operation but the mailbox's, no frame, buffer or block of memory out, no
  // descriptor open.
  ~SimWorld();

  SimRing& ring() { return ring_; }
  Worker& worker() { return worker_; }
  SimRandom& random() { return random_; }

  // Takes turns until no task of the worker's scope runs. Fails the test if that takes suspiciously many.
  void RunUntilIdle();
  // Takes turns until `done` says so.
  void RunUntil(const std::function<bool()>& done);
  // From now on nothing fails any more, so that what is going on can end.
  void StopFaults() { ring_.faults() = SimFaults::Harmless(); }

  // For the figures that ForEachSeed prints.
  void CountRequests(uint64_t count) { requests_count_ += count; }
  // A peer of the script does what no peer should.
  void CountMisdeed() { ++misdeeds_count_; }

 private:
  SimRandom random_;  // The scripts' chance, apart from the ring's.
  const int64_t frames_before_;
  SimRing ring_;
  Worker worker_;
  uint64_t requests_count_ = 0;
  uint64_t misdeeds_count_ = 0;
};

// Calls `run` for each seed; stops at the first that fails. A run that takes minutes of real time is one that hangs.
void ForEachSeed(uint64_t runs, const std::function<void(uint64_t seed)>& run);

}  // namespace dpa
