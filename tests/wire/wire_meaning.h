// What a row of raw bytes means to us, as one line of text, whatever pieces the bytes come in.
//
//   request    POST /p?q HTTP/1.1 host=h chunked[hello] trailer[a=b] rest[GET /]
//   response   HTTP/1.1 200 [OK] length[hello]
//   refused    400 bare_cr          (in a body: the head, what came before, and `!400 chunk_size_invalid`)
//
// Words in between: close (not keep-alive), continue (Expect), upgrade[…], incomplete (head or body has not ended).

#pragma once

#include <fmt/format.h>

#include <cstddef>
#include <functional>
#include <memory>
#include <string>
#include <string_view>

#include "http/body_framing.h"
#include "http/message_parser.h"

namespace dpa::wire {

struct Limits {
  ParserLimits head;
  BodyLimits body;
};
// So low that a row can go beyond them and stay one line.
inline constexpr Limits kTight{{.head_bytes_max = 96, .target_bytes_max = 16, .fields_max = 2},
                               {.extension_bytes_max = 8, .trailer_bytes_max = 16, .trailers_max = 2}};

// Size of the next piece, at least 1.
using Cuts = std::function<size_t()>;

inline Cuts Every(size_t size) {
  return [size] { return size; };
}

// The bytes so far at an address of their own, so that a parser that keeps a pointer, or reads past the end, is caught.
class Copy {
 public:
  explicit Copy(std::string_view bytes) : bytes_(std::make_unique<char[]>(bytes.size())), size_(bytes.size()) {
    bytes.copy(bytes_.get(), size_);
  }
  std::string_view view() const { return {bytes_.get(), size_}; }

 private:
  std::unique_ptr<char[]> bytes_;
  size_t size_;
};

inline std::string Refused(HttpViolation violation) {
  return fmt::format("{} {}", StatusOf(violation), ReasonOf(violation));
}

inline std::string RenderFields(std::span<const HeaderField> fields) {
  std::string text;
  for (const HeaderField& field : fields) text += fmt::format(" {{{}={}}}", field.name, field.value);
  return text;
}

inline std::string RenderBody(BodyFraming framing, uint64_t content_length, std::string_view rest, const Cuts& cuts,
                              const BodyLimits& limits = {}) {
  if (framing == BodyFraming::kNone) return rest.empty() ? "" : fmt::format(" rest[{}]", rest);
  BodyDecoder decoder(limits);
  decoder.Start(framing, content_length);
  std::string payload;
  while (!rest.empty() && decoder.state() == BodyDecoder::State::kMore) {
    const Copy piece(rest.substr(0, cuts()));
    std::string_view input = piece.view();
    while (!input.empty() && decoder.state() == BodyDecoder::State::kMore) {
      const BodyDecoder::Step step = decoder.Decode(input);
      if (step.consumed == 0) return " a step without progress";
      payload += step.payload;
      input.remove_prefix(step.consumed);
    }
    rest.remove_prefix(piece.view().size() - input.size());
  }
  const char* word = framing == BodyFraming::kChunked      ? "chunked"
                     : framing == BodyFraming::kUntilClose ? "close"
                                                           : "length";
  std::string text = fmt::format(" {}[{}]", word, payload);
  if (decoder.state() == BodyDecoder::State::kViolation) return text + " !" + Refused(decoder.violation());
  if (!decoder.EndOfInput()) return text + " incomplete";
  for (const HeaderField& field : decoder.trailers()) text += fmt::format(" trailer[{}={}]", field.name, field.value);
  if (!rest.empty()) text += fmt::format(" rest[{}]", rest);
  return text;
}

// Feeds pieces until the head is complete or refused. `render` gets the rest of the bytes.
template <class Render>
std::string FeedHead(MessageParser& parser, std::string_view bytes, const Cuts& cuts, Render render) {
  std::unique_ptr<Copy> last;
  for (size_t fed = 0; fed < bytes.size();) {
    fed = std::min(bytes.size(), fed + cuts());
    auto copy = std::make_unique<Copy>(bytes.substr(0, fed));
    last = std::move(copy);
    const ParseStatus status = parser.Feed(last->view());
    if (status == ParseStatus::kViolation) return Refused(parser.violation());
    if (status == ParseStatus::kComplete) return render(bytes.substr(parser.head_size()));
  }
  return "incomplete";
}

inline std::string RequestMeaning(std::string_view bytes, const Cuts& cuts, const Limits& limits = {},
                                  bool with_fields = false) {
  MessageParser parser(MessageParser::Role::kRequest, limits.head);
  return FeedHead(parser, bytes, cuts, [&](std::string_view rest) {
    const RequestHead& head = parser.request();
    std::string text = fmt::format("{} {}", head.method, head.path);
    if (head.has_query) text += fmt::format("?{}", head.query);
    text += fmt::format(" HTTP/1.{} host={}", head.version_minor, head.host);
    if (!head.keep_alive) text += " close";
    if (head.expect_continue) text += " continue";
    if (!head.upgrade.empty()) text += fmt::format(" upgrade[{}]", head.upgrade);
    if (with_fields) text += RenderFields(head.fields);
    return text + RenderBody(head.framing, head.content_length, rest, cuts, limits.body);
  });
}

inline std::string ResponseMeaning(std::string_view request_method, std::string_view bytes, const Cuts& cuts,
                                   const Limits& limits = {}, bool with_fields = false) {
  MessageParser parser(MessageParser::Role::kResponse, limits.head);
  parser.SetRequestMethod(request_method);
  return FeedHead(parser, bytes, cuts, [&](std::string_view rest) {
    const ResponseHead& head = parser.response();
    std::string text = fmt::format("HTTP/1.{} {} [{}]", head.version_minor, head.status, head.reason);
    if (!head.keep_alive) text += " close";
    if (with_fields) text += RenderFields(head.fields);
    return text + RenderBody(head.framing, head.content_length, rest, cuts, limits.body);
  });
}

}  // namespace dpa::wire
