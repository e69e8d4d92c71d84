// SocketPeer is a server on a unix socket in a thread of its own, whose connections do what a test says: speak HTTP/2
// by an H2TestPeer, or send any bytes, or close.

#pragma once

#include <fcntl.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <atomic>
#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "tests/grpc_bridge/h2_test_peer.h"

namespace dpa {

class SocketPeer {
 public:
  struct Connection {
    int fd = -1;
    int number = 0;  // From 0, in order of accepting.
    H2TestPeer h2;
    std::string received;
    std::string raw_output;  // Sent as it is, before what h2 has to say.
    bool close = false;
    size_t answered = 0;
  };
  // Called, in the thread, after a connection was accepted and whenever bytes came.
  using Script = std::function<void(Connection&)>;

  SocketPeer(std::string path, std::vector<nghttp2_settings_entry> settings, Script script)
      : path_(std::move(path)), settings_(std::move(settings)), script_(std::move(script)) {
    unlink(path_.c_str());
    listener_ = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    path_.copy(address.sun_path, sizeof(address.sun_path) - 1);
    EXPECT_EQ(bind(listener_, reinterpret_cast<sockaddr*>(&address), sizeof address), 0) << path_;
    EXPECT_EQ(listen(listener_, 64), 0);
    stop_ = eventfd(0, EFD_CLOEXEC);
    thread_ = std::thread([this] { Run(); });
  }
  ~SocketPeer() {
    const uint64_t one = 1;
    EXPECT_EQ(write(stop_, &one, sizeof one), static_cast<ssize_t>(sizeof one));
    thread_.join();
    close(listener_);
    close(stop_);
    unlink(path_.c_str());
  }

  int accepted_count() const { return accepted_count_; }

 private:
  void Run() {
    std::vector<std::unique_ptr<Connection>> connections;
    for (;;) {
      std::vector<pollfd> fds = {{stop_, POLLIN, 0}, {listener_, POLLIN, 0}};
      for (const auto& connection : connections) fds.push_back({connection->fd, POLLIN, 0});
      poll(fds.data(), fds.size(), -1);
      if (fds[0].revents != 0) break;
      for (size_t i = 2; i < fds.size(); ++i) {
        if (fds[i].revents != 0) Serve(*connections[i - 2]);
      }
      if (fds[1].revents != 0) Accept(connections);
      std::erase_if(connections, [](const auto& connection) {
        if (!connection->close) return false;
        ::close(connection->fd);
        return true;
      });
    }
    for (const auto& connection : connections) ::close(connection->fd);
  }
  void Accept(std::vector<std::unique_ptr<Connection>>& connections) {
    const int fd = accept4(listener_, nullptr, nullptr, SOCK_CLOEXEC);
    if (fd < 0) return;
    connections.push_back(
        std::unique_ptr<Connection>(new Connection{fd, accepted_count_++, H2TestPeer(settings_), {}, {}}));
    script_(*connections.back());
    Flush(*connections.back());
  }
  void Serve(Connection& connection) {
    char bytes[65'536];
    const ssize_t count = read(connection.fd, bytes, sizeof bytes);
    if (count <= 0) {
      connection.close = true;
      return;
    }
    connection.received.append(bytes, static_cast<size_t>(count));
    connection.h2.Feed({bytes, static_cast<size_t>(count)});
    script_(connection);
    Flush(connection);
  }
  void Flush(Connection& connection) {
    std::string out = std::exchange(connection.raw_output, {});
    if (out.empty()) out = connection.h2.TakeOutput();
    for (size_t sent = 0; sent < out.size();) {
      const ssize_t count = send(connection.fd, out.data() + sent, out.size() - sent, MSG_NOSIGNAL);
      if (count <= 0) {
        connection.close = true;
        return;
      }
      sent += static_cast<size_t>(count);
    }
  }

  const std::string path_;
  const std::vector<nghttp2_settings_entry> settings_;
  const Script script_;
  int listener_ = -1;
  int stop_ = -1;
  std::atomic<int> accepted_count_{0};
  std::thread thread_;
};

}  // namespace dpa
