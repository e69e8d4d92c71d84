"""The real binary with real peers, for tests: start, talk, observe, end.

Everything that a test starts is a child of it, dies with it (PR_SET_PDEATHSIG), is ended by its own pid and waited
for; every wait has an end. Addresses are loopback ports that the kernel chose, or unix sockets in the test's own
folder. Python's standard library only.

    with Aggregator("--delegate", nginx.url, services=[SERVICE]) as aggregator:
        answer = aggregator.get("/anything")
"""

import contextlib
import ctypes
import hashlib
import http.client
import json
import mmap
import os
import re
import resource
import shutil
import signal
import socket
import socketserver
import subprocess
import tempfile
import threading
import time
import unittest

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
BUILD = os.path.join(ROOT, os.environ.pop("DPA_BUILD", "build/release"))  # The binary would take it for a flag.
BINARY = os.path.join(BUILD, "bin", "dataplane-aggregator")
PLUGINS = os.path.join(BUILD, "plugins")
# A sanitized binary is several times slower; no test depends on how fast anything is, only on that it happens.
PATIENCE = 60.0

PLUGIN_ID = "dpa-testdata-datasource"
UID = "testdata"
GROUP = "dpa-testdata-datasource.datasource.grafana.app"
VERSION = "v0alpha1"
BASE = f"/apis/{GROUP}/{VERSION}/namespaces/default"
QUERY_PATH = f"{BASE}/datasources/{UID}/query"
CONNECTIONS_QUERY_PATH = f"{BASE}/connections/{UID}/query"

# The names that the program documents: reason words (http/reason.h), metrics and fields of the access record. Tests
# use these.
REASON = {
    "bad_request": "bad_request",
    "header_too_large": "header_too_large",
    "target_too_long": "target_too_long",
    "connections": "connection_limit",
    "client_connections": "client_connection_limit",
    "overloaded": "overloaded",
    "descriptors": "out_of_descriptors",
    "body_too_large": "body_too_large",
    "method": "method_not_allowed",
    "client_closed": "client_closed",
    "not_found": "not_found",
    "refused": "delegate_refused",
    "bad_json": "bad_json",
    "too_deep": "too_deep",
    "too_many_queries": "too_many_queries",
    "bad_query": "bad_query",
    "bad_time": "bad_time",
    "no_reference": "datasource_missing",
    "mismatch": "datasource_mismatch",
    "duplicate": "duplicate_ref_id",
    "no_namespace": "namespace_not_found",
    "body_timeout": "body_timeout",
    "header_timeout": "header_timeout",
    "no_datasource": "datasource_not_found",
    "no_plugin": "plugin_not_found",
    "plugin_down": "plugin_unavailable",
    "plugin_died": "plugin_died",
    "plugin_timeout": "plugin_timeout",
    "plugin_error": "plugin_error",
    "delegate_timeout": "delegate_timeout",
}
METRIC = {
    "requests": "dpa_http_requests_total",
    "connections": "dpa_http_connections",
    "shed": "dpa_http_connections_shed_total",
    "log_lines": "dpa_access_log_lines_total",
    "log_dropped": "dpa_access_log_dropped_total",
    "pool_connects": "dpa_upstream_connects_total",
    "pool_reuses": "dpa_upstream_reuses_total",
    "plugin_requests": "grafana_plugin_request_total",
}
ACCESS = {"status": "status", "reason": "reason", "method": "method", "target": "target"}

DATASOURCES = f"""apiVersion: 1
datasources:
  - name: Test data
    uid: {UID}
    type: {PLUGIN_ID}
    orgId: 1
  - name: Orphan
    uid: orphan
    type: not-installed-datasource
    orgId: 1
"""


def manifest(group=GROUP, version=VERSION, plugin=PLUGIN_ID, services=({"type": "query"},)):
    """A DataPlaneService as JSON, which is YAML too."""
    return json.dumps(
        {
            "apiVersion": "aggregation.grafana.app/v0alpha1",
            "kind": "DataPlaneService",
            "metadata": {"name": f"{version}.{group}"},
            "spec": {
                "pluginID": plugin,
                "pluginType": "datasource",
                "group": group,
                "version": version,
                "services": list(services),
            },
        },
        indent=2,
    )


def query(ref_id="A", scenario="random_walk", **fields):
    return {
        "refId": ref_id,
        "datasource": {"type": PLUGIN_ID, "uid": UID},
        "scenarioId": scenario,
        "maxDataPoints": 10,
        **fields,
    }


def query_body(*queries):
    return {"from": "now-1h", "to": "now", "queries": list(queries) or [query()]}


def wait_until(condition, what, timeout=PATIENCE):
    """Polls until condition() is true and returns what it returned. An AssertionError that says `what` otherwise."""
    end = time.monotonic() + timeout
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > end:
            raise AssertionError(f"not within {timeout:.0f} s: {what}")
        time.sleep(0.02)


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


_LIBC = ctypes.CDLL(None)


def _die_with_parent():
    _LIBC.prctl(1, signal.SIGKILL)


def checks_undefined_behaviour():
    """The binary under test looks for undefined behaviour, for which it opens pipes of its own: when no descriptor is
    left it takes every object for a broken one."""
    with open(BINARY, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        return content.find(b"__ubsan_handle_dynamic_type_cache_miss") >= 0


def processes_below(folder):
    """(pid, command) of the processes whose command line names `folder`."""
    found = []
    for entry in os.listdir("/proc"):
        if not entry.isdigit():
            continue
        with contextlib.suppress(OSError):
            with open(f"/proc/{entry}/cmdline", "rb") as file:
                command = file.read().replace(b"\0", b" ").decode("utf-8", "replace").strip()
            if folder in command and int(entry) != os.getpid():
                found.append((int(entry), command))
    return found


def children_of(pid):
    found = []
    with contextlib.suppress(OSError):
        for task in os.listdir(f"/proc/{pid}/task"):
            with open(f"/proc/{pid}/task/{task}/children", encoding="ascii") as file:
                found += [int(word) for word in file.read().split()]
    return found


def is_alive(pid):
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as file:
            return file.read().rpartition(")")[2].split()[0] not in ("Z", "X")
    except OSError:
        return False


class Answer:
    """A whole HTTP response."""

    def __init__(self, status, headers, body):
        self.status, self.headers, self.body = status, headers, body

    def header(self, name, default=None):
        return self.headers.get(name.lower(), default)

    def json(self):
        return json.loads(self.body)

    def __repr__(self):
        return f"<{self.status} {self.body[:300]!r}>"


class _UnixHTTPConnection(http.client.HTTPConnection):
    def __init__(self, path, timeout):
        super().__init__("localhost", timeout=timeout)
        self._path = path

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


class Client:
    """One keep-alive connection. `address` is a port or the path of a unix socket."""

    def __init__(self, address, timeout=PATIENCE):
        if isinstance(address, int):
            self._connection = http.client.HTTPConnection("127.0.0.1", address, timeout=timeout)
        else:
            self._connection = _UnixHTTPConnection(address, timeout)

    def request(self, method, path, body=None, headers=None):
        if isinstance(body, (dict, list)):
            body = json.dumps(body)
            headers = {"Content-Type": "application/json", **(headers or {})}
        chunked = body is not None and not isinstance(body, (str, bytes))
        self._connection.request(method, path, body, headers or {}, encode_chunked=chunked)
        response = self._connection.getresponse()
        answer = {}
        for name, value in response.getheaders():
            key = name.lower()
            answer[key] = f"{answer[key]}, {value}" if key in answer else value
        return Answer(response.status, answer, response.read())

    def close(self):
        self._connection.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


def once(address, method, path, body=None, headers=None, timeout=PATIENCE):
    with Client(address, timeout) as client:
        return client.request(method, path, body, headers)


class Process:
    """A child process with its output in files of its own folder."""

    def __init__(self, name, arguments, folder, env=None, cwd=None, files_max=None):
        def prepare():
            _die_with_parent()
            if files_max:
                resource.setrlimit(resource.RLIMIT_NOFILE, (files_max, files_max))

        self.name = name
        self.stdout_path = os.path.join(folder, f"{name}.stdout")
        self.stderr_path = os.path.join(folder, f"{name}.stderr")
        with open(self.stdout_path, "wb") as out, open(self.stderr_path, "wb") as err:
            self.popen = subprocess.Popen(
                arguments,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                cwd=cwd,
                env={**os.environ, **(env or {})},
                preexec_fn=prepare,
            )
        self.pid = self.popen.pid

    def output(self):
        text = ""
        for path in (self.stdout_path, self.stderr_path):
            with open(path, encoding="utf-8", errors="replace") as file:
                text += file.read()
        return text

    def is_running(self):
        return self.popen.poll() is None

    def wait(self, timeout=PATIENCE):
        """The exit code; negative: the signal that ended it."""
        return self.popen.wait(timeout)

    def signal(self, number):
        self.popen.send_signal(number)

    def end(self, timeout=PATIENCE):
        """SIGTERM, then SIGKILL if it takes too long. Returns the exit code."""
        if self.is_running():
            self.signal(signal.SIGTERM)
            try:
                self.wait(timeout)
            except subprocess.TimeoutExpired:
                self.popen.kill()
                self.wait(10)
                raise AssertionError(
                    f"{self.name} did not end within {timeout:.0f} s of SIGTERM:\n{self.tail()}"
                ) from None
        return self.popen.returncode

    def tail(self, lines=40):
        return "\n".join(self.output().splitlines()[-lines:])


class Aggregator:
    """The binary under test. Keyword arguments write its folders; positional ones are more flags."""

    def __init__(
        self,
        *flags,
        delegate=None,
        services=(manifest(),),
        datasources=DATASOURCES,
        plugins=PLUGINS,
        env=None,
        ready=True,
        unix_listen=False,
        files_max=None,
    ):
        self.folder = tempfile.mkdtemp(prefix="dpa-e2e-")
        self.services_dir = os.path.join(self.folder, "services")
        os.mkdir(self.services_dir)
        for index, text in enumerate(services):
            self.write_service(f"service-{index}.yaml", text)
        self.access_log = os.path.join(self.folder, "access.log")
        self.unix_path = os.path.join(self.folder, "listen.sock") if unix_listen else None
        self.port, self.admin_port = free_port(), free_port()
        self.flags = [
            "--listen",
            f"127.0.0.1:{self.port}",
            "--admin-listen",
            f"127.0.0.1:{self.admin_port}",
            "--workers",
            "2",
            "--services",
            self.services_dir,
            "--data-dir",
            os.path.join(self.folder, "data"),
            "--access-log",
            self.access_log,
        ]
        if self.unix_path:
            self.flags += ["--listen", f"unix:{self.unix_path}"]
        if delegate:
            self.flags += ["--delegate", delegate]
        if datasources:
            path = os.path.join(self.folder, "datasources.yaml")
            _write(path, datasources)
            self.flags += ["--datasources", path]
        if plugins:
            self.flags += ["--plugins", plugins]
        self.flags += list(flags)
        self._wait_ready = ready
        self.env = env
        self.files_max = files_max
        self.process = None

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, kind, *_):
        try:
            code = self.process.end()
            log = self.process.output()
            # A report of a sanitizer is a failure, whatever the test saw.
            report = re.search(
                r"ERROR: AddressSanitizer|:\d+:\d+: runtime error:|WARNING: ThreadSanitizer|LeakSanitizer: detected",
                log,
            )
            if report and kind is None:
                raise AssertionError(f"{report.group()} (exit code {code}):\n{self.process.tail(120)}")
        finally:
            shutil.rmtree(self.folder, ignore_errors=True)

    def start(self):
        if not os.access(BINARY, os.X_OK):
            raise AssertionError(f"{os.path.relpath(BINARY, ROOT)} is not built")
        self.process = Process(
            "aggregator", [BINARY] + self.flags, self.folder, self.env, files_max=self.files_max
        )
        try:
            if self._wait_ready:
                wait_until(self._ready_or_gone, "the aggregator is ready")
        except AssertionError as error:
            text = f"{error}\n{self.process.tail()}"
            with contextlib.suppress(AssertionError):
                self.process.end(10)
            shutil.rmtree(self.folder, ignore_errors=True)
            raise AssertionError(text) from None

    def _ready_or_gone(self):
        if not self.process.is_running():
            raise AssertionError(f"the aggregator ended with {self.process.popen.returncode}")
        return self.is_ready()

    def is_ready(self):
        try:
            return self.admin("/readyz", timeout=5).status == 200
        except (OSError, http.client.HTTPException):
            return False

    @property
    def pid(self):
        return self.process.pid

    def write_service(self, name, text):
        """Atomically, as editors and kubelets do: a reader sees the old file or the new one."""
        path = os.path.join(self.services_dir, name)
        _write(path + ".tmp~", text)
        os.replace(path + ".tmp~", path)
        return path

    def request(self, method, path, body=None, headers=None, timeout=PATIENCE):
        return once(self.port, method, path, body, headers, timeout)

    def get(self, path, headers=None):
        return self.request("GET", path, headers=headers)

    def query(self, *queries, path=QUERY_PATH, timeout=PATIENCE):
        return self.request("POST", path, query_body(*queries), timeout=timeout)

    def admin(self, path, timeout=PATIENCE):
        return once(self.admin_port, "GET", path, timeout=timeout)

    def metrics(self):
        """{name: [(labels, value)]}"""
        families = {}
        for line in self.admin("/metrics").body.decode().splitlines():
            match = re.match(r"^([a-zA-Z_:][\w:]*)(?:\{(.*)\})? (\S+)$", line)
            if match:
                labels = dict(re.findall(r'(\w+)="((?:[^"\\]|\\.)*)"', match.group(2) or ""))
                families.setdefault(match.group(1), []).append((labels, float(match.group(3))))
        return families

    def metric(self, name, **labels):
        """The sum of the samples of METRIC[name] that carry `labels`."""
        samples = self.metrics().get(METRIC.get(name, name))
        if samples is None:
            raise AssertionError(f"no metric {METRIC.get(name, name)}")
        return sum(value for have, value in samples if labels.items() <= have.items())

    def access_records(self):
        if not os.path.exists(self.access_log):
            return []
        with open(self.access_log, encoding="utf-8") as file:
            text = file.read()
        # A line that is still being written has no end yet.
        return [json.loads(line) for line in text.split("\n")[:-1]]

    def wait_record(self, what="a record", **fields):
        """The first access record with these fields, named as in ACCESS; `target` matches as a part."""

        def find():
            for record in self.access_records():
                if all(
                    (
                        value in str(record.get(ACCESS[name], ""))
                        if name == "target"
                        else record.get(ACCESS[name]) == value
                    )
                    for name, value in fields.items()
                ):
                    return record
            return None

        return wait_until(find, f"access record {what} {fields}", 20)

    def wait_log(self, pattern, timeout=PATIENCE):
        return wait_until(lambda: re.search(pattern, self.process.output()), f"log line matching {pattern!r}", timeout)

    def wait_ready(self):
        wait_until(self.is_ready, "ready")

    def plugin_pid(self):
        """The one child that is the bundled plugin."""

        def find():
            for pid in children_of(self.pid):
                with contextlib.suppress(OSError):
                    if os.path.basename(os.readlink(f"/proc/{pid}/exe")).startswith("gpx_testdata"):
                        return pid
            return None

        return wait_until(find, "the plugin's process")


def _write(path, text):
    with open(path, "w", encoding="utf-8") as file:
        file.write(text)


NGINX_CONFIG = """
daemon off;
master_process on;
worker_processes 2;
pid {folder}/nginx.pid;
error_log {folder}/error.log info;
{user}
events {{ worker_connections 1024; }}
http {{
  log_format probe '$connection $connection_requests $request_method $request_uri $status $request_length';
  access_log {folder}/access.log probe;
  client_body_temp_path {folder}/body;
  proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi;
  scgi_temp_path {folder}/scgi;
  client_max_body_size 64m;
  keepalive_timeout 60s;
  keepalive_requests 1000000;
  default_type application/octet-stream;
  server {{
    listen 127.0.0.1:{port};
    listen unix:{folder}/nginx.sock;
    root {folder}/www;
    location = /status {{ stub_status; access_log off; }}
    location /hello {{ add_header X-Delegate nginx; return 200 "hello from the delegate\\n"; }}
    location /headers {{
      add_header X-Seen-Host $http_host;
      add_header X-Seen-Via $http_via;
      add_header X-Seen-Forwarded-For $http_x_forwarded_for;
      add_header X-Seen-Forwarded-Proto $http_x_forwarded_proto;
      add_header X-Seen-Forwarded-Host $http_x_forwarded_host;
      add_header X-Seen-Probe $http_x_probe;
      return 200 "seen\\n";
    }}
    location /teapot {{ return 418 "teapot\\n"; }}
    location /nothing {{ return 204; }}
    location /moved {{ return 302 /hello; }}
    location /upload/ {{ dav_methods PUT DELETE; create_full_put_path on; }}
    location / {{ try_files $uri =404; }}
  }}
}}
"""


class Nginx:
    """Debian's NGINX as a delegate, with its own configuration and folder, in the foreground."""

    def __init__(self):
        self.folder = tempfile.mkdtemp(prefix="dpa-nginx-")
        os.chmod(self.folder, 0o755)
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.unix_url = f"unix:{self.folder}/nginx.sock"
        self.www = os.path.join(self.folder, "www")
        os.makedirs(os.path.join(self.www, "upload"))
        self.process = None

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *_):
        try:
            self.stop()
        finally:
            shutil.rmtree(self.folder, ignore_errors=True)

    def start(self):
        user = "user root;" if os.getuid() == 0 else ""
        config = os.path.join(self.folder, "nginx.conf")
        _write(config, NGINX_CONFIG.format(folder=self.folder, port=self.port, user=user))
        binary = shutil.which("nginx") or "/usr/sbin/nginx"
        self.process = Process(
            "nginx", [binary, "-p", self.folder, "-c", config, "-e", f"{self.folder}/error.log"], self.folder
        )
        try:
            wait_until(lambda: not self.process.is_running() or self._answers(), "NGINX answers", 20)
            if not self.process.is_running():
                raise AssertionError("NGINX ended")
        except AssertionError as error:
            raise AssertionError(f"{error}: {self.process.tail()}\n{self._read('error.log')}") from None

    def _answers(self):
        try:
            return once(self.port, "GET", "/status", timeout=2).status == 200
        except OSError:
            return False

    def stop(self):
        if self.process:
            self.process.end(20)

    def _read(self, name):
        path = os.path.join(self.folder, name)
        if not os.path.exists(path):
            return ""
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read()

    def write_file(self, name, content):
        with open(os.path.join(self.www, name), "wb") as file:
            file.write(content)

    def read_upload(self, name):
        with open(os.path.join(self.www, "upload", name), "rb") as file:
            return file.read()

    def requests(self):
        """[(connection, nth request on it, method, uri, status)] of the access log."""
        rows = [line.split() for line in self._read("access.log").splitlines()]
        return [(int(row[0]), int(row[1]), row[2], row[3], int(row[4])) for row in rows if len(row) == 6]


class EchoDelegate:
    """An HTTP server that says back exactly what it got, byte for byte; NGINX cannot.

    /echo: the body of the request. /head: JSON of the request line, headers in order, and the body's length and
    SHA-256. /chunks: the body in chunks, with trailers if the request says TE: trailers. /slow: the head, then half a
    body, then nothing. /cut: the head, then half a body, then the end. /reset: closes without an answer. /never: no
    answer until the client goes. /early: answers before it read the body.
    """

    def __init__(self):
        outer = self
        self.connections = 0
        self.requests = []
        self._lock = threading.Lock()

        class Handler(socketserver.StreamRequestHandler):
            timeout = 60

            def handle(self):
                with outer._lock:
                    outer.connections += 1
                with contextlib.suppress(OSError, ValueError):
                    while outer._serve(self.rfile, self.wfile):
                        pass

        class Server(socketserver.ThreadingTCPServer):
            allow_reuse_address = True
            daemon_threads = True
            request_queue_size = 256

        self._server = Server(("127.0.0.1", 0), Handler)
        self.port = self._server.server_address[1]
        self.url = f"http://127.0.0.1:{self.port}"

    def __enter__(self):
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        return self

    def __exit__(self, *_):
        self._server.shutdown()
        self._server.server_close()

    def _serve(self, reader, writer):
        """One exchange; false when the connection is to be closed."""
        line = reader.readline().decode("latin-1").rstrip("\r\n")
        if not line:
            return False
        headers = []
        while text := reader.readline().decode("latin-1").rstrip("\r\n"):
            name, _, value = text.partition(":")
            headers.append((name, value.strip()))
        method, target, _ = line.split(" ")
        path = target.partition("?")[0]
        if path == "/reset":
            return False
        if path == "/early":
            writer.write(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 3\r\nConnection: close\r\n\r\nno\n")
            return False
        body, trailers = _read_body(reader, headers)
        with self._lock:
            self.requests.append((method, target, headers, body, trailers))
        if path == "/never":
            reader.read(1)
            return False
        if path == "/cut":
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf.")
            return False
        if path == "/slow":
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf.")
            writer.flush()
            reader.read(1)
            return False
        if path == "/chunks":
            writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nX-Order: 1\r\nX-Order: 2\r\n\r\n")
            for start in range(0, len(body), 10007):
                piece = body[start : start + 10007]
                writer.write(b"%x\r\n%s\r\n" % (len(piece), piece))
            writer.write(b"0\r\n\r\n")
            return True
        if path == "/head":
            body = json.dumps(
                {
                    "line": line,
                    "headers": headers,
                    "bytes": len(body),
                    "trailers": trailers,
                    "sha256": hashlib.sha256(body).hexdigest(),
                }
            ).encode()
        head = f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\nX-Method: {method}\r\n\r\n".encode()
        writer.write(head + (b"" if method == "HEAD" else body))
        return True


def _read_body(reader, headers):
    """(body, trailers) by the framing that the headers declare. ValueError if it is broken."""
    values = {name.lower(): value for name, value in headers}
    if values.get("transfer-encoding", "").lower() == "chunked":
        pieces = []
        while True:
            size = int(reader.readline().split(b";")[0], 16)
            if size == 0:
                break
            pieces.append(reader.read(size))
            if len(pieces[-1]) != size:
                raise ValueError("chunk broke off")
            if reader.readline() != b"\r\n":
                raise ValueError("chunk without its end")
        trailers = []
        while (line := reader.readline()) not in (b"\r\n", b""):
            trailers.append(line.rstrip(b"\r\n").decode("latin-1"))
        if not line:
            raise ValueError("trailers broke off")
        return b"".join(pieces), trailers
    length = int(values.get("content-length", 0))
    body = reader.read(length)
    if len(body) != length:
        raise ValueError("body broke off")
    return body, []


def exchange_raw(port, data, timeout=20.0, half_close=False, pieces=None):
    """Sends bytes as they are, reads until the peer closes or is silent for `timeout`. Returns (bytes, closed by the
    peer)."""
    with socket.create_connection(("127.0.0.1", port), timeout=timeout) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            for start in range(0, len(data), pieces or max(len(data), 1)):
                connection.sendall(data[start : start + (pieces or len(data))])
            if half_close:
                connection.shutdown(socket.SHUT_WR)
        received = b""
        while True:
            try:
                piece = connection.recv(65536)
            except ConnectionResetError:
                return received, True
            except TimeoutError:
                return received, False
            if not piece:
                return received, True
            received += piece


def split_answers(data):
    """[(status, {header: value}, body)] of a byte stream of responses with Content-Length."""
    answers = []
    while data:
        head, separator, data = data.partition(b"\r\n\r\n")
        if not separator:
            raise AssertionError(f"a head without an end: {head[:200]!r}")
        lines = head.decode("latin-1").split("\r\n")
        headers = {line.partition(":")[0].lower(): line.partition(":")[2].strip() for line in lines[1:]}
        length = int(headers.get("content-length", 0))
        answers.append((int(lines[0].split(" ")[1]), headers, data[:length]))
        data = data[length:]
    return answers


class Load:
    """Threads that make requests until told to stop, each on its own keep-alive connection. A failed one opens a new
    connection."""

    def __init__(self, make_request, threads=4, address=None):
        self.results = []  # (status or exception, seconds since the start of the request, monotonic time of its end)
        self._make_request, self._address = make_request, address
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._run, daemon=True) for _ in range(threads)]

    def _run(self):
        client = Client(self._address)
        while not self._stop.is_set():
            started = time.monotonic()
            try:
                outcome = self._make_request(client)
            except (OSError, http.client.HTTPException) as error:
                outcome = error
                client.close()
                client = Client(self._address)
            now = time.monotonic()
            self.results.append((outcome, now - started, now))
            if isinstance(outcome, ConnectionRefusedError):
                self._stop.wait(0.05)
        client.close()

    def __enter__(self):
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self.stop()

    def stop(self):
        self._stop.set()
        for thread in self._threads:
            thread.join(PATIENCE)
            if thread.is_alive():
                raise AssertionError("a request of the load never ended")

    def outcomes(self):
        return [outcome for outcome, _, _ in list(self.results)]

    def wait_for(self, count, timeout=PATIENCE):
        """Until `count` more requests have ended."""
        goal = len(self.results) + count
        wait_until(lambda: len(self.results) >= goal, f"{count} more requests", timeout)


class TestCase(unittest.TestCase):
    maxDiff = 4000

    def assert_status(self, answer, code, reason=None):
        """`answer` is an error of our own: a Kubernetes Status of this code and, if given, reason word."""
        self.assertEqual(answer.status, code, answer)
        self.assertEqual(answer.header("content-type", "").partition(";")[0], "application/json", answer)
        status = answer.json()
        self.assertEqual(
            (status["kind"], status["apiVersion"], status["status"], status["code"]), ("Status", "v1", "Failure", code)
        )
        self.assertEqual(status["metadata"], {})
        self.assertTrue(status["message"], "an error says what is wrong")
        if reason is not None:
            words = [cause["reason"] for cause in status["details"]["causes"]]
            self.assertEqual(words, [REASON[reason]], answer)
        return status

    def assert_frames(self, answer, ref_id="A"):
        """`answer` has a result for ref_id whose frames have fields and as many columns of values. Returns the
        frames."""
        self.assertEqual(answer.status, 200, answer)
        result = answer.json()["results"][ref_id]
        self.assertNotIn("error", result)
        self.assertTrue(result["frames"], result)
        for frame in result["frames"]:
            self.assertTrue(frame["schema"]["fields"])
            self.assertEqual(len(frame["schema"]["fields"]), len(frame["data"]["values"]))
            self.assertTrue(all(len(column) > 0 for column in frame["data"]["values"]))
        return result["frames"]
