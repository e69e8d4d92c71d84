// Goal: a host takes every line that a real plugin prints and refuses all others in words. Method: tables.

#include "grpc_bridge/handshake.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace dpa {
namespace {

using ::testing::HasSubstr;

TEST(Handshake, TakesWhatRealPluginsPrint) {
  const struct {
    const char* line;
    const char* address;
  } rows[] = {
      {"1|2|unix|/run/x/plugin3845458852|grpc|", "unix:/run/x/plugin3845458852"},  // Go.
      {"1|2|unix|/run/x/plugin3845458852|grpc|\r", "unix:/run/x/plugin3845458852"},
      {"  1|2|tcp|127.0.0.1:41234|grpc  ", "127.0.0.1:41234"},  // Rust: five fields.
      {"1|2|tcp|:41234|grpc", "127.0.0.1:41234"},               // A standalone plugin's locator.
      {"1|2|tcp|[::1]:41234|grpc", "[::1]:41234"},
      {"1|2|unix|/s|grpc||true", "unix:/s"},  // With the multiplex field.
  };
  for (const auto& row : rows) {
    const auto handshake = ParseHandshake(row.line);
    ASSERT_TRUE(handshake.has_value()) << row.line << ": " << handshake.error();
    EXPECT_EQ(handshake->address, row.address);
  }
}

TEST(Handshake, RefusesEverythingElseInWords) {
  const std::string certificate(200, 'A');
  const std::string long_path = "1|2|unix|/" + std::string(107, 'x') + "|grpc|";
  const std::pair<std::string, const char*> rows[] = {
      {"", "not a handshake"},
      {"Hello", "not a handshake: \"Hello\""},
      {"1|2|unix", "not a handshake"},
      {std::string("\0\x01\xff|", 4), "not a handshake"},
      {"2|2|unix|/s|grpc|", "core protocol \"2\""},
      {"1|3|unix|/s|grpc|", "plugin protocol \"3\""},
      {"1|2|unix|/s|netrpc|", "\"netrpc\" instead of grpc"},
      {"1|2|unix|/s", "\"netrpc\" instead of grpc"},
      {"1|2|pipe|/s|grpc|", "network \"pipe\""},
      {"1|2|unix|s|grpc|", "not an absolute path"},
      {long_path, "108 bytes"},
      {"1|2|tcp|127.0.0.1|grpc|", "expected HOST:PORT"},
      {"1|2|tcp|127.0.0.1:0|grpc|", "expected HOST:PORT"},
      {"1|2|tcp|127.0.0.1:70000|grpc|", "expected HOST:PORT"},
      {"1|2|unix|/s|grpc|" + certificate, "demands TLS"},
  };
  for (const auto& [line, words] : rows) {
    const auto handshake = ParseHandshake(line);
    ASSERT_FALSE(handshake.has_value()) << line;
    EXPECT_THAT(handshake.error(), HasSubstr(words));
  }
}

TEST(Handshake, IsReadFromPiecesOfAnySize) {
  const std::string_view output = "1|2|unix|/run/plugin1|grpc|\nstill here\n";
  for (size_t piece = 1; piece <= output.size(); ++piece) {
    HandshakeReader reader;
    auto state = HandshakeReader::State::kWaiting;
    for (size_t at = 0; at < output.size(); at += piece) state = reader.Feed(output.substr(at, piece));
    EXPECT_EQ(state, HandshakeReader::State::kComplete);
    EXPECT_EQ(reader.line(), "1|2|unix|/run/plugin1|grpc|");
  }
}

TEST(Handshake, LineWithoutEndIsGivenUpAtTheLimit) {
  HandshakeReader reader;
  const std::string piece(1000, 'x');
  size_t fed = 0;
  while (reader.Feed(piece) == HandshakeReader::State::kWaiting) fed += piece.size();
  EXPECT_LE(fed, kHandshakeBytesMax);
  EXPECT_EQ(reader.Feed("\n"), HandshakeReader::State::kTooLong);
}

}  // namespace
}  // namespace dpa
