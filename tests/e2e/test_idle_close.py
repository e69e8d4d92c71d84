"""The idle-close race: a delegate closes its idle connections just as requests go out on them.

Goal: a GET never fails for it, and a POST is never executed twice. Method: tools/idle_close is both sides of the binary
at once, 500 clients in bursts and a delegate that closes a connection after 200 ms, give or take 10, which is when the
next burst comes; one request in twenty on a reused connection is executed and its connection closed unanswered.
DPA_E2E_IDLE_REQUESTS: how many of each method.
"""

import json
import os
import subprocess
import unittest

import harness

REQUESTS = int(os.environ.pop("DPA_E2E_IDLE_REQUESTS", "6000"))
PEER = os.path.join(harness.BUILD, "bin", "idle_close")


class IdleCloseTest(harness.TestCase):
    def race(self, method, *flags, die_per_mille=50):
        """(what the peer counted, the aggregator's counters) of REQUESTS requests."""
        port = harness.free_port()
        with harness.Aggregator(
            *flags, delegate=f"http://127.0.0.1:{port}", services=(), datasources=None, plugins=None
        ) as aggregator:
            peer = subprocess.run(
                [PEER, "--target", f"127.0.0.1:{aggregator.port}", "--upstream", f"127.0.0.1:{port}"]
                + ["--method", method, "--requests", str(REQUESTS), "--give-up-seconds", "900"]
                + ["--die-per-mille", str(die_per_mille)],
                capture_output=True,
                text=True,
                timeout=1000,
            )
            self.assertEqual(peer.returncode, 0, peer.stderr)
            counted = json.loads(peer.stdout)
            counters = {
                "unsent": aggregator.metric("dpa_upstream_retries_total", cause="unsent"),
                "closed": aggregator.metric("dpa_upstream_retries_total", cause="closed"),
                "denied": aggregator.metric("dpa_upstream_retries_denied_total"),
                "closed_idle": sum(
                    value
                    for labels, value in aggregator.metrics()["dpa_http_requests_total"]
                    if labels["reason"] == "delegate_closed_idle"
                ),
            }
        print(f"\n{json.dumps(counted)} {json.dumps(counters)}", flush=True)
        self.assertEqual(counted["requests"], REQUESTS)
        self.assertGreater(counted["idle_closes"], REQUESTS / 20, "the delegate hardly closed anything")
        self.assertEqual(counted["deaths"] > 0, die_per_mille > 0)
        return counted, counters

    def test_gets_never_fail(self):
        counted, counters = self.race("GET")
        self.assertEqual(counted["errors"], {})
        self.assertEqual(counted["ok"], REQUESTS)
        # Those that were executed twice are those that the delegate left unanswered; the race itself needs others.
        self.assertGreater(counters["unsent"] + counters["closed"], counted["deaths"], "the race did not occur")

    def test_puts_with_a_body_never_fail(self):
        counted, counters = self.race("PUT")
        self.assertEqual(counted["errors"], {})
        self.assertGreater(counters["unsent"] + counters["closed"], counted["deaths"], "the race did not occur")

    def test_posts_are_never_executed_twice(self):
        counted, counters = self.race("POST")
        self.assertEqual(counted["executed_again"], 0)
        self.assertLessEqual(counted["errors"].keys(), {"delegate_closed_idle"})
        self.assertEqual(counted["ok"] + sum(counted["errors"].values()), REQUESTS)
        self.assertEqual(counters["closed"], 0, "a POST of which bytes had left was repeated")
        self.assertEqual(counters["closed_idle"], counted["errors"]["delegate_closed_idle"])
        self.assertEqual(counted["executed_and_failed"], counted["deaths"])
        races = counters["unsent"] + counters["closed_idle"] - counted["deaths"]
        self.assertGreater(races, 0, "the race did not occur")

    def test_posts_on_connections_used_a_moment_ago_never_fail(self):
        counted, counters = self.race("POST", "--delegate-post-reuse-idle", "100ms", die_per_mille=0)
        self.assertEqual(counted["errors"], {})
        self.assertEqual(counted["executed_again"], 0)
        self.assertEqual(counters["unsent"] + counters["closed"], 0, "nothing to repeat")


if __name__ == "__main__":
    unittest.main()
