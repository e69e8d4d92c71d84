"""Delegates that get into trouble on request.

NginxDelegate is NGINX as one process, so that it can be stopped (SIGSTOP), killed and started again at its address.
Peer lives in the test's own process; what it does with a request is its habit, which may change at any time, and it
remembers every request that it has read.
"""

import contextlib
import os
import signal
import socket
import struct
import threading
import time

import harness

NGINX_CONFIG = """
daemon off;
master_process off;
pid {prefix}.pid;
error_log {prefix}.error info;
{user}
events {{ worker_connections 1024; }}
http {{
  log_format probe '$request_method $request_uri';
  access_log {prefix}.access probe;
  client_body_temp_path {prefix}.body;
  proxy_temp_path {prefix}.proxy;
  fastcgi_temp_path {prefix}.fastcgi;
  uwsgi_temp_path {prefix}.uwsgi;
  scgi_temp_path {prefix}.scgi;
  keepalive_requests 1000000;
  server {{
    listen {host}:{port};
    listen unix:{prefix}.sock;
    location / {{ return 200 "{name}"; }}
  }}
}}
"""


class NginxDelegate:
    """Answers everything with its name."""

    def __init__(self, folder, name, host="127.0.0.1"):
        self.name, self.host, self.port = name, host, harness.free_port()
        self.address = f"{host}:{self.port}"
        self.url = f"http://{self.address}"
        self._folder, self._prefix = folder, os.path.join(folder, name)
        self.unix_url = f"unix:{self._prefix}.sock"
        self.process = None

    def start(self):
        """Also over the remains of one that was killed."""
        config = self._prefix + ".conf"
        user = "user root;" if os.getuid() == 0 else ""
        with open(config, "w", encoding="utf-8") as file:
            file.write(
                NGINX_CONFIG.format(prefix=self._prefix, host=self.host, port=self.port, name=self.name, user=user)
            )
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._prefix + ".sock")
        self.process = harness.Process(
            self.name, ["nginx", "-p", self._folder, "-c", config, "-e", self._prefix + ".error"], self._folder
        )
        harness.wait_until(lambda: not self.process.is_running() or self._listens(), f"{self.name} listens")
        if not self.process.is_running():
            raise AssertionError(f"{self.name} ended: {self.process.tail()}")

    def _listens(self):
        with socket.socket() as probe:
            return probe.connect_ex((self.host, self.port)) == 0

    def hang(self):
        """The kernel goes on accepting for it; nobody reads."""
        self.process.signal(signal.SIGSTOP)
        harness.wait_until(lambda: self._state() == "T", f"{self.name} is stopped")

    def go_on(self):
        self.process.signal(signal.SIGCONT)

    def _state(self):
        with open(f"/proc/{self.process.pid}/stat", encoding="ascii", errors="replace") as file:
            return file.read().rpartition(")")[2].split()[0]

    def kill(self):
        """Its connections end with it. Returns when it has gone."""
        if self.process and self.process.is_running():
            self.process.popen.kill()
            self.process.wait()

    def requests(self):
        """["METHOD TARGET"], of those that it has answered."""
        with contextlib.suppress(FileNotFoundError):
            with open(self._prefix + ".access", encoding="utf-8") as file:
                return file.read().splitlines()
        return []


# What is no answer to a GET, each for a reason of its own. The connection stays open afterwards, as nothing about it
# should depend on its end.
GARBAGE = {
    "no HTTP": b"\x00\x01 this is no HTTP \xff\r\n\r\n",
    "TLS": b"\x15\x03\x01\x00\x02\x02\x46",
    "another protocol": b"SSH-2.0-OpenSSH_9.2\r\n",
    "two lengths": b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabcd",
    "length and coding": b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "a status of two digits": b"HTTP/1.1 20 OK\r\nContent-Length: 0\r\n\r\n",
    "a control byte in a value": b"HTTP/1.1 200 OK\r\nX-Probe: a\x01b\r\nContent-Length: 0\r\n\r\n",
    "a head without end": b"HTTP/1.1 200 OK\r\n" + b"X-Padding: " + b"x" * (1 << 20) + b"\r\n",
}


class Peer:
    """
    habit: good         200 with its name as body
           busy         the same as a 503
           slow         good, after a while
           hold         nothing until release(), then as good
           reset        breaks the connection off (RST) after it has read the request
           close        ends it (FIN), likewise
           close-reused answers the first request of a connection and ends it at the second
           reset-early  breaks it off as soon as it is there, with or without a request
           truncate     promises 100 bytes, sends five, ends the connection
           stall        the same without the end
           a key of GARBAGE
    """

    def __init__(self, name, habit="good", address=("127.0.0.1", 0), healthy=True):
        self.name, self.habit, self.healthy = name, habit, healthy
        self.held_count = 0
        self.connections = set()
        self._requests, self._checks = [], []
        self._changed = threading.Condition()
        self._released = threading.Event()
        self._listener = socket.create_server(address, backlog=256)
        self.host, self.port = self._listener.getsockname()
        self.address = f"{self.host}:{self.port}"
        self.url = f"http://{self.address}"
        threading.Thread(target=self._accept, daemon=True).start()

    def stop(self):
        """Its connections are reset, and nobody listens any more."""
        self._released.set()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        with self._changed:
            open_ones = list(self.connections)
        for connection in open_ones:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def release(self):
        self._released.set()

    def requests(self):
        """["METHOD TARGET"], of those that it has read in full; health checks (/healthy) are not among them."""
        with self._changed:
            return list(self._requests)

    def checks(self):
        with self._changed:
            return list(self._checks)

    def _accept(self):
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            with self._changed:
                self.connections.add(connection)
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection):
        with contextlib.suppress(OSError, ValueError):
            if self.habit == "reset-early":
                _reset_at_close(connection)
            else:
                nth = 1
                while self._exchange(connection, nth):
                    nth += 1
        with self._changed:
            self.connections.discard(connection)
        connection.close()

    def _exchange(self, connection, nth):
        """False when the connection is to be closed."""
        line = _read_request(connection)
        if line is None:
            return False
        if line.split(" ")[1].partition("?")[0].endswith("/healthy"):
            with self._changed:
                self._checks.append(line)
            connection.sendall(_answer(b"", b"200 OK" if self.healthy else b"503 Busy"))
            return True
        with self._changed:
            self._requests.append(line)
        return self._answer(connection, nth)

    def _answer(self, connection, nth):
        habit, name = self.habit, self.name.encode()
        if habit in ("reset", "reset-early"):
            _reset_at_close(connection)
            return False
        if habit == "close" or (habit == "close-reused" and nth > 1):
            return False
        if habit in ("truncate", "stall"):
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nonly ")
            return habit == "stall"
        if habit in GARBAGE:
            connection.sendall(GARBAGE[habit])
            return True
        if habit == "slow":
            time.sleep(0.3)
        if habit == "hold":
            with self._changed:
                self.held_count += 1
            self._released.wait(harness.PATIENCE)
        connection.sendall(_answer(name, b"503 Busy" if habit == "busy" else b"200 OK"))
        return True


def _answer(body, status):
    return b"HTTP/1.1 %s\r\nContent-Length: %d\r\n\r\n%s" % (status, len(body), body)


def _reset_at_close(connection):
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def _read_request(connection):
    """ "METHOD TARGET", with the whole request read; None at the end of the connection."""
    data = b""
    while b"\r\n\r\n" not in data:
        piece = connection.recv(65536)
        if not piece:
            return None
        data += piece
    head, _, body = data.partition(b"\r\n\r\n")
    lines = head.decode("latin-1").split("\r\n")
    fields = {line.partition(":")[0].lower(): line.partition(":")[2].strip() for line in lines[1:]}
    missing = int(fields.get("content-length", "0")) - len(body)
    while missing > 0:
        piece = connection.recv(missing)
        if not piece:
            return None
        missing -= len(piece)
    return lines[0].rpartition(" ")[0]


class FullListener:
    """Somebody listens, and never again accepts: its queue is full, and what comes is dropped without a word."""

    def __init__(self):
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=0)
        self.port = self._listener.getsockname()[1]
        self.address = f"127.0.0.1:{self.port}"
        self.url = f"http://{self.address}"
        self._filling = []
        while self._fill():
            pass

    def _fill(self):
        filler = socket.socket()
        self._filling.append(filler)
        filler.settimeout(0.3)
        with contextlib.suppress(TimeoutError):
            filler.connect(("127.0.0.1", self.port))
            return True
        return False

    def stop(self):
        self._listener.close()
        for filler in self._filling:
            filler.close()
