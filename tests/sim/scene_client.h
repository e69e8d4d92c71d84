// SceneClient is a scripted client of a simulated scene: it opens connections, sends requests in all framings, alone or
// pipelined, reads the answers with a reader of its own and checks them against the books. A bad one does, once on each
// connection, what no client should.

#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "tests/sim/scene_books.h"
#include "tests/sim/sim_http.h"

namespace dpa {

struct ClientManners {
  uint32_t bad = 0;    // Chance out of 1000 of a misdeed, for each connection.
  bool plain = false;  // HTTP/1.1, requests without bodies one at a time, and POSTs.
  // Between rounds; with a minimum of 0 it does not always think.
  uint32_t think_ms_min = 0;
  uint32_t think_ms_max = 60;
};

class SceneClient {
 public:
  // Its requests are numbered from `first_id` on. All outlive it.
  SceneClient(SimWorld& world, const Address& address, SceneBooks& books, const ClientManners& manners,
              uint64_t first_id);

  Task<void> Run();

 private:
  enum class Misdeed : uint8_t {
    kNone,
    kLeaves,      // At any moment, by FIN
    kResets,      // or by reset.
    kCuts,        // Ends inside a request.
    kStalls,      // The same, and waits.
    kGarbage,     // Something after the requests that is none.
    kHalfCloses,  // Ends its sending side before it has its answers.
    kReadsLate,   // Does not read for half a minute and more.
  };
  struct Planned {
    uint64_t id = 0;
    std::string head;
    std::string body;
  };
  struct Visit;

  Task<void> Connection();
  Task<bool> Round(Visit& visit);
  std::vector<Planned> Plan(Visit& visit);
  Planned PlanRequest(Visit& visit, bool alone);
  Task<void> WriteOut(Visit& visit, const std::vector<Planned>& requests);
  Task<bool> AwaitInvitation(Visit& visit);
  Task<void> ReadTunnel(Visit& visit, uint64_t id, const SimHead& head);
  Task<void> WriteTunnel(Visit& visit, uint64_t id);
  Task<bool> ReadAnswer(Visit& visit, uint64_t id);
  Task<bool> ReadFinalHead(Visit& visit, uint64_t id, SimHead& head);
  void CheckOwn(const SimHead& head, const std::string& body, SceneRequest& request);
  void CheckDelegates(const SimHead& head, const std::string& body, const std::string& trailers, bool whole,
                      SceneRequest& request, uint64_t id);
  Task<void> ExpectTheEnd(Visit& visit);

  SimWorld& world_;
  const Address& address_;
  SceneBooks& books_;
  const ClientManners& manners_;
  uint64_t next_id_;
  TaskScope tasks_;
};

}  // namespace dpa
