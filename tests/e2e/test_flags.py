"""The command line.

Goal: whoever makes a slip learns at once, in one line, what it was. Method: the binary is started and must end by
itself.
"""

import os
import shutil
import socket
import subprocess
import tempfile

import harness
from harness import BINARY, DATASOURCES, PLUGINS, Aggregator, TestCase, free_port, manifest


def run(*arguments, env=None):
    return subprocess.run(
        [BINARY, *arguments],
        capture_output=True,
        text=True,
        timeout=harness.PATIENCE,
        check=False,
        stdin=subprocess.DEVNULL,
        env={**os.environ, **(env or {})},
    )


class FolderTestCase(TestCase):
    def setUp(self):
        self.folder = tempfile.mkdtemp(prefix="dpa-flags-")
        self.addCleanup(shutil.rmtree, self.folder, ignore_errors=True)

    def write(self, name, text):
        path = os.path.join(self.folder, name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "w", encoding="utf-8") as file:
            file.write(text)
        return path


class FlagTest(FolderTestCase):
    def assert_usage_error(self, result, *parts):
        self.assertEqual(result.returncode, 2, result)
        self.assertEqual(result.stdout, "")
        self.assertEqual(len(result.stderr.strip().splitlines()), 1, result.stderr)
        for part in parts:
            self.assertIn(part, result.stderr)

    def test_an_unknown_flag_is_named_with_the_nearest_one(self):
        self.assert_usage_error(run("--lisen", "127.0.0.1:1"), "--lisen", "--listen")

    def test_malformed_values_are_named_with_what_was_expected(self):
        for flag, value, expected in (
            ("--workers", "many", "number"),
            ("--drain-timeout", "10", "duration"),
            ("--listen", "x", "HOST:PORT"),
            ("--delegate", "ftp://x", "http://"),
            ("--max-header-bytes", "1", "size"),
            ("--log-level", "loud", "debug"),
        ):
            with self.subTest(flag):
                self.assert_usage_error(run(flag, value), flag, value, expected)

    def test_environment_and_file_are_named_when_they_are_wrong(self):
        self.assert_usage_error(run(env={"DPA_WORKERS": "many"}), "DPA_WORKERS", "many")
        path = self.write("dpa.toml", "drain-timeout = soon\n")
        self.assert_usage_error(run("--config", path), path, "drain-timeout", "soon")

    def test_help_and_version(self):
        result = run("--help")
        self.assertEqual((result.returncode, result.stderr), (0, ""))
        for flag in ("--listen", "--delegate", "--plugins", "--drain-timeout", "--recv-buffers"):
            self.assertIn(flag, result.stdout)
        with open(f"{harness.ROOT}/VERSION", encoding="ascii") as file:
            self.assertIn(file.read().strip(), run("--version").stdout)

    def test_flag_wins_over_environment_over_file(self):
        # Method: three ports; which one answers tells who won.
        ports = [free_port() for _ in range(3)]
        path = self.write("dpa.toml", f'admin-listen = "127.0.0.1:{ports[0]}"\n')
        env = {"DPA_ADMIN_LISTEN": f"127.0.0.1:{ports[1]}", "DPA_CONFIG": path}
        for flags, environment, winner in (
            ((f"--admin-listen=127.0.0.1:{ports[2]}",), env, 2),
            ((), env, 1),
            ((), {"DPA_CONFIG": path}, 0),
        ):
            aggregator = Aggregator(*flags, plugins=None, env=environment)
            at = aggregator.flags.index("--admin-listen")
            del aggregator.flags[at : at + 2]
            aggregator.admin_port = ports[winner]
            with self.subTest(winner=winner), aggregator:
                self.assertEqual(aggregator.admin("/livez").status, 200)

    def test_a_port_that_is_taken_is_a_clear_error(self):
        with socket.create_server(("127.0.0.1", 0)) as taken:
            address = f"127.0.0.1:{taken.getsockname()[1]}"
            result = run("--listen", address, "--admin-listen", f"127.0.0.1:{free_port()}", "--data-dir", self.folder)
        self.assertNotEqual(result.returncode, 0)
        self.assertIn(address, result.stdout + result.stderr)
        self.assertRegex(result.stdout + result.stderr, "[Ii]n use")


class CheckTest(FolderTestCase):
    def check(self, *flags):
        return run("--check", "--data-dir", os.path.join(self.folder, "data"), *flags)

    def test_good_input_is_exit_0(self):
        self.write("services/a.yaml", manifest())
        datasources = self.write("datasources.yaml", DATASOURCES)
        result = self.check("--services", f"{self.folder}/services", "--datasources", datasources, "--plugins", PLUGINS)
        self.assertEqual(result.returncode, 0, result)

    def test_a_bad_manifest_is_exit_1_with_file_and_line(self):
        self.write(
            "services/bad.yaml",
            "apiVersion: aggregation.grafana.app/v0alpha1\nkind: DataPlaneService\nmetadata:\n"
            "  name: v1.g.example\nspec:\n  pluginID: x\n  pluginType: datasource\n  group: g.example\n"
            "  version: v1\n  services:\n    - type: qwery\n",
        )
        result = self.check("--services", f"{self.folder}/services")
        self.assertEqual(result.returncode, 1, result)
        self.assertRegex(result.stdout + result.stderr, r"bad\.yaml:11\b.*qwery")

    def test_yaml_that_does_not_parse_is_exit_1_with_file_and_line(self):
        self.write("services/bad.yaml", "a: b\nc: [\n")
        result = self.check("--services", f"{self.folder}/services")
        self.assertEqual(result.returncode, 1, result)
        self.assertRegex(result.stdout + result.stderr, r"bad\.yaml:\d+")

    def test_bad_datasources_are_exit_1_with_their_file(self):
        path = self.write("datasources.yaml", "apiVersion: 1\ndatasources:\n  - name: a\n    uid: [1]\n")
        result = self.check("--datasources", path)
        self.assertEqual(result.returncode, 1, result)
        self.assertIn("datasources.yaml", result.stdout + result.stderr)

    def test_a_folder_that_does_not_exist_is_exit_1(self):
        for flag in ("--services", "--plugins", "--datasources"):
            with self.subTest(flag):
                result = self.check(flag, f"{self.folder}/nowhere")
                self.assertEqual(result.returncode, 1, result)
                self.assertIn("nowhere", result.stdout + result.stderr)

    def test_a_bad_plugin_json_is_exit_1_with_its_file(self):
        self.write("plugins/x/plugin.json", "{")
        result = self.check("--plugins", f"{self.folder}/plugins")
        self.assertEqual(result.returncode, 1, result)
        self.assertIn("plugin.json", result.stdout + result.stderr)
