#include "tests/sim/scene_client.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>

namespace dpa {
namespace {

// More than all timeouts in a row. Whoever waits longer waits for ever.
constexpr uint64_t kPatienceMs = 20'000'000;

// Each is refused, and nothing behind it may be taken for a request: there is one inside, which no delegate may see.
constexpr std::string_view kGarbage[] = {
    "GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 1, 2\r\n\r\nGET /r/7777777 HTTP/1.1\r\nHost: a\r\n\r\n",
    "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
    "GET /r/7777777 HTTP/1.1\r\nHost: a\r\n\r\n",
    "GET /r/7777777 HTTP/1.1\r\n\r\n",
    "GET /r/7777777 HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
    "GET /r/7777777 HTTP/3.1\r\nHost: a\r\n\r\n",
    "GET /r/7777777 HTTP/1.1\nHost: a\n\n",
    "GET /r/77\x01 HTTP/1.1\r\nHost: a\r\n\r\n",
    "TRACE /r/7777777 HTTP/1.1\r\nHost: a\r\n\r\n",
    "POST /r/7777777 HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
    "GET /r/7777777 HTTP/1.1\r\nHost: a\r\nA : b\r\n\r\n",
    "\x16\x03\x01\x02\r\n\r\n",
    "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
};

}  // namespace

// One connection, from its client's side.
struct SceneClient::Visit {
  Visit(SimWorld& world, int fd, bool is_unix) : peer(world, fd, is_unix, ErrorSource::kDownstream) {}
  SimHttpPeer peer;
  Misdeed misdeed = Misdeed::kNone;
  bool http10 = false;
  bool last_round = false;
  bool send_ended = false;
  bool end_announced = false;
  // Between the writer and the reader of a round.
  bool invited = false;
  bool answered = false;
  bool body_withheld = false;
};

SceneClient::SceneClient(SimWorld& world, const Address& address, SceneBooks& books, const ClientManners& manners,
                         uint64_t first_id)
    : world_(world), address_(address), books_(books), manners_(manners), next_id_(first_id), tasks_(world.worker()) {}

Task<void> SceneClient::Run() {
  SimRandom& random = world_.random();
  co_await world_.worker().Sleep(random.Below(100));
  for (uint64_t count = random.Between(1, 3); count != 0; --count) co_await Connection();
}

Task<void> SceneClient::Connection() {
  SimRandom& random = world_.random();
  const Result<int> fd = co_await Connect(world_.worker(), address_, 1000, ErrorSource::kDownstream);
  if (!fd) co_return;
  Visit visit(world_, *fd, address_.is_unix());
  Socket& socket = visit.peer.socket();
  if (random.Chance(manners_.bad)) {
    visit.misdeed = static_cast<Misdeed>(random.Between(1, static_cast<uint64_t>(Misdeed::kReadsLate)));
    world_.CountMisdeed();
  }
  visit.http10 = !manners_.plain && random.Chance(100);
  Deadline patience(world_.worker().timers(), socket, Error{ErrorCode::kTimeout});
  patience.ArmAfter(kPatienceMs);
  Deadline leave(world_.worker().timers(), socket, Error{ErrorCode::kCancelled});
  if (visit.misdeed == Misdeed::kLeaves || visit.misdeed == Misdeed::kResets) leave.ArmAfter(random.Between(1, 100));

  const uint64_t rounds = random.Between(1, 4);
  bool going = true;
  for (uint64_t round = 1; going && round <= rounds; ++round) {
    const bool thinks = manners_.think_ms_min != 0 || random.Chance(300);
    if (thinks) co_await world_.worker().Sleep(random.Between(manners_.think_ms_min, manners_.think_ms_max));
    visit.last_round = round == rounds;
    going = co_await Round(visit);
  }
  leave.Disarm();
  if (going && random.Chance(500)) co_await ExpectTheEnd(visit);
  EXPECT_FALSE(patience.fired()) << "a client waits for ever";
  patience.Disarm();
  if (visit.misdeed == Misdeed::kResets) world_.ring().Reset(socket.fd());
  co_await socket.Close();
}

// All that was asked is answered: the server says no more, and leaves when it is left.
Task<void> SceneClient::ExpectTheEnd(Visit& visit) {
  visit.peer.socket().ShutdownSend();
  const uint64_t bytes = co_await visit.peer.ReadToEnd();
  if (visit.misdeed == Misdeed::kNone) EXPECT_EQ(bytes, 0u) << "bytes that nobody asked for";
}

// --- Asking ---

// Requests in one go, and their answers in order. True: the connection can be used on.
Task<bool> SceneClient::Round(Visit& visit) {
  SimRandom& random = world_.random();
  const std::vector<Planned> requests = Plan(visit);
  visit.invited = visit.answered = visit.body_withheld = false;
  // Answers are read while requests still go out, as a client must.
  tasks_.Spawn(WriteOut(visit, requests));
  if (visit.misdeed == Misdeed::kReadsLate) co_await world_.worker().Sleep(random.Below(70'000));
  bool going = true;
  for (const Planned& planned : requests) {
    if (going) {
      going = co_await ReadAnswer(visit, planned.id);
    } else {
      books_.FindRequest(planned.id)->not_reached = visit.end_announced;
    }
  }
  if (visit.misdeed == Misdeed::kGarbage && going) {
    SimHead head;
    const SimRead got = co_await visit.peer.ReadHead(head, /*is_response=*/true);
    EXPECT_NE(got, SimRead::kMalformed) << head.text;
    if (got == SimRead::kDone) EXPECT_GE(head.status(), 400) << head.text;
    if (got == SimRead::kDone) EXPECT_EQ(head.Field("connection"), "close") << head.text;
    going = false;
  }
  if (!going) visit.peer.socket().Cancel(Error{ErrorCode::kCancelled});
  while (tasks_.running_count() != 0) co_await tasks_.Join();
  co_return going && !visit.body_withheld && !visit.send_ended;
}

std::vector<SceneClient::Planned> SceneClient::Plan(Visit& visit) {
  SimRandom& random = world_.random();
  uint64_t count = 1;
  if (!manners_.plain && !visit.http10 && random.Chance(300)) count = random.Between(2, random.Chance(200) ? 24 : 4);
  std::vector<Planned> requests;
  // RFC 9112 §9.6: nothing follows a request that says close.
  do {
    requests.push_back(PlanRequest(visit, count == 1));
  } while (requests.size() < count && requests.back().head.find("Connection: close") == std::string::npos);
  world_.CountRequests(requests.size());
  return requests;
}

SceneClient::Planned SceneClient::PlanRequest(Visit& visit, bool alone) {
  SimRandom& random = world_.random();
  Planned planned;
  planned.id = next_id_++;
  SceneRequest& request = books_.NewRequest(planned.id);
  const char* const methods[] = {"GET", "GET", "HEAD", "POST", "POST", "PUT", "DELETE", "PATCH", "OPTIONS"};
  request.method = random.Pick(methods);
  request.http10 = visit.http10;
  request.innocent = visit.misdeed == Misdeed::kNone;
  request.upgrades = alone && !manners_.plain && !visit.http10 && request.method == "GET" && random.Chance(150);
  const bool has_body = request.method[0] == 'P' && (!manners_.plain || request.method == "POST");
  const char* const queries[] = {"", "", "?a=b&c=%20d", "?"};
  planned.head =
      fmt::format("{} /r/{}{} HTTP/1.{}\r\n", request.method, planned.id, random.Pick(queries), visit.http10 ? 0 : 1);
  if (!visit.http10 || random.Chance(500)) planned.head += "Host: example.org\r\n";
  if (random.Chance(100)) planned.head += "X-Long: " + std::string(random.Below(2000), 'x') + "\r\n";
  if (visit.http10 && random.Chance(500)) planned.head += "Connection: keep-alive\r\n";
  if (request.upgrades) {
    planned.head += fmt::format("Connection: Upgrade\r\nUpgrade: {}\r\n", kSceneProtocol);
    request.tunnel_bytes = random.Chance(100) ? random.Below(20'000) : random.Below(500);
  } else if (!visit.http10 && random.Chance(30)) {
    planned.head += "Connection: close\r\n";
  }
  if (has_body) {
    request.body_bytes = random.Chance(100) ? random.Below(20'000) : random.Below(500);
    const std::string body = SceneBody(SceneSide::kRequest, planned.id, request.body_bytes);
    request.expects = alone && !visit.http10 && request.body_bytes != 0 && random.Chance(150);
    if (request.expects) planned.head += "Expect: 100-continue\r\n";
    if (visit.http10 || random.Chance(500)) {
      planned.head += fmt::format("Content-Length: {}\r\n", body.size());
      planned.body = body;
    } else {
      planned.head += "Transfer-Encoding: chunked\r\n";
      const std::string trailers =
          random.Chance(200) ? fmt::format("X-Request-Trailer: {}\r\n", planned.id) : std::string();
      planned.body = SimChunked(random, body, trailers);
    }
  }
  planned.head += "\r\n";
  return planned;
}

Task<void> SceneClient::WriteOut(Visit& visit, const std::vector<Planned>& requests) {
  SimRandom& random = world_.random();
  std::string out;
  for (const Planned& planned : requests) {
    out += planned.head;
    if (books_.FindRequest(planned.id)->expects) {
      Result<void> sent = co_await visit.peer.Write(out);
      out.clear();
      if (!sent) co_return;
      const bool go_on = co_await AwaitInvitation(visit);
      if (!go_on) co_return;
    }
    out += planned.body;
  }
  if (visit.misdeed == Misdeed::kGarbage) out += random.Pick(kGarbage);
  const bool cut = visit.misdeed == Misdeed::kCuts || (visit.misdeed == Misdeed::kStalls && random.Chance(500));
  if (cut) out.resize(random.Below(out.size() + 1));
  visit.send_ended = cut;  // What would follow would be taken for the rest.
  const Result<void> sent = co_await visit.peer.Write(out);
  if (sent && visit.misdeed == Misdeed::kCuts) visit.peer.socket().Cancel(Error{ErrorCode::kCancelled});
  if (!sent || visit.misdeed != Misdeed::kHalfCloses || !visit.last_round) co_return;
  visit.send_ended = true;
  visit.peer.socket().ShutdownSend();
}

// RFC 9110 §10.1.1: a client may not wait for ever, and need not send a body that has been answered. Then the
// connection is out of step, and this client closes it.
Task<bool> SceneClient::AwaitInvitation(Visit& visit) {
  SimRandom& random = world_.random();
  const uint64_t waits = random.Chance(300) ? random.Below(5) : 200;
  for (uint64_t i = 0; i < waits && !visit.invited && !visit.answered; ++i) co_await world_.worker().Sleep(5);
  visit.body_withheld = visit.answered && !visit.invited && random.Chance(500);
  co_return !visit.body_withheld;
}

// --- Being answered ---

Task<bool> SceneClient::ReadFinalHead(Visit& visit, uint64_t id, SimHead& head) {
  SceneRequest& request = *books_.FindRequest(id);
  for (;;) {
    const SimRead got = co_await visit.peer.ReadHead(head, /*is_response=*/true, request.method);
    EXPECT_NE(got, SimRead::kMalformed) << head.text;
    if (got != SimRead::kDone) co_return false;
    const int status = head.status();
    if (status == 101) EXPECT_TRUE(request.upgrades) << "nobody asked to upgrade: " << id;
    if (status >= 200 || status == 101) co_return true;
    EXPECT_FALSE(request.http10) << "HTTP/1.0 knows no " << head.text;
    if (status == 100) {
      EXPECT_TRUE(request.expects) << "nobody waits for it: " << id;
      visit.invited = true;
    } else if (head.Number("x-step") == 1) {
      EXPECT_EQ(head.Number("x-id"), id) << "somebody else's " << head.text;
    }
  }
}

Task<bool> SceneClient::ReadAnswer(Visit& visit, uint64_t id) {
  SceneRequest& request = *books_.FindRequest(id);
  SimHead head;
  const bool headed = co_await ReadFinalHead(visit, id, head);
  if (!headed) co_return false;
  visit.answered = true;
  if (head.status() == 101) {
    co_await ReadTunnel(visit, id, head);
    co_return false;
  }
  if (!request.http10) EXPECT_NE(head.framing, SimFraming::kUntilClose) << "to HTTP/1.1: " << head.text;
  if (request.http10) EXPECT_NE(head.framing, SimFraming::kChunked) << "to HTTP/1.0: " << head.text;
  std::string body;
  std::string trailers;
  const SimRead got = co_await visit.peer.ReadBody(head, body, &trailers);
  EXPECT_NE(got, SimRead::kMalformed) << head.text;
  const bool whole = got == SimRead::kDone;
  request.status = head.status();
  if (head.Field("x-answer").empty()) {
    if (whole) CheckOwn(head, body, request);
  } else {
    CheckDelegates(head, body, trailers, whole, request, id);
  }
  if (!whole) co_return false;
  ++request.answers_count;
  const bool asked_to_close = head.Field("connection") == "close" || head.framing == SimFraming::kUntilClose;
  if (!asked_to_close && (!request.http10 || head.Field("connection") == "keep-alive")) co_return true;
  visit.end_announced = true;
  // A HEAD that was cut short, or turned away unread, is answered as what it is not.
  const bool unread = request.method == "HEAD" && !request.word.empty();
  if (visit.misdeed == Misdeed::kNone && !unread) {
    const uint64_t bytes = co_await visit.peer.ReadToEnd();
    EXPECT_EQ(bytes, 0u) << "bytes behind the last answer, to " << id;
  }
  co_return false;
}

// Bytes both ways until both sides have ended theirs.
Task<void> SceneClient::ReadTunnel(Visit& visit, uint64_t id, const SimHead& head) {
  SceneRequest& request = *books_.FindRequest(id);
  const uint64_t number = head.Number("x-answer");
  SceneAnswer* answer = books_.FindAnswer(number);
  EXPECT_NE(answer, nullptr) << "nobody switched: " << head.text;
  if (answer == nullptr) co_return;
  if (!answer->out_of_step) EXPECT_EQ(answer->request, id) << "a tunnel to another request";
  EXPECT_EQ(++answer->taken_count, 1u) << "one tunnel for two requests, " << id;
  ++request.answers_count;
  request.status = 101;
  request.answer = number;
  visit.end_announced = true;
  tasks_.Spawn(WriteTunnel(visit, id));
  std::string received;
  co_await visit.peer.ReadToEnd(&received);
  EXPECT_TRUE(IsSceneBody(SceneSide::kAnswer, number, received)) << "foreign bytes in the tunnel of " << id;
  request.answer_bytes = received.size();
}

Task<void> SceneClient::WriteTunnel(Visit& visit, uint64_t id) {
  SimRandom& random = world_.random();
  const std::string bytes = SceneBody(SceneSide::kRequest, id, books_.FindRequest(id)->tunnel_bytes);
  const size_t pause_at = random.Below(bytes.size() + 1);
  Result<void> sent = co_await visit.peer.Write(std::string_view(bytes).substr(0, pause_at));
  if (random.Chance(200)) co_await world_.worker().Sleep(random.Below(300));
  if (sent) sent = co_await visit.peer.Write(std::string_view(bytes).substr(pause_at));
  if (sent && !visit.send_ended) visit.peer.socket().ShutdownSend();
  visit.send_ended = true;
}

// One of ours: a Kubernetes Status, which says why.
void SceneClient::CheckOwn(const SimHead& head, const std::string& body, SceneRequest& request) {
  EXPECT_GE(request.status, 400) << head.text;
  request.word = "?";
  if (request.method == "HEAD") return;
  constexpr std::string_view kBefore = "\"causes\":[{\"reason\":\"";
  EXPECT_NE(body.find("\"kind\":\"Status\""), std::string::npos) << head.text << body;
  const size_t at = body.find(kBefore);
  EXPECT_NE(at, std::string::npos) << body;
  if (at == std::string::npos) return;
  const size_t begin = at + kBefore.size();
  request.word = body.substr(begin, body.find('"', begin) - begin);
}

void SceneClient::CheckDelegates(const SimHead& head, const std::string& body, const std::string& trailers, bool whole,
                                 SceneRequest& request, uint64_t id) {
  const uint64_t number = head.Number("x-answer");
  SceneAnswer* answer = books_.FindAnswer(number);
  EXPECT_NE(answer, nullptr) << "nobody answered this: " << head.text;
  if (answer == nullptr) return;
  if (!answer->out_of_step) {
    EXPECT_EQ(answer->request, id) << "an answer to another request";
    EXPECT_EQ(head.Number("x-id"), id) << "an answer to another request";
  }
  if (whole) {
    request.answer = number;
    request.answer_bytes = body.size();
  }
  // Framed by another request's method: nothing can be said about its bytes.
  if (answer->out_of_step && answer->request != id) return;
  EXPECT_EQ(head.status(), answer->status) << head.text;
  EXPECT_TRUE(IsSceneBody(SceneSide::kAnswer, number, body)) << "foreign bytes in the answer to " << id;
  if (!trailers.empty()) EXPECT_EQ(trailers, fmt::format("X-Answer-Trailer: {}\r\n", number));
  if (!whole) return;
  EXPECT_EQ(++answer->taken_count, 1u) << "one answer to two requests, " << id;
  const bool bodiless = answer->bodiless || request.method == "HEAD";
  if (bodiless) {
    EXPECT_EQ(body.size(), 0u) << head.text;
  } else if (!answer->end_untold) {
    EXPECT_EQ(body.size(), answer->body_bytes) << "a truncated answer looks whole: " << id << request.Describe() << "\n"
                                               << head.text;
  }
}

}  // namespace dpa
