"""What tests of several delegates share: start them, ask, count who answered."""

import collections
import contextlib
import http.client
import shutil
import tempfile
import threading

import harness
from delegate_peer import NginxDelegate, Peer
from harness import TestCase, wait_until

EJECT_AFTER = 3
ATTEMPTS = "dpa_upstream_endpoint_attempts_total"
EJECTIONS = "dpa_upstream_endpoint_ejections_total"
USABLE = "dpa_upstream_endpoint_usable_workers"


class DelegatesTest(TestCase):
    def setUp(self):
        self.folder = tempfile.mkdtemp(prefix="dpa-e2e-delegates-")
        self.addCleanup(shutil.rmtree, self.folder, ignore_errors=True)
        self.serial = 0

    def nginx(self, name):
        delegate = NginxDelegate(self.folder, name)
        self.addCleanup(delegate.kill)
        delegate.start()
        return delegate

    def peer(self, name, *arguments, **options):
        delegate = Peer(name, *arguments, **options)
        self.addCleanup(delegate.stop)
        return delegate

    def run_aggregator(self, delegates, *flags, **options):
        # One worker: each counts for itself, and the tests count along. No slow start: shares are full at once.
        urls = [word for delegate in delegates for word in ("--delegate", getattr(delegate, "url", delegate))]
        quick = ("--workers", "1", "--delegate-eject-after", str(EJECT_AFTER), "--delegate-slow-start", "0")
        options = {"services": (), "plugins": None, "datasources": None, **options}
        aggregator = harness.Aggregator(*urls, *quick, *flags, **options)
        self.running = contextlib.ExitStack()
        self.addCleanup(self.running.close)
        return self.running.enter_context(aggregator)

    def target(self):
        """Another one each time, so that what was executed twice is seen."""
        self.serial += 1
        return f"/n/{self.serial}"

    def ask_once(self, aggregator, method="GET", target=None):
        """Who answered; or the reason word of an error of ours; or its status; or "broken"."""
        try:
            answer = aggregator.request(method, target or self.target(), b"body" if method == "POST" else None)
        except (OSError, http.client.HTTPException):
            return "broken"
        if answer.status == 200:
            return answer.body.decode()
        if answer.header("content-type", "").startswith("application/json"):
            return answer.json()["details"]["causes"][0]["reason"]
        return str(answer.status)

    def ask(self, aggregator, count, *methods):
        """What ask_once says and how often, of `count` requests, one after another."""
        methods = methods or ("GET",)
        return collections.Counter(self.ask_once(aggregator, methods[i % len(methods)]) for i in range(count))

    def begin(self, aggregator, count, method="GET", each=1):
        """Starts `count` clients with `each` requests; the function that comes back joins them and is their answers."""
        seen = collections.Counter()
        lock = threading.Lock()
        targets = [[self.target() for _ in range(each)] for _ in range(count)]

        def client(mine):
            for target in mine:
                word = self.ask_once(aggregator, method, target)
                with lock:
                    seen[word] += 1

        threads = [threading.Thread(target=client, args=(mine,), daemon=True) for mine in targets]
        for thread in threads:
            thread.start()

        def join():
            for thread in threads:
                thread.join(harness.PATIENCE)
                self.assertFalse(thread.is_alive(), "a request never ended")
            return seen

        return join

    def wait_under_way(self, aggregator, count):
        """Until `count` requests have been sent to delegates and none is answered yet."""
        leased = "dpa_upstream_connections"
        wait_until(lambda: aggregator.metric(leased, state="leased") == count, f"{count} requests are under way")
        # Answered by the worker itself, in a later turn: by now the kernel has what it sent in that one.
        self.assertEqual(aggregator.get("/livez").status, 200)

    def wait_served_by(self, aggregator, *delegates):
        names = {delegate.name for delegate in delegates}
        wait_until(lambda: names <= self.ask(aggregator, 10).keys(), f"served by {names}")

    def wait_usable(self, aggregator, delegate, count=1):
        wait_until(
            lambda: aggregator.metric(USABLE, address=delegate.address) == count,
            f"{delegate.name} is taken to be well by {count} workers",
        )

    def wait_answered(self, aggregator, url, delegate, count):
        """An answer is counted after its last byte has gone, which the client may see first."""
        labels = {"upstream": url, "address": delegate.address, "outcome": "answered"}
        wait_until(lambda: aggregator.metric(ATTEMPTS, **labels) == count, f"{count} answers of {labels} are counted")

    def wait_counted(self, aggregator, count, reason):
        """Likewise, what is broken off."""
        wait_until(lambda: aggregator.metric("requests", reason=reason) == count, f"{count} times {reason}")

    def ejections(self, aggregator, delegate):
        return aggregator.metric(EJECTIONS, address=delegate.address)

    def assert_posts_executed_once(self, *delegates):
        executed = collections.Counter(line for one in delegates for line in one.requests() if line.startswith("POST "))
        self.assertTrue(executed)
        self.assertEqual({line: count for line, count in executed.items() if count > 1}, {})

    def assert_errors(self, aggregator, other, seen, reason, outcome):
        """The arithmetic above, for one client."""
        ejections = self.ejections(aggregator, other)
        self.assertGreaterEqual(ejections, 1, seen)
        self.assertEqual(seen[reason], EJECT_AFTER + ejections - 1, f"{seen} after {ejections} ejections")
        self.assertEqual(seen.keys(), {"sound", reason}, seen)
        self.assertEqual(aggregator.metric(ATTEMPTS, address=other.address, outcome=outcome), seen[reason])
