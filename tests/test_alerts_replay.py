"""A replay says what a live Prometheus did, and does the same on a Recording."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from backends import servers

from ragprof.capturing.scrape import write_points
from ragprof.cli import main
from ragprof.journal import Journal
from ragprof.monitoring.promql import quoted
from ragprof.slo import replay, rulefile
from ragprof.slo.prometheus import Prometheus
from ragprof.sources import exposition
from ragprof.sources.series import Series, SeriesDictionary, labels

EVERY = 1.0  # seconds: scrapes and evaluations
SECONDS = 26.0
RULES = {
    "groups": [
        {
            "name": "test",
            "interval": "1s",
            "rules": [
                {"alert": "Gauge", "expr": "load > 0.5", "for": "3s", "labels": {"severity": "x"}},
                {"alert": "AtOnce", "expr": "load > 0.5", "keep_firing_for": "4s"},
                {"alert": "Share", "expr": "rate(bad_total[5s]) / rate(all_total[5s]) > 0.2"},
                {"alert": "Never", "expr": "load > 99"},
                {"record": "test:evaluated", "expr": "time()"},
            ],
        }
    ]
}


class Target(HTTPServer):
    """A metrics page whose values follow the time since it began."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Page)
        self.began = time.time()
        self.url = f"http://127.0.0.1:{self.server_address[1]}"

    def page(self) -> str:
        at = time.time() - self.began
        # Up twice: once long enough for `for`, once not.
        high = {"a": 6 <= at < 14 or 19 <= at < 20.5, "b": 9 <= at < 12}
        lines = [f'load{{part="{part}"}} {1.0 if on else 0.0}' for part, on in high.items()]
        all_, bad = 10 * at, 5 * min(max(at - 8, 0), 6)
        return "\n".join([*lines, f"all_total {all_:.3f}", f"bad_total {bad:.3f}", ""])


class _Page(BaseHTTPRequestHandler):
    server: Target

    def do_GET(self) -> None:
        body = self.server.page().encode()
        self.send_response(200)
        self.send_header("Content-Type", "text/plain; version=0.0.4")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Nothing."""


@contextmanager
def target() -> Iterator[Target]:
    server = Target()
    thread = threading.Thread(target=server.serve_forever, args=(0.1,), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Prometheus, float, float]]:
    """A Prometheus that scraped and alerted live; with the window."""
    folder = tmp_path_factory.mktemp("live")
    (folder / "rules.yml").write_text(yaml.safe_dump(RULES))
    with target() as page:
        config = {
            "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
            "rule_files": [str(folder / "rules.yml")],
            "scrape_configs": [
                {
                    "job_name": "page",
                    "static_configs": [{"targets": [page.url.removeprefix("http://")]}],
                }
            ],
        }
        with servers.start_prometheus(folder, yaml.safe_dump(config)) as server:
            page.began = time.time()
            time.sleep(SECONDS)
            with Prometheus(server.url) as prometheus:
                yield prometheus, page.began, page.began + SECONDS


def evaluated(prometheus: Prometheus, since: float, until: float) -> np.ndarray:
    """When the live server evaluated the group: it records that."""
    [(_, times, _)] = prometheus.stored("test:evaluated", since, until)
    return times


def fired_live(
    prometheus: Prometheus, name: str, since: float, until: float
) -> dict[str, set[float]]:
    """The evaluations at which the live server had an alert firing, by `part`."""
    selector = f'ALERTS{{alertname={quoted(name)},alertstate="firing"}}'
    return {
        labels_.get("part", ""): set(times.tolist())
        for labels_, times, _ in prometheus.stored(selector, since, until)
    }


@pytest.mark.parametrize("rule", rulefile.of_content(RULES, "the test"), ids=lambda one: one.name)
def test_replay_equals_what_a_live_prometheus_fired(
    live: tuple[Prometheus, float, float], rule: rulefile.AlertRule
) -> None:
    prometheus, since, until = live
    steps = evaluated(prometheus, since, until)
    # A loaded machine leaves evaluations out: the live server cannot know more than its steps.
    step = max(EVERY, float(np.diff(steps).max())) + 0.1
    expected = fired_live(prometheus, rule.name, since, until)
    found = replay.replay(prometheus, rule, since, until)
    made: dict[str, list[tuple[float, float]]] = {}
    for each in found.fired:
        assert each.fired is not None
        over = until if each.ended is None else each.ended
        made.setdefault(each.labels.get("part", ""), []).append((each.fired, over))
    assert set(made) == set(expected)
    assert bool(expected) == (rule.name != "Never")
    for part, firing in expected.items():
        for at in steps:
            live_says = bool(at in firing)
            near = {_fires(made[part], at + shift) for shift in (-step, 0.0, step)}
            assert live_says in near, (part, at, made[part], sorted(firing))
        edges = [edge for span in made[part] for edge in span]
        differ = [at for at in steps if (at in firing) != _fires(made[part], at)]
        assert all(min(abs(at - edge) for edge in edges) <= step for at in differ)


def _fires(spans: list[tuple[float, float]], at: float) -> bool:
    return any(begin - 1e-6 <= at < end - 1e-6 for begin, end in spans)


def recording_of_the_page(folder: Path) -> Path:
    """The same page as a Recording: scraped every second, with a time that a test can choose."""
    began = 1_700_000_000
    journal = Journal(folder)
    series = SeriesDictionary(lambda rows: journal.append("series", rows))
    page = Target()
    page.server_close()
    common = {"service": "page", "instance": "127.0.0.1:1"}
    for at in range(int(SECONDS)):
        if at == 16:
            continue  # a scrape that failed: a gap
        page.began = time.time() - at
        now = (began + at) * 1_000_000_000
        points = exposition.points(page.page(), "text/plain", now, common)
        points.append((Series("up", labels(common), "gauge"), {"time": now, "value": 1.0}))
        write_points(journal, series, points)
    journal.close()
    return folder


def test_replay_on_a_recording_far_older_than_any_retention(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recording = recording_of_the_page(tmp_path / "page.ragprof")
    (tmp_path / "rules.yml").write_text(yaml.safe_dump(RULES))
    (tmp_path / "incidents.toml").write_text(
        "[[incident]]\nstart = 2023-11-14T22:13:24Z\nend = 2023-11-14T22:13:36Z\n"
    )
    arguments = ["alerts", "replay", str(tmp_path / "rules.yml"), "--recording", str(recording)]
    more = ["--incidents", str(tmp_path / "incidents.toml"), "--threshold", "2", "--json"]
    assert main([*arguments, *more]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert any("staleness is inferred" in note for note in answer["notes"])
    alerts: dict[str, Any] = {each["alert"]: each for each in answer["alerts"]}
    gauge = [each for each in alerts["Gauge"]["episodes"] if each["labels"]["part"] == "a"]
    assert [each["fired"] for each in gauge] == ["2023-11-14T22:13:29.000+00:00", None]
    assert gauge[0]["active"] == "2023-11-14T22:13:26.000+00:00"
    assert gauge[0]["ended"] == "2023-11-14T22:13:34.000+00:00"
    assert alerts["Gauge"]["precision"] == 1.0
    assert alerts["Gauge"]["recall"] == 1.0
    assert alerts["Gauge"]["median_delay_s"] == 5.0
    assert alerts["Gauge"]["sweep"][0]["fired"] == 0
    assert alerts["Never"]["recall"] == 0.0
    assert main(arguments) == 0
    assert "Gauge: fired" in capsys.readouterr().out


def test_what_cannot_be_replayed_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], live: tuple[Prometheus, float, float]
) -> None:
    (tmp_path / "rules.yml").write_text(yaml.safe_dump(RULES))
    base = ["alerts", "replay", str(tmp_path / "rules.yml")]
    url = live[0].url
    for words, said in (
        ([], "either --recording REC or --prometheus URL"),
        (["--prometheus", "ftp://x"], "not the address"),
        (["--prometheus", url, "--since", "soon"], "--since"),
        (["--prometheus", url, "--since", "2000-01-01T00:00:00Z", "--until", "9000d"], "no points"),
        (["--prometheus", url, "--alert", "None"], "there is no alert 'None'"),
        (["--recording", str(tmp_path / "none")], "does not exist"),
    ):
        assert main([*base, *words]) == 1
        assert said in capsys.readouterr().err


def test_history_of_a_server_begins_where_its_points_do(
    live: tuple[Prometheus, float, float], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "rules.yml").write_text(yaml.safe_dump(RULES))
    words = ["--prometheus", live[0].url, "--since", "40d", "--json"]
    assert main(["alerts", "replay", str(tmp_path / "rules.yml"), *words]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert any("keeps 15 days" in note for note in answer["notes"])
    assert any("the first points are of" in note for note in answer["notes"])
