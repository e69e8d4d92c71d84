"""Everything that no service claims goes to the delegate, untouched.

Goal: the delegate cannot tell requests through the aggregator from direct ones but by what RFC 9110 asks a proxy to
add. Method: a real NGINX for what it can show (methods, files, uploads, reuse of connections), and a delegate that
says back every byte for the rest.
"""

import hashlib
import http.client
import os
import random
import socket
import threading

import harness
from harness import Aggregator, Client, EchoDelegate, Load, Nginx, TestCase, exchange_raw, free_port

SIZES = (0, 1, 100, 4095, 16_384, 16_385, 100_000, 1_048_577, 20_000_000)


def noise(size, seed=1):
    return random.Random(seed).randbytes(size)


class NginxTest(TestCase):
    @classmethod
    def setUpClass(cls):
        cls.nginx = Nginx()
        cls.nginx.__enter__()
        cls.addClassCleanup(cls.nginx.__exit__)
        for size in SIZES:
            cls.nginx.write_file(f"{size}.bin", noise(size))
        cls.aggregator = Aggregator(delegate=cls.nginx.url)
        cls.aggregator.start()
        cls.addClassCleanup(cls.aggregator.__exit__, None, None, None)

    def test_get_brings_the_delegates_answer_with_its_headers(self):
        answer = self.aggregator.get("/hello?x=1&y=%2F")
        self.assertEqual((answer.status, answer.body), (200, b"hello from the delegate\n"))
        self.assertEqual(answer.header("x-delegate"), "nginx")
        self.assertIn("nginx", answer.header("server"))
        self.assertTrue(answer.header("via"), "RFC 9110 §7.6.3: a proxy adds Via")
        # NGINX writes its log when the answer is out already.
        targets = lambda: [row[3] for row in self.nginx.requests()]
        harness.wait_until(lambda: "/hello?x=1&y=%2F" in targets(), "the delegate logs the target")

    def test_head_has_the_headers_and_no_body(self):
        with Client(self.aggregator.port) as client:
            answer = client.request("HEAD", "/100000.bin")
            self.assertEqual((answer.status, answer.body, answer.header("content-length")), (200, b"", "100000"))
            self.assertEqual(client.request("GET", "/hello").status, 200)  # The connection is still in step.

    def test_statuses_of_the_delegate_are_its_own(self):
        for path, status in (("/teapot", 418), ("/nothing", 204), ("/moved", 302), ("/no/such/file", 404)):
            with self.subTest(path), Client(self.aggregator.port) as client:
                self.assertEqual(client.request("GET", path).status, status)
                self.assertEqual(client.request("GET", "/hello").status, 200)

    def test_a_conditional_get_is_a_304(self):
        etag = self.aggregator.get("/100.bin").header("etag")
        self.assertEqual(self.aggregator.get("/100.bin", {"If-None-Match": etag}).status, 304)

    def test_a_range_is_a_206(self):
        answer = self.aggregator.get("/100000.bin", {"Range": "bytes=10-19"})
        self.assertEqual((answer.status, answer.body), (206, noise(100_000)[10:20]))

    def test_files_of_every_size_arrive_byte_for_byte(self):
        with Client(self.aggregator.port) as client:
            for size in SIZES:
                with self.subTest(size):
                    answer = client.request("GET", f"/{size}.bin")
                    self.assertEqual(len(answer.body), size)
                    self.assertEqual(hashlib.sha256(answer.body).digest(), hashlib.sha256(noise(size)).digest())

    def test_uploads_of_every_size_arrive_byte_for_byte(self):
        for size in SIZES:
            with self.subTest(size):
                content = noise(size, 2)
                self.assertIn(self.aggregator.request("PUT", f"/upload/{size}", content).status, (201, 204))
                self.assertEqual(self.nginx.read_upload(str(size)), content)

    def test_chunked_uploads_arrive_byte_for_byte(self):
        content = noise(20_000_000, 3)
        pieces = (content[start : start + 123_457] for start in range(0, len(content), 123_457))
        answer = self.aggregator.request("PUT", "/upload/chunked", pieces, {"Transfer-Encoding": "chunked"})
        self.assertIn(answer.status, (201, 204))
        self.assertEqual(self.nginx.read_upload("chunked"), content)

    def test_forwarded_headers_say_who_asked_and_how(self):
        # Whoever connects is not believed who is behind it, unless it is a proxy of ours.
        told = {"X-Forwarded-For": "192.0.2.7", "X-Forwarded-Proto": "https", "X-Forwarded-Host": "else.example"}
        asked = {"Host": "api.example:8443", "X-Probe": "a, b", **told}
        with Aggregator("--trusted-proxies", "127.0.0.0/8", delegate=self.nginx.url, plugins=None) as trusting:
            for aggregator, seen in (
                (self.aggregator, ("127.0.0.1", "http", "api.example:8443")),
                (trusting, ("192.0.2.7, 127.0.0.1", "https", "else.example")),
            ):
                with self.subTest(seen):
                    answer = aggregator.get("/headers", asked)
                    names = ("x-seen-forwarded-for", "x-seen-forwarded-proto", "x-seen-forwarded-host")
                    self.assertEqual(tuple(answer.header(name) for name in names), seen)
                    self.assertEqual(answer.header("x-seen-host"), "api.example:8443")
                    self.assertEqual(answer.header("x-seen-probe"), "a, b")
                    self.assertIn("1.1", answer.header("x-seen-via"))

    def test_connections_to_the_delegate_are_reused(self):
        # Goal: keep-alive towards the delegate. Method: the delegate's own log numbers connections and requests on
        # each; the counters of /metrics must tell the same.
        before = len(self.nginx.requests())
        reuses, connects = self.aggregator.metric("pool_reuses"), self.aggregator.metric("pool_connects")
        with Client(self.aggregator.port) as client:
            for _ in range(300):
                self.assertEqual(client.request("GET", "/hello?reuse").status, 200)
        harness.wait_until(lambda: len(self.nginx.requests()) >= before + 300, "300 lines in the delegate's log")
        rows = [row for row in self.nginx.requests()[before:] if row[3] == "/hello?reuse"]
        connections = {row[0] for row in rows}
        self.assertLessEqual(len(connections), 2, "one client connection needs one connection to the delegate")
        self.assertGreaterEqual(max(row[1] for row in rows), 150)
        self.assertGreaterEqual(self.aggregator.metric("pool_reuses") - reuses, 298)
        self.assertLessEqual(self.aggregator.metric("pool_connects") - connects, 2)

    def test_reuse_under_load_from_many_clients(self):
        before = len({row[0] for row in self.nginx.requests()})
        with Load(lambda client: client.request("GET", "/hello?load").status, 16, self.aggregator.port) as load:
            load.wait_for(3000)
        self.assertEqual(set(load.outcomes()), {200})
        self.assertLessEqual(len({row[0] for row in self.nginx.requests()}) - before, 64)

    def test_the_delegate_on_a_unix_socket(self):
        with Aggregator(delegate=self.nginx.unix_url, plugins=None) as aggregator, Client(aggregator.port) as client:
            for size in (0, 100, 100_000, 20_000_000):
                self.assertEqual(client.request("GET", f"/{size}.bin").body, noise(size))

    def test_a_delegate_that_restarts_is_used_again(self):
        with Nginx() as nginx, Aggregator("--delegate", nginx.url, plugins=None) as aggregator:
            self.assertEqual(aggregator.get("/hello").status, 200)
            nginx.stop()
            self.assert_status(aggregator.get("/apis/x/v1/y"), 502, "refused")
            nginx.start()
            # Pooled connections died with it: not one request may notice.
            for _ in range(20):
                self.assertEqual(aggregator.get("/hello").status, 200)


class EchoTest(TestCase):
    @classmethod
    def setUpClass(cls):
        cls.delegate = EchoDelegate()
        cls.delegate.__enter__()
        cls.addClassCleanup(cls.delegate.__exit__)
        cls.aggregator = Aggregator("--delegate-header-timeout", "1s", delegate=cls.delegate.url, plugins=None)
        cls.aggregator.start()
        cls.addClassCleanup(cls.aggregator.__exit__, None, None, None)

    def tearDown(self):
        self.assertEqual(self.aggregator.request("POST", "/echo", b"still there").body, b"still there")

    def head_seen(self, method="GET", target="/head", body=None, headers=None):
        return self.aggregator.request(method, target, body, headers).json()

    def test_bodies_go_both_ways_byte_for_byte(self):
        for size in SIZES:
            content = noise(size, 4)
            for path in ("/echo", "/chunks"):
                with self.subTest(size=size, path=path):
                    self.assertEqual(self.aggregator.request("POST", path, content).body, content)

    def test_a_large_chunked_post_goes_both_ways_byte_for_byte_with_its_trailers(self):
        content = noise(20_000_000, 5)
        cuts = random.Random(6)
        message = [
            b"POST /chunks?large HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n"
            b"Connection: close\r\n\r\n"
        ]
        at = 0
        while at < len(content):
            size = min(cuts.choice((1, 17, 4096, 16_384, 65_537, 300_000)), len(content) - at)
            message.append(b"%x;note=ignored\r\n%b\r\n" % (size, content[at : at + size]))
            at += size
        message.append(b"0\r\nX-Sum: %b\r\n\r\n" % hashlib.sha256(content).hexdigest().encode())
        with socket.create_connection(("127.0.0.1", self.aggregator.port), timeout=harness.PATIENCE) as client:
            threading.Thread(target=client.sendall, args=(b"".join(message),), daemon=True).start()
            answer = http.client.HTTPResponse(client)
            answer.begin()
            self.assertEqual(hashlib.sha256(answer.read()).digest(), hashlib.sha256(content).digest())
        _, _, _, body, trailers = [request for request in self.delegate.requests if "large" in request[1]][-1]
        self.assertEqual(hashlib.sha256(body).digest(), hashlib.sha256(content).digest())
        self.assertEqual(trailers, [f"X-Sum: {hashlib.sha256(content).hexdigest()}"])

    def test_the_head_that_the_delegate_sees_is_the_clients_with_what_a_proxy_adds(self):
        sent = (
            b"POST /head?exact HTTP/1.1\r\nHoSt: a:1\r\nUSER-agent: x/1\r\nAccept: */*\r\nX-B:2\r\nx-a: 1\r\n"
            b"Content-Type: text/plain\r\nX-B: 3\r\nX-Empty:\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok"
        )
        exchange_raw(self.aggregator.port, sent)
        expected = [
            ("HoSt", "a:1"),
            ("USER-agent", "x/1"),
            ("Accept", "*/*"),
            ("X-B", "2"),
            ("x-a", "1"),
            ("Content-Type", "text/plain"),
            ("X-B", "3"),
            ("X-Empty", ""),
            ("X-Forwarded-For", "127.0.0.1"),
            ("X-Forwarded-Proto", "http"),
            ("X-Forwarded-Host", "a:1"),
            ("Via", "1.1 dpa"),
            ("Content-Length", "2"),
        ]
        *seen, traceparent, request_id = self.delegate.requests[-1][2]
        self.assertEqual(seen, expected)
        self.assertEqual((traceparent[0], request_id[0]), ("traceparent", "X-Request-Id"))
        self.assertRegex(traceparent[1], "^00-[0-9a-f]{32}-[0-9a-f]{16}-00$")
        self.assertRegex(request_id[1], "^[0-9a-f]{32}$")

    def test_the_head_that_the_client_sees_is_the_delegates_with_what_a_proxy_adds(self):
        request = b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok"
        answer, _ = exchange_raw(self.aggregator.port, request)
        head, _, body = answer.partition(b"\r\n\r\n")
        lines = [line for line in head.split(b"\r\n") if not line.startswith(b"Date: ")]
        added = [b"Via: 1.1 dpa", b"Connection: close", b"Content-Length: 2"]
        self.assertRegex(lines.pop(), b"^X-Request-Id: [0-9a-f]{32}$")
        self.assertEqual(lines, [b"HTTP/1.1 200 OK", b"X-Method: POST", *added])
        self.assertEqual(body, b"ok")

    def test_the_request_target_is_passed_on_as_it_came(self):
        for target in ("/head?a=b&c=%20%2F", "/head/%2F//%20/x/../y?q=%00", "/head;p=1?", "/head?" + "x" * 7000):
            with self.subTest(target[:40]):
                line = exchange_raw(
                    self.aggregator.port, f"GET {target} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n".encode()
                )[0]
                self.assertIn(b"HTTP/1.1 200", line)
                self.assertEqual(self.delegate.requests[-1][1], target)

    def test_any_method_is_passed_on(self):
        for method in ("GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "REPORT"):
            with self.subTest(method):
                self.assertEqual(self.head_seen(method)["line"], f"{method} /head HTTP/1.1")

    def test_end_to_end_headers_are_intact_and_hop_by_hop_ones_are_gone(self):
        request = (
            b"GET /head HTTP/1.1\r\nHost: a\r\nX-One: 1\r\nx-two:  spaced\t\r\nX-One: again\r\nCookie: a=b; c=d\r\n"
            b"Connection: close, X-Private\r\nX-Private: secret\r\nKeep-Alive: timeout=5\r\nTE: trailers\r\n"
            b"Proxy-Connection: keep-alive\r\nAuthorization: Bearer t\r\nX-Latin: caf\xe9\r\n\r\n"
        )
        exchange_raw(self.aggregator.port, request)
        headers = self.delegate.requests[-1][2]
        names = [name.lower() for name, _ in headers]
        self.assertEqual([value for name, value in headers if name.lower() == "x-one"], ["1", "again"])
        self.assertIn(("x-two", "spaced"), headers)
        self.assertIn(("X-Latin", "caf\xe9"), headers)
        self.assertIn(("Cookie", "a=b; c=d"), headers)
        self.assertIn(("Authorization", "Bearer t"), headers)
        for gone in ("x-private", "keep-alive", "proxy-connection"):
            self.assertNotIn(gone, names)

    def test_repeated_response_headers_stay_repeated(self):
        answer = exchange_raw(self.aggregator.port, b"GET /chunks HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")[0]
        self.assertEqual(answer.count(b"\r\nX-Order: "), 2)
        self.assertLess(answer.index(b"X-Order: 1"), answer.index(b"X-Order: 2"))

    def test_requests_that_come_cut_into_single_bytes_are_understood(self):
        request = (
            b"POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n"
            b"3\r\nabc\r\n1\r\nd\r\n0\r\n\r\n"
        )
        for pieces in (1, 2, 3, 7):
            with self.subTest(pieces):
                self.assertTrue(exchange_raw(self.aggregator.port, request, pieces=pieces)[0].endswith(b"abcd"))

    def test_pipelined_requests_are_answered_in_order(self):
        requests = b"".join(
            b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\n%02d" % index for index in range(20)
        )
        last = b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\nConnection: close\r\n\r\nlast"
        answers = harness.split_answers(exchange_raw(self.aggregator.port, requests + last)[0])
        self.assertEqual([body for _, _, body in answers], [b"%02d" % index for index in range(20)] + [b"last"])

    def test_an_http_1_0_client_is_answered_and_closed(self):
        answer, closed = exchange_raw(self.aggregator.port, b"GET /chunks HTTP/1.0\r\nHost: a\r\n\r\n")
        self.assertIn(b" 200 ", answer.split(b"\r\n")[0])
        self.assertNotIn(b"transfer-encoding", answer.lower())
        self.assertTrue(closed)

    def test_a_delegate_that_closes_without_an_answer_is_a_502(self):
        self.assert_status(self.aggregator.request("POST", "/reset", b"x"), 502)

    def test_a_delegate_that_never_answers_is_a_504(self):
        self.assert_status(self.aggregator.get("/never"), 504, "delegate_timeout")

    def test_an_answer_that_comes_before_the_body_was_sent_reaches_the_client(self):
        answer = exchange_raw(
            self.aggregator.port, b"POST /early HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\nxyz"
        )[0]
        self.assertIn(b" 403 ", answer.split(b"\r\n")[0])

    def test_a_client_that_breaks_off_its_body_leaves_no_trace(self):
        request = b"POST /echo?broken HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\nonly this"
        exchange_raw(self.aggregator.port, request, half_close=True)
        self.aggregator.wait_record(target="?broken")
        self.assertNotIn("/echo?broken", [request[1] for request in self.delegate.requests])

    def test_a_client_that_leaves_before_the_answer_is_a_499_in_the_log(self):
        with Aggregator(delegate=self.delegate.url, plugins=None) as aggregator:
            with socket.create_connection(("127.0.0.1", aggregator.port), timeout=10) as client:
                client.sendall(b"GET /never?left HTTP/1.1\r\nHost: a\r\n\r\n")
                harness.wait_until(
                    lambda: any("left" in r[1] for r in self.delegate.requests), "the request reached the delegate"
                )
            aggregator.wait_record(target="?left", status=499, reason=harness.REASON["client_closed"])


class NoDelegateTest(TestCase):
    def test_without_a_delegate_what_nobody_serves_is_a_404(self):
        with Aggregator(plugins=None) as aggregator:
            self.assert_status(aggregator.get("/apis/apps/v1/deployments"), 404, "not_found")
            self.assert_status(aggregator.request("POST", "/apis/apps/v1/x", b"{}"), 404, "not_found")

    def test_a_delegate_that_does_not_listen_is_a_502(self):
        with Aggregator(delegate=f"http://127.0.0.1:{free_port()}", plugins=None) as aggregator:
            with Client(aggregator.port) as client:
                for _ in range(3):
                    self.assert_status(client.request("GET", "/apis/x"), 502, "refused")

    def test_a_unix_delegate_whose_socket_does_not_exist_is_a_502(self):
        with Aggregator(delegate="unix:" + os.path.join("/run", "dpa-no-such.sock"), plugins=None) as aggregator:
            self.assert_status(aggregator.get("/apis/x"), 502, "refused")

    def test_queries_do_not_need_a_delegate(self):
        with Aggregator() as aggregator:
            self.assert_frames(aggregator.query())
