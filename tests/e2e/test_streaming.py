"""Bodies of any size, and bodies that come as they happen.

Goal: what passes through costs a bounded amount of memory, however large and however slow its peers, and is passed on
as it arrives. Method: a delegate and a client of our own on loopback, each of them slow in turn; hashes on both ends;
the resident memory of the aggregator, looked at all the while.

DPA_E2E_BODY_BYTES: size of the large bodies.
"""

import hashlib
import os
import random
import socket
import threading
import time

import harness
from harness import Aggregator, TestCase

BODY_BYTES = int(os.environ.get("DPA_E2E_BODY_BYTES", 256 << 20))
BLOCK_BYTES = 1 << 20
GROWTH_MAX = 2 << 20
# Memory of a sanitized binary is its own affair: freed blocks stay in quarantine.
SANITIZED = "release" not in harness.BUILD


class Blocks:
    """A body of `count` numbered blocks: any that is lost, doubled or moved changes the hash."""

    def __init__(self, total_bytes):
        self.count = -(-total_bytes // BLOCK_BYTES)
        self.total_bytes = self.count * BLOCK_BYTES
        self._block = bytearray(random.Random(1).randbytes(BLOCK_BYTES))

    def __iter__(self):
        for index in range(self.count):
            self._block[:8] = index.to_bytes(8, "big")
            yield self._block


def send_slowly(connection, blocks, pause):
    digest = hashlib.sha256()
    for index, block in enumerate(blocks):
        if pause and index % 4 == 0:
            time.sleep(pause)
        digest.update(block)
        connection.sendall(block)
    return digest.hexdigest()


def receive_slowly(connection, first, total_bytes, pause):
    """Hash of `first` and what follows, `total_bytes` in all."""
    digest = hashlib.sha256(first)
    left, since_pause = total_bytes - len(first), 0
    buffer = bytearray(BLOCK_BYTES)
    while left:
        got = connection.recv_into(buffer, min(left, len(buffer)))
        if not got:
            raise AssertionError(f"the body ended {left} bytes early")
        digest.update(memoryview(buffer)[:got])
        left -= got
        since_pause += got
        if pause and since_pause >= 4 * BLOCK_BYTES:
            time.sleep(pause)
            since_pause = 0
    return digest.hexdigest()


def read_head(connection):
    """(head, bytes behind it)"""
    data = b""
    while b"\r\n\r\n" not in data:
        piece = connection.recv(65536)
        if not piece:
            return "", b""
        data += piece
    head, _, rest = data.partition(b"\r\n\r\n")
    return head.decode("latin-1"), rest


def content_length(head):
    for line in head.split("\r\n")[1:]:
        name, _, value = line.partition(":")
        if name.lower() == "content-length":
            return int(value)
    raise AssertionError(f"no length in {head!r}")


class Delegate:
    """Serves each connection with `serve(connection)` until that returns."""

    def __init__(self, serve):
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self._serve = serve
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._run, args=(connection,), daemon=True).start()

    def _run(self, connection):
        connection.settimeout(harness.PATIENCE)
        with connection:
            try:
                self._serve(connection)
            except OSError:
                pass

    def close(self):
        self._listener.close()


class Resident:
    """The largest resident memory of a process while this is entered."""

    def __init__(self, pid):
        self._path = f"/proc/{pid}/statm"
        self._stop = threading.Event()
        self.largest = 0

    def now(self):
        with open(self._path, encoding="ascii") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    def _sample(self):
        while not self._stop.wait(0.01):
            self.largest = max(self.largest, self.now())

    def __enter__(self):
        self.largest = self.now()
        self._thread = threading.Thread(target=self._sample, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._stop.set()
        self._thread.join()
        self.largest = max(self.largest, self.now())


class LargeBodyTest(TestCase):
    @classmethod
    def setUpClass(cls):
        cls.delegate_pause = 0.0
        cls.body_bytes = 0
        cls.delegate = Delegate(cls.serve)
        cls.addClassCleanup(cls.delegate.close)
        # One worker: its memory is warm after the first transfers, whichever connection comes.
        cls.aggregator = Aggregator("--workers", "1", delegate=cls.delegate.url, plugins=None)
        cls.aggregator.start()
        cls.addClassCleanup(cls.aggregator.__exit__, None, None, None)

    @classmethod
    def serve(cls, connection):
        while True:
            head, rest = read_head(connection)
            if not head:
                return
            if head.startswith("PUT "):
                answer = receive_slowly(connection, rest, content_length(head), cls.delegate_pause).encode()
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(answer), answer))
            else:
                blocks = Blocks(cls.body_bytes)
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % blocks.total_bytes)
                cls.sent_hash = send_slowly(connection, blocks, cls.delegate_pause)

    def up(self, body_bytes, client_pause):
        blocks = Blocks(body_bytes)
        with socket.create_connection(("127.0.0.1", self.aggregator.port), timeout=harness.PATIENCE) as client:
            client.sendall(b"PUT /up HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % blocks.total_bytes)
            sent_hash = send_slowly(client, blocks, client_pause)
            head, rest = read_head(client)
            self.assertTrue(head.startswith("HTTP/1.1 200 "), head)
            while len(rest) < content_length(head):
                rest += client.recv(1024)
        return sent_hash, rest.decode()

    def down(self, body_bytes, client_pause):
        type(self).body_bytes = body_bytes
        with socket.create_connection(("127.0.0.1", self.aggregator.port), timeout=harness.PATIENCE) as client:
            client.sendall(b"GET /down HTTP/1.1\r\nHost: a\r\n\r\n")
            head, rest = read_head(client)
            self.assertTrue(head.startswith("HTTP/1.1 200 "), head)
            received_hash = receive_slowly(client, rest, content_length(head), client_pause)
        return self.sent_hash, received_hash

    def transfer(self, way, slow):
        pause = 0.02
        for warm in (True, False):
            type(self).delegate_pause = pause if slow == "delegate" else 0.0
            client_pause = pause if slow == "client" else 0.0
            size = 48 << 20 if warm else BODY_BYTES
            with Resident(self.aggregator.pid) as memory:
                before = memory.now()
                started = time.monotonic()
                sent_hash, received_hash = way(size, client_pause)
                seconds = time.monotonic() - started
            self.assertEqual(sent_hash, received_hash)
        growth = memory.largest - before
        print(
            f"{way.__name__}, slow {slow}: {size >> 20} MiB in {seconds:.1f} s, resident {before >> 10} KiB,"
            f" grown by {growth >> 10} KiB"
        )
        if not SANITIZED:
            self.assertLessEqual(growth, GROWTH_MAX, f"{way.__name__}, slow {slow}")

    def test_a_large_body_up_to_a_slow_delegate(self):
        self.transfer(self.up, "delegate")

    def test_a_large_body_up_from_a_slow_client(self):
        self.transfer(self.up, "client")

    def test_a_large_body_down_to_a_slow_client(self):
        self.transfer(self.down, "client")

    def test_a_large_body_down_from_a_slow_delegate(self):
        self.transfer(self.down, "delegate")


class AsItHappensTest(TestCase):
    def run_steps(self, head, frame, read_piece):
        """The delegate sends the next event only when the client has got the one before: whoever gathers, hangs."""
        received = threading.Semaphore(0)

        def serve(connection):
            read_head(connection)
            connection.sendall(head)
            for index in range(20):
                connection.sendall(frame(b"data: %d\n\n" % index))
                if not received.acquire(timeout=harness.PATIENCE):
                    return
            connection.sendall(frame(b""))

        delegate = Delegate(serve)
        self.addCleanup(delegate.close)
        with Aggregator(delegate=delegate.url, plugins=None) as aggregator:
            with socket.create_connection(("127.0.0.1", aggregator.port), timeout=harness.PATIENCE) as client:
                client.sendall(b"GET /events HTTP/1.1\r\nHost: a\r\nAccept: text/event-stream\r\n\r\n")
                answer, rest = read_head(client)
                self.assertTrue(answer.startswith("HTTP/1.1 200 "), answer)
                stream = client.makefile("rb")
                for index in range(20):
                    expected = b"data: %d\n\n" % index
                    while expected not in rest:
                        piece = read_piece(stream)
                        self.assertTrue(piece, "the stream ended early")
                        rest += piece
                    received.release()

    def test_server_sent_events_arrive_one_by_one_in_chunks(self):
        self.run_steps(
            b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n",
            lambda data: b"%x\r\n%b\r\n" % (len(data), data),
            lambda stream: stream.read1(65536),
        )

    def test_server_sent_events_arrive_one_by_one_until_close(self):
        self.run_steps(
            b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n",
            lambda data: data,
            lambda stream: stream.read1(65536),
        )

    def test_a_long_poll_holds_its_connection_and_nothing_else(self):
        release = threading.Event()

        def serve(connection):
            while True:
                head, _ = read_head(connection)
                if not head:
                    return
                if "/poll" in head:
                    connection.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
                    release.wait(harness.PATIENCE)
                    connection.sendall(b"4\r\nnews\r\n0\r\n\r\n")
                else:
                    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")

        delegate = Delegate(serve)
        self.addCleanup(delegate.close)
        with Aggregator(delegate=delegate.url, plugins=None) as aggregator:
            polls = []
            for _ in range(50):
                client = socket.create_connection(("127.0.0.1", aggregator.port), timeout=harness.PATIENCE)
                self.addCleanup(client.close)
                client.sendall(b"GET /poll HTTP/1.1\r\nHost: a\r\n\r\n")
                polls.append((client, read_head(client)))
            for _ in range(20):
                self.assertEqual(aggregator.get("/plain").body, b"ok")
            release.set()
            for client, (head, rest) in polls:
                self.assertTrue(head.startswith("HTTP/1.1 200 "), head)
                while not rest.endswith(b"0\r\n\r\n"):
                    piece = client.recv(1024)
                    self.assertTrue(piece)
                    rest += piece
                self.assertIn(b"news", rest)
