"""What an operator sees: metrics, probes, access records.

Goal: the figures are true and the tools of the ecosystem read them. Method: promtool on the page; counters against
the access log; the probes in the forms that Kubernetes' own servers have.
"""

import re
import shutil
import socket
import subprocess
import unittest

import harness
from harness import ACCESS, PLUGIN_ID, Aggregator, Nginx, TestCase, query, wait_until


class AdminTest(TestCase):
    @classmethod
    def setUpClass(cls):
        cls.nginx = Nginx()
        cls.nginx.__enter__()
        cls.addClassCleanup(cls.nginx.__exit__)
        cls.aggregator = Aggregator(delegate=cls.nginx.url)
        cls.aggregator.start()
        cls.addClassCleanup(cls.aggregator.__exit__, None, None, None)

    def some_traffic(self):
        self.assert_frames(self.aggregator.query())
        self.aggregator.query(query(scenario="error", message="no", status=400))
        self.assertEqual(self.aggregator.get("/hello").status, 200)
        self.assertEqual(self.aggregator.get("/teapot").status, 418)
        self.assertEqual(self.aggregator.request("POST", harness.QUERY_PATH, b"{").status, 400)

    @unittest.skipUnless(shutil.which("promtool"), "promtool is not installed")
    def test_promtool_has_nothing_to_say_about_metrics(self):
        self.some_traffic()
        page = self.aggregator.admin("/metrics")
        self.assertIn("text/plain", page.header("content-type"))
        result = subprocess.run(
            ["promtool", "check", "metrics"], input=page.body, capture_output=True, timeout=60, check=False
        )
        self.assertEqual((result.returncode, result.stdout + result.stderr), (0, b""), page)

    def test_the_request_counter_is_the_number_of_access_records(self):
        # Records are written some time after the counting, so theirs is the number to wait for.
        self.some_traffic()
        before = self.aggregator.metric("requests")
        for _ in range(5):
            self.some_traffic()
        self.assertEqual(self.aggregator.metric("requests"), before + 25)
        records = wait_until(
            lambda: (lambda r: r if len(r) == before + 25 else None)(self.aggregator.access_records()),
            "as many records as requests were counted",
            20,
        )
        # 418 is no registered status; a delegate could invent more of them than a metric should have series.
        bad_json = harness.REASON["bad_json"]
        for status, code, reason in ((200, "200", "ok"), (418, "other", "ok"), (400, "400", bad_json)):
            with self.subTest(status):
                told = [r for r in records if (r[ACCESS["status"]], r[ACCESS["reason"]]) == (status, reason)]
                self.assertTrue(told)
                self.assertEqual(self.aggregator.metric("requests", code=code, reason=reason), len(told))

    def test_plugin_calls_are_counted_under_grafanas_names(self):
        before = self.aggregator.metrics().get(harness.METRIC["plugin_requests"], [])
        before = sum(value for labels, value in before if labels.get("plugin_id") == PLUGIN_ID)
        for _ in range(3):
            self.assert_frames(self.aggregator.query())
        self.assertEqual(self.aggregator.metric("plugin_requests", plugin_id=PLUGIN_ID) - before, 3)
        self.assertIn("grafana_plugin_request_duration_seconds_bucket", self.aggregator.metrics())

    def test_histograms_end_in_the_count_of_requests(self):
        self.some_traffic()
        families = self.aggregator.metrics()
        histograms = [name[: -len("_bucket")] for name in families if name.endswith("_bucket")]
        self.assertTrue(histograms)
        for name in histograms:
            infinite = sum(value for labels, value in families[f"{name}_bucket"] if labels["le"] == "+Inf")
            self.assertEqual(infinite, sum(value for _, value in families[f"{name}_count"]), name)

    def test_build_info_and_ring_backend_are_there(self):
        text = self.aggregator.admin("/metrics").body.decode()
        self.assertRegex(text, r"dpa_build_info\{.*version=")
        self.assertIn("io_uring", text)

    def test_an_access_record_says_what_happened(self):
        self.assertEqual(self.aggregator.get("/hello?record=one").status, 200)
        record = self.aggregator.wait_record(target="record=one")
        self.assertEqual((record[ACCESS["status"]], record[ACCESS["method"]]), (200, "GET"))
        self.assertRegex(record["client"], r"^127\.0\.0\.1:\d+$")
        self.assertLessEqual(record["t_head"] + record["t_response"], record["t_total"])
        self.aggregator.request("POST", f"{harness.QUERY_PATH}?record=two", b"{")
        record = self.aggregator.wait_record(target="record=two")
        self.assertEqual((record[ACCESS["status"]], record[ACCESS["reason"]]), (400, harness.REASON["bad_json"]))

    def test_bytes_of_a_client_cannot_break_a_record(self):
        target = '/hello?record="\\%00{three}'
        harness.exchange_raw(
            self.aggregator.port,
            f'GET {target} HTTP/1.1\r\nHost: a\r\nUser-Agent: "}}\\\t\xff\r\nConnection: close\r\n\r\n'.encode(
                "latin-1"
            ),
        )
        self.aggregator.wait_record(target="{three}", status=200)

    def test_livez_readyz_healthz(self):
        for path in ("/livez", "/readyz", "/healthz"):
            with self.subTest(path):
                answer = self.aggregator.admin(path)
                self.assertEqual((answer.status, answer.body.strip()), (200, b"ok"))

    def test_verbose_lists_the_checks_by_name(self):
        text = self.aggregator.admin("/readyz?verbose").body.decode()
        self.assertRegex(text, rf"(?m)^\[\+\]\S*{PLUGIN_ID} ok")
        self.assertRegex(text, r"(?m)^readyz check passed")

    def test_a_check_can_be_asked_and_excluded_by_its_name(self):
        listing = self.aggregator.admin("/readyz?verbose").body.decode().splitlines()
        names = [line[3:].split()[0] for line in listing if line.startswith("[+]")]
        for name in names:
            with self.subTest(name):
                self.assertEqual(self.aggregator.admin(f"/readyz/{name}").status, 200)
                excluded = self.aggregator.admin(f"/readyz?verbose&exclude={name}")
                self.assertEqual(excluded.status, 200)
                self.assertRegex(excluded.body.decode(), rf"{name}.*excluded")

    def test_an_unknown_check_is_a_404(self):
        self.assertEqual(self.aggregator.admin("/readyz/no-such-check").status, 404)

    def test_an_unknown_admin_path_is_a_404_and_the_server_stays(self):
        self.assertEqual(self.aggregator.admin("/no/such/path").status, 404)
        self.assertEqual(self.aggregator.admin("/livez").status, 200)

    def test_the_status_page_names_the_version(self):
        with open(f"{harness.ROOT}/VERSION", encoding="ascii") as file:
            version = file.read().strip()
        self.assertIn(version, self.aggregator.admin("/status").body.decode())


class ReasonTest(TestCase):
    def test_the_readme_lists_every_reason_word_with_its_status(self):
        with open(f"{harness.ROOT}/http/reason.cc", encoding="utf-8") as file:
            words = dict(re.findall(r'\{Reason::k\w+, \{"(\w+)", (\d+),', file.read()))
        with open(f"{harness.ROOT}/README.md", encoding="utf-8") as file:
            told = dict(re.findall(r"(?m)^\| `(\w+)` \| ((?:\d+|any|log only)[^|]*) \|", file.read()))
        self.assertGreater(len(words), 40)
        self.assertEqual(set(told), set(words))
        for word, status in told.items():
            with self.subTest(word):
                self.assertTrue(status.startswith(words[word]) or status in ("any", "log only"), status)
        self.assertLessEqual(set(harness.REASON.values()), set(words))


class AccessLogTest(TestCase):
    def test_the_clients_address_has_the_form_of_an_address(self):
        with Aggregator("--listen", "[::1]:0", plugins=None, unix_listen=True) as aggregator:
            log = aggregator.wait_log(r"listening address=\[::1\]:(\d+)")
            with socket.create_connection(("::1", int(log.group(1)))) as client:
                port = client.getsockname()[1]
                client.sendall(b"GET /six HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
                self.assertIn(b" 404 ", client.recv(4096))
            self.assertEqual(aggregator.wait_record(target="/six")["client"], f"[::1]:{port}")
            harness.once(aggregator.unix_path, "GET", "/local")
            self.assertEqual(aggregator.wait_record(target="/local")["client"], "")

    def test_off_writes_nothing_and_dash_writes_to_standard_output(self):
        with Aggregator("--access-log", "off", plugins=None) as aggregator:
            aggregator.get("/x")
            self.assertFalse(aggregator.access_records())
        with Aggregator("--access-log", "-", plugins=None) as aggregator:
            aggregator.get("/dash-record")
            wait_until(lambda: "/dash-record" in aggregator.process.output(), "the record on standard output", 20)
