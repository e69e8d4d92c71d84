"""Limits towards clients, and what happens beyond them.

Goal: whoever wants too much is told so at once, or cut off in time, and nobody else notices. Method: crowds of raw
sockets that misbehave, beside clients that ask in an orderly way all the while and must be answered every time.
"""

import collections
import contextlib
import os
import select
import signal
import socket
import threading
import unittest

import harness
from harness import Aggregator, Client, EchoDelegate, Load, REASON, TestCase, exchange_raw, split_answers, wait_until

GET = b"GET /echo HTTP/1.1\r\nHost: h\r\n\r\n"


def connect(port, source="127.0.0.1"):
    return socket.create_connection(("127.0.0.1", port), harness.PATIENCE, (source, 0))


def ask(connection, data=GET):
    """One whole answer: (status, headers, body)."""
    connection.sendall(data)
    return read_answer(connection)


def read_answer(connection):
    received = b""
    while True:
        head, separator, body = received.partition(b"\r\n\r\n")
        if separator:
            status, headers, _ = split_answers(head + separator)[0]
            length = int(headers.get("content-length", 0))
            if len(body) >= length:
                return status, headers, body[:length]
        piece = connection.recv(65536)
        if not piece:
            raise AssertionError(f"the connection ended inside an answer: {received[:300]!r}")
        received += piece


class Crowd:
    """Connections that begin with `first` and then send `byte` now and then until each is answered. What each got until
    its end is in `answers`."""

    def __init__(self, port, count, first, byte=b"x"):
        self.answers = []
        self._byte = byte
        self._connections = [connect(port) for _ in range(count)]
        for connection in self._connections:
            connection.sendall(first)
        self._thread = threading.Thread(target=self._run, daemon=True)

    def _run(self):
        received = {connection: b"" for connection in self._connections}
        poller = select.poll()
        by_fd = {}
        for connection in self._connections:
            poller.register(connection, select.POLLIN)
            by_fd[connection.fileno()] = connection
        while by_fd:
            for number, _ in poller.poll(200):
                connection = by_fd[number]
                try:
                    piece = connection.recv(65536)
                except ConnectionResetError:
                    piece = b""
                received[connection] += piece
                if not piece:
                    poller.unregister(number)
                    self.answers.append(received[by_fd.pop(number)])
                    connection.close()
            for connection in by_fd.values():
                with contextlib.suppress(OSError):
                    connection.send(self._byte)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._thread.join(harness.PATIENCE)
        if self._thread.is_alive():
            raise AssertionError("some of the crowd were never cut off")


class SlowClientsTest(TestCase):
    COUNT = 400

    def assert_cut_off(self, aggregator, answers, reason):
        """Each was told 408 and why; log and counter know of each."""
        self.assertEqual(len(answers), self.COUNT)
        for answer in answers:
            status, _, body = split_answers(answer)[0]
            self.assertEqual(status, 408)
            self.assertIn(REASON[reason].encode(), body)
        wait_until(lambda: aggregator.metric("requests", reason=REASON[reason]) == self.COUNT, "all are counted")
        records = wait_until(
            lambda: [found for found in [self.records(aggregator, reason)] if len(found) == self.COUNT], "all records"
        )[0]
        self.assertEqual({record["ended_by"] for record in records}, {"downstream"})
        return records

    def records(self, aggregator, reason):
        return [record for record in aggregator.access_records() if record["reason"] == REASON[reason]]

    def test_slow_headers_are_cut_off_and_others_are_served(self):
        with EchoDelegate() as delegate, Aggregator(
            "--client-header-timeout", "2s", delegate=delegate.url, plugins=None
        ) as aggregator:
            with Load(lambda client: client.request("GET", "/echo").status, 4, aggregator.port) as load:
                with Crowd(aggregator.port, self.COUNT, b"GET /slow-head HTTP/1.1\r\nHost: h\r\nX-Slow: ") as crowd:
                    load.wait_for(50)
            self.assertEqual(set(load.outcomes()), {200})
            records = self.assert_cut_off(aggregator, crowd.answers, "header_timeout")
            self.assertEqual({(r["method"], r["target"], r["phase"]) for r in records}, {("GET", "/slow-head", "head")})

    def test_slow_bodies_are_cut_off_and_others_are_served(self):
        # Each byte comes long before --client-body-timeout; it is the rate that is too low.
        with EchoDelegate() as delegate, Aggregator(
            "--client-body-grace", "2s", "--delegate-connect-timeout", "60s", delegate=delegate.url, plugins=None
        ) as aggregator:
            with Load(lambda client: client.request("GET", "/echo").status, 4, aggregator.port) as load:
                head = b"POST /slow-body HTTP/1.1\r\nHost: h\r\nContent-Length: 100000\r\n\r\n"
                with Crowd(aggregator.port, self.COUNT, head) as crowd:
                    load.wait_for(50)
            self.assertEqual(set(load.outcomes()), {200})
            records = self.assert_cut_off(aggregator, crowd.answers, "body_timeout")
            self.assertTrue(all(0 < record["request_bytes"] < 1000 for record in records))


class ConnectionsTest(TestCase):
    def assert_shed(self, port, reason, source="127.0.0.1"):
        with connect(port, source) as connection:
            connection.sendall(GET)
            status, headers, body = read_answer(connection)
            self.assertEqual((status, headers["connection"], headers["retry-after"]), (503, "close", "1"))
            self.assert_status(harness.Answer(status, headers, body), 503, reason)

    def test_a_full_house_sheds_and_serves_those_inside(self):
        # Exactly as many as allowed get in, however the kernel deals them to the workers.
        with EchoDelegate() as delegate, Aggregator(
            "--max-connections", "20", delegate=delegate.url, plugins=None
        ) as aggregator, contextlib.ExitStack() as stack:
            inside = [stack.enter_context(connect(aggregator.port)) for _ in range(20)]
            for connection in inside:
                self.assertEqual(ask(connection)[0], 200)
            for _ in range(30):
                self.assert_shed(aggregator.port, "connections")
                self.assertEqual(ask(inside[0])[0], 200)
            inside.pop().close()
            wait_until(lambda: aggregator.metric("connections") == 19, "a place is free")
            with connect(aggregator.port) as connection:
                self.assertEqual(ask(connection)[0], 200)
                self.assert_shed(aggregator.port, "connections")
            self.assertEqual(aggregator.metric("shed", reason=REASON["connections"], answered="yes"), 31)
            self.assertEqual(aggregator.metric("requests", reason=REASON["connections"]), 31)
            record = aggregator.wait_record(reason=REASON["connections"])
            self.assertEqual((record["status"], record["client"].split(":")[0]), (503, "127.0.0.1"))

    def test_one_address_cannot_take_the_whole_house(self):
        with EchoDelegate() as delegate, Aggregator(
            "--max-connections-per-client", "10", delegate=delegate.url, plugins=None, unix_listen=True
        ) as aggregator, contextlib.ExitStack() as stack:
            inside = [stack.enter_context(connect(aggregator.port)) for _ in range(10)]
            for connection in inside:
                self.assertEqual(ask(connection)[0], 200)
            for _ in range(5):
                self.assert_shed(aggregator.port, "client_connections")
            others = [stack.enter_context(connect(aggregator.port, "127.0.0.2")) for _ in range(10)]
            for connection in others + inside:
                self.assertEqual(ask(connection)[0], 200)
            self.assert_shed(aggregator.port, "client_connections", "127.0.0.2")
            # A unix socket has no address to count by.
            local = [stack.enter_context(Client(aggregator.unix_path)) for _ in range(15)]
            self.assertEqual({client.request("GET", "/echo").status for client in local}, {200})

    @unittest.skipIf(harness.checks_undefined_behaviour(), "the sanitizer cannot do without descriptors")
    def test_running_out_of_descriptors_harms_nobody_inside_and_passes(self):
        # Goal: EMFILE is a state, not an end. Method: a limit on open files that a crowd exhausts; those inside hold
        # connections to the delegate, of which there are too few for all of them at once.
        with EchoDelegate() as delegate, Aggregator(
            "--max-connections", "100000", delegate=delegate.url, plugins=None, files_max=160
        ) as aggregator, contextlib.ExitStack() as stack:
            aggregator.wait_log("few_descriptors")
            inside = [stack.enter_context(connect(aggregator.port)) for _ in range(24)]
            for connection in inside:
                self.assertEqual(ask(connection)[0], 200)
            crowd = [stack.enter_context(connect(aggregator.port)) for _ in range(200)]
            aggregator.wait_log("accept_failed")
            for connection in inside:
                self.assertEqual(ask(connection)[0], 200)
            for connection in inside:
                connection.sendall(b"GET /never HTTP/1.1\r\nHost: h\r\n\r\n")
            answered, _, _ = select.select(inside, [], [], harness.PATIENCE)
            self.assertTrue(answered, "who cannot be connected to the delegate is told so")
            status, headers, body = read_answer(answered[0])
            self.assert_status(harness.Answer(status, headers, body), 503, "descriptors")
            for connection in crowd:
                connection.close()
            with connect(aggregator.port) as connection:
                self.assertEqual(ask(connection)[0], 200)
            self.assertGreater(aggregator.metric("dpa_http_accepts_out_of_descriptors_total"), 0)

    def test_who_connected_before_the_end_is_answered(self):
        # Method: the process stands still while clients connect and ask, so that they are in the backlog when the
        # signal to end is there.
        with Aggregator(plugins=None) as aggregator, contextlib.ExitStack() as stack:
            aggregator.process.signal(signal.SIGSTOP)
            try:
                waiting = [stack.enter_context(connect(aggregator.port)) for _ in range(50)]
                for connection in waiting:
                    connection.sendall(GET)
                aggregator.process.signal(signal.SIGTERM)
            finally:
                aggregator.process.signal(signal.SIGCONT)
            answers = [read_answer(connection) for connection in waiting]
            self.assertEqual({answer[0] for answer in answers}, {404})
            self.assertEqual(aggregator.process.wait(), 0)


class RequestsTest(TestCase):
    @classmethod
    def setUpClass(cls):
        cls.delegate = EchoDelegate()
        cls.delegate.__enter__()
        cls.addClassCleanup(cls.delegate.__exit__)
        flags = ["--max-header-fields", "20", "--max-target-bytes", "1000", "--max-request-body-bytes", "100000"]
        cls.aggregator = Aggregator(
            *flags, "--max-requests-per-connection", "3", delegate=cls.delegate.url, plugins=None
        )
        cls.aggregator.start()
        cls.addClassCleanup(cls.aggregator.__exit__, None, None, None)

    def test_header_fields_are_counted(self):
        fields = {f"X-{number}": "1" for number in range(30)}
        self.assert_status(self.aggregator.get("/echo", fields), 431, "header_too_large")
        self.assertEqual(self.aggregator.get("/echo", {f"X-{number}": "1" for number in range(15)}).status, 200)

    def test_targets_are_measured(self):
        self.assert_status(self.aggregator.get("/echo?" + "x" * 1000), 414, "target_too_long")
        self.assertEqual(self.aggregator.get("/echo?" + "x" * 990).status, 200)

    def test_request_bodies_are_measured(self):
        self.assertEqual(self.aggregator.request("POST", "/echo", b"x" * 100_000).status, 200)
        seen = len(self.delegate.requests)
        self.assert_status(self.aggregator.request("POST", "/echo", b"x" * 100_001), 413, "body_too_large")
        pieces = (b"x" * 10_000 for _ in range(11))
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            answer = self.aggregator.request("POST", "/echo", pieces, {"Transfer-Encoding": "chunked"})
            self.assert_status(answer, 413, "body_too_large")
        self.assertEqual(len(self.delegate.requests), seen, "the delegate took neither for a request")

    def test_a_connection_ends_after_its_last_request(self):
        answers, closed = exchange_raw(self.aggregator.port, GET * 5)
        answers = split_answers(answers)
        self.assertTrue(closed)
        self.assertEqual([(status, headers.get("connection")) for status, headers, _ in answers],
                         [(200, None), (200, None), (200, "close")])

    def test_requests_in_flight_are_bounded(self):
        with Aggregator(
            "--requests-in-flight-per-worker", "3", delegate=self.delegate.url, plugins=None
        ) as aggregator, contextlib.ExitStack() as stack:
            crowd = [stack.enter_context(connect(aggregator.port)) for _ in range(20)]
            for connection in crowd:
                connection.sendall(b"GET /never HTTP/1.1\r\nHost: h\r\n\r\n")
            told = []
            while len(told) < 14:  # Two workers take three each.
                ready, _, _ = select.select([c for c in crowd if c not in told], [], [], harness.PATIENCE)
                self.assertTrue(ready)
                for connection in ready:
                    status, headers, body = read_answer(connection)
                    self.assert_status(harness.Answer(status, headers, body), 503, "overloaded")
                    told.append(connection)
            outcomes = collections.Counter(ask(connection)[0] for connection in told)
            self.assertEqual(outcomes, {503: 14}, "their connections are kept, and the house is still full")


class FullLogTest(TestCase):
    def test_what_a_log_that_nobody_reads_loses_is_counted(self):
        # Goal: serving never waits for the log, and each line is either in it or counted. Method: the log is a pipe,
        # read only afterwards, and targets are long.
        with EchoDelegate() as delegate:
            aggregator = Aggregator(delegate=delegate.url, plugins=None)
            os.mkfifo(aggregator.access_log)
            reader = os.open(aggregator.access_log, os.O_RDWR)
            self.addCleanup(os.close, reader)
            with aggregator:
                target = "/echo?" + "x" * 15_000
                with Load(lambda client: client.request("GET", target).status, 8, aggregator.port) as load:
                    wait_until(lambda: aggregator.metric("log_dropped") > 100, "lines are dropped")
                self.assertEqual(set(load.outcomes()), {200})
                received = bytearray()
                done = threading.Event()

                def read():
                    while not done.is_set():
                        if select.select([reader], [], [], 0.05)[0]:
                            received.extend(os.read(reader, 1 << 20))

                thread = threading.Thread(target=read, daemon=True)
                thread.start()
                count = len(load.outcomes())
                try:
                    wait_until(
                        lambda: aggregator.metric("log_lines") + aggregator.metric("log_dropped") == count,
                        "every record is written or counted as lost",
                    )
                    self.assertEqual(aggregator.metric("requests"), count)
                    written = aggregator.metric("log_lines")
                    wait_until(lambda: received.count(b"\n") == written, "the lines that were written")
                finally:
                    done.set()
                    thread.join()
