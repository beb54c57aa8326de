"""Objectives from files, and what is said of bad ones."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from ragprof.errors import RagprofError
from ragprof.monitoring import indicators, objective_files
from ragprof.monitoring.catalogue_objectives import OBJECTIVES
from ragprof.slo import objectives

GOOD = """
[[objective]]
name = "checkout"
description = "Orders go through."
target = 0.99
window_days = 7
total = 'orders_total{shop="a"}'
bad = 'orders_total{shop="a",state="failed"}'

[[objective]]
name = "speed"
target = 0.9
total = "d_seconds_count"
good = 'd_seconds_bucket{le="0.5"}'

[[objective]]
name = "stars"
target = 0.8
mean_sum = "stars_sum"
mean_count = "stars_count"
"""


def test_those_of_the_catalogue_without_a_file() -> None:
    found = {each.name: each for each in objectives.read()}
    assert {name: (each.target, each.window_days) for name, each in found.items()} == {
        "api_availability": (0.999, 30),
        "api_latency": (0.95, 30),
        "search_quality": (0.85, 7),
    }
    assert not found["search_quality"].has_budget


def test_toml(tmp_path: Path) -> None:
    path = tmp_path / "slo.toml"
    path.write_text(GOOD)
    checkout, speed, stars = objectives.read(path)
    assert (checkout.target, checkout.window_days, checkout.description) == (
        0.99,
        7,
        "Orders go through.",
    )
    counted = indicators.counters(checkout.indicator)
    assert str(counted.total) == 'orders_total{shop="a"}'
    assert str(counted.bad) == 'orders_total{shop="a",state="failed"}'
    assert str(indicators.counters(speed.indicator).good) == 'd_seconds_bucket{le="0.5"}'
    assert not stars.has_budget
    assert [each.metric for each in indicators.mean_counters(stars.indicator)] == [
        "stars_sum",
        "stars_count",
    ]


def test_openslo_reads_back_what_was_exported(tmp_path: Path) -> None:
    path = tmp_path / "openslo.yml"
    path.write_text(yaml.safe_dump_all(objective_files.openslo()))
    found = objectives.read(path)
    budgeted = [each for each in OBJECTIVES if each.has_budget]
    for made, original in zip(found, budgeted, strict=True):
        assert made.name == original.name.replace("_", "-")
        assert (made.target, made.window_days) == (original.target, original.window_days)
        assert indicators.counters(made.indicator) == indicators.counters(original.indicator)


def test_openslo_with_an_indicator_of_its_own_document(tmp_path: Path) -> None:
    def asks(text: str) -> dict[str, object]:
        return {"metricSource": {"type": "Prometheus", "spec": {"query": text}}}

    sli = {
        "apiVersion": "openslo/v1",
        "kind": "SLI",
        "metadata": {"name": "ratio"},
        "spec": {
            "ratioMetric": {
                "counter": True,
                "good": asks('sum(rate(x_total{ok="1"}[5m]))'),
                "total": asks("sum(x_total)"),
            }
        },
    }
    slo = {
        "apiVersion": "openslo/v1",
        "kind": "SLO",
        "metadata": {"name": "one"},
        "spec": {
            "indicatorRef": "ratio",
            "timeWindow": [{"duration": "4w", "isRolling": True}],
            "objectives": [{"targetPercent": 99.5}],
        },
    }
    path = tmp_path / "slo.yaml"
    path.write_text(yaml.safe_dump_all([sli, slo]))
    [found] = objectives.read(path)
    assert (found.target, found.window_days) == (0.995, 28)
    assert str(indicators.counters(found.indicator).good) == 'x_total{ok="1"}'


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (("target = 0.99", "target = 99"), "'target'"),
        (("target = 0.99", 'target = "0.99"'), "'target'"),
        (("window_days = 7", "window_days = 0"), "'window_days'"),
        (('name = "checkout"', 'name = "Check out"'), "'name'"),
        (('name = "checkout"', 'name = "speed"'), "twice"),
        (('orders_total{shop="a"}\'', "sum(a) / sum(b)'"), "'total'"),
        (("good = ", "god = "), "'god'"),
        (('mean_count = "stars_count"', ""), "'mean_count'"),
        (("good = 'd_seconds_bucket{le=\"0.5\"}'", ""), "either"),
        (("[[objective]]\nname", "[[objective\nname"), "not TOML"),
    ],
)
def test_a_bad_file_is_refused_by_field(tmp_path: Path, change: tuple[str, str], said: str) -> None:
    path = tmp_path / "slo.toml"
    assert change[0] in GOOD
    path.write_text(GOOD.replace(change[0], change[1], 1))
    with pytest.raises(RagprofError, match=said) as error:
        objectives.read(path)
    assert "slo.toml" in str(error.value)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: [", "not YAML"),
        ("- 1", "not OpenSLO"),
        ("apiVersion: openslo/v1\nkind: SLO\nmetadata: {}", "metadata.name"),
        ("kind: Service", "no objective"),
    ],
)
def test_a_bad_openslo_is_refused_by_field(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "slo.yaml"
    path.write_text(text)
    with pytest.raises(RagprofError, match=said):
        objectives.read(path)


def test_files_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(RagprofError, match="cannot be read"):
        objectives.read(tmp_path / "none.toml")
    (tmp_path / "b.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(RagprofError, match="UTF-8"):
        objectives.read(tmp_path / "b.toml")
    with pytest.raises(RagprofError, match="there is no objective 'x'"):
        objectives.named("x", OBJECTIVES)
