#include "tests/sim/scene_books.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <charconv>

namespace dpa {
namespace {

constexpr size_t kCellBytes = 16;

// "s00002a@0000007.": by hand, since most of the time of a run would go into formatting it.
std::array<char, kCellBytes> Cell(SceneSide side, uint64_t number, size_t index) {
  constexpr std::string_view kDigits = "0123456789abcdef";
  std::array<char, kCellBytes> cell;
  cell[0] = static_cast<char>(side);
  for (size_t i = 6; i >= 1; --i, number >>= 4) cell[i] = kDigits[number & 15];
  cell[7] = '@';
  for (size_t i = 14; i >= 8; --i, index >>= 4) cell[i] = kDigits[index & 15];
  cell[15] = '.';
  return cell;
}

// Whether `reason` is one that a scene with these causes may give.
bool IsPlausible(Reason reason, const SceneCauses& causes) {
  const bool slow = causes.network || causes.short_timeouts;
  switch (reason) {
    case Reason::kOk:
      return true;
    case Reason::kBadRequest:
    case Reason::kHeaderTooLarge:
    case Reason::kTargetTooLong:
    case Reason::kBodyTooLarge:
    case Reason::kUnsupportedCoding:
    case Reason::kUnsupportedVersion:
    case Reason::kMethodNotAllowed:
      return causes.clients;
    case Reason::kHeaderTimeout:
    case Reason::kBodyTimeout:
    case Reason::kClientWriteTimeout:
      return causes.clients || slow;
    case Reason::kClientClosed:
      return causes.clients || causes.network;
    case Reason::kConnectionLimit:
    case Reason::kOverloaded:
      return causes.limits;
    case Reason::kOutOfDescriptors:
      return causes.network;
    case Reason::kShuttingDown:
      return causes.drain || causes.ends_busy;
    case Reason::kDelegateRefused:
    case Reason::kDelegateTruncated:
      return causes.delegates || causes.network;
    case Reason::kDelegateUnreachable:
      return causes.network;
    case Reason::kDelegateConnectTimeout:
    case Reason::kDelegateSendTimeout:
    case Reason::kDelegateTimeout:
    case Reason::kDelegateRequestTimeout:
    case Reason::kDelegateBodyTimeout:
      return causes.delegates || slow;
    case Reason::kDelegateReset:
    case Reason::kDelegateClosedIdle:
      return causes.delegates || causes.idle_close || causes.network;
    case Reason::kDelegateMalformed:
      return causes.delegates;
    case Reason::kTunnelLimit:
      return causes.pool_limits;
    case Reason::kTunnelIdleTimeout:
      return causes.short_timeouts;
    // Also what a unix listener is called whose backlog stays full.
    case Reason::kDelegatePoolFull:
    case Reason::kDelegateQueueTimeout:
      return causes.pool_limits || slow;
    default:
      return false;
  }
}

bool IsRepeatable(std::string_view method) { return method != "POST" && method != "PATCH"; }

}  // namespace

// --- Bodies ---

std::string SceneBody(SceneSide side, uint64_t number, size_t count) {
  std::string out;
  out.reserve(count + kCellBytes);
  for (size_t index = 0; out.size() < count; ++index) {
    const std::array<char, kCellBytes> cell = Cell(side, number, index);
    out.append(cell.data(), cell.size());
  }
  out.resize(count);
  return out;
}

bool IsSceneBody(SceneSide side, uint64_t number, std::string_view bytes) {
  for (size_t index = 0; !bytes.empty(); ++index) {
    const std::array<char, kCellBytes> cell = Cell(side, number, index);
    const size_t count = std::min(bytes.size(), cell.size());
    if (bytes.substr(0, count) != std::string_view(cell.data(), count)) return false;
    bytes.remove_prefix(count);
  }
  return true;
}

uint64_t SceneNumberIn(std::string_view target) {
  const size_t at = target.find("/r/");
  uint64_t number = 0;
  if (at != std::string_view::npos) std::from_chars(target.data() + at + 3, target.data() + target.size(), number);
  return number;
}

// --- Writing ---

std::string SceneRequest::Describe() const {
  return fmt::format(
      " {}{}{}{}{} body={} heads={} bodies={} answers={} status={} {} answer={} bytes={} records={} recorded={} {} "
      "retries={} recorded_bytes={}",
      method, http10 ? " HTTP/1.0" : "", expects ? " expects" : "", upgrades ? " upgrades" : "",
      innocent ? "" : " misbehaves", body_bytes, heads_count, bodies_count, answers_count, status, word, answer,
      answer_bytes, records_count, recorded_status, ToString(recorded_reason), retries_count, recorded_answer_bytes);
}

SceneRequest* SceneBooks::FindRequest(uint64_t id) {
  const auto found = requests_.find(id);
  return found == requests_.end() ? nullptr : &found->second;
}

uint64_t SceneBooks::NewAnswer(SceneAnswer answer) {
  answers_.push_back(answer);
  return answers_.size();
}

SceneAnswer* SceneBooks::FindAnswer(uint64_t number) {
  return number == 0 || number > answers_.size() ? nullptr : &answers_[number - 1];
}

uint64_t SceneBooks::out_of_step_count() const {
  return static_cast<uint64_t>(std::count_if(answers_.begin(), answers_.end(), [](const SceneAnswer& answer) {
    return answer.request != 0 && answer.out_of_step;
  }));
}

void SceneBooks::Write(const AccessRecord& record) {
  ++records_count_;
  ++record_counts_[{record.status, record.reason}];
  EXPECT_TRUE(exchange_ids_.insert(record.exchange_id).second) << "one exchange is recorded twice";
  EXPECT_LE(record.started_ns, record.finished_ns);
  if (record.head_ns != 0) {
    EXPECT_LE(record.started_ns, record.head_ns);
    EXPECT_LE(record.head_ns, record.finished_ns);
  }
  EXPECT_NE(record.status, 0) << ToString(record.reason);
  // A head that is not whole may be cut off inside its target.
  const uint64_t id = record.head_ns != 0 ? SceneNumberIn(record.target) : 0;
  SceneRequest* request = FindRequest(id);
  if (request == nullptr) {
    EXPECT_TRUE(id == 0 || id == kSceneRefused) << "nobody asked for " << record.target;
    if (id == kSceneRefused) EXPECT_NE(record.reason, Reason::kOk) << record.method << ' ' << record.target;
    ++nameless_[{record.status, std::string(ToString(record.reason))}];
    return;
  }
  EXPECT_EQ(record.method, request->method);
  if (!request->upgrades) EXPECT_LE(record.request_body_bytes, request->body_bytes);
  ++request->records_count;
  request->recorded_status = record.status;
  request->recorded_reason = record.reason;
  request->retries_count = record.retries_count;
  request->recorded_answer_bytes = record.response_body_bytes;
}

// --- Balancing ---

void SceneBooks::Balance(const SceneCauses& causes) const {
  for (const auto& [key, count] : record_counts_) {
    EXPECT_TRUE(IsPlausible(key.second, causes)) << count << " times " << ToString(key.second) << ' ' << key.first;
  }
  // Own answers of which no record has the whole head.
  std::map<std::pair<int, std::string>, uint64_t> unrecorded;
  for (const auto& [id, request] : requests_) {
    const std::string about = fmt::format("{}{}", id, request.Describe());
    EXPECT_LE(request.answers_count, 1u) << about;
    EXPECT_LE(request.records_count, 1u) << about;
    if (!IsRepeatable(request.method)) {
      EXPECT_LE(request.heads_count, 1u) << "executed more than once: " << about;
    }
    EXPECT_LE(request.heads_count, 2u) << about;
    if (request.heads_count != 0) EXPECT_EQ(request.records_count, 1u) << about;
    if (request.records_count != 0) {
      EXPECT_LE(request.heads_count, request.retries_count + 1) << about;
      if (request.innocent && !causes.network && !causes.short_timeouts && !causes.drain) {
        EXPECT_NE(SourceOf(request.recorded_reason), ErrorSource::kDownstream) << "an innocent is blamed: " << about;
      }
    }
    if (request.answers_count == 0) continue;
    if (request.status == 101) {
      EXPECT_EQ(request.recorded_status, 101) << about;
      const bool calm = !causes.network && !causes.delegates && !causes.short_timeouts && !causes.drain;
      if (!calm || !request.innocent) continue;
      EXPECT_EQ(request.tunnel_up_bytes, request.tunnel_bytes) << "lost in a tunnel: " << about;
      EXPECT_EQ(request.answer_bytes, request.tunnel_down_bytes) << "lost in a tunnel: " << about;
      EXPECT_EQ(request.recorded_reason, Reason::kOk) << about;
      continue;
    }
    if (request.records_count == 0) {
      EXPECT_FALSE(request.word.empty()) << about;
      if (request.word != "?") ++unrecorded[{request.status, request.word}];
      continue;
    }
    EXPECT_EQ(request.recorded_status, request.status) << about;
    if (request.method != "HEAD") {  // Whose own errors have no body to say it in.
      EXPECT_EQ(ToString(request.recorded_reason), request.word.empty() ? "ok" : request.word) << about;
    }
    if (request.word.empty()) EXPECT_EQ(request.recorded_answer_bytes, request.answer_bytes) << about;
  }
  for (const auto& [key, count] : unrecorded) {
    const auto found = nameless_.find(key);
    const uint64_t recorded = found == nameless_.end() ? 0 : found->second;
    EXPECT_LE(count, recorded) << "answered and not recorded: " << key.first << ' ' << key.second;
  }
}

}  // namespace dpa
