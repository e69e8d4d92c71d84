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
  // The same as a number, 0 if there is none.
  uint64_t Number(std::string_view name) const;
  // Of a response.
  int status() const;
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
  // The whole body of `head`, appended to `body`, which has what came before a failure as well. An until-close body is
  // whole when the connection ends in good order. `trailers`, if given, gets the lines of the trailer section.
  Task<SimRead> ReadBody(const SimHead& head, std::string& body, std::string* trailers = nullptr);
  // Waits for the end of the connection. Returns the count of bytes that came before it, which `bytes`, if given, gets.
  Task<uint64_t> ReadToEnd(std::string* bytes = nullptr);
  bool has_unread() const { return !read_.empty(); }
  // The peer has ended its side in good order. An error is told once: to a send, if that comes first.
  bool ended_cleanly() const { return ended_cleanly_ && !send_failed_; }

  // Sends `bytes` in one to four parts, with pauses now and then.
  Task<Result<void>> Write(std::string_view bytes);

 private:
  Task<bool> Fill();
  Task<SimRead> ReadChunks(std::string& body, std::string* trailers);
  Task<SimRead> ReadLine(std::string& line);

  SimWorld& world_;
  Socket socket_;
  std::string read_;
  bool ended_cleanly_ = false;
  bool send_failed_ = false;
};

// `bytes` as chunks of random sizes, with the last one and `trailers` (whole lines); some have extensions.
std::string SimChunked(SimRandom& random, std::string_view bytes, std::string_view trailers = "");

}  // namespace dpa
