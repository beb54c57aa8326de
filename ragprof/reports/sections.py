"""The sections of the investigation's report: an Investigation in, something that shows itself out.

The notebook only calls these, so that JupyterLab and the headless report show the same.
"""

from __future__ import annotations

from pathlib import PurePath
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from ragprof import plots
from ragprof.analysis import metric_shifts
from ragprof.flamegraph import FlameGraph
from ragprof.plots import Picture, Table
from ragprof.plots.picture import empty
from ragprof.plots.scales import DASH, number_text
from ragprof.profiles.samples import with_wait_frames
from ragprof.reports import verdict

if TYPE_CHECKING:
    from ragprof.investigation.result import Investigation

LEVEL = 0.05
REPEATS = 4
CONTEXT = ("process.cpu.utilization", "python.event_loop.lag")


def headline(found: Investigation) -> verdict.Block:
    """The finding in one sentence, the added time, where it is, what speaks for and against it."""
    return verdict.headline(found)


def timeline(found: Investigation) -> Picture:
    """Latencies, metrics, log rate, stacks and changes on one time axis."""
    apart = found.window != found.baseline_window
    return plots.timeline(
        found.requests,
        metrics=metric_points(found),
        logs=found.recording.to_pandas("logs", ["time", "severity"]),
        samples=found.recording.to_pandas("samples", ["time", "weight_ns", "state"]),
        changes=found.changes,
        window=found.window if apart else None,
        baseline_window=found.baseline_window if apart else None,
    )


def metric_points(found: Investigation, most: int = 3) -> pd.DataFrame:
    """Points of the metrics to see beside the latencies: name, unit, time, value.

    Those that the evidence cites first, then the most significant shifts, then the process's CPU
    and event-loop lag; each metric once, and of several with the same shift one.
    """
    columns = ["name", "unit", "time", "value"]
    shown = _chosen(found, most)
    series = found.recording.to_pandas("series")
    wanted = series[series["series_id"].isin(shown["series_id"])]
    raw = found.recording.table("metrics")
    mask = np.isin(raw["series_id"].to_numpy(), wanted["series_id"].to_numpy())
    points = metric_shifts.points(raw.filter(mask), wanted) if len(wanted) else {}
    parts = []
    for row in shown.to_dict("records"):
        if row["series_id"] not in points:
            continue
        times, values = points[row["series_id"]]
        unit = _unit(row["unit"]) + ("/s" if row["type"] == "counter" else "")
        parts.append(
            pd.DataFrame(
                {
                    "name": f"{row['metric']} ({row['service']})"
                    if row["service"]
                    else row["metric"],
                    "unit": unit,
                    "time": pd.to_datetime(times, utc=True, unit="ns"),
                    "value": values,
                }
            )
        )
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=columns)


def _chosen(found: Investigation, most: int) -> pd.DataFrame:
    table = found.metrics.reset_index(drop=True)
    cited = " ".join(str(text) for texts in found.findings["for"] for text in texts)
    before, after = (table[name].to_numpy(dtype=float) for name in ("baseline", "slow"))
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.nan_to_num(np.abs(np.log((np.abs(after) + 1e-9) / (np.abs(before) + 1e-9))))
    named = table["metric"].astype(str).to_numpy()
    in_evidence = np.array([f"{name} of" in cited for name in named], dtype=bool)
    shifted = (table["p_value"] <= LEVEL).to_numpy()
    context = np.isin(named, CONTEXT)
    order = np.lexsort((-ratio, ~context, ~shifted, ~in_evidence))
    ranked = table.iloc[order[(in_evidence | shifted | context)[order]]]
    return ranked.drop_duplicates("metric").drop_duplicates(["baseline", "slow"]).head(most)


def distribution(found: Investigation) -> Picture:
    """Durations of the slow requests against those of the baseline."""
    return plots.distribution(found.requests)


def slowest(found: Investigation) -> Picture:
    """The slowest request's spans, with the critical path through them."""
    requests = found.requests
    slow = requests[requests["group"] == "slow"]
    chosen = slow if len(slow) else requests
    if not len(chosen):
        return empty("The slowest trace", "There are no requests.")
    trace = str(chosen.loc[chosen["duration_ms"].idxmax(), "trace_id"])
    spans, critical = folded(found.waterfall(trace), found.critical_path(trace))
    return plots.waterfall(spans, critical, f"Trace {trace}", rows=36)


def folded(spans: pd.DataFrame, critical: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The spans of a trace with more than `REPEATS` equal leaves of one parent drawn as one.

    Such a row goes from the first start to the last end and is named ``NAME × COUNT``; the pieces
    of the critical path stay where they are and get its span_id.
    """
    leaf = ~spans["span_id"].isin(spans["parent_span_id"])
    keys = ["parent_span_id", "service", "name"]
    count = spans[leaf].groupby(keys)["span_id"].transform("size")
    repeated = spans.loc[count.index[count > REPEATS]]
    if not len(repeated):
        return spans, critical
    first = repeated.groupby(keys)["span_id"].transform("first")
    target = dict(zip(repeated["span_id"], first, strict=True))
    ends = repeated["start_ms"] + repeated["duration_ms"]
    kept = spans[~spans["span_id"].isin([span for span, to in target.items() if span != to])].copy()
    for span, rows in repeated.groupby(first):
        at = kept["span_id"] == span
        begin = rows["start_ms"].min()
        kept.loc[at, "name"] = f"{rows['name'].iloc[0]} \N{MULTIPLICATION SIGN} {len(rows)}"
        kept.loc[at, ["start_ms", "duration_ms"]] = [begin, ends.loc[rows.index].max() - begin]
        if (rows["status"] == "error").any():
            kept.loc[at, "status"] = "error"
    moved = critical.assign(span_id=[target.get(span, span) for span in critical["span_id"]])
    return kept.reset_index(drop=True), moved


def stages(found: Investigation) -> Picture:
    """What each stage adds, from the baseline to the slow requests."""
    return plots.contributions(found.stages)


def path(found: Investigation, rows: int = 12) -> Table:
    """The spans whose share of the critical path changed most."""
    table = found.operations_path
    order = table["added_ms"].abs().sort_values(ascending=False).index
    return plots.table(
        table.loc[order].reset_index(drop=True),
        "Mean ms per request on the critical path; the rows sum to the whole",
        rows=rows,
    )


def flamegraph(found: Investigation) -> FlameGraph | Picture:
    """Stacks of the slow requests against those of the baseline, in time per request."""
    slow = with_wait_frames(found.profile("slow"))
    if not len(slow):
        return empty("Stacks", "No stacks were sampled on the slow requests.")
    baseline = with_wait_frames(found.profile("baseline"))
    return FlameGraph(
        slow,
        baseline if len(baseline) else None,
        "Slow requests against the baseline, time per request",
        height=720,
    )


def functions(found: Investigation, rows: int = 12) -> Table:
    """The functions whose own time per request changed most."""
    table = found.functions
    order = table["added_ms"].abs().sort_values(ascending=False).index
    shown = table.loc[order].reset_index(drop=True)
    places = [
        f"{'/'.join(PurePath(file).parts[-2:])}:{line}" if file else ""
        for file, line in zip(shown["file"], shown["line"], strict=True)
    ]
    shown = shown.assign(place=places)
    return plots.table(
        shown[["function", "state", "wait", "baseline_ms", "slow_ms", "added_ms", "place"]],
        "Own time per request, from the stacks",
        rows=rows,
    )


def logs(found: Investigation, rows: int = 15) -> Table:
    """Log templates, those that changed first."""
    table = found.logs
    order = np.lexsort((table["p_value"].fillna(1.0), (table["change"] == "same").to_numpy()))
    changed = int((table["change"] != "same").sum())
    return plots.table(
        table.iloc[order].reset_index(drop=True),
        f"{changed} of {len(table)} log templates changed" if len(table) else "No logs",
        rows=rows,
        formats={"p_value": _p},
    )


def metrics(found: Investigation, rows: int = 15) -> Table:
    """Metrics that shifted between the two windows."""
    table = found.metrics[found.metrics["p_value"] <= LEVEL]
    shown = table.assign(
        labels=[
            ", ".join(
                f"{key}={value}"
                for key, value in (labels or {}).items()
                if key not in ("service", "instance", "process")
            )
            for labels in table["labels"]
        ]
    )
    return plots.table(
        shown[["metric", "service", "labels", "unit", "baseline", "slow", "p_value"]],
        f"{len(table)} of {len(found.metrics)} series shifted, corrected for multiple testing",
        rows=rows,
        formats={"p_value": _p, "unit": _unit},
    )


def attributes(found: Investigation, rows: int = 15) -> Table:
    """Span attributes by how differently they are distributed."""
    beyond = int((found.attributes["p_value"] <= LEVEL).sum()) if len(found.attributes) else 0
    return plots.table(
        found.attributes,
        f"{beyond} of {len(found.attributes)} attributes differ beyond chance",
        rows=rows,
        formats={"p_value": _p},
    )


def changes(found: Investigation) -> Table:
    """What was deployed, restarted, configured or marked."""
    return plots.table(
        found.changes[["time", "kind", "service", "text"]], "Changes in the recording", rows=30
    )


def coverage(found: Investigation) -> Table:
    """By what each kind of row could be joined to a request."""
    table = found.coverage.rename(columns={"service_time": "service and time", "none": "not"})
    return plots.table(table, "Rows by the best key that joins them to a request")


def reproduce(found: Investigation, **parameters: str) -> verdict.Block:
    """The command and the SQL that show it again."""
    return verdict.reproduce(found, **parameters)


def _unit(code: str) -> str:
    """A UCUM unit for people."""
    return {"1": "share", "By": "bytes"}.get(code, str(code or "").strip("{}"))


def _p(value: float) -> str:
    return (
        DASH if pd.isna(value) else f"< {LEVEL / 500:g}" if value < 1e-4 else number_text(value, 2)
    )
