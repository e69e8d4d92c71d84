// Goal: an operator who makes a slip is told in one line what is wrong, and a value means what its text says wherever
// it comes from. Method: ParseOptions on made-up command lines, environments and files; nothing of the real process is
// read.

#include "tools/aggregator/options.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <sstream>

#include "tools/aggregator/option_values.h"

namespace dpa {
namespace {

using std::chrono::milliseconds;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

std::variant<Options, ExitNow> Parse(std::vector<const char*> arguments, const Environment& environment = {}) {
  arguments.insert(arguments.begin(), "dataplane-aggregator");
  return ParseOptions(static_cast<int>(arguments.size()), arguments.data(), environment);
}

Options Good(std::vector<const char*> arguments, const Environment& environment = {}) {
  auto parsed = Parse(std::move(arguments), environment);
  if (const auto* exit = std::get_if<ExitNow>(&parsed)) {
    ADD_FAILURE() << exit->text;
    return {};
  }
  return std::get<Options>(parsed);
}

// The one line of a usage error; empty (and a failure) if there was none.
std::string UsageLine(std::vector<const char*> arguments, const Environment& environment = {}) {
  auto parsed = Parse(std::move(arguments), environment);
  const auto* exit = std::get_if<ExitNow>(&parsed);
  if (exit == nullptr) {
    ADD_FAILURE() << "accepted";
    return {};
  }
  EXPECT_EQ(exit->code, 2) << exit->text;
  EXPECT_EQ(std::count(exit->text.begin(), exit->text.end(), '\n'), 1) << exit->text;
  EXPECT_TRUE(exit->text.ends_with('\n'));
  return exit->text;
}

class ConfigFile {
 public:
  explicit ConfigFile(const std::string& text)
      : path_(
            std::filesystem::temp_directory_path() /
            ("dpa_options_" + std::string(::testing::UnitTest::GetInstance()->current_test_info()->name()) + ".toml")) {
    std::ofstream(path_) << text;
  }
  ~ConfigFile() { std::filesystem::remove(path_); }
  const char* path() const { return path_.c_str(); }

 private:
  std::filesystem::path path_;
};

TEST(OptionsTest, DefaultsAreThoseOfTheManual) {
  const Options options = Good({});
  EXPECT_THAT(options.listen, ElementsAre("127.0.0.1:8080"));
  EXPECT_EQ(options.admin_listen, "127.0.0.1:9901");
  EXPECT_THAT(options.delegates, IsEmpty());
  EXPECT_EQ(options.data_dir, "./data");
  EXPECT_EQ(options.workers, 0u);
  EXPECT_EQ(options.access_log, "-");
  EXPECT_EQ(options.client_header_timeout, milliseconds(10'000));
  EXPECT_EQ(options.delegate_idle_timeout, milliseconds(55'000));
  EXPECT_EQ(options.max_header_bytes, 65536u);
  EXPECT_EQ(options.max_plugin_request_bytes, 16u << 20);
  EXPECT_FALSE(options.check);
  EXPECT_THAT(options.given, IsEmpty());
}

TEST(OptionsTest, EveryFlagIsReadInBothForms) {
  const Options options = Good({"--listen",
                                "0.0.0.0:80",
                                "--listen=[::]:80",
                                "--listen",
                                "unix:/run/dpa.sock",
                                "--admin-listen=localhost:1",
                                "--delegate",
                                "http://api.example",
                                "--plugins=a",
                                "--plugins",
                                "b",
                                "--datasources",
                                "ds.yaml",
                                "--services",
                                "services",
                                "--data-dir",
                                "state",
                                "--cpus",
                                "2,0-1",
                                "--workers",
                                "2",
                                "--io-backend",
                                "io_uring",
                                "--log-level",
                                "warn",
                                "--log-format",
                                "json",
                                "--access-log",
                                "off",
                                "--drain-timeout",
                                "1m30s",
                                "--max-plugin-request-bytes",
                                "64KiB",
                                "--recv-buffers",
                                "1024",
                                "--max-connections",
                                "10",
                                "--check"});
  EXPECT_THAT(options.listen, ElementsAre("0.0.0.0:80", "[::]:80", "unix:/run/dpa.sock"));
  EXPECT_EQ(options.admin_listen, "localhost:1");
  EXPECT_THAT(options.delegates, ElementsAre("http://api.example:80"));
  EXPECT_THAT(options.plugin_dirs, ElementsAre("a", "b"));
  EXPECT_THAT(options.datasources, ElementsAre("ds.yaml"));
  EXPECT_EQ(options.services_dir, "services");
  EXPECT_EQ(options.data_dir, "state");
  EXPECT_THAT(options.cpus, ElementsAre(0, 1, 2));
  EXPECT_EQ(options.workers, 2u);
  EXPECT_EQ(options.io_backend, IoBackend::kIoUring);
  EXPECT_EQ(options.log_level, LogLevel::kWarn);
  EXPECT_EQ(options.log_format, LogFormat::kJson);
  EXPECT_EQ(options.access_log, "off");
  EXPECT_EQ(options.drain_timeout, milliseconds(90'000));
  EXPECT_EQ(options.max_plugin_request_bytes, 65536u);
  EXPECT_EQ(options.recv_buffers, 1024u);
  EXPECT_EQ(options.max_connections, 10u);
  EXPECT_TRUE(options.check);
}

TEST(OptionsTest, FlagWinsOverEnvironmentOverFileOverDefault) {
  const ConfigFile file(
      "# limits\ndrain-timeout = \"1s\"\nkeepalive-timeout = 2s\nclient-body-timeout = 3s\n"
      "plugins = [\"x\", \"y\"]\ncpus = 0,2\n[logs]\nlog-level = \"error\"\n");
  const Options options = Good({"--config", file.path(), "--drain-timeout", "11s"},
                               {{"DPA_DRAIN_TIMEOUT", "21s"}, {"DPA_KEEPALIVE_TIMEOUT", "22s"}});
  EXPECT_EQ(options.drain_timeout, milliseconds(11'000));
  EXPECT_EQ(options.keepalive_timeout, milliseconds(22'000));
  EXPECT_EQ(options.client_body_timeout, milliseconds(3'000));
  EXPECT_EQ(options.client_header_timeout, milliseconds(10'000));
  EXPECT_THAT(options.plugin_dirs, ElementsAre("x", "y"));
  EXPECT_THAT(options.cpus, ElementsAre(0, 2));
  EXPECT_EQ(options.log_level, LogLevel::kError);
  ASSERT_EQ(options.given.size(), 7u);
  const auto drain = std::find_if(options.given.begin(), options.given.end(),
                                  [](const Options::Given& given) { return given.name == "drain-timeout"; });
  EXPECT_EQ(drain->source, "flag");
  EXPECT_EQ(drain->value, "11s");
}

TEST(OptionsTest, TheEnvironmentNamesTheFileAndListsTakeCommas) {
  const ConfigFile file("workers = 3\n");
  const Options options = Good({}, {{"DPA_CONFIG", file.path()}, {"DPA_LISTEN", "a:1,b:2"}, {"DPA_CHECK", "true"}});
  EXPECT_EQ(options.workers, 3u);
  EXPECT_THAT(options.listen, ElementsAre("a:1", "b:2"));
  EXPECT_TRUE(options.check);
}

TEST(OptionsTest, AnUnknownVariableIsReportedButNoError) {
  EXPECT_THAT(Good({}, {{"DPA_PORT", "tcp://10.0.0.1:80"}}).unknown_environment, ElementsAre("DPA_PORT"));
}

TEST(OptionsTest, TheLastValueOfAFlagThatIsNotAListWins) {
  EXPECT_EQ(Good({"--workers", "1", "--workers", "2"}).workers, 2u);
}

TEST(OptionsTest, AnUnknownFlagIsNamedWithTheNearestOne) {
  EXPECT_EQ(UsageLine({"--lisen", "x:1"}),
            "dataplane-aggregator: --lisen: unknown flag; did you mean --listen? (--help lists all)\n");
  EXPECT_THAT(UsageLine({"--drain-timeouts=3s"}), HasSubstr("did you mean --drain-timeout?"));
  EXPECT_THAT(UsageLine({"--delegates=http://a"}), HasSubstr("did you mean --delegate?"));
  EXPECT_EQ(UsageLine({"--xyzzyplugh"}), "dataplane-aggregator: --xyzzyplugh: unknown flag (--help lists all)\n");
  EXPECT_THAT(UsageLine({"serve"}), HasSubstr("\"serve\": expected only flags"));
}

TEST(OptionsTest, AFlagWithoutItsValueIsNamed) {
  EXPECT_EQ(UsageLine({"--workers"}), "dataplane-aggregator: --workers: expected a value after it\n");
  EXPECT_THAT(UsageLine({"--config"}), HasSubstr("--config: expected a value"));
}

TEST(OptionsTest, AMalformedValueIsNamedWithWhatWasExpected) {
  const struct {
    const char* flag;
    const char* value;
    const char* expected;
  } kRows[] = {
      {"--listen", "8080", "HOST:PORT"},
      {"--listen", ":", "HOST:PORT"},
      {"--listen", "127.0.0.1:99999", "HOST:PORT"},
      {"--listen", "127.0.0.1:8o80", "HOST:PORT"},
      {"--listen", "::1:8080", "HOST:PORT"},
      {"--listen", "unix:", "unix:PATH"},
      {"--admin-listen", "a b:1", "HOST:PORT"},
      {"--delegate", "api.example:80", "http://HOST"},
      {"--delegate", "https://api.example", "https is not supported"},
      {"--delegate", "http://a/b?c=d", "http://HOST"},
      {"--delegate", "http://user@a", "http://HOST"},
      {"--delegate", "http://", "http://HOST"},
      {"--plugins", "", "a path"},
      {"--workers", "two", "a number from 0 to 1024"},
      {"--workers", "-1", "a number from 0 to 1024"},
      {"--workers", "1025", "a number from 0 to 1024"},
      {"--cpus", "3-1", "a list such as 0-3,8"},
      {"--cpus", "1,,2", "a list such as 0-3,8"},
      {"--io-backend", "iouring", "auto, io_uring or epoll"},
      {"--log-level", "INFO", "debug, info, warn, error or off"},
      {"--drain-timeout", "10", "a duration"},
      {"--drain-timeout", "10 s", "a duration"},
      {"--drain-timeout", "5s1m", "a duration"},
      {"--drain-timeout", "-5s", "a duration"},
      {"--client-header-timeout", "0", "a duration above zero"},
      {"--plugin-call-timeout", "99999999999999999999s", "a duration"},
      {"--max-header-bytes", "64kb", "a size from 1KiB to 1MiB"},
      {"--max-header-bytes", "2MiB", "a size from 1KiB to 1MiB"},
      {"--recv-buffers", "500", "a power of two"},
  };
  for (const auto& row : kRows) {
    const std::string argument = std::string(row.flag) + "=" + row.value;
    const std::string line = UsageLine({row.flag, row.value});
    EXPECT_THAT(line, HasSubstr(std::string(row.flag) + " \"" + row.value + "\": expected ")) << argument;
    EXPECT_THAT(line, HasSubstr(row.expected)) << argument;
  }
}

TEST(OptionsTest, AnErrorNamesTheVariableOrTheFileThatItCameFrom) {
  EXPECT_THAT(UsageLine({}, {{"DPA_WORKERS", "many"}}), HasSubstr("DPA_WORKERS \"many\": expected a number"));
  const ConfigFile file("workers = many\n");
  EXPECT_THAT(UsageLine({"--config", file.path()}),
              HasSubstr(std::string(file.path()) + ": workers = \"many\": expected"));
}

TEST(OptionsTest, AnUnknownKeyOfTheFileIsNamedWithTheNearestOne) {
  const ConfigFile file("worker = 3\n");
  EXPECT_THAT(UsageLine({"--config", file.path()}), HasSubstr("worker: unknown key in "));
  EXPECT_THAT(UsageLine({"--config", file.path()}), HasSubstr("did you mean workers?"));
}

TEST(OptionsTest, AFileThatCannotBeReadIsNamed) {
  EXPECT_THAT(UsageLine({"--config", "/nonexistent/dpa.toml"}),
              HasSubstr("--config \"/nonexistent/dpa.toml\": expected a readable file (No such file or directory)"));
}

TEST(OptionsTest, OptionsThatContradictEachOtherAreRefused) {
  EXPECT_THAT(UsageLine({"--plugin-restart-backoff-min", "40s"}),
              HasSubstr("at most --plugin-restart-backoff-max (30s)"));
  EXPECT_THAT(UsageLine({"--cpus", "0", "--workers", "2"}), HasSubstr("--workers \"2\""));
  EXPECT_THAT(UsageLine({"--admin-listen", "127.0.0.1:8080"}), HasSubstr("other than --listen"));
}

TEST(OptionsTest, HelpListsEveryFlagWithItsDefaultInGroups) {
  auto parsed = Parse({"--help"});
  const auto& exit = std::get<ExitNow>(parsed);
  EXPECT_EQ(exit.code, 0);
  for (const char* text : {"Addresses:", "Plugins:", "--listen ADDR +", "[127.0.0.1:8080]", "[64KiB]", "[55s]",
                           "--check ", "--config FILE", "--recv-buffer-bytes SIZE"}) {
    EXPECT_THAT(exit.text, HasSubstr(text));
  }
}

// The table of the README is written by hand, in the words of --help; this is what keeps it true.
TEST(OptionsTest, TheReadmeListsEveryFlagWithItsDefault) {
  std::ifstream file(DPA_SOURCE_DIR "/README.md");
  const std::string readme((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
  auto parsed = Parse({"--help"});
  std::istringstream help(std::get<ExitNow>(parsed).text);
  size_t flags_count = 0;
  for (std::string line; std::getline(help, line);) {
    if (!line.starts_with("  --")) continue;
    const std::string flag = line.substr(2, line.find("  ", 2) - 2);
    const size_t bracket = line.ends_with(']') ? line.rfind(" [") : std::string::npos;
    const std::string value =
        bracket == std::string::npos ? "" : "`" + line.substr(bracket + 2, line.size() - bracket - 3) + "`";
    EXPECT_THAT(readme, HasSubstr("| `" + flag + "` | " + value)) << line;
    ++flags_count;
  }
  EXPECT_GT(flags_count, 30u);
}

TEST(OptionsTest, VersionIsOneLine) {
  auto parsed = Parse({"--version"});
  EXPECT_THAT(std::get<ExitNow>(parsed).text, ::testing::StartsWith("dataplane-aggregator "));
}

TEST(OptionValuesTest, AFormattedDurationOrSizeReadsBackAsItself) {
  for (const int64_t ms : {0, 1, 500, 1000, 1500, 55'000, 75'000, 90'000, 120'000, 3'600'000, 5'400'000, 86'400'001}) {
    EXPECT_EQ(ParseDuration(FormatDuration(milliseconds(ms))), milliseconds(ms)) << FormatDuration(milliseconds(ms));
  }
  for (const uint64_t bytes : {0ull, 1ull, 1023ull, 1024ull, 65536ull, 1ull << 20, 3ull << 30}) {
    EXPECT_EQ(ParseBytes(FormatBytes(bytes)), bytes) << FormatBytes(bytes);
  }
}

TEST(OptionValuesTest, UrlsAreNormalisedToHostPortAndPrefixWithoutTrailingSlash) {
  EXPECT_EQ(NormaliseHttpUrl("http://a"), "http://a:80");
  EXPECT_EQ(NormaliseHttpUrl("http://a:81/"), "http://a:81");
  EXPECT_EQ(NormaliseHttpUrl("http://[::1]/x/y/"), "http://[::1]:80/x/y");
  EXPECT_EQ(NormaliseHttpUrl("http://[::1]:9/x"), "http://[::1]:9/x");
  EXPECT_EQ(NormaliseHttpUrl("unix:/run/a.sock"), "unix:/run/a.sock");
  EXPECT_EQ(NormaliseHttpUrl("http://a:0"), std::nullopt);
}

TEST(OptionValuesTest, AnAddressIsCheckedByItsForm) {
  EXPECT_TRUE(IsAddress(":8080"));
  EXPECT_TRUE(IsAddress("unix:" + std::string(107, 'a')));
  EXPECT_FALSE(IsAddress("unix:" + std::string(108, 'a')));
}

TEST(OptionsTest, NetworksAreGivenOneByOne) {
  const Options options =
      Good({"--trusted-proxies", "10.0.0.0/8", "--trusted-proxies=2001:db8::/32", "--trusted-proxies", "unix"},
           {{"DPA_PROXY_PROTOCOL_FROM", "192.0.2.1,192.0.2.4/30"}});
  EXPECT_TRUE(options.trusted_proxies.Contains(*IpAddress::Parse("10.1.2.3")));
  EXPECT_TRUE(options.trusted_proxies.Contains(*IpAddress::Parse("2001:db8::1")));
  EXPECT_TRUE(options.trusted_proxies.Contains(IpAddress::Unix()));
  EXPECT_FALSE(options.trusted_proxies.Contains(*IpAddress::Parse("127.0.0.1")));
  EXPECT_TRUE(options.proxy_protocol_from.Contains(*IpAddress::Parse("192.0.2.5")));
  EXPECT_FALSE(options.proxy_protocol_from.Contains(*IpAddress::Parse("192.0.2.2")));
  EXPECT_TRUE(Good({}).trusted_proxies.empty());
  EXPECT_TRUE(Good({}).proxy_protocol_from.empty());
}

TEST(OptionsTest, ANetworkThatIsNoneIsToldWithTheRightOne) {
  EXPECT_THAT(UsageLine({"--trusted-proxies", "10.1.2.3/8"}),
              HasSubstr("--trusted-proxies \"10.1.2.3/8\": expected 10.0.0.0/8, the network that 10.1.2.3 is in"));
  EXPECT_THAT(UsageLine({"--proxy-protocol-from", "localhost"}), HasSubstr("expected an address such as 192.0.2.1"));
  EXPECT_THAT(UsageLine({"--proxy-protocol-from", "::/129"}), HasSubstr("a prefix length from 0 to 128"));
  EXPECT_THAT(UsageLine({"--forwarded-header", "both"}), HasSubstr("expected x-forwarded or forwarded"));
}

TEST(OptionsTest, AFormerFlagLeadsToItsSuccessor) {
  EXPECT_THAT(UsageLine({"--trust-forwarded"}),
              HasSubstr("--trust-forwarded: unknown flag; did you mean --trusted-proxies?"));
  const ConfigFile file("trust-forwarded = true\n");
  EXPECT_THAT(UsageLine({"--config", file.path()}), HasSubstr("did you mean trusted-proxies?"));
}

}  // namespace
}  // namespace dpa
