"""A plugin built with Grafana's own SDK behind the aggregator.

Goal: what grafana-plugin-sdk-go says a frame is in JSON is what a client of the aggregator gets. Method: the plugin in
sdk_plugin/ is built, launched by the aggregator, and asked; sdk_plugin/cmd/golden, built from the same frames, prints
them as the SDK itself encodes them, one entry per scenario:

    {"alltypes": [{"schema": {...}, "data": {...}}], ...}

The frames must be the same bytes. (As bytes, because reading JSON would hide how a number was written.)
"""

import json
import os
import shutil
import signal
import subprocess
import tempfile

import harness
from harness import Aggregator, Client, Load, TestCase, manifest

SOURCE = os.path.join(harness.ROOT, "tests", "interop", "sdk_plugin")
BUILD_SECONDS_MAX = 600


def go(*arguments, cwd=SOURCE):
    return subprocess.run(
        ["go", *arguments],
        cwd=cwd,
        env={**os.environ, "GOTOOLCHAIN": "local", "GOFLAGS": "-mod=readonly"},
        capture_output=True,
        text=True,
        timeout=BUILD_SECONDS_MAX,
        check=False,
    )


class SdkPluginTest(TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = tempfile.mkdtemp(prefix="dpa-interop-")
        cls.addClassCleanup(shutil.rmtree, cls.folder, ignore_errors=True)
        with open(os.path.join(SOURCE, "plugin.json"), encoding="utf-8") as file:
            plugin = json.load(file)
        cls.plugin_id = plugin["id"]
        own = os.path.join(cls.folder, cls.plugin_id)
        os.mkdir(own)
        shutil.copy(os.path.join(SOURCE, "plugin.json"), own)
        platform = go("env", "GOOS", "GOARCH").stdout.split()
        cls.executable = os.path.join(own, "_".join([plugin["executable"], *platform]))
        cls.golden = os.path.join(cls.folder, "golden")
        for output, package in ((cls.executable, "."), (cls.golden, "./cmd/golden")):
            built = go("build", "-o", output, package)
            if built.returncode != 0:
                raise AssertionError(f"go build of {package} failed:\n{built.stdout}{built.stderr}")

        cls.group = f"{cls.plugin_id}.example"
        datasources = f"""apiVersion: 1
datasources:
  - name: SDK
    uid: sdk
    type: {cls.plugin_id}
    orgId: 1
    jsonData: {{}}
"""
        cls.aggregator = Aggregator(
            "--plugins",
            cls.folder,
            plugins=None,
            datasources=datasources,
            services=(
                manifest(
                    group=cls.group,
                    version="v1",
                    plugin=cls.plugin_id,
                    services=({"type": "query"}, {"type": "health"}),
                ),
            ),
        )
        cls.aggregator.start()
        cls.addClassCleanup(cls.aggregator.__exit__, None, None, None)

    def path(self, what="query", kind="datasources"):
        return f"/apis/{self.group}/v1/namespaces/default/{kind}/sdk/{what}"

    def ask(self, *queries, kind="datasources", client=None):
        """The answer to queries, each a dict of the plugin's own fields and, unless it is A, its refId."""
        datasource = {"type": self.plugin_id, "uid": "sdk"}
        body = {
            "from": "1700000000000",
            "to": "1700003600000",
            "queries": [{"refId": "A", "datasource": datasource, **query} for query in queries],
        }
        if client:
            return client.request("POST", self.path(kind=kind), body)
        return self.aggregator.request("POST", self.path(kind=kind), body)

    def printed(self, ref_id="A"):
        """{scenario: frames as text}, as the SDK itself writes them."""
        result = subprocess.run([self.golden, ref_id], capture_output=True, timeout=60, check=True)
        text = result.stdout.decode()
        scenarios = json.loads(text)
        self.assertGreaterEqual(len(scenarios), 6)
        # The text of each value, cut out between the keys; that it was cut well is checked by reading it again.
        cuts = {}
        for name in scenarios:
            begin = text.index(f'"{name}":[{{"schema"') + len(f'"{name}":')
            _, end = json.JSONDecoder().raw_decode(text, begin)
            cuts[name] = text[begin:end]
            self.assertEqual(json.dumps(json.loads(cuts[name])), json.dumps(scenarios[name]))
        return cuts

    def test_it_is_launched_and_passes_health(self):
        text = self.aggregator.admin("/readyz?verbose").body.decode()
        self.assertRegex(text, rf"(?m)^\[\+\]\S*{self.plugin_id} ok")
        answer = self.aggregator.get(self.path("health"))
        healthy = {"status": "OK", "message": "ok", "details": {"uid": "sdk"}}
        self.assertEqual((answer.status, answer.json()), (200, healthy))

    def test_frames_are_byte_for_byte_what_the_sdk_prints(self):
        for scenario, frames in self.printed().items():
            for kind in ("datasources", "connections"):
                with self.subTest(scenario, kind=kind):
                    answer = self.ask({"scenario": scenario}, kind=kind)
                    self.assertEqual(answer.status, 200, answer)
                    result = answer.json()["results"]["A"]
                    self.assertEqual(result["status"], 200)
                    self.assertEqual(json.dumps(result["frames"]), json.dumps(json.loads(frames)))
                    self.assertIn(f'"frames":{frames}', answer.body.decode())

    def test_several_queries_in_one_call_each_get_their_own_frames(self):
        wanted = {"A": "alltypes", "b c": "timeseries", "\u00fc": "many"}
        answer = self.ask(*({"refId": ref_id, "scenario": scenario} for ref_id, scenario in wanted.items()))
        self.assertEqual(set(answer.json()["results"]), set(wanted))
        for ref_id, scenario in wanted.items():
            with self.subTest(ref_id):
                frames = json.loads(self.printed(ref_id)[scenario])
                self.assertEqual(json.dumps(answer.json()["results"][ref_id]["frames"]), json.dumps(frames))

    def test_many_queries_on_one_connection_all_have_their_frames(self):
        frames = self.printed()["timeseries"]
        with Client(self.aggregator.port) as client:
            for _ in range(200):
                self.assertIn(f'"frames":{frames}', self.ask({"scenario": "timeseries"}, client=client).body.decode())

    def test_many_clients_at_once_all_have_their_frames(self):
        frames = self.printed()["many"]
        whole = lambda client: f'"frames":{frames}' in self.ask({"scenario": "many"}, client=client).body.decode()
        with Load(whole, 16, self.aggregator.port) as load:
            load.wait_for(500)
        self.assertEqual(set(load.outcomes()), {True})

    def test_errors_of_the_sdk_arrive_as_it_means_them(self):
        answer = self.ask({"error": "no table <t>"}, {"refId": "B", "scenario": "strings"})
        self.assertEqual(answer.status, 200, answer)
        failed = answer.json()["results"]["A"]
        self.assertEqual((failed["error"], failed["status"]), ("no table <t>", 502))
        self.assert_frames(answer, "B")
        self.assert_status(self.ask({"fail": "database is away"}), 500, "plugin_error")
        self.assertIn("database is away", self.ask({"fail": "database is away"}).json()["message"])

    def test_a_panic_in_a_handler_is_an_error_and_the_plugin_stays(self):
        pids = harness.children_of(self.aggregator.pid)
        self.assert_status(self.ask({"panic": True}), 500, "plugin_error")
        self.assertEqual(self.ask({"scenario": "alltypes"}).status, 200)
        self.assertEqual(harness.children_of(self.aggregator.pid), pids)
        self.aggregator.wait_log("asked to panic")

    def test_what_it_prints_to_standard_output_does_not_stop_it(self):
        self.assertEqual(self.ask({"scenario": "strings", "print": 1_000_000}).status, 200)
        self.assertEqual(self.ask({"scenario": "strings"}).status, 200)

    def test_kill_9_and_back(self):
        (pid,) = harness.children_of(self.aggregator.pid)
        os.kill(pid, signal.SIGKILL)
        answer = harness.wait_until(
            lambda: (lambda a: a if a.status in (502, 503) else None)(self.ask({"scenario": "empty"})), "it is missed"
        )
        self.assert_status(answer, answer.status)
        harness.wait_until(lambda: self.ask({"scenario": "empty"}).status == 200, "a 200 again")

    def test_it_stops_with_its_host(self):
        with Aggregator("--plugins", self.folder, plugins=None, datasources=None, services=()) as aggregator:
            children = harness.children_of(aggregator.pid)
            self.assertTrue(children)
            self.assertEqual(aggregator.process.end(), 0)
            for pid in children:
                self.assertFalse(harness.is_alive(pid))
