"""Plugins that die, hang, or never were plugins.

Goal: whatever a plugin process does, the aggregator stays up, says clearly what is wrong, and serves again as soon as
it can. Method: the bundled plugin under SIGKILL and its own crashes; plugin folders whose executables are small
scripts.
"""

import json
import os
import platform
import shutil
import signal
import tempfile
import threading

import harness
from harness import PLUGIN_ID, QUERY_PATH, Aggregator, Client, Load, TestCase, manifest, query, query_body, wait_until

ARCH = {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())


class KillTest(TestCase):
    def test_kill_9_under_load(self):
        # Goal: calls in flight get a 502 at once, later ones a 503 until the plugin is back, then 200. Method: slow
        # calls in flight and a steady load; the pause before the restart is long enough that the load meets it.
        with Aggregator("--plugin-restart-backoff-min", "2s", "--plugin-restart-backoff-max", "2s") as aggregator:
            first = aggregator.plugin_pid()
            in_flight = []
            threads = [
                threading.Thread(
                    target=lambda: in_flight.append(aggregator.query(query(scenario="slow", delayMs=120_000)))
                )
                for _ in range(8)
            ]
            for thread in threads:
                thread.start()
            with Load(
                lambda client: client.request("POST", QUERY_PATH, query_body()).status, 4, aggregator.port
            ) as load:
                load.wait_for(400)  # Long enough for the slow ones to be under way.
                os.kill(first, signal.SIGKILL)
                for thread in threads:
                    thread.join(harness.PATIENCE)
                wait_until(lambda: 503 in load.outcomes(), "a 503 while the plugin is down")
                wait_until(lambda: load.outcomes()[-1] == 200, "a 200 again")
            self.assertEqual(len(in_flight), 8, "every call in flight was answered")
            for answer in in_flight:
                self.assert_status(answer, 502, "plugin_died")
            self.assertLessEqual(set(load.outcomes()), {200, 502, 503}, "no broken connection")
            self.assertNotEqual(aggregator.plugin_pid(), first)
            self.assertTrue(aggregator.process.is_running())
            self.assertEqual(aggregator.admin("/livez").status, 200)

    def test_while_it_is_down_the_503_allows_a_retry_and_readyz_names_the_plugin(self):
        with Aggregator("--plugin-restart-backoff-min", "5s", "--plugin-restart-backoff-max", "5s") as aggregator:
            os.kill(aggregator.plugin_pid(), signal.SIGKILL)
            answer = wait_until(lambda: (lambda a: a if a.status == 503 else None)(aggregator.query()), "a 503")
            self.assert_status(answer, 503, "plugin_down")
            self.assertTrue(answer.header("retry-after"))
            # A worker sees the socket's end a moment before the supervisor sees that of the process.
            ready = wait_until(
                lambda: (lambda a: a if a.status == 500 else None)(aggregator.admin("/readyz?verbose")), "/readyz fails"
            )
            self.assertRegex(ready.body.decode(), rf"(?m)^\[-\]plugin-{PLUGIN_ID} failed: .*killed by signal 9")
            aggregator.wait_log(rf"plugin_failed plugin={PLUGIN_ID} .*killed by signal 9")
            aggregator.wait_ready()
            self.assert_frames(aggregator.query())

    def test_a_plugin_that_crashes_by_itself_comes_back(self):
        with Aggregator("--plugin-restart-backoff-min", "100ms") as aggregator:
            for how in ("abort", "exit"):
                with self.subTest(how):
                    self.assert_status(aggregator.query(query(scenario="crash", how=how)), 502, "plugin_died")
                    wait_until(lambda: aggregator.query().status == 200, "a 200 again")

    def test_a_go_like_panic_is_in_the_log(self):
        with Aggregator("--plugin-restart-backoff-min", "100ms") as aggregator:
            self.assert_status(aggregator.query(query(scenario="panic")), 502, "plugin_died")
            aggregator.wait_log("panic")

    def test_a_plugin_that_floods_its_output_keeps_answering(self):
        with Aggregator() as aggregator:
            for to in ("stdout", "stream"):
                with self.subTest(to):
                    answer = aggregator.query(query(scenario="stdio_flood", bytes=2_000_000, to=to))
                    self.assertEqual(answer.status, 200, answer)
            self.assert_frames(aggregator.query())

    def test_a_stopped_plugin_is_a_timeout_and_recovers_when_it_goes_on(self):
        with Aggregator("--plugin-call-timeout", "500ms") as aggregator:
            pid = aggregator.plugin_pid()
            os.kill(pid, signal.SIGSTOP)
            try:
                self.assert_status(aggregator.query(), 504, "plugin_timeout")
            finally:
                os.kill(pid, signal.SIGCONT)
            wait_until(lambda: aggregator.query().status == 200, "a 200 again")


class MisbehavingPluginTest(TestCase):
    """Each row is a plugin that never comes up beside one that does."""

    def plugin_folder(self, script, mode=0o755, plugin_id="broken-datasource", executable="gpx_broken"):
        folder = tempfile.mkdtemp(prefix="dpa-plugins-")
        self.addCleanup(shutil.rmtree, folder, ignore_errors=True)
        own = os.path.join(folder, plugin_id)
        os.mkdir(own)
        with open(os.path.join(own, "plugin.json"), "w", encoding="utf-8") as file:
            json.dump(
                {
                    "id": plugin_id,
                    "type": "datasource",
                    "name": "Broken",
                    "backend": True,
                    "executable": executable,
                    "info": {"version": "1.0.0"},
                    "dependencies": {"grafanaDependency": ">=10.0.0"},
                },
                file,
            )
        if script is not None:
            path = os.path.join(own, f"{executable}_linux_{ARCH}")
            with open(path, "w", encoding="utf-8") as file:
                file.write(script)
            os.chmod(path, mode)
        return folder

    def check_broken(self, folder, cause, plugin_id="broken-datasource"):
        group = f"{plugin_id}.example"
        datasources = harness.DATASOURCES + f"""  - name: Broken
    uid: broken
    type: {plugin_id}
    orgId: 1
"""
        with Aggregator(
            "--plugins",
            folder,
            "--plugin-start-timeout",
            "1s",
            "--plugin-restart-backoff-min",
            "200ms",
            ready=False,
            datasources=datasources,
            services=(manifest(), manifest(group=group, plugin=plugin_id)),
        ) as aggregator:
            aggregator.wait_log(rf"plugin_failed plugin={plugin_id} .*failure=.*(?:{cause})")
            wait_until(lambda: aggregator.query().status == 200, "the other plugin answers")
            ready = aggregator.admin("/readyz")
            self.assertEqual(ready.status, 500)
            self.assertRegex(ready.body.decode(), rf"(?m)^\[-\]plugin-{plugin_id} failed: .*(?:{cause})")
            self.assertRegex(ready.body.decode(), rf"(?m)^\[\+\]plugin-{PLUGIN_ID} ok")
            alone = aggregator.admin(f"/readyz/plugin-{plugin_id}")
            self.assertEqual(alone.status, 500)
            self.assertRegex(alone.body.decode(), cause)
            body = query_body({**query(), "datasource": {"type": plugin_id, "uid": "broken"}})
            path = f"/apis/{group}/{harness.VERSION}/namespaces/default/datasources/broken/query"
            with Client(aggregator.port) as client:
                self.assert_status(client.request("POST", path, body), 503, "plugin_down")
            self.assertEqual(aggregator.admin("/livez").status, 200)
            self.assertEqual(aggregator.process.end(), 0)
        self.assertEqual(harness.processes_below(folder), [], "no orphan")

    def test_one_that_never_prints_its_handshake(self):
        self.check_broken(self.plugin_folder("#!/bin/sh\nexec sleep 600\n"), "no handshake line within")

    def test_one_that_prints_garbage(self):
        self.check_broken(
            self.plugin_folder("#!/bin/sh\necho Hello, I am a plugin\nexec sleep 600\n"),
            "not a handshake.*Hello, I am a plugin",
        )

    def test_one_that_prints_a_handshake_of_another_protocol(self):
        self.check_broken(
            self.plugin_folder("#!/bin/sh\necho '1|99|unix|/nowhere|grpc'\nexec sleep 600\n"), "protocol.*99"
        )

    def test_one_whose_socket_nobody_listens_on(self):
        self.check_broken(
            self.plugin_folder("#!/bin/sh\necho '1|2|unix|/nonexistent.sock|grpc'\nexec sleep 600\n"),
            "not healthy within.*/nonexistent.sock"
        )

    def test_one_that_ends_at_once(self):
        self.check_broken(
            self.plugin_folder("#!/bin/sh\necho 'cannot find my database' >&2\nexit 3\n"),
            "exited with code 3.*cannot find my database",
        )

    def test_one_that_ignores_the_request_to_stop(self):
        self.check_broken(
            self.plugin_folder("#!/bin/sh\ntrap '' TERM INT\nwhile :; do sleep 1; done\n"),
            "no handshake line within",
        )

    def test_one_that_is_not_executable(self):
        self.check_broken(self.plugin_folder("#!/bin/sh\n", mode=0o644), "gpx_broken_linux.*Permission denied")

    def test_one_whose_executable_is_missing(self):
        self.check_broken(self.plugin_folder(None), "gpx_broken_linux.*No such file")
