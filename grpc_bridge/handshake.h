// The go-plugin handshake: the one line that a plugin prints on stdout once it listens.
//
//   CORE|APP|NETWORK|ADDRESS|PROTOCOL|SERVERCERT[|MUX]\n          1|2|unix|/run/x/plugin123|grpc|
//
// Rules as go-plugin's own host applies them: the first line counts, white space around it is dropped, core version 1,
// app version 2, network unix or tcp, protocol grpc. Plugins in Go end with an empty sixth field, those in Rust have
// five.

#pragma once

#include <cstddef>
#include <expected>
#include <string>
#include <string_view>

namespace dpa {

// Length of the first line, as go-plugin limits it.
inline constexpr size_t kHandshakeBytesMax = 64 * 1024;

struct Handshake {
  std::string address;  // "unix:PATH" or "HOST:PORT".
};

// Errors: one sentence that quotes what was printed.
std::expected<Handshake, std::string> ParseHandshake(std::string_view line);

// Collects the first line out of pieces.
class HandshakeReader {
 public:
  enum class State { kWaiting, kComplete, kTooLong };

  // Takes what was read from stdout; what follows the line is dropped.
  State Feed(std::string_view bytes);
  // What came so far, without the line end.
  const std::string& line() const { return line_; }

 private:
  std::string line_;
  State state_ = State::kWaiting;
};

}  // namespace dpa
