"""Two delegates, one of them in trouble: killed, hung, slow, resetting, answering garbage.

Goal: the other one serves, clients see exactly the errors that the rules allow, and the one in trouble gets requests
again when it is well, without a restart. Method: NGINX as the sound one, NGINX or a peer with a bad habit as the other,
and arithmetic. Let F = --delegate-eject-after and one worker serve one client. Nothing is repeated of which a byte has
left on a fresh connection, so that each failure is one error; F in a row eject; whoever comes back is on probation,
where one failure ejects again. Hence, after E ejections, just

    errors = F + (E - 1)

and with C clients at once, which may all be there when it happens, at most F + C - 1 + (E - 1) * C.
"""

import collections
import re
import unittest

from delegate_case import ATTEMPTS, EJECT_AFTER, EJECTIONS, USABLE, DelegatesTest
from delegate_peer import GARBAGE, FullListener
from harness import wait_until

CHECKS = "dpa_upstream_endpoint_checks_total"
# Longer than any test: what is ejected stays so.
FOR_GOOD = ("--delegate-eject-time", "1h", "--delegate-eject-time-max", "1h")
FOR_A_MOMENT = ("--delegate-eject-time", "300ms", "--delegate-eject-time-max", "300ms")


class TroubleTest(DelegatesTest):
    """`sound` stays well; `other` is the one that things happen to."""

    def setUp(self):
        super().setUp()
        self.sound = self.nginx("sound")

    def check_trouble(self, habit, reason, outcome, *flags):
        """A bad one from the start, which then becomes good."""
        other = self.peer("other", habit)
        aggregator = self.run_aggregator((self.sound, other), *FOR_A_MOMENT, *flags)
        seen = self.ask(aggregator, 100, "GET", "POST")
        self.assert_errors(aggregator, other, seen, reason, outcome)
        self.assertEqual(len(other.requests()), seen[reason], "each error is one request that went there")
        self.assert_posts_executed_once(self.sound, other)
        other.habit = "good"
        self.wait_served_by(aggregator, self.sound, other)
        self.wait_usable(aggregator, other)
        self.assertEqual(self.ask(aggregator, 50).keys(), {"sound", "other"})
        return aggregator, seen[reason]

    # --- All is well ---

    def test_both_serve_and_evenly_while_both_are_well(self):
        other = self.nginx("other")
        aggregator = self.run_aggregator((self.sound, other))
        seen = self.ask(aggregator, 200, "GET", "POST")
        self.assertEqual(seen["sound"] + seen["other"], 200, seen)
        self.assertGreater(min(seen["sound"], seen["other"]), 60, seen)
        for delegate in (self.sound, other):
            self.wait_answered(aggregator, delegate.url, delegate, seen[delegate.name])

    # --- Killed ---

    def test_a_killed_one_costs_nothing_when_it_was_idle_and_comes_back(self):
        for kind in ("url", "unix_url"):
            with self.subTest(kind):
                other = self.nginx("other")
                delegates = [getattr(delegate, kind) for delegate in (self.sound, other)]
                aggregator = self.run_aggregator(delegates, *FOR_A_MOMENT)
                self.wait_served_by(aggregator, self.sound, other)
                for _ in range(2):
                    other.kill()
                    self.assertEqual(self.ask(aggregator, 100, "GET", "POST"), {"sound": 100})
                    other.start()
                    self.wait_served_by(aggregator, self.sound, other)
                wait_until(lambda: aggregator.metric(USABLE) == 2, "the gauge says so, too")
                self.running.close()
                other.kill()

    def test_a_killed_one_costs_just_the_requests_that_it_may_have_begun(self):
        # Goal: the retry rule, exactly. Method: both are stopped while ten requests come, so that each has five; one is
        # killed, the other goes on. Then once more on connections that have served before.
        errors = {
            ("GET", False): {"delegate_reset": 5},
            ("POST", False): {"delegate_reset": 5},
            ("GET", True): {},
            ("POST", True): {"delegate_closed_idle": 5},
        }
        for (method, reused), expected in errors.items():
            with self.subTest(method=method, reused=reused):
                other = self.nginx("other")
                both = (self.sound, other)
                aggregator = self.run_aggregator(both, *FOR_GOOD, "--delegate-post-reuse-idle", "1h")
                for last in (False, True) if reused else (True,):
                    self.sound.hang()
                    other.hang()
                    join = self.begin(aggregator, 10, method)
                    self.wait_under_way(aggregator, 10)
                    if not last:
                        self.sound.go_on()
                        other.go_on()
                        self.assertEqual(join(), {"sound": 5, "other": 5})
                self.assertEqual(aggregator.metric("pool_reuses"), 10 if reused else 0)
                other.kill()
                self.sound.go_on()
                self.assertEqual(join(), {"sound": 10 - sum(expected.values()), **expected})
                retries = aggregator.metric("dpa_upstream_retries_total")
                self.assertEqual(retries, 5 if reused and method == "GET" else 0)
                self.assertEqual(self.ask(aggregator, 20, "GET", "POST"), {"sound": 20})
                if method == "POST":
                    self.assert_posts_executed_once(self.sound, other)
                self.running.close()

    # --- Hung ---

    def test_a_hung_one_costs_what_it_takes_to_eject_it(self):
        other = self.nginx("other")
        aggregator = self.run_aggregator((self.sound, other), *FOR_GOOD, "--delegate-header-timeout", "300ms")
        self.wait_served_by(aggregator, self.sound, other)
        other.hang()
        seen = self.ask(aggregator, 100, "GET", "POST")
        self.assertEqual(seen, {"delegate_timeout": EJECT_AFTER, "sound": 100 - EJECT_AFTER})
        self.assertEqual(self.ejections(aggregator, other), 1)
        self.wait_usable(aggregator, other, 0)

    def test_a_hung_one_gets_requests_again_when_it_goes_on(self):
        other = self.nginx("other")
        aggregator = self.run_aggregator((self.sound, other), *FOR_A_MOMENT, "--delegate-header-timeout", "300ms")
        other.hang()
        seen = self.ask(aggregator, 60)
        wait_until(lambda: seen.update(self.ask(aggregator, 1)) or self.ejections(aggregator, other) >= 3, "probation")
        self.assert_errors(aggregator, other, seen, "delegate_timeout", "timeout")
        other.go_on()
        self.wait_served_by(aggregator, self.sound, other)
        self.assertEqual(self.ask(aggregator, 50).keys(), {"sound", "other"})
        self.wait_usable(aggregator, other)

    def test_a_hung_one_under_many_clients(self):
        other, clients = self.nginx("other"), 8
        aggregator = self.run_aggregator((self.sound, other), *FOR_GOOD, "--delegate-header-timeout", "500ms")
        other.hang()
        seen = self.begin(aggregator, clients, each=40)()
        self.assertEqual(seen.keys(), {"sound", "delegate_timeout"}, seen)
        self.assertEqual(self.ejections(aggregator, other), 1)
        self.assertGreaterEqual(seen["delegate_timeout"], EJECT_AFTER)
        self.assertLessEqual(seen["delegate_timeout"], EJECT_AFTER + clients - 1)

    def test_one_that_accepts_no_more_costs_nothing(self):
        full = FullListener()
        self.addCleanup(full.stop)
        aggregator = self.run_aggregator((self.sound, full), *FOR_GOOD, "--delegate-connect-timeout", "200ms")
        self.assertEqual(self.ask(aggregator, 30, "GET", "POST"), {"sound": 30})
        self.assertGreaterEqual(aggregator.metric(ATTEMPTS, address=full.address, outcome="connect_failed"), 1)

    def test_each_worker_learns_for_itself(self):
        other = self.peer("other", "reset")
        aggregator = self.run_aggregator((self.sound, other), *FOR_GOOD, "--workers", "2")
        seen = self.ask(aggregator, 200)
        ejections = self.ejections(aggregator, other)
        self.assertIn(ejections, (1, 2))
        self.assertEqual(seen.keys(), {"sound", "delegate_reset"}, seen)
        self.assertGreaterEqual(seen["delegate_reset"], EJECT_AFTER * ejections)
        self.assertLessEqual(seen["delegate_reset"], EJECT_AFTER * 2)

    # --- Resetting, answering garbage, breaking off ---

    def test_one_that_resets_every_request(self):
        self.check_trouble("reset", "delegate_reset", "reset")

    def test_one_that_ends_every_connection_without_an_answer(self):
        self.check_trouble("close", "delegate_reset", "reset")

    def test_one_that_resets_every_connection_at_once(self):
        # Not every such connection takes a byte before its end is seen; then the request goes elsewhere.
        other = self.peer("other", "reset-early")
        aggregator = self.run_aggregator((self.sound, other), *FOR_A_MOMENT)
        seen = self.ask(aggregator, 100, "GET", "POST")
        ejections = self.ejections(aggregator, other)
        self.assertGreaterEqual(ejections, 1)
        self.assertLessEqual(seen.keys(), {"sound", "delegate_reset"}, seen)
        self.assertLessEqual(seen["delegate_reset"], EJECT_AFTER + ejections - 1, seen)
        self.assert_posts_executed_once(self.sound, other)
        other.habit = "good"
        self.wait_served_by(aggregator, self.sound, other)

    def test_one_that_begins_to_close_connections_in_use(self):
        # The end of a connection that was kept is mostly that of keep-alive: not counted, and only POSTs are answered.
        other = self.peer("other")
        aggregator = self.run_aggregator((self.sound, other), *FOR_GOOD, "--delegate-post-reuse-idle", "1h")
        self.wait_served_by(aggregator, self.sound, other)
        kept = len(other.connections)
        self.assertGreater(kept, 0)
        other.habit = "close"
        seen = self.ask(aggregator, 100, "POST")
        self.assertEqual(seen["delegate_closed_idle"], kept, seen)
        self.assertEqual(seen["delegate_reset"], EJECT_AFTER, seen)
        self.assertEqual(seen["sound"], 100 - EJECT_AFTER - kept, seen)
        self.assert_posts_executed_once(self.sound, other)

    def test_a_repeat_goes_to_the_one_that_is_well_even_if_it_is_the_same(self):
        well, dead = self.peer("well", "close-reused"), self.nginx("dead")
        aggregator = self.run_aggregator((well, dead), *FOR_GOOD, "--delegate-eject-after", "1")
        dead.kill()
        wait_until(lambda: self.ask(aggregator, 1) and self.ejections(aggregator, dead), "the dead one is ejected")
        attempts = aggregator.metric(ATTEMPTS, address=dead.address)
        self.assertEqual(self.ask(aggregator, 60), {"well": 60})
        self.assertGreaterEqual(aggregator.metric("dpa_upstream_retries_total", cause="closed"), 29)
        self.assertEqual(aggregator.metric(ATTEMPTS, address=dead.address), attempts, "it is left alone")

    def test_one_that_answers_garbage(self):
        for what in GARBAGE:
            with self.subTest(what):
                self.check_trouble(what, "delegate_malformed", "malformed", "--delegate-header-timeout", "20s")
                self.running.close()

    def test_one_that_breaks_its_answers_off(self):
        aggregator, errors = self.check_trouble("truncate", "broken", "truncated")
        self.wait_counted(aggregator, errors, "delegate_truncated")

    def test_one_that_stalls_inside_its_answers(self):
        aggregator, errors = self.check_trouble("stall", "broken", "timeout", "--delegate-body-timeout", "300ms")
        self.wait_counted(aggregator, errors, "delegate_body_timeout")

    # --- Slow ---

    def test_a_slow_one_gets_nothing_while_the_other_is_idle(self):
        other = self.peer("other", "hold")
        aggregator = self.run_aggregator((self.sound, other))
        self.sound.hang()
        join = self.begin(aggregator, 2)
        wait_until(lambda: other.held_count == 1, "each has one request")
        self.sound.go_on()
        self.wait_served_by(aggregator, self.sound)
        self.assertEqual(self.ask(aggregator, 100, "GET", "POST"), {"sound": 100})
        self.assertEqual(other.held_count, 1)
        other.release()
        self.assertEqual(join(), {"sound": 1, "other": 1})
        self.assertEqual(self.ejections(aggregator, other), 0, "to be slow is no failure")
        self.wait_served_by(aggregator, self.sound, other)

    def test_a_slow_one_gets_fewer_requests(self):
        other = self.peer("other", "slow")
        aggregator = self.run_aggregator((self.sound, other))
        seen = self.begin(aggregator, 8, each=40)()
        self.assertEqual(seen["sound"] + seen["other"], 320, seen)
        self.assertGreater(seen["sound"], 2 * seen["other"], seen)

    # --- How ejection works ---

    def test_ejections_in_a_row_last_longer_up_to_a_limit(self):
        other = self.peer("other", "reset")
        aggregator = self.run_aggregator(
            (self.sound, other), "--delegate-eject-time", "100ms", "--delegate-eject-time-max", "250ms"
        )
        seen = collections.Counter()
        wait_until(
            lambda: seen.update(self.ask(aggregator, 1)) or self.ejections(aggregator, other) == 4, "four ejections"
        )
        self.assert_errors(aggregator, other, seen, "delegate_reset", "reset")
        other.habit = "good"
        self.wait_served_by(aggregator, other)
        other.habit = "reset"
        wait_until(lambda: self.ask(aggregator, 1) and self.ejections(aggregator, other) == 5, "the fifth, from new")
        aggregator.wait_log(r"(?s)(upstream_ejected.*){5}")
        lasted = re.findall(r"upstream_ejected.* for_ms=(\d+)", aggregator.process.output())
        self.assertEqual(lasted, ["100", "200", "250", "250", "100"])

    def test_the_gauge_follows_one_that_was_refused_ejected_and_came_back(self):
        other = self.nginx("other")
        flags = ("--delegate-eject-after", "1", "--delegate-eject-time", "100ms", "--delegate-eject-time-max", "100ms")
        aggregator = self.run_aggregator((self.sound, other), *flags)
        other.kill()
        wait_until(lambda: self.ask(aggregator, 1) and self.ejections(aggregator, other), "it is ejected")
        other.start()
        self.wait_served_by(aggregator, other)
        self.wait_usable(aggregator, other)

    def test_no_more_are_ejected_than_may_be(self):
        bad = [self.peer("one", "reset"), self.peer("two", "reset")]
        for percent, ejections, usable in (("50", 1, 2), ("100", 2, 1), ("0", 0, 3)):
            with self.subTest(percent):
                flags = (*FOR_GOOD, "--delegate-eject-max-percent", percent)
                aggregator = self.run_aggregator((self.sound, *bad), *flags)
                seen = self.ask(aggregator, 100)
                self.assertEqual(aggregator.metric(EJECTIONS), ejections)
                self.assertEqual(aggregator.metric(USABLE), usable)
                self.assertEqual(seen.keys(), {"sound", "delegate_reset"})
                if percent == "100":
                    self.assertEqual(seen["delegate_reset"], 2 * EJECT_AFTER)
                else:
                    self.assertGreater(seen["delegate_reset"], 2 * EJECT_AFTER, "whoever is left is used")
                self.running.close()

    def test_a_503_is_the_delegates_answer_and_ejects_nobody(self):
        other = self.peer("other", "busy")
        aggregator = self.run_aggregator((self.sound, other), *FOR_GOOD)
        seen = self.ask(aggregator, 100, "GET", "POST")
        self.assertEqual(seen["503"] + seen["sound"], 100, seen)
        self.assertEqual(seen["503"], len(other.requests()))
        self.assertGreater(seen["503"], EJECT_AFTER)
        self.assertEqual(self.ejections(aggregator, other), 0)

    def test_one_that_comes_back_gets_a_small_share_at_first(self):
        other = self.peer("other", "reset")
        flags = ("--delegate-eject-time", "1s", "--delegate-eject-time-max", "1s", "--delegate-slow-start", "1h")
        aggregator = self.run_aggregator((self.sound, other), *flags)
        wait_until(lambda: self.ask(aggregator, 1) and self.ejections(aggregator, other), "it is ejected")
        other.habit = "good"
        self.wait_usable(aggregator, other)
        seen = self.ask(aggregator, 400)
        self.assertEqual(seen["sound"] + seen["other"], 400, seen)
        self.assertGreater(seen["other"], 0)
        self.assertLess(seen["other"], 60, "a fortieth is its share")


class HealthCheckTest(DelegatesTest):
    # A second is long enough for whoever is well, on a busy machine as well.
    FLAGS = ("--delegate-health-interval", "100ms", "--delegate-health-timeout", "1s", "--delegate-health-fall", "2")

    def setUp(self):
        super().setUp()
        self.sound = self.nginx("sound")

    def check_with(self, delegates, *flags):
        return self.run_aggregator(delegates, "--delegate-health-path", "/healthy?deep=1", *self.FLAGS, *flags)

    def test_one_that_says_it_is_unwell_gets_no_requests_until_it_is_well(self):
        other = self.peer("other")
        aggregator = self.check_with((self.sound, other))
        wait_until(lambda: len(other.checks()) >= 3, "it is asked again and again")
        self.wait_served_by(aggregator, self.sound, other)
        other.healthy = False
        self.wait_usable(aggregator, other, 0)
        before = len(other.requests())
        self.assertEqual(self.ask(aggregator, 50, "GET", "POST"), {"sound": 50})
        self.assertEqual(len(other.requests()), before)
        other.healthy = True
        self.wait_usable(aggregator, other)
        self.wait_served_by(aggregator, self.sound, other)
        self.assertEqual(set(other.checks()), {"GET /healthy?deep=1"})
        self.assertGreaterEqual(aggregator.metric(CHECKS, address=other.address, result="failed"), 2)
        self.assertGreaterEqual(aggregator.metric(CHECKS, address=other.address, result="passed"), 2)
        self.assertEqual(self.ejections(aggregator, other), 0)

    def test_a_hung_one_is_found_before_any_request_meets_it(self):
        other = self.nginx("other")
        aggregator = self.check_with((self.sound, other))
        self.wait_served_by(aggregator, self.sound, other)
        other.hang()
        self.wait_usable(aggregator, other, 0)
        self.assertEqual(self.ask(aggregator, 50, "GET", "POST"), {"sound": 50})
        other.go_on()
        self.wait_usable(aggregator, other)
        self.wait_served_by(aggregator, self.sound, other)

    def test_checks_neither_wait_for_requests_nor_take_their_connections(self):
        peers = [self.peer("one", "hold"), self.peer("two", "hold")]
        aggregator = self.check_with(peers, "--pool-connections-per-worker", "1")
        join = self.begin(aggregator, 2)
        wait_until(lambda: all(peer.held_count for peer in peers), "each has a request, and no connection is left")
        for peer in peers:
            before = len(peer.checks())
            wait_until(lambda p=peer, b=before: len(p.checks()) > b + 2, f"{peer.name} is asked all the same")
        for peer in peers:
            peer.release()
        self.assertEqual(join(), {"one": 1, "two": 1})
        self.assertEqual(aggregator.metric(CHECKS, result="failed"), 0)

    def test_when_none_is_well_all_are_tried(self):
        other = self.nginx("other")
        aggregator = self.check_with((self.sound, other), "--delegate-health-rise", "1000")
        self.sound.kill()
        other.kill()
        wait_until(lambda: aggregator.metric(USABLE) == 0, "both are down")
        self.assertEqual(self.ask(aggregator, 4, "GET", "POST"), {"delegate_refused": 4})
        self.sound.start()
        self.assertEqual(self.ask(aggregator, 20, "GET", "POST"), {"sound": 20})
        self.assertEqual(aggregator.metric(USABLE), 0, "it has not risen yet")


if __name__ == "__main__":
    unittest.main()
