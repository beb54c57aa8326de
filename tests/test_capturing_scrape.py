"""Metrics pages: Prometheus text, OpenMetrics, and what is wrong with them."""

from __future__ import annotations

import gzip
import http.server
import itertools
import math
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Summary
from prometheus_client.exposition import generate_latest as as_text
from prometheus_client.openmetrics.exposition import CONTENT_TYPE_LATEST
from prometheus_client.openmetrics.exposition import generate_latest as as_openmetrics

from ragprof import recording
from ragprof.capturing.scrape import Scraper, checked_url
from ragprof.errors import RagprofError
from ragprof.journal import Journal
from ragprof.sources import exposition
from ragprof.sources.series import SeriesDictionary

NOW = 1_700_000_000_000_000_000
TEXT = "text/plain; version=0.0.4"


def by_name(text: str, content_type: str) -> dict[str, list[tuple[dict[str, str], dict[str, Any]]]]:
    found: dict[str, list[tuple[dict[str, str], dict[str, Any]]]] = {}
    for series, point in exposition.points(text, content_type, NOW, {"service": "rag"}):
        found.setdefault(series.name, []).append((dict(series.labels), {**point, "is": series}))
    return found


@given(st.lists(st.floats(0, 20), max_size=30), st.booleans())
def test_histograms_fold_into_one_series_with_counts_per_bucket(
    values: list[float], openmetrics: bool
) -> None:
    registry = CollectorRegistry()
    histogram = Histogram("h_seconds", "h", ["op"], buckets=(1, 5, 10), registry=registry)
    for value in values:
        histogram.labels("x").observe(value)
    page = (as_openmetrics if openmetrics else as_text)(registry).decode()
    found = by_name(page, CONTENT_TYPE_LATEST if openmetrics else TEXT)
    if not values:
        assert found == {}
        return
    ((labels, point),) = found["h_seconds"]
    assert labels == {"op": "x", "service": "rag"}
    assert point["is"].type == "histogram"
    assert point["is"].temporality == "cumulative"
    buckets = point["histogram"]
    assert buckets["bounds"] == [1, 5, 10, math.inf]
    edges = [-1.0, *buckets["bounds"]]
    expected = [
        sum(low < value <= high for value in values) for low, high in itertools.pairwise(edges)
    ]
    assert buckets["counts"] == expected
    assert buckets["count"] == len(values)
    assert point["value"] == pytest.approx(sum(values))


def test_counters_gauges_and_summaries() -> None:
    registry = CollectorRegistry()
    Counter("hits", "h", registry=registry).inc(3)
    Gauge("depth", "d", registry=registry).set(math.nan)
    Summary("wait", "w", registry=registry).observe(2)
    for page, content_type in (
        (as_text(registry), TEXT),
        (as_openmetrics(registry), CONTENT_TYPE_LATEST),
    ):
        found = by_name(page.decode(), content_type)
        assert set(found) == {"hits_total", "depth", "wait"}
        assert found["hits_total"][0][1]["value"] == 3
        assert found["hits_total"][0][1]["is"].type == "counter"
        assert math.isnan(found["depth"][0][1]["value"])
        assert found["wait"][0][1]["histogram"]["count"] == 1


def test_exemplars_and_timestamps_are_kept() -> None:
    page = (
        "# TYPE h histogram\n"
        'h_bucket{le="1.0"} 1 1700000005.5 # {trace_id="ABC",span_id="d"} 0.5 1700000001.25\n'
        'h_bucket{le="+Inf"} 1 1700000005.5\nh_count 1 1700000005.5\n'
        "h_sum 0.5 1700000005.5\n# EOF\n"
    )
    point = by_name(page, CONTENT_TYPE_LATEST)["h"][0][1]
    assert point["time"] == 1_700_000_005_500_000_000
    assert point["exemplars"] == [
        {"time": 1_700_000_001_250_000_000, "value": 0.5, "trace_id": "abc", "span_id": "d"}
    ]


@pytest.mark.parametrize(
    ("page", "content_type"),
    [
        ("a{ 1", TEXT),
        ("a one", TEXT),
        ("# TYPE a counter\na_total 1\n", CONTENT_TYPE_LATEST),  # no EOF
        ("<html>", CONTENT_TYPE_LATEST),
    ],
)
def test_wrong_pages_say_so(page: str, content_type: str) -> None:
    with pytest.raises(exposition.BadExposition):
        exposition.points(page, content_type, NOW, {})


@given(st.text(max_size=100), st.sampled_from([TEXT, CONTENT_TYPE_LATEST]))
def test_any_page_is_read_or_wrong(page: str, content_type: str) -> None:
    try:
        found = exposition.points(page, content_type, NOW, {})
    except exposition.BadExposition:
        return
    assert all(math.isnan(p["value"]) or isinstance(p["value"], float) for _, p in found)


@pytest.mark.parametrize(
    "url", ["file:///etc/passwd", "127.0.0.1:8000/metrics", "http://", "ftp://x/"]
)
def test_only_web_addresses_are_scraped(url: str) -> None:
    with pytest.raises(RagprofError):
        checked_url(url)


class Pages(http.server.BaseHTTPRequestHandler):
    """Answers with what the test put into `answer`."""

    answer: tuple[int, bytes, dict[str, str]] = (200, b"", {})
    accepted = ""

    def do_GET(self) -> None:
        type(self).accepted = self.headers["Accept"]
        status, body, headers = self.answer
        self.send_response(status)
        for key, value in headers.items():
            self.send_header(key, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: object) -> None:
        """Quiet."""


@pytest.fixture
def pages() -> Iterator[tuple[type[Pages], str]]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Pages)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield Pages, f"http://127.0.0.1:{server.server_port}/metrics"
    server.shutdown()
    thread.join()
    server.server_close()


def scraped(out: Path, url: str, seconds: float) -> tuple[recording.Recording, Scraper, list[Any]]:
    journal = Journal(out)
    series = SeriesDictionary(lambda rows: journal.append("series", rows))
    starts: list[Any] = []
    scraper = Scraper(
        url,
        journal,
        series,
        service=lambda: "rag",
        process_started=lambda *seen: starts.append(seen),
    )
    time.sleep(seconds)
    scraper.stop()
    journal.close()
    return recording.open(out), scraper, starts


def values(rec: recording.Recording, name: str) -> list[float]:
    series, metrics = rec.to_pandas("series"), rec.to_pandas("metrics")
    ids = series[series.name == name].series_id
    return metrics[metrics.series_id.isin(ids)].value.tolist()


def test_a_repeated_exemplar_is_written_once(
    pages: tuple[type[Pages], str], tmp_path: Path
) -> None:
    handler, url = pages
    page = (
        b"# TYPE h histogram\n"
        b'h_bucket{le="+Inf"} 1 # {trace_id="abc"} 0.5 1700000001.25\nh_count 1\nh_sum 0.5\n'
        b"# TYPE process_start_time_seconds gauge\nprocess_start_time_seconds 17\n# EOF\n"
    )
    handler.answer = (
        200,
        gzip.compress(page),
        {"Content-Type": CONTENT_TYPE_LATEST, "Content-Encoding": "gzip"},
    )
    rec, scraper, starts = scraped(tmp_path / "r.ragprof", url, 1.5)
    assert "openmetrics" in handler.accepted
    assert scraper.scraped == 2
    assert values(rec, "up") == [1.0, 1.0]
    assert values(rec, "h") == [0.5, 0.5]
    exemplars = [each for each in rec.to_pandas("metrics").exemplars if each is not None]
    assert len(exemplars) == 1
    assert starts == [("rag", 17.0)] * 2


@pytest.mark.parametrize(
    "answer",
    [
        (500, b"", {}),
        (200, b"a{ 1", {"Content-Type": TEXT}),
        (200, b"not gzip", {"Content-Encoding": "gzip"}),
    ],
)
def test_failed_scrapes_are_counted_and_leave_a_gap(
    pages: tuple[type[Pages], str], tmp_path: Path, answer: tuple[int, bytes, dict[str, str]]
) -> None:
    handler, url = pages
    handler.answer = answer
    rec, scraper, _ = scraped(tmp_path / "r.ragprof", url, 0.3)
    assert (scraper.scraped, scraper.failed) == (0, 1)
    assert scraper.facts()["last_error"]
    assert values(rec, "up") == [0.0]


def test_a_page_that_is_too_large_fails(
    pages: tuple[type[Pages], str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ragprof.capturing.scrape.MAX_PAGE", 1000)
    handler, url = pages
    for body, headers in (
        (b"a 1\n" * 300, {}),
        (gzip.compress(b"a 1\n" * 300), {"Content-Encoding": "gzip"}),
    ):
        handler.answer = (200, body, {"Content-Type": TEXT, **headers})
        out = tmp_path / f"{len(body)}.ragprof"
        rec, scraper, _ = scraped(out, url, 0.3)
        assert scraper.failed == 1
        assert values(rec, "a") == []


def test_nobody_listens(tmp_path: Path) -> None:
    rec, scraper, _ = scraped(tmp_path / "r.ragprof", "http://127.0.0.1:9/metrics", 0.3)
    assert scraper.failed == 1
    assert values(rec, "up") == [0.0]
