// SimHttpPeer reads and writes HTTP/1.1 for the scripts of simulated runs: a reader of its own, apart from the
// product's parser, that takes only what is well-formed and says so when something is not.

#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "core/result.h"
#include "core/socket.h"
#include "core/task.h"
#include "tests/sim/sim_world.h"

namespace dpa {

enum class SimFraming : uint8_t { kNone, kLength, kChunked, kUntilClose };

struct SimHead {
  std::string first_line;
  std::string text;  // All of it.
  SimFraming framing = SimFraming::kNone;
  uint64_t length = 0;

  // The value of a field, "" if it is not there. `name` in lower case.
  std::string Field(std::string_view name) const;
};

enum class SimRead : uint8_t {
  kDone,
  kEnded,      // The connection ended or broke first.
  kMalformed,  // What came is no HTTP.
};

class SimHttpPeer {
 public:
  // Takes over `fd`.
  SimHttpPeer(SimWorld& world, int fd, bool is_unix, ErrorSource source);

  Socket& socket() { return socket_; }

  // A whole head; kEnded with no byte read is an orderly end.
  Task<SimRead> ReadHead(SimHead& head, bool is_response, std::string_view method = "");
  // The whole body of `head`, appended to `body`, which has what came before a failure as well.
  Task<SimRead> ReadBody(const SimHead& head, std::string& body);
  bool has_unread() const { return !read_.empty(); }

  // Sends `bytes` in one to four parts, with pauses now and then.
  Task<Result<void>> Write(std::string_view bytes);

 private:
  Task<bool> Fill();
  Task<SimRead> ReadChunks(std::string& body);
  Task<SimRead> ReadLine(std::string& line);

  SimWorld& world_;
  Socket socket_;
  std::string read_;
};

// `bytes` as chunks of random sizes, with the last one.
std::string SimChunked(SimRandom& random, std::string_view bytes);
// The bytes that belong to number `id`, as many as wanted; those of different numbers differ early.
std::string SimPattern(uint64_t id, size_t count);

}  // namespace dpa
