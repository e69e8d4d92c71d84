"""A plugin built with Grafana's own SDK behind the aggregator.

Goal: what grafana-plugin-sdk-go says a frame is in JSON is what a client of the aggregator gets. Method: the plugin
in sdk_plugin/ is built, launched by the aggregator, and asked; the same binary, run with `-print`, prints the same
responses as the SDK itself encodes them:

    {"<scenarioId>": {"results": {"A": {"status": 200, "frames": [...]}}}, ...}

One entry per scenario that does not depend on the clock. The frames must be equal as JSON values.
"""

import json
import os
import shutil
import subprocess
import tempfile

import harness
from harness import Aggregator, Client, TestCase, manifest

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
        built = go("build", "-o", cls.executable, ".")
        if built.returncode != 0:
            raise AssertionError(f"go build failed:\n{built.stdout}{built.stderr}")

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
            services=(manifest(group=cls.group, version="v1", plugin=cls.plugin_id),),
        )
        cls.aggregator.start()
        cls.addClassCleanup(cls.aggregator.__exit__, None, None, None)

    def ask(self, scenario, kind="datasources", client=None, **fields):
        """The answer to one query of the scenario."""
        datasource = {"type": self.plugin_id, "uid": "sdk"}
        body = {
            "from": "1700000000000",
            "to": "1700003600000",
            "queries": [{"refId": "A", "datasource": datasource, "scenarioId": scenario, **fields}],
        }
        path = f"/apis/{self.group}/v1/namespaces/default/{kind}/sdk/query"
        if client:
            return client.request("POST", path, body)
        return self.aggregator.request("POST", path, body)

    def printed(self):
        """What the SDK itself prints, by scenario."""
        result = subprocess.run([self.executable, "-print"], capture_output=True, text=True, timeout=60, check=True)
        return json.loads(result.stdout)

    def test_it_is_launched_and_passes_health(self):
        text = self.aggregator.admin("/readyz?verbose").body.decode()
        self.assertRegex(text, rf"(?m)^\[\+\]\S*{self.plugin_id} ok")

    def test_frames_equal_what_the_sdk_prints(self):
        expected = self.printed()
        self.assertTrue(expected)
        for scenario, response in expected.items():
            for kind in ("datasources", "connections"):
                with self.subTest(scenario, kind=kind):
                    answer = self.ask(scenario, kind)
                    self.assertEqual(answer.status, 200, answer)
                    self.assertEqual(answer.json()["results"]["A"], response["results"]["A"])

    def test_many_queries_on_one_connection_all_have_their_frames(self):
        scenario, response = next(iter(self.printed().items()))
        with Client(self.aggregator.port) as client:
            for _ in range(200):
                answer = self.ask(scenario, client=client)
                self.assertEqual(answer.json()["results"]["A"]["frames"], response["results"]["A"]["frames"])

    def test_it_stops_with_its_host(self):
        with Aggregator("--plugins", self.folder, plugins=None, datasources=None, services=()) as aggregator:
            children = harness.children_of(aggregator.pid)
            self.assertTrue(children)
            self.assertEqual(aggregator.process.end(), 0)
            for pid in children:
                self.assertFalse(harness.is_alive(pid))
