"""Upgrades: WebSocket, and SPDY as kubectl exec uses it.

Goal: an upgraded connection lives for as long as its peers want it, through reloads and into a drain, and ends at the
drain's deadline. Method: a WebSocket client and server of our own (RFC 6455, frames under 64 KiB), and an event stream
beside it.

DPA_E2E_SOAK_SECONDS: how long the stream and the echo go on.
"""

import base64
import contextlib
import hashlib
import os
import random
import signal
import socket
import struct
import threading
import time

import harness
from harness import Aggregator, TestCase, manifest, wait_until
from test_streaming import Delegate, read_head

SOAK_SECONDS = float(os.environ.get("DPA_E2E_SOAK_SECONDS", 5))
GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


def accept_key(key):
    return base64.b64encode(hashlib.sha1(key + GUID).digest())


class WebSocket:
    """One end, after the handshake. Clients mask."""

    def __init__(self, connection, rest, masks):
        self._connection, self._data, self._masks = connection, rest, masks

    def send(self, payload, opcode=2):
        mask = os.urandom(4) if self._masks else b""
        size = bytes([len(payload) | bool(mask) << 7]) if len(payload) < 126 else (
            bytes([126 | bool(mask) << 7]) + struct.pack(">H", len(payload))
        )
        self._connection.sendall(bytes([0x80 | opcode]) + size + mask + self._masked(payload, mask))

    @staticmethod
    def _masked(payload, mask):
        return bytes(byte ^ mask[i % 4] for i, byte in enumerate(payload)) if mask else payload

    def _exactly(self, count):
        while len(self._data) < count:
            piece = self._connection.recv(65536)
            if not piece:
                raise EOFError
            self._data += piece
        taken, self._data = self._data[:count], self._data[count:]
        return taken

    def receive(self):
        """(opcode, payload)"""
        first, second = self._exactly(2)
        size = second & 127
        if size == 126:
            (size,) = struct.unpack(">H", self._exactly(2))
        mask = self._exactly(4) if second & 128 else b""
        return first & 15, self._masked(self._exactly(size), mask)


def serve(connection):
    """WebSocket echo; SPDY: says back every byte; /events: one event every 50 ms."""
    head, rest = read_head(connection)
    fields = {}
    for line in head.split("\r\n")[1:]:
        name, _, value = line.partition(":")
        fields[name.lower()] = value.strip()
    if "/events" in head.split("\r\n")[0]:
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
        for index in range(1 << 30):
            data = b"data: %d\n\n" % index
            connection.sendall(b"%x\r\n%b\r\n" % (len(data), data))
            time.sleep(0.05)
    if fields.get("upgrade") == "SPDY/3.1":
        connection.sendall(
            b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: SPDY/3.1\r\n"
            b"X-Stream-Protocol-Version: v4.channel.k8s.io\r\n\r\n" + rest
        )
        while data := connection.recv(65536):
            connection.sendall(data)
        connection.sendall(b"goodbye")
        return
    if fields.get("upgrade") != "websocket":
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
        return
    connection.sendall(
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: "
        + accept_key(fields["sec-websocket-key"].encode())
        + b"\r\n\r\n"
    )
    peer = WebSocket(connection, rest, masks=False)
    with contextlib.suppress(EOFError):
        while True:
            opcode, payload = peer.receive()
            peer.send(payload, opcode)
            if opcode == 8:
                return


class TunnelTest(TestCase):
    def setUp(self):
        self.delegate = Delegate(serve)
        self.addCleanup(self.delegate.close)

    def connect(self, aggregator):
        client = socket.create_connection(("127.0.0.1", aggregator.port), timeout=harness.PATIENCE)
        self.addCleanup(client.close)
        return client

    def open_websocket(self, aggregator):
        client = self.connect(aggregator)
        key = base64.b64encode(os.urandom(16))
        client.sendall(
            b"GET /api/live/ws HTTP/1.1\r\nHost: grafana\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: " + key + b"\r\n\r\n"
        )
        head, rest = read_head(client)
        self.assertTrue(head.startswith("HTTP/1.1 101 "), head)
        self.assertIn(accept_key(key).decode(), head)
        return client, WebSocket(client, rest, masks=True)

    def test_a_websocket_and_an_event_stream_live_through_a_reload_and_end_at_the_drains_deadline(self):
        with Aggregator("--drain-timeout", "2s", delegate=self.delegate.url) as aggregator:
            client, websocket = self.open_websocket(aggregator)
            events = self.connect(aggregator)
            events.sendall(b"GET /events HTTP/1.1\r\nHost: a\r\n\r\n")
            events_seen = [b""]

            def follow():
                with contextlib.suppress(OSError):
                    while data := events.recv(65536):
                        events_seen[0] += data

            follower = threading.Thread(target=follow, daemon=True)
            follower.start()
            self.assertEqual(aggregator.metric("dpa_tunnels"), 1)
            generation = aggregator.metric("dpa_routes_generation")
            end, reloads, count = time.monotonic() + SOAK_SECONDS, 0, 0
            while time.monotonic() < end:
                if count % 100 == 20:
                    aggregator.write_service("more.yaml", manifest(version=f"v{reloads + 1}alpha1"))
                    reloads += 1
                message = os.urandom(1 + count * 37 % 20_000)
                websocket.send(message)
                self.assertEqual(websocket.receive(), (2, message))
                count += 1
                time.sleep(0.02)
            self.assertGreater(reloads, 0)
            wait_until(lambda: aggregator.metric("dpa_routes_generation") > generation, "the reload took effect")
            print(f"{count} messages, {reloads} reloads in {SOAK_SECONDS:.0f} s")

            aggregator.process.signal(signal.SIGTERM)
            wait_until(lambda: aggregator.admin("/readyz", timeout=5).status == 500, "it drains", 10)
            websocket.send(b"still here")
            self.assertEqual(websocket.receive(), (2, b"still here"))
            # Cut off, and seen to be: an end of stream would look like the delegate's.
            with self.assertRaises(ConnectionResetError):
                websocket.receive()
            self.assertEqual(aggregator.process.wait(), 0)
            client.close()
            follower.join(harness.PATIENCE)
            lines = events_seen[0].replace(b"\r\n", b"\n").split(b"\n")
            numbers = [int(line[6:]) for line in lines if line.startswith(b"data: ")]
            self.assertEqual(numbers, list(range(len(numbers))), "no event is lost or doubled")
            self.assertGreater(len(numbers), SOAK_SECONDS)
            tunnel = aggregator.wait_record(target="/api/live/ws")
            self.assertEqual((tunnel["status"], tunnel["reason"]), (101, "shutting_down"))
            self.assertGreater(tunnel["request_bytes"], 0)
            self.assertGreater(tunnel["t_tunnel"], SOAK_SECONDS * 1000)
            self.assertEqual(aggregator.wait_record(target="/events")["reason"], "shutting_down")

    def test_a_websocket_that_is_closed_in_order_is_ok_in_the_log_and_counted(self):
        with Aggregator(delegate=self.delegate.url, plugins=None) as aggregator:
            client, websocket = self.open_websocket(aggregator)
            websocket.send(b"hello", 1)
            self.assertEqual(websocket.receive(), (1, b"hello"))
            websocket.send(b"", 8)
            self.assertEqual(websocket.receive(), (8, b""))
            client.close()
            record = aggregator.wait_record(target="/api/live/ws", status=101, reason="ok")
            self.assertGreater(record["response_bytes"], 5)
            wait_until(lambda: aggregator.metric("dpa_tunnels") == 0, "no tunnel is left")
            self.assertEqual(aggregator.metric("dpa_tunnels_total"), 1)
            sent = aggregator.metric("dpa_tunnel_bytes_total", **{"from": "client"})
            self.assertEqual(sent, record["request_bytes"])
            self.assertEqual(aggregator.metric("requests", code="101", reason="ok"), 1)

    def test_a_spdy_exec_session_gets_its_last_words_after_it_ended_its_stream(self):
        with Aggregator(delegate=self.delegate.url, plugins=None) as aggregator:
            client = self.connect(aggregator)
            client.sendall(
                b"POST /api/v1/namespaces/default/pods/p/exec?command=sh&stdin=true&stdout=true HTTP/1.1\r\n"
                b"Host: kubernetes\r\nUser-Agent: kubectl/v1.31.0\r\nContent-Length: 0\r\nConnection: Upgrade\r\n"
                b"Upgrade: SPDY/3.1\r\nX-Stream-Protocol-Version: v4.channel.k8s.io\r\n\r\n"
            )
            head, rest = read_head(client)
            self.assertTrue(head.startswith("HTTP/1.1 101 "), head)
            self.assertIn("X-Stream-Protocol-Version: v4.channel.k8s.io", head)
            frames = b"\x80\x03\x00\x01\x01\x00\x00\x12" + random.Random(2).randbytes(200_000)

            def speak():
                client.sendall(frames)
                client.shutdown(socket.SHUT_WR)

            threading.Thread(target=speak, daemon=True).start()
            while data := client.recv(65536):
                rest += data
            self.assertEqual(hashlib.sha256(rest).digest(), hashlib.sha256(frames + b"goodbye").digest())
            record = aggregator.wait_record(target="/exec", reason="ok")
            self.assertEqual(record["request_bytes"], len(frames))
            self.assertEqual(record["response_bytes"], len(frames) + 7)

    def test_a_silent_tunnel_ends_at_its_idle_timeout(self):
        with Aggregator("--tunnel-idle-timeout", "300ms", delegate=self.delegate.url, plugins=None) as aggregator:
            _, websocket = self.open_websocket(aggregator)
            with self.assertRaises(EOFError):
                websocket.receive()
            aggregator.wait_record(target="/api/live/ws", status=101, reason="tunnel_idle_timeout")
