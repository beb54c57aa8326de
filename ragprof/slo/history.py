"""History to ask: the user's Prometheus, or one on the data of a Recording; with what to know."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from ragprof.errors import RagprofError
from ragprof.monitoring import promql
from ragprof.slo import replay as replays
from ragprof.slo.backfill import STALE, prometheus_on
from ragprof.slo.prometheus import Prometheus
from ragprof.slo.rulefile import AlertRule
from ragprof.slo.times import instant


class HistoryError(RagprofError):
    """No history was named, or there is none in the window."""


@dataclass(frozen=True)
class History:
    """A Prometheus with data from `since` to `until` (s since 1970); `notes` are for people."""

    prometheus: Prometheus
    since: float
    until: float
    source: str
    notes: list[str] = field(default_factory=list)


@contextmanager
def open_history(
    metrics: Iterable[str],
    *,
    recording: str | Path | None = None,
    prometheus: str | None = None,
    since: str = "30d",
    until: str = "now",
) -> Iterator[History]:
    """The history behind `--recording` or `--prometheus`; a Recording is taken whole.

    Raises HistoryError when neither or both are given, or the window holds nothing.
    """
    if (recording is None) == (prometheus is None):
        raise HistoryError("name the history: either --recording REC or --prometheus URL")
    if recording is not None:
        with _of_recording(Path(recording), metrics) as history:
            yield history
        return
    assert prometheus is not None
    now = time.time()
    begin, end = instant(since, "--since", now), instant(until, "--until", now)
    with Prometheus(prometheus) as server:
        yield _of_server(server, begin, min(end, now))


@contextmanager
def _of_recording(path: Path, metrics: Iterable[str]) -> Iterator[History]:
    from ragprof import recording as recordings

    with (
        prometheus_on(recordings.open(path), metrics) as filled,
        Prometheus(filled.url) as server,
    ):
        note = (
            f"staleness is inferred: a series is gone {filled.lookback:.3g} s after its last point "
            f"({STALE:g} times the scrape interval of {filled.interval:.3g} s)"
        )
        yield History(server, filled.since, filled.until, str(path), [note])


def _of_server(server: Prometheus, begin: float, end: float) -> History:
    notes = []
    kept = replays.retention(server)
    if kept is not None and time.time() - begin > kept:
        notes.append(
            f"Prometheus keeps {kept / 86_400:g} days (storage.tsdb.retention.time): what is older "
            "is not replayed"
        )
        begin = max(begin, time.time() - kept)
    first = replays.first_point(server, begin, end) if begin < end else None
    if first is None:
        raise HistoryError(
            f"{server.url} has no points between {replays.iso(begin)} and {replays.iso(end)}; "
            "choose another --since, and check that it scrapes something"
        )
    if first - begin > 3600:
        notes.append(f"the first points are of {replays.iso(first)}: the replay begins there")
    notes.append("staleness is as Prometheus marked it when it scraped")
    return History(server, max(begin, first), end, server.url, notes)


def window_notes(rule: AlertRule, history: History) -> list[str]:
    """What a rule cannot know at the beginning of the history."""
    longest = replays.longest_window(rule.expression)
    length = history.until - history.since
    if longest > length:
        return [f"its windows reach back {longest:g} s, the history only {length:.0f} s"]
    return []


def metrics_of(rules: Sequence[AlertRule]) -> set[str]:
    """The metrics that rules read."""
    return {each.metric for rule in rules for each in promql.references(rule.expression)}
