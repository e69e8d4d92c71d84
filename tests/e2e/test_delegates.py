"""Two delegates, one of them in trouble: the other serves, the errors are those that the rules allow, and the one in
trouble gets requests again when it is well, without a restart."""

import collections
import os
import signal
import shutil
import socket
import sys
import tempfile
import threading
import unittest

import harness

PEER = os.path.join(os.path.dirname(os.path.abspath(__file__)), "delegate_peer.py")
EJECT_AFTER = 3
ATTEMPTS = "dpa_upstream_endpoint_attempts_total"
EJECTIONS = "dpa_upstream_endpoint_ejections_total"
USABLE = "dpa_upstream_endpoint_usable_workers"
CHECKS = "dpa_upstream_endpoint_checks_total"


class Delegate:
    def __init__(self, folder, name):
        self.folder, self.name, self.port, self.process = folder, name, harness.free_port(), None
        self.url = f"http://127.0.0.1:{self.port}"

    def start(self, habit="good"):
        self.process = harness.Process(f"{self.name}-{habit}", [sys.executable, PEER, str(self.port), habit, self.name],
                                       self.folder)
        harness.wait_until(self.accepts, f"{self.name} listens")

    def accepts(self):
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0

    def kill(self):
        if self.process and self.process.is_running():
            self.process.signal(signal.SIGCONT)
            self.process.popen.kill()
            self.process.wait()

    def become(self, habit):
        self.kill()
        self.start(habit)


class TwoDelegates(harness.TestCase):
    """`sound` stays well; `other` is the one that things happen to."""

    def setUp(self):
        self.folder = tempfile.mkdtemp(prefix="dpa-e2e-delegates-")
        self.addCleanup(shutil.rmtree, self.folder, ignore_errors=True)
        self.sound, self.other = Delegate(self.folder, "sound"), Delegate(self.folder, "other")
        for delegate in (self.sound, self.other):
            self.addCleanup(delegate.kill)
            delegate.start()

    def run_aggregator(self, *flags):
        # One worker: each counts for itself, and the tests count along.
        aggregator = harness.Aggregator(
            "--workers", "1", "--delegate", self.sound.url, "--delegate", self.other.url,
            "--delegate-eject-after", str(EJECT_AFTER), "--delegate-eject-time", "300ms",
            "--delegate-eject-time-max", "300ms", "--delegate-slow-start", "0",
            "--delegate-header-timeout", "500ms", *flags, services=(), plugins=None, datasources=None)
        aggregator.__enter__()
        self.addCleanup(aggregator.__exit__, None, None, None)
        return aggregator

    def address(self, delegate):
        return f"127.0.0.1:{delegate.port}"

    def ask(self, aggregator, count, method="GET", body=None):
        """Answers by who gave them, errors of ours by reason, broken answers as "broken"."""
        seen = collections.Counter()
        for _ in range(count):
            try:
                answer = aggregator.request(method, "/x", body)
            except OSError:
                seen["broken"] += 1
                continue
            except harness.http.client.HTTPException:
                seen["broken"] += 1
                continue
            if answer.status == 200:
                seen[answer.body.decode()] += 1
            else:
                seen[answer.json()["details"]["causes"][0]["reason"]] += 1
        return seen

    def errors(self, seen):
        return sum(count for word, count in seen.items() if word not in ("sound", "other"))

    def allowed_errors(self, aggregator):
        """The first ejection takes EJECT_AFTER failures, each later one a single one, on probation."""
        ejections = aggregator.metric(EJECTIONS, address=self.address(self.other))
        self.assertGreaterEqual(ejections, 1)
        return EJECT_AFTER - 1 + ejections + 1

    def wait_served_by_both(self, aggregator):
        def served():
            seen = self.ask(aggregator, 10)
            return seen["sound"] and seen["other"]

        harness.wait_until(served, "both delegates serve")

    def check_trouble(self, aggregator, reason, at_least=1):
        seen = self.ask(aggregator, 100)
        allowed = self.allowed_errors(aggregator)
        self.assertEqual(set(seen) - {"sound", reason}, set(), seen)
        self.assertGreaterEqual(seen["sound"], 100 - allowed, seen)
        self.assertGreaterEqual(seen[reason], at_least, seen)
        self.assertLessEqual(seen[reason], allowed, seen)

    def test_both_are_used_while_both_are_well(self):
        aggregator = self.run_aggregator()
        seen = self.ask(aggregator, 200)
        self.assertEqual(seen["sound"] + seen["other"], 200, seen)
        self.assertGreater(min(seen["sound"], seen["other"]), 40, seen)

    def test_a_killed_one_costs_no_request_and_comes_back(self):
        aggregator = self.run_aggregator()
        self.wait_served_by_both(aggregator)
        self.other.kill()
        seen = self.ask(aggregator, 100)
        self.assertEqual(seen, {"sound": 100})
        self.other.start()
        self.wait_served_by_both(aggregator)

    def test_a_killed_one_costs_only_the_posts_that_were_on_their_way(self):
        aggregator = self.run_aggregator()
        self.wait_served_by_both(aggregator)
        self.other.kill()
        self.assertEqual(self.ask(aggregator, 100, "POST", b"body"), {"sound": 100})

    def test_a_hung_one_costs_what_it_takes_to_eject_it(self):
        aggregator = self.run_aggregator("--delegate-eject-time", "2s", "--delegate-eject-time-max", "2s")
        self.wait_served_by_both(aggregator)
        self.other.process.signal(signal.SIGSTOP)
        self.check_trouble(aggregator, "delegate_timeout")
        self.other.process.signal(signal.SIGCONT)
        self.wait_served_by_both(aggregator)

    def test_one_that_resets_every_connection(self):
        aggregator = self.run_aggregator()
        self.other.become("reset")
        self.check_trouble(aggregator, "delegate_reset")
        self.other.become("good")
        self.wait_served_by_both(aggregator)

    def test_one_that_answers_garbage(self):
        aggregator = self.run_aggregator()
        self.other.become("garbage")
        self.check_trouble(aggregator, "delegate_malformed")
        self.other.become("good")
        self.wait_served_by_both(aggregator)

    def test_one_that_breaks_its_answers_off(self):
        aggregator = self.run_aggregator()
        self.other.become("truncate")
        self.check_trouble(aggregator, "broken")
        self.other.become("good")
        self.wait_served_by_both(aggregator)

    def test_a_slow_one_gets_fewer_requests(self):
        aggregator = self.run_aggregator()
        self.other.become("slow")
        total, lock = collections.Counter(), threading.Lock()

        def client():
            seen = self.ask(aggregator, 40)
            with lock:
                total.update(seen)

        threads = [threading.Thread(target=client) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.assertEqual(total["sound"] + total["other"], 320, total)
        self.assertGreater(total["sound"], 3 * total["other"], total)

    def test_health_checks_find_a_hung_one_before_any_request_does(self):
        aggregator = self.run_aggregator("--delegate-health-path", "/healthy?deep=1", "--delegate-health-interval",
                                         "100ms", "--delegate-health-timeout", "200ms", "--delegate-health-fall", "2")
        other = self.address(self.other)
        harness.wait_until(lambda: aggregator.metric(CHECKS, address=other, result="passed") >= 2, "checks pass")
        self.wait_served_by_both(aggregator)
        self.other.process.signal(signal.SIGSTOP)
        harness.wait_until(lambda: aggregator.metric(USABLE, address=other) == 0, "the hung one is found")
        self.assertEqual(self.ask(aggregator, 50), {"sound": 50})
        self.other.process.signal(signal.SIGCONT)
        harness.wait_until(lambda: aggregator.metric(USABLE, address=other) == 1, "it is well again")
        self.wait_served_by_both(aggregator)

    def test_when_none_is_well_all_are_tried(self):
        aggregator = self.run_aggregator("--delegate-health-path", "/", "--delegate-health-interval", "100ms",
                                         "--delegate-health-timeout", "200ms", "--delegate-health-rise", "1000")
        self.other.kill()
        self.sound.kill()
        harness.wait_until(lambda: aggregator.metric(USABLE) == 0, "both are down")
        self.assertEqual(self.ask(aggregator, 1), {"delegate_refused": 1})
        self.sound.start()
        self.assertEqual(self.ask(aggregator, 20), {"sound": 20})

    def test_the_metrics_name_every_address(self):
        aggregator = self.run_aggregator()
        self.wait_served_by_both(aggregator)
        for delegate in (self.sound, self.other):
            counted = aggregator.metric(ATTEMPTS, upstream=delegate.url, address=self.address(delegate),
                                        outcome="answered")
            self.assertGreater(counted, 0)


class Names(harness.TestCase):
    def setUp(self):
        self.folder = tempfile.mkdtemp(prefix="dpa-e2e-names-")
        self.addCleanup(shutil.rmtree, self.folder, ignore_errors=True)
        self.delegate = Delegate(self.folder, "named")
        self.addCleanup(self.delegate.kill)
        self.delegate.start()

    def test_localhost_is_a_name_like_others(self):
        url = f"http://localhost:{self.delegate.port}"
        with harness.Aggregator("--delegate", url, services=(), plugins=None, datasources=None) as aggregator:
            self.assertEqual(aggregator.get("/").body, b"named")

    def test_a_name_that_cannot_be_resolved_delays_nothing_and_is_told(self):
        with harness.Aggregator("--delegate", "http://no-such-host.invalid:80", "--delegate", self.delegate.url,
                                services=(), plugins=None, datasources=None) as aggregator:
            for _ in range(5):
                self.assertEqual(aggregator.get("/").body, b"named")
            aggregator.wait_log("upstream_unresolved")
            upstreams = {one["url"]: one for one in aggregator.admin("/status").json()["upstreams"]}
            self.assertEqual(upstreams["http://no-such-host.invalid:80"]["addresses"], [])
            self.assertIn("resolve", upstreams["http://no-such-host.invalid:80"]["error"])

    def test_with_only_such_a_name_requests_are_a_502(self):
        with harness.Aggregator("--delegate", "http://no-such-host.invalid:80", services=(), plugins=None,
                                datasources=None) as aggregator:
            answer = aggregator.get("/")
            self.assertEqual(answer.status, 502)
            self.assertEqual(answer.json()["details"]["causes"][0]["reason"], "delegate_unreachable")


if __name__ == "__main__":
    unittest.main()
