"""Manifests that change while requests flow.

Goal: a change takes effect without a restart and without disturbing anybody; a wrong one changes nothing and says
why. Method: files replaced atomically, as kubelets and editors do, beside a steady load.
"""

import os
import signal

from harness import (
    GROUP,
    PLUGIN_ID,
    QUERY_PATH,
    UID,
    Aggregator,
    Client,
    Load,
    Nginx,
    TestCase,
    manifest,
    query,
    query_body,
    wait_until,
)

OTHER_GROUP = "other.example"
OTHER_PATH = f"/apis/{OTHER_GROUP}/v1/namespaces/default/datasources/{UID}/query"


class ReloadTest(TestCase):
    @classmethod
    def setUpClass(cls):
        cls.nginx = Nginx()
        cls.nginx.__enter__()
        cls.addClassCleanup(cls.nginx.__exit__)

    def is_served(self, aggregator, path=OTHER_PATH):
        return aggregator.query(path=path).status == 200

    def test_a_thousand_changes_while_requests_flow(self):
        def both(client):
            query_status = client.request("POST", QUERY_PATH, query_body()).status
            return query_status if query_status != 200 else client.request("GET", "/hello").status

        with Aggregator(delegate=self.nginx.url) as aggregator, Load(both, 4, aggregator.port) as load:
            for change in range(1000):
                services = [{"type": "query"}, {"type": "route", "method": "GET", "path": f"/change/{change}"}]
                aggregator.write_service("service-0.yaml", manifest(services=services))
                if change % 10 == 0:
                    aggregator.write_service("other.yaml", manifest(group=OTHER_GROUP, version=f"v{change + 1}"))
                elif change % 10 == 5:
                    os.unlink(os.path.join(aggregator.services_dir, "other.yaml"))
                if change % 50 == 0:
                    load.wait_for(1)
            aggregator.write_service("last.yaml", manifest(group=OTHER_GROUP, version="v1"))
            wait_until(lambda: self.is_served(aggregator), "the last change is in effect", 20)
            load.wait_for(10)
            load.stop()
        outcomes = load.outcomes()
        self.assertEqual([outcome for outcome in outcomes if outcome != 200], [], f"of {len(outcomes)} requests")
        self.assertGreater(len(outcomes), 20)

    def test_a_thousand_tables_in_force_one_after_the_other_while_requests_flow(self):
        # Goal: as above, and each change really took effect. Method: SIGHUP has each read at once, where the watcher
        # alone waits for a quiet moment; the generation that /status tells counts them.
        def both(client):
            query_status = client.request("POST", QUERY_PATH, query_body()).status
            return query_status if query_status != 200 else client.request("GET", "/hello").status

        def generation():
            return admin.request("GET", "/status").json()["services"]["generation"]

        with Aggregator(delegate=self.nginx.url) as aggregator, Client(aggregator.admin_port) as admin:
            first = generation()
            with Load(both, 4, aggregator.port) as load:
                for change in range(1, 1001):
                    aggregator.write_service("other.yaml", manifest(group=OTHER_GROUP, version=f"v{change}"))
                    aggregator.process.signal(signal.SIGHUP)
                    wait_until(lambda wanted=first + change: generation() >= wanted, f"table {change} is in force", 20)
                    if change % 100 == 0:
                        path = OTHER_PATH.replace("/v1/", f"/v{change}/")
                        wait_until(lambda p=path: self.is_served(aggregator, p), f"{path} is served", 20)
                load.wait_for(10)
                load.stop()
            self.assertEqual(generation(), first + 1000)
        outcomes = load.outcomes()
        self.assertEqual([outcome for outcome in outcomes if outcome != 200], [], f"of {len(outcomes)} requests")
        self.assertGreater(len(outcomes), 1000, "there was load enough to be disturbed")

    def test_a_file_that_is_added_changed_and_removed(self):
        with Aggregator(delegate=self.nginx.url) as aggregator:
            self.assertIn("nginx", aggregator.query(path=OTHER_PATH).header("server", ""), "not yet ours")
            path = aggregator.write_service("other.yaml", manifest(group=OTHER_GROUP, version="v1"))
            wait_until(lambda: self.is_served(aggregator), "the new route is served", 20)
            aggregator.write_service("other.yaml", manifest(group=OTHER_GROUP, version="v2"))
            wait_until(
                lambda: self.is_served(aggregator, OTHER_PATH.replace("/v1/", "/v2/")),
                "the changed route is served",
                20,
            )
            self.assertFalse(self.is_served(aggregator), "the old route is gone with the change")
            os.unlink(path)
            wait_until(
                lambda: not self.is_served(aggregator, OTHER_PATH.replace("/v1/", "/v2/")), "the route is gone", 20
            )
            self.assert_frames(aggregator.query())

    def test_a_file_that_is_written_slowly_in_place(self):
        text = manifest(group=OTHER_GROUP, version="v1")
        with Aggregator(delegate=self.nginx.url) as aggregator:
            with open(os.path.join(aggregator.services_dir, "slow.yaml"), "w", encoding="utf-8") as file:
                for start in range(0, len(text), 40):
                    file.write(text[start : start + 40])
                    file.flush()
                    self.assert_frames(aggregator.query())
            wait_until(lambda: self.is_served(aggregator), "the route is served once the file is whole", 20)

    def test_several_documents_in_one_yaml_file(self):
        document = """
apiVersion: aggregation.grafana.app/v0alpha1
kind: DataPlaneService
metadata: {{name: {version}.{group}}}
spec:
  pluginID: {plugin}
  pluginType: datasource
  group: {group}
  version: {version}
  services:
    - type: query
"""
        documents = "---".join(
            document.format(group=group, version=version, plugin=PLUGIN_ID)
            for group, version in ((GROUP, "v0alpha1"), (OTHER_GROUP, "v1"))
        )
        with Aggregator(services=(documents,)) as aggregator:
            self.assert_frames(aggregator.query())
            self.assert_frames(aggregator.query(path=OTHER_PATH))

    def test_an_invalid_change_keeps_the_last_good_table_and_names_file_and_line(self):
        broken = "apiVersion: aggregation.grafana.app/v0alpha1\nkind: DataPlaneService\nmetadata:\n  name: [\n"
        wrong_type = manifest(services=[{"type": "qwery"}])
        named = r'service-0\.yaml" line=\d+ .*'
        for text, said in ((broken, named + "not valid YAML"), (wrong_type, named + "qwery")):
            with self.subTest(said), Aggregator(delegate=self.nginx.url) as aggregator:
                aggregator.write_service("service-0.yaml", text)
                aggregator.wait_log(said)
                verbose = aggregator.admin("/readyz?verbose").body.decode()
                self.assertRegex(verbose, r"\[-\]services failed: .*service-0")
                for _ in range(20):
                    self.assert_frames(aggregator.query())
                services = [{"type": "query"}]
                aggregator.write_service("service-0.yaml", manifest(services=services))
                aggregator.write_service("other.yaml", manifest(group=OTHER_GROUP, version="v1"))
                wait_until(lambda a=aggregator: self.is_served(a), "a good change is taken again", 20)

    def test_a_change_leaves_a_query_in_flight_alone(self):
        with Aggregator(delegate=self.nginx.url) as aggregator:
            slow = lambda client: client.request(
                "POST", QUERY_PATH, query_body(query(scenario="slow", delayMs=1500))
            ).status  # noqa: E731
            with Load(slow, 2, aggregator.port) as load:
                self.assert_frames(aggregator.query())
                os.unlink(os.path.join(aggregator.services_dir, "service-0.yaml"))
                wait_until(lambda: not self.is_served(aggregator, QUERY_PATH), "the route is gone", 20)
                load.stop()
            self.assertEqual(load.outcomes()[:2], [200, 200], "they began before the change")
