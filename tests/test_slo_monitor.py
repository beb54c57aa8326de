"""Budgets from a Recording and from a real Prometheus on the same data; the dashboard's queries."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from catalogue_pages import BEGAN, record, requests, whole_catalogue

from ragprof import recording as recordings
from ragprof.cli import main
from ragprof.errors import RagprofError
from ragprof.monitoring import dashboards
from ragprof.monitoring.catalogue import SAMPLES
from ragprof.monitoring.catalogue_alerts import ALERTS
from ragprof.reports import runner
from ragprof.slo import ErrorBudgetMonitor, backfill, status
from ragprof.slo.prometheus import Prometheus

KEYS = {
    "target",
    "actual",
    "budget_total_minutes",
    "budget_used_minutes",
    "budget_remaining_minutes",
    "budget_remaining_percentage",
}


def pages() -> Iterator[tuple[float, str]]:
    """Ten minutes: 10 requests per 10 s; errors begin at 300 s, and a restart at 450 s."""
    good = bad = 0
    for at in range(0, 601, 10):
        if at == 450:
            good = bad = 0  # the process began anew
        if at:
            good += 9 if at > 300 else 10
            bad += 1 if at > 300 else 0
        yield at, requests(good, bad, slow=bad)


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return record(tmp_path_factory.mktemp("slo") / "slo.ragprof", pages())


DAYS = 600 / 86_400


def test_a_recording_gives_the_budget_by_events(recording: Path) -> None:
    monitor = ErrorBudgetMonitor(recordings.open(recording))
    found = monitor.calculate_error_budget("api_availability", DAYS)
    assert set(found) >= {"slo", *KEYS}
    # The first error is counted although its series begins with it; after the restart the
    # counters count from zero.
    assert found["budget_used_events"] == pytest.approx(30, abs=1e-6)
    assert found["events"] == pytest.approx(600, abs=1e-6)
    assert found["actual"] == pytest.approx(0.95)
    assert found["budget_remaining_percentage"] == pytest.approx(100 - 100 * 0.05 / 0.001)
    assert found["coverage"] == pytest.approx(1.0)
    assert found["burn_rates"]["5m"] == pytest.approx(0.1 / 0.001, rel=0.01)
    latency = monitor.calculate_error_budget("api_latency", DAYS)
    assert latency["budget_used_events"] == pytest.approx(30, abs=1e-6)
    whole = monitor.calculate_error_budget("api_availability")
    assert whole["window_days"] == 30
    assert whole["coverage"] < 0.001
    assert whole["budget_total_minutes"] == pytest.approx(43.2)


def test_a_prometheus_gives_the_same_budget_as_the_recording(recording: Path) -> None:
    opened = recordings.open(recording)
    expected = ErrorBudgetMonitor(opened).calculate_error_budget("api_availability", DAYS)
    with backfill.prometheus_on(opened, SAMPLES) as filled:
        monitor = ErrorBudgetMonitor(filled.url, at=BEGAN + 600.0)
        found = monitor.calculate_error_budget("api_availability", DAYS)
        for key in (*KEYS, "events", "budget_used_events"):
            assert found[key] == pytest.approx(expected[key], rel=1e-3), key
        assert found["coverage"] == pytest.approx(1.0, abs=0.02)
        later = ErrorBudgetMonitor(filled.url, at=BEGAN + 90_000.0)
        nothing = later.calculate_error_budget("api_availability", DAYS)
        assert nothing["actual"] is None
        assert nothing["budget_remaining_percentage"] is None
        assert "no data" in nothing["reason"]


def test_a_mean_has_a_status_and_no_budget(tmp_path: Path) -> None:
    name = "rag_search_relevance_score"

    def page(count: int, total: float) -> str:
        own = 'strategy="hybrid"'
        return (
            f'# TYPE {name} histogram\n{name}_bucket{{{own},le="+Inf"}} {count}\n'
            f"{name}_sum{{{own}}} {total}\n{name}_count{{{own}}} {count}\n"
        )

    rows = [(0, page(0, 0)), (10, page(10, 9)), (20, page(20, 16))]
    monitor = ErrorBudgetMonitor(recordings.open(record(tmp_path / "mean.ragprof", rows)))
    found = monitor.mean("search_quality")
    assert found["actual"] == pytest.approx(0.8)
    assert found["met"] is False
    assert found["trend"] == pytest.approx(-0.2)
    with pytest.raises(RagprofError, match="no budget"):
        monitor.calculate_error_budget("search_quality")
    with pytest.raises(RagprofError, match="there is no objective 'x'"):
        monitor.calculate_error_budget("x")


def test_the_command_and_its_gate(recording: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["slo", "report", "--recording", str(recording), "--window-days", str(DAYS)]
    assert main(words) == 0
    said = capsys.readouterr().out
    assert "api_availability: target 99.9000%, 95.0000% good" in said
    assert "exhausted in 0 s" in said
    assert main([*words, "--gate", "--json"]) == 3
    answer = json.loads(capsys.readouterr().out)
    assert answer["exhausted"] == ["api_availability", "api_latency"] or answer["exhausted"] == [
        "api_availability"
    ]
    assert main(["slo", "report"]) == 1
    assert "either --recording REC or --prometheus URL" in capsys.readouterr().err


def test_worst_endpoints_and_burn_down(tmp_path: Path) -> None:
    def both(at: int) -> str:
        first = requests(at, at, "/bad")
        second = requests(at * 3, 0, "/fine")
        return first + "\n".join(
            line for line in second.splitlines() if not line.startswith("# TYPE")
        )

    folder = record(tmp_path / "two.ragprof", [(at, both(at)) for at in range(30)])
    found = status.read(folder, window_days=30 / 86_400)
    worst = found.worst_endpoints("api_availability")
    assert worst["endpoint"].tolist() == ["/bad", "/fine"]
    assert worst["bad_events"].iloc[0] == pytest.approx(29, abs=1e-6)
    assert worst["bad_share"].tolist() == pytest.approx([0.5, 0.0])
    line = found.burn_down("api_availability")
    assert line["remaining"].iloc[0] == pytest.approx(1, abs=1e-6)
    assert line["remaining"].iloc[-1] < 0


def test_every_panel_and_rule_answers_on_a_real_prometheus(tmp_path: Path) -> None:
    rows = [(at, whole_catalogue(at)) for at in range(0, 901, 15)]
    opened = recordings.open(record(tmp_path / "all.ragprof", rows))
    with backfill.prometheus_on(opened, SAMPLES) as filled, Prometheus(filled.url) as prometheus:
        for panel, query in dashboards.expressions():
            values = [value for _, value in prometheus.query(query, filled.until)]
            assert any(np.isfinite(value) for value in values), (panel, query)
        for alert in ALERTS:
            answer = prometheus.query(alert.query, filled.until)
            assert answer, alert.name
            assert {label for labels, _ in answer for label in labels} >= set(alert.by)


def test_the_notebook_runs_headless(recording: Path, tmp_path: Path) -> None:
    values = {"recording": recording, "window_days": DAYS}
    page = runner.run("slo_report", tmp_path / "out", values).read_text("utf-8")
    assert "The error budget of api_availability" in page
    for section in ("Budgets", "Burn-down", "Alerts that would have fired", "Worst endpoints"):
        assert section in page
    assert "/api/v1/ask" in page
    assert "Error budget of api_latency" in page
