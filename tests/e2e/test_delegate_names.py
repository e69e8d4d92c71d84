"""Delegates by name: what a name stands for changes while requests are served.

Goal: addresses come and go and no request is lost; a resolver that fails or hangs changes nothing. Method: a hosts file
of the aggregator's own, bound over /etc/hosts in a mount namespace of its own; no DNS server takes part.
"""

import os
import re
import socket
import subprocess
import unittest

import harness
from delegate_case import USABLE, DelegatesTest
from harness import wait_until


class NamesTest(DelegatesTest):
    IN_OWN_NAMESPACE = """
        mount --bind "$0/hosts" /etc/hosts && mount --bind "$0/nsswitch" /etc/nsswitch.conf &&
        mount --bind "$0/resolv" /etc/resolv.conf && exec "$@"
    """

    def setUp(self):
        super().setUp()
        self.write("nsswitch", "hosts: files\n")
        self.write("resolv", "")
        self.write_hosts()
        # Root needs no user namespace, and others may be allowed one.
        rights = [] if os.getuid() == 0 else ["--map-root-user"]
        self.wrapper = ["unshare", "--mount", *rights, "sh", "-c", self.IN_OWN_NAMESPACE, self.folder]
        probe = subprocess.run([*self.wrapper, "true"], capture_output=True, text=True, timeout=20, check=False)
        if probe.returncode != 0:
            self.skipTest(f"no mount namespace here: {probe.stderr.strip()}")
        self.one = self.peer("one")
        self.two = self.peer("two", address=("127.0.0.2", self.one.port))
        self.url = f"http://delegate.test:{self.one.port}"

    def write_hosts(self, *addresses, name="delegate.test"):
        self.write("hosts", "127.0.0.1 localhost\n" + "".join(f"{address} {name}\n" for address in addresses))

    def write(self, name, text):
        # In place: what is bound is this very file.
        with open(os.path.join(self.folder, name), "w", encoding="ascii") as file:
            file.write(text)

    def run_aggregator(self, delegates, *flags, **options):
        flags = ("--delegate-resolve-interval", "100ms", *flags)
        return super().run_aggregator(delegates, *flags, wrapper=self.wrapper, **options)

    def upstream(self, aggregator, url=None):
        """Its entry in /status."""
        entries = aggregator.admin("/status").json()["upstreams"]
        return next(entry for entry in entries if entry["url"] == (url or self.url))

    def wait_addresses(self, aggregator, *peers):
        want = [peer.address for peer in peers]
        wait_until(lambda: self.upstream(aggregator)["addresses"] == want, f"the name stands for {want}")

        def adopted():  # By the workers, when they count nobody else.
            return {labels["address"] for labels, _ in aggregator.metrics().get(USABLE, [])} == set(want)

        wait_until(adopted, f"endpoints {want}")

    def test_a_name_with_two_addresses_is_two_endpoints(self):
        self.write_hosts("127.0.0.1", "127.0.0.2")
        aggregator = self.run_aggregator([self.url])
        self.wait_addresses(aggregator, self.one, self.two)
        seen = self.ask(aggregator, 100)
        self.assertEqual(seen["one"] + seen["two"], 100)
        for peer in (self.one, self.two):
            self.wait_answered(aggregator, self.url, peer, seen[peer.name])
            self.assertGreater(seen[peer.name], 30)

    def test_addresses_come_and_go_and_no_request_is_lost(self):
        self.write_hosts("127.0.0.1", "127.0.0.2")
        aggregator = self.run_aggregator([self.url])
        self.one.habit = self.two.habit = "hold"
        join = self.begin(aggregator, 6)
        wait_until(lambda: (self.one.held_count, self.two.held_count) == (3, 3), "each has three requests")
        self.one.release()
        self.write_hosts("127.0.0.1")
        self.wait_addresses(aggregator, self.one)
        self.assertEqual(self.ask(aggregator, 50, "GET", "POST"), {"one": 50})
        self.assertEqual(len(self.two.connections), 3, "what is under way may finish")
        self.two.release()
        self.assertEqual(join(), {"one": 3, "two": 3})
        wait_until(lambda: not self.two.connections, "its connections are closed")
        self.write_hosts("127.0.0.2", "127.0.0.1")
        self.wait_addresses(aggregator, self.one, self.two)
        self.wait_served_by(aggregator, self.one, self.two)
        self.assertTrue(self.two.connections)
        self.write_hosts("127.0.0.1")
        wait_until(lambda: not self.two.connections, "idle ones are closed at once")
        self.assertEqual(self.ask(aggregator, 20), {"one": 20})

    def test_a_name_keeps_its_addresses_while_it_cannot_be_resolved(self):
        self.write_hosts("127.0.0.1", "127.0.0.2")
        aggregator = self.run_aggregator([self.url])
        self.write_hosts()
        lookups = "dpa_upstream_lookups_total"
        wait_until(lambda: aggregator.metric(lookups, result="failed") >= 5, "it fails again and again")
        self.wait_served_by(aggregator, self.one, self.two)
        entry = self.upstream(aggregator)
        self.assertEqual(entry["addresses"], [self.one.address, self.two.address])
        self.assertTrue(entry["error"])
        self.assertTrue(aggregator.is_ready())
        aggregator.wait_log("upstream_unresolved")
        self.assertEqual(len(re.findall("upstream_unresolved", aggregator.process.output())), 1, "told once")
        self.write_hosts("127.0.0.1")
        self.wait_addresses(aggregator, self.one)
        self.assertEqual(self.upstream(aggregator)["error"], "")

    def test_a_name_unknown_at_the_start_joins_when_it_is_known(self):
        sound = self.nginx("sound")
        aggregator = self.run_aggregator([self.url, sound.url])
        self.assertEqual(self.ask(aggregator, 20, "GET", "POST"), {"sound": 20})
        self.assertEqual(self.upstream(aggregator)["addresses"], [])
        self.assertTrue(self.upstream(aggregator)["error"])
        self.write_hosts("127.0.0.2")
        self.wait_served_by(aggregator, sound, self.two)

    def test_while_no_address_is_known_requests_are_a_502(self):
        aggregator = self.run_aggregator([self.url])
        self.assertEqual(self.ask(aggregator, 4, "GET", "POST"), {"delegate_unreachable": 4})
        self.write_hosts("127.0.0.1")
        self.wait_served_by(aggregator, self.one)

    def test_a_lookup_that_hangs_holds_up_neither_requests_nor_the_end(self):
        # Method: a name server that never answers, which is asked when the hosts file does not know the name.
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
            try:
                server.bind(("127.0.0.53", 53))
            except OSError as error:
                self.skipTest(f"no name server can be played here: {error}")
            server.settimeout(harness.PATIENCE)
            self.write("resolv", "nameserver 127.0.0.53\noptions timeout:30 attempts:1\n")
            self.write("nsswitch", "hosts: files dns\n")
            self.write_hosts("127.0.0.1")
            aggregator = self.run_aggregator([self.url])
            self.wait_addresses(aggregator, self.one)
            self.write_hosts()
            server.recv(65536)
            self.assertEqual(self.ask(aggregator, 20, "GET", "POST"), {"one": 20})
            self.assertEqual(self.upstream(aggregator)["addresses"], [self.one.address])
            self.assertEqual(aggregator.process.end(timeout=15), 0, "the lookup alone takes twice as long")

    def test_localhost_needs_no_resolver(self):
        self.write_hosts()
        url = f"http://localhost:{self.one.port}"
        aggregator = self.run_aggregator([url])
        self.assertEqual(self.ask(aggregator, 4), {"one": 4})
        self.assertEqual(self.upstream(aggregator, url)["addresses"], [self.one.address])


if __name__ == "__main__":
    unittest.main()
