"""What clients were answered, what the access log says and what /metrics counts are the same.

Goal: an operator can trust each of the three. Method: a mixed run of everything that can happen to a request, all at
once, by clients that keep their own books: status and reason of each request that they made. In the end the three books
must agree to the last entry.
"""

import collections
import contextlib
import json
import shutil
import socket
import subprocess
import threading
import unittest

import harness
from harness import QUERY_PATH, Aggregator, Client, EchoDelegate, TestCase, query, query_body, wait_until

ROUNDS = 12
OK = (200, "ok")


def reason_of(status, body):
    """The reason word of an answer: an error of ours names it, anything else is ok."""
    with contextlib.suppress(ValueError, KeyError, TypeError, IndexError):
        return status, json.loads(body)["details"]["causes"][0]["reason"]
    return status, "ok"


class Books:
    """The clients' own count of (status, reason)."""

    def __init__(self, aggregator, delegate):
        self.aggregator, self.delegate = aggregator, delegate
        self.entries = collections.Counter()
        self._lock = threading.Lock()

    def note(self, status, reason):
        with self._lock:
            self.entries[(status, reason)] += 1

    def note_answer(self, answer):
        self.note(*reason_of(answer.status, answer.body))

    def note_raw(self, data, expected):
        """Sends bytes as they are; each of the `expected` answers is noted."""
        received, _ = harness.exchange_raw(self.aggregator.port, data)
        answers = harness.split_answers(received)
        assert len(answers) == expected, (data[:80], received[:300])
        for status, _, body in answers:
            self.note(*reason_of(status, body))

    # --- The clients. Each is one thread; each request of theirs is noted once. ---

    def orderly(self):
        with Client(self.aggregator.port) as client:
            for number in range(ROUNDS * 4):
                body = b"x" * (number * 1000)
                self.note_answer(client.request("POST", "/echo", body))
                self.note_answer(client.request("GET", "/chunks"))
                self.note_answer(client.request("HEAD", "/echo"))
                self.note_answer(client.request("GET", "/livez"))

    def queries(self):
        with Client(self.aggregator.port) as client:
            for _ in range(ROUNDS):
                self.note_answer(client.request("POST", QUERY_PATH, query_body(query())))
                self.note_answer(client.request("POST", QUERY_PATH, "{", {"Content-Type": "application/json"}))
                self.note_answer(client.request("GET", QUERY_PATH))

    def pipelined(self):
        one = b"POST /echo HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\nabc"
        last = b"GET /echo HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n"
        for _ in range(ROUNDS):
            self.note_raw(one * 15 + last, 16)

    def old(self):
        for _ in range(ROUNDS):
            self.note_raw(b"GET /echo HTTP/1.0\r\n\r\n", 1)
            self.note_raw(b"GET /echo HTTP/1.0\r\nConnection: keep-alive\r\n\r\nGET /echo HTTP/1.0\r\n\r\n", 2)

    def malformed(self):
        for _ in range(ROUNDS):
            for data in (
                b"GET /x HTTP/1.1\r\n\r\n",
                b"GET /x HTTP/1.1\r\nHost: h\r\nA : b\r\n\r\n",
                b"GET /x HTTP/1.1\r\nHost: h\r\n" + b"A: b\r\n" * 30 + b"\r\n",
                b"GET /" + b"x" * 2000 + b" HTTP/1.1\r\nHost: h\r\n\r\n",
                b"TRACE /x HTTP/1.1\r\nHost: h\r\n\r\n",
                b"POST /x HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
                b"GET /x HTTP/2.0\r\nHost: h\r\n\r\n",
                b"POST /echo HTTP/1.1\r\nHost: h\r\nContent-Length: 1000000\r\n\r\n",
                b"POST /echo HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
            ):
                self.note_raw(data, 1)

    def slow(self):
        for data in (
            b"GET /x HTTP/1.1\r\nHost:",
            b"POST /echo HTTP/1.1\r\nHost: h\r\nContent-Length: 10\r\n\r\nabc",
        ):
            self.note_raw(data, 1)

    def unlucky(self):
        """The delegate closes without an answer, or inside it, or says nothing for too long."""
        for _ in range(ROUNDS):
            self.note_answer(self.aggregator.request("POST", "/reset", b"x"))
            with Client(self.aggregator.port) as client, contextlib.suppress(harness.http.client.IncompleteRead):
                client.request("GET", "/cut")
                raise AssertionError("an answer that was cut off looked whole")
            self.note(200, "delegate_truncated")
        self.note_answer(self.aggregator.get("/never"))

    def leaving(self):
        """Gone inside the head, while the answer is awaited, and inside the answer."""
        for number in range(ROUNDS):
            with socket.create_connection(("127.0.0.1", self.aggregator.port)) as connection:
                connection.sendall(b"GET /x HTTP/1.1\r\nHo")
                connection.shutdown(socket.SHUT_WR)
                assert connection.recv(1000) == b""
            self.note(499, "client_closed")
            for path in (f"/never?{number}", f"/slow?{number}"):
                with socket.create_connection(("127.0.0.1", self.aggregator.port)) as connection:
                    connection.sendall(f"GET {path} HTTP/1.1\r\nHost: h\r\n\r\n".encode())
                    wait_until(lambda p=path: any(r[1] == p for r in self.delegate.requests), "the delegate has it")
                    if path.startswith("/slow"):
                        assert connection.recv(10).startswith(b"HTTP/1.1")
                self.note(499, "client_closed")

    def turned_away(self):
        """After the others: the house is filled, first by one address, then by all."""
        with contextlib.ExitStack() as stack:
            for source, count in (("127.0.0.1", 30), ("127.0.0.2", 10)):
                for _ in range(count):
                    connection = stack.enter_context(
                        socket.create_connection(("127.0.0.1", self.aggregator.port), harness.PATIENCE, (source, 0))
                    )
                    connection.sendall(b"GET /echo HTTP/1.1\r\nHost: h\r\n\r\n")
                    status, _, body = harness.split_answers(connection.recv(65536))[0]
                    self.note(*reason_of(status, body))
                for _ in range(ROUNDS):
                    self.note_raw(b"GET /x HTTP/1.1\r\nHost: h\r\n\r\n", 1)


class ReconcileTest(TestCase):
    FLAGS = (
        "--client-header-timeout=1s",
        "--client-body-timeout=1s",
        "--delegate-header-timeout=3s",
        "--max-header-fields=20",
        "--max-target-bytes=1000",
        "--max-request-body-bytes=500000",
        "--max-connections=40",
        "--max-connections-per-client=30",
    )

    def recorded(self, aggregator):
        return collections.Counter((record["status"], record["reason"]) for record in aggregator.access_records())

    def counted(self, aggregator):
        counts = collections.Counter()
        for labels, value in aggregator.metrics()["dpa_http_requests_total"]:
            counts[(int(labels["code"]), labels["reason"])] += int(value)
        return counts

    def test_clients_log_and_metrics_agree_over_a_mixed_run(self):
        with EchoDelegate() as delegate, Aggregator(*self.FLAGS, delegate=delegate.url) as aggregator:
            books = Books(aggregator, delegate)
            failures = []

            def run(client):
                try:
                    client()
                except BaseException as error:  # pylint: disable=broad-except
                    failures.append((client.__name__, error))

            crowd = (books.orderly, books.queries, books.pipelined, books.old, books.malformed, books.slow)
            crowd += (books.unlucky, books.leaving)
            threads = [threading.Thread(target=run, args=(client,), daemon=True) for client in crowd]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join(harness.PATIENCE)
            self.assertEqual(failures, [])
            wait_until(lambda: aggregator.metric("connections") == 0, "the crowd has left")
            books.turned_away()

            expected = books.entries
            wait_until(lambda: self.counted(aggregator).total() >= expected.total(), "all are counted")
            wait_until(lambda: self.recorded(aggregator).total() >= expected.total(), "all are recorded")
            self.assertEqual(self.counted(aggregator), expected)
            self.assertEqual(self.recorded(aggregator), expected)
            self.assertEqual(aggregator.metric("log_lines"), expected.total())
            self.assertEqual(aggregator.metric("log_dropped"), 0)
            self.assertEqual(aggregator.metric("shed", answered="yes"), 2 * ROUNDS)
            durations = sum(v for _, v in aggregator.metrics()["dpa_http_request_duration_seconds_count"])
            self.assertEqual(durations, expected.total())
            # The run was mixed indeed.
            self.assertGreaterEqual(len({reason for _, reason in expected}), 17, expected)
            self.assert_records_are_sound(aggregator.access_records())
            if shutil.which("promtool"):
                page = aggregator.admin("/metrics").body
                checked = subprocess.run(["promtool", "check", "metrics"], input=page, capture_output=True, timeout=60)
                self.assertEqual((checked.returncode, checked.stdout + checked.stderr), (0, b""))

    def assert_records_are_sound(self, records):
        """Numbers are unique; what each record says of its bytes and times fits together."""
        self.assertEqual(len({record["exchange"] for record in records}), len(records))
        spans = ("t_head", "t_upstream", "t_request", "t_response_head", "t_response")
        phases = {"head", "route", "queue", "connect", "request", "response_head", "response"}
        for record in records:
            with self.subTest(record):
                if record["reason"] != "ok":
                    self.assertIn(record["phase"], phases)
                    self.assertIn(record["ended_by"], ("downstream", "upstream", "plugin", "internal"))
                    continue
                received = record["request_head_bytes"] + record["request_bytes"]
                sent = record["response_head_bytes"] + record["response_bytes"]
                self.assertGreaterEqual(record["received_bytes"], received)
                self.assertGreaterEqual(record["sent_bytes"], sent)
                if "upstream" in record:
                    self.assertAlmostEqual(sum(record[span] for span in spans), record["t_total"], delta=0.01)


if __name__ == "__main__":
    unittest.main()
