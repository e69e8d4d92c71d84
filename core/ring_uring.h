// UringRing is the Ring on Linux' io_uring: SINGLE_ISSUER and DEFER_TASKRUN, multishot accept and receive, one
// provided-buffer ring, and one io_uring_enter per turn that submits, waits and carries the timeout.
//
// Floor: Linux 6.1. Detection is by trying, never by version: ProbeUring() makes a ring with the wanted flags,
// registers a buffer ring and passes bytes through a socket pair. Kernels older than that, container profiles and
// sysctls that refuse io_uring are told apart by errno and named with their remedy.

#pragma once

#include <liburing.h>

#include <cstdint>
#include <expected>
#include <memory>
#include <string>

#include "core/ring.h"

namespace dpa {

struct UringOptions {
  uint32_t submission_entries = 256;   // More are submitted early when it is full.
  uint32_t completion_entries = 4096;  // A full completion queue ends multishot operations: at least twice the backlog.
  BufferPoolOptions buffers;
  uint32_t socket_buffer_bytes = 0;  // Of sockets that OpenSocket makes; see ListenerOptions.
};

// Whether this kernel and this process can run UringRing. The error is one line: what is missing, errno, likely cause,
// remedy.
std::expected<void, std::string> ProbeUring(const UringOptions& options);

class UringRing final : public Ring {
 public:
  static std::expected<std::unique_ptr<UringRing>, std::string> Create(const UringOptions& options);
  ~UringRing() override;  // REQUIRES: nothing is in flight.

  void Accept(Completion& completion, int fd) override;
  void Receive(Completion& completion, int fd, ReceiveMode mode) override;
  void Send(Completion& completion, int fd, const msghdr& message) override;
  void Connect(Completion& completion, int fd, const sockaddr* address, socklen_t address_bytes) override;
  void Poll(Completion& completion, int fd, uint32_t poll_events) override;
  void Cancel(Completion& target) override;

  ssize_t SendNow(int fd, const msghdr& message) override;
  int AcceptNow(int fd) override;
  int OpenSocket(int domain) override;
  int ConnectNow(int fd, const sockaddr* address, socklen_t address_bytes) override;
  int PeekNow(int fd) override;
  void Shutdown(int fd, int how) override;
  bool HungUp(int fd) override;
  void Reset(int fd) override;
  void Close(int fd) override;

  void Wait(uint64_t deadline_ns) override;
  void Dispatch() override;
  uint64_t NowNs() override;
  BufferPool& buffers() override;
  std::string_view name() const override { return "io_uring"; }

  uint64_t enters_count() const { return enters_count_; }
  uint64_t completions_count() const { return completions_count_; }
  uint64_t overflows_count() const { return overflows_count_; }

 private:
  class Buffers;
  UringRing() = default;
  io_uring_sqe* NextSqe();
  int Enter(uint32_t wait_count, uint64_t timeout_ns);

  io_uring ring_{};
  bool ring_made_ = false;
  uint32_t enter_flags_ = 0;
  uint32_t socket_buffer_bytes_ = 0;
  std::unique_ptr<Buffers> buffers_;
  uint64_t in_flight_count_ = 0;
  uint64_t enters_count_ = 0;
  uint64_t completions_count_ = 0;
  uint64_t overflows_count_ = 0;
};

}  // namespace dpa
