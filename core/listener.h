// Listener is a listening socket on one worker. TCP listeners are opened once per worker (SO_REUSEPORT: the kernel
// spreads connections); a unix listener is opened once, lives on one worker, and its owner hands accepted descriptors
// on.
//
// Running out of descriptors ends the multishot accept; the connection stays in the backlog and accepting starts again
// after a pause.

#pragma once

#include <cstdint>
#include <expected>
#include <functional>
#include <string>
#include <vector>

#include "core/address.h"
#include "core/ring.h"
#include "core/task.h"
#include "core/worker.h"

namespace dpa {

struct ListenerOptions {
  int backlog = 1024;              // The kernel caps it at net.core.somaxconn.
  uint64_t accept_retry_ms = 100;  // Pause after running out of descriptors.
  // --socket-buffer-bytes: what the kernel may hold of an accepted connection, each way. 0: as its own settings say.
  uint32_t socket_buffer_bytes = 0;
};

// Opens `count` listening sockets on `address`: one per worker for TCP (they share the port), always one for unix.
// Checks first that nobody else listens there, since SO_REUSEPORT would silently share with another process of ours. A
// port of 0 is replaced by the one that the kernel chose. The error is a sentence that names the address.
std::expected<std::vector<int>, std::string> OpenListeners(Address& address, uint32_t count,
                                                           const ListenerOptions& options = {});

// Bounds what the kernel holds of `fd`, each way (SO_RCVBUF, SO_SNDBUF); it doubles the number for its own bookkeeping,
// and no longer grows the buffers by need. 0 leaves them alone. Of a TCP listener: for all that it will accept.
void BoundSocketBuffers(int fd, uint32_t bytes);

class Listener final : private TimerWheel::Entry {
 public:
  // `on_accept` gets each new descriptor (CLOEXEC, NONBLOCK) and owns it. Takes over `fd`.
  using OnAccept = std::move_only_function<void(int fd)>;
  Listener(Worker& worker, int fd, const ListenerOptions& options, OnAccept on_accept);
  ~Listener();  // REQUIRES: Close() has completed.

  void Start();
  // Stops accepting and closes the socket. Connections that wait in its backlog are accepted first: their clients
  // believe to be connected, may have asked already, and closing would reset them.
  Task<void> Close();

  uint64_t accepted_count() const { return accepted_count_; }
  uint64_t out_of_descriptors_count() const { return out_of_descriptors_count_; }

 private:
  struct AcceptOperation : Completion {
    explicit AcceptOperation(Listener& l) : Completion(&Listener::OnAccepted), listener(l) {}
    Listener& listener;
  };
  static void OnAccepted(Completion& completion, int32_t value, bool more, BufferLease buffer);
  void OnExpire() override;

  Worker& worker_;
  int fd_;
  const ListenerOptions options_;
  OnAccept on_accept_;
  AcceptOperation accept_;
  Signal joined_;
  bool closing_ = false;
  uint64_t accepted_count_ = 0;
  uint64_t out_of_descriptors_count_ = 0;
};

}  // namespace dpa
