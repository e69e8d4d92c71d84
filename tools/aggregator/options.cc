#include "tools/aggregator/options.h"

#include <fmt/format.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <cerrno>
#include <cstring>
#include <fstream>
#include <functional>
#include <optional>
#include <tuple>
#include <utility>

#include "core/version.h"
#include "tools/aggregator/option_values.h"

namespace dpa {
namespace {

// One tunable: how it is called, what it means, and how its text becomes a member of Options.
struct Spec {
  std::string name;
  std::string_view group;
  std::string_view value_name;  // Empty: a switch, present or absent.
  std::string default_text;     // Empty: none.
  std::string_view help;
  std::string_view expected;  // Completes "expected …".
  bool repeatable = false;
  // False if the text is not of the form `expected`. Repeatable: called once per value, appending.
  std::function<bool(std::string_view text, Options& options)> apply;
  std::function<void(Options&)> clear;  // Repeatable only: drops the default before the first value.
  // What was expected of this very text; without it `expected`.
  std::function<std::string(std::string_view text)> expected_of = nullptr;
};

using Duration = Options::Duration;

Spec DurationSpec(std::string name, std::string_view group, Duration Options::* member, std::string_view help,
                  Duration least = Duration(1)) {
  return {std::move(name),
          group,
          "DURATION",
          FormatDuration(Options{}.*member),
          help,
          least == Duration(0) ? "a duration such as 10s, 500ms or 1m30s, or 0"
                               : "a duration above zero such as 10s, 500ms or 1m30s",
          false,
          [member, least](std::string_view text, Options& options) {
            const auto value = ParseDuration(text);
            if (!value || *value < least) return false;
            options.*member = *value;
            return true;
          },
          nullptr};
}

Spec BytesSpec(std::string name, std::string_view group, uint64_t Options::* member, uint64_t least, uint64_t most,
               std::string_view help, std::string_view expected) {
  return {std::move(name),
          group,
          "SIZE",
          FormatBytes(Options{}.*member),
          help,
          expected,
          false,
          [member, least, most](std::string_view text, Options& options) {
            const auto value = ParseBytes(text);
            if (!value || *value < least || *value > most) return false;
            options.*member = *value;
            return true;
          },
          nullptr};
}

template <class Number>
Spec CountSpec(std::string name, std::string_view group, Number Options::* member, uint32_t least, uint32_t most,
               std::string_view help, std::string_view expected) {
  return {std::move(name),
          group,
          "N",
          fmt::to_string(Options{}.*member),
          help,
          expected,
          false,
          [member, least, most](std::string_view text, Options& options) {
            const auto value = ParseCount(text);
            if (!value || *value < least || *value > most) return false;
            options.*member = *value;
            return true;
          },
          nullptr};
}

Spec PathSpec(std::string name, std::string_view group, std::string_view value_name, std::string Options::* member,
              std::string_view help) {
  return {std::move(name),
          group,
          value_name,
          Options{}.*member,
          help,
          "a path",
          false,
          [member](std::string_view text, Options& options) {
            options.*member = text;
            return !text.empty();
          },
          nullptr};
}

// Off unless given; as a flag it takes no value.
Spec SwitchSpec(std::string name, std::string_view group, bool Options::* member, std::string_view help) {
  return {std::move(name),
          group,
          "",
          "",
          help,
          "true or false",
          false,
          [member](std::string_view text, Options& options) {
            const auto value = ParseBool(text);
            if (value) options.*member = *value;
            return value.has_value();
          },
          nullptr};
}

Spec ListSpec(std::string name, std::string_view group, std::string_view value_name,
              std::vector<std::string> Options::* member, std::string_view help, std::string_view expected,
              std::function<std::optional<std::string>(std::string_view)> normalise) {
  const Options defaults;
  return {std::move(name),
          group,
          value_name,
          fmt::format("{}", fmt::join(defaults.*member, ",")),
          help,
          expected,
          true,
          [member, normalise = std::move(normalise)](std::string_view text, Options& options) {
            auto value = normalise(text);
            if (value) (options.*member).push_back(*std::move(value));
            return value.has_value();
          },
          [member](Options& options) { (options.*member).clear(); }};
}

Spec NetworksSpec(std::string name, std::string_view group, CidrSet Options::* member, std::string_view help) {
  return {std::move(name),
          group,
          "CIDR",
          "",
          help,
          "a network",
          true,
          [member](std::string_view text, Options& options) {
            const auto network = Cidr::Parse(text);
            if (network) (options.*member).Add(*network);
            return network.has_value();
          },
          [member](Options& options) { options.*member = {}; },
          [](std::string_view text) { return Cidr::Parse(text).error(); }};
}

template <class Enum>
Spec ChoiceSpec(std::string name, std::string_view group, Enum Options::* member, std::string_view default_text,
                std::string_view help, std::string_view expected,
                std::vector<std::pair<std::string_view, Enum>> choices) {
  return {std::move(name),
          group,
          "WORD",
          std::string(default_text),
          help,
          expected,
          false,
          [member, choices = std::move(choices)](std::string_view text, Options& options) {
            for (const auto& [word, value] : choices) {
              if (word != text) continue;
              options.*member = value;
              return true;
            }
            return false;
          },
          nullptr};
}

std::optional<std::string> AddressOrNothing(std::string_view text) {
  return IsAddress(text) ? std::optional<std::string>(text) : std::nullopt;
}

std::optional<std::string> PathOrNothing(std::string_view text) {
  return text.empty() ? std::nullopt : std::optional<std::string>(text);
}

constexpr std::string_view kAddressForm =
    "HOST:PORT, [IPV6]:PORT, :PORT (all interfaces) or unix:PATH (at most 107 bytes)";

void AddAddresses(std::vector<Spec>& specs) {
  constexpr std::string_view kGroup = "Addresses";
  specs.push_back(
      ListSpec("listen", kGroup, "ADDR", &Options::listen, "where clients connect", kAddressForm, AddressOrNothing));
  specs.push_back({"admin-listen", kGroup, "ADDR", Options{}.admin_listen,
                   "where /metrics, /livez, /readyz and /status are served", kAddressForm, false,
                   [](std::string_view text, Options& options) {
                     options.admin_listen = text;
                     return IsAddress(text);
                   },
                   nullptr});
  specs.push_back(ListSpec("delegate", kGroup, "URL", &Options::delegates,
                           "the next API server, which gets every request that no service claims; several are balanced",
                           "http://HOST[:PORT][/prefix] or unix:PATH (https is not supported by this version)",
                           NormaliseHttpUrl));
}

void AddSources(std::vector<Spec>& specs) {
  constexpr std::string_view kGroup = "Sources";
  specs.push_back(ListSpec("plugins", kGroup, "DIR", &Options::plugin_dirs,
                           "folder of Grafana plugin folders (plugin.json beside its executables)", "a path",
                           PathOrNothing));
  specs.push_back(ListSpec("datasources", kGroup, "PATH", &Options::datasources,
                           "data source settings: a provisioning YAML file, or a folder of them", "a path",
                           PathOrNothing));
  specs.push_back(PathSpec("services", kGroup, "DIR", &Options::services_dir,
                           "folder of DataPlaneService manifests (YAML or JSON), watched for changes"));
  specs.push_back(PathSpec("data-dir", kGroup, "DIR", &Options::data_dir,
                           "for what must outlive a restart; this version writes nothing there"));
}

void AddThreadsAndLogs(std::vector<Spec>& specs) {
  constexpr std::string_view kThreads = "Threads";
  specs.push_back(CountSpec("workers", kThreads, &Options::workers, 0, 1024,
                            "data plane threads; 0: one for each CPU of --cpus, or of this process",
                            "a number from 0 to 1024"));
  specs.push_back({"cpus", kThreads, "LIST", "", "CPUs that the workers are pinned to", "a list such as 0-3,8", false,
                   [](std::string_view text, Options& options) {
                     auto cpus = ParseCpuList(text);
                     if (cpus) options.cpus = *std::move(cpus);
                     return cpus.has_value();
                   },
                   nullptr});
  specs.push_back(ChoiceSpec<IoBackend>(
      "io-backend", kThreads, &Options::io_backend, "auto", "how the kernel is spoken to: auto, io_uring or epoll",
      "auto, io_uring or epoll",
      {{"auto", IoBackend::kAuto}, {"io_uring", IoBackend::kIoUring}, {"epoll", IoBackend::kEpoll}}));
  constexpr std::string_view kLogs = "Logs";
  specs.push_back(ChoiceSpec<LogLevel>("log-level", kLogs, &Options::log_level, "info",
                                       "least level that is written: debug, info, warn, error or off",
                                       "debug, info, warn, error or off",
                                       {{"debug", LogLevel::kDebug},
                                        {"info", LogLevel::kInfo},
                                        {"warn", LogLevel::kWarn},
                                        {"error", LogLevel::kError},
                                        {"off", LogLevel::kOff}}));
  specs.push_back(ChoiceSpec<LogFormat>("log-format", kLogs, &Options::log_format, "text",
                                        "text or JSON lines, on stderr", "text or json",
                                        {{"text", LogFormat::kText}, {"json", LogFormat::kJson}}));
  specs.push_back(PathSpec("access-log", kLogs, "PATH", &Options::access_log,
                           "one JSON line per request; -: standard output; off: none"));
}

void AddClients(std::vector<Spec>& specs) {
  constexpr std::string_view kGroup = "Clients";
  specs.push_back(DurationSpec("client-header-timeout", kGroup, &Options::client_header_timeout,
                               "from the first byte of a request head to its last; then 408"));
  specs.push_back(DurationSpec("client-body-timeout", kGroup, &Options::client_body_timeout,
                               "longest pause within a request body; then 408"));
  specs.push_back(
      BytesSpec("client-body-min-rate", kGroup, &Options::client_body_min_rate, 0, 1ull << 30,
                "bytes of a request body that must come in a second, after the grace; then 408; 0: no limit",
                "a size up to 1GiB"));
  specs.push_back(DurationSpec("client-body-grace", kGroup, &Options::client_body_grace,
                               "what a client may be slower with its body than --client-body-min-rate, in all",
                               Duration(0)));
  specs.push_back(DurationSpec("client-send-timeout", kGroup, &Options::client_send_timeout,
                               "longest time that a client takes nothing of its answer"));
  specs.push_back(DurationSpec("client-half-close-timeout", kGroup, &Options::client_half_close_timeout,
                               "how long a client that has ended its sending side is answered while it takes nothing; "
                               "0: it counts as gone at once",
                               Duration(0)));
  specs.push_back(DurationSpec("keepalive-timeout", kGroup, &Options::keepalive_timeout,
                               "how long an idle client connection is kept; 0: one request each", Duration(0)));
  specs.push_back(BytesSpec("max-header-bytes", kGroup, &Options::max_header_bytes, 1 << 10, 1 << 20,
                            "largest request head; above it 431", "a size from 1KiB to 1MiB"));
  specs.push_back(CountSpec("max-header-fields", kGroup, &Options::max_header_fields, 8, 10'000,
                            "most fields of a request head; above it 431", "a number from 8 to 10000"));
  specs.push_back(BytesSpec("max-target-bytes", kGroup, &Options::max_target_bytes, 256, 1 << 20,
                            "longest request target; above it 414", "a size from 256 bytes to 1MiB"));
  specs.push_back(BytesSpec("max-request-body-bytes", kGroup, &Options::max_request_body_bytes, 0, 1ull << 50,
                            "largest body of a request to the delegate; above it 413; 0: no limit",
                            "a size up to 1048576GiB"));
  specs.push_back(CountSpec("max-connections", kGroup, &Options::max_connections, 0, 100'000'000,
                            "client connections at once; above it 503; 0: by the limit on open files",
                            "a number from 0 to 100000000"));
  specs.push_back(
      CountSpec("max-connections-per-client", kGroup, &Options::max_connections_per_client, 0, 1'000'000,
                "connections at once of one IPv4 address or IPv6 /64, proxies of yours aside; above it 503; 0: "
                "no limit",
                "a number from 0 to 1000000"));
  specs.push_back(CountSpec("max-requests-per-connection", kGroup, &Options::max_requests_per_connection, 0,
                            1'000'000'000, "requests after which a client connection is closed; 0: no limit",
                            "a number from 0 to 1000000000"));
  specs.push_back(CountSpec("requests-in-flight-per-worker", kGroup, &Options::requests_in_flight_per_worker, 0,
                            10'000'000, "requests that a worker has under way at once; above it 503; 0: no limit",
                            "a number from 0 to 10000000"));
}

void AddIdentity(std::vector<Spec>& specs) {
  constexpr std::string_view kGroup = "Identity";
  specs.push_back(NetworksSpec("trusted-proxies", kGroup, &Options::trusted_proxies,
                               "proxies of yours in front: whom they say a request comes from is believed and passed "
                               "on, and their X-Request-Id kept; unix: peers on unix sockets"));
  specs.push_back(ChoiceSpec<ForwardedHeader>(
      "forwarded-header", kGroup, &Options::forwarded_header, "x-forwarded",
      "what trusted proxies say it with: x-forwarded (X-Forwarded-For, -Proto, -Host) or forwarded (RFC 7239); the "
      "other is removed",
      "x-forwarded or forwarded",
      {{"x-forwarded", ForwardedHeader::kXForwarded}, {"forwarded", ForwardedHeader::kForwarded}}));
  specs.push_back(NetworksSpec("proxy-protocol-from", kGroup, &Options::proxy_protocol_from,
                               "peers whose connections have to begin with a PROXY header, version 1 or 2; the address "
                               "in it is then the peer's"));
  specs.push_back(ChoiceSpec<bool>("request-id", kGroup, &Options::request_id, "on",
                                   "on: X-Request-Id is made, passed on and answered with; off: it is left as it comes",
                                   "on or off", {{"on", true}, {"off", false}}));
  specs.push_back(ChoiceSpec<bool>(
      "trace-context", kGroup, &Options::trace_context, "create",
      "create: a request without a valid traceparent gets one, not sampled; pass: it is left as it comes",
      "create or pass", {{"create", true}, {"pass", false}}));
}

void AddDelegate(std::vector<Spec>& specs) {
  constexpr std::string_view kGroup = "Delegate";
  specs.push_back(DurationSpec("delegate-connect-timeout", kGroup, &Options::delegate_connect_timeout,
                               "to open a connection to the delegate"));
  specs.push_back(DurationSpec("delegate-header-timeout", kGroup, &Options::delegate_header_timeout,
                               "from the end of the request to the delegate's answer head; then 504"));
  specs.push_back(DurationSpec("delegate-body-timeout", kGroup, &Options::delegate_body_timeout,
                               "longest silence within an answer's body; 0: none", Duration(0)));
  specs.push_back(DurationSpec("delegate-send-timeout", kGroup, &Options::delegate_send_timeout,
                               "longest time that the delegate takes nothing of a request; then 504"));
  specs.push_back(DurationSpec("delegate-request-timeout", kGroup, &Options::delegate_request_timeout,
                               "from a request's head to the last byte of its answer, tunnels excepted; then 504, or "
                               "the answer is broken off; 0: none",
                               Duration(0)));
  specs.push_back(DurationSpec("delegate-idle-timeout", kGroup, &Options::delegate_idle_timeout,
                               "how long an idle connection is kept; keep it below the delegate's own"));
  specs.push_back(DurationSpec("delegate-post-reuse-idle", kGroup, &Options::delegate_post_reuse_idle,
                               "longest idle time of a connection that gets a POST, PATCH or other request that cannot "
                               "be repeated; 0: always a new one",
                               Duration(0)));
  specs.push_back(DurationSpec("delegate-connection-max-age", kGroup, &Options::delegate_connection_max_age,
                               "age at which a connection is closed when idle, give or take a tenth; 0: never",
                               Duration(0)));
  specs.push_back(CountSpec("delegate-connection-max-requests", kGroup, &Options::delegate_connection_max_requests, 0,
                            1'000'000'000, "requests after which a connection is closed; 0: no limit",
                            "a number from 0 to 1000000000"));
  specs.push_back(CountSpec("delegate-retry-budget-percent", kGroup, &Options::delegate_retry_budget_percent, 0, 100,
                            "requests of a worker that may be repeated, of those of the last 10s",
                            "a number from 0 to 100"));
  specs.push_back(CountSpec("delegate-retry-min-per-second", kGroup, &Options::delegate_retry_min_per_second, 0,
                            1'000'000, "and this many per second besides", "a number from 0 to 1000000"));
  specs.push_back(CountSpec("pool-idle-per-worker", kGroup, &Options::pool_idle_per_worker, 0, 100'000,
                            "idle connections that a worker keeps", "a number from 0 to 100000"));
  specs.push_back(CountSpec("pool-connections-per-worker", kGroup, &Options::pool_connections_per_worker, 1, 100'000,
                            "connections to the delegate that a worker has at once", "a number from 1 to 100000"));
  specs.push_back(DurationSpec("pool-queue-timeout", kGroup, &Options::pool_queue_timeout,
                               "how long a request waits for one of them; then 503"));
  specs.push_back(CountSpec("pool-queue-per-worker", kGroup, &Options::pool_queue_per_worker, 0, 1'000'000,
                            "requests that may wait so; above it 503 at once", "a number from 0 to 1000000"));
  specs.push_back(DurationSpec("expect-continue-timeout", kGroup, &Options::expect_continue_timeout,
                               "how long the delegate may think about Expect: 100-continue before the client is told "
                               "to go on all the same; 0: it is told at once",
                               Duration(0)));
  specs.push_back(DurationSpec("tunnel-idle-timeout", kGroup, &Options::tunnel_idle_timeout,
                               "how long an upgraded connection may be silent both ways; 0: for ever", Duration(0)));
  specs.push_back(CountSpec("tunnels-per-worker", kGroup, &Options::tunnels_per_worker, 0, 100'000,
                            "upgraded connections that a worker has at once, out of those to the delegate; above it "
                            "503",
                            "a number from 0 to 100000"));
}

// Which of several delegates gets a request.
void AddDelegateHealth(std::vector<Spec>& specs) {
  constexpr std::string_view kGroup = "The delegate's health";
  specs.push_back(DurationSpec("delegate-resolve-interval", kGroup, &Options::delegate_resolve_interval,
                               "how often names of delegates and backends are resolved again; 0: once", Duration(0)));
  specs.push_back(CountSpec("delegate-eject-after", kGroup, &Options::delegate_eject_after, 0, 1'000'000,
                            "failures in a row after which an address gets no requests for a while; 0: never",
                            "a number from 0 to 1000000"));
  specs.push_back(DurationSpec("delegate-eject-time", kGroup, &Options::delegate_eject_time,
                               "how long, times the ejections in a row"));
  specs.push_back(
      DurationSpec("delegate-eject-time-max", kGroup, &Options::delegate_eject_time_max, "and how long at the most"));
  specs.push_back(CountSpec("delegate-eject-max-percent", kGroup, &Options::delegate_eject_max_percent, 0, 100,
                            "addresses that may be ejected at once; one always may if there are two; 0: none",
                            "a number from 0 to 100"));
  specs.push_back(DurationSpec("delegate-slow-start", kGroup, &Options::delegate_slow_start,
                               "how long the share of a new or returning address grows to its full size; 0: at once",
                               Duration(0)));
  specs.push_back({"delegate-health-path", kGroup, "PATH", "",
                   "asked of each address again and again, 200 to 399 is healthy; none: nothing is asked",
                   "a path such as /readyz", false,
                   [](std::string_view text, Options& options) {
                     options.delegate_health_path = text;
                     return text.empty() || IsRequestPath(text);
                   },
                   nullptr});
  specs.push_back(DurationSpec("delegate-health-interval", kGroup, &Options::delegate_health_interval,
                               "between two health checks"));
  specs.push_back(DurationSpec("delegate-health-timeout", kGroup, &Options::delegate_health_timeout,
                               "for connecting and answering one"));
  specs.push_back(CountSpec("delegate-health-fall", kGroup, &Options::delegate_health_fall, 1, 1000,
                            "failed ones in a row after which an address gets no requests", "a number from 1 to 1000"));
  specs.push_back(CountSpec("delegate-health-rise", kGroup, &Options::delegate_health_rise, 1, 1000,
                            "passed ones in a row after which it gets them again", "a number from 1 to 1000"));
}

void AddPlugins(std::vector<Spec>& specs) {
  constexpr std::string_view kGroup = "Plugins";
  specs.push_back(DurationSpec("plugin-start-timeout", kGroup, &Options::plugin_start_timeout,
                               "from launch to handshake and health; then it is killed and tried again"));
  specs.push_back(DurationSpec("plugin-call-timeout", kGroup, &Options::plugin_call_timeout,
                               "for one call; the plugin is told, too (grpc-timeout); then 504"));
  specs.push_back(DurationSpec("plugin-stop-timeout", kGroup, &Options::plugin_stop_timeout,
                               "from the request to stop to SIGKILL"));
  specs.push_back(DurationSpec("plugin-restart-backoff-min", kGroup, &Options::plugin_restart_backoff_min,
                               "pause before the first restart; doubles with each failure"));
  specs.push_back(DurationSpec("plugin-restart-backoff-max", kGroup, &Options::plugin_restart_backoff_max,
                               "longest pause before a restart"));
  specs.push_back(BytesSpec("max-plugin-request-bytes", kGroup, &Options::max_plugin_request_bytes, 1 << 10, 1ull << 30,
                            "largest body of a request to a plugin; above it 413", "a size from 1KiB to 1GiB"));
  specs.push_back(CountSpec("plugin-calls-per-worker", kGroup, &Options::plugin_calls_per_worker, 1, 1'000'000,
                            "calls in flight to one plugin from one worker; above it 503",
                            "a number from 1 to 1000000"));
}

void AddTheRest(std::vector<Spec>& specs) {
  constexpr std::string_view kBuffers = "Buffers";
  specs.push_back({"recv-buffers", kBuffers, "N", fmt::to_string(Options{}.recv_buffers),
                   "receive buffers of a worker, shared by its connections", "a power of two from 16 to 32768", false,
                   [](std::string_view text, Options& options) {
                     const auto count = ParseCount(text);
                     if (!count || *count < 16 || *count > 32768 || (*count & (*count - 1)) != 0) return false;
                     options.recv_buffers = *count;
                     return true;
                   },
                   nullptr});
  specs.push_back(
      BytesSpec("recv-buffer-bytes", kBuffers, &Options::recv_buffer_bytes, 4 << 10, 1 << 20,
                "size of one of them; a body or a tunnel holds about eight of them each way, however slow its reader",
                "a size from 4KiB to 1MiB"));
  specs.push_back(
      BytesSpec("socket-buffer-bytes", kBuffers, &Options::socket_buffer_bytes, 0, 1 << 30,
                "what the kernel may hold of a connection, each way, clients' and delegates'; it doubles the "
                "number; 0: by its own settings (tcp_rmem, tcp_wmem)",
                "a size from 0 to 1GiB"));
  constexpr std::string_view kProgram = "Program";
  specs.push_back(DurationSpec("drain-timeout", kProgram, &Options::drain_timeout,
                               "how long requests in flight may take after SIGTERM; 0: none are waited for",
                               Duration(0)));
  specs.push_back(SwitchSpec("check", kProgram, &Options::check,
                             "validate options, manifests, data sources and plugins, then exit with 0 or 1"));
}

std::vector<Spec> AllSpecs() {
  std::vector<Spec> specs;
  AddAddresses(specs);
  AddSources(specs);
  AddThreadsAndLogs(specs);
  AddClients(specs);
  AddIdentity(specs);
  AddDelegate(specs);
  AddDelegateHealth(specs);
  AddPlugins(specs);
  AddTheRest(specs);
  return specs;
}

std::string VariableName(std::string_view flag) {
  std::string name = "DPA_";
  for (const char c : flag) name += c == '-' ? '_' : static_cast<char>(std::toupper(static_cast<unsigned char>(c)));
  return name;
}

ExitNow UsageError(std::string text) { return {2, "dataplane-aggregator: " + std::move(text) + "\n"}; }

// The flag that has taken the place of an earlier one; empty if there is none.
std::string_view SuccessorOf(std::string_view name) { return name == "trust-forwarded" ? "trusted-proxies" : ""; }

// `prefix` is "--" for a flag, empty for a key of the file; the nearest known name is suggested if there is one.
ExitNow UnknownName(const std::vector<Spec>& specs, std::string_view what, std::string_view prefix,
                    std::string_view name) {
  std::vector<std::string_view> names{"config", "help", "version"};
  for (const Spec& spec : specs) names.push_back(spec.name);
  const std::string_view successor = SuccessorOf(name);
  const std::string_view nearest = successor.empty() ? Nearest(name, names) : successor;
  std::string text = fmt::format("{}{}: {}", prefix, name, what);
  if (!nearest.empty()) text += fmt::format("; did you mean {}{}?", prefix, nearest);
  return UsageError(text + " (--help lists all)");
}

// The values of one spec that one source gives, applied. `where` names flag, variable or file key for the error.
std::optional<ExitNow> Apply(const Spec& spec, std::vector<std::string> values, std::string_view source,
                             const std::string& where, Options& options) {
  if (!spec.repeatable) values.erase(values.begin(), values.end() - 1);  // The last one wins.
  if (spec.clear) spec.clear(options);
  for (const std::string& value : values) {
    if (!spec.apply(value, options)) {
      const std::string expected = spec.expected_of ? spec.expected_of(value) : std::string(spec.expected);
      return UsageError(fmt::format("{} {}: expected {}", where, Quoted(value), expected));
    }
    options.given.push_back({spec.name, value, source});
  }
  return std::nullopt;
}

std::vector<std::string> SplitAtCommas(const std::string& text) {
  std::vector<std::string> parts(1);
  for (const char c : text) {
    if (c == ',') {
      parts.emplace_back();
    } else {
      parts.back() += c;
    }
  }
  return parts;
}

using Values = std::map<std::string, std::vector<std::string>>;  // By the name of the flag.

// The file of --config: `name = value` lines in INI or TOML form.
std::variant<Values, ExitNow> ReadConfigFile(const std::string& path, const std::vector<Spec>& specs) {
  std::ifstream file(path);
  if (!file || (file.peek(), file.bad())) {
    return UsageError(fmt::format("--config {}: expected a readable file ({})", Quoted(path), std::strerror(errno)));
  }
  std::vector<CLI::ConfigItem> items;
  try {
    items = CLI::ConfigTOML().from_config(file);
  } catch (const CLI::Error& error) {
    return UsageError(
        fmt::format("--config {}: expected lines of the form name = value ({})", Quoted(path), error.what()));
  }
  Values values;
  for (const CLI::ConfigItem& item : items) {
    if (item.name == "++" || item.name == "--") continue;  // A [section] begins or ends: they only group lines.
    const auto spec = std::find_if(specs.begin(), specs.end(), [&](const Spec& s) { return s.name == item.name; });
    if (spec == specs.end()) return UnknownName(specs, fmt::format("unknown key in {}", path), "", item.name);
    // An unquoted comma splits a value, as in `cpus = 0,2`.
    std::vector<std::string> inputs =
        spec->repeatable ? item.inputs : std::vector<std::string>{fmt::format("{}", fmt::join(item.inputs, ","))};
    auto& known = values[item.name];
    known.insert(known.end(), inputs.begin(), inputs.end());
  }
  return values;
}

std::string HelpText(const std::vector<Spec>& specs) {
  std::string text =
      "Usage: dataplane-aggregator [FLAG]...\n\n"
      "A reverse proxy in front of a Grafana or Kubernetes API server: routes that a DataPlaneService declares are "
      "answered\n"
      "by backend plugins over gRPC, everything else by the next API server (--delegate).\n\n"
      "Each flag is also a variable (--drain-timeout: DPA_DRAIN_TIMEOUT) and a key of the --config file\n"
      "(drain-timeout = 10s). A flag wins over the environment, that over the file, that over the default.\n"
      "A flag marked + may be repeated.\n";
  std::string_view group;
  const auto line = [&text](std::string flag, std::string_view value, std::string_view help) {
    if (!value.empty()) flag += fmt::format(" {}", value);
    text += fmt::format("  {:<42} {}\n", flag, help);
  };
  for (const Spec& spec : specs) {
    if (spec.group != group) text += fmt::format("\n{}:\n", group = spec.group);
    const std::string_view mark = spec.repeatable ? " +" : "";
    const std::string help =
        spec.default_text.empty() ? std::string(spec.help) : fmt::format("{} [{}]", spec.help, spec.default_text);
    line("--" + spec.name, fmt::format("{}{}", spec.value_name, mark), help);
  }
  line("--config", "FILE", "read options from this file (INI or TOML)");
  line("--version", "", "print the version and exit");
  line("--help", "", "print this and exit");
  text +=
      "\nDURATION: 500ms, 10s, 1m30s, 2h. SIZE: bytes, or 64KiB, 16MiB, 1GiB. ADDR: HOST:PORT, [IPV6]:PORT, :PORT, "
      "unix:PATH.\n"
      "Signals: SIGTERM or SIGINT drains and exits, a second one exits at once; SIGHUP reloads.\n";
  return text;
}

struct CommandLine {
  Values values;
  std::optional<std::string> config_path;
};

// argv into values by flag. CLI11 does the splitting; the sentences are ours.
std::variant<CommandLine, ExitNow> ReadCommandLine(int argc, const char* const* argv, const std::vector<Spec>& specs) {
  CLI::App app;
  app.set_help_flag();
  app.allow_extras();
  std::map<std::string, CLI::Option*> options;
  CommandLine line;
  std::string config;
  bool help = false, version = false;
  for (const Spec& spec : specs) {
    auto& raw = line.values[spec.name];
    options[spec.name] = spec.value_name.empty() ? app.add_flag("--" + spec.name, raw)
                                                 : app.add_option("--" + spec.name, raw)
                                                       ->type_size(1)
                                                       ->expected(1)
                                                       ->multi_option_policy(CLI::MultiOptionPolicy::TakeAll);
  }
  auto* config_option = app.add_option("--config", config);
  app.add_flag("--help,-h", help);
  app.add_flag("--version", version);
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    const std::string what = error.what();  // "--workers: 1 required TEXT missing"
    const std::string name = what.substr(0, what.find(':'));
    return UsageError(fmt::format("{}: expected a value after it", name));
  }
  if (help) return ExitNow{0, HelpText(specs)};
  if (version) return ExitNow{0, fmt::format("dataplane-aggregator {} ({})\n", kVersion, kCompiler)};
  for (const std::string& extra : app.remaining()) {
    if (!extra.starts_with("--"))
      return UsageError(fmt::format("{}: expected only flags (--help lists them)", Quoted(extra)));
    return UnknownName(specs, "unknown flag", "--", std::string_view(extra).substr(2, extra.find('=') - 2));
  }
  std::erase_if(line.values, [&](const auto& entry) { return options[entry.first]->count() == 0; });
  if (config_option->count() > 0) line.config_path = config;
  return line;
}

// Rules between options, each a sentence if broken.
std::optional<ExitNow> CheckTogether(const Options& options) {
  if (options.plugin_restart_backoff_min > options.plugin_restart_backoff_max) {
    return UsageError(fmt::format(
        "--plugin-restart-backoff-min \"{}\": expected at most --plugin-restart-backoff-max ({})",
        FormatDuration(options.plugin_restart_backoff_min), FormatDuration(options.plugin_restart_backoff_max)));
  }
  if (!options.cpus.empty() && options.workers > options.cpus.size()) {
    return UsageError(fmt::format("--workers \"{}\": expected at most one for each of the {} CPUs of --cpus",
                                  options.workers, options.cpus.size()));
  }
  for (const std::string& address : options.listen) {
    if (address != options.admin_listen || address.ends_with(":0")) continue;
    return UsageError(fmt::format("--admin-listen \"{}\": expected an address other than --listen", address));
  }
  return std::nullopt;
}

}  // namespace

Environment ProcessEnvironment() {
  Environment environment;
  for (char** entry = environ; entry != nullptr && *entry != nullptr; ++entry) {
    const std::string_view text(*entry);
    const size_t equals = text.find('=');
    if (!text.starts_with("DPA_") || equals == std::string_view::npos) continue;
    environment.emplace(text.substr(0, equals), text.substr(equals + 1));
  }
  return environment;
}

std::variant<Options, ExitNow> ParseOptions(int argc, const char* const* argv, const Environment& environment) {
  const std::vector<Spec> specs = AllSpecs();
  auto read = ReadCommandLine(argc, argv, specs);
  if (auto* exit = std::get_if<ExitNow>(&read)) return *std::move(exit);
  CommandLine& line = std::get<CommandLine>(read);
  if (const auto variable = environment.find("DPA_CONFIG"); !line.config_path && variable != environment.end()) {
    line.config_path = variable->second;
  }
  Values file;
  if (line.config_path) {
    auto values = ReadConfigFile(*line.config_path, specs);
    if (auto* exit = std::get_if<ExitNow>(&values)) return *std::move(exit);
    file = std::get<Values>(std::move(values));
  }

  Options options;
  Environment unknown = environment;
  unknown.erase("DPA_CONFIG");
  for (const Spec& spec : specs) {
    const std::string variable = VariableName(spec.name);
    unknown.erase(variable);
    const auto from_environment = environment.find(variable);
    std::optional<ExitNow> error;
    if (const auto flag = line.values.find(spec.name); flag != line.values.end()) {
      error = Apply(spec, flag->second, "flag", "--" + spec.name, options);
    } else if (from_environment != environment.end()) {
      const std::string& value = from_environment->second;
      error = Apply(spec, spec.repeatable ? SplitAtCommas(value) : std::vector<std::string>{value}, "environment",
                    variable, options);
    } else if (const auto key = file.find(spec.name); key != file.end()) {
      error = Apply(spec, key->second, "file", fmt::format("{}: {} =", *line.config_path, spec.name), options);
    }
    if (error) return *std::move(error);
  }
  if (auto error = CheckTogether(options)) return *std::move(error);
  for (const auto& [name, value] : unknown) options.unknown_environment.push_back(name);
  return options;
}

std::string FormatDuration(Options::Duration duration) {
  auto left = static_cast<uint64_t>(duration.count());
  if (left == 0) return "0";
  std::string text;
  for (const auto& [unit, unit_ms] :
       {std::pair<const char*, uint64_t>{"h", 3'600'000}, {"m", 60'000}, {"s", 1'000}, {"ms", 1}}) {
    // 75s and 90s read better than 1m15s and 1m30s; minutes only where they are whole.
    if (unit_ms == 60'000 && left % 60'000 != 0 && left < 600'000) continue;
    if (left >= unit_ms) text += fmt::format("{}{}", left / unit_ms, unit);
    left %= unit_ms;
  }
  return text;
}

std::string FormatBytes(uint64_t bytes) {
  for (const auto& [unit, shift] : {std::pair<const char*, int>{"GiB", 30}, {"MiB", 20}, {"KiB", 10}}) {
    if (bytes != 0 && bytes % (1ull << shift) == 0) return fmt::format("{}{}", bytes >> shift, unit);
  }
  return fmt::to_string(bytes);
}

std::string_view ToString(IoBackend backend) {
  switch (backend) {
    case IoBackend::kAuto:
      return "auto";
    case IoBackend::kIoUring:
      return "io_uring";
    case IoBackend::kEpoll:
      return "epoll";
  }
  return "auto";
}

}  // namespace dpa
