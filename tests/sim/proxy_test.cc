// Goal: whatever the network, the clients and the delegates do, every request is answered once or its connection is
// closed; what is answered is what a delegate sent, whole; a POST reaches delegates at most once; nothing is left over.
// Method: scripted clients and delegates around an HttpServer with a ProxyHandler, all on one worker and one simulated
// ring, under hundreds of seeds. The scripts have an HTTP reader of their own and keep books, which are compared at the
// end.

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <array>
#include <charconv>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "core/listener.h"
#include "core/snapshot.h"
#include "http/proxy.h"
#include "http/server.h"
#include "tests/sim/sim_http.h"

namespace dpa {
namespace {

constexpr uint64_t kRuns = 200;

// What all scripts know of one request.
struct Book {
  std::string method;
  size_t request_bytes = 0;
  uint32_t delegate_heads = 0;        // Times that a delegate read its head.
  std::set<size_t> complete_lengths;  // Of the bodies that delegates meant to send in full.
  bool may_be_cut = false;            // A delegate answered until-close, so that its breaking off cannot be told.
  uint32_t answers = 0;               // Complete answers to the client.
  int status = 0;
  uint32_t records = 0;
  int recorded_status = 0;
};

struct Books final : AccessLog {
  void Write(const AccessRecord& record) override {
    ++records_count;
    EXPECT_GE(record.finished_ns, record.started_ns);
    const size_t at = record.target.rfind('/');
    uint64_t id = 0;
    const char* const end = record.target.data() + record.target.size();
    if (at == std::string_view::npos || std::from_chars(record.target.data() + at + 1, end, id).ec != std::errc())
      return;
    if (!requests.contains(id)) return;
    ++requests[id].records;
    requests[id].recorded_status = record.status;
  }
  std::map<uint64_t, Book> requests;
  uint64_t records_count = 0;
};

// How much the scripts misbehave; chances out of 1000.
struct Manners {
  uint32_t delegate_dies = 40;  // Closes or breaks off instead of answering, or inside its answer.
  uint32_t delegate_garbage = 10;
  uint32_t delegate_hangs = 15;
  uint32_t delegate_closes = 150;  // After an answer, said or unsaid, at once or later: the idle-close race.
  uint32_t delegate_early = 50;    // Answers before it has read the request's body.
  uint32_t delegate_until_close = 50;
  uint32_t client_leaves = 30;  // In the middle of something.
  uint32_t client_garbage = 15;
  static Manners Good() { return {0, 0, 0, 0, 0, 0, 0, 0}; }
};

// --- Delegates ---

class Delegate {
 public:
  Delegate(SimWorld& world, const Address& address, Books& books, const Manners& manners)
      : world_(world),
        is_unix_(address.is_unix()),
        books_(books),
        manners_(manners),
        tasks_(world.worker()),
        listener_(world.worker(), world.ring().Listen(address), {}, [this](int fd) { tasks_.Spawn(Serve(fd)); }) {
    listener_.Start();
  }

  Task<void> Close() {
    co_await listener_.Close();
    while (tasks_.running_count() != 0) co_await tasks_.Join();
  }

 private:
  Task<void> Serve(int fd) {
    SimHttpPeer peer(world_, fd, is_unix_, ErrorSource::kUpstream);
    // Nobody waits for ever, so that the run ends.
    Deadline patience(world_.worker().timers(), peer.socket(), Error{ErrorCode::kTimeout});
    patience.ArmAfter(600'000);
    bool keep = true;
    bool lingers = false;
    while (keep) keep = co_await ServeOne(peer, lingers);
    if (lingers) {
      co_await peer.socket().LingerAndClose(1000, 1 << 20);
    } else {
      co_await peer.socket().Close();
    }
  }

  Task<bool> ServeOne(SimHttpPeer& peer, bool& lingers) {
    lingers = false;
    SimRandom& random = world_.random();
    SimHead head;
    const SimRead got = co_await peer.ReadHead(head, /*is_response=*/false);
    EXPECT_NE(got, SimRead::kMalformed) << "the proxy sent: " << head.text;
    if (got != SimRead::kDone) co_return false;
    const size_t space = head.first_line.find(' ');
    const std::string method = head.first_line.substr(0, space);
    const uint64_t id = std::strtoull(head.first_line.c_str() + space + 4, nullptr, 10);
    EXPECT_TRUE(books_.requests.contains(id)) << head.first_line;
    Book& book = books_.requests[id];
    EXPECT_EQ(method, book.method);
    ++book.delegate_heads;
    if (random.Chance(manners_.delegate_dies)) co_return false;
    if (random.Chance(manners_.delegate_hangs)) co_await world_.worker().Sleep(random.Below(20'000));

    const bool early = random.Chance(manners_.delegate_early);
    if (!early && !head.Field("expect").empty() && random.Chance(500)) {
      const Result<void> invited = co_await peer.Write("HTTP/1.1 100 Continue\r\n\r\n");
      if (!invited) co_return false;
    }
    if (!early) {
      std::string body;
      const SimRead read = co_await peer.ReadBody(head, body);
      EXPECT_NE(read, SimRead::kMalformed);
      const std::string expected = SimPattern(id, book.request_bytes);
      if (read == SimRead::kDone) EXPECT_EQ(body, expected) << "request body of " << id;
      EXPECT_TRUE(expected.starts_with(body)) << "request body of " << id;
      if (read != SimRead::kDone) co_return false;
    }
    if (random.Chance(300)) co_await world_.worker().Sleep(random.Below(50));
    const bool keep = co_await Answer(peer, id, book, lingers);
    co_return keep && !early;
  }

  Task<bool> Answer(SimHttpPeer& peer, uint64_t id, Book& book, bool& lingers) {
    SimRandom& random = world_.random();
    std::string out;
    if (random.Chance(manners_.delegate_garbage)) {
      out = "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabcd";
      static_cast<void>(co_await peer.Write(out));
      co_return false;
    }
    if (random.Chance(50)) out = "HTTP/1.1 103 Early Hints\r\nLink: </style.css>\r\n\r\n";
    const size_t length = random.Chance(100) ? random.Below(20'000) : random.Below(600);
    const std::string body = SimPattern(id, length);
    const bool says_close = random.Chance(manners_.delegate_closes);
    const bool until_close = random.Chance(manners_.delegate_until_close);
    const std::string_view connection = says_close || until_close ? "Connection: close\r\n" : "";
    book.complete_lengths.insert(length);
    const size_t heads_at = out.size();
    if (until_close) {
      book.may_be_cut = true;
      out += fmt::format("HTTP/1.1 200 OK\r\nX-Id: {}\r\n{}\r\n{}", id, connection, body);
    } else if (random.Chance(500)) {
      out += fmt::format("HTTP/1.1 200 OK\r\nX-Id: {}\r\n{}Content-Length: {}\r\n\r\n{}", id, connection, length, body);
    } else {
      out += fmt::format("HTTP/1.1 200 OK\r\nX-Id: {}\r\n{}Transfer-Encoding: chunked\r\n\r\n{}", id, connection,
                         SimChunked(random, body));
    }
    if (book.method == "HEAD") out.resize(out.find("\r\n\r\n", heads_at) + 4);
    const bool cut = random.Chance(manners_.delegate_dies);
    if (cut) out.resize(random.Below(out.size()));
    const Result<void> sent = co_await peer.Write(out);
    // A careful server: what it has sent must not be destroyed by what it has not read.
    lingers = sent && !cut;
    if (!sent || cut || says_close || until_close) co_return false;
    if (random.Chance(manners_.delegate_closes)) {
      co_await world_.worker().Sleep(random.Below(30));
      co_return false;
    }
    co_return true;
  }

  SimWorld& world_;
  const bool is_unix_;
  Books& books_;
  const Manners& manners_;
  TaskScope tasks_;
  Listener listener_;
};

// --- Clients ---

class Client {
 public:
  Client(SimWorld& world, const Address& address, Books& books, const Manners& manners, uint64_t first_id)
      : world_(world),
        address_(address),
        books_(books),
        manners_(manners),
        next_id_(first_id),
        tasks_(world.worker()) {}

  Task<void> Run() {
    SimRandom& random = world_.random();
    co_await world_.worker().Sleep(random.Below(100));
    const Result<int> fd = co_await Connect(world_.worker(), address_, 1000, ErrorSource::kDownstream);
    if (!fd) co_return;
    SimHttpPeer peer(world_, *fd, address_.is_unix(), ErrorSource::kDownstream);
    Deadline leave(world_.worker().timers(), peer.socket(), Error{ErrorCode::kCancelled});
    if (random.Chance(manners_.client_leaves * 3)) leave.ArmAfter(random.Between(1, 100));
    const uint64_t rounds = random.Between(1, 4);
    bool going = true;
    for (uint64_t round = 0; going && round < rounds; ++round) {
      if (random.Chance(200)) co_await world_.worker().Sleep(random.Below(60));
      going = co_await Round(peer);
    }
    leave.Disarm();
    co_await peer.socket().Close();
  }

 private:
  // One to four requests in one go, and their answers in order.
  Task<bool> Round(SimHttpPeer& peer) {
    SimRandom& random = world_.random();
    std::vector<uint64_t> ids(random.Chance(300) ? random.Between(2, 4) : 1);
    std::string out;
    for (uint64_t& id : ids) {
      id = next_id_++;
      AppendRequest(out, id);
    }
    const bool garbage = random.Chance(manners_.client_garbage);
    if (garbage) out += "GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 1, 2\r\n\r\n";
    const bool leaves = random.Chance(manners_.client_leaves);
    if (leaves) out.resize(random.Below(out.size()));
    // Answers are read while requests still go out, as a client must.
    bool going = true;
    tasks_.Spawn(WriteOut(peer, out));
    for (const uint64_t id : ids) {
      if (going && !leaves) going = co_await ReadAnswer(peer, id);
    }
    if (leaves && random.Chance(500)) co_await world_.worker().Sleep(random.Below(50));
    if (leaves || !going) peer.socket().Cancel(Error{ErrorCode::kCancelled});
    while (tasks_.running_count() != 0) co_await tasks_.Join();
    co_return going && !leaves && !garbage;
  }

  void AppendRequest(std::string& out, uint64_t id) {
    SimRandom& random = world_.random();
    Book& book = books_.requests[id];
    const char* const methods[] = {"GET", "GET", "HEAD", "POST", "POST", "PUT"};
    book.method = random.Pick(methods);
    const bool has_body = book.method[0] == 'P';
    if (has_body) book.request_bytes = random.Chance(100) ? random.Below(20'000) : random.Below(500);
    const std::string body = SimPattern(id, book.request_bytes);
    out += fmt::format("{} /r/{} HTTP/1.1\r\nHost: example.org\r\n", book.method, id);
    // It does not wait for the answer, as it need not (RFC 9110 §10.1.1).
    if (has_body && random.Chance(200)) out += "Expect: 100-continue\r\n";
    if (!has_body) {
      out += "\r\n";
    } else if (random.Chance(500)) {
      out += fmt::format("Content-Length: {}\r\n\r\n{}", body.size(), body);
    } else {
      out += "Transfer-Encoding: chunked\r\n\r\n" + SimChunked(random, body);
    }
  }

  Task<void> WriteOut(SimHttpPeer& peer, const std::string& out) { static_cast<void>(co_await peer.Write(out)); }

  Task<bool> ReadAnswer(SimHttpPeer& peer, uint64_t id) {
    Book& book = books_.requests[id];
    SimHead head;
    std::string_view status;
    do {
      const SimRead got = co_await peer.ReadHead(head, /*is_response=*/true, book.method);
      EXPECT_NE(got, SimRead::kMalformed) << head.text;
      if (got != SimRead::kDone) co_return false;
      status = std::string_view(head.first_line).substr(9, 3);
    } while (status[0] == '1');
    EXPECT_NE(head.framing, SimFraming::kUntilClose) << "to a client of HTTP/1.1: " << head.text;
    std::string body;
    const SimRead got = co_await peer.ReadBody(head, body);
    EXPECT_NE(got, SimRead::kMalformed) << head.text;
    if (status == "200") {
      EXPECT_EQ(head.Field("x-id"), std::to_string(id)) << "an answer to another request";
      EXPECT_TRUE(SimPattern(id, 20'000).starts_with(body) || body.size() < 8)
          << "bytes of another body, request " << id;
    } else if (book.method != "HEAD" && got == SimRead::kDone) {
      EXPECT_NE(body.find("\"kind\":\"Status\""), std::string::npos) << head.text << body;
    }
    if (got != SimRead::kDone) co_return false;
    ++book.answers;
    book.status = std::atoi(status.data());
    const bool whole = book.method == "HEAD" || book.may_be_cut || book.complete_lengths.contains(body.size());
    if (book.status == 200) EXPECT_TRUE(whole) << "a truncated body looks whole, request " << id << ", " << body.size();
    co_return head.Field("connection") != "close";
  }

  SimWorld& world_;
  const Address& address_;
  Books& books_;
  const Manners& manners_;
  uint64_t next_id_;
  TaskScope tasks_;
};

// --- A run ---

struct Scene {
  Scene(SimWorld& w, const Manners& m, const DownstreamOptions& downstream, const UpstreamPoolOptions& upstream)
      : world(w),
        manners(m),
        address(*Address::Parse(w.random().Chance(500) ? "127.0.0.1:80" : "unix:data")),
        routes(std::make_shared<RouteTable>()) {
    const char* const places[] = {"127.0.0.1:9001", "unix:delegate-2"};
    std::vector<UpstreamUrl> urls;
    for (const char* place : places) {
      urls.push_back({*Address::Parse(place), "delegate.example", ""});
      if (urls.size() == 2 && world.random().Chance(500)) urls.pop_back();
    }
    if (world.random().Chance(300)) urls.erase(urls.begin(), urls.end() - 1);
    for (const UpstreamUrl& url : urls) {
      delegates.push_back(std::make_unique<Delegate>(world, url.address, books, manners));
    }
    ProxyOptions proxy_options;
    proxy_options.upstream = upstream;
    proxy = std::make_unique<ProxyHandler>(world.worker(), routes, urls, nullptr, nullptr, proxy_options, metrics);
    HttpServerOptions server_options;
    server_options.downstream = downstream;
    server = std::make_unique<HttpServer>(world.worker(), *proxy, server_options, metrics, &books);
    server->Listen(world.ring().Listen(address), address.is_unix());
  }

  void Serve(int clients_count) {
    TaskScope running(world.worker());
    for (int i = 0; i < clients_count; ++i) {
      clients.push_back(std::make_unique<Client>(world, address, books, manners, 1000u * (i + 1)));
      running.Spawn(clients.back()->Run());
    }
    // Some runs shut down in the middle.
    const bool drains_early = world.random().Chance(manners.client_leaves * 5);
    if (drains_early) running.Spawn(DrainLater());
    world.RunUntil([&] { return running.running_count() == 0; });
    world.worker().tasks().Spawn(End(drains_early));
    world.RunUntilIdle();
    Compare();
  }

  Task<void> DrainLater() {
    co_await world.worker().Sleep(world.random().Below(200));
    co_await server->Drain(world.random().Below(5000));
  }

  Task<void> End(bool drained) {
    if (!drained) co_await server->Drain(world.random().Below(5000));
    co_await proxy->Drain();
    for (const auto& delegate : delegates) co_await delegate->Close();
  }

  void Compare() {
    uint64_t counted = 0;
    metrics.requests.ForEach([&](size_t, int, Reason, uint64_t count) { counted += count; });
    EXPECT_EQ(counted, books.records_count) << "metrics and access log disagree";
    EXPECT_EQ(metrics.requests_in_flight.value(), 0);
    EXPECT_EQ(metrics.connections.value(), 0);
    EXPECT_EQ(metrics.upstream_leased.value(), 0);
    EXPECT_EQ(metrics.upstream_idle.value(), 0);
    EXPECT_EQ(metrics.upstream_connecting.value(), 0);
    EXPECT_EQ(metrics.upstream_waiting.value(), 0);
    for (const auto& [id, book] : books.requests) {
      EXPECT_LE(book.answers, 1u) << id;
      EXPECT_LE(book.records, 1u) << id;
      if (book.method == "POST") EXPECT_LE(book.delegate_heads, 1u) << "POST " << id << " was sent twice";
      EXPECT_LE(book.delegate_heads, 2u) << id;
      // A head that was never complete is recorded without its target.
      const bool anonymous = book.records == 0 && (book.status == 400 || book.status == 408);
      if (book.answers == 0 || anonymous) continue;
      EXPECT_EQ(book.records, 1u) << id;
      EXPECT_EQ(book.recorded_status, book.status) << id;
    }
  }

  SimWorld& world;
  const Manners manners;
  const Address address;
  Books books;
  HttpMetrics metrics;
  SnapshotPublisher<RouteTable> routes;
  std::vector<std::unique_ptr<Delegate>> delegates;
  std::unique_ptr<ProxyHandler> proxy;
  std::unique_ptr<HttpServer> server;
  std::vector<std::unique_ptr<Client>> clients;
};

TEST(SimProxyTest, EveryRequestIsAnsweredInFullWhenNothingFails) {
  ForEachSeed(kRuns, [](uint64_t seed) {
    SimRingOptions options;
    options.faults = SimFaults::Harmless();
    options.buffers = {.buffers_count = 32, .buffer_bytes = 512};
    SimWorld world(seed, options, /*keep_faults=*/true);
    Scene scene(world, Manners::Good(), {}, {});
    scene.Serve(6);
    for (const auto& [id, book] : scene.books.requests) {
      EXPECT_EQ(book.answers, 1u) << id;
      EXPECT_EQ(book.status, 200) << id;
    }
  });
}

TEST(SimProxyTest, UnderEveryFaultARequestIsAnsweredOnceOrItsConnectionClosed) {
  ForEachSeed(kRuns, [](uint64_t seed) {
    SimRingOptions options;
    options.buffers = {.buffers_count = 16, .buffer_bytes = 256};
    SimWorld world(seed, options);
    SimRandom& random = world.random();
    DownstreamOptions downstream;
    UpstreamPoolOptions upstream;
    if (random.Chance(500)) {
      // Short enough to fire in the middle of things.
      downstream.header_timeout_ms = random.Between(5, 500);
      downstream.body_timeout_ms = random.Between(5, 500);
      downstream.keep_alive_timeout_ms = random.Between(5, 500);
      downstream.send_timeout_ms = random.Between(5, 500);
      upstream.connection.header_timeout_ms = random.Between(5, 500);
      upstream.connection.body_timeout_ms = random.Between(5, 500);
      upstream.connection.send_timeout_ms = random.Between(5, 500);
      upstream.idle_timeout_ms = random.Between(5, 200);
      upstream.connect_timeout_ms = random.Between(1, 100);
      upstream.waiting_timeout_ms = random.Between(1, 100);
    }
    if (random.Chance(300)) {
      upstream.leases_max = 2;
      upstream.waiting_max = 3;
      upstream.idle_max = 1;
      downstream.exchanges_max = 3;
    }
    Scene scene(world, Manners{}, downstream, upstream);
    scene.Serve(8);
  });
}

}  // namespace
}  // namespace dpa
