// The bundled backend plugin. It is started by a host that speaks HashiCorp's go-plugin protocol (Grafana, or this
// proxy): it listens, prints one handshake line on stdout, and serves gRPC until it is told to shut down.
//
// Real plugins differ, and some are broken; for tests it can be told to be any of them by its environment:
//   DPA_TESTDATA_HANDSHAKE  none        never prints the line
//                           garbage     prints something else
//                           binary      prints bytes without a line end, for ever
//                           exit        exits with code 7 instead
//                           five_fields leaves the empty sixth field out, as plugins in Rust do
//                           wrong_core, wrong_version, netrpc   names a protocol that nobody speaks
//                           tcp         listens on 127.0.0.1 instead of a unix socket
//                           nobody      names an address at which nobody listens
//                           chatty      goes on printing lines after the handshake
//   DPA_TESTDATA_SERVICES   no_go_plugin (neither controller, stdio, broker nor health), no_health
//   DPA_TESTDATA_SHUTDOWN   ignore: a Shutdown call changes nothing
//   DPA_TESTDATA_CHILD      1: starts a process of its own that would outlive it
//   DPA_TESTDATA_HEALTH     error: CheckHealth says ERROR
//   DPA_TESTDATA_LOG        debug: a log line per call

#include <fmt/format.h>
#include <grpcpp/grpcpp.h>
#include <signal.h>
#include <sys/stat.h>
#include <unistd.h>

#include <chrono>
#include <condition_variable>
#include <cstdlib>
#include <mutex>
#include <string>
#include <string_view>
#include <thread>

#include "tools/testdata_plugin/services.h"

namespace {

using dpa::testdata::LogLine;

std::string Env(const char* name) {
  const char* value = std::getenv(name);
  return value == nullptr ? "" : value;
}

class ShutdownFlag {
 public:
  void Set() {
    const std::lock_guard lock(mutex_);
    set_ = true;
    changed_.notify_all();
  }
  void Wait() {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [this] { return set_; });
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  bool set_ = false;
};

// Where a go-plugin plugin puts its socket: PLUGIN_UNIX_SOCKET_DIR, else the directory for temporary files.
std::string SocketPath() {
  std::string dir = Env("PLUGIN_UNIX_SOCKET_DIR");
  if (dir.empty()) dir = Env("TMPDIR");
  if (dir.empty()) dir = P_tmpdir;
  return fmt::format("{}/plugin{}", dir, getpid());
}

std::string HandshakeLine(std::string_view mode, std::string_view network, std::string_view address) {
  if (mode == "garbage") return "Hello, I am a program and not a plugin\n";
  if (mode == "wrong_core") return fmt::format("9|2|{}|{}|grpc|\n", network, address);
  if (mode == "wrong_version") return fmt::format("1|7|{}|{}|grpc|\n", network, address);
  if (mode == "netrpc") return fmt::format("1|2|{}|{}|netrpc|\n", network, address);
  if (mode == "five_fields") return fmt::format("1|2|{}|{}|grpc\n", network, address);
  if (mode == "nobody") return fmt::format("1|2|unix|{}.nobody|grpc|\n", address);
  return fmt::format("1|2|{}|{}|grpc|\n", network, address);
}

// False if nobody reads stdout any more.
bool Print(std::string_view text) { return write(STDOUT_FILENO, text.data(), text.size()) > 0; }

void PrintWithoutEnd(std::string_view text) {
  while (Print(text)) {
  }
}

[[noreturn]] void HangWithoutHandshake() {
  for (;;) pause();
}

void StartChild() {
  if (fork() == 0) HangWithoutHandshake();
}

int RefuseToRunAlone() {
  constexpr std::string_view kText =
      "This is a plugin: a host starts it, with grafana_plugin_type=datasource in its environment.\n"
      "Put its folder below the directory that --plugins names.\n";
  return write(STDERR_FILENO, kText.data(), kText.size()) < 0 ? 2 : 1;
}

dpa::testdata::ServiceOptions OptionsFromEnvironment(ShutdownFlag* shutdown) {
  dpa::testdata::ServiceOptions options;
  const std::string services = Env("DPA_TESTDATA_SERVICES");
  options.go_plugin_services = services != "no_go_plugin";
  options.health = services != "no_go_plugin" && services != "no_health";
  options.healthy = Env("DPA_TESTDATA_HEALTH") != "error";
  options.log_requests = Env("DPA_TESTDATA_LOG") == "debug";
  const bool obey = Env("DPA_TESTDATA_SHUTDOWN") != "ignore";
  options.on_shutdown = [shutdown, obey] {
    if (obey) shutdown->Set();
  };
  return options;
}

// Serves until `shutdown`. Returns the exit code.
int Serve(const std::string& mode, ShutdownFlag* shutdown) {
  const bool tcp = mode == "tcp";
  const std::string path = SocketPath();
  dpa::testdata::Services services(OptionsFromEnvironment(shutdown));
  grpc::ServerBuilder builder;
  int port = 0;
  builder.AddListeningPort(tcp ? "127.0.0.1:0" : "unix:" + path, grpc::InsecureServerCredentials(), &port);
  builder.SetMaxReceiveMessageSize(16 << 20);  // The Go SDK's limit, so that hosts meet it here too.
  builder.SetMaxSendMessageSize(-1);
  services.Register(&builder);
  const std::unique_ptr<grpc::Server> server = builder.BuildAndStart();
  if (server == nullptr) {
    LogLine("error", "cannot listen on " + (tcp ? std::string("127.0.0.1") : path));
    return 1;
  }
  Print(HandshakeLine(mode, tcp ? "tcp" : "unix", tcp ? fmt::format("127.0.0.1:{}", port) : path));
  if (mode == "chatty") std::thread(PrintWithoutEnd, "still here\n").detach();
  LogLine("info", "serving");
  shutdown->Wait();
  services.Stop();
  // Calls in flight are cancelled after this while, as go-plugin's Stop does at once; the answer to Shutdown gets out
  // first.
  server->Shutdown(std::chrono::system_clock::now() + std::chrono::milliseconds(100));
  if (!tcp) unlink(path.c_str());
  return 0;
}

}  // namespace

int main() {
  if (Env("grafana_plugin_type") != "datasource") return RefuseToRunAlone();
  signal(SIGINT, SIG_IGN);  // Ctrl-C in a terminal goes to the whole group; the host decides when a plugin ends.
  signal(SIGPIPE, SIG_IGN);
  if (Env("DPA_TESTDATA_CHILD") == "1") StartChild();
  const std::string mode = Env("DPA_TESTDATA_HANDSHAKE");
  if (mode == "exit") return 7;
  if (mode == "none") HangWithoutHandshake();
  if (mode == "binary") {
    PrintWithoutEnd(std::string_view("\0\x01\x02|\xff", 5));
    return 0;
  }
  ShutdownFlag shutdown;
  return Serve(mode, &shutdown);
}
