// SceneBooks are what is known of one simulated scene: what its clients asked, what its delegates answered, and what
// the access log says about it. Clients and delegates write into them and check against them what they read; at the end
// they have to balance.
//
// Every request has a number, which stands in its target (/r/NUMBER); every answer that a delegate begins has one as
// well, which stands in its X-Answer. Bodies consist of cells that name the number and the place in the body, so that a
// byte of somebody else's, or one too many or too few in the middle, cannot go unnoticed.

#pragma once

#include <cstdint>
#include <map>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "http/access_record.h"

namespace dpa {

enum class SceneSide : char { kRequest = 'q', kAnswer = 's' };

// The body of `number`, `count` bytes long.
std::string SceneBody(SceneSide side, uint64_t number, size_t count);
// Whether `bytes` are the beginning of that body.
bool IsSceneBody(SceneSide side, uint64_t number, std::string_view bytes);

struct SceneRequest {
  std::string method;
  size_t body_bytes = 0;
  bool http10 = false;
  bool expects = false;     // `Expect: 100-continue`.
  bool upgrades = false;    // To a tunnel,
  size_t tunnel_bytes = 0;  // into which its client sends these.
  // Its client does all that a client should on that connection, and stays until it is answered.
  bool innocent = true;
  // The connection was closed, as announced, before it was this one's turn.
  bool not_reached = false;
  // Delegates.
  uint32_t heads_count = 0;        // Times that one read its head,
  uint32_t bodies_count = 0;       // and all of its body.
  uint64_t tunnel_up_bytes = 0;    // What came out of the tunnel there,
  uint64_t tunnel_down_bytes = 0;  // and what was sent into it.
  // Its client.
  uint32_t answers_count = 0;  // Final and complete.
  int status = 0;
  std::string word;           // The reason, if the answer was our own.
  uint64_t answer = 0;        // The answer's number, if it was a delegate's.
  uint64_t answer_bytes = 0;  // Of its body.
  // The access log.
  uint32_t records_count = 0;
  int recorded_status = 0;
  Reason recorded_reason = Reason::kOk;
  uint32_t retries_count = 0;
  uint64_t recorded_answer_bytes = 0;

  // All of it, for failures.
  std::string Describe() const;
};

struct SceneAnswer {
  uint64_t request = 0;  // 0: nobody asked for it.
  int status = 0;
  size_t body_bytes = 0;
  bool bodiless = false;
  // Until-close, and broken off by an orderly end: nobody can tell.
  bool end_untold = false;
  // Bytes that nobody asked for went before it on its connection: whose answer is whose is a matter of luck from there
  // on. What is sent ahead can only be noticed if it arrives before the next request leaves.
  bool out_of_step = false;
  uint32_t taken_count = 0;
};

// What goes wrong in a scene on purpose, and so what its records may give as reasons.
struct SceneCauses {
  bool network = false;
  bool clients = false;
  bool delegates = false;   // They break off, break HTTP, hang, or go down.
  bool idle_close = false;  // They close connections while idle.
  bool short_timeouts = false;
  bool pool_limits = false;
  bool limits = false;  // Of connections, and of requests in flight.
  bool drain = false;
  bool ends_busy = false;  // Clients that have left are still being served when the end begins.
};

class SceneBooks final : public AccessLog {
 public:
  SceneRequest& NewRequest(uint64_t id) { return requests_[id]; }
  // nullptr: no such request was made.
  SceneRequest* FindRequest(uint64_t id);
  // Numbers begin at 1.
  uint64_t NewAnswer(SceneAnswer answer);
  SceneAnswer* FindAnswer(uint64_t number);

  void Write(const AccessRecord& record) override;

  // REQUIRES: everything has ended. Whatever happened, this holds.
  void Balance(const SceneCauses& causes) const;

  const std::map<uint64_t, SceneRequest>& requests() const { return requests_; }
  uint64_t records_count() const { return records_count_; }
  // Requests that were answered on a connection that had been out of step before.
  uint64_t out_of_step_count() const;
  // By status and reason, as the metrics count them.
  const std::map<std::pair<int, Reason>, uint64_t>& record_counts() const { return record_counts_; }

 private:
  std::map<uint64_t, SceneRequest> requests_;
  std::vector<SceneAnswer> answers_;
  uint64_t records_count_ = 0;
  std::map<std::pair<int, Reason>, uint64_t> record_counts_;
  // Of heads that never became whole or were refused.
  std::map<std::pair<int, std::string>, uint64_t> nameless_;
  std::set<uint64_t> exchange_ids_;
};

// What scenes upgrade to.
inline constexpr std::string_view kSceneProtocol = "scene";
// In the targets of requests that have to be refused, and of those hidden inside of them.
inline constexpr uint64_t kSceneRefused = 7'777'777;

// The number in a target "…/r/NUMBER…", 0 if there is none.
uint64_t SceneNumberIn(std::string_view target);

}  // namespace dpa
