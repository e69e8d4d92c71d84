// dataplane-aggregator: read options, check, build, serve, drain. Each step is a named function; main() is their order.

#include <poll.h>
#include <sys/eventfd.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include <fmt/format.h>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>

#include "core/listener.h"
#include "core/log.h"
#include "core/version.h"
#include "core/worker_thread.h"
#include "grpc_bridge/plugin_manifest.h"
#include "http/admin.h"
#include "tools/aggregator/control_plane.h"
#include "tools/aggregator/data_plane.h"
#include "tools/aggregator/options.h"
#include "tools/aggregator/process_info.h"

namespace dpa {
namespace {

using Problems = std::vector<std::string>;

// What is listened on: opened before any thread starts, so that a taken port is an error at once.
struct Listening {
  Address address;
  std::vector<int> fds;  // One per worker for TCP, one for a unix socket.
};

class Aggregator {
 public:
  explicit Aggregator(const Options& options)
      : options_(options),
        control_(options, PluginClient::implemented()),
        local_(checks_, kVersion, false),
        shared_{options, control_, local_, nullptr, 1, nullptr} {}

  int Run();

 private:
  std::expected<void, std::string> Prepare();
  void LimitConnections(uint64_t files);
  std::expected<void, std::string> OpenAddresses();
  std::expected<void, std::string> StartWorkers();
  std::expected<void, std::string> StartAdmin();
  void RegisterChecks();
  void RegisterMetrics();
  void Listen(size_t worker_index, DataPlane& plane);
  void WaitForSignals();
  void Drain();
  void AbortDrain();
  void TearDown();
  std::optional<int> CpuOf(uint32_t worker_index) const;
  std::string StatusJson() const;
  int Fail(const std::string& why);

  const Options& options_;
  const std::chrono::steady_clock::time_point started_ = std::chrono::steady_clock::now();
  std::atomic<bool> shutting_down_{false};
  ControlPlane control_;
  HealthChecks checks_;
  LocalPaths local_;
  MetricsRegistry metrics_;
  std::unique_ptr<AccessLogWriter> access_log_;
  uint64_t connections_max_ = 0;  // Of all workers together.
  std::unique_ptr<ConnectionLimiter> connections_;
  DataPlaneShared shared_;
  std::vector<Listening> listening_;
  Listening admin_listening_;
  int signal_fd_ = -1;
  int drained_fd_ = -1;  // eventfd: counts the planes that have drained.

  // Destroyed before what they use: the threads are stopped by then.
  HttpMetrics admin_metrics_;
  std::unique_ptr<AdminHandler> admin_;
  std::unique_ptr<HttpServer> admin_server_;
  std::vector<std::unique_ptr<DataPlane>> planes_;
  std::unique_ptr<WorkerThread> admin_thread_;
  std::vector<std::unique_ptr<WorkerThread>> threads_;
};

UringOptions MakeRingOptions(const Options& options) {
  UringOptions ring;
  ring.buffers.buffers_count = options.recv_buffers;
  ring.buffers.buffer_bytes = static_cast<uint32_t>(options.recv_buffer_bytes);
  ring.socket_buffer_bytes = static_cast<uint32_t>(options.socket_buffer_bytes);
  return ring;
}

// --check: everything that can be wrong before serving, one line each.
int Check(const Options& options) {
  StartLog(LogLevel::kOff, options.log_format);
  ControlPlane control(options, PluginClient::implemented());
  Problems problems = control.Load();
  const PluginScan scan = FindPlugins(options.plugin_dirs);
  for (const PluginProblem& problem : scan.problems)
    problems.push_back(fmt::format("{}: {}", problem.file, problem.what));
  for (const PluginManifest& plugin : scan.plugins) {
    const std::string failure = CheckExecutable(plugin);
    if (!failure.empty()) problems.push_back(fmt::format("{}: {}", plugin.file, failure));
  }
  for (const std::string& upstream : control.UnresolvedUpstreams()) problems.push_back(upstream);
  for (const std::string& problem : problems) fmt::print("{}\n", problem);
  fmt::print("{}\n", problems.empty() ? "all is well" : fmt::format("{} problem(s)", problems.size()));
  StopLog();
  return problems.empty() ? 0 : 1;
}

// Signals that are read from a descriptor. Blocked before the first thread starts, since any thread that does not block
// them would take them and end the process; threads inherit the mask.
sigset_t BlockedSignals() {
  sigset_t set;
  sigemptyset(&set);
  for (const int number : {SIGTERM, SIGINT, SIGHUP}) sigaddset(&set, number);
  return set;
}

void BlockSignals() {
  const sigset_t set = BlockedSignals();
  pthread_sigmask(SIG_BLOCK, &set, nullptr);
  signal(SIGPIPE, SIG_IGN);
}

std::expected<void, std::string> Aggregator::Prepare() {
  if (options_.io_backend == IoBackend::kEpoll) {
    return std::unexpected("--io-backend epoll is not in this version; use auto or io_uring");
  }
  const UringOptions ring = MakeRingOptions(options_);
  if (const auto probed = ProbeUring(ring); !probed) return probed;

  const uint64_t files = RaiseFileLimit();
  const std::vector<int> cpus = AllowedCpus();
  const size_t wanted = options_.workers != 0   ? options_.workers
                        : options_.cpus.empty() ? cpus.size()
                                                : options_.cpus.size();
  shared_.workers_count = static_cast<uint32_t>(wanted);
  LimitConnections(files);

  if (options_.access_log != "off") {
    std::expected<std::unique_ptr<AccessLogWriter>, std::string> log = AccessLogWriter::Open(options_.access_log);
    if (!log) return std::unexpected(log.error());
    access_log_ = std::move(*log);
    shared_.access_log = access_log_.get();
  }
  const Problems problems = control_.Load();
  if (!problems.empty()) {
    return std::unexpected(
        fmt::format("{}{}", problems.front(),
                    problems.size() == 1 ? "" : fmt::format(" (and {} more; see --check)", problems.size() - 1)));
  }
  return {};
}

void Aggregator::LimitConnections(uint64_t files) {
  const uint64_t possible = ConnectionsForFiles(files, shared_.workers_count);
  connections_max_ = options_.max_connections != 0 ? options_.max_connections : possible;
  if (connections_max_ > possible) {
    LogWarn("few_descriptors", "max_connections={} open_files={} wanted={} remedy=\"raise LimitNOFILE (ulimit -n)\"",
            connections_max_, files, FilesForConnections(connections_max_, shared_.workers_count));
  }
  // A proxy of the operator's carries the connections of many clients.
  const ConnectionLimiterOptions limits{
      .connections_max = connections_max_,
      .connections_per_client_max = options_.max_connections_per_client,
      .exempt = [this](const Address& address) {
        const IpAddress peer = IpAddress::FromSocketAddress(address.get(), address.bytes());
        return options_.trusted_proxies.Contains(peer) || options_.proxy_protocol_from.Contains(peer);
      }};
  connections_ = std::make_unique<ConnectionLimiter>(limits);
  shared_.connections = connections_.get();
}

std::expected<void, std::string> OpenOne(const std::string& text, uint32_t count, const ListenerOptions& options,
                                         Listening& into) {
  std::expected<Address, std::string> address = Address::Resolve(text);
  if (!address) return std::unexpected(address.error());
  into.address = *address;
  std::expected<std::vector<int>, std::string> fds = OpenListeners(into.address, count, options);
  if (!fds) return std::unexpected(fds.error());
  into.fds = std::move(*fds);
  return {};
}

std::expected<void, std::string> Aggregator::OpenAddresses() {
  ListenerOptions options;
  options.socket_buffer_bytes = static_cast<uint32_t>(options_.socket_buffer_bytes);
  listening_.resize(options_.listen.size());
  for (size_t i = 0; i < listening_.size(); ++i) {
    const auto opened = OpenOne(options_.listen[i], shared_.workers_count, options, listening_[i]);
    if (!opened) return opened;
  }
  return OpenOne(options_.admin_listen, 1, {}, admin_listening_);
}

// One CPU per worker where the numbers agree; otherwise the scheduler knows better.
std::optional<int> Aggregator::CpuOf(uint32_t worker_index) const {
  if (!options_.cpus.empty()) return options_.cpus[worker_index % options_.cpus.size()];
  const std::vector<int> cpus = AllowedCpus();
  if (cpus.size() == shared_.workers_count) return cpus[worker_index];
  return std::nullopt;
}

std::expected<void, std::string> Aggregator::StartWorkers() {
  for (uint32_t i = 0; i < shared_.workers_count; ++i) {
    WorkerThreadOptions thread;
    thread.index = i;
    thread.name = fmt::format("worker-{}", i);
    thread.cpu = CpuOf(i);
    thread.ring = MakeRingOptions(options_);
    auto started = WorkerThread::Start(thread);
    if (!started) return std::unexpected(started.error());
    threads_.push_back(std::move(*started));
  }
  planes_.resize(threads_.size());
  for (size_t i = 0; i < threads_.size(); ++i) {
    threads_[i]->Run([this, i](Worker& worker) { planes_[i] = std::make_unique<DataPlane>(worker, shared_); });
  }
  return {};
}

std::expected<void, std::string> Aggregator::StartAdmin() {
  WorkerThreadOptions thread;
  thread.index = shared_.workers_count;
  thread.name = "admin";
  thread.ring.submission_entries = 64;
  thread.ring.completion_entries = 512;
  thread.ring.buffers.buffers_count = 64;
  auto started = WorkerThread::Start(thread);
  if (!started) return std::unexpected(started.error());
  admin_thread_ = std::move(*started);
  admin_ = std::make_unique<AdminHandler>(metrics_, checks_, kVersion, [this] { return StatusJson(); });
  admin_thread_->Run([this](Worker& worker) {
    HttpServerOptions server = MakeServerOptions(options_);
    server.connections_max = 1024;
    server.downstream.identity.proxy_protocol_from = {};  // Scrapers and probes come straight here.
    admin_server_ = std::make_unique<HttpServer>(worker, *admin_, server, admin_metrics_, nullptr);
    admin_server_->Listen(admin_listening_.fds.front(), admin_listening_.address.is_unix());
    admin_listening_.fds.clear();
  });
  return {};
}

void Aggregator::RegisterChecks() {
  checks_.Add("shutdown", HealthChecks::Scope::kReady, [this]() -> std::optional<std::string> {
    if (shutting_down_.load(std::memory_order_relaxed)) return "process is shutting down";
    return std::nullopt;
  });
  checks_.Add("services", HealthChecks::Scope::kReady, [this] { return control_.CheckServices(); });
  checks_.Add("datasources", HealthChecks::Scope::kReady, [this] { return control_.CheckDataSources(); });
  for (const std::string& id : control_.PluginIds()) {
    checks_.Add("plugin-" + id, HealthChecks::Scope::kReady, [this, id] { return control_.CheckPlugin(id); });
  }
}

void Aggregator::RegisterMetrics() {
  metrics_.Register([this](MetricsPage& page) {
    page.AddGauge("dpa_build_info", "The program that runs, always 1.",
                  {{"version", kVersion}, {"compiler", kCompiler}}, 1);
    page.AddGauge("dpa_io_backend_info", "What the workers' rings are made of, always 1.", {{"backend", "io_uring"}},
                  1);
    page.AddGauge("dpa_workers", "Data plane threads.", {}, shared_.workers_count);
    page.AddGauge("dpa_http_connections_max", "Client connections that are served at once; beyond it they are shed.",
                  {}, static_cast<double>(connections_max_));
    for (const auto& plane : planes_) plane->Collect(page);
    control_.Collect(page);
    if (access_log_) access_log_->Collect(page);
    CollectProcess(page);
  });
}

void Aggregator::Listen(size_t worker_index, DataPlane& plane) {
  for (Listening& listening : listening_) {
    if (!listening.address.is_unix()) {
      plane.server().Listen(listening.fds[worker_index], false);
    } else if (worker_index == 0) {
      // A unix socket has one queue: the first worker takes from it and deals in turn.
      plane.server().Listen(listening.fds.front(), true, [this, next = size_t{0}](int fd) mutable {
        const size_t to = next++ % planes_.size();
        if (!threads_[to]->Post([this, to, fd](Worker&) { planes_[to]->server().Adopt(fd, true); })) close(fd);
      });
    }
  }
}

std::string Aggregator::StatusJson() const {
  const auto uptime = std::chrono::duration<double>(std::chrono::steady_clock::now() - started_).count();
  nlohmann::ordered_json json;
  json["version"] = kVersion;
  json["compiler"] = kCompiler;
  json["uptime_seconds"] = uptime;
  json["pid"] = getpid();
  json["workers"] = shared_.workers_count;
  json["io_backend"] = "io_uring";
  json["shutting_down"] = shutting_down_.load(std::memory_order_relaxed);
  for (const Listening& listening : listening_) json["listen"].push_back(listening.address.ToString());
  for (const std::string& url : options_.delegates) json["delegates"].push_back(url);
  std::string text = json.dump();
  text.pop_back();
  return text + "," + control_.StatusJson() + "}";
}

void Aggregator::WaitForSignals() {
  for (;;) {
    signalfd_siginfo info{};
    if (read(signal_fd_, &info, sizeof info) != sizeof info) continue;
    if (info.ssi_signo != SIGHUP) {
      LogInfo("shutdown", "signal={} drain_timeout={}", strsignal(static_cast<int>(info.ssi_signo)),
              FormatDuration(options_.drain_timeout));
      return;
    }
    control_.Reload();
    if (access_log_) access_log_->Reopen();
  }
}

void Aggregator::AbortDrain() {
  LogWarn("shutdown_now", "cause=\"second signal\"");
  for (size_t i = 0; i < threads_.size(); ++i) {
    threads_[i]->Post([this, i](Worker&) { planes_[i]->server().Abort(); });
  }
}

void Aggregator::Drain() {
  shutting_down_ = true;
  for (size_t i = 0; i < threads_.size(); ++i) {
    threads_[i]->Post([this, i](Worker& worker) {
      worker.tasks().Spawn(planes_[i]->Drain(static_cast<uint64_t>(options_.drain_timeout.count()), [this] {
        const uint64_t one = 1;
        [[maybe_unused]] const ssize_t written = write(drained_fd_, &one, sizeof one);
      }));
    });
  }
  for (uint64_t drained = 0; drained < threads_.size();) {
    pollfd waits[2] = {{drained_fd_, POLLIN, 0}, {signal_fd_, POLLIN, 0}};
    if (poll(waits, 2, -1) < 0) continue;
    uint64_t count = 0;
    if ((waits[0].revents & POLLIN) != 0 && read(drained_fd_, &count, sizeof count) == sizeof count) drained += count;
    signalfd_siginfo info{};
    if ((waits[1].revents & POLLIN) != 0 && read(signal_fd_, &info, sizeof info) == sizeof info &&
        info.ssi_signo != SIGHUP) {
      AbortDrain();
    }
  }
}

Task<void> DrainAdmin(HttpServer& server, std::binary_semaphore& done) {
  constexpr uint64_t kPatienceMs = 1'000;
  co_await server.Drain(kPatienceMs);
  done.release();
}

void Aggregator::TearDown() {
  // First those that wake workers and that plugins' calls need; then the workers; last the admin endpoint.
  control_.Stop();
  if (admin_server_) {
    std::binary_semaphore drained{0};
    admin_thread_->Post(
        [this, &drained](Worker& worker) { worker.tasks().Spawn(DrainAdmin(*admin_server_, drained)); });
    drained.acquire();
    admin_thread_->Run([this](Worker&) { admin_server_.reset(); });
  }
  if (admin_thread_) admin_thread_->Stop();
  for (size_t i = 0; i < planes_.size(); ++i) {
    threads_[i]->Run([this, i](Worker&) { planes_[i].reset(); });
  }
  for (auto& thread : threads_) thread->Stop();
  for (Listening& listening : listening_) {
    if (listening.address.is_unix()) unlink(listening.address.unix_path().c_str());
  }
  if (admin_listening_.address.is_unix()) unlink(admin_listening_.address.unix_path().c_str());
}

int Aggregator::Fail(const std::string& why) {
  LogError("start_failed", "{}", why);
  // Nothing serves yet: what has been opened goes with the process; plugins that were started are ended.
  control_.Stop();
  return 1;
}

int Aggregator::Run() {
  const sigset_t signals = BlockedSignals();
  signal_fd_ = signalfd(-1, &signals, SFD_CLOEXEC);
  drained_fd_ = eventfd(0, EFD_CLOEXEC);

  if (const auto prepared = Prepare(); !prepared) return Fail(prepared.error());
  if (const auto opened = OpenAddresses(); !opened) return Fail(opened.error());
  if (const auto started = StartWorkers(); !started) return Fail(started.error());
  const auto wake = [this] {
    for (const auto& thread : threads_) thread->worker().mailbox().Wake();
  };
  if (const auto started = control_.Start(wake); !started) return Fail(started.error());
  RegisterChecks();
  RegisterMetrics();
  if (const auto started = StartAdmin(); !started) return Fail(started.error());
  for (size_t i = 0; i < threads_.size(); ++i) {
    threads_[i]->Run([this, i](Worker&) { Listen(i, *planes_[i]); });
  }
  for (const Listening& listening : listening_) LogInfo("listening", "address={}", listening.address.ToString());
  LogInfo("listening", "address={} for=admin", admin_listening_.address.ToString());
  LogInfo("serving", "version={} workers={} io_backend=io_uring delegates={}", kVersion, shared_.workers_count,
          options_.delegates.size());

  WaitForSignals();
  Drain();
  TearDown();
  access_log_.reset();
  LogInfo("stopped", "uptime_seconds={:.1f}",
          std::chrono::duration<double>(std::chrono::steady_clock::now() - started_).count());
  return 0;
}

int Main(int argc, char** argv) {
  std::variant<Options, ExitNow> parsed = ParseOptions(argc, argv, ProcessEnvironment());
  if (const ExitNow* exit_now = std::get_if<ExitNow>(&parsed)) {
    std::fputs(exit_now->text.c_str(), exit_now->code == 0 ? stdout : stderr);
    return exit_now->code;
  }
  const Options& options = std::get<Options>(parsed);
  if (options.check) return Check(options);

  BlockSignals();
  StartLog(options.log_level, options.log_format);
  std::string given;
  for (const Options::Given& one : options.given) given += fmt::format(" {}={}", one.name, Quoted(one.value));
  LogInfo("starting", "version={}{}", kVersion, given);
  for (const std::string& name : options.unknown_environment) LogWarn("unknown_variable", "name={}", Quoted(name));
  int code = 0;
  {
    Aggregator aggregator(options);
    code = aggregator.Run();
    // A failed start leaves threads and open sockets in the middle of things: nothing of it needs an orderly end.
    if (code != 0) {
      StopLog();
      std::_Exit(code);
    }
  }
  StopLog();
  return code;
}

}  // namespace
}  // namespace dpa

int main(int argc, char** argv) { return dpa::Main(argc, argv); }
