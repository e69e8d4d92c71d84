#include "tests/sim/scene_delegate.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>

namespace dpa {
namespace {

// Nobody waits for ever, so that a run ends.
constexpr uint64_t kPatienceMs = 600'000;

constexpr std::string_view kBrokenAnswers[] = {
    "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabcd",
    "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
    "HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
    "HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999\r\n\r\n",
    "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\nabc",
    "HTTP/1.1 200 OK\nContent-Length: 3\n\nabc",
    "HTTP/1.1 200 OK\r\nA: b\r\n folded\r\nContent-Length: 0\r\n\r\n",
    "HTTP/1.1 099 Low\r\nContent-Length: 0\r\n\r\n",
    "HTTP/1.1 600 High\r\nContent-Length: 0\r\n\r\n",
    "HTTP/2.0 200 OK\r\nContent-Length: 0\r\n\r\n",
    "HTTP/1.1 101 Switching Protocols\r\nUpgrade: nobody-asked\r\nConnection: upgrade\r\n\r\n",
    "HTTP/1.1 200 OK\r\nContent-Length : 0\r\n\r\n",
    "HTTP/1.1 200 OK\r\nX: a\x01"
    "b\r\nContent-Length: 0\r\n\r\n",
    "SSH-2.0-OpenSSH_9.2\r\n\r\n",
    "\r\n\r\n\r\n",
};
// After a head that is in order, and all too late to be answered with an error. "s00" is how an answer's body begins.
constexpr std::string_view kBrokenBodies[] = {"xyz\r\n",
                                              "3\ns00\r\n0\r\n\r\n",
                                              "3\r\ns000\r\n0\r\n\r\n",
                                              "10000000000000000\r\n",
                                              "0\r\nbroken trailer\r\n\r\n",
                                              "-1\r\n\r\n"};

struct ReceiveInterrupter final : Cancellable {
  explicit ReceiveInterrupter(Socket& s) : socket(s) {}
  void Cancel(Error reason) override { socket.InterruptReceive(reason); }
  Socket& socket;
};

}  // namespace

DelegateManners DelegateManners::Bad() {
  DelegateManners manners;
  manners.closes_idle = 150;
  manners.dies = 40;
  manners.hangs = 10;
  manners.goes_down = 150;
  manners.garbage = 15;
  manners.surplus = 15;
  manners.greets = 15;
  manners.careless = 100;
  return manners;
}

struct SceneDelegate::Connection {
  Connection(SceneDelegate& d, int fd) : delegate(d), peer(d.world_, fd, d.address_.is_unix(), ErrorSource::kUpstream) {
    delegate.connections_.insert(this);
  }
  ~Connection() { delegate.connections_.erase(this); }

  SceneDelegate& delegate;
  SimHttpPeer peer;
  uint32_t answered_count = 0;
  bool out_of_step = false;
  bool lingers = false;  // At its end, so that what was sent is not destroyed by what was not read.
};

SceneDelegate::SceneDelegate(SimWorld& world, const Address& address, SceneBooks& books, const DelegateManners& manners)
    : world_(world), address_(address), books_(books), manners_(manners), tasks_(world.worker()) {
  Listen();
  if (world_.random().Chance(manners_.goes_down)) tasks_.Spawn(GoDown());
}

SceneDelegate::~SceneDelegate() = default;

void SceneDelegate::Listen() {
  const int fd = world_.ring().Listen(address_);
  listener_ = std::make_unique<Listener>(world_.worker(), fd, ListenerOptions(),
                                         [this](int accepted) { tasks_.Spawn(Serve(accepted)); });
  listener_->Start();
}

Task<void> SceneDelegate::Close() {
  while (tasks_.running_count() != 0) co_await tasks_.Join();
  co_await listener_->Close();
  // Who was accepted last.
  while (tasks_.running_count() != 0) co_await tasks_.Join();
}

// As a process that is killed and started again.
Task<void> SceneDelegate::GoDown() {
  co_await world_.worker().Sleep(world_.random().Below(300));
  world_.CountMisdeed();
  co_await listener_->Close();
  for (Connection* connection : connections_) {
    if (world_.random().Chance(500)) world_.ring().Reset(connection->peer.socket().fd());
    connection->peer.socket().Cancel(Error{ErrorCode::kCancelled});
  }
  co_await world_.worker().Sleep(world_.random().Below(2000));
  Listen();
}

bool SceneDelegate::Misdeed(uint32_t chance) {
  const bool happens = world_.random().Chance(chance);
  if (happens) world_.CountMisdeed();
  return happens;
}

// --- A connection ---

Task<void> SceneDelegate::Serve(int fd) {
  Connection connection(*this, fd);
  Socket& socket = connection.peer.socket();
  Deadline patience(world_.worker().timers(), socket, Error{ErrorCode::kTimeout});
  patience.ArmAfter(kPatienceMs);
  if (Misdeed(manners_.greets)) {
    const std::string unasked = Unasked(connection);
    static_cast<void>(co_await connection.peer.Write(unasked));
  }
  bool keep = true;
  while (keep) keep = co_await ServeOne(connection);
  patience.Disarm();
  if (connection.lingers) {
    co_await socket.LingerAndClose(1000, 1 << 20);
  } else {
    co_await socket.Close();
  }
}

Task<bool> SceneDelegate::ServeOne(Connection& connection) {
  SimRandom& random = world_.random();
  SimHead head;
  connection.lingers = false;
  const bool read = co_await ReadRequest(connection, head);
  if (!read) co_return false;
  const uint64_t id = SceneNumberIn(head.first_line);
  SceneRequest* request = books_.FindRequest(id);
  EXPECT_NE(request, nullptr) << "nobody made this request: " << head.text;
  if (request == nullptr) co_return false;
  EXPECT_EQ(head.first_line.substr(0, head.first_line.find(' ')), request->method);
  EXPECT_NE(head.Field("host"), "");
  ++request->heads_count;

  if (Misdeed(manners_.dies)) {
    if (random.Chance(500)) world_.ring().Reset(connection.peer.socket().fd());
    co_return false;
  }
  if (Misdeed(manners_.hangs)) {
    co_await Hang(connection);
    co_return false;
  }
  if (head.Field("upgrade") == kSceneProtocol && !random.Chance(manners_.refuses)) {
    co_await ServeTunnel(connection, id);
    co_return false;
  }
  bool early = random.Chance(manners_.early);
  if (head.Field("expect") == "100-continue") {
    const bool invited = co_await Invite(connection, early);
    if (!invited) co_return false;
  }
  if (!early) {
    const bool whole = co_await ReadBody(connection, head, id);
    if (!whole) co_return false;
  }
  if (random.Chance(manners_.pauses)) co_await world_.worker().Sleep(random.Below(50));
  const bool keep = co_await Answer(connection, id);
  if (!keep || !early) co_return keep;
  // The rest of the body, or what has come of it when the proxy gives up.
  const bool whole = co_await ReadBody(connection, head, id);
  co_return whole;
}

// The next head. False: there is none.
Task<bool> SceneDelegate::ReadRequest(Connection& connection, SimHead& head) {
  SimRandom& random = world_.random();
  ReceiveInterrupter interrupter(connection.peer.socket());
  Deadline idle(world_.worker().timers(), interrupter, Error{ErrorCode::kTimeout});
  if (connection.answered_count != 0 && random.Chance(manners_.closes_idle)) idle.ArmAfter(random.Between(1, 60));
  const SimRead got = co_await connection.peer.ReadHead(head, /*is_response=*/false);
  EXPECT_NE(got, SimRead::kMalformed) << "the proxy sent: " << head.text;
  if (got == SimRead::kDone) co_return true;
  if (idle.fired()) world_.CountMisdeed();
  if (idle.fired() && Misdeed(manners_.careless)) world_.ring().Reset(connection.peer.socket().fd());
  co_return false;
}

Task<bool> SceneDelegate::ReadBody(Connection& connection, const SimHead& head, uint64_t id) {
  SceneRequest& request = *books_.FindRequest(id);
  std::string body;
  std::string trailers;
  const SimRead got = co_await connection.peer.ReadBody(head, body, &trailers);
  EXPECT_NE(got, SimRead::kMalformed) << "the body of " << id;
  EXPECT_TRUE(IsSceneBody(SceneSide::kRequest, id, body)) << "foreign bytes in the request body of " << id;
  if (got != SimRead::kDone) co_return false;
  EXPECT_EQ(body.size(), request.body_bytes) << "a truncated request looks whole: " << id;
  if (!trailers.empty()) EXPECT_EQ(trailers, fmt::format("X-Request-Trailer: {}\r\n", id));
  ++request.bodies_count;
  co_return true;
}

// RFC 9110 §10.1.1, the server's side.
Task<bool> SceneDelegate::Invite(Connection& connection, bool& answer_instead) {
  SimRandom& random = world_.random();
  answer_instead = random.Chance(manners_.refuses);
  if (answer_instead || random.Chance(manners_.no_continue)) co_return true;
  if (random.Chance(manners_.pauses)) co_await world_.worker().Sleep(random.Below(50));
  const std::string invitation = "HTTP/1.1 100 Continue\r\n\r\n";
  const Result<void> sent = co_await connection.peer.Write(invitation);
  co_return sent.has_value();
}

// --- Tunnels ---

Task<void> SceneDelegate::ServeTunnel(Connection& connection, uint64_t id) {
  SimRandom& random = world_.random();
  SceneRequest& request = *books_.FindRequest(id);
  const size_t bytes_count = random.Chance(manners_.large) ? random.Below(20'000) : random.Below(600);
  const uint64_t number = books_.NewAnswer(
      {.request = id, .status = 101, .body_bytes = bytes_count, .out_of_step = connection.out_of_step});
  request.tunnel_down_bytes = bytes_count;
  const std::string head =
      fmt::format("HTTP/1.1 101 Switching\r\nConnection: upgrade\r\nUpgrade: {}\r\nX-Id: {}\r\nX-Answer: {}\r\n\r\n",
                  kSceneProtocol, id, number);
  const Result<void> switched = co_await connection.peer.Write(head);
  if (!switched) co_return;
  // Both directions at once.
  TaskScope writing(world_.worker());
  writing.Spawn(WriteTunnel(connection, SceneBody(SceneSide::kAnswer, number, bytes_count)));
  std::string received;
  co_await connection.peer.ReadToEnd(&received);
  request.tunnel_up_bytes = received.size();
  // One that misbehaves may have sent garbage behind its request; and who is out of step may be read as anything.
  if (request.innocent && !connection.out_of_step) {
    EXPECT_TRUE(IsSceneBody(SceneSide::kRequest, id, received))
        << "foreign bytes in the tunnel of " << id << request.Describe() << "\n"
        << received;
    EXPECT_LE(received.size(), request.tunnel_bytes) << id;
  }
  while (writing.running_count() != 0) co_await writing.Join();
  connection.lingers = true;
}

Task<void> SceneDelegate::WriteTunnel(Connection& connection, std::string bytes) {
  SimRandom& random = world_.random();
  const bool dies = Misdeed(manners_.dies);
  if (dies) bytes.resize(random.Below(bytes.size() + 1));
  const size_t pause_at = random.Below(bytes.size() + 1);
  Result<void> sent = co_await connection.peer.Write(std::string_view(bytes).substr(0, pause_at));
  if (random.Chance(manners_.pauses)) co_await world_.worker().Sleep(random.Below(300));
  if (sent) sent = co_await connection.peer.Write(std::string_view(bytes).substr(pause_at));
  if (sent && dies) world_.ring().Reset(connection.peer.socket().fd());
  if (!sent) connection.peer.socket().Cancel(sent.error());
}

Task<void> SceneDelegate::Hang(Connection& connection) {
  SimRandom& random = world_.random();
  if (random.Chance(500)) co_await world_.worker().Sleep(random.Below(20'000));
  co_await connection.peer.ReadToEnd();
}

// --- Answers ---

Task<bool> SceneDelegate::SendInterim(Connection& connection, uint64_t id) {
  SimRandom& random = world_.random();
  uint64_t count = random.Chance(manners_.interim) ? random.Between(1, random.Chance(100) ? 12 : 2) : 0;
  if (Misdeed(manners_.garbage)) count = random.Between(17, 40);
  for (uint64_t i = 0; i < count; ++i) {
    constexpr std::string_view kLines[] = {"103 Early Hints", "103 Early Hints", "102 Processing", "100 Continue"};
    const std::string head = fmt::format("HTTP/1.1 {}\r\nX-Id: {}\r\nX-Step: {}\r\nLink: </style.css>\r\n\r\n",
                                         random.Pick(kLines), id, connection.out_of_step ? 0 : 1);
    const Result<void> sent = co_await connection.peer.Write(head);
    if (!sent) co_return false;
  }
  co_return true;
}

// True: the connection stays.
Task<bool> SceneDelegate::Answer(Connection& connection, uint64_t id) {
  SimRandom& random = world_.random();
  SimHttpPeer& peer = connection.peer;
  const bool interim_sent = co_await SendInterim(connection, id);
  if (!interim_sent) co_return false;
  if (Misdeed(manners_.garbage)) {
    const std::string garbage(random.Pick(kBrokenAnswers));
    static_cast<void>(co_await peer.Write(garbage));
    connection.lingers = true;
    co_return false;
  }
  uint64_t number = 0;
  bool ends = false;
  std::string out = AnswerText(connection, id, number, ends);
  const size_t whole_bytes = out.size();
  const bool breaks_off = Misdeed(manners_.dies);
  const bool stops = Misdeed(manners_.hangs);
  if (breaks_off || stops) out.resize(random.Below(out.size()));
  const size_t pause_at = random.Chance(manners_.pauses) ? random.Below(out.size() + 1) : 0;
  Result<void> sent = co_await peer.Write(std::string_view(out).substr(0, pause_at));
  if (sent && pause_at != 0) co_await world_.worker().Sleep(random.Below(50));
  if (sent) sent = co_await peer.Write(std::string_view(out).substr(pause_at));
  const bool complete = sent && out.size() == whole_bytes;
  if (complete) books_.FindAnswer(number)->end_untold = false;
  ++connection.answered_count;
  if (sent && stops) {
    co_await Hang(connection);
    co_return false;
  }
  if (sent && breaks_off && random.Chance(500)) world_.ring().Reset(peer.socket().fd());
  connection.lingers = complete && !Misdeed(manners_.careless);
  co_return complete && !ends;
}

// An answer in full, `ends`: after which the connection does.
std::string SceneDelegate::AnswerText(Connection& connection, uint64_t id, uint64_t& number, bool& ends) {
  SimRandom& random = world_.random();
  const std::string& method = books_.FindRequest(id)->method;
  const int statuses[] = {200, 200, 200, 200, 201, 204, 304, 404, 409, 429, 500, 503};
  SceneAnswer answer{.request = id, .status = random.Pick(statuses), .out_of_step = connection.out_of_step};
  answer.bodiless = method == "HEAD" || answer.status == 204 || answer.status == 304;
  const bool until_close = !answer.bodiless && random.Chance(manners_.until_close);
  answer.end_untold = until_close;  // Until it has been sent in full.
  answer.body_bytes = random.Chance(manners_.large) ? random.Below(20'000) : random.Below(600);
  if (answer.status == 204) answer.body_bytes = 0;
  number = books_.NewAnswer(answer);
  ends = until_close || random.Chance(manners_.says_close);

  std::string head = fmt::format("HTTP/1.1 {} Some Reason\r\nX-Id: {}\r\nX-Answer: {}\r\n", answer.status, id, number);
  // Closing without a word is what an idle delegate does, only at once.
  const bool wordless = (ends && until_close && random.Chance(300)) || Misdeed(manners_.closes_idle / 4);
  if (ends && !wordless) head += "Connection: close\r\n";
  ends = ends || wordless;
  const std::string body = SceneBody(SceneSide::kAnswer, number, answer.body_bytes);
  const bool chunked = !until_close && answer.status != 204 && random.Chance(500);
  if (answer.status == 304 && random.Chance(500)) return head + "\r\n";
  if (chunked) head += "Transfer-Encoding: chunked\r\n";
  if (!chunked && !until_close && answer.status != 204) head += fmt::format("Content-Length: {}\r\n", body.size());
  std::string out = head + "\r\n";
  if (!answer.bodiless && chunked && Misdeed(manners_.garbage)) {
    ends = true;
    books_.FindAnswer(number)->body_bytes = UINT64_MAX;  // Never whole.
    return out + std::string(random.Pick(kBrokenBodies));
  }
  const std::string trailers = random.Chance(200) ? fmt::format("X-Answer-Trailer: {}\r\n", number) : "";
  if (!answer.bodiless) out += chunked ? SimChunked(random, body, trailers) : body;
  const size_t answer_bytes = out.size();
  if (!until_close && Misdeed(manners_.surplus)) out += answer.bodiless && !body.empty() ? body : Unasked(connection);
  connection.out_of_step |= out.size() != answer_bytes;
  return out;
}

std::string SceneDelegate::Unasked(Connection& connection) {
  SimRandom& random = world_.random();
  connection.out_of_step = true;
  if (random.Chance(300)) return "surplus";
  const uint64_t number = books_.NewAnswer({.request = 0, .status = 200, .body_bytes = 40, .out_of_step = true});
  return fmt::format("HTTP/1.1 200 OK\r\nX-Id: 0\r\nX-Answer: {}\r\nContent-Length: 40\r\n\r\n{}", number,
                     SceneBody(SceneSide::kAnswer, number, 40));
}

}  // namespace dpa
