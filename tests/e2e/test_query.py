"""Queries through the bundled plugin.

Goal: a POST of from, to and queries prints frames that a plugin process computed, by both paths, and every wrong
request gets a clear answer while right ones go on. Method: the real binary with the bundled plugin; answers read as a
client reads them.
"""

import json
import socket
import threading

import harness
from harness import (
    BASE,
    CONNECTIONS_QUERY_PATH,
    QUERY_PATH,
    UID,
    Aggregator,
    Client,
    TestCase,
    manifest,
    query,
    query_body,
)

ORPHAN_GROUP = "orphan.example"
BODY_MAX_BYTES = 64 << 10


class QueryTest(TestCase):
    @classmethod
    def setUpClass(cls):
        cls.aggregator = Aggregator(
            "--max-plugin-request-bytes",
            str(BODY_MAX_BYTES),
            unix_listen=True,
            services=(manifest(), manifest(group=ORPHAN_GROUP, version="v1", plugin="not-installed-datasource")),
        )
        cls.aggregator.start()
        cls.addClassCleanup(cls.aggregator.__exit__, None, None, None)

    def post(self, body, path=QUERY_PATH, headers=None):
        return self.aggregator.request("POST", path, body, headers)

    def tearDown(self):
        # Whatever the test sent, the next query is answered.
        self.assert_frames(self.aggregator.query())

    def test_frames_with_data_by_the_datasources_and_the_connections_path(self):
        for path in (QUERY_PATH, CONNECTIONS_QUERY_PATH):
            with self.subTest(path):
                answer = self.aggregator.query(query(seed=7), path=path)
                frames = self.assert_frames(answer)
                self.assertEqual([field["type"] for field in frames[0]["schema"]["fields"]][0], "time")
                self.assertIn("application/json", answer.header("content-type"))

    def test_the_example_that_tools_run_prints(self):
        with open(f"{harness.ROOT}/tools/examples/query.json", encoding="utf-8") as file:
            self.assert_frames(self.post(json.load(file), CONNECTIONS_QUERY_PATH))

    def test_both_answers_to_one_question_are_the_same_bytes(self):
        fixed = {"from": "1700000000000", "to": "1700003600000", "queries": [query(seed=11)]}
        self.assertEqual(self.post(fixed).body, self.post(fixed, CONNECTIONS_QUERY_PATH).body)

    def test_several_queries_are_answered_by_their_ref_ids(self):
        answer = self.aggregator.query(query("B"), query("A"), query("Z z"))
        self.assertEqual(set(answer.json()["results"]), {"A", "B", "Z z"})
        for ref_id in ("A", "B", "Z z"):
            self.assert_frames(answer, ref_id)

    def test_csv_comes_back_as_the_frame_that_it_describes(self):
        answer = self.aggregator.query(query(scenario="csv_content", csvContent="name,n\nä,1\nb,\n"))
        self.assertEqual(self.assert_frames(answer)[0]["data"]["values"], [["ä", "b"], [1, None]])

    def test_every_field_type_is_json_that_parses(self):
        frames = self.assert_frames(self.aggregator.query(query(scenario="table")))
        self.assertGreater(len(frames[0]["schema"]["fields"]), 10)

    def test_an_answer_of_many_rows_is_whole(self):
        frames = self.assert_frames(self.aggregator.query(query(scenario="rows", rows=50_000, columns=4)))
        self.assertEqual([len(column) for column in frames[0]["data"]["values"]], [50_000] * 4)

    def test_an_error_of_one_ref_id_leaves_the_others_alone(self):
        answer = self.aggregator.query(query("A"), query("B", "error", message="no such table", status=400))
        self.assert_frames(answer, "A")
        failed = answer.json()["results"]["B"]
        self.assertIn("no such table", failed["error"])
        self.assertEqual(failed["status"], 400)

    def test_an_arrow_reply_says_clearly_what_happened_for_its_ref_id(self):
        result = self.aggregator.query(query(scenario="arrow")).json()["results"]["A"]
        self.assertTrue("frames" in result or "error" in result)

    def test_an_error_of_the_whole_call_is_a_status(self):
        answer = self.aggregator.query(query(scenario="grpc_error", code=13, message="boom"))
        self.assert_status(answer, 500, "plugin_error")

    def test_a_chunked_body_is_read_like_one_with_a_length(self):
        body = json.dumps(query_body()).encode()
        self.assert_frames(
            self.post(iter([body[:10], body[10:50], body[50:]]), headers={"Transfer-Encoding": "chunked"})
        )

    def test_a_client_that_waits_for_100_continue_is_told_to_go_on(self):
        body = json.dumps(query_body()).encode()
        head = (
            f"POST {QUERY_PATH} HTTP/1.1\r\nHost: a\r\nContent-Length: {len(body)}\r\nExpect: 100-continue\r\n"
            "Connection: close\r\n\r\n"
        ).encode()
        with socket.create_connection(("127.0.0.1", self.aggregator.port), timeout=harness.PATIENCE) as client:
            client.sendall(head)
            interim = b""
            while b"\r\n\r\n" not in interim:
                interim += client.recv(4096)
            self.assertTrue(interim.startswith(b"HTTP/1.1 100"), interim)
            client.sendall(body)
            answer = b""
            while piece := client.recv(65536):
                answer += piece
        self.assertIn(b"HTTP/1.1 200", answer)
        self.assertIn(b'"frames"', answer)

    def test_queries_over_the_unix_socket(self):
        with Client(self.aggregator.unix_path) as client:
            for _ in range(3):
                self.assert_frames(client.request("POST", QUERY_PATH, query_body()))

    def test_many_queries_on_one_connection(self):
        with Client(self.aggregator.port) as client:
            for _ in range(200):
                self.assertEqual(client.request("POST", QUERY_PATH, query_body()).status, 200)

    def test_a_client_that_leaves_ends_its_call(self):
        # Goal: nobody works for a client that has gone. Method: a query that takes a minute, a client that leaves at
        # once; the record is there long before the minute is over.
        body = json.dumps(query_body(query(scenario="slow", delayMs=60_000)))
        marker = f"{QUERY_PATH}?leaves=1"
        request = f"POST {marker} HTTP/1.1\r\nHost: a\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode()
        with socket.create_connection(("127.0.0.1", self.aggregator.port), timeout=10) as client:
            client.sendall(request)
            self.assert_frames(self.aggregator.query())  # By now it is under way.
        self.aggregator.wait_record(target="leaves=1", status=499, reason=harness.REASON["client_closed"])

    def test_malformed_json_is_a_400_that_says_so(self):
        for body in (
            "",
            "{",
            "[]",
            "null",
            "7",
            '"text"',
            '{"queries": [}',
            '{"queries": [{"refId": "A\xff"}]}',
            "\0",
            "{" * 5000,
            '{"from":"now-1h","to":"now","queries":[{"refId":"A",]}',
            "[" * 100_0,
        ):
            with self.subTest(body[:60]):
                shaped = body[:1] in ("[", "n", "7", '"')  # Not an object, whatever follows.
                self.assert_status(self.post(body.encode("latin-1")), 400, "bad_query" if shaped else "bad_json")

    def test_json_of_the_wrong_shape_is_a_400_that_names_the_field(self):
        right = query()
        rows = [
            ({"from": 1, "to": "now", "queries": [right]}, "from"),
            ({"from": "now-1h", "to": [], "queries": [right]}, "to"),
            ({"from": "now-1h", "to": "now", "queries": {}}, "queries"),
            ({"from": "now-1h", "to": "now", "queries": ["A"]}, "queries"),
            ({"from": "now-1h", "to": "now", "queries": [{**right, "refId": 1}]}, "refId"),
            ({"from": "now-1h", "to": "now", "queries": [{**right, "maxDataPoints": "many"}]}, "maxDataPoints"),
            ({"from": "now-1h", "to": "now", "queries": [{**right, "intervalMs": "soon"}]}, "intervalMs"),
            ({"from": "now-1h", "to": "now", "queries": [{**right, "timeRange": "today"}]}, "timeRange"),
            ({"from": "now-1h", "to": "now", "queries": [{**right, "datasource": 5}]}, "datasource"),
        ]
        for body, field in rows:
            with self.subTest(field=field, body=json.dumps(body)[:100]):
                self.assertIn(field, self.assert_status(self.post(body), 400, "bad_query")["message"])

    def test_each_thing_that_a_query_can_get_wrong_has_its_own_word(self):
        right = query()
        other = {**query("B"), "datasource": {"type": harness.PLUGIN_ID, "uid": "other"}}
        without = {"refId": "A", "scenarioId": "random_walk"}
        deep = json.dumps(query_body({**right, "deep": None})).replace("null", "[" * 300 + "]" * 300)
        rows = [
            ({"from": "now-1h", "to": "now"}, "no_reference"),
            ({"from": "now-1h", "to": "now", "queries": []}, "no_reference"),
            (query_body(without), "no_reference"),
            (query_body(right, other), "mismatch"),
            (query_body(right, right), "duplicate"),
            ({"from": "yesterday-ish", "to": "now", "queries": [right]}, "bad_time"),
            ({"from": "now-1h", "to": "now-1parsec", "queries": [right]}, "bad_time"),
            (query_body(*(query(f"q{index}") for index in range(1001))), "too_many_queries"),
            (deep, "too_deep"),
        ]
        with Aggregator() as aggregator:  # Its limit on bodies is the default one.
            for number, (body, reason) in enumerate(rows):
                with self.subTest(reason, number=number):
                    target = f"{QUERY_PATH}?word={number}."
                    self.assert_status(aggregator.request("POST", target, body), 400, reason)
                    # Body, access record and metric say the same word.
                    aggregator.wait_record(target=f"word={number}.", status=400, reason=harness.REASON[reason])
                    counted = aggregator.metric("requests", code="400", reason=harness.REASON[reason], route="query")
                    self.assertGreaterEqual(counted, 1)

    def test_a_namespace_that_names_no_organisation_is_a_404(self):
        path = QUERY_PATH.replace("/default/", "/no-such-space/")
        self.assert_status(self.post(query_body(), path), 404, "no_namespace")

    def test_a_body_that_names_another_data_source_is_a_400(self):
        for datasource in ({"type": "prometheus", "uid": UID}, {"type": harness.PLUGIN_ID, "uid": "other"}):
            with self.subTest(datasource):
                self.assert_status(self.post(query_body({**query(), "datasource": datasource})), 400, "mismatch")

    def test_an_unknown_uid_is_a_404(self):
        body = query_body({**query(), "datasource": {"type": harness.PLUGIN_ID, "uid": "nobody"}})
        self.assert_status(self.post(body, f"{BASE}/datasources/nobody/query"), 404, "no_datasource")

    def test_a_plugin_that_is_not_installed_is_a_404(self):
        body = query_body({**query(), "datasource": {"type": "not-installed-datasource", "uid": "orphan"}})
        path = f"/apis/{ORPHAN_GROUP}/v1/namespaces/default/datasources/orphan/query"
        self.assert_status(self.post(body, path), 404, "no_plugin")

    def test_a_body_over_the_limit_is_a_413_whether_declared_or_not(self):
        body = json.dumps(query_body(query(padding="x" * BODY_MAX_BYTES))).encode()
        self.assert_status(self.post(body), 413, "body_too_large")
        pieces = (body[start : start + 9000] for start in range(0, len(body), 9000))
        try:
            answer = self.post(pieces, headers={"Transfer-Encoding": "chunked"})
        except (BrokenPipeError, ConnectionResetError):
            return  # Refused while it was still being sent: the client saw that, too.
        self.assert_status(answer, 413, "body_too_large")

    def test_a_body_just_below_the_limit_is_answered(self):
        size = len(json.dumps(query_body(query(padding=""))))
        self.assert_frames(self.aggregator.query(query(padding="x" * (BODY_MAX_BYTES - size))))

    def test_another_method_is_a_405_that_names_the_right_one(self):
        for method in ("GET", "PUT", "DELETE", "PATCH"):
            with self.subTest(method):
                answer = self.aggregator.request(method, QUERY_PATH)
                self.assert_status(answer, 405, "method")
                self.assertIn("POST", answer.header("allow", ""))

    def test_queries_at_once_from_many_clients_get_their_own_answers(self):
        answers = {}

        def ask(index):
            csv = f"n\n{index}\n"
            with Client(self.aggregator.port) as client:
                answers[index] = [
                    client.request("POST", QUERY_PATH, query_body(query(scenario="csv_content", csvContent=csv)))
                    for _ in range(20)
                ]

        threads = [threading.Thread(target=ask, args=(index,)) for index in range(16)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(harness.PATIENCE)
        self.assertEqual(len(answers), 16)
        for index, own in answers.items():
            for answer in own:
                self.assertEqual(self.assert_frames(answer)[0]["data"]["values"], [[index]])

    def test_a_plugin_that_takes_too_long_is_a_504(self):
        with Aggregator("--plugin-call-timeout", "300ms") as aggregator:
            self.assert_status(aggregator.query(query(scenario="slow", delayMs=60_000)), 504, "plugin_timeout")
            self.assert_frames(aggregator.query())
