"""The Prometheus source against a real server: what is stored is what arrives, each point once."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from backends import remote_write, servers
from backends.proxy import FAULTS, FaultyProxy, now_and_then
from backends.servers import Server
from prometheus_data import POINTS, SPAN, STEP, TRACE, dump, flat, same, series, source, window

from ragprof.sources.prometheus import Prometheus, from_connect
from ragprof.sources.source import OK, WARNING, Query, SourceError, fetch


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Server, int]]:
    """A Prometheus with known series, and the ms of their first point."""
    start = (int(time.time()) - POINTS * STEP // 1000 - 60) * 1000
    with servers.start_prometheus(tmp_path_factory.mktemp("prometheus")) as server:
        remote_write.write(server.url, series(start))
        yield server, start


def everything(found: Prometheus, start: int, end: int, query: Query | None = None) -> list[Any]:
    return list(fetch(found, window(start, end), query))


def metrics(tables: list[Any]) -> dict[str, list[dict[str, Any]]]:
    """Rows of `metrics` by the name of their series."""
    names: dict[int, str] = {}
    found: dict[str, list[dict[str, Any]]] = {}
    for table, rows in tables:
        for row in rows.to_pylist():
            if table == "series":
                names[row["series_id"]] = row["name"]
            elif table == "metrics":
                found.setdefault(names[row["series_id"]], []).append(row)
    return found


@pytest.mark.parametrize(
    ("first", "last"),
    [(0, POINTS), (0, 1), (3, 27), (3.5, 27.5), (5, 5.0001)],
)
def test_points_equal_those_that_promtool_dumps(
    stored: tuple[Server, int], first: float, last: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    server, start = stored
    begin, end = start + round(first * STEP), start + round(last * STEP)
    monkeypatch.setattr("ragprof.sources.prometheus.PIECE_POINTS", 60)  # so that it is cut
    found = flat(everything(source(server.url), begin, end))
    wanted = dump(server.folder / "data", begin, end - 1)
    # The dump shows stale markers as NaN, and no native histograms.
    stale = start + 5 * STEP
    for key, points in wanted.items():
        if ("__name__", "went_stale") in key and stale in points:
            assert math.isnan(points.pop(stale))
    wanted = {key: points for key, points in wanted.items() if points}
    found = {key: points for key, points in found.items() if ("__name__", "native") not in key}
    assert wanted
    assert found.keys() == wanted.keys()
    for key, points in wanted.items():
        assert same(found[key], points), key


def test_a_gap_stays_a_gap_and_an_expression_is_marked_as_resampled(
    stored: tuple[Server, int],
) -> None:
    server, start = stored
    one = source(
        server.url, match=('{__name__="with_gap"}',), expressions={"filled": "with_gap"}, step=5
    )
    found = metrics(everything(one, start, start + POINTS * STEP))
    assert len(found["with_gap"]) == POINTS - 19
    assert len(found["filled"]) > len(found["with_gap"])
    kept = {
        row["name"]: dict(row["labels"])
        for table, rows in everything(one, start, start + POINTS * STEP)
        if table == "series"
        for row in rows.to_pylist()
    }
    assert kept["filled"]["resampled"] == "5 s"
    assert kept["filled"]["expression"] == "with_gap"
    assert "resampled" not in kept["with_gap"]


def test_steps_of_an_expression_are_neither_doubled_nor_lost(
    stored: tuple[Server, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    server, start = stored
    one = source(server.url, match=("up",), expressions={"ups": "sum(up)"}, step=15)
    whole = metrics(everything(one, start, start + POINTS * STEP))["ups"]
    monkeypatch.setattr("ragprof.sources.prometheus.STEPS", 7)
    cut = metrics(everything(one, start, start + POINTS * STEP))["ups"]
    assert [row["time"] for row in cut] == [row["time"] for row in whole]
    assert [row["time"].value % (STEP * 1_000_000) for row in whole] == [0] * len(whole)


def test_histograms_classic_and_native_have_one_form(stored: tuple[Server, int]) -> None:
    server, start = stored
    found = metrics(everything(source(server.url), start, start + POINTS * STEP))
    classic = found["lat_seconds"][2]["histogram"]
    assert classic == {
        "count": 8.0,
        "sum": 3.0,
        "bounds": [0.1, 1.0, math.inf],
        "counts": [2.0, 4.0, 2.0],
    }
    native = found["native"][0]["histogram"]
    assert native["count"] == 6
    assert native["sum"] == 9.5
    assert native["bounds"] == [-0.001, 0.001, 0.5, 1.0, 2.0, 4.0]
    assert native["counts"] == [0, 1, 0, 2, 0, 3]
    assert "lat_seconds_bucket" not in found


def test_an_exemplar_belongs_to_the_scrape_that_brought_it(stored: tuple[Server, int]) -> None:
    server, start = stored
    rows = metrics(everything(source(server.url), start, start + POINTS * STEP))["lat_seconds"]
    with_exemplar = [row for row in rows if row["exemplars"]]
    assert [row["time"].value // 1_000_000 for row in with_exemplar] == [start + 5 * STEP]
    [exemplar] = with_exemplar[0]["exemplars"]
    assert (exemplar["trace_id"], exemplar["span_id"]) == (TRACE, SPAN)
    assert exemplar["value"] == 0.5
    assert exemplar["time"].value // 1_000_000 == start + 5 * STEP - 400


def test_alerts_restarts_and_versions_are_changes(stored: tuple[Server, int]) -> None:
    server, start = stored
    tables = everything(source(server.url), start, start + POINTS * STEP)
    rows = [row for table, each in tables if table == "changes" for row in each.to_pylist()]
    by_kind = {row["kind"]: row for row in rows}
    assert len(rows) == 3
    assert by_kind["alert"]["text"].startswith("Slow fires")
    assert by_kind["alert"]["time"].value // 1_000_000 == start + 10 * STEP
    assert by_kind["alert"]["end"].value // 1_000_000 == start + 15 * STEP
    assert by_kind["restart"]["time"].value // 1_000_000 == start + 20 * STEP - 2000
    assert by_kind["deploy"]["text"] == "service.version 1.0 -> 1.1"
    assert by_kind["deploy"]["time"].value // 1_000_000 == start + 20 * STEP
    assert {row["service"] for row in rows} == {"rag"}


def test_selectors_that_overlap_give_each_series_once(stored: tuple[Server, int]) -> None:
    server, start = stored
    one = source(server.url, match=("up", '{service="rag"}', '{__name__=~"u.+"}'))
    twice = flat(everything(one, start, start + POINTS * STEP))  # asserts that none is doubled
    assert twice.keys() == flat(everything(source(server.url), start, start + POINTS * STEP)).keys()


def test_services_restrict(stored: tuple[Server, int]) -> None:
    server, start = stored
    end = start + POINTS * STEP
    assert not flat(everything(source(server.url), start, end, Query(services=("other",))))
    assert flat(everything(source(server.url), start, end, Query(services=("rag",))))


def test_the_plan_knows_about_how_much_it_is(stored: tuple[Server, int]) -> None:
    server, start = stored
    pieces = source(server.url).plan(window(start, start + POINTS * STEP), Query())
    stored_points = sum(len(each["points"]) for each in series(start) if "points" in each)
    assert stored_points / 3 < sum(piece.rows or 0 for piece in pieces) < stored_points * 3


def test_a_range_that_the_server_finds_too_large_is_halved(tmp_path: Path) -> None:
    start = (int(time.time()) - 900) * 1000
    with servers.start_prometheus(tmp_path, flags=["--query.max-samples=100"]) as server:
        remote_write.write(server.url, series(start)[:2])
        one = source(server.url, match=("odd",))
        one.api.client.to = type(one.api.client.to)(server.url, retries=0)
        end = start + POINTS * STEP
        assert len(metrics(everything(one, start, end))["odd"]) == POINTS
        remote_write.write(
            server.url,
            [
                {"labels": {"__name__": "many", "n": str(n)}, "points": [(start, 1.0), (end, 2.0)]}
                for n in range(60)
            ],
        )
        found = flat(everything(source(server.url, match=("many",)), start, end + 1))
        assert len(found) == 60
        assert all(points == {start: 1.0, end: 2.0} for points in found.values())


@pytest.mark.parametrize("fault", FAULTS)
def test_each_fault_of_the_way_leaves_the_same_table(
    stored: tuple[Server, int], fault: str
) -> None:
    server, start = stored
    wanted = flat(everything(source(server.url), start, start + POINTS * STEP))
    plan = (lambda n, method, path: fault if n % 3 == 1 else "") if fault != "slow" else ["", fault]
    with FaultyProxy(server.url, plan) as proxy:
        found = flat(everything(source(proxy.url), start, start + POINTS * STEP))
        assert proxy.faults()
    assert found.keys() == wanted.keys()
    assert all(same(found[key], wanted[key]) for key in wanted)


def test_faults_at_random_leave_the_same_table(
    stored: tuple[Server, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    server, start = stored
    wanted = flat(everything(source(server.url), start, start + POINTS * STEP))
    monkeypatch.setattr("ragprof.sources.prometheus.PIECE_POINTS", 60)
    faults = [fault for fault in FAULTS if fault != "slow"]
    with FaultyProxy(server.url, now_and_then(7, 0.5, faults)) as proxy:
        found = flat(everything(source(proxy.url), start, start + POINTS * STEP))
        assert len(set(proxy.faults())) == len(faults)
    assert found.keys() == wanted.keys()
    assert all(same(found[key], wanted[key]) for key in wanted)


def test_retries_end(stored: tuple[Server, int]) -> None:
    server, start = stored
    with (
        FaultyProxy(server.url, lambda n, method, path: "503") as proxy,
        pytest.raises(SourceError, match="503"),
    ):
        everything(source(proxy.url), start, start + STEP)
    assert len(proxy.seen) == 9  # one try and eight more


def test_a_connection_of_prometheus_api_client_is_taken(stored: tuple[Server, int]) -> None:
    from prometheus_api_client import PrometheusConnect

    server, start = stored
    wanted = flat(everything(source(server.url), start, start + POINTS * STEP))
    with FaultyProxy(server.url) as proxy:
        connect = PrometheusConnect(url=proxy.url, headers={"X-Own": "1"})
        found = flat(everything(from_connect(connect), start, start + POINTS * STEP))
    assert found.keys() == wanted.keys()
    assert all(same(found[key], wanted[key]) for key in wanted)


def test_checks_say_what_can_be_joined(stored: tuple[Server, int]) -> None:
    server, start = stored
    end = start + POINTS * STEP
    checks = {each.subject: each for each in source(server.url).check(window(start, end))}
    assert {each.state for each in checks.values()} == {OK}
    none = source(server.url, match=('{service="nobody"}',)).check(window(start, end))
    states = {each.subject: each.state for each in none}
    assert states["metrics"] == WARNING
    assert states["exemplars"] == WARNING


def test_an_address_where_nobody_listens_is_one_failed_check() -> None:
    [port] = servers.free_ports(1)
    one = source(f"http://127.0.0.1:{port}")
    [check] = one.check(window(0, 1000))
    assert check.state == "failed"
    assert "cannot be reached" in check.text
