"""The Prometheus source without a server: edges, odd answers, authentication, selectors."""

from __future__ import annotations

import json
import math
import re
import ssl
import subprocess
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import httpx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ragprof.sources import prometheus_matrix
from ragprof.sources.http import Client, Connection, Garbled, TooMuch, connection
from ragprof.sources.prometheus import connect
from ragprof.sources.prometheus_api import Api, edges
from ragprof.sources.prometheus_selectors import parse
from ragprof.sources.prometheus_series import Metadata, tables
from ragprof.sources.settings import ConfigError, Settings
from ragprof.sources.source import SourceError, Window

Answer = Callable[[httpx.Request], httpx.Response]


def client(answer: Answer, **options: Any) -> Client:
    to = Connection("http://prometheus.test", **options)
    return Client(
        "prometheus", to, transport=httpx.MockTransport(answer), wait=lambda seconds: None
    )


def matrix(*series: tuple[dict[str, str], list[tuple[float, str]]], **more: Any) -> bytes:
    result = [
        {"metric": labels, "values": [[at, v] for at, v in points]} for labels, points in series
    ]
    data = {"resultType": "matrix", "result": result}
    return json.dumps({"status": "success", "data": data, **more}, separators=(",", ":")).encode()


def ranges(times: list[int], closed: bool) -> Answer:
    """A server with one series, whose ranges are closed (2.x) or open at the left (3.x)."""

    def answer(request: httpx.Request) -> httpx.Response:
        form = {name: values[0] for name, values in parse_qs(request.content.decode()).items()}
        length = int(re.search(r"\[(\d+)ms\]", form["query"])[1])
        last = round(float(form["time"]) * 1000)
        first = last - length
        inside = [at for at in times if (first <= at if closed else first < at) and at <= last]
        points = [(at / 1000, str(at)) for at in inside]
        return httpx.Response(
            200, content=matrix(({"__name__": "m"}, points)) if points else matrix()
        )

    return answer


@settings(max_examples=60, deadline=None)
@given(
    times=st.sets(st.integers(0, 2000), max_size=60),
    start=st.integers(0, 2_000_000_000),
    length=st.integers(1, 2_000_000_000),
    cut=st.integers(1_000_000, 900_000_000),
    closed=st.booleans(),
)
def test_windows_cut_anyhow_give_each_point_once_with_both_conventions(
    times: set[int], start: int, length: int, cut: int, closed: bool
) -> None:
    base = 1_700_000_000_000
    stored = sorted(base + at for at in times)
    window = Window(base * 1_000_000 + start, base * 1_000_000 + start + length)
    api = Api(client(ranges(stored, closed)))
    found: list[int] = []
    for part in window.cut(cut):
        first, last = edges(part)
        if first <= last:
            for each, _, _ in api.stored(parse("m"), first, last):
                found += each.times.tolist()
    wanted = [at for at in stored if window.start <= at * 1_000_000 < window.end]
    assert found == wanted


@given(
    st.lists(
        st.tuples(
            st.text(max_size=12),
            st.lists(
                st.tuples(st.integers(0, 10**13), st.floats(allow_nan=False, allow_infinity=False)),
                max_size=5,
            ),
        ),
        max_size=5,
    )
)
def test_the_parser_reads_what_json_reads(
    series: list[tuple[str, list[tuple[int, float]]]],
) -> None:
    body = matrix(
        *(
            ({"a": label, '"values': "[["}, [(at / 1000, repr(v)) for at, v in points])
            for label, points in series
            if points
        )
    )
    found = prometheus_matrix.parse(body)
    wanted = [each for each in series if each[1]]
    assert [labels["a"] for labels in found.labels] == [label for label, _ in wanted]
    for rows, (_, points) in zip(found.slices(), wanted, strict=True):
        assert found.times[rows].tolist() == [at for at, _ in points]
        assert found.values[rows].tolist() == [value for _, value in points]


def test_numbers_that_are_none_and_infinite_survive() -> None:
    texts = ["NaN", "+Inf", "-Inf", "1e+06", "0"]
    found = prometheus_matrix.parse(matrix(({}, [(n, text) for n, text in enumerate(texts)])))
    assert math.isnan(found.values[0])
    assert found.values[1:].tolist() == [math.inf, -math.inf, 1e6, 0.0]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>",
        b"[]",
        b'{"status":"error","error":"x"}',
        b'{"status":"success","data":{"resultType":"vector","result":[]}}',
        matrix(({"a": "b"}, [(1, "x")])),
        matrix(({"a": "b"}, [(1, "1")])).replace(b'[1,"1"]', b'[1,"1",2]'),
        matrix(({"a": "b"}, [(1, "1")])).replace(b'[1,"1"]', b"[]"),
        matrix(({"a": "b"}, [(1, "1")])).replace(b'[1,"1"]', b'["NaN","1"]'),
        *(matrix(({"a": "b"}, [(1, "1"), (2, "2")]))[:cut] for cut in (20, 60, 95, 105)),
    ],
)
def test_anything_else_is_garbage_and_not_an_empty_answer(body: bytes) -> None:
    with pytest.raises(Garbled):
        prometheus_matrix.parse(body)


def test_buckets_that_come_and_go_keep_their_counts() -> None:
    def bucket(le: str) -> dict[str, str]:
        return {"__name__": "h_bucket", "le": le}

    found = prometheus_matrix.parse(
        matrix(
            (bucket("1"), [(1, "1"), (2, "2")]),
            (bucket("2"), [(2, "5")]),
            (bucket("+Inf"), [(1, "4"), (2, "9")]),
            ({"__name__": "h_sum"}, [(1, "10"), (2, "20")]),
        )
    )
    _, rows = tables(found, [], Metadata(), lambda labels: "")
    first, second = rows.to_pylist()
    assert first["histogram"] == {
        "count": 4.0, "sum": 10.0, "bounds": [1.0, math.inf], "counts": [1.0, 3.0]
    }  # fmt: skip
    assert second["histogram"]["bounds"] == [1.0, 2.0, math.inf]
    assert second["histogram"]["counts"] == [2.0, 3.0, 4.0]


def test_an_exemplar_without_a_point_is_kept_and_has_no_value() -> None:
    exemplar = {"time": 5_000_000, "value": 0.25, "trace_id": "a" * 32, "span_id": "b" * 16}
    series, rows = tables(
        prometheus_matrix.parse(matrix()),
        [({"__name__": "x_total"}, [exemplar])],
        Metadata({"x": ("counter", "")}),
        lambda labels: "",
    )
    assert series.column("type").to_pylist() == ["counter"]
    [row] = rows.to_pylist()
    assert row["value"] is None
    assert row["exemplars"][0]["trace_id"] == "a" * 32


# Authentication


def settings_of(**fields: Any) -> Settings:
    return Settings("prometheus", {"url": "http://prometheus.test", **fields}, "ragprof.toml")


@pytest.mark.parametrize(
    ("fields", "header", "wanted"),
    [
        ({"token": {"env": "RP_TEST_SECRET"}}, "Authorization", "Bearer s3cret"),
        (
            {"user": "me", "password": {"env": "RP_TEST_SECRET"}},
            "Authorization",
            "Basic bWU6czNjcmV0",
        ),
        ({"tenant": "team-a"}, "X-Scope-OrgID", "team-a"),
        ({"headers": {"X-Own": "1"}}, "X-Own", "1"),
        ({"headers": {"X-Api-Key": {"env": "RP_TEST_SECRET"}}}, "X-Api-Key", "s3cret"),
    ],
)
def test_who_we_are_is_sent_and_never_shown(
    fields: dict[str, Any], header: str, wanted: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RP_TEST_SECRET", "s3cret")
    seen: list[httpx.Headers] = []

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append(request.headers)
        return httpx.Response(401, text="who are you")

    to = connection(settings_of(**fields))
    asked = Client("prometheus", to, transport=httpx.MockTransport(answer))
    with pytest.raises(SourceError, match="token, or user and password") as error:
        asked.json("GET", "/api/v1/status/buildinfo")
    assert seen[0][header] == wanted
    assert len(seen) == 1  # no other try changes a 401
    assert "s3cret" not in str(error.value) + repr(to) + repr(connect(settings_of(**fields)))


def test_a_secret_from_a_file(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("s3cret\n")
    to = connection(settings_of(token={"file": str(tmp_path / "token")}))
    assert to.token is not None
    assert to.token.reveal() == "s3cret"


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"token": "s3cret"}, r"ragprof\.toml\.token holds a secret"),
        ({"headers": {"Authorization": "Bearer s3cret"}}, r"headers\.Authorization holds a secret"),
        ({"url": "http://me:s3cret@prometheus.test"}, r"url holds a user or password"),
        ({"url": "prometheus:9090"}, r"url must be an address"),
        ({"user": "me"}, r"password is missing"),
        ({"retries": -1}, r"retries must be above 0"),
        ({"match": ["{"]}, r"is not a selector"),
        ({"match": ['{job=~".*"}']}, r"selects everything"),
    ],
)
def test_a_wrong_field_is_named_and_its_value_is_not_shown(
    fields: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message) as error:
        connect(settings_of(**fields))
    assert "s3cret" not in str(error.value)


def test_a_secret_that_is_not_there_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RP_TEST_SECRET", raising=False)
    one = connect(settings_of(token={"env": "RP_TEST_SECRET"}))
    with pytest.raises(ConfigError, match="env RP_TEST_SECRET is empty"):
        one.api.version()


def test_a_client_certificate_is_shown_to_the_server(tmp_path: Path) -> None:
    def openssl(*words: str) -> None:
        subprocess.run(["openssl", *words], cwd=tmp_path, check=True, capture_output=True)

    for name in ("server", "client"):
        openssl(
            *("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-keyout"),
            *(f"{name}.key", "-out", f"{name}.pem", "-subj", f"/CN={name}"),
            *("-addext", "subjectAltName=IP:127.0.0.1"),
        )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "server.pem", tmp_path / "server.key")
    context.load_verify_locations(tmp_path / "client.pem")
    context.verify_mode = ssl.CERT_REQUIRED

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *args: Any) -> None:
            pass

        def do_GET(self) -> None:
            body = b'{"status":"success","data":{"version":"9"}}'
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    server = HTTPServer(("127.0.0.1", 0), Handler)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        url = f"https://127.0.0.1:{server.server_address[1]}"
        files = {"ca": "server.pem", "cert": "client.pem", "key": "client.key"}
        fields = {name: str(tmp_path / file) for name, file in files.items()}
        one = connect(settings_of(url=url, retries=1, **fields))
        assert one.api.version() == "9"
        one.close()
        unknown = connect(settings_of(url=url, retries=0, ca=fields["ca"]))
        with pytest.raises(SourceError):
            unknown.api.version()
        unknown.close()
        untrusted = connect(settings_of(url=url, retries=5))
        with pytest.raises(SourceError, match="give its CA as ca"):
            untrusted.api.version()
        untrusted.close()
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


# Bounded retries


def test_waits_grow_and_retry_after_is_heeded() -> None:
    waits: list[float] = []
    answers = iter([503, 503, 503, 429, 200])

    def answer(request: httpx.Request) -> httpx.Response:
        status = next(answers)
        return httpx.Response(
            status, headers={"Retry-After": "7"} if status == 429 else {}, text="{}"
        )

    one = Client(
        "prometheus",
        Connection("http://prometheus.test", retries=4),
        transport=httpx.MockTransport(answer),
        wait=waits.append,
    )
    assert one.json("GET", "/") == {}
    assert one.repeated == 4
    assert waits[3] == 7
    assert 0.125 <= waits[0] <= 0.375
    assert 0.5 <= waits[2] <= 1.5


def test_an_answer_above_the_limit_is_not_read_to_its_end() -> None:
    one = client(lambda request: httpx.Response(200, content=b"x" * 5000))
    with pytest.raises(TooMuch, match="more than 1000 bytes"):
        one.call("GET", "/", bytes, largest=1000)


def test_a_redirect_is_not_followed() -> None:
    one = client(lambda request: httpx.Response(302, headers={"Location": "https://u:p@other/x?y"}))
    with pytest.raises(SourceError, match="points to https://other/x: give that address"):
        one.json("GET", "/")


def test_warnings_are_kept_for_the_manifest() -> None:
    api = Api(client(lambda request: httpx.Response(200, content=matrix(warnings=["store down"]))))
    api.matrix("/api/v1/query", {"query": "up[1m]"})
    assert dict(api.warnings) == {"store down": 1}


# Selectors


@pytest.mark.parametrize(
    ("text", "labels", "wanted"),
    [
        ("up", {"__name__": "up"}, True),
        ("up", {"__name__": "upper"}, False),
        ('{job=~"rag-.*", env!="dev"}', {"job": "rag-api"}, True),
        ('{job=~"rag-.*", env!="dev"}', {"job": "rag-api", "env": "dev"}, False),
        ('{job=~"rag"}', {"job": "rag-api"}, False),
        ("up{path='a\\'b',}", {"__name__": "up", "path": "a'b"}, True),
        ('{"http.path"="x"}', {"http.path": "x"}, True),
        ('{job!~"a|b",x="1"}', {"job": "c", "x": "1"}, True),
    ],
)
def test_selectors_select(text: str, labels: dict[str, str], wanted: bool) -> None:
    selector = parse(text)
    assert selector.matches(labels) == wanted
    assert parse(str(selector)).matchers == selector.matchers


def test_columns_are_of_whole_milliseconds() -> None:
    found = prometheus_matrix.parse(matrix(({}, [(1_795_533_241.123, "1"), (1e9 + 0.999, "2")])))
    assert found.times.dtype == np.int64
    assert found.times.tolist() == [1_795_533_241_123, 1_000_000_000_999]
