// What we say ourselves: error bodies, reasons, access lines, health texts, metrics.

#include <gmock/gmock.h>

#include <fcntl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <csignal>
#include <fstream>
#include <nlohmann/json.hpp>
#include <set>
#include <sstream>

#include "core/worker_thread.h"
#include "http/access_log.h"
#include "http/downstream_context.h"
#include "http/http_metrics.h"
#include "http/json_text.h"
#include "http/local_paths.h"
#include "http/upstream_group.h"

namespace dpa {
namespace {

using nlohmann::json;
using ::testing::EndsWith;
using ::testing::HasSubstr;
using ::testing::Not;

std::string Escaped(std::string_view text) {
  std::string out(JsonStringBytesMax(text), '\0');
  out.resize(static_cast<size_t>(WriteJsonString(out.data(), text) - out.data()));
  return out;
}

std::string StatusBody(Reason reason, int code, std::string_view message) {
  BytePool pool;
  ByteBuffer buffer(pool);
  AppendStatusBody(buffer, reason, code, message);
  return std::string(buffer.view());
}

TEST(Reasons, HaveUniqueWordsAndAStatus) {
  std::set<std::string_view> words;
  for (size_t i = 0; i < kReasonsCount; ++i) {
    const ReasonInfo& info = Info(static_cast<Reason>(i));
    EXPECT_TRUE(words.insert(info.word).second) << info.word;
    EXPECT_GE(info.http_status, 200);
    EXPECT_LT(info.http_status, 600);
    if (info.retry_after) EXPECT_GE(info.http_status, 500) << info.word;
  }
}

TEST(Reasons, ComeFromErrorsByTheSideThatFailed) {
  const auto reason = [](ErrorCode code, ErrorSource source, bool safe = false) {
    return ReasonFromError(Error{code, source, safe});
  };
  EXPECT_EQ(reason(ErrorCode::kTimeout, ErrorSource::kDownstream), Reason::kBodyTimeout);
  EXPECT_EQ(reason(ErrorCode::kReset, ErrorSource::kDownstream), Reason::kClientClosed);
  EXPECT_EQ(reason(ErrorCode::kTimeout, ErrorSource::kUpstream, true), Reason::kDelegateConnectTimeout);
  EXPECT_EQ(reason(ErrorCode::kTimeout, ErrorSource::kUpstream), Reason::kDelegateTimeout);
  EXPECT_EQ(reason(ErrorCode::kShed, ErrorSource::kUpstream, true), Reason::kDelegatePoolFull);
  EXPECT_EQ(reason(ErrorCode::kClosed, ErrorSource::kPlugin), Reason::kPluginDied);
  EXPECT_EQ(reason(ErrorCode::kCancelled, ErrorSource::kInternal), Reason::kShuttingDown);
  EXPECT_EQ(SourceOf(Reason::kClientClosed), ErrorSource::kDownstream);
  EXPECT_EQ(SourceOf(Reason::kDelegateTimeout), ErrorSource::kUpstream);
  EXPECT_EQ(SourceOf(Reason::kPluginDied), ErrorSource::kPlugin);
}

TEST(StatusBodies, AreKubernetesObjectsWithTheReasonWord) {
  for (size_t i = 0; i < kReasonsCount; ++i) {
    const auto reason = static_cast<Reason>(i);
    const json body = json::parse(StatusBody(reason, Info(reason).http_status, "why \"so\"\n\x01 \xff"));
    EXPECT_EQ(body["kind"], "Status");
    EXPECT_EQ(body["apiVersion"], "v1");
    EXPECT_EQ(body["metadata"], json::object());
    EXPECT_EQ(body["status"], "Failure");
    EXPECT_EQ(body["message"], "why \"so\"\n\x01 \xc3\xbf");
    EXPECT_EQ(body["details"]["causes"][0]["reason"], Info(reason).word);
    EXPECT_EQ(body["code"], Info(reason).http_status);
    EXPECT_EQ(body["details"].contains("retryAfterSeconds"), Info(reason).retry_after);
  }
}

TEST(JsonText, IsAlwaysValidUtf8) {
  EXPECT_EQ(Escaped("plain/ \"q\" \\"), R"(plain/ \"q\" \\)");
  EXPECT_EQ(Escaped("gr\xc3\xbc\xc3\x9f \xe2\x82\xac \xf0\x9f\x98\x80"),
            "gr\xc3\xbc\xc3\x9f \xe2\x82\xac \xf0\x9f\x98\x80");
  // Truncated, overlong, surrogate, beyond the last code point, stray continuation.
  EXPECT_EQ(Escaped("\xc3"), "\\u00c3");
  EXPECT_EQ(Escaped("\xc0\xaf"), "\\u00c0\\u00af");
  EXPECT_EQ(Escaped("\xed\xa0\x80"), "\\u00ed\\u00a0\\u0080");
  EXPECT_EQ(Escaped("\xf4\x90\x80\x80"), "\\u00f4\\u0090\\u0080\\u0080");
  EXPECT_EQ(Escaped(std::string_view("\0\x7f\x80", 3)), "\\u0000\\u007f\\u0080");
  for (int first = 0; first < 256; ++first) {
    for (int second = 0; second < 256; ++second) {
      const std::string text = {static_cast<char>(first), static_cast<char>(second)};
      EXPECT_TRUE(json::accept("\"" + Escaped(text) + "\"")) << first << " " << second;
    }
  }
}

AccessRecord SampleRecord() {
  AccessRecord record;
  record.connection_id = 7;
  record.exchange_id = 9;
  record.started_ns = 1'000'000'000;
  record.head_ns = 1'000'250'000;
  record.upstream_ready_ns = 1'001'000'000;
  record.request_sent_ns = 1'001'500'000;
  record.response_head_ns = 1'020'000'000;
  record.finished_ns = 1'023'456'789;
  record.method = "GET";
  record.target = "/a\"b\x80?x=1";
  record.host = "h";
  record.client = "127.0.0.1 4242";
  record.route = "delegate";
  record.upstream = "127.0.0.1:3000";
  record.status = 200;
  record.request_body_bytes = 1;
  record.response_body_bytes = 2;
  return record;
}

TEST(AccessLines, AreJsonWithTimersInMilliseconds) {
  std::string out = "before\n";
  AppendAccessLine(out, SampleRecord(), "2026-01-02T03:04:05.000006Z");
  ASSERT_THAT(out, EndsWith("}\n"));
  const json line = json::parse(out.substr(7));
  EXPECT_EQ(line["time"], "2026-01-02T03:04:05.000006Z");
  EXPECT_EQ(line["connection"], 7);
  EXPECT_EQ(line["target"], "/a\"b\xc2\x80?x=1");
  EXPECT_EQ(line["reason"], "ok");
  EXPECT_FALSE(line.contains("ended_by"));
  EXPECT_FALSE(line.contains("plugin"));
  EXPECT_EQ(line["upstream_reused"], false);
  EXPECT_DOUBLE_EQ(line["t_head"], 0.25);
  EXPECT_DOUBLE_EQ(line["t_response_head"], 18.5);
  EXPECT_THAT(out, HasSubstr("\"t_total\":23.456}"));
}

TEST(AccessLines, SayWhoEndedAFailedExchange) {
  AccessRecord record = SampleRecord();
  record.reason = Reason::kDelegateTimeout;
  record.ended_by = ErrorSource::kUpstream;
  record.response_head_ns = 0;
  record.retries_count = 1;
  std::string out;
  AppendAccessLine(out, record, "t");
  const json line = json::parse(out);
  EXPECT_EQ(line["reason"], "delegate_timeout");
  EXPECT_EQ(line["ended_by"], "upstream");
  EXPECT_EQ(line["retries"], 1);
  EXPECT_FALSE(line.contains("t_response_head"));
  EXPECT_EQ(line["phase"], "response_head");
}

TEST(AccessLines, HaveSpansThatAddUp) {
  AccessRecord record = SampleRecord();
  record.waits = {.queue_ns = 300'000, .connect_ns = 400'000};
  // The last one: the answer came before the request had been sent, or the request never was.
  for (const uint64_t sent_ns : {1'001'500'000, 1'021'000'000, 0}) {
    record.request_sent_ns = sent_ns;
    std::string out;
    AppendAccessLine(out, record, "t");
    const json line = json::parse(out);
    double sum = 0;
    for (const char* span : {"t_head", "t_upstream", "t_request", "t_response_head", "t_response"})
      sum += line.at(span).get<double>();
    EXPECT_NEAR(sum, line["t_total"].get<double>(), 0.005) << out;
    EXPECT_DOUBLE_EQ(line["t_queue"], 0.3);
    EXPECT_DOUBLE_EQ(line["t_connect"], 0.4);
  }
}

TEST(AccessLines, SayHowFarAFailedExchangeHadCome) {
  const auto phase = [](auto change) {
    AccessRecord record = SampleRecord();
    record.reason = Reason::kClientClosed;
    change(record);
    return std::string(PhaseOf(record));
  };
  const auto stop_before_upstream = [](AccessRecord& r) {
    r.upstream_ready_ns = r.request_sent_ns = r.response_head_ns = 0;
  };
  EXPECT_EQ(phase([](AccessRecord&) {}), "response");
  EXPECT_EQ(phase([](AccessRecord& r) { r.response_head_ns = 0; }), "response_head");
  EXPECT_EQ(phase([](AccessRecord& r) { r.response_head_ns = r.request_sent_ns = 0; }), "request");
  EXPECT_EQ(phase(stop_before_upstream), "route");
  EXPECT_EQ(phase([&](AccessRecord& r) {
              stop_before_upstream(r);
              r.waits.connect_ns = 1;
            }),
            "connect");
  EXPECT_EQ(phase([&](AccessRecord& r) {
              stop_before_upstream(r);
              r.reason = Reason::kDelegatePoolFull;
            }),
            "queue");
  EXPECT_EQ(phase([&](AccessRecord& r) {
              stop_before_upstream(r);
              r.head_ns = 0;
            }),
            "head");
}

class AccessLogFile : public ::testing::Test {
 protected:
  AccessLogFile() : path_(::testing::TempDir() + "dpa_access_" + std::to_string(getpid()) + ".log") {
    unlink(path_.c_str());
  }
  ~AccessLogFile() override { unlink(path_.c_str()); }
  size_t Lines() const {
    std::ifstream file(path_);
    size_t count = 0;
    for (std::string line; std::getline(file, line); ++count) EXPECT_TRUE(json::accept(line)) << line;
    return count;
  }
  const std::string path_;
};

TEST_F(AccessLogFile, LosesNothingAtAnOrderlyEnd) {
  // Bursts that fit the queue, from two workers at once; then the end at once, with lines still in every stage.
  auto writer = AccessLogWriter::Open(path_).value();
  std::vector<std::unique_ptr<WorkerThread>> threads;
  std::vector<std::unique_ptr<WorkerAccessLog>> logs(2);
  for (uint32_t i = 0; i < 2; ++i) {
    threads.push_back(WorkerThread::Start({.index = i}).value());
    threads[i]->Run([&](Worker& worker) {
      logs[i] = std::make_unique<WorkerAccessLog>(worker, *writer);
      for (int n = 0; n < 1000; ++n) logs[i]->Write(SampleRecord());
    });
  }
  for (uint32_t i = 0; i < 2; ++i) {
    threads[i]->Run([&](Worker&) {
      EXPECT_EQ(logs[i]->dropped_count(), 0u);
      logs[i].reset();
    });
    threads[i]->Stop();
  }
  MetricsPage page;
  writer->Collect(page);
  EXPECT_THAT(page.Text(), HasSubstr("dpa_access_log_lines_total 2000"));
  writer.reset();
  EXPECT_EQ(Lines(), 2000u);
}

TEST_F(AccessLogFile, DropsAndCountsRatherThanWaits) {
  // A pipe that nobody reads stands for a disk that has stopped.
  ASSERT_EQ(mkfifo(path_.c_str(), 0600), 0);
  const int reader = open(path_.c_str(), O_RDONLY | O_NONBLOCK);
  auto writer = AccessLogWriter::Open(path_).value();
  auto thread = WorkerThread::Start({}).value();
  std::unique_ptr<WorkerAccessLog> log;
  constexpr uint64_t kWritten = 20'000;
  thread->Run([&](Worker& worker) {
    log = std::make_unique<WorkerAccessLog>(worker, *writer);
    for (uint64_t n = 0; n < kWritten; ++n) log->Write(SampleRecord());
  });
  MetricsPage page;
  writer->Collect(page);  // A scrape does not wait for the disk either.
  const uint64_t dropped = log->dropped_count();
  EXPECT_GT(dropped, 0u);
  EXPECT_LT(dropped, kWritten);
  EXPECT_THAT(page.Text(), HasSubstr("dpa_access_log_dropped_total " + std::to_string(dropped)));
  // The disk comes back: what was not dropped arrives, in whole lines.
  uint64_t lines = 0;
  std::thread drain([&] {
    std::string chunk(1 << 16, '\0');
    fcntl(reader, F_SETFL, 0);
    ssize_t got;
    while ((got = read(reader, chunk.data(), chunk.size())) > 0) {
      lines += static_cast<uint64_t>(std::count(chunk.begin(), chunk.begin() + got, '\n'));
    }
  });
  thread->Run([&](Worker&) { log.reset(); });
  thread->Stop();
  writer.reset();
  drain.join();
  close(reader);
  EXPECT_EQ(lines, kWritten - dropped);
}

TEST_F(AccessLogFile, CountsExactlyWhatAFullDiskSwallowed) {
  // Goal: every record is counted once, written or dropped, and one torn line spoils no other. Method: a limit on the
  // size of files cuts a write in the middle, as a full disk does; then there is room again.
  struct sigaction ignore{};
  struct sigaction before{};
  ignore.sa_handler = SIG_IGN;
  sigaction(SIGXFSZ, &ignore, &before);
  rlimit unlimited;
  getrlimit(RLIMIT_FSIZE, &unlimited);
  constexpr uint64_t kWritten = 3000;
  auto writer = AccessLogWriter::Open(path_).value();
  auto thread = WorkerThread::Start({}).value();
  std::unique_ptr<WorkerAccessLog> log;
  const rlimit little{100'001, unlimited.rlim_max};
  setrlimit(RLIMIT_FSIZE, &little);
  const auto write_some = [&](uint64_t count) {
    thread->Run([&](Worker& worker) {
      if (!log) log = std::make_unique<WorkerAccessLog>(worker, *writer);
      for (uint64_t n = 0; n < count; ++n) log->Write(SampleRecord());
    });
  };
  const auto dropped = [&] {
    MetricsPage page;
    writer->Collect(page);
    const std::string text = page.Text();
    const std::string name = "\ndpa_access_log_dropped_total ";
    return std::stoull(text.substr(text.find(name) + name.size()));
  };
  write_some(kWritten / 2);
  for (int i = 0; i < 5000 && dropped() == 0; ++i) usleep(1000);
  EXPECT_GT(dropped(), 0u);
  thread->Run([&](Worker&) { log.reset(); });
  setrlimit(RLIMIT_FSIZE, &unlimited);
  sigaction(SIGXFSZ, &before, nullptr);
  write_some(kWritten / 2);
  thread->Run([&](Worker&) { log.reset(); });
  thread->Stop();
  const uint64_t lost = dropped();
  writer.reset();
  std::ifstream file(path_);
  uint64_t whole = 0;
  uint64_t torn = 0;
  for (std::string line; std::getline(file, line);) ++(json::accept(line) ? whole : torn);
  EXPECT_EQ(whole + lost, kWritten);
  EXPECT_LE(torn, 1u);
}

TEST_F(AccessLogFile, IsOpenedAnewAfterARotation) {
  auto writer = AccessLogWriter::Open(path_).value();
  const std::string rotated = path_ + ".1";
  ASSERT_EQ(rename(path_.c_str(), rotated.c_str()), 0);
  writer->Reopen();
  for (int i = 0; i < 5000 && access(path_.c_str(), F_OK) != 0; ++i) usleep(1000);
  EXPECT_EQ(access(path_.c_str(), F_OK), 0);
  unlink(rotated.c_str());
  EXPECT_THAT(AccessLogWriter::Open("/nowhere/at/all").error(), HasSubstr("/nowhere/at/all"));
}

TEST(Health, SpeaksKubernetes) {
  using Endpoint = HealthChecks::Endpoint;
  HealthChecks checks;
  bool broken = false;
  checks.Add("store", HealthChecks::Scope::kReady,
             [&broken] { return broken ? std::optional<std::string>("disk gone") : std::nullopt; });
  const auto text = [&](Endpoint endpoint, std::string_view name, std::string_view query, bool tell = false) {
    const HealthChecks::Answer answer = checks.Evaluate(endpoint, name, query, tell);
    return std::to_string(answer.status) + " " + answer.text;
  };
  EXPECT_EQ(text(Endpoint::kReadyz, "", ""), "200 ok");
  EXPECT_EQ(text(Endpoint::kReadyz, "", "verbose"), "200 [+]ping ok\n[+]store ok\nreadyz check passed\n");
  EXPECT_EQ(text(Endpoint::kLivez, "", "verbose=1"), "200 [+]ping ok\nlivez check passed\n");
  EXPECT_EQ(
      text(Endpoint::kReadyz, "", "exclude=nosuch&verbose&exclude=a%20b"),
      "200 [+]ping ok\n[+]store ok\nwarn: some health checks cannot be excluded: no matches for \"a b\", \"nosuch\"\n"
      "readyz check passed\n");
  EXPECT_EQ(text(Endpoint::kReadyz, "nosuch", ""), "404 404 page not found\n");
  EXPECT_EQ(text(Endpoint::kReadyz, "store", ""), "200 ok");
  broken = true;
  EXPECT_EQ(text(Endpoint::kReadyz, "", ""), "500 [+]ping ok\n[-]store failed: reason withheld\nreadyz check failed\n");
  EXPECT_EQ(text(Endpoint::kReadyz, "", "", true), "500 [+]ping ok\n[-]store failed: disk gone\nreadyz check failed\n");
  EXPECT_EQ(text(Endpoint::kReadyz, "", "exclude=store"), "200 ok");
  EXPECT_EQ(text(Endpoint::kReadyz, "store", ""), "500 internal server error: disk gone\n");
  EXPECT_EQ(text(Endpoint::kLivez, "", ""), "200 ok");
}

TEST(Health, OwnsItsPathsAndNoOthers) {
  HealthChecks checks;
  const LocalPaths local(checks, "1.2.3", false);
  for (const std::string_view path : {"/livez", "/readyz", "/healthz", "/version", "/readyz/ping", "/livez/"}) {
    EXPECT_TRUE(local.Owns(path)) << path;
  }
  for (const std::string_view path :
       {"/", "*", "/live", "/livezz", "/readyzz/x", "/version/", "/versions", "/apis", ""}) {
    EXPECT_FALSE(local.Owns(path)) << path;
  }
}

TEST(Metrics, KeepLabelsInClosedSets) {
  HttpMetrics metrics;
  AccessRecord record = SampleRecord();
  metrics.CountRequest(record);
  metrics.CountRequest(record);
  record.status = 777;  // A delegate may send any number.
  metrics.CountRequest(record);
  record.status = 499;
  record.reason = Reason::kClientClosed;
  record.route = "made up";
  metrics.CountRequest(record);
  MetricsPage page;
  metrics.Collect(page);
  const std::string text = page.Text();
  EXPECT_THAT(text, HasSubstr("dpa_http_requests_total{"));
  EXPECT_THAT(text, HasSubstr("code=\"200\""));
  EXPECT_THAT(text, HasSubstr("code=\"other\""));
  EXPECT_THAT(text, Not(HasSubstr("777")));
  EXPECT_THAT(text, Not(HasSubstr("made up")));
  uint64_t total = 0;
  metrics.requests.ForEach([&](size_t, int, Reason, uint64_t count) { total += count; });
  EXPECT_EQ(total, 4u);
}

TEST(Metrics, CountEveryRequestWhateverTheCombinations) {
  RequestCounters counters;
  uint64_t counted = 0;
  for (size_t route = 0; route < kRouteLabels.size(); ++route) {
    for (size_t reason = 0; reason < 10; ++reason) {
      for (int status = 100; status < 600; ++status, ++counted)
        counters.Count(route, status, static_cast<Reason>(reason));
    }
  }
  uint64_t total = 0;
  counters.ForEach([&](size_t route, int, Reason, uint64_t count) {
    EXPECT_LT(route, kRouteLabels.size());
    total += count;
  });
  EXPECT_EQ(total, counted);
}

TEST(DelegateUrls, AreParsedOrRefusedWithASentence) {
  const UpstreamUrl plain = ParseUpstreamUrl("http://127.0.0.1:3000/", Names::kLiteral).value();
  EXPECT_EQ(plain.address.ToString(), "127.0.0.1:3000");
  EXPECT_EQ(plain.path_prefix, "");
  EXPECT_EQ(plain.authority, "127.0.0.1:3000");
  const UpstreamUrl prefixed = ParseUpstreamUrl("http://localhost/a/b//", Names::kLiteral).value();
  EXPECT_EQ(prefixed.address.ToString(), "127.0.0.1:80");
  EXPECT_EQ(prefixed.path_prefix, "/a/b");
  EXPECT_EQ(ParseUpstreamUrl("http://[::1]:81/x", Names::kLiteral).value().address.ToString(), "[::1]:81");
  EXPECT_EQ(ParseUpstreamUrl("http://[::1]", Names::kLiteral).value().address.ToString(), "[::1]:80");
  EXPECT_TRUE(ParseUpstreamUrl("unix:/run/x", Names::kLiteral).value().address.is_unix());
  for (const std::string_view bad :
       {"", "127.0.0.1:80", "ftp://x", "https://127.0.0.1", "http://", "http:///x", "http://h:99999",
        "http://127.0.0.1:80/a?b", "http://127.0.0.1:80/a b", "http://name.test:80", "unix:"}) {
    EXPECT_FALSE(ParseUpstreamUrl(bad, Names::kLiteral)) << bad;
  }
}

TEST(Dates, AreImfFixdate) {
  DateClock clock;
  const std::string date(clock.At(1000));
  EXPECT_THAT(date, ::testing::MatchesRegex("[A-Z][a-z][a-z], [0-9][0-9] [A-Z][a-z][a-z] [0-9]+ [0-9:]+ GMT"));
  EXPECT_EQ(date.size(), 29u);
}

}  // namespace
}  // namespace dpa
