// Goal: what gRPC puts on top of HTTP/2 is read and written as its protocol document says, whatever the peer sends.
// Method: pure functions and readers, fed by hand, messages also in pieces of every small size.

#include "grpc_bridge/grpc_framing.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

namespace dpa {
namespace {

std::string Timeout(uint64_t milliseconds) {
  GrpcTimeoutText text;
  return std::string(EncodeGrpcTimeout(milliseconds, text));
}

TEST(GrpcTimeout, HasAtMostEightDigitsAndRoundsUp) {
  EXPECT_EQ(Timeout(0), "0m");
  EXPECT_EQ(Timeout(1), "1m");
  EXPECT_EQ(Timeout(60'000), "60000m");
  EXPECT_EQ(Timeout(99'999'999), "99999999m");
  EXPECT_EQ(Timeout(100'000'000), "100000S");
  EXPECT_EQ(Timeout(100'000'001), "100001S");
  EXPECT_EQ(Timeout(99'999'999'000), "99999999S");
  EXPECT_EQ(Timeout(99'999'999'001), "1666667M");
  EXPECT_EQ(Timeout(UINT64_MAX), "99999999H");
}

TEST(GrpcMessageText, EscapesAreUndoneAndBrokenOnesKept) {
  EXPECT_EQ(DecodeGrpcMessage("plain"), "plain");
  EXPECT_EQ(DecodeGrpcMessage("a%20b%0Ac"), "a b\nc");
  EXPECT_EQ(DecodeGrpcMessage("%C3%bc"), "\xC3\xBC");
  EXPECT_EQ(DecodeGrpcMessage("50%"), "50%");
  EXPECT_EQ(DecodeGrpcMessage("50%2"), "50%2");
  EXPECT_EQ(DecodeGrpcMessage("%zz%41"), "%zzA");
  EXPECT_EQ(DecodeGrpcMessage("%%41"), "%A");
}

TEST(GrpcBase64, IsReadWithAndWithoutPadding) {
  EXPECT_EQ(DecodeBase64(""), "");
  EXPECT_EQ(DecodeBase64("Zg=="), "f");
  EXPECT_EQ(DecodeBase64("Zg"), "f");
  EXPECT_EQ(DecodeBase64("Zm9v"), "foo");
  EXPECT_EQ(DecodeBase64("+/+/"), "\xFB\xFF\xBF");
  EXPECT_EQ(DecodeBase64("Z"), std::nullopt);
  EXPECT_EQ(DecodeBase64("Zm 9"), std::nullopt);
  EXPECT_EQ(DecodeBase64("===="), std::nullopt);
}

TEST(GrpcCodes, NumbersOutOfRangeAreUnknown) {
  EXPECT_EQ(ParseGrpcCode("0"), GrpcCode::kOk);
  EXPECT_EQ(ParseGrpcCode("16"), GrpcCode::kUnauthenticated);
  for (const char* value : {"17", "", "-1", "1x", "99999999999999999999"})
    EXPECT_EQ(ParseGrpcCode(value), GrpcCode::kUnknown);
  EXPECT_EQ(ToString(GrpcCode::kUnavailable), "UNAVAILABLE");
  EXPECT_EQ(ToString(GrpcCode::kUnauthenticated), "UNAUTHENTICATED");
  EXPECT_EQ(ToString(GrpcCode::kResourceExhausted), "RESOURCE_EXHAUSTED");
}

TEST(GrpcFields, TrailersOnlyAnswersHaveAStatus) {
  GrpcResponseFields fields;
  fields.OnField(":status", "200");
  fields.OnField("content-type", "application/grpc");
  fields.OnField("grpc-status", "5");
  fields.OnField("grpc-message", "no%20such");
  fields.OnField("grpc-status-details-bin", "CAU");
  EXPECT_EQ(fields.OnFieldsEnd(), GrpcFault::kNone);
  EXPECT_TRUE(fields.has_status());
  EXPECT_EQ(fields.status().code, GrpcCode::kNotFound);
  EXPECT_EQ(fields.status().message, "no such");
  EXPECT_EQ(fields.status().details, "\x08\x05");
}

TEST(GrpcFields, InterimHeadsAreSkipped) {
  GrpcResponseFields fields;
  fields.OnField(":status", "103");
  EXPECT_EQ(fields.OnFieldsEnd(), GrpcFault::kNone);
  EXPECT_FALSE(fields.head_complete());
  fields.OnField(":status", "200");
  fields.OnField("content-type", "application/grpc+proto");
  EXPECT_EQ(fields.OnFieldsEnd(), GrpcFault::kNone);
  EXPECT_TRUE(fields.head_complete());
  EXPECT_FALSE(fields.has_status());
}

TEST(GrpcFields, AnswersOfPlainHttpServersGetAStatusByTheMapping) {
  const std::vector<std::pair<const char*, GrpcCode>> cases = {
      {"400", GrpcCode::kInternal},      {"401", GrpcCode::kUnauthenticated}, {"403", GrpcCode::kPermissionDenied},
      {"404", GrpcCode::kUnimplemented}, {"429", GrpcCode::kUnavailable},     {"502", GrpcCode::kUnavailable},
      {"503", GrpcCode::kUnavailable},   {"504", GrpcCode::kUnavailable},     {"500", GrpcCode::kUnknown},
      {"302", GrpcCode::kUnknown}};
  for (const auto& [status, code] : cases) {
    GrpcResponseFields fields;
    fields.OnField(":status", status);
    fields.OnField("content-type", "text/html");
    EXPECT_EQ(fields.OnFieldsEnd(), GrpcFault::kNone);
    EXPECT_TRUE(fields.http_refusal()) << status;
    EXPECT_EQ(fields.status().code, code) << status;
    EXPECT_EQ(fields.status().message, std::string("HTTP status ") + status);
  }
}

TEST(GrpcFields, ContentTypesThatAreNotGrpcAreRefused) {
  const std::vector<std::pair<const char*, bool>> cases = {
      {"application/grpc", true},           {"application/grpc+json", true},
      {"application/grpc;charset=x", true}, {"Application/GRPC", true},
      {"application/grpcweb", false},       {"text/html", false},
      {"application/json", false},          {"", false}};
  for (const auto& [type, is_grpc] : cases) {
    GrpcResponseFields fields;
    fields.OnField(":status", "200");
    fields.OnField("content-type", type);
    EXPECT_EQ(fields.OnFieldsEnd(), is_grpc ? GrpcFault::kNone : GrpcFault::kContentType) << type;
  }
}

TEST(GrpcMessages, ArePutTogetherFromPiecesOfAnySize) {
  BytePool pool;
  const std::string first(300, 'a');
  const std::string second = "b";
  std::string stream;
  for (const std::string& message : {first, std::string(), second}) {
    const auto prefix = GrpcPrefix(message.size());
    stream.append(prefix.data(), prefix.size()).append(message);
  }
  for (size_t piece_bytes = 1; piece_bytes <= stream.size(); ++piece_bytes) {
    GrpcMessageReader reader(pool, 1000);
    std::vector<std::string> messages;
    for (size_t at = 0; at < stream.size(); at += piece_bytes) {
      std::string_view piece = std::string_view(stream).substr(at, piece_bytes);
      while (!piece.empty()) {
        ASSERT_EQ(reader.Take(piece), GrpcFault::kNone);
        if (reader.complete()) messages.emplace_back(reader.TakeMessage().view());
      }
    }
    EXPECT_EQ(messages, (std::vector<std::string>{first, "", second})) << piece_bytes;
    EXPECT_TRUE(reader.empty());
  }
  EXPECT_EQ(pool.blocks_out(), 0);
}

TEST(GrpcMessages, FaultsAreToldByThePrefixAlone) {
  BytePool pool;
  const std::vector<std::pair<std::string, GrpcFault>> cases = {
      {std::string("\x01\0\0\0\x01", 5), GrpcFault::kCompressed},
      {std::string("\x02\0\0\0\x01", 5), GrpcFault::kPrefix},
      {std::string("\0\0\0\x03\xE9", 5), GrpcFault::kTooLarge},
      {std::string("\0\xFF\xFF\xFF\xFF", 5), GrpcFault::kTooLarge},
      {std::string("\0\0\0\x03\xE8", 5), GrpcFault::kNone}};
  for (const auto& [prefix, fault] : cases) {
    GrpcMessageReader reader(pool, 1000);
    std::string_view bytes = prefix;
    EXPECT_EQ(reader.Take(bytes), fault);
  }
}

TEST(GrpcMessages, ALargeClaimReservesLittle) {
  BytePool pool;
  GrpcMessageReader reader(pool, UINT32_MAX);
  std::string_view bytes("\0\xFF\xFF\xFF\xFFxyz", 8);
  EXPECT_EQ(reader.Take(bytes), GrpcFault::kNone);
  EXPECT_FALSE(reader.complete());
  reader.Clear();
  EXPECT_LE(pool.retained_bytes(), 1u << 20);
}

}  // namespace
}  // namespace dpa
