// Goal: whatever the network does to clients, proxy and delegate, nobody gets bytes that belong to somebody else, a
// broken-off body never looks whole, everything ends, and nothing is left over.
// Method: clients, the proxy with its server, and delegates run on one worker over a simulated ring; what a body holds
// follows from the request's number, so both ends can check every byte. Hundreds of seeds, each with its own mix of
// faults.

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <string>
#include <vector>

#include "core/listener.h"
#include "http/proxy.h"
#include "http/server.h"
#include "tests/sim/sim_world.h"

namespace dpa {
namespace {

constexpr uint64_t kRuns = 300;
constexpr uint32_t kClients = 6;
constexpr uint32_t kRequestsPerClient = 8;

char ByteAt(uint64_t id, uint64_t offset) { return static_cast<char>(((id * 31 + offset) * 2654435761u) >> 13); }

std::string BodyOf(uint64_t id, size_t bytes) {
  std::string body(bytes, '\0');
  for (size_t i = 0; i < bytes; ++i) body[i] = ByteAt(id, i);
  return body;
}

// What both sides read of one body.
struct BodyCheck {
  uint64_t id = 0;
  uint64_t bytes = 0;
  void Take(const BodyPieces& pieces) {
    for (const iovec& piece : pieces.pieces) {
      for (size_t i = 0; i < piece.iov_len; ++i, ++bytes) {
        if (static_cast<const char*>(piece.iov_base)[i] != ByteAt(id, bytes)) {
          ADD_FAILURE() << "byte " << bytes << " of body " << id << " belongs to another";
          return;
        }
      }
    }
  }
};

uint64_t NumberIn(const HeaderField* field) {
  return field == nullptr ? UINT64_MAX : std::stoull(std::string(field->value));
}

struct Network;

struct CountingLog final : AccessLog {
  void Write(const AccessRecord& record) override {
    ++count;
    EXPECT_NE(record.status, 0);
    EXPECT_GE(record.finished_ns, record.started_ns);
  }
  uint64_t count = 0;
};

// The delegate's options are drawn too: small pools, queues that time out, short patience.
ProxyOptions DrawProxyOptions(SimRandom& random) {
  ProxyOptions options;
  options.upstream.leases_max = static_cast<uint32_t>(random.Between(1, 8));
  options.upstream.waiting_max = static_cast<uint32_t>(random.Between(0, 8));
  options.upstream.waiting_timeout_ms = random.Between(1, 2000);
  options.upstream.idle_max = static_cast<uint32_t>(random.Between(0, 4));
  options.upstream.idle_timeout_ms = random.Between(1, 3000);
  options.upstream.connection.header_timeout_ms = random.Between(500, 5000);
  options.upstream.connection.body_timeout_ms = random.Between(500, 5000);
  options.upstream.connection.send_timeout_ms = random.Between(500, 5000);
  return options;
}

HttpServerOptions DrawServerOptions(SimRandom& random) {
  HttpServerOptions options;
  options.connections_max = random.Chance(200) ? kClients / 2 : 0;
  options.downstream.header_timeout_ms = random.Between(500, 5000);
  options.downstream.body_timeout_ms = random.Between(500, 5000);
  options.downstream.keep_alive_timeout_ms = random.Between(500, 5000);
  options.downstream.send_timeout_ms = random.Between(500, 5000);
  options.downstream.drain_body_bytes_max = random.Below(4000);
  options.downstream.exchanges_max = random.Chance(200) ? 3 : 0;
  return options;
}

struct Network {
  explicit Network(SimWorld& w, bool faulty)
      : world(w),
        worker(w.worker()),
        random(w.random()),
        with_faults(faulty),
        client_address(*Address::Parse("10.0.0.1:80")),
        delegate_address(*Address::Parse(random.Chance(300) ? "unix:/sim/delegate" : "10.0.0.2:80")),
        routes(std::make_shared<RouteTable>()),
        delegates(worker),
        clients(worker),
        proxy(worker, routes, {{delegate_address, "delegate", ""}}, nullptr, nullptr,
              faulty ? DrawProxyOptions(random) : ProxyOptions(), metrics),
        server(worker, proxy, faulty ? DrawServerOptions(random) : HttpServerOptions(), metrics, &log),
        delegate_listener(worker, w.ring().Listen(delegate_address, 64), {},
                          [this](int fd) { delegates.Spawn(ServeDelegate(*this, fd)); }) {
    delegate_listener.Start();
    server.Listen(w.ring().Listen(client_address, 64), false);
  }

  static Task<void> ServeDelegate(Network& net, int fd);
  static Task<void> RunClient(Network& net, uint64_t first_id);
  static Task<void> Play(Network& net);

  SimWorld& world;
  Worker& worker;
  SimRandom& random;
  const bool with_faults;
  const Address client_address;
  const Address delegate_address;
  SnapshotPublisher<RouteTable> routes;
  HttpMetrics metrics;
  CountingLog log;
  TaskScope delegates;
  TaskScope clients;
  ProxyHandler proxy;
  HttpServer server;
  Listener delegate_listener;
  uint64_t answered_count = 0;
};

Task<Result<void>> SendText(Socket& socket, const std::string& text) {
  iovec piece{const_cast<char*>(text.data()), text.size()};
  const std::span<iovec> pieces(&piece, 1);
  co_return co_await socket.Send(pieces);
}

// A body in the framing asked for, in random portions; cut off at `cut` bytes.
Task<Result<void>> SendBodyOf(Network& net, Socket& socket, uint64_t id, size_t bytes, bool chunked, size_t cut) {
  const std::string body = BodyOf(id, bytes);
  size_t sent_bytes = 0;
  while (sent_bytes < std::min(bytes, cut)) {
    const size_t portion = std::min<size_t>(net.random.Between(1, 3000), std::min(bytes, cut) - sent_bytes);
    std::string text = body.substr(sent_bytes, portion);
    if (chunked) text = fmt::format("{:x}\r\n", portion) + text + "\r\n";
    const Result<void> sent = co_await SendText(socket, text);
    if (!sent) co_return sent;
    sent_bytes += portion;
    if (net.random.Chance(100)) co_await net.worker.Sleep(net.random.Below(50));
  }
  if (!chunked || cut < bytes) co_return Result<void>();
  const std::string end = "0\r\n\r\n";
  co_return co_await SendText(socket, end);
}

Task<Result<void>> ReadBodyOf(MessageReader& reader, BodyCheck& check, ErrorSource source) {
  while (!reader.body_done()) {
    const Result<BodyPieces> pieces = co_await reader.ReadPieces(source);
    if (!pieces) co_return std::unexpected(pieces.error());
    check.Take(*pieces);
  }
  co_return Result<void>();
}

// Answers with a body of the request's number; without faults always whole.
Task<void> Network::ServeDelegate(Network& net, int fd) {
  SimRandom& random = net.random;
  Socket socket(net.worker, fd, net.delegate_address.is_unix(), ErrorSource::kDownstream);
  MessageReader reader(MessageParser::Role::kRequest, {}, {}, net.worker.bytes());
  reader.Attach(socket);
  for (;;) {
    const Result<void> head = co_await reader.ReadHead(ErrorSource::kDownstream);
    if (!head) break;
    const RequestHead& request = reader.request();
    const uint64_t id = NumberIn(request.FindField("x-id"));
    const uint64_t body_bytes = NumberIn(request.FindField("x-size"));
    EXPECT_EQ(request.path, "/" + std::to_string(id));
    const bool is_head = request.method == "HEAD";
    reader.StartBody(request.framing, request.content_length);
    BodyCheck check{id};
    if (!net.with_faults || random.Chance(900)) {
      const Result<void> read = co_await ReadBodyOf(reader, check, ErrorSource::kDownstream);
      if (!read) break;
      EXPECT_EQ(check.bytes, body_bytes) << "a cut-off request looked whole";
    }
    if (net.with_faults && random.Chance(50)) break;
    if (random.Chance(200)) co_await net.worker.Sleep(random.Below(100));
    const size_t size = random.Below(6000);
    const bool chunked = random.Chance(500);
    std::string text = random.Chance(100) ? "HTTP/1.1 103 Early Hints\r\n\r\n" : "";
    text += fmt::format("HTTP/1.1 200 OK\r\nX-Id: {}\r\nX-Size: {}\r\n", id, size);
    text += chunked ? "Transfer-Encoding: chunked\r\n\r\n" : fmt::format("Content-Length: {}\r\n\r\n", size);
    const bool cut = net.with_faults && random.Chance(50);
    Result<void> sent = co_await SendText(socket, text);
    if (sent && !is_head)
      sent = co_await SendBodyOf(net, socket, id, size, chunked, cut ? random.Below(size + 1) : size + 1);
    if (!sent || cut || !reader.body_done() || (net.with_faults && random.Chance(50))) break;
    reader.NextMessage();
  }
  reader.Detach();
  co_await socket.Close();
}

std::string RequestText(SimRandom& random, uint64_t id, size_t size, bool chunked, std::string_view method) {
  std::string text = fmt::format("{} /{} HTTP/1.1\r\nHost: h\r\nX-Id: {}\r\nX-Size: {}\r\n", method, id, id, size);
  if (random.Chance(300)) text += "X-Long: " + std::string(random.Below(2000), 'x') + "\r\n";
  if (size != 0) text += chunked ? "Transfer-Encoding: chunked\r\n" : fmt::format("Content-Length: {}\r\n", size);
  return text + "\r\n";
}

// Sends requests, some pipelined, and checks each answer.
Task<void> Network::RunClient(Network& net, uint64_t first_id) {
  SimRandom& random = net.random;
  const Result<int> fd = co_await Connect(net.worker, net.client_address, 1000, ErrorSource::kUpstream);
  if (!fd) co_return;
  Socket socket(net.worker, *fd, false, ErrorSource::kUpstream);
  Deadline patience(net.worker.timers(), socket, Error{ErrorCode::kTimeout, ErrorSource::kUpstream});
  patience.ArmAfter(net.with_faults ? random.Between(100, 30'000) : 1'000'000);
  MessageReader reader(MessageParser::Role::kResponse, {}, {}, net.worker.bytes());
  reader.Attach(socket);
  bool open = true;
  for (uint32_t done = 0; open && done < kRequestsPerClient;) {
    const uint64_t id = first_id + done;
    const bool pipelined = random.Chance(300);
    const uint32_t count = pipelined ? 3 : 1;
    net.world.CountRequests(count);
    const bool is_head = !pipelined && random.Chance(100);
    const size_t size = pipelined || is_head ? 0 : random.Chance(500) ? 0 : random.Below(6000);
    const bool chunked = random.Chance(500);
    std::string text;
    for (uint32_t i = 0; i < count; ++i) text += RequestText(random, id + i, size, chunked, is_head ? "HEAD" : "PUT");
    Result<void> sent = co_await SendText(socket, text);
    if (sent && size != 0) sent = co_await SendBodyOf(net, socket, id, size, chunked, size + 1);
    // An answer may have come although sending failed.
    for (uint32_t i = 0; open && i < count; ++i) {
      reader.SetRequestMethod(is_head ? "HEAD" : "PUT");
      Result<void> head = co_await reader.ReadHead(ErrorSource::kUpstream);
      while (head && reader.response().interim()) {
        reader.NextMessage();
        head = co_await reader.ReadHead(ErrorSource::kUpstream);
      }
      open = head.has_value();
      if (!open) break;
      const ResponseHead& response = reader.response();
      const bool ours = response.status != 200;
      if (!net.with_faults) EXPECT_EQ(response.status, 200);
      BodyCheck check{id + i};
      if (!ours) EXPECT_EQ(NumberIn(response.FindField("x-id")), id + i) << "somebody else's answer";
      const uint64_t expected_bytes = NumberIn(response.FindField("x-size"));
      reader.StartBody(response.framing, response.content_length);
      while (open && !reader.body_done()) {
        const Result<BodyPieces> pieces = co_await reader.ReadPieces(ErrorSource::kUpstream);
        open = pieces.has_value();
        if (open && !ours) check.Take(*pieces);
      }
      if (open && !ours && !is_head) EXPECT_EQ(check.bytes, expected_bytes) << "a cut-off answer looked whole";
      if (open) ++net.answered_count;
      open = open && response.keep_alive && sent;
      if (open) reader.NextMessage();
    }
    done += count;
    if (random.Chance(200)) co_await net.worker.Sleep(random.Below(1000));
  }
  patience.Disarm();
  reader.Detach();
  if (net.with_faults && random.Chance(300)) net.world.ring().Reset(socket.fd());
  co_await socket.Close();
}

Task<void> Network::Play(Network& net) {
  for (uint32_t i = 0; i < kClients; ++i) net.clients.Spawn(RunClient(net, i * 1000));
  // Sometimes the drain comes in the midst of it.
  const bool early = net.with_faults && net.random.Chance(300);
  if (early) {
    co_await net.worker.Sleep(net.random.Below(3000));
  } else {
    while (net.clients.running_count() != 0) co_await net.clients.Join();
  }
  co_await net.server.Drain(net.random.Between(0, 2000));
  co_await net.proxy.Drain();
  while (net.clients.running_count() != 0) co_await net.clients.Join();
  co_await net.delegate_listener.Close();
  while (net.delegates.running_count() != 0) co_await net.delegates.Join();
}

void RunNetwork(uint64_t seed, bool with_faults) {
  SimRingOptions options{.buffers = {.buffers_count = 32, .buffer_bytes = 512}};
  if (!with_faults) options.faults = SimFaults::Harmless();
  SimWorld world(seed, options, !with_faults);
  Network net(world, with_faults);
  world.worker().tasks().Spawn(Network::Play(net));
  world.RunUntilIdle();
  EXPECT_EQ(net.metrics.requests_in_flight.value(), 0);
  EXPECT_EQ(net.metrics.connections.value(), 0);
  EXPECT_EQ(net.metrics.upstream_leased.value(), 0);
  EXPECT_EQ(net.metrics.upstream_idle.value(), 0);
  EXPECT_EQ(net.metrics.upstream_connecting.value(), 0);
  EXPECT_EQ(net.metrics.upstream_waiting.value(), 0);
  uint64_t counted = 0;
  net.metrics.requests.ForEach([&](size_t, int, Reason, uint64_t count) { counted += count; });
  EXPECT_EQ(counted, net.log.count);
  if (!with_faults) EXPECT_GE(net.answered_count, kClients * kRequestsPerClient);
}

TEST(ExchangeSim, AnswersEveryRequestOverASlowNetwork) {
  ForEachSeed(kRuns / 3, [](uint64_t seed) { RunNetwork(seed, false); });
}

TEST(ExchangeSim, KeepsExchangesApartWhateverFails) {
  ForEachSeed(kRuns, [](uint64_t seed) { RunNetwork(seed, true); });
}

}  // namespace
}  // namespace dpa
