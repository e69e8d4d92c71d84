"""Who answers a path, however it is written.

Goal: what is forwarded is what was sent, byte for byte, and no spelling of a path gets past the route that it means to
somebody. Method: raw request lines over sockets; a delegate that records what reaches it; a service with a plugin; the
admin listener.
"""

import socket

import harness
from harness import BASE, QUERY_PATH, UID, Aggregator, EchoDelegate, TestCase, exchange_raw, split_answers

# The delegate's in every reading.
FORWARDED = (
    "/api/a%20b",
    "/api/a%2Fb%252fc",
    "//api///x//",
    "/api/a\\b%5Cc",
    "/api;v=1/x;y",
    "/api/./x/../y",
    "/api/x/%2e%2E/y//z%2F%20",
    "/api/x/../y%2Fz//",
    "/.well-known/a",
    "/api/100%25",
    '/api/{x}|^`"<>',
    "/api/%E4%ff",
    f"{BASE}/datasources//%2E",
    "/api?x=%zz&y=/../%00",
)
# Read as a route of ours, as a local path, or as nothing at all by some.
REFUSED = (
    "/%61pis" + QUERY_PATH[5:],
    "/" + QUERY_PATH,
    QUERY_PATH.replace("/datasources/", "/datasources%2F"),
    QUERY_PATH.replace("/datasources/", "/datasources%252F"),
    QUERY_PATH.replace("/datasources/", "/datasources\\"),
    QUERY_PATH.replace("/datasources/", "/datasources;a=b/"),
    "/x/.." + QUERY_PATH,
    "/x/..;" + QUERY_PATH,
    "/x/%2e%2e" + QUERY_PATH,
    QUERY_PATH + "/x/..",
    QUERY_PATH.replace(f"/{UID}/", "/a%2Fb/"),
    "/%6Civez",
    "//readyz",
    "/x/../healthz",
    "/readyz/%70ing",
    "/api/%",
    "/api/%4",
    "/api/%zz",
    "/api/a%00b",
    "/api/a%2500b",
    "/../etc/passwd",
    "/%2e%2e%2fetc/passwd",
)


class PathsTest(TestCase):
    @classmethod
    def setUpClass(cls):
        cls.delegate = EchoDelegate()
        cls.delegate.__enter__()
        cls.addClassCleanup(cls.delegate.__exit__)
        cls.aggregator = Aggregator(delegate=cls.delegate.url)
        cls.aggregator.start()
        cls.addClassCleanup(cls.aggregator.__exit__, None, None, None)

    def ask(self, *targets, method="POST", headers="", port=None):
        """The answers to requests on one connection, in their order."""
        lines = [f"{method} {target} HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n{headers}" for target in targets]
        lines[-1] += "Connection: close\r\n"
        data = "".join(line + "\r\n" for line in lines).encode("latin-1")
        return split_answers(exchange_raw(port or self.aggregator.port, data)[0])

    def test_a_path_of_the_delegates_is_forwarded_byte_for_byte(self):
        before = len(self.delegate.requests)
        answers = self.ask(*FORWARDED)
        self.assertEqual([status for status, *_ in answers], [200] * len(FORWARDED))
        self.assertEqual([target for _, target, *_ in self.delegate.requests[before:]], list(FORWARDED))

    def test_an_absolute_target_is_forwarded_with_its_raw_path(self):
        before = len(self.delegate.requests)
        answers = self.ask("http://b//api/%2F/./x?y=/../z", "http://b/x/../livez", "http://b/%00")
        self.assertEqual([status for status, *_ in answers], [200, 400, 400])
        self.assertEqual([target for _, target, *_ in self.delegate.requests[before:]], ["//api/%2F/./x?y=/../z"])

    def test_a_path_that_is_read_differently_is_a_400_on_a_connection_that_stays(self):
        before = len(self.delegate.requests)
        refusals = self.aggregator.metric("requests", reason="ambiguous_path")
        answers = self.ask(*REFUSED, "/api/after")
        self.assertEqual([status for status, *_ in answers], [400] * len(REFUSED) + [200])
        for target, (status, headers, body) in zip(REFUSED, answers, strict=False):
            with self.subTest(target):
                self.assert_status(harness.Answer(status, headers, body), 400, "ambiguous_path")
        self.assertEqual([target for _, target, *_ in self.delegate.requests[before:]], ["/api/after"])
        record = self.aggregator.wait_record(target="/../etc/passwd")
        self.assertEqual((record["status"], record["reason"]), (400, "ambiguous_path"))
        seen = self.aggregator.metric("requests", reason="ambiguous_path") - refusals
        self.assertEqual(seen, len(REFUSED))

    def test_escapes_that_everybody_reads_alike_name_the_same_data_source(self):
        for uid in (UID, "%74estdata", "%74%65stdat%61"):
            with self.subTest(uid):
                path = QUERY_PATH.replace(f"/{UID}/", f"/{uid}/")
                self.assert_frames(self.aggregator.query(harness.query(), path=path))

    def test_the_admin_listener_reads_paths_as_strictly(self):
        port = self.aggregator.admin_port
        for target, wanted in (
            ("/metrics", 200),
            ("/%6Detrics", 400),
            ("//metrics", 400),
            ("/x/../status", 400),
            ("/readyz/.", 400),
            ("/livez;x", 400),
            ("/%00", 400),
            ("/a//b", 404),
        ):
            with self.subTest(target):
                self.assertEqual([status for status, *_ in self.ask(target, method="GET", port=port)], [wanted])

    def test_an_options_that_may_go_no_further_is_answered_here(self):
        before = len(self.delegate.requests)
        answers = self.ask("*", "/api/x", method="OPTIONS", headers="Max-Forwards: 0\r\n")
        for status, headers, body in answers:
            self.assertEqual((status, body), (200, b""))
            self.assertIn("OPTIONS", headers["allow"])
        self.assertEqual(len(answers), 2)
        self.assertEqual(self.delegate.requests[before:], [])
        self.ask("/api/x", method="OPTIONS", headers="Max-Forwards: 7\r\n")
        self.ask("/api/x", method="GET", headers="Max-Forwards: 0\r\n")
        forwards = [dict(headers).get("Max-Forwards") for _, _, headers, *_ in self.delegate.requests[before:]]
        self.assertEqual(forwards, ["6", "0"])
