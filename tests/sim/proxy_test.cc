// Goal: whatever the network, the clients and the delegates do, every request is answered once or its connection is
// closed; what is answered is what a delegate sent for it, whole; a POST is executed once at the most; those who behave
// do not pay for those who do not; nothing is left over.
// Method: scripted clients and delegates around an HttpServer with a ProxyHandler, all on one worker and one simulated
// ring, under thousands of seeds. The scripts have an HTTP reader of their own and keep books, which have to balance at
// the end (scene_books.h); each test opens with what goes wrong in its scenes, and ends with what may not.

#include <gtest/gtest.h>

#include "tests/sim/scene.h"

namespace dpa {
namespace {

constexpr uint64_t kRuns = 150;

SimRingOptions CalmNetwork() {
  SimRingOptions options;
  options.faults = SimFaults::Harmless();
  options.buffers = {.buffers_count = 32, .buffer_bytes = 512};
  return options;
}

// Of the requests of a client that behaves, `answered` once and by a delegate, unless its connection's end was
// announced before.
void ExpectServed(uint64_t id, const SceneRequest& request) {
  if (request.not_reached) return;
  EXPECT_EQ(request.answers_count, 1u) << id << request.Describe();
  EXPECT_NE(request.answer, 0u) << id << request.Describe();
}

TEST(SimProxyTest, EveryRequestIsAnsweredInFullWhenNothingFails) {
  ForEachSeed(kRuns, [](uint64_t seed) {
    SimWorld world(seed, CalmNetwork(), /*keep_faults=*/true);
    Scene scene(world, {.clients_count = 6});
    scene.Run();
    for (const auto& [id, request] : scene.books().requests()) ExpectServed(id, request);
    for (const auto& [key, count] : scene.books().record_counts()) EXPECT_EQ(key.second, Reason::kOk);
  });
}

TEST(SimProxyTest, ClientsThatMisbehaveDoNotHurtThoseThatDoNot) {
  ForEachSeed(kRuns, [](uint64_t seed) {
    SimWorld world(seed, CalmNetwork(), /*keep_faults=*/true);
    Scene scene(world, {.clients = {.bad = 500}});
    scene.Run();
    for (const auto& [id, request] : scene.books().requests()) {
      if (request.innocent) ExpectServed(id, request);
    }
  });
}

TEST(SimProxyTest, DelegatesThatMisbehaveCostAnErrorOrTheConnectionAndNoMore) {
  ForEachSeed(kRuns, [](uint64_t seed) {
    SimWorld world(seed, CalmNetwork(), /*keep_faults=*/true);
    Scene scene(world, {.delegates = DelegateManners::Bad()});
    scene.Run();
    for (const auto& [id, request] : scene.books().requests()) {
      if (request.not_reached || request.answers_count != 0) continue;
      // Its connection ended inside its answer; the one before it in the pipeline may have done that.
      if (request.records_count != 0) EXPECT_NE(request.recorded_reason, Reason::kOk) << id << request.Describe();
    }
  });
}

// The delegate closes an idle connection just as a request goes out on it.
TEST(SimProxyTest, DelegatesThatCloseIdleConnectionsLoseNoRequestThatCanBeRepeated) {
  ForEachSeed(kRuns, [](uint64_t seed) {
    SimWorld world(seed, CalmNetwork(), /*keep_faults=*/true);
    Scene scene(world, {.clients = {.plain = true}, .delegates = {.early = 0, .closes_idle = 700}});
    scene.Run();
    for (const auto& [id, request] : scene.books().requests()) {
      if (request.method != "POST" && request.method != "PATCH") {
        ExpectServed(id, request);
      } else if (request.answers_count == 1 && request.answer == 0) {
        EXPECT_EQ(request.word, ToString(Reason::kDelegateClosedIdle)) << id << request.Describe();
        EXPECT_EQ(request.status, 502) << id;
      }
    }
  });
}

// What a delegate sends ahead can be told from an answer only while nothing is asked: here it always has the time to
// arrive before the next request.
TEST(SimProxyTest, WhatADelegateSendsUnaskedIsNeverAnAnswer) {
  ForEachSeed(kRuns, [](uint64_t seed) {
    SimWorld world(seed, CalmNetwork(), /*keep_faults=*/true);
    Scene scene(world, {.clients_count = 1,
                        .clients = {.plain = true, .think_ms_min = 1000, .think_ms_max = 2000},
                        .delegates = {.surplus = 500}});
    scene.Run();
    for (const auto& [id, request] : scene.books().requests()) ExpectServed(id, request);
    EXPECT_EQ(scene.books().out_of_step_count(), 0u) << "a connection out of step was used on";
  });
}

TEST(SimProxyTest, ADrainWithTimeEnoughLosesNoRequestThatReachedADelegate) {
  ForEachSeed(kRuns, [](uint64_t seed) {
    SimWorld world(seed, CalmNetwork(), /*keep_faults=*/true);
    Scene scene(world, {.drains = 1000, .drain_ms_max = 200'000, .drain_ms_min = 100'000});
    scene.Run();
    for (const auto& [id, request] : scene.books().requests()) {
      if (request.heads_count != 0) ExpectServed(id, request);
    }
  });
}

TEST(SimProxyTest, UnderEveryFaultARequestIsAnsweredOnceOrItsConnectionClosed) {
  ForEachSeed(kRuns, [](uint64_t seed) {
    SimRingOptions options;
    options.buffers = {.buffers_count = 16, .buffer_bytes = 256};
    SimWorld world(seed, options);
    Scene scene(world, {.clients = {.bad = 200},
                        .delegates = DelegateManners::Bad(),
                        .network_faults = true,
                        .short_timeouts = 500,
                        .pool_limits = 300,
                        .connection_limits = 300,
                        .drains = 200});
    scene.Run();
  });
}

}  // namespace
}  // namespace dpa
