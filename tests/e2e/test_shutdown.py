"""The end: SIGTERM drains, a second signal does not wait.

Goal: a rolling restart costs no request, and nothing is left behind. Method: signals while calls to the plugin and to
the delegate are in flight; then what is left in the process table and in the file system.
"""

import http.client
import os
import signal
import threading

import harness
from harness import QUERY_PATH, Aggregator, Client, Load, Nginx, TestCase, children_of, query, query_body, wait_until


class ShutdownTest(TestCase):
    def begin_queries(self, aggregator, count, delay_ms):
        """`count` slow queries under way; the answers gather in the list that comes back beside the threads."""
        outcomes = []

        def ask():
            try:
                with Client(aggregator.port) as client:
                    body = query_body(query(scenario="slow", delayMs=delay_ms))
                    outcomes.append(client.request("POST", QUERY_PATH, body).status)
            except Exception as error:  # pylint: disable=broad-except
                outcomes.append(error)

        threads = [threading.Thread(target=ask, daemon=True) for _ in range(count)]
        for thread in threads:
            thread.start()
        for _ in range(30):  # Each on a new connection: when the last is answered, those above are under way.
            self.assert_frames(aggregator.query())
        return threads, outcomes

    def assert_nothing_left(self, aggregator, children):
        for pid in children:
            wait_until(lambda p=pid: not harness.is_alive(p), f"child {pid} is gone", 10)
        self.assertEqual(harness.processes_below(aggregator.folder), [])
        if aggregator.unix_path:
            self.assertFalse(os.path.exists(aggregator.unix_path), "the listening socket's file is removed")

    def test_sigterm_under_load_completes_every_request(self):
        for number in (signal.SIGTERM, signal.SIGINT):
            with self.subTest(number.name), Aggregator(unix_listen=True) as aggregator:
                children = children_of(aggregator.pid)
                self.assertTrue(children, "a plugin runs")
                threads, outcomes = self.begin_queries(aggregator, 12, 3000)
                aggregator.process.signal(number)
                wait_until(
                    lambda: aggregator.admin("/readyz", timeout=5).status == 500, "/readyz fails while it drains", 2.5
                )
                for thread in threads:
                    thread.join(harness.PATIENCE)
                self.assertEqual(outcomes, [200] * 12)
                self.assertEqual(aggregator.process.wait(), 0)
                self.assert_nothing_left(aggregator, children)

    def test_sigterm_under_a_steady_load_breaks_no_answer(self):
        # Goal: who was let in is answered, whole. Method: clients that ask without pause over new and kept connections,
        # through both paths, when the signal comes. What is refused or closed before it was read may be repeated
        # elsewhere; an answer that began, or a request that was read, is complete. The access log knows of each.
        def fresh(client):
            client.close()
            return client.request("GET", "/1000000.bin", headers={"Connection": "close"})

        def kept(client):
            return client.request("POST", QUERY_PATH, query_body(query(scenario="slow", delayMs=30)))

        with Nginx() as nginx, Aggregator(delegate=nginx.url) as aggregator:
            nginx.write_file("1000000.bin", b"x" * 1_000_000)
            with Load(fresh, 8, aggregator.port) as first, Load(kept, 8, aggregator.port) as second:
                first.wait_for(50)
                second.wait_for(50)
                aggregator.process.signal(signal.SIGTERM)
                self.assertEqual(aggregator.process.wait(), 0)
                first.stop()
                second.stop()
            for outcome in first.outcomes() + second.outcomes():
                if isinstance(outcome, harness.Answer):
                    self.assertEqual(outcome.status, 200, outcome)
                    self.assertIn(len(outcome.body), (1_000_000,) if b"xxx" in outcome.body[:3] else range(1, 100_000))
                else:
                    self.assertNotIsInstance(outcome, http.client.IncompleteRead)
            answered = sum(isinstance(outcome, harness.Answer) for outcome in first.outcomes() + second.outcomes())
            records = aggregator.access_records()
            self.assertEqual([r for r in records if (r["status"], r["reason"]) != (200, "ok")], [])
            self.assertEqual(len(records), answered, "every request that was read was answered, and its client got it")

    def test_new_connections_are_refused_while_it_drains(self):
        with Aggregator() as aggregator:
            threads, outcomes = self.begin_queries(aggregator, 1, 3000)
            aggregator.process.signal(signal.SIGTERM)

            def refused():
                try:
                    return harness.once(aggregator.port, "GET", "/", timeout=5).status == 503
                except OSError:
                    return True

            wait_until(refused, "no new connection is served", 2.5)
            threads[0].join(harness.PATIENCE)
            self.assertEqual(outcomes, [200])
            self.assertEqual(aggregator.process.wait(), 0)

    def test_idle_keep_alive_connections_do_not_delay_the_end(self):
        with Nginx() as nginx, Aggregator("--drain-timeout", "120s", delegate=nginx.url) as aggregator, Client(
            aggregator.port
        ) as first, Client(aggregator.port) as second:
            for client in (first, second):
                self.assertEqual(client.request("GET", "/hello").status, 200)
            aggregator.process.signal(signal.SIGTERM)
            self.assertEqual(aggregator.process.wait(), 0)

    def test_a_request_that_outlives_the_drain_timeout_is_ended(self):
        with Aggregator("--drain-timeout", "500ms") as aggregator:
            children = children_of(aggregator.pid)
            threads, outcomes = self.begin_queries(aggregator, 3, 600_000)
            aggregator.process.signal(signal.SIGTERM)
            aggregator.process.wait()
            for thread in threads:
                thread.join(harness.PATIENCE)
            self.assertEqual(len(outcomes), 3)
            self.assert_nothing_left(aggregator, children)

    def test_a_second_signal_ends_it_now(self):
        with Aggregator("--drain-timeout", "600s", unix_listen=True) as aggregator:
            children = children_of(aggregator.pid)
            self.begin_queries(aggregator, 3, 600_000)
            aggregator.process.signal(signal.SIGTERM)
            wait_until(lambda: not aggregator.is_ready(), "it drains")
            self.assertTrue(aggregator.process.is_running())
            aggregator.process.signal(signal.SIGTERM)
            aggregator.process.wait(30)
            self.assert_nothing_left(aggregator, children)

    def test_a_kill_9_of_the_aggregator_leaves_no_plugin_behind(self):
        with Aggregator() as aggregator:
            children = children_of(aggregator.pid)
            self.assertTrue(children)
            aggregator.process.signal(signal.SIGKILL)
            aggregator.process.wait()
            for pid in children:
                wait_until(lambda p=pid: not harness.is_alive(p), f"plugin {pid} ended with its host", 20)

    def test_a_unix_socket_that_a_killed_one_left_is_taken_over(self):
        with Aggregator(unix_listen=True) as aggregator:
            aggregator.process.signal(signal.SIGKILL)
            aggregator.process.wait()
            self.assertTrue(os.path.exists(aggregator.unix_path))
            aggregator.start()
            with Client(aggregator.unix_path) as client:
                self.assertEqual(client.request("POST", QUERY_PATH, query_body()).status, 200)
