"""`investigate`: a Recording in, an Investigation out."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa

from ragprof.analysis import (
    absences,
    contributions,
    critical_path,
    functions,
    joins,
    log_templates,
    populations,
)
from ragprof.analysis import attributes as attribute_analysis
from ragprof.analysis.columns import Floats, Ints, attribute_codes, attributes, texts
from ragprof.analysis.forest import Forest
from ragprof.analysis.forest import build as build_forest
from ragprof.analysis.onset import MIN_REQUESTS
from ragprof.analysis.stages import STAGES
from ragprof.analysis.stages import stages as stages_of
from ragprof.investigation import case as cases
from ragprof.investigation import wording
from ragprof.investigation.case import Case
from ragprof.investigation.evidence import Evidence
from ragprof.investigation.finding import Finding
from ragprof.investigation.gain import gain
from ragprof.investigation.ranking import findings as ranked
from ragprof.investigation.result import Investigation
from ragprof.investigation.source import Source, source_of
from ragprof.recording import Recording

SPAN_COLUMNS = (
    "trace_id", "span_id", "parent_span_id", "trace_key", "span_key", "parent_key", "service",
    "name", "kind", "start", "duration_ns", "status", "attributes",
)  # fmt: skip
"""Of the spans table, what is kept in memory."""

COLUMNS = [
    "rank", "stage", "service", "span", "function", "file", "line", "resource", "kind", "score",
    "p_value", "added_ms", "p95_ms", "p95_without_ms", "p95_without_low_ms", "p95_without_high_ms",
    "text", "advice", "for", "against", "sql", "lines",
    "commits",
]  # fmt: skip


def investigate(
    recording: Recording,
    *,
    slow: str | Sequence[str] = "p95",
    window: tuple[pd.Timestamp, pd.Timestamp] | None = None,
    baseline: tuple[pd.Timestamp, pd.Timestamp] | None = None,
    operation: str | None = None,
    source: str | Path | None = None,
) -> Investigation:
    """Why requests were slow.

    slow: a percentile (then an onset is looked for), a duration such as 300ms, or trace ids.
    window, baseline: UTC times; without a window the onset of slowness is found from the
    latencies. source: a checkout of the service; findings then carry the lines that took longer
    and the commits between the two service.versions. Raises SelectionError (a RagprofError) for a
    choice that fits nothing.
    """
    spans = recording.table("spans", SPAN_COLUMNS)
    forest = build_forest(spans)
    given = attributes(spans["attributes"])
    stage = stages_of(forest, spans, given)
    sections = critical_path.sections(forest)
    groups = populations.choose(
        forest, slow, window, baseline, operation, spans["trace_id"],
        _stage_ms(forest, stage, sections),
    )  # fmt: skip
    case = cases.build(
        recording, spans, given, forest, stage, sections, groups.roots, groups.slow,
        groups.baseline, groups.selected, groups.window, groups.baseline_window,
    )  # fmt: skip
    evidence = ranked(case) if groups.changed else []
    folder = None if source is None else Path(source)
    found = [
        _finding(case, groups.operation, rank, one, folder) for rank, one in enumerate(evidence, 1)
    ]
    notes = _notes(case, groups)
    notes += [f"finding {one.rank}: {one.source.note}" for one in found if one.source.note]
    logs = recording.table(
        "logs", ["time", "service", "severity", "body", "trace_key", "request_id"]
    )
    metrics = recording.table("metrics", ["series_id", "time", "exemplars"])
    request_ids = [id_ for id_ in attribute_codes(given, "request.id", "request_id")[1] if id_]
    stages = contributions.by_stage(case.path.elements, case.compared)
    changes = recording.to_pandas("changes")
    samples = recording.table("samples", ["service", "trace_key"])
    coverage = joins.coverage(
        forest.trace_key, pa.array(request_ids, pa.string()), samples, logs, metrics
    )
    start, end = (edge.value for edge in recording.window)
    missing = absences.words(
        spans, forest, samples, logs, metrics, recording.table("series"), (start, end)
    )
    coverage["missing"] = coverage["table"].map(missing)
    return Investigation(
        recording=recording,
        verdict="cause_found" if evidence else "no_cause_found",
        summary=wording.summary(case, groups.operation, groups.changed, evidence),
        findings=_table(found),
        window=groups.window,
        baseline_window=groups.baseline_window,
        operation=groups.operation,
        requests=_requests(case, groups.operation),
        stages=stages,
        operations_path=_path(case),
        functions=functions.difference(case.samples, case.slow, case.baseline),
        attributes=attribute_analysis.differences(
            case.numeric, case.categorical, case.slow, case.baseline
        ),
        logs=log_templates.changes(logs, groups.window, groups.baseline_window),
        metrics=case.metrics,
        changes=changes,
        coverage=coverage,
        notes=notes,
        _case=case,
        _findings=found,
    )


def _stage_ms(forest: Forest, stage: Ints, sections: critical_path.Sections) -> Floats:
    """Critical path ms of each trace by stage, in the row of its root span."""
    cell = forest.root[sections.span] * len(STAGES) + stage[sections.span]
    took = (sections.end - sections.start) / 1e6
    result = np.zeros((len(forest), len(STAGES)))
    result.ravel()[:] = np.bincount(cell, took, minlength=result.size)
    return result


def _notes(case: Case, groups: populations.Groups) -> list[str]:
    notes = [f"slow and baseline: {groups.reason}"]
    for name, group in (("slow", case.slow), ("baseline", case.baseline)):
        if group.sum() < MIN_REQUESTS:
            notes.append(f"only {group.sum()} {name} requests: fewer than 20 are not enough")
    notes += [f"{count} spans: {reason}" for reason, count in case.forest.problems.items()]
    if not len(case.samples.ms):
        notes.append(wording.NO_STACKS)
    return notes


def _finding(case: Case, operation: str, rank: int, one: Evidence, folder: Path | None) -> Finding:
    gained = gain(case, one.claims)
    return Finding(
        rank=rank,
        kind=one.kind,
        stage=one.stage,
        service=one.service,
        span=one.span,
        function=one.function,
        file=one.file,
        line=one.line,
        resource=one.resource,
        added_ms=one.score,
        p_value=one.p_value,
        text=wording.sentences(case, operation, one, gained),
        advice=wording.ADVICE[one.kind],
        gain=gained,
        source=source_of(case, one.service, one.function, one.file, folder)
        if folder is not None
        else Source(),
        support=one.support,
        against=one.against,
        sql=one.sql,
        _case=case,
        _evidence=one,
    )


def _table(found: list[Finding]) -> pd.DataFrame:
    rows = [
        (
            one.rank, one.stage, one.service, one.span, one.function, one.file, one.line,
            one.resource, one.kind, one.added_ms, one.p_value, one.added_ms, *one.gain,
            one.text, one.advice, one.support, one.against, one.sql,
            one.source.lines.to_dict("records"), one.source.commits.to_dict("records"),
        )
        for one in found
    ]  # fmt: skip
    return pd.DataFrame(rows, columns=COLUMNS)


def _requests(case: Case, operation: str) -> pd.DataFrame:
    forest, roots = case.forest, case.roots
    return pd.DataFrame(
        {
            "trace_id": texts(case.spans["trace_id"].take(pa.array(forest.row[roots]))),
            "operation": operation,
            "service": [forest.services[code] for code in forest.service[roots]],
            "start": pd.to_datetime(forest.start[roots], utc=True, unit="ns"),
            "duration_ms": case.duration_ms,
            "group": np.where(case.slow, "slow", np.where(case.baseline, "baseline", "other")),
        }
    )


def _path(case: Case) -> pd.DataFrame:
    table = pd.concat(
        [case.path.elements[["service", "span", "part", "stage"]], case.compared], axis=1
    )
    return table.sort_values("added_ms", ascending=False, ignore_index=True)
