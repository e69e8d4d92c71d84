#include "tests/sim/sim_http.h"

#include <fmt/format.h>

#include <algorithm>
#include <cctype>
#include <charconv>

namespace dpa {
namespace {

constexpr size_t kHeadBytesMax = 64 * 1024;

std::string Lower(std::string_view text) {
  std::string out(text);
  for (char& c : out) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  return out;
}

bool ParseNumber(std::string_view text, int base, uint64_t& number) {
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number, base);
  return error == std::errc() && end == text.data() + text.size();
}

// Fills in the framing that the head declares (RFC 9112 §6.3). False: contradictory.
bool TakeFraming(SimHead& head, bool is_response, std::string_view method) {
  const std::string length = head.Field("content-length");
  const std::string coding = head.Field("transfer-encoding");
  if (!length.empty() && !coding.empty()) return false;
  if (is_response) {
    const std::string_view status = std::string_view(head.first_line).substr(9, 3);
    if (method == "HEAD" || status.starts_with('1') || status == "204" || status == "304") return true;
    head.framing = SimFraming::kUntilClose;
  }
  if (!coding.empty()) {
    head.framing = SimFraming::kChunked;
    return Lower(coding) == "chunked";
  }
  if (length.empty()) return true;
  head.framing = SimFraming::kLength;
  return ParseNumber(length, 10, head.length);
}

}  // namespace

std::string SimHead::Field(std::string_view name) const {
  size_t at = text.find("\r\n");
  while (at != std::string::npos && at + 2 < text.size()) {
    const size_t begin = at + 2;
    at = text.find("\r\n", begin);
    const std::string_view line = std::string_view(text).substr(begin, at - begin);
    const size_t colon = line.find(':');
    if (colon == std::string_view::npos || Lower(line.substr(0, colon)) != name) continue;
    std::string_view value = line.substr(colon + 1);
    while (value.starts_with(' ')) value.remove_prefix(1);
    while (value.ends_with(' ')) value.remove_suffix(1);
    return std::string(value);
  }
  return {};
}

uint64_t SimHead::Number(std::string_view name) const {
  uint64_t number = 0;
  return ParseNumber(Field(name), 10, number) ? number : 0;
}

int SimHead::status() const {
  uint64_t number = 0;
  return ParseNumber(std::string_view(first_line).substr(9, 3), 10, number) ? static_cast<int>(number) : 0;
}

SimHttpPeer::SimHttpPeer(SimWorld& world, int fd, bool is_unix, ErrorSource source)
    : world_(world), socket_(world.worker(), fd, is_unix, source) {}

Task<bool> SimHttpPeer::Fill() {
  Result<BufferLease> lease = co_await socket_.Receive();
  if (!lease) ended_cleanly_ = lease.error().code == ErrorCode::kClosed;
  if (!lease) co_return false;
  read_.append(lease->data(), lease->size());
  co_return true;
}

Task<SimRead> SimHttpPeer::ReadHead(SimHead& head, bool is_response, std::string_view method) {
  size_t end = 0;
  while ((end = read_.find("\r\n\r\n")) == std::string::npos) {
    if (read_.size() > kHeadBytesMax) co_return SimRead::kMalformed;
    const bool more = co_await Fill();
    if (!more) co_return SimRead::kEnded;
  }
  head = SimHead{};
  head.text = read_.substr(0, end + 2);
  head.first_line = head.text.substr(0, head.text.find("\r\n"));
  read_.erase(0, end + 4);
  const bool sane = is_response ? head.first_line.starts_with("HTTP/1.1 ") && head.first_line.size() >= 12
                                : head.first_line.ends_with(" HTTP/1.1");
  co_return sane&& TakeFraming(head, is_response, method) ? SimRead::kDone : SimRead::kMalformed;
}

Task<SimRead> SimHttpPeer::ReadLine(std::string& line) {
  size_t end = 0;
  while ((end = read_.find("\r\n")) == std::string::npos) {
    const bool more = co_await Fill();
    if (!more) co_return SimRead::kEnded;
  }
  line = read_.substr(0, end);
  read_.erase(0, end + 2);
  co_return SimRead::kDone;
}

Task<SimRead> SimHttpPeer::ReadChunks(std::string& body, std::string* trailers) {
  for (;;) {
    std::string line;
    SimRead got = co_await ReadLine(line);
    if (got != SimRead::kDone) co_return got;
    uint64_t size = 0;
    // Extensions end at us (RFC 9112 §7.1.1): nobody here may see one.
    if (!ParseNumber(line, 16, size)) co_return SimRead::kMalformed;
    if (size == 0) break;
    while (size != 0) {
      const size_t taken = std::min<size_t>(size, read_.size());
      body.append(read_, 0, taken);
      read_.erase(0, taken);
      size -= taken;
      if (size == 0) break;
      const bool more = co_await Fill();
      if (!more) co_return SimRead::kEnded;
    }
    got = co_await ReadLine(line);
    if (got != SimRead::kDone) co_return got;
    if (!line.empty()) co_return SimRead::kMalformed;
  }
  for (;;) {
    std::string line;
    const SimRead got = co_await ReadLine(line);
    if (got != SimRead::kDone) co_return got;
    if (line.empty()) co_return SimRead::kDone;
    if (line.find(':') == std::string::npos) co_return SimRead::kMalformed;
    if (trailers != nullptr) *trailers += line + "\r\n";
  }
}

Task<SimRead> SimHttpPeer::ReadBody(const SimHead& head, std::string& body, std::string* trailers) {
  if (head.framing == SimFraming::kNone) co_return SimRead::kDone;
  if (head.framing == SimFraming::kChunked) {
    const SimRead got = co_await ReadChunks(body, trailers);
    co_return got;
  }
  uint64_t left = head.framing == SimFraming::kLength ? head.length : UINT64_MAX;
  while (left != 0) {
    const size_t taken = std::min<size_t>(left, read_.size());
    body.append(read_, 0, taken);
    read_.erase(0, taken);
    left -= taken;
    if (left == 0) break;
    const bool more = co_await Fill();
    if (more) continue;
    const bool whole = head.framing == SimFraming::kUntilClose && ended_cleanly();
    co_return whole ? SimRead::kDone : SimRead::kEnded;
  }
  co_return SimRead::kDone;
}

Task<uint64_t> SimHttpPeer::ReadToEnd(std::string* bytes) {
  uint64_t bytes_count = 0;
  for (bool more = true; more;) {
    if (bytes != nullptr) *bytes += read_;
    bytes_count += read_.size();
    read_.clear();
    more = co_await Fill();
  }
  co_return bytes_count;
}

Task<Result<void>> SimHttpPeer::Write(std::string_view bytes) {
  SimRandom& random = world_.random();
  while (!bytes.empty()) {
    const size_t count = random.Chance(600) ? bytes.size() : random.Between(1, bytes.size());
    iovec piece{const_cast<char*>(bytes.data()), count};
    bytes.remove_prefix(count);
    const Result<void> sent = co_await socket_.Send({&piece, 1});
    send_failed_ |= !sent;
    if (!sent) co_return sent;
    if (random.Chance(50)) co_await world_.worker().Sleep(random.Below(20));
  }
  co_return Result<void>();
}

std::string SimChunked(SimRandom& random, std::string_view bytes, std::string_view trailers) {
  constexpr std::string_view kExtensions[] = {";a", ";name=value", "; q=\"a;b\"", ";0123456789=abcdef"};
  const uint32_t extended = random.Chance(200) ? 500 : 0;
  std::string out;
  while (!bytes.empty()) {
    const size_t count = random.Between(1, bytes.size());
    const std::string_view extension = random.Chance(extended) ? random.Pick(kExtensions) : "";
    out += fmt::format("{:x}{}\r\n{}\r\n", count, extension, bytes.substr(0, count));
    bytes.remove_prefix(count);
  }
  return out + "0\r\n" + std::string(trailers) + "\r\n";
}

}  // namespace dpa
