"""Malformed and hostile HTTP/1.

Goal: every request that breaks RFC 9112 gets a clear 4xx or 5xx and a closed connection, and never reaches the
delegate. Method: raw bytes over sockets, at once and cut into pieces; a delegate that records what reaches it; after
each row an ordinary request.
"""

import socket
import time

import harness
from harness import QUERY_PATH, Aggregator, EchoDelegate, TestCase, exchange_raw, split_answers

# (name, bytes, statuses that are a right answer)
ROWS = [
    ("no version", b"GET /x\r\nHost: a\r\n\r\n", (400, 505)),
    ("version 2.0 in text", b"GET /x HTTP/2.0\r\nHost: a\r\n\r\n", (400, 505)),
    ("version of one digit", b"GET /x HTTP/1\r\nHost: a\r\n\r\n", (400, 505)),
    ("another protocol", b"GET /x ICE/1.0\r\nHost: a\r\n\r\n", (400,)),
    ("an HTTP/2 preface", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", (400, 405, 505)),
    ("a TLS hello", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\x00" * 40, (400,)),
    ("bytes that are nothing", b"\x00\xff\xfe\x01garbage\r\n\r\n", (400,)),
    ("empty method", b" /x HTTP/1.1\r\nHost: a\r\n\r\n", (400,)),
    ("method with a control byte", b"GE\x01T /x HTTP/1.1\r\nHost: a\r\n\r\n", (400,)),
    ("target with a space", b"GET /a b HTTP/1.1\r\nHost: a\r\n\r\n", (400,)),
    ("target with a control byte", b"GET /a\x01b HTTP/1.1\r\nHost: a\r\n\r\n", (400,)),
    ("target without a slash", b"GET x HTTP/1.1\r\nHost: a\r\n\r\n", (400,)),
    ("CONNECT", b"CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\n\r\n", (400, 404, 405, 501)),
    ("no Host", b"GET /x HTTP/1.1\r\n\r\n", (400,)),
    ("two Hosts", b"GET /x HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", (400,)),
    ("a bad Host", b"GET /x HTTP/1.1\r\nHost: a/b\r\n\r\n", (400,)),
    ("header without a colon", b"GET /x HTTP/1.1\r\nHost: a\r\nBroken\r\n\r\n", (400,)),
    ("header name with a space", b"GET /x HTTP/1.1\r\nHost: a\r\nBad Name: 1\r\n\r\n", (400,)),
    ("space before the colon", b"GET /x HTTP/1.1\r\nHost: a\r\nX-Y : 1\r\n\r\n", (400,)),
    ("empty header name", b"GET /x HTTP/1.1\r\nHost: a\r\n: 1\r\n\r\n", (400,)),
    ("folded header", b"GET /x HTTP/1.1\r\nHost: a\r\nX-Y: 1\r\n 2\r\n\r\n", (400,)),
    ("NUL in a value", b"GET /x HTTP/1.1\r\nHost: a\r\nX-Y: 1\x002\r\n\r\n", (400,)),
    ("bare CR in a value", b"GET /x HTTP/1.1\r\nHost: a\r\nX-Y: 1\r2\r\n\r\n", (400,)),
    ("bare LF line ends", b"GET /x HTTP/1.1\nHost: a\n\n", (400,)),
    ("negative length", b"POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n", (400,)),
    ("length with a plus", b"POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: +1\r\n\r\nx", (400,)),
    ("length in hex", b"POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 0x1\r\n\r\nx", (400,)),
    ("empty length", b"POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: \r\n\r\n", (400,)),
    (
        "length beyond 64 bits",
        b"POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999999999999999\r\n\r\n",
        (400, 413),
    ),
    (
        "two lengths that differ",
        b"POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nxx",
        (400,),
    ),
    ("list of lengths that differ", b"POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 1, 2\r\n\r\nxx", (400,)),
    (
        "length and chunked",
        b"POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        (400,),
    ),
    (
        "chunked not last",
        b"POST /x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, gzip\r\n\r\n0\r\n\r\n",
        (400, 501),
    ),
    ("an unknown coding", b"POST /x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: sparkle\r\n\r\n", (400, 501)),
    (
        "chunked twice",
        b"POST /x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n",
        (400, 501),
    ),
    (
        "coding with a vertical tab",
        b"POST /x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n",
        (400, 501),
    ),
    ("chunked in HTTP/1.0", b"POST /x HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", (400, 501)),
    (
        "chunk size that is no number",
        b"POST /x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n\r\n",
        (400,),
    ),
    ("negative chunk size", b"POST /x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n-1\r\n\r\n", (400,)),
    (
        "chunk size beyond 64 bits",
        b"POST /x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n" + b"f" * 17 + b"\r\n",
        (400, 413),
    ),
    (
        "chunk longer than its size",
        b"POST /x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nabc\r\n0\r\n\r\n",
        (400,),
    ),
]

ORDINARY = b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok"


class BadHttpTest(TestCase):
    @classmethod
    def setUpClass(cls):
        cls.delegate = EchoDelegate()
        cls.delegate.__enter__()
        cls.addClassCleanup(cls.delegate.__exit__)
        cls.aggregator = Aggregator(
            "--client-header-timeout",
            "2s",
            "--client-body-timeout",
            "2s",
            "--max-header-bytes",
            "16KiB",
            delegate=cls.delegate.url,
        )
        cls.aggregator.start()
        cls.addClassCleanup(cls.aggregator.__exit__, None, None, None)

    def assert_alive(self):
        self.assertEqual(split_answers(exchange_raw(self.aggregator.port, ORDINARY)[0])[0][2], b"ok")

    def assert_refused(self, received, closed, statuses):
        answers = split_answers(received)
        self.assertEqual(len(answers), 1, received)
        status, headers, body = answers[0]
        self.assertIn(status, statuses, received)
        self.assertTrue(body, "the answer says what is wrong")
        self.assertEqual(headers.get("connection", "").lower(), "close")
        self.assertTrue(closed, "the connection is closed")

    def test_each_row_is_refused_with_a_closed_connection(self):
        for name, request, statuses in ROWS:
            for pieces in (None, 1, 7):
                with self.subTest(name, pieces=pieces):
                    received, closed = exchange_raw(self.aggregator.port, request, pieces=pieces)
                    self.assert_refused(received, closed, statuses)
            self.assert_alive()
        # A request whose body broke off may have begun to go there, none was completed.
        self.assertEqual({target for _, target, *_ in self.delegate.requests}, {"/echo"})

    def test_what_follows_a_refused_request_is_not_taken_for_another(self):
        smuggled = b"GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n"
        for name, request, statuses in ROWS:
            with self.subTest(name):
                received, closed = exchange_raw(self.aggregator.port, request + smuggled)
                self.assert_refused(received, closed, statuses + (400, 404))
        self.assertNotIn("/smuggled", [target for _, target, *_ in self.delegate.requests])

    def test_a_head_over_the_limit_is_a_431_and_a_target_over_it_a_414_or_431(self):
        for name, request, statuses in (
            ("one long header", b"GET /x HTTP/1.1\r\nHost: a\r\nX-Y: " + b"y" * 20_000 + b"\r\n\r\n", (431,)),
            ("many headers", b"GET /x HTTP/1.1\r\nHost: a\r\n" + b"X-Y: 1\r\n" * 4000 + b"\r\n", (431,)),
            ("a head that never ends", b"GET /x HTTP/1.1\r\nHost: a\r\nX-Y: " + b"y" * 200_000, (431,)),
            ("a long target", b"GET /" + b"t" * 20_000 + b" HTTP/1.1\r\nHost: a\r\n\r\n", (414, 431)),
        ):
            with self.subTest(name):
                received, closed = exchange_raw(self.aggregator.port, request)
                if not received and closed:
                    continue  # The answer was lost to the reset that unread bytes cause; the refusal was seen.
                self.assert_refused(received, closed, statuses)
        self.assert_alive()

    def test_a_slow_head_and_a_slow_body_are_a_408(self):
        head = b"POST " + QUERY_PATH.encode() + b" HTTP/1.1\r\nHost: a\r\n"
        for name, request, reason in (
            ("half a head", b"GET /x HTTP/1.1\r\nHost: a\r\nX-Slow", "header_timeout"),
            ("half a body for a plugin", head + b"Content-Length: 100\r\n\r\n{", "body_timeout"),
            ("half a chunk for a plugin", head + b"Transfer-Encoding: chunked\r\n\r\n64\r\n{", "body_timeout"),
            (
                "half a body for the delegate",
                b"POST /echo?half HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\n{",
                "body_timeout",
            ),
        ):
            with self.subTest(name):
                received, closed = exchange_raw(self.aggregator.port, request)
                self.assert_refused(received, closed, (408,))
                status, headers, body = split_answers(received)[0]
                self.assert_status(harness.Answer(status, headers, body), 408, reason)

    def test_a_client_that_connects_and_says_nothing_is_closed_in_the_end(self):
        with Aggregator("--client-header-timeout", "1s", "--keepalive-timeout", "1s", plugins=None) as aggregator:
            received, closed = exchange_raw(aggregator.port, b"", timeout=20)
            self.assertTrue(closed)
            self.assertIn(received[:12], (b"", b"HTTP/1.1 408"))

    def test_early_closes_at_every_point_leave_the_server_well(self):
        request = (
            b"POST " + QUERY_PATH.encode() + b" HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n"
            b"Content-Length: 200\r\n\r\n" + b" " * 100
        )
        for cut in range(0, len(request), 9):
            with socket.create_connection(("127.0.0.1", self.aggregator.port), timeout=10) as client:
                client.sendall(request[:cut])
                if cut % 2:  # Half of them with a reset instead of an orderly end.
                    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        self.assert_alive()

    def test_many_half_open_requests_do_not_keep_others_out(self):
        clients = []
        try:
            for _ in range(200):
                client = socket.create_connection(("127.0.0.1", self.aggregator.port), timeout=10)
                client.sendall(b"GET /x HTTP/1.1\r\nHost:")
                clients.append(client)
            self.assert_alive()
        finally:
            for client in clients:
                client.close()

    def test_a_client_that_never_reads_its_answer_does_not_stop_others(self):
        # Goal: back-pressure, not memory. Method: answers of 20 MB that nobody reads; the process may not grow by as
        # much.
        body = b"x" * 20_000_000
        clients = []
        try:
            before = self.resident_bytes()
            for _ in range(8):
                client = socket.create_connection(("127.0.0.1", self.aggregator.port), timeout=10)
                client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
                client.settimeout(0.5)
                clients.append(client)
                try:
                    client.sendall(b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
                except TimeoutError:
                    pass
            for _ in range(20):
                self.assert_alive()
                time.sleep(0.02)
            self.assertLess(self.resident_bytes() - before, 100_000_000)
        finally:
            for client in clients:
                client.close()

    def resident_bytes(self):
        with open(f"/proc/{self.aggregator.pid}/statm", encoding="ascii") as file:
            return int(file.read().split()[1]) * 4096

    def test_refusals_are_status_objects_with_a_reason(self):
        received, _ = exchange_raw(
            self.aggregator.port, b"GET /apis/x HTTP/1.1\r\nHost: a\r\nContent-Length: x\r\n\r\n"
        )
        status, headers, body = split_answers(received)[0]
        self.assert_status(harness.Answer(status, headers, body), 400, "bad_request")
