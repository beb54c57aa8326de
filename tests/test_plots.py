"""Pictures and tables: what they say, that they escape, and that they survive odd input."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from chromium import started
from hypothesis import given
from hypothesis import strategies as st

from ragprof import plots
from ragprof.plots import Picture
from ragprof.plots.scales import log_ticks, ms_text, number_text, ticks, time_ticks

NASTY = "</text><script>alert(1)</script>&\"'"
ZERO = pd.Timestamp("2026-01-02T03:04:05Z")
MINUS = "\N{MINUS SIGN}"


def requests(count: int = 60) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "trace_id": [f"{index:032x}" for index in range(count)],
            "start": ZERO + pd.to_timedelta(np.arange(count) * 0.5, unit="s"),
            "duration_ms": [
                100.0 + index % 7 + (200 if index >= count / 2 else 0) for index in range(count)
            ],
            "group": ["slow" if index >= count / 2 else "baseline" for index in range(count)],
        }
    )


def stages() -> pd.DataFrame:
    frame = pd.DataFrame(
        {
            "stage": ["rerank", "retrieve", "embed", NASTY],
            "baseline_ms": [40.0, 20.0, 30.0, 10.0],
            "slow_ms": [240.0, 15.0, 30.1, 10.1],
        }
    )
    return frame.assign(added_ms=frame["slow_ms"] - frame["baseline_ms"])


def spans(count: int = 4) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "span_id": [f"s{index}" for index in range(count)],
            "depth": [min(index, 30) for index in range(count)],
            "service": "api",
            "name": [NASTY if index == 1 else f"operation {index}" for index in range(count)],
            "start_ms": [float(index) for index in range(count)],
            "duration_ms": [2.0 * count - index for index in range(count)],
            "status": ["error" if index == 2 else "ok" for index in range(count)],
        }
    )


def critical() -> pd.DataFrame:
    return pd.DataFrame(
        {
            "span_id": ["s0", "s1", "s0"],
            "start_ms": [0.0, 1.0, 7.0],
            "duration_ms": [1.0, 6.0, 1.0],
            "part": ["self", "edge", "self"],
        }
    )


def everything() -> Picture:
    times = ZERO + pd.to_timedelta(np.arange(30), unit="s")
    metrics = pd.DataFrame(
        {"name": NASTY, "time": times, "value": [np.nan, np.inf, *range(28)], "unit": "By"}
    )
    logs = pd.DataFrame({"time": times, "severity": ["error", "info", "", "strange", "warn"] * 6})
    samples = pd.DataFrame(
        {"time": times, "weight_ns": 10**9, "state": ["running", "waiting"] * 15}
    )
    changes = pd.DataFrame({"time": times[:20], "text": [f"deploy {NASTY}"] * 20})
    return plots.timeline(
        requests(),
        metrics=metrics,
        logs=logs,
        samples=samples,
        changes=changes,
        window=(times[15], times[29]),
        baseline_window=(times[0], times[15]),
    )


PICTURES = {
    "timeline": everything,
    "distribution": lambda: plots.distribution(requests()),
    "contributions": lambda: plots.contributions(stages()),
    "waterfall": lambda: plots.waterfall(spans(), critical()),
    "many spans": lambda: plots.waterfall(spans(500), critical()),
    "no requests": lambda: plots.timeline(requests(0)),
    "no groups": lambda: plots.distribution(requests(0)),
    "no stages": lambda: plots.contributions(stages()[:0]),
    "no spans": lambda: plots.waterfall(spans(0)),
    "one request": lambda: plots.timeline(requests(1)),
    "one in the distribution": lambda: plots.distribution(requests(1)),
    "only slow": lambda: plots.distribution(requests()[30:]),
    "no change of stages": lambda: plots.contributions(
        stages().assign(slow_ms=stages()["baseline_ms"], added_ms=0.0)
    ),
    "zero stages": lambda: plots.contributions(
        stages().assign(slow_ms=0.0, baseline_ms=0.0, added_ms=0.0)
    ),
    "zero durations": lambda: plots.distribution(requests().assign(duration_ms=0.0)),
    "missing durations": lambda: plots.timeline(requests().assign(duration_ms=np.nan)),
    "wide range": lambda: plots.timeline(
        requests().assign(duration_ms=[10.0 ** (index % 6) for index in range(60)])
    ),
}


@pytest.mark.parametrize("name", PICTURES)
def test_every_picture_is_script_free_well_formed_and_finite(name: str) -> None:
    picture = PICTURES[name]()
    for width in (380, 960):
        text = picture.svg(width)
        root = ET.fromstring(text)
        tags = {element.tag.rpartition("}")[2] for element in root.iter()}
        assert tags <= {"svg", "style", "rect", "text", "path", "circle", "title"}
        assert not any(key.startswith("on") for element in root.iter() for key in element.attrib)
        for element in root.iter():
            for key in ("x", "y", "width", "height", "d", "cx", "cy"):
                assert not re.search("nan|inf", element.get(key, "")), (key, element.attrib)
        assert root.get("aria-label")
        assert "prefers-color-scheme:dark" in text
    bundle = picture._repr_mimebundle_()
    assert set(bundle) == {"text/html", "image/svg+xml", "text/plain"}
    assert "<script" not in bundle["text/html"]


def words(picture: Picture, width: int = 960) -> list[str]:
    root = ET.fromstring(picture.svg(width))
    return [element.text or "" for element in root.iter() if element.tag.endswith("}text")]


def test_contributions_go_from_the_baseline_to_the_slow_total() -> None:
    picture = plots.contributions(stages())
    assert "Baseline 100 ms, slow 295 ms, added +195 ms" in picture.text
    assert "rerank +200 ms, retrieve \N{MINUS SIGN}5 ms" in picture.text
    shown = words(picture)
    assert "2 others" in shown
    assert "+200 ms" in shown
    root = ET.fromstring(picture.svg())
    bars = [e for e in root.iter() if e.tag.endswith("}rect") and e.find("{*}title") is not None]
    edges = [(float(bar.get("x", "0")), float(bar.get("width", "0"))) for bar in bars]
    first, rerank, retrieve, _, last = edges
    assert rerank[0] == pytest.approx(sum(first), abs=0.2)
    assert sum(retrieve) == pytest.approx(sum(rerank), abs=0.2)
    assert last[0] == first[0]


def test_the_distribution_names_medians_and_counts() -> None:
    picture = plots.distribution(requests())
    assert "baseline: 30 requests, median 103 ms" in picture.text
    assert "slow: 30 requests, median 303 ms" in picture.text
    assert "logarithmic" in " ".join(
        words(plots.distribution(requests().assign(duration_ms=10.0 ** np.arange(60) / 10**30)))
    )


def test_the_waterfall_keeps_what_the_critical_path_passes_through() -> None:
    shown = words(plots.waterfall(spans(500), critical()))
    assert "operation 0" in shown
    assert "450 shorter spans are not drawn" in shown
    picture = plots.waterfall(spans(), critical())
    assert "operation 2 (error)" in words(picture)
    assert "between services (edge)" in words(picture)
    assert f"Most of the critical path: {NASTY} 6 ms, operation 0 2 ms." in picture.text


def test_the_timeline_shares_one_axis_and_keeps_gaps() -> None:
    picture = everything()
    shown = words(picture)
    assert "2026-01-02, UTC" in shown
    assert "Request latency, ms" in shown
    assert "Log records per second, by severity" in shown
    assert "Stacks by state, at the same time" in shown
    gap = pd.DataFrame(
        {
            "name": "m",
            "time": ZERO + pd.to_timedelta([0, 1, 2, 3], unit="s"),
            "value": [1.0, np.nan, 3.0, 2.0],
        }
    )
    text = plots.timeline(requests(), metrics=gap).svg()
    (path,) = re.findall(r'd="([^"]*)" class="s-ink" stroke-width="1.5"', text)
    assert path.count("M") == 2
    assert path.count("L") == 1


def test_many_requests_are_thinned_and_the_longest_stays() -> None:
    slow = requests(40_000)
    slow.loc[5, "duration_ms"] = 900.0
    picture = plots.timeline(slow)
    assert len(picture.svg()) < 300_000
    full = picture.svg()
    dots = re.findall(r'd="([^"]*)" class="s-baseline"', full)[0]
    heights = [float(y) for y in re.findall(r"M[\d.]+ ([\d.]+)h0", dots)]
    assert min(heights) < sorted(heights)[1] - 50


def test_tables_escape_align_and_say_units() -> None:
    frame = pd.DataFrame(
        {
            NASTY: [NASTY, None],
            "added_ms": [1234.5678, np.nan],
            "count": [-5, 1_000_000],
            "when": [ZERO, pd.NaT],
            "found": [True, False],
            "attributes": [{"a": NASTY}, ["x", 2]],
        }
    )
    table = plots.table(frame, f"caption {NASTY}")
    html = table._repr_html_()
    assert "<script" not in html
    body = ET.fromstring(html.replace("<wbr>", ""))
    cells = ["".join(cell.itertext()) for cell in body.iter("td")]
    assert cells[:6] == [
        NASTY,
        "1,235",
        f"{MINUS}5",
        "2026-01-02 03:04:05.000",
        "yes",
        f"a={NASTY}",
    ]
    assert cells[6:] == ["\N{EN DASH}", "\N{EN DASH}", "1,000,000", "\N{EN DASH}", "no", "x; 2"]
    heads = ["".join(cell.itertext()) for cell in body.iter("th")]
    assert heads[1] == "added ms"
    assert body.iter("td").__next__().get("class") == ""
    assert "text/plain" in table._repr_mimebundle_()


def test_tables_say_how_many_rows_are_left_out_and_when_there_are_none() -> None:
    frame = pd.DataFrame({"a": range(120)})
    html = plots.table(frame, "numbers")._repr_html_()
    assert html.count("<tr>") == 51
    assert "numbers (the first 50 of 120 rows)" in html
    assert "no rows" in plots.table(frame[:0])._repr_html_()
    own = plots.table(frame, formats={"a": lambda value: f"<{value}>"}, rows=1)._repr_html_()
    assert "&lt;0&gt;" in own


@given(st.floats(1e-6, 1e9), st.floats(1.001, 1e6))
def test_ticks_are_round_few_and_inside(low: float, factor: float) -> None:
    high = low * factor
    marks = ticks(low, high)
    assert len(marks) <= 8
    assert all(low - 1e-6 * high <= mark <= high * (1 + 1e-6) for mark in marks)
    logs = log_ticks(low, high)
    assert all(low * 0.99 <= mark <= high * 1.01 for mark in logs)


@given(st.integers(1, 10**17), st.integers(0, 2 * 10**18))
def test_time_ticks_are_inside_and_have_distinct_labels(span: int, start: int) -> None:
    marks = time_ticks(start, start + span)
    assert all(start <= time <= start + span for time, _ in marks)
    if span >= 10**7:
        assert len({text for _, text in marks}) == len(marks)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"),
        (1234.5, "1,234"),
        (0.00123, "0.00123"),
        (-2.5, f"{MINUS}2.5"),
        (float("nan"), "\N{EN DASH}"),
        (float("-inf"), f"{MINUS}∞"),
        (12_345_678, "1.23e7"),
        (99.99, "100"),
    ],
)
def test_numbers_read_well(value: float, text: str) -> None:
    assert number_text(value) == text


def test_milliseconds_read_well() -> None:
    texts = [ms_text(value) for value in (0, 0.05, 0.5, 12.34, 9_999, 61_000)]
    assert texts == ["0 ms", "50 µs", "0.5 ms", "12.3 ms", "9,999 ms", "61 s"]
    assert ms_text(3, sign=True) == "+3 ms"


def test_pages_fit_a_phone_and_follow_the_dark_preference(tmp_path: Path) -> None:
    parts = [everything(), PICTURES["waterfall"](), plots.table(requests())]
    shown = "".join(part._repr_html_() for part in parts)
    page = tmp_path / "page.html"
    page.write_text(
        '<!DOCTYPE html><meta charset="utf-8"><meta name="viewport" '
        f'content="width=device-width"><style>{plots.page_css()}</style>{shown}',
        encoding="utf-8",
    )
    look = (
        "const seen = (s) => getComputedStyle(document.querySelector(s)).display !== 'none';"
        "const fill = getComputedStyle(document.querySelector('.ragprof-svg .f-paper')).fill;"
        "return [seen('.wide'), seen('.narrow'), fill, document.documentElement.scrollWidth]"
    )
    with started(tmp_path / "chromium") as browser:
        browser.get(page.as_uri())
        assert browser.execute_script(look)[:3] == [True, False, "rgb(255, 255, 255)"]
        browser.execute_cdp_cmd(
            "Emulation.setDeviceMetricsOverride",
            {"width": 390, "height": 800, "deviceScaleFactor": 2, "mobile": True},
        )
        browser.execute_cdp_cmd(
            "Emulation.setEmulatedMedia",
            {"features": [{"name": "prefers-color-scheme", "value": "dark"}]},
        )
        assert browser.execute_script(look) == [False, True, "rgb(20, 24, 29)", 390]
        assert browser.get_log("browser") == []  # type: ignore[no-untyped-call]
