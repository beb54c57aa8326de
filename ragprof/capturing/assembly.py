"""Pieces of a capture -> one Recording: ids renumbered, nothing twice.

Spans are the same when trace and span id are. An alert of Alertmanager that Prometheus has as well
is the same alert. Memory is bounded by one batch, the dictionaries, and 8 bytes a span.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from ragprof.capturing.pieces import ORDER, Pieces
from ragprof.journal import Journal

Integers = npt.NDArray[np.int64]
SLACK = 120_000_000_000  # ns between two tellings of one alert


class Assembly:
    """Appends pieces to a journal; `stacks` says afterwards who has stacks, and when."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._dictionaries = {
            "frames": _Dictionary("frame_id"),
            "stacks": _Dictionary("stack_id"),
            "series": _Dictionary("series_id"),
        }
        self._spans: Integers = np.empty(0, np.int64)
        self._alerts: list[tuple[frozenset[tuple[str, str]], int, int]] = []
        self._stacks: dict[str, dict[int, int]] = {}  # service -> minute -> samples
        self.doubled = 0  # spans that two pieces had
        self._logs = self._logs_with_trace = self._exemplars = 0

    def add(self, pieces: Pieces, number: int) -> None:
        """One piece; raises RecordingError when the disk is full."""
        ids: dict[str, tuple[Integers, Integers]] = {}
        for table in ORDER:
            for rows in pieces.read(number, table):
                if table in self._dictionaries:
                    rows, known = self._new_entries(table, rows, ids)
                    before = ids.get(table, (np.empty(0, np.int64), np.empty(0, np.int64)))
                    ids[table] = (
                        np.concatenate([before[0], known[0]]),
                        np.concatenate([before[1], known[1]]),
                    )
                elif table == "spans":
                    rows = self._once(rows)
                elif table == "logs":
                    self._logs += rows.num_rows
                    self._logs_with_trace += int((rows.column("trace_key").to_numpy() != 0).sum())
                elif table == "metrics":
                    self._exemplars += rows.num_rows - rows.column("exemplars").null_count
                    rows = _renumbered(rows, "series_id", ids.get("series"))
                elif table == "samples":
                    rows = _renumbered(rows, "stack_id", ids.get("stacks"))
                    self._note_stacks(rows)
                elif table == "changes":
                    rows = self._each_alert_once(rows)
                if rows.num_rows:
                    self._journal.append(table, rows)

    @property
    def coverage(self) -> dict[str, Any]:
        """What rows can be joined by: log records with a trace id, points with exemplars, ..."""
        return {
            "spans": len(self._spans),
            "logs": self._logs,
            "logs_with_trace_id": self._logs_with_trace,
            "points_with_exemplars": self._exemplars,
            "samples": sum(sum(minutes.values()) for minutes in self._stacks.values()),
        }

    @property
    def stacks(self) -> dict[str, Any]:
        """By service: samples, and the minutes (ISO 8601, UTC) that have any."""
        return {
            service: {
                "samples": sum(minutes.values()),
                "minutes": [
                    str(np.datetime64(minute * 60, "s"))[:16] + "Z" for minute in sorted(minutes)
                ],
            }
            for service, minutes in sorted(self._stacks.items())
        }

    def _new_entries(
        self, table: str, rows: pa.Table, ids: dict[str, tuple[Integers, Integers]]
    ) -> tuple[pa.Table, tuple[Integers, Integers]]:
        entries = rows.to_pylist()
        if table == "stacks":
            own, given = ids.get("frames", (np.empty(0, np.int64), np.empty(0, np.int64)))
            frames = dict(zip(own.tolist(), given.tolist(), strict=True))
            for entry in entries:
                entry["frame_ids"] = [frames[frame] for frame in entry["frame_ids"]]
        return self._dictionaries[table].take(entries, rows.schema)

    def _once(self, rows: pa.Table) -> pa.Table:
        keys = rows.column("span_key").to_numpy()
        _, first = np.unique(keys, return_index=True)
        new = np.zeros(len(keys), bool)
        new[first] = True
        new &= ~np.isin(keys, self._spans) | (keys == 0)
        self.doubled += int(len(keys) - new.sum())
        self._spans = np.union1d(self._spans, keys[new])
        return rows if new.all() else rows.filter(pa.array(new))

    def _each_alert_once(self, rows: pa.Table) -> pa.Table:
        kept = []
        for row in rows.to_pylist():
            if row["kind"] == "alert":
                own = frozenset(
                    (key, value)
                    for key, value in row["attributes"]
                    if not key.startswith("annotation.") and key not in ("began", "state")
                )
                start = int(row["time"].value)
                end = 2**63 - 1 if row["end"] is None else int(row["end"].value)
                if any(
                    (own <= other or other <= own) and start <= e + SLACK and s <= end + SLACK
                    for other, s, e in self._alerts
                ):
                    kept.append(False)
                    continue
                self._alerts.append((own, start, end))
            kept.append(True)
        return rows.filter(pa.array(kept, pa.bool_()))

    def _note_stacks(self, rows: pa.Table) -> None:
        minutes = rows.column("time").cast(pa.int64()).to_numpy() // 60_000_000_000
        services = rows.column("service").to_pylist()
        for service, minute in zip(services, minutes.tolist(), strict=True):
            counted = self._stacks.setdefault(service, {})
            counted[minute] = counted.get(minute, 0) + 1


class _Dictionary:
    """Entries numbered from 1 over all pieces; equal entries have one number."""

    def __init__(self, id_column: str) -> None:
        self._id, self._numbers = id_column, dict[Any, int]()

    def take(
        self, entries: list[dict[str, Any]], schema: pa.Schema
    ) -> tuple[pa.Table, tuple[Integers, Integers]]:
        """Rows that are new, and old ids beside new ones."""
        own, given, new = [], [], []
        for entry in entries:
            own.append(entry.pop(self._id))
            key = tuple(_frozen(value) for value in entry.values())
            number = self._numbers.get(key)
            if number is None:
                number = self._numbers[key] = len(self._numbers) + 1
                new.append({**entry, self._id: number})
            given.append(number)
        rows = pa.Table.from_pylist(new, schema=schema)
        return rows, (np.array(own, np.int64), np.array(given, np.int64))


def _frozen(value: Any) -> Any:
    return tuple(_frozen(each) for each in value) if isinstance(value, list | tuple) else value


def _renumbered(rows: pa.Table, column: str, ids: tuple[Integers, Integers] | None) -> pa.Table:
    own, given = ids or (np.empty(0, np.int64), np.empty(0, np.int64))
    order = np.argsort(own, kind="stable")
    wanted = rows.column(column).to_numpy()
    place = np.searchsorted(own, wanted, sorter=order)
    if len(wanted) and (
        not len(own) or (own[order][np.minimum(place, len(own) - 1)] != wanted).any()
    ):
        raise AssertionError(f"a piece names a {column} that it does not hold")
    at = rows.column_names.index(column)
    return rows.set_column(at, rows.field(at), pa.array(given[order][place]))


def assemble(journal: Journal, pieces: Pieces, numbers: Iterable[int]) -> Assembly:
    """All pieces in their order; raises RecordingError when the disk is full."""
    made = Assembly(journal)
    for number in numbers:
        made.add(pieces, number)
    return made
