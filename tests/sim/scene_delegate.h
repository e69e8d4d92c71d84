// SceneDelegate is a scripted delegate of a simulated scene: it reads requests with a reader of its own, checks them
// against the books, and answers in all the ways that RFC 9112 allows and, as its manners are, in some that it does
// not.

#pragma once

#include <cstdint>
#include <memory>
#include <set>
#include <string>

#include "core/listener.h"
#include "tests/sim/scene_books.h"
#include "tests/sim/sim_http.h"

namespace dpa {

// Chances out of 1000, at each opportunity. What a delegate may do, and the proxy has to cope with without loss:
struct DelegateManners {
  uint32_t says_close = 100;   // `Connection: close`, and does.
  uint32_t until_close = 50;   // A body without length.
  uint32_t early = 60;         // The whole answer before the request's body has been read.
  uint32_t interim = 120;      // 1xx before the answer.
  uint32_t pauses = 200;       // Inside and before an answer.
  uint32_t large = 60;         // A body of up to 20,000 bytes.
  uint32_t no_continue = 100;  // Does not say `100 Continue`, but waits for the body.
  uint32_t refuses = 100;      // A final answer to `Expect`, instead of the invitation; or to `Upgrade`.
  // What it may do, and what costs requests:
  uint32_t closes_idle = 0;  // Unannounced, while idle.
  uint32_t dies = 0;         // Breaks off, before or inside an answer, by FIN or reset.
  uint32_t hangs = 0;        // Never answers, or stops inside an answer.
  uint32_t goes_down = 0;    // Once in the scene: its listener closes, its connections break; it comes back.
  // What it may not:
  uint32_t garbage = 0;   // Answers that break HTTP.
  uint32_t surplus = 0;   // Behind an answer: bytes, or whole answers, that nobody asked for.
  uint32_t greets = 0;    // The same as the first thing on a connection.
  uint32_t careless = 0;  // Closes with unread input, so that what it sent may be lost.

  static DelegateManners Good() { return {}; }
  static DelegateManners Bad();
};

class SceneDelegate {
 public:
  // Listens at once. All outlive it.
  SceneDelegate(SimWorld& world, const Address& address, SceneBooks& books, const DelegateManners& manners);
  ~SceneDelegate();

  // REQUIRES: its clients are gone or going.
  Task<void> Close();

 private:
  struct Connection;

  Task<void> Serve(int fd);
  Task<void> GoDown();
  Task<bool> ServeOne(Connection& connection);
  Task<bool> ReadRequest(Connection& connection, SimHead& head);
  Task<bool> ReadBody(Connection& connection, const SimHead& head, uint64_t id);
  Task<bool> Invite(Connection& connection, bool& answer_instead);
  Task<bool> Answer(Connection& connection, uint64_t id);
  Task<void> ServeTunnel(Connection& connection, uint64_t id);
  Task<void> WriteTunnel(Connection& connection, std::string bytes);
  Task<bool> SendInterim(Connection& connection, uint64_t id);
  Task<void> Hang(Connection& connection);
  std::string AnswerText(Connection& connection, uint64_t id, uint64_t& number, bool& ends);
  std::string Unasked(Connection& connection);
  bool Misdeed(uint32_t chance);
  void Listen();

  SimWorld& world_;
  const Address address_;
  SceneBooks& books_;
  const DelegateManners& manners_;
  TaskScope tasks_;
  std::unique_ptr<Listener> listener_;
  std::set<Connection*> connections_;
};

}  // namespace dpa
