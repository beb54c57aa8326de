"""The case: everything that detectors read, computed once from a Recording."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
import pyarrow as pa

from ragprof.analysis import (
    attributes,
    contributions,
    critical_path,
    functions,
    metric_shifts,
    significance,
)
from ragprof.analysis.columns import Attributes, Bools, Floats, Ints, attribute_codes
from ragprof.analysis.forest import Forest
from ragprof.recording import Recording

Window = tuple[pd.Timestamp, pd.Timestamp]


@dataclass(frozen=True)
class Case:
    """One operation's requests in two groups. Arrays named per request run over `roots`."""

    recording: Recording
    spans: pa.Table
    forest: Forest
    stage: Ints
    edge: Bools
    sections: critical_path.Sections
    roots: Ints
    duration_ms: Floats
    slow: Bools
    baseline: Bools
    selected: bool
    """The slow requests were chosen by their duration or id, not by a window of time."""
    window: Window
    baseline_window: Window
    path: contributions.Path
    compared: pd.DataFrame
    request_of_span: Ints
    samples: functions.RequestSamples
    numeric: pd.DataFrame
    categorical: pd.DataFrame
    metrics: pd.DataFrame
    points: dict[int, tuple[Ints, Floats]]
    database: Bools
    """Spans of database calls."""
    statement: Bools
    """Of them, those that run a statement (the others fetch a connection)."""

    @property
    def total_ms(self) -> float:
        """Added ms per request."""
        return float(self.compared["added_ms"].sum())

    @property
    def service(self) -> int:
        """Code of the service that the requests entered by (-1: no request)."""
        return int(self.forest.service[self.roots[0]]) if len(self.roots) else -1

    def p_value(self, per_request: Floats) -> tuple[float, float]:
        """Added mean of a quantity per request and its one-sided permutation p-value."""
        chosen = self.slow | self.baseline
        times = self.forest.start[self.roots][chosen]
        block = significance.blocks(times, self.slow[chosen], interleaved=self.selected)
        added, p = significance.difference_p_values(per_request[chosen], self.slow[chosen], block)
        return float(added[0]), float(p[0])


def build(
    recording: Recording,
    spans: pa.Table,
    given: Attributes,
    forest: Forest,
    stage: Ints,
    sections: critical_path.Sections,
    roots: Ints,
    slow: Bools,
    baseline: Bools,
    selected: bool,
    window: Window,
    baseline_window: Window,
) -> Case:
    """Compute the case of the requests `roots` of one operation; `given` are the attributes of
    the spans."""
    edge = critical_path.calls_server(forest)
    path = contributions.path(forest, stage, edge, sections, roots)
    number = np.full(len(forest), -1, dtype=np.int64)
    number[roots] = np.arange(len(roots))
    request_of_span = number[forest.root]
    request_of_row = np.full(spans.num_rows, -1, dtype=np.int64)
    request_of_row[forest.row] = request_of_span
    name_of_row = np.zeros(spans.num_rows, dtype=np.int64)
    name_of_row[forest.row] = forest.name
    numeric, categorical = attributes.per_request(given, request_of_row, name_of_row, forest.names)
    series = recording.to_pandas("series")
    metrics = recording.table("metrics", ["series_id", "time", "value", "histogram"])
    points = metric_shifts.points(metrics, series)
    database = _has(given, "db.system", "db.system.name")[forest.row]
    statement = _has(given, "db.statement", "db.query.text", "db.query.summary")[forest.row]
    return Case(
        recording=recording,
        spans=spans,
        forest=forest,
        stage=stage,
        edge=edge,
        sections=sections,
        roots=roots,
        duration_ms=(forest.end - forest.start)[roots] / 1e6,
        slow=slow,
        baseline=baseline,
        selected=selected,
        window=window,
        baseline_window=baseline_window,
        path=path,
        compared=contributions.compare(path.milliseconds, slow, baseline),
        request_of_span=request_of_span,
        samples=functions.on_requests(
            recording.table("samples", functions.COLUMNS),
            recording.table("stacks"),
            recording.table("frames"),
            forest,
            request_of_span,
        ),
        numeric=numeric,
        categorical=categorical,
        metrics=metric_shifts.shifts(points, series, window, baseline_window),
        points=points,
        database=database & forest.exit,
        statement=statement,
    )


def _has(given: Attributes, *names: str) -> Bools:
    """Rows whose first attribute of these is not empty."""
    numbers, values = attribute_codes(given, *names)
    found: Bools = numbers != values.index("")
    return found
