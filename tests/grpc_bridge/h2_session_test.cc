// Goal: calls over an HTTP/2 session behave as a user of them expects, whatever the peer does: answers, errors, floods,
// goodbyes. Method: session and peer in memory, bytes carried between them by the test; calls run on a worker of the
// test's own.

#include "grpc_bridge/h2_session.h"

#include <gtest/gtest.h>

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "core/ring_uring.h"
#include "core/worker.h"
#include "grpc_bridge/grpc_call.h"
#include "grpc_bridge/h2_memory.h"
#include "tests/grpc_bridge/h2_test_peer.h"

namespace dpa {
namespace {

constexpr size_t kOutputBytesMax = 64u << 10;

// A unary call and what became of it.
struct Call {
  explicit Call(Worker& w, const GrpcCallOptions& options = {}) : worker(w), call(w, options) {}
  // A call that a test leaves open is given up and joined.
  ~Call() {
    if (result) return;
    call.Cancel(Error{ErrorCode::kCancelled, ErrorSource::kInternal});
    worker.RunTurn(false);
  }
  Worker& worker;
  GrpcCall call;
  std::string path = "/pluginv2.Data/QueryData";
  std::string message;
  std::vector<H2Field> metadata;
  std::optional<Result<GrpcReply>> result;

  bool ok() const { return result && *result && (*result)->status.code == GrpcCode::kOk; }
  std::string reply() const { return ok() ? std::string((*result)->message.view()) : "(no reply)"; }
  GrpcStatus status() const {
    return result && *result ? (*result)->status : GrpcStatus{GrpcCode::kDataLoss, "(none)", ""};
  }
  Error error() const { return result && !*result ? result->error() : Error{}; }
};

class H2SessionTest : public testing::Test, public H2Session::Owner {
 protected:
  static std::unique_ptr<UringRing> MakeRing() {
    UringOptions options;
    options.buffers.buffers_count = 16;
    auto ring = UringRing::Create(options);
    EXPECT_TRUE(ring) << ring.error();
    return std::move(*ring);
  }

  void Connect(const H2Options& options = {}, std::vector<nghttp2_settings_entry> peer_settings = {}) {
    session_ = std::make_unique<H2Session>(memory_, options, *this);
    peer_ = std::make_unique<H2TestPeer>(std::move(peer_settings));
  }

  void OnOutputWanted() override { ++output_wanted_count_; }

  static Task<void> RunCall(Call& call, H2Session& session) {
    const std::string_view piece = call.message;
    const GrpcRequest request{call.path, {&piece, 1}, call.metadata};
    call.result.emplace(co_await call.call.Unary(session, request));
  }
  void Start(Call& call) { worker_.tasks().Spawn(RunCall(call, *session_)); }

  // Carries bytes both ways and runs what they wake, until nothing moves any more.
  void Pump() {
    for (bool moved = true; moved;) {
      moved = false;
      ByteBuffer output(worker_.bytes());
      const Result<bool> more = session_->Drain(output, kOutputBytesMax);
      if (more && !output.empty()) {
        moved = true;
        sent_bytes_ += output.size();
        largest_output_ = std::max(largest_output_, output.size());
        peer_broken_ = !peer_->Feed(output.view()) || peer_broken_;
      }
      worker_.RunTurn(false);
      const std::string back = peer_->TakeOutput();
      if (!back.empty()) {
        moved = true;
        fed_ = session_->Feed(back);
      }
      worker_.RunTurn(false);
    }
  }

  void TearDown() override {
    if (session_) session_->Fail(Error{ErrorCode::kReset, ErrorSource::kPlugin});
    worker_.RunTurn(false);
    EXPECT_EQ(worker_.tasks().running_count(), 0u);
    session_.reset();
    EXPECT_EQ(memory_.blocks_out(), 0);
    EXPECT_EQ(worker_.bytes().blocks_out(), 0);
    EXPECT_FALSE(peer_broken_);
  }

  std::unique_ptr<UringRing> ring_ = MakeRing();
  Worker worker_{*ring_, 0};
  H2Memory memory_;
  std::unique_ptr<H2Session> session_;
  std::unique_ptr<H2TestPeer> peer_;
  Result<void> fed_;
  bool peer_broken_ = false;
  int output_wanted_count_ = 0;
  size_t sent_bytes_ = 0;
  size_t largest_output_ = 0;
};

TEST_F(H2SessionTest, UnaryCallCarriesMessageMetadataAndDeadlineAndBringsTheReplyBack) {
  Connect();
  Call call(worker_);
  call.message = "question";
  call.metadata = {{"traceparent", "00-1-2-01", true}};
  call.call.ArmDeadline(60'000);
  Start(call);
  Pump();
  ASSERT_EQ(peer_->requests().size(), 1u);
  const auto& request = peer_->requests()[0];
  EXPECT_TRUE(request.complete);
  EXPECT_EQ(request.body, GrpcMessage("question"));
  EXPECT_EQ(request.fields.at(":method"), "POST");
  EXPECT_EQ(request.fields.at(":path"), "/pluginv2.Data/QueryData");
  EXPECT_EQ(request.fields.at("content-type"), "application/grpc");
  EXPECT_EQ(request.fields.at("te"), "trailers");
  EXPECT_EQ(request.fields.at("grpc-timeout"), "60000m");
  EXPECT_EQ(request.fields.at("traceparent"), "00-1-2-01");
  peer_->Answer(0, GrpcMessage("answer"));
  Pump();
  EXPECT_EQ(call.reply(), "answer");
  EXPECT_GT(call.call.request_sent_ns(), 0u);
  EXPECT_GT(call.call.response_head_ns(), 0u);
  EXPECT_EQ(session_->open_count(), 0u);
  call.result.reset();
}

TEST_F(H2SessionTest, CallWithoutDeadlineSendsNoTimeout) {
  Connect();
  Call call(worker_);
  Start(call);
  Pump();
  EXPECT_EQ(peer_->requests().at(0).fields.count("grpc-timeout"), 0u);
  peer_->Answer(0, GrpcMessage(""));
  Pump();
  EXPECT_EQ(call.reply(), "");
}

TEST_F(H2SessionTest, ErrorStatusInTrailersOnlyIsTheReply) {
  Connect();
  Call call(worker_);
  Start(call);
  Pump();
  peer_->AnswerTrailersOnly(0, {{":status", "200"},
                                {"content-type", "application/grpc"},
                                {"grpc-status", "2"},
                                {"grpc-message", "panic%3A x"},
                                {"grpc-status-details-bin", "CAI="}});
  Pump();
  EXPECT_EQ(call.status().code, GrpcCode::kUnknown);
  EXPECT_EQ(call.status().message, "panic: x");
  EXPECT_EQ(call.status().details, "\x08\x02");
}

TEST_F(H2SessionTest, ErrorStatusAfterAMessageIsTheReply) {
  Connect();
  Call call(worker_);
  Start(call);
  Pump();
  peer_->Answer(0, GrpcMessage("half"), {{"grpc-status", "13"}, {"grpc-message", "broke"}});
  Pump();
  EXPECT_EQ(call.status().code, GrpcCode::kInternal);
  EXPECT_TRUE((*call.result)->message.empty());
}

TEST_F(H2SessionTest, InterimResponsesAreSkipped) {
  Connect();
  Call call(worker_);
  Start(call);
  Pump();
  peer_->Interim(0);
  Pump();
  peer_->Answer(0, GrpcMessage("late"));
  Pump();
  EXPECT_EQ(call.reply(), "late");
}

TEST_F(H2SessionTest, RepliesThatBreakGrpcAreNamed) {
  struct Case {
    std::string body;
    H2TestPeer::Fields trailers;
    GrpcFault fault;
    ErrorCode code;
  };
  const H2TestPeer::Fields ok = {{"grpc-status", "0"}};
  const std::vector<Case> cases = {
      {std::string("\x01\0\0\0\x01x", 6), ok, GrpcFault::kCompressed, ErrorCode::kMalformed},
      {std::string("\x07\0\0\0\x01x", 6), ok, GrpcFault::kPrefix, ErrorCode::kMalformed},
      {GrpcMessage(std::string(2000, 'x')), ok, GrpcFault::kTooLarge, ErrorCode::kTooLarge},
      {GrpcMessage("abc").substr(0, 7), ok, GrpcFault::kTruncated, ErrorCode::kMalformed},
      {"", ok, GrpcFault::kNoMessage, ErrorCode::kMalformed},
      {GrpcMessage("a") + GrpcMessage("b"), ok, GrpcFault::kTwoMessages, ErrorCode::kMalformed},
      {GrpcMessage("a"), {}, GrpcFault::kNoStatus, ErrorCode::kMalformed},
      {GrpcMessage("a"), {{"x-other", "1"}}, GrpcFault::kNoStatus, ErrorCode::kMalformed},
  };
  Connect();
  for (size_t i = 0; i < cases.size(); ++i) {
    Call call(worker_, GrpcCallOptions{.message_bytes_max = 1000});
    Start(call);
    Pump();
    peer_->Answer(i, cases[i].body, cases[i].trailers);
    Pump();
    ASSERT_TRUE(call.result) << i;
    EXPECT_EQ(call.call.fault(), cases[i].fault) << i;
    EXPECT_EQ(call.error().code, cases[i].code) << i;
    EXPECT_EQ(call.error().source, ErrorSource::kPlugin) << i;
    EXPECT_FALSE(call.error().retry_safe) << i;
  }
  EXPECT_EQ(session_->open_count(), 0u);
}

TEST_F(H2SessionTest, AnswersOfAPlainHttpServerBecomeAStatus) {
  Connect();
  Call call(worker_);
  Start(call);
  Pump();
  peer_->Answer(0, "<html>", {}, {{":status", "503"}, {"content-type", "text/html"}});
  Pump();
  EXPECT_EQ(call.status().code, GrpcCode::kUnavailable);
  EXPECT_EQ(call.status().message, "HTTP status 503");
}

TEST_F(H2SessionTest, SuccessThatIsNotGrpcIsRefused) {
  Connect();
  Call call(worker_);
  Start(call);
  Pump();
  peer_->Answer(0, "{}", {}, {{":status", "200"}, {"content-type", "application/json"}});
  Pump();
  EXPECT_EQ(call.call.fault(), GrpcFault::kContentType);
}

TEST_F(H2SessionTest, ManyCallsShareOneOutput) {
  Connect();
  std::vector<std::unique_ptr<Call>> calls;
  for (int i = 0; i < 256; ++i) {
    calls.push_back(std::make_unique<Call>(worker_));
    calls.back()->message = "q" + std::to_string(i);
    Start(*calls.back());
  }
  Pump();
  ASSERT_EQ(peer_->requests().size(), 256u);
  for (size_t i = 256; i-- > 0;) peer_->Answer(i, GrpcMessage("r" + peer_->requests()[i].body.substr(5)));
  Pump();
  for (int i = 0; i < 256; ++i) EXPECT_EQ(calls[i]->reply(), "rq" + std::to_string(i));
}

TEST_F(H2SessionTest, LargeReplyFlowsThroughSmallWindows) {
  Connect(H2Options{.stream_window_bytes = 65'535, .connection_window_bytes = 65'535});
  Call call(worker_);
  Start(call);
  Pump();
  const std::string reply(8u << 20, 'y');
  peer_->Answer(0, GrpcMessage(reply));
  Pump();
  EXPECT_EQ(call.reply(), reply);
}

TEST_F(H2SessionTest, LargeRequestRespectsThePeersWindowAndTheOutputLimit) {
  Connect({}, {{NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, 1000}});
  Call call(worker_);
  call.message.assign(3u << 20, 'z');
  Start(call);
  Pump();
  ASSERT_EQ(peer_->requests().size(), 1u);
  EXPECT_TRUE(peer_->requests()[0].complete);
  EXPECT_EQ(peer_->requests()[0].body, GrpcMessage(call.message));
  EXPECT_LE(largest_output_, kOutputBytesMax + (4u << 10));
  peer_->Answer(0, GrpcMessage("ok"));
  Pump();
  EXPECT_EQ(call.reply(), "ok");
}

TEST_F(H2SessionTest, LargeRequestsDoNotHoldUpSmallOnes) {
  Connect();
  Call large(worker_);
  large.message.assign(16u << 20, 'z');
  Call small(worker_);
  small.message = "s";
  Start(large);
  Start(small);
  ByteBuffer output(worker_.bytes());
  ASSERT_TRUE(*session_->Drain(output, kOutputBytesMax));
  ASSERT_TRUE(peer_->Feed(output.view()));
  ASSERT_EQ(peer_->requests().size(), 2u);
  EXPECT_TRUE(peer_->requests()[1].complete);
  EXPECT_FALSE(peer_->requests()[0].complete);
  output.Release();
  Pump();
  peer_->Answer(0, GrpcMessage("a"));
  peer_->Answer(1, GrpcMessage("b"));
  Pump();
  EXPECT_EQ(large.reply(), "a");
  EXPECT_EQ(small.reply(), "b");
}

TEST_F(H2SessionTest, AnAnswerBeforeTheWholeRequestEndsTheCall) {
  Connect({}, {{NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, 0}});
  Call call(worker_);
  call.message.assign(1000, 'z');
  Start(call);
  Pump();
  peer_->AnswerTrailersOnly(0, {{":status", "200"},
                                {"content-type", "application/grpc"},
                                {"grpc-status", "8"},
                                {"grpc-message", "received message larger than max"}});
  Pump();
  EXPECT_EQ(call.status().code, GrpcCode::kResourceExhausted);
  EXPECT_EQ(session_->open_count(), 0u);
  EXPECT_TRUE(peer_->requests()[0].closed);
}

TEST_F(H2SessionTest, PeerThatAllowsOneStreamGetsCallsOneByOneInOrder) {
  Connect({}, {{NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS, 1}});
  Pump();
  std::vector<std::unique_ptr<Call>> calls;
  for (int i = 0; i < 5; ++i) {
    calls.push_back(std::make_unique<Call>(worker_));
    calls.back()->message = std::to_string(i);
    Start(*calls.back());
  }
  for (size_t i = 0; i < 5; ++i) {
    Pump();
    ASSERT_EQ(peer_->requests().size(), i + 1);
    EXPECT_EQ(session_->waiting_count(), 4 - i);
    EXPECT_EQ(peer_->requests()[i].body, GrpcMessage(std::to_string(i)));
    peer_->Answer(i, GrpcMessage("r"));
    Pump();
    EXPECT_EQ(calls[i]->reply(), "r");
  }
}

TEST_F(H2SessionTest, FullQueueShedsAndLongWaitsEnd) {
  Connect(H2Options{.streams_max = 1, .waiting_max = 1, .waiting_timeout_ms = 1000});
  Call open(worker_), waiting(worker_), refused(worker_);
  Start(open);
  Pump();
  Start(waiting);
  Start(refused);
  Pump();
  ASSERT_TRUE(refused.result);
  EXPECT_EQ(refused.error().code, ErrorCode::kShed);
  EXPECT_TRUE(refused.error().retry_safe);
  EXPECT_FALSE(waiting.result);
  EXPECT_GT(session_->ExpireWaiting(worker_.now_ms()), worker_.now_ms());
  EXPECT_EQ(session_->ExpireWaiting(worker_.now_ms() + 1001), UINT64_MAX);
  Pump();
  EXPECT_EQ(waiting.error().code, ErrorCode::kShed);
  EXPECT_TRUE(waiting.error().retry_safe);
  EXPECT_FALSE(open.result);
}

TEST_F(H2SessionTest, CancelResetsTheStreamAndFreesThePlaceForTheNext) {
  Connect(H2Options{.streams_max = 1});
  Call first(worker_), second(worker_);
  Start(first);
  Start(second);
  Pump();
  first.call.Cancel(Error{ErrorCode::kClosed, ErrorSource::kDownstream});
  Pump();
  EXPECT_EQ(first.error().code, ErrorCode::kClosed);
  EXPECT_EQ(first.error().source, ErrorSource::kDownstream);
  EXPECT_TRUE(peer_->requests()[0].closed);
  EXPECT_EQ(peer_->requests()[0].close_code, NGHTTP2_CANCEL);
  ASSERT_EQ(peer_->requests().size(), 2u);
  peer_->Answer(1, GrpcMessage("next"));
  Pump();
  EXPECT_EQ(second.reply(), "next");
}

TEST_F(H2SessionTest, CancelOfAWaitingCallSendsNothing) {
  Connect(H2Options{.streams_max = 1});
  Call open(worker_), waiting(worker_);
  Start(open);
  Pump();
  Start(waiting);
  waiting.call.Cancel(Error{ErrorCode::kCancelled, ErrorSource::kDownstream});
  Pump();
  EXPECT_EQ(waiting.error().code, ErrorCode::kCancelled);
  EXPECT_EQ(peer_->requests().size(), 1u);
  EXPECT_EQ(session_->waiting_count(), 0u);
}

TEST_F(H2SessionTest, CancelInTheMiddleOfARequestBodyStopsIt) {
  Connect({}, {{NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, 1u << 30}});
  Pump();
  Call call(worker_);
  call.message.assign(1u << 20, 'z');
  Start(call);
  ByteBuffer output(worker_.bytes());
  session_->Drain(output, kOutputBytesMax).value();
  ASSERT_TRUE(peer_->Feed(output.view()));
  output.Release();
  call.call.Cancel(Error{ErrorCode::kTimeout, ErrorSource::kPlugin});
  Pump();
  EXPECT_TRUE(peer_->requests()[0].closed);
  EXPECT_FALSE(peer_->requests()[0].complete);
  EXPECT_EQ(session_->open_count(), 0u);
  Call next(worker_);
  Start(next);
  Pump();
  peer_->Answer(1, GrpcMessage("fine"));
  Pump();
  EXPECT_EQ(next.reply(), "fine");
}

TEST_F(H2SessionTest, CancelBeforeTheCallBeginsEndsItAtOnce) {
  Connect();
  Call call(worker_);
  call.call.Cancel(Error{ErrorCode::kReset, ErrorSource::kDownstream});
  Start(call);
  EXPECT_EQ(call.error().code, ErrorCode::kReset);
}

TEST_F(H2SessionTest, DeadlineResetsTheStreamWithTimeout) {
  Connect();
  Call call(worker_);
  call.call.ArmDeadline(1);
  Start(call);
  Pump();
  while (!call.result) worker_.RunTurn(true);
  Pump();
  EXPECT_EQ(call.error().code, ErrorCode::kTimeout);
  EXPECT_EQ(peer_->requests()[0].close_code, NGHTTP2_CANCEL);
}

TEST_F(H2SessionTest, ResetsByThePeerSayWhetherToTryAgain) {
  const std::vector<std::tuple<uint32_t, ErrorCode, bool>> cases = {
      {NGHTTP2_REFUSED_STREAM, ErrorCode::kUnavailable, true}, {NGHTTP2_CANCEL, ErrorCode::kReset, false},
      {NGHTTP2_INTERNAL_ERROR, ErrorCode::kReset, false},      {NGHTTP2_NO_ERROR, ErrorCode::kReset, false},
      {NGHTTP2_ENHANCE_YOUR_CALM, ErrorCode::kShed, false},    {NGHTTP2_PROTOCOL_ERROR, ErrorCode::kMalformed, false}};
  Connect();
  for (size_t i = 0; i < cases.size(); ++i) {
    Call call(worker_);
    Start(call);
    Pump();
    peer_->Reset(i, std::get<0>(cases[i]));
    Pump();
    EXPECT_EQ(call.error().code, std::get<1>(cases[i])) << i;
    EXPECT_EQ(call.error().retry_safe, std::get<2>(cases[i])) << i;
  }
}

TEST_F(H2SessionTest, GoawayLetsRunningCallsFinishAndGivesTheOthersBack) {
  Connect(H2Options{.streams_max = 2});
  Call running(worker_), unseen(worker_), waiting(worker_), late(worker_);
  Start(running);
  Start(unseen);
  Pump();
  Start(waiting);
  peer_->Goaway(1);
  Pump();
  EXPECT_FALSE(running.result);
  EXPECT_TRUE(unseen.error().retry_safe);
  EXPECT_TRUE(waiting.error().retry_safe);
  EXPECT_FALSE(session_->accepts_streams());
  Start(late);
  EXPECT_TRUE(late.error().retry_safe);
  EXPECT_EQ(late.error().code, ErrorCode::kClosed);
  EXPECT_FALSE(session_->finished());
  peer_->Answer(0, GrpcMessage("done"));
  Pump();
  EXPECT_EQ(running.reply(), "done");
  EXPECT_TRUE(session_->finished());
}

TEST_F(H2SessionTest, CloseWhenIdleSaysGoodbyeAfterTheLastCall) {
  Connect();
  Call call(worker_);
  Start(call);
  Pump();
  session_->CloseWhenIdle();
  Pump();
  EXPECT_FALSE(peer_->goaway_received());
  peer_->Answer(0, GrpcMessage("last"));
  Pump();
  EXPECT_EQ(call.reply(), "last");
  EXPECT_TRUE(peer_->goaway_received());
  EXPECT_TRUE(session_->finished());
}

TEST_F(H2SessionTest, StreamIdsThatRunOutEndTheSessionNotTheCalls) {
  Connect(H2Options{.first_stream_id = 0x7FFFFFFF});
  Call last(worker_), beyond(worker_);
  Start(last);
  Pump();
  Start(beyond);
  Pump();
  EXPECT_TRUE(beyond.error().retry_safe);
  EXPECT_FALSE(session_->accepts_streams());
  peer_->Answer(0, GrpcMessage("last"));
  Pump();
  EXPECT_EQ(last.reply(), "last");
  EXPECT_TRUE(session_->finished());
}

TEST_F(H2SessionTest, ConnectionThatBreaksFailsEveryCallAtOnce) {
  Connect(H2Options{.streams_max = 1});
  Call open(worker_), waiting(worker_);
  Start(open);
  Start(waiting);
  Pump();
  session_->Fail(Error{ErrorCode::kReset, ErrorSource::kPlugin});
  worker_.RunTurn(false);
  EXPECT_EQ(open.error().code, ErrorCode::kReset);
  EXPECT_FALSE(open.error().retry_safe);
  EXPECT_TRUE(waiting.error().retry_safe);
}

TEST_F(H2SessionTest, TooManyOrTooLargeFieldsEndTheCallNotTheSession) {
  Connect(H2Options{.field_bytes_max = 1000, .fields_max = 10});
  Call large(worker_), many(worker_), fine(worker_);
  Start(large);
  Start(many);
  Start(fine);
  Pump();
  H2TestPeer::Fields fields = {{":status", "200"}, {"content-type", "application/grpc"}, {"grpc-status", "0"}};
  H2TestPeer::Fields larger = fields;
  larger.push_back({"x-large", std::string(1000, 'x')});
  peer_->AnswerTrailersOnly(0, larger);
  H2TestPeer::Fields more = fields;
  for (int i = 0; i < 20; ++i) more.push_back({"x-" + std::to_string(i), "1"});
  peer_->AnswerTrailersOnly(1, more);
  peer_->Answer(2, GrpcMessage("fine"));
  Pump();
  EXPECT_EQ(large.error().code, ErrorCode::kTooLarge);
  EXPECT_EQ(many.error().code, ErrorCode::kTooLarge);
  EXPECT_EQ(fine.reply(), "fine");
}

TEST_F(H2SessionTest, PingsAreAnsweredAndNoneAreSent) {
  Connect();
  Pump();
  for (int i = 0; i < 10; ++i) peer_->Ping();
  Pump();
  EXPECT_EQ(peer_->pings_count(), 10);
}

TEST_F(H2SessionTest, BytesThatAreNotHttp2EndTheSession) {
  Connect();
  Call call(worker_);
  Start(call);
  ByteBuffer output(worker_.bytes());
  session_->Drain(output, kOutputBytesMax).value();
  output.Clear();
  const Result<void> fed = session_->Feed("HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n");
  const Result<bool> drained = session_->Drain(output, kOutputBytesMax);
  EXPECT_TRUE(!fed || !drained || session_->finished());
  EXPECT_FALSE(session_->complaint().empty());
}

TEST_F(H2SessionTest, FloodOfPingsEndsTheSession) {
  Connect();
  Pump();
  std::string flood;
  for (int i = 0; i < 5000; ++i) flood += std::string("\0\0\x08\x06\0\0\0\0\0", 9) + "12345678";
  EXPECT_FALSE(session_->Feed(flood));
}

TEST_F(H2SessionTest, SteadyStateTakesNoNewMemory) {
  Connect();
  auto run = [&](size_t index) {
    Call call(worker_);
    call.message.assign(500, 'm');
    Start(call);
    Pump();
    peer_->Answer(index, GrpcMessage(std::string(1000, 'r')));
    Pump();
    EXPECT_TRUE(call.ok());
  };
  for (size_t i = 0; i < 20; ++i) run(i);
  const int64_t blocks_out = memory_.blocks_out();
  const size_t retained_bytes = memory_.retained_bytes();
  for (size_t i = 20; i < 100; ++i) run(i);
  EXPECT_EQ(memory_.blocks_out(), blocks_out);
  EXPECT_EQ(memory_.retained_bytes(), retained_bytes);
}

// --- Streams of replies ---

struct StreamReader {
  explicit StreamReader(Worker& worker, const GrpcCallOptions& options = {}) : call(worker, options), go(worker) {}
  GrpcCall call;
  Signal go;  // One notification per message that may be read.
  bool paced = false;
  std::vector<std::string> messages;
  std::optional<Error> error;
  bool ended = false;
};

Task<void> ReadAll(StreamReader& reader, H2Session& session) {
  const std::string_view piece = "subscribe";
  const GrpcRequest request{"/pluginv2.Stream/RunStream", {&piece, 1}, {}};
  const Result<void> started = reader.call.Start(session, request);
  EXPECT_TRUE(started);
  for (;;) {
    if (reader.paced) co_await reader.go.Wait();
    Result<std::optional<ByteBuffer>> message = co_await reader.call.Read();
    if (!message) {
      reader.error = message.error();
      co_return;
    }
    if (!*message) break;
    reader.messages.emplace_back((*message)->view());
  }
  reader.ended = true;
}

TEST_F(H2SessionTest, StreamOfRepliesIsReadMessageByMessageToItsStatus) {
  Connect();
  StreamReader reader(worker_);
  worker_.tasks().Spawn(ReadAll(reader, *session_));
  Pump();
  peer_->Begin(0, GrpcMessage("one") + GrpcMessage("") + GrpcMessage("three").substr(0, 6));
  Pump();
  EXPECT_EQ(reader.messages, (std::vector<std::string>{"one", ""}));
  peer_->More(0, GrpcMessage("three").substr(6), true, {{"grpc-status", "1"}, {"grpc-message", "stopped"}});
  Pump();
  EXPECT_EQ(reader.messages.size(), 3u);
  EXPECT_TRUE(reader.ended);
  EXPECT_EQ(reader.call.status().code, GrpcCode::kCancelled);
  EXPECT_EQ(reader.call.status().message, "stopped");
}

TEST_F(H2SessionTest, SlowReaderStopsItsOwnStreamAndNoOther) {
  Connect(H2Options{.stream_window_bytes = 65'535, .connection_window_bytes = 100'000});
  StreamReader slow(worker_);
  slow.paced = true;
  worker_.tasks().Spawn(ReadAll(slow, *session_));
  Pump();
  constexpr size_t kMessages = 100;
  std::string stream;
  for (size_t i = 0; i < kMessages; ++i) stream += GrpcMessage(std::string(10'000, 's'));
  peer_->Answer(0, stream);
  Pump();
  EXPECT_LE(peer_->requests()[0].reply_offset, 65'535u);
  Call other(worker_);
  Start(other);
  Pump();
  const std::string reply(1u << 20, 'o');
  peer_->Answer(1, GrpcMessage(reply));
  Pump();
  EXPECT_EQ(other.reply(), reply);
  EXPECT_LE(peer_->requests()[0].reply_offset, 65'535u);
  for (size_t i = 0; i <= kMessages; ++i) {
    slow.go.Notify();
    Pump();
  }
  EXPECT_EQ(slow.messages.size(), kMessages);
  EXPECT_TRUE(slow.ended);
}

TEST_F(H2SessionTest, MessageLargerThanTheWindowIsStillRead) {
  Connect(H2Options{.stream_window_bytes = 65'535});
  StreamReader reader(worker_);
  worker_.tasks().Spawn(ReadAll(reader, *session_));
  Pump();
  peer_->Answer(0, GrpcMessage(std::string(1u << 20, 'l')));
  Pump();
  ASSERT_EQ(reader.messages.size(), 1u);
  EXPECT_EQ(reader.messages[0].size(), 1u << 20);
  EXPECT_TRUE(reader.ended);
}

TEST_F(H2SessionTest, MessagesBeforeABreakAreReadFirst) {
  Connect();
  StreamReader reader(worker_);
  reader.paced = true;
  worker_.tasks().Spawn(ReadAll(reader, *session_));
  Pump();
  peer_->Begin(0, GrpcMessage("one") + GrpcMessage("two"));
  Pump();
  session_->Fail(Error{ErrorCode::kReset, ErrorSource::kPlugin});
  for (int i = 0; i < 3; ++i) {
    reader.go.Notify();
    worker_.RunTurn(false);
  }
  EXPECT_EQ(reader.messages, (std::vector<std::string>{"one", "two"}));
  ASSERT_TRUE(reader.error);
  EXPECT_EQ(reader.error->code, ErrorCode::kReset);
}

TEST_F(H2SessionTest, StreamThatEndsInsideAMessageIsAnError) {
  Connect();
  StreamReader reader(worker_);
  worker_.tasks().Spawn(ReadAll(reader, *session_));
  Pump();
  peer_->Answer(0, GrpcMessage("whole") + GrpcMessage("cut").substr(0, 6));
  Pump();
  EXPECT_EQ(reader.messages, std::vector<std::string>{"whole"});
  EXPECT_EQ(reader.call.fault(), GrpcFault::kTruncated);
}

TEST_F(H2SessionTest, CancelledStreamEndsItsReader) {
  Connect();
  StreamReader reader(worker_);
  worker_.tasks().Spawn(ReadAll(reader, *session_));
  Pump();
  peer_->Begin(0, GrpcMessage("one"));
  Pump();
  reader.call.Cancel(Error{ErrorCode::kClosed, ErrorSource::kDownstream});
  Pump();
  ASSERT_TRUE(reader.error);
  EXPECT_EQ(reader.error->source, ErrorSource::kDownstream);
  EXPECT_EQ(peer_->requests()[0].close_code, NGHTTP2_CANCEL);
}

}  // namespace
}  // namespace dpa
