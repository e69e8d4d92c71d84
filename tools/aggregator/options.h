// Options are what the operator chose: every tunable of the program in one plain struct, read once at start and never
// changed.
//
// A value comes from the first of these that has it: a flag (`--drain-timeout 10s`), the environment
// (`DPA_DRAIN_TIMEOUT=10s`), the file of `--config` (`drain-timeout = 10s`), the default. A flag that may be repeated
// takes a comma-separated list in the environment and an array in the file; one that may not takes the last value
// given.
//
//     duration   500ms  10s  1m30s  2h      a unit is required, except for 0
//     size       4096  64KiB  16MiB  1GiB   no unit means bytes
//     address    HOST:PORT  [IPV6]:PORT  :PORT  unix:PATH
//
// ParseOptions is pure but for reading the file of `--config`: it checks the form of every value, not whether folders
// exist or ports are free. Whatever is malformed ends in one line that names the flag, the value, and what was
// expected.

#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "core/cidr.h"
#include "core/log.h"
#include "http/forwarded.h"

namespace dpa {

// kAuto: io_uring; where it is refused or fails its self-test, epoll with a warning that says why.
enum class IoBackend : uint8_t { kAuto, kIoUring, kEpoll };

struct Options {
  using Duration = std::chrono::milliseconds;

  // Addresses.
  std::vector<std::string> listen{"127.0.0.1:8080"};
  std::string admin_listen = "127.0.0.1:9901";
  std::vector<std::string> delegates;  // Normalised: "http://HOST:PORT[/prefix]" or "unix:PATH".

  // Sources.
  std::vector<std::string> plugin_dirs;
  std::vector<std::string> datasources;
  std::string services_dir;  // Empty: none.
  std::string data_dir = "./data";

  // Threads.
  uint32_t workers = 0;   // 0: as many as `cpus` names, or as this process may run on.
  std::vector<int> cpus;  // Sorted, without duplicates. Empty: not pinned to particular CPUs.
  IoBackend io_backend = IoBackend::kAuto;

  // Logs.
  LogLevel log_level = LogLevel::kInfo;
  LogFormat log_format = LogFormat::kText;
  std::string access_log = "-";  // "-": standard output; "off": none; otherwise a path.

  // Clients.
  Duration client_header_timeout{10'000};
  Duration client_body_timeout{30'000};
  // As long as the body timeout: a client that takes nothing holds as much as one that sends nothing.
  Duration client_send_timeout{30'000};
  // A client that has ended its sending side may be waiting for its answer or have left. What a dashboard asks for and
  // then cancels must not be worked on for much longer.
  Duration client_half_close_timeout{1'000};
  Duration keepalive_timeout{75'000};
  // Apache and Kestrel cut off slow bodies so, too. The rate is far below any network of use, yet a body that keeps to
  // it ends; the grace is as long as a whole head may take.
  uint64_t client_body_min_rate = 240;  // Bytes a second. 0: no limit.
  Duration client_body_grace{10'000};
  uint64_t max_header_bytes = 64 << 10;
  uint32_t max_header_fields = 128;          // Browsers send about twenty; each is 32 bytes of every request's memory.
  uint64_t max_target_bytes = 16 << 10;      // Queries in URLs get long; servers behind us mostly stop at 8 KiB.
  uint64_t max_request_body_bytes = 0;       // Bodies are streamed: no length costs memory here. 0: no limit.
  uint32_t max_requests_per_connection = 0;  // A connection costs nothing by growing old. 0: no limit.
  // Off: queues are bounded by the connections, each of which waits with one request at a time.
  uint32_t requests_in_flight_per_worker = 0;
  uint64_t max_connections = 0;  // 0: by the limit on open files.
  // Off: a whole office, or a load balancer that is not known as one, may be one address.
  uint32_t max_connections_per_client = 0;

  // Whom a request comes from. Nobody is believed by default: who can reach us could otherwise tell the delegate any
  // address as the client's.
  CidrSet trusted_proxies;
  CidrSet proxy_protocol_from;
  ForwardedHeader forwarded_header = ForwardedHeader::kXForwarded;
  bool request_id = true;
  bool trace_context = true;

  // The delegate.
  Duration delegate_connect_timeout{1'000};
  Duration delegate_header_timeout{60'000};
  // A watch may have nothing to say for minutes; 0: none.
  Duration delegate_body_timeout{600'000};
  // As for clients: who takes nothing holds as much as who sends nothing.
  Duration delegate_send_timeout{30'000};
  // None: watches and log streams last as long as somebody looks.
  Duration delegate_request_timeout{0};
  // Below the 60 s and 75 s that common servers keep an idle connection, so that it is we who close first.
  Duration delegate_idle_timeout{55'000};
  // Below the two to five seconds after which Node.js, Apache, gunicorn and their like close an idle connection. It
  // costs little: where even the connection used last has been idle for a second, connects are one a second at most.
  Duration delegate_post_reuse_idle{1'000};
  // An hour lets load balancers in between take new backends into use, at a cost that nobody can measure.
  Duration delegate_connection_max_age{3'600'000};
  uint32_t delegate_connection_max_requests = 0;  // 0: no limit.
  // A fifth, as others have settled on: a delegate that closes its connections gets little more load for it.
  uint32_t delegate_retry_budget_percent = 20;
  // So that a quiet worker can repeat its only request.
  uint32_t delegate_retry_min_per_second = 10;
  // What cloud resolvers give as time to live, which the system's resolver does not tell.
  Duration delegate_resolve_interval{30'000};
  // One failure may be chance; more than a handful in a row are seen by clients. 0: never.
  uint32_t delegate_eject_after = 5;
  // About the time that a server needs to start again; then longer with each time in a row.
  Duration delegate_eject_time{10'000};
  Duration delegate_eject_time_max{300'000};
  // A fault that all share is not mended by sending everything to the last one.
  uint32_t delegate_eject_max_percent = 50;
  // Caches are cold and connections few after a start.
  Duration delegate_slow_start{10'000};
  std::string delegate_health_path;  // Empty: nothing is asked.
  Duration delegate_health_interval{5'000};
  Duration delegate_health_timeout{1'000};
  // One lost packet is no outage, and one good answer no recovery.
  uint32_t delegate_health_fall = 3;
  uint32_t delegate_health_rise = 2;
  // As many as may be busy: an idle connection costs one descriptor and no buffer, and fewer would make a burst's
  // connections close at its end only to be opened again by the next (128 idle under 256 clients closed 200 a second).
  uint32_t pool_idle_per_worker = 1024;
  // Beyond this many busy connections the delegate is the bottleneck, and more would only queue in its backlog.
  uint32_t pool_connections_per_worker = 1024;
  // A client that has waited for a second is better told so, while it still wants to know.
  Duration pool_queue_timeout{1'000};
  // As many as are served: then the last in the queue waits for about one answer's time.
  uint32_t pool_queue_per_worker = 1024;
  // What curl and Go wait for as clients before they send a body unasked.
  Duration expect_continue_timeout{1'000};
  // Between the minutes of most proxies, which cut shells and quiet dashboards off, and a kubelet's 4 h.
  Duration tunnel_idle_timeout{3'600'000};
  // Half of the pool: tunnels last, and requests must find connections beside them.
  uint32_t tunnels_per_worker = 512;

  // Plugins.
  Duration plugin_start_timeout{60'000};
  Duration plugin_call_timeout{60'000};
  // go-plugin hosts give a plugin two seconds between the request to stop and SIGKILL.
  Duration plugin_stop_timeout{2'000};
  // The first restart is quick, as a crash is mostly a single one; a plugin that keeps crashing settles at the longer
  // pause.
  Duration plugin_restart_backoff_min{500};
  Duration plugin_restart_backoff_max{30'000};
  uint64_t max_plugin_request_bytes = 16 << 20;
  // Go's HTTP/2 server, which most plugins are, allows no more streams than it can start goroutines for; past about a
  // thousand in flight a plugin only gets slower.
  uint32_t plugin_calls_per_worker = 1024;

  // Buffers: per worker, shared by all its connections (512 of 16 KiB: 8 MiB). The count is a power of two, as the
  // kernel asks of a buffer ring.
  uint32_t recv_buffers = 512;
  uint64_t recv_buffer_bytes = 16 << 10;
  // The kernel's own sizing fits most networks; an edge with very many slow clients may want a bound.
  uint64_t socket_buffer_bytes = 0;

  // The end.
  Duration drain_timeout{30'000};

  bool check = false;  // Validate everything, say what is wrong, and exit.

  // What was set, by whom, for the first line of the log: {"drain-timeout", "10s", "flag"}.
  struct Given {
    std::string name;
    std::string value;
    std::string_view source;  // "flag", "environment" or "file".
  };
  std::vector<Given> given;
  // Variables that begin with DPA_ and name no flag: worth a warning, but no error, as orchestrators set such names too
  // (a Kubernetes Service called `dpa` brings DPA_PORT).
  std::vector<std::string> unknown_environment;
};

// The process is to print `text` (to stdout if code is 0, else to stderr) and to exit with `code`.
struct ExitNow {
  int code = 0;
  std::string text;  // Ends with a newline.
};

// The part of the environment that begins with DPA_.
using Environment = std::map<std::string, std::string>;
Environment ProcessEnvironment();

// REQUIRES: argc and argv as main gets them. Errors: ExitNow with code 2 and one line. --help and --version: code 0.
std::variant<Options, ExitNow> ParseOptions(int argc, const char* const* argv, const Environment& environment);

// "1m30s", "500ms", "0": a form that ParseOptions reads back to the same value. The other two alike.
std::string FormatDuration(Options::Duration duration);
std::string FormatBytes(uint64_t bytes);
std::string_view ToString(IoBackend backend);

}  // namespace dpa
