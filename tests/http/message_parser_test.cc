// Limits, reuse and what a head hands out; which bytes mean what is in tests/wire.

#include "http/message_parser.h"

#include <gtest/gtest.h>

#include <string>

namespace dpa {
namespace {

using Role = MessageParser::Role;

HttpViolation RefusalOf(std::string_view bytes, const ParserLimits& limits, size_t piece) {
  MessageParser parser(Role::kRequest, limits);
  for (size_t fed = 0; fed < bytes.size();) {
    fed = std::min(bytes.size(), fed + piece);
    const ParseStatus status = parser.Feed(bytes.substr(0, fed));
    if (status != ParseStatus::kNeedMore) return parser.violation();
  }
  ADD_FAILURE() << "neither complete nor refused";
  return HttpViolation::kNone;
}

std::string Request(std::string_view target, std::string_view fields) {
  return "GET " + std::string(target) + " HTTP/1.1\r\nHost: h\r\n" + std::string(fields) + "\r\n";
}

TEST(MessageParser, TakesAHeadOfExactlyTheLimitAndRefusesOneByteMore) {
  const std::string head = Request("/", "A: " + std::string(500, 'x') + "\r\n");
  for (const size_t piece : {size_t{1}, size_t{7}, head.size()}) {
    EXPECT_EQ(RefusalOf(head, {.head_bytes_max = static_cast<uint32_t>(head.size())}, piece), HttpViolation::kNone);
    EXPECT_EQ(RefusalOf(head, {.head_bytes_max = static_cast<uint32_t>(head.size() - 1)}, piece),
              HttpViolation::kHeadTooLarge);
  }
  EXPECT_EQ(StatusOf(HttpViolation::kHeadTooLarge), 431);
}

TEST(MessageParser, AnswersALongTargetWith414EvenBeforeItEnds) {
  const ParserLimits limits{.target_bytes_max = 100};
  for (const size_t piece : {1, 3, 1000}) {
    EXPECT_EQ(RefusalOf(Request("/" + std::string(99, 'a'), ""), limits, piece), HttpViolation::kNone);
    EXPECT_EQ(RefusalOf(Request("/" + std::string(100, 'a'), ""), limits, piece), HttpViolation::kTargetTooLong);
    EXPECT_EQ(RefusalOf("GET /" + std::string(300, 'a'), limits, piece), HttpViolation::kTargetTooLong);
  }
  EXPECT_EQ(StatusOf(HttpViolation::kTargetTooLong), 414);
}

TEST(MessageParser, CountsFields) {
  const ParserLimits limits{.fields_max = 3};
  for (const size_t piece : {1, 5, 1000}) {
    EXPECT_EQ(RefusalOf(Request("/", "A: 1\r\nB: 2\r\n"), limits, piece), HttpViolation::kNone);
    EXPECT_EQ(RefusalOf(Request("/", "A: 1\r\nB: 2\r\nC: 3\r\n"), limits, piece), HttpViolation::kFieldsTooMany);
  }
}

TEST(MessageParser, RefusesAConnectionFieldWithoutEnd) {
  std::string options = "Connection: close";
  for (int i = 0; i < 32; ++i) options += ",x";
  EXPECT_EQ(RefusalOf(Request("/", options + "\r\n"), {}, 1000), HttpViolation::kFieldsTooMany);
}

TEST(MessageParser, RefusesABadStartLineBeforeTheHeadEnds) {
  MessageParser parser(Role::kRequest, {});
  EXPECT_EQ(parser.Feed("BREW / HTTP/1.1\r"), ParseStatus::kNeedMore);
  EXPECT_EQ(parser.Feed("BREW / HTTP/1.1\r\n"), ParseStatus::kViolation);
  EXPECT_EQ(parser.violation(), HttpViolation::kMethodUnknown);
}

TEST(MessageParser, KnowsEveryMethodThatItSaysItKnows) {
  for (const std::string method :
       {"GET",    "HEAD",      "POST",        "PUT",      "DELETE",     "PATCH",    "OPTIONS", "COPY",
        "LOCK",   "MKCOL",     "MOVE",        "PROPFIND", "PROPPATCH",  "SEARCH",   "UNLOCK",  "BIND",
        "REBIND", "UNBIND",    "ACL",         "REPORT",   "MKACTIVITY", "CHECKOUT", "MERGE",   "M-SEARCH",
        "NOTIFY", "SUBSCRIBE", "UNSUBSCRIBE", "PURGE",    "MKCALENDAR", "LINK",     "UNLINK"}) {
    MessageParser parser(Role::kRequest, {});
    const std::string head = method + " / HTTP/1.1\r\nHost: h\r\n\r\n";
    ASSERT_EQ(parser.Feed(head), ParseStatus::kComplete) << method;
    EXPECT_EQ(parser.request().method, method);
  }
}

TEST(MessageParser, HandsOutFieldsInOrderTrimmedWithTheirCase) {
  const std::string head = Request("/", "a-B:  x \t y\t \r\nEmpty:\r\na-b:z\r\nLatin: \xe4\r\n") + "body";
  MessageParser parser(Role::kRequest, {});
  ASSERT_EQ(parser.Feed(head), ParseStatus::kComplete);
  EXPECT_EQ(parser.head_size(), head.size() - 4);
  const auto fields = parser.request().fields;
  ASSERT_EQ(fields.size(), 5u);
  EXPECT_EQ(fields[1].name, "a-B");
  EXPECT_EQ(fields[1].value, "x \t y");
  EXPECT_EQ(fields[2].value, "");
  EXPECT_EQ(fields[3].name, "a-b");
  EXPECT_EQ(fields[4].value, "\xe4");
  EXPECT_EQ(parser.request().FindField("A-B"), &fields[1]);
  EXPECT_EQ(parser.request().FindField("absent"), nullptr);
}

TEST(MessageParser, ReadsOneMessageAfterAnother) {
  const std::string bytes =
      "\r\nPOST /1 HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\nConnection: close\r\n\r\nGET /2 HTTP/1.1\r\nHost: "
      "i\r\n\r\n";
  MessageParser parser(Role::kRequest, {});
  ASSERT_EQ(parser.Feed(bytes), ParseStatus::kComplete);
  const size_t first = parser.head_size();
  EXPECT_EQ(parser.request().path, "/1");
  parser.Reset();
  ASSERT_EQ(parser.Feed(std::string_view(bytes).substr(first)), ParseStatus::kComplete);
  EXPECT_EQ(parser.request().path, "/2");
  EXPECT_EQ(parser.request().framing, BodyFraming::kNone);
  EXPECT_TRUE(parser.request().keep_alive);
}

TEST(MessageParser, IsIdleUntilTheFirstByteOfAMessage) {
  MessageParser parser(Role::kRequest, {});
  EXPECT_FALSE(parser.started());
  EXPECT_EQ(parser.Feed("\r\n"), ParseStatus::kNeedMore);
  EXPECT_FALSE(parser.started());
  EXPECT_EQ(parser.Feed("\r\nG"), ParseStatus::kNeedMore);
  EXPECT_TRUE(parser.started());
  parser.Reset();
  EXPECT_FALSE(parser.started());
}

TEST(MessageParser, ForgetsWithResetThatAnAnswerWasToHead) {
  MessageParser parser(Role::kResponse, {});
  const std::string head = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n";
  parser.SetRequestMethod("HEAD");
  ASSERT_EQ(parser.Feed(head), ParseStatus::kComplete);
  EXPECT_EQ(parser.response().framing, BodyFraming::kNone);
  EXPECT_EQ(parser.response().content_length, 5u);
  EXPECT_TRUE(parser.response().has_content_length);
  parser.Reset();
  ASSERT_EQ(parser.Feed(head), ParseStatus::kComplete);
  EXPECT_EQ(parser.response().framing, BodyFraming::kContentLength);
}

TEST(HttpViolation, HasOneWordAndOneStatusEach) {
  std::vector<std::string_view> words;
  for (int i = 1; i < static_cast<int>(HttpViolation::kCount); ++i) {
    const auto violation = static_cast<HttpViolation>(i);
    EXPECT_GE(StatusOf(violation), 400);
    for (const std::string_view word : words) EXPECT_NE(word, ReasonOf(violation));
    words.push_back(ReasonOf(violation));
    EXPECT_EQ(ErrorOf(violation, ErrorSource::kUpstream).source, ErrorSource::kUpstream);
  }
  EXPECT_EQ(ReasonOf(HttpViolation::kTrailersTooLarge), "trailers_too_large");
  EXPECT_EQ(ReasonOf(HttpViolation::kHostInvalid), "host_invalid");
  EXPECT_EQ(ErrorOf(HttpViolation::kHeadTooLarge, ErrorSource::kDownstream).code, ErrorCode::kTooLarge);
  EXPECT_EQ(ErrorOf(HttpViolation::kBareCr, ErrorSource::kDownstream).code, ErrorCode::kMalformed);
  EXPECT_EQ(ErrorOf(HttpViolation::kMethodConnect, ErrorSource::kDownstream).code, ErrorCode::kUnsupported);
}

}  // namespace
}  // namespace dpa
