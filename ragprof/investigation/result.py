"""The Investigation: verdict, findings and the tables behind them."""

from __future__ import annotations

import html
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pyarrow.compute as pc

from ragprof.analysis import critical_path
from ragprof.analysis.columns import texts
from ragprof.analysis.stages import STAGES
from ragprof.errors import RagprofError
from ragprof.investigation import wording
from ragprof.investigation.case import Case
from ragprof.investigation.finding import Finding
from ragprof.recording import Recording

if TYPE_CHECKING:
    from ragprof.profiles.model import Profile


@dataclass(frozen=True)
class Investigation:
    """What was found out. Times per request in ms; windows are UTC.

    verdict: cause_found or no_cause_found. summary: one sentence. findings: as in findings.json,
    the best first. requests: trace_id, operation, service, start, duration_ms, group. stages,
    operations_path and functions: baseline_ms, slow_ms, added_ms of each; the first two sum to the
    whole difference.
    """

    recording: Recording
    verdict: str
    summary: str
    findings: pd.DataFrame
    window: tuple[pd.Timestamp, pd.Timestamp]
    baseline_window: tuple[pd.Timestamp, pd.Timestamp]
    operation: str
    requests: pd.DataFrame
    stages: pd.DataFrame
    operations_path: pd.DataFrame
    functions: pd.DataFrame
    attributes: pd.DataFrame
    logs: pd.DataFrame
    metrics: pd.DataFrame
    changes: pd.DataFrame
    coverage: pd.DataFrame
    notes: list[str]
    _case: Case = field(repr=False)
    _findings: list[Finding] = field(repr=False)

    def finding(self, rank: int = 1) -> Finding:
        """One finding, with `evidence()`, the rows behind it. Raises RagprofError."""
        if not 1 <= rank <= len(self._findings):
            raise RagprofError(f"There is no finding {rank}; there are {len(self._findings)}.")
        return self._findings[rank - 1]

    def _trace(self, trace_id: str) -> tuple[np.ndarray, int]:
        """The spans of a trace, and its root: that of the request looked at, if it has several."""
        forest = self._case.forest
        rows = np.asarray(pc.equal(self._case.spans["trace_id"], trace_id), dtype=bool)
        spans = np.flatnonzero(rows[forest.row])
        if not len(spans):
            raise RagprofError(f"There is no trace {trace_id!r} in the recording.")
        roots = np.unique(forest.root[spans])
        looked_at = roots[np.isin(roots, self._case.roots)]
        return spans, int((looked_at if len(looked_at) else roots)[0])

    def waterfall(self, trace_id: str) -> pd.DataFrame:
        """The spans of a trace in tree order: span_id, parent_span_id, depth, service, name,
        stage, start_ms (from the first root's), duration_ms, status. Raises RagprofError."""
        spans, _ = self._trace(trace_id)
        forest, table = self._case.forest, self._case.spans
        children: dict[int, list[int]] = {}
        for span in spans[np.argsort(-forest.start[spans], kind="stable")]:
            children.setdefault(int(forest.parent[span]), []).append(int(span))
        order, stack = [], children[-1]  # what is done with its messages comes after it
        root = stack[-1]
        while stack:
            span = stack.pop()
            order.append(span)
            stack += children.get(span, [])
        picked = np.array(order)
        own, above, status = (
            texts(table[name].take(forest.row[picked]))
            for name in ("span_id", "parent_span_id", "status")
        )
        return pd.DataFrame(
            {
                "span_id": own,
                "parent_span_id": above,
                "depth": forest.depth[picked],
                "service": [forest.services[code] for code in forest.service[picked]],
                "name": [forest.names[code] for code in forest.name[picked]],
                "stage": [STAGES[code] for code in self._case.stage[picked]],
                "start_ms": (forest.start[picked] - forest.start[root]) / 1e6,
                "duration_ms": (forest.end - forest.start)[picked] / 1e6,
                "status": status,
            }
        )

    def critical_path(self, trace_id: str) -> pd.DataFrame:
        """Sections of a trace by time: span_id, service, name, stage, part (self, edge), start_ms,
        duration_ms; they sum to the root's duration exactly (column duration_ns)."""
        _, root = self._trace(trace_id)
        forest, sections = self._case.forest, self._case.sections
        rows = np.flatnonzero(forest.root[sections.span] == root)
        span = sections.span[rows]
        return pd.DataFrame(
            {
                "span_id": texts(self._case.spans["span_id"].take(forest.row[span])),
                "service": [forest.services[code] for code in forest.service[span]],
                "name": [forest.names[code] for code in forest.name[span]],
                "stage": [STAGES[code] for code in self._case.stage[span]],
                "part": [critical_path.PARTS[code] for code in sections.part[rows]],
                "start_ms": (sections.start[rows] - forest.start[root]) / 1e6,
                "duration_ms": (sections.end - sections.start)[rows] / 1e6,
                "duration_ns": (sections.end - sections.start)[rows],
            }
        )

    def profile(self, group: str) -> Profile:
        """The samples of the traces of a group (slow, baseline, other), weights per request."""
        from ragprof.profiles.samples import from_tables

        if group not in ("slow", "baseline", "other"):
            raise RagprofError(f"The groups are slow, baseline and other, not {group!r}.")
        member = (self.requests["group"] == group).to_numpy()
        keys = self._case.forest.trace_key[self._case.roots[member]]
        tables = [self.recording.table(name) for name in ("samples", "stacks", "frames")]
        return from_tables(
            *tables, trace_keys=keys.tolist(), requests=max(1, len(keys)), name=f"{group} requests"
        )

    def to_dict(self) -> dict[str, Any]:
        """findings.json as plain data (schema: findings.schema.json)."""
        counts = self.requests["group"].value_counts()
        return {
            "verdict": self.verdict,
            "summary": self.summary,
            "operation": self.operation,
            "window": [edge.isoformat() for edge in self.window],
            "baseline_window": [edge.isoformat() for edge in self.baseline_window],
            "requests": {name: int(counts.get(name, 0)) for name in ("slow", "baseline")},
            "findings": [
                {key: _plain(value) for key, value in row.items()}
                for row in self.findings.to_dict("records")
            ],
            "notes": self.notes,
            "coverage": {
                str(row["table"]): {
                    str(key): str(value) if key == "missing" else int(value)
                    for key, value in row.items()
                    if key != "table"
                }
                for row in self.coverage.to_dict("records")
            },
            "recording": {
                "path": str(self.recording.path.name),
                "window": [edge.isoformat() for edge in self.recording.window],
            },
        }

    def lines(self) -> list[str]:
        """The answer in three lines."""
        first = self.summary
        when = (
            f"{self.operation}: {(self.requests['group'] == 'slow').sum()} slow requests since "
            f"{self.window[0]:%H:%M:%S} UTC against {(self.requests['group'] == 'baseline').sum()}"
        )
        if self.findings.empty:
            return [first, when, "; ".join(self.notes) or "nothing beats the null"]
        top = self.findings.iloc[0]
        where = f"{top['function']} ({top['file']}:{top['line']})" if top["function"] else ""
        stacks = "" if len(self._case.samples.ms) else wording.NO_STACKS
        said = (where, top["resource"], "; ".join(top["for"][:2]), stacks)
        what = " · ".join(part for part in said if part)
        return [first, what, when]

    def write(self, out: Path) -> None:
        """findings.json in folder `out`, made when missing."""
        out = Path(out)
        out.mkdir(parents=True, exist_ok=True)
        data = json.dumps(self.to_dict(), indent=1, ensure_ascii=False, allow_nan=False)
        (out / "findings.json").write_text(data + "\n", encoding="utf-8")

    def _repr_html_(self) -> str:
        head = "".join(f"<p>{html.escape(line)}</p>" for line in self.lines())
        columns = [
            "rank",
            "kind",
            "stage",
            "service",
            "span",
            "function",
            "resource",
            "added_ms",
            "p_value",
        ]
        table = (
            self.findings[columns].to_html(index=False, escape=True) if len(self.findings) else ""
        )
        stages = self.stages.round(1).to_html(index=False, escape=True)
        try:
            from ragprof import plots

            picture = str(plots.contributions(self.stages)._repr_html_())
        except (ImportError, AttributeError, TypeError):
            picture = stages
        return f"<div>{head}{table}{picture}</div>"


def _plain(value: Any) -> Any:
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not np.isfinite(value):
        return None
    return value
