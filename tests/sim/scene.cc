#include "tests/sim/scene.h"

#include <gtest/gtest.h>

#include <map>

namespace dpa {

Scene::Scene(SimWorld& world, const SceneOptions& options)
    : world_(world),
      options_(options),
      address_(*Address::Parse(world.random().Chance(600) ? "127.0.0.1:80" : "unix:data")),
      routes_(std::make_shared<RouteTable>()),
      running_(world.worker()) {
  SimRandom& random = world_.random();
  const DelegateManners& delegates = options_.delegates;
  causes_.network = options_.network_faults;
  causes_.clients = options_.clients.bad != 0;
  causes_.idle_close = delegates.closes_idle != 0;
  causes_.delegates = delegates.dies + delegates.hangs + delegates.goes_down + delegates.garbage + delegates.surplus +
                          delegates.greets + delegates.careless !=
                      0;
  MakeDelegates();
  ProxyOptions proxy;
  HttpServerOptions server;
  causes_.short_timeouts = random.Chance(options_.short_timeouts);
  server.downstream = DrawDownstream();
  proxy.upstream = DrawUpstream();
  if (causes_.short_timeouts) {
    proxy.request_timeout_ms = random.Chance(500) ? random.Between(5, 500) : 0;
    proxy.forward.expect_continue_timeout_ms = random.Below(100);
    proxy.forward.tunnel_idle_timeout_ms = random.Between(5, 500);
  }
  if (causes_.pool_limits) proxy.forward.tunnels_max = 1;
  causes_.limits = random.Chance(options_.connection_limits);
  if (causes_.limits) {
    server.connections_max = options_.clients_count / 2 + 1;
    server.downstream.in_flight_max = random.Chance(500) ? static_cast<uint32_t>(random.Between(1, 4)) : 0;
  }
  proxy_ = std::make_unique<ProxyHandler>(world_.worker(), routes_, urls_, nullptr, nullptr, proxy, metrics_);
  server_ = std::make_unique<HttpServer>(world_.worker(), *proxy_, server, metrics_, &books_);
  server_->Listen(world_.ring().Listen(address_), address_.is_unix());
}

Scene::~Scene() = default;

void Scene::MakeDelegates() {
  SimRandom& random = world_.random();
  const char* const places[] = {"127.0.0.1:9001", "unix:delegate-2", "127.0.0.1:9003"};
  const uint64_t first = random.Below(3);
  for (uint64_t count = random.Between(1, 3), i = 0; i < count; ++i) {
    const Address address = *Address::Parse(places[(first + i) % 3]);
    urls_.push_back({address, "delegate.example", random.Chance(200) ? "/prefix" : ""});
    delegates_.push_back(std::make_unique<SceneDelegate>(world_, address, books_, options_.delegates));
  }
}

DownstreamOptions Scene::DrawDownstream() {
  SimRandom& random = world_.random();
  DownstreamOptions options;
  if (causes_.short_timeouts) {
    options.header_timeout_ms = random.Between(5, 500);
    options.body_timeout_ms = random.Between(5, 500);
    options.keep_alive_timeout_ms = random.Between(5, 500);
    options.send_timeout_ms = random.Between(5, 500);
    options.linger_timeout_ms = random.Between(5, 500);
    options.half_close_timeout_ms = random.Below(200);
    options.body_rate_min = random.Below(10'000);
    options.body_grace_ms = random.Between(5, 500);
    options.drain_first_request_ms = random.Below(500);
  }
  if (random.Chance(options_.connection_limits)) {
    options.exchanges_max = 3;
    options.drain_body_bytes_max = random.Below(4000);
  }
  return options;
}

UpstreamPoolOptions Scene::DrawUpstream() {
  SimRandom& random = world_.random();
  UpstreamPoolOptions options;
  if (causes_.short_timeouts) {
    options.connection.header_timeout_ms = random.Between(5, 500);
    options.connection.body_timeout_ms = random.Between(5, 500);
    options.connection.send_timeout_ms = random.Between(5, 500);
    options.idle_timeout_ms = random.Between(5, 200);
    options.connect_timeout_ms = random.Between(1, 100);
  }
  causes_.pool_limits = random.Chance(options_.pool_limits);
  if (causes_.pool_limits) {
    options.leases_max = static_cast<uint32_t>(random.Between(1, 3));
    options.waiting_max = static_cast<uint32_t>(random.Below(5));
    options.waiting_timeout_ms = random.Between(1, 300);
    options.idle_max = static_cast<uint32_t>(random.Below(3));
  }
  return options;
}

// --- The run ---

void Scene::Run() {
  SimRandom& random = world_.random();
  for (uint32_t i = 1; i <= options_.clients_count; ++i) {
    clients_.push_back(std::make_unique<SceneClient>(world_, address_, books_, options_.clients, 1000u * i));
    running_.Spawn(clients_.back()->Run());
  }
  causes_.drain = random.Chance(options_.drains);
  if (causes_.drain) running_.Spawn(DrainInTheMiddle());
  world_.RunUntil([&] { return running_.running_count() == 0; });
  world_.worker().tasks().Spawn(End());
  world_.RunUntilIdle();
  Compare();
}

Task<void> Scene::DrainInTheMiddle() {
  co_await world_.worker().Sleep(world_.random().Below(300));
  co_await Drain();
}

// As on SIGTERM; the second signal is the abort.
Task<void> Scene::Drain() {
  draining_ = true;
  const uint64_t timeout_ms = world_.random().Between(options_.drain_ms_min, options_.drain_ms_max);
  const uint64_t began_ms = world_.worker().now_ms();
  if (options_.drain_ms_min == 0 && world_.random().Chance(200)) running_.Spawn(AbortLater());
  co_await server_->Drain(timeout_ms);
  const uint64_t took_ms = world_.worker().now_ms() - began_ms;
  // Half a second for those being shed, and what the ring puts off. Where it stalls, time means little.
  if (!options_.network_faults) EXPECT_LE(took_ms, timeout_ms + 1000) << "the drain passed its deadline";
}

Task<void> Scene::AbortLater() {
  co_await world_.worker().Sleep(world_.random().Below(200));
  server_->Abort();
}

Task<void> Scene::End() {
  // Exchanges whose client has left may still be under way.
  causes_.ends_busy = metrics_.connections.value() != 0;
  if (!draining_) co_await Drain();
  while (running_.running_count() != 0) co_await running_.Join();
  co_await proxy_->Drain();
  for (const auto& delegate : delegates_) co_await delegate->Close();
}

// --- The comparison ---

void Scene::Compare() {
  books_.Balance(causes_);
  std::map<std::pair<int, Reason>, uint64_t> counted;
  metrics_.requests.ForEach(
      [&](size_t, int status, Reason reason, uint64_t count) { counted[{status, reason}] += count; });
  for (const auto& [key, count] : books_.record_counts()) {
    EXPECT_EQ(counted[key], count) << "metrics and access log disagree on " << key.first << ' ' << ToString(key.second);
  }
  uint64_t counted_sum = 0;
  for (const auto& [key, count] : counted) counted_sum += count;
  EXPECT_EQ(counted_sum, books_.records_count()) << "metrics and access log disagree";
  EXPECT_EQ(metrics_.requests_in_flight.value(), 0);
  EXPECT_EQ(metrics_.connections.value(), 0);
  EXPECT_EQ(metrics_.upstream_leased.value(), 0);
  EXPECT_EQ(metrics_.upstream_idle.value(), 0);
  EXPECT_EQ(metrics_.upstream_connecting.value(), 0);
  EXPECT_EQ(metrics_.upstream_waiting.value(), 0);
}

}  // namespace dpa
