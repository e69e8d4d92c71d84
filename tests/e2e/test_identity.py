"""Who a request comes from, and the numbers that it is followed by.

Goal: the delegate, the log and the plugin are told the client's address and the request's numbers by those who may say
them, and by nobody else. Method: the real binary; raw bytes, curl and, where it is installed, HAProxy in front of it; a
delegate that says back the head that it got.
"""

import os
import re
import shutil
import socket
import subprocess
import tempfile
import unittest

from harness import (
    QUERY_PATH,
    Aggregator,
    Client,
    EchoDelegate,
    Process,
    TestCase,
    exchange_raw,
    free_port,
    query,
    query_body,
    wait_until,
)

LINE = b"PROXY TCP4 192.0.2.1 198.51.100.1 56324 443\r\n"
BINARY = (
    b"\r\n\r\n\0\r\nQUIT\n\x21\x21\x00\x24"
    + socket.inet_pton(socket.AF_INET6, "2001:db8::1")
    + socket.inet_pton(socket.AF_INET6, "2001:db8::2")
    + b"\x12\x34\x00\x50"
)
GET = b"GET /head HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n"


def fields(answer, name):
    return [value for have, value in answer.json()["headers"] if have.lower() == name.lower()]


class IdentityTest(TestCase):
    @classmethod
    def setUpClass(cls):
        cls.delegate = EchoDelegate()
        cls.delegate.__enter__()
        cls.addClassCleanup(cls.delegate.__exit__)

    def start(self, *flags, **arguments):
        aggregator = Aggregator(*flags, **{"delegate": self.delegate.url, "plugins": None, **arguments})
        aggregator.start()
        self.addCleanup(aggregator.__exit__, None, None, None)
        return aggregator

    def test_only_trusted_proxies_say_who_asks(self):
        said = {"X-Forwarded-For": "203.0.113.9, 192.0.2.7, 10.1.1.1", "X-Remote-User": "root", "X-WEBAUTH-USER": "a"}
        for flags, forwarded_for, client in (
            ((), "127.0.0.1", "127.0.0.1:"),
            (("--trusted-proxies", "10.0.0.0/8"), "127.0.0.1", "127.0.0.1:"),
            (
                ("--trusted-proxies", "10.0.0.0/8", "--trusted-proxies=127.0.0.1"),
                "203.0.113.9, 192.0.2.7, 10.1.1.1, 127.0.0.1",
                "192.0.2.7",
            ),
        ):
            with self.subTest(flags):
                aggregator = self.start(*flags)
                answer = aggregator.get("/head", said)
                self.assertEqual(fields(answer, "X-Forwarded-For"), [forwarded_for])
                self.assertEqual(fields(answer, "X-Remote-User") + fields(answer, "X-WEBAUTH-USER"), [])
                self.assertTrue(aggregator.wait_record(target="/head")["client"].startswith(client))

    def test_the_numbers_of_a_request_are_the_same_everywhere(self):
        aggregator = self.start()
        answer = aggregator.get("/head", {"X-Request-Id": "mine"})
        (request_id,), (traceparent,) = fields(answer, "X-Request-Id"), fields(answer, "traceparent")
        self.assertRegex(request_id, "^[0-9a-f]{32}$")
        self.assertEqual(answer.header("x-request-id"), request_id)
        record = aggregator.wait_record(target="/head")
        self.assertEqual((record["request_id"], record["trace_id"]), (request_id, traceparent.split("-")[1]))
        # A request that never got so far has its number as well.
        refused, _ = exchange_raw(aggregator.port, b"GET / HTTP/1.1\r\nHost : h\r\n\r\n")
        refused_id = re.search(rb"\r\nX-Request-Id: ([0-9a-f]{32})\r\n", refused).group(1).decode()
        found = wait_until(
            lambda: [r for r in aggregator.access_records() if r["request_id"] == refused_id], "the refused's record"
        )
        self.assertEqual(found[0]["status"], 400)

    def test_a_plugin_is_told_the_trace_and_the_request(self):
        aggregator = Aggregator("--trusted-proxies", "127.0.0.1")
        with aggregator:
            trace_id = "0af7651916cd43dd8448eb211c80319c"
            told = {"X-Request-Id": "one-of-many", "traceparent": f"00-{trace_id}-b7ad6b7169203331-01"}
            answer = aggregator.request("POST", QUERY_PATH, query_body(query()), told)
            self.assertEqual((answer.status, answer.header("x-request-id")), (200, "one-of-many"))
            record = aggregator.wait_record(target="/query")
            self.assertEqual((record["request_id"], record["trace_id"]), ("one-of-many", trace_id))

    def test_a_proxy_header_says_who_asks(self):
        aggregator = self.start("--proxy-protocol-from", "127.0.0.0/8")
        for header, address, client in (
            (LINE, "192.0.2.1", "192.0.2.1:56324"),
            (BINARY, "2001:db8::1", "[2001:db8::1]:4660"),
        ):
            for pieces in (None, 1, 7):
                with self.subTest(client, pieces=pieces):
                    received, closed = exchange_raw(aggregator.port, header + GET, pieces=pieces)
                    self.assertTrue(received.startswith(b"HTTP/1.1 200 ") and closed, received)
                    self.assertIn(f'["X-Forwarded-For", "{address}"]'.encode(), received)
            wait_until(lambda: [r for r in aggregator.access_records() if r["client"] == client], "its record")
        # One that is missing or broken ends the connection, is counted and recorded, and never reaches the delegate.
        before = len(self.delegate.requests)
        for broken in (GET, b"PROXY TCP4 nobody nowhere 1 2\r\n" + GET, BINARY[:12] + b"\x31" + BINARY[13:] + GET):
            self.assertEqual(exchange_raw(aggregator.port, broken), (b"", True))
        wait_until(
            lambda: sum(r["reason"] == "bad_proxy_header" for r in aggregator.access_records()) == 3, "three records"
        )
        self.assertEqual(aggregator.metric("dpa_http_requests_total", reason="bad_proxy_header"), 3)
        aggregator.wait_log("bad_proxy_header")
        self.assertEqual(len(self.delegate.requests), before)
        # Probes of the admin port send none.
        self.assertEqual(aggregator.admin("/livez").status, 200)

    def test_proxies_are_not_counted_as_one_client(self):
        for flags, statuses in (
            ((), [200, 503]),
            (("--trusted-proxies", "127.0.0.1"), [200, 200]),
        ):
            with self.subTest(flags):
                aggregator = self.start("--max-connections-per-client", "1", *flags)
                with Client(aggregator.port) as first:
                    self.assertEqual([first.request("GET", "/head").status, aggregator.get("/head").status], statuses)

    def test_a_proxy_header_of_anybody_else_is_a_bad_request(self):
        aggregator = self.start("--proxy-protocol-from", "10.0.0.0/8")
        for header in (LINE, BINARY):
            received, closed = exchange_raw(aggregator.port, header + GET)
            self.assertTrue(received.startswith(b"HTTP/1.1 400 ") and closed, received)

    @unittest.skipUnless(shutil.which("curl"), "curl is not installed")
    def test_curl_speaks_the_proxy_protocol(self):
        aggregator = self.start("--proxy-protocol-from", "127.0.0.1", "--proxy-protocol-from", "::1")
        url = f"http://127.0.0.1:{aggregator.port}/head"
        result = subprocess.run(
            ["curl", "-sS", "--max-time", "20", "--haproxy-protocol", url, url], capture_output=True, check=False
        )
        self.assertEqual((result.returncode, result.stderr), (0, b""))
        self.assertEqual(result.stdout.count(b'["X-Forwarded-For", "127.0.0.1"]'), 2)
        without = subprocess.run(["curl", "-sS", "--max-time", "20", url], capture_output=True, check=False)
        self.assertNotEqual(without.returncode, 0)

    @unittest.skipUnless(shutil.which("haproxy") or os.path.exists("/usr/sbin/haproxy"), "haproxy is not installed")
    def test_haproxy_in_front_says_who_asks(self):
        folder = tempfile.mkdtemp(prefix="dpa-haproxy-")
        self.addCleanup(shutil.rmtree, folder, ignore_errors=True)
        aggregator = self.start("--proxy-protocol-from", "127.0.0.1", "--trusted-proxies", "10.0.0.0/8")
        # HAProxy itself is told its clients' addresses by a header, so that they differ from its own.
        kinds = ("send-proxy", "send-proxy-v2", "send-proxy-v2 proxy-v2-options crc32c,unique-id")
        ports = [free_port() for _ in kinds]
        config = "defaults\n mode tcp\n timeout connect 10s\n timeout client 20s\n timeout server 20s\n"
        for index, (kind, port) in enumerate(zip(kinds, ports)):
            config += f"listen l{index}\n bind 127.0.0.1:{port} accept-proxy\n unique-id-format id-{index}\n"
            config += f" server s 127.0.0.1:{aggregator.port} {kind} check check-send-proxy inter 100ms\n"
        path = os.path.join(folder, "haproxy.cfg")
        with open(path, "w", encoding="ascii") as file:
            file.write(config)
        haproxy = Process("haproxy", [shutil.which("haproxy") or "/usr/sbin/haproxy", "-db", "-f", path], folder)
        self.addCleanup(haproxy.end)
        for kind, port in zip(kinds, ports):
            with self.subTest(kind):

                def ask(header, port=port):
                    try:
                        return exchange_raw(port, header + GET)[0]
                    except OSError:
                        return b""

                wait_until(lambda: ask(LINE).startswith(b"HTTP/1.1 200 "), "HAProxy answers", 20)
                self.assertIn(b'["X-Forwarded-For", "192.0.2.1"]', ask(LINE))
                self.assertIn(b'["X-Forwarded-For", "2001:db8::1"]', ask(BINARY))
        # Its health checks are LOCAL connections, which are fine.
        self.assertEqual([r for r in aggregator.access_records() if r["reason"] == "bad_proxy_header"], [])

    def test_the_header_of_rfc_7239_can_be_believed_instead(self):
        aggregator = self.start("--trusted-proxies", "127.0.0.1", "--forwarded-header", "forwarded")
        said = {"Forwarded": "for=192.0.2.7;proto=https;host=public.example", "X-Forwarded-For": "6.6.6.6"}
        answer = aggregator.get("/head", {"Host": "h", **said})
        self.assertEqual(
            fields(answer, "Forwarded"),
            ["for=192.0.2.7;proto=https;host=public.example, for=127.0.0.1;host=h;proto=http"],
        )
        self.assertEqual(fields(answer, "X-Forwarded-For"), ["192.0.2.7, 127.0.0.1"])
        self.assertEqual(fields(answer, "X-Forwarded-Proto"), ["https"])
        self.assertEqual(fields(answer, "X-Forwarded-Host"), ["public.example"])
