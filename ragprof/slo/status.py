"""The state of the objectives as tables: budgets, worst endpoints, slow stages, alerts."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from ragprof.errors import RagprofError
from ragprof.monitoring import indicators, shell
from ragprof.monitoring import rules as catalogue_rules
from ragprof.monitoring.catalogue_alerts import ALERTS, BURN_GROUP, burn_alert
from ragprof.monitoring.catalogue_objectives import BURN_RATES, OBJECTIVE_BY_NAME, OBJECTIVES
from ragprof.monitoring.promql import Selector
from ragprof.slo import budget, counters, history, objectives, replay, rulefile
from ragprof.slo.monitor import Counted, ErrorBudgetMonitor

if TYPE_CHECKING:
    from ragprof.recording import Recording


@dataclass(frozen=True)
class Status:
    """All objectives of one source; every table is a DataFrame, times are UTC.

    `budgets`: one row per objective with the keys of `calculate_error_budget`; `means`: those
    without events; `counted`: the events behind each budget, by objective.
    """

    source: str | Recording
    subject: str
    """The source as a command line names it."""
    budgets: pd.DataFrame
    means: pd.DataFrame
    counted: dict[str, Counted]
    monitor: ErrorBudgetMonitor

    @property
    def exhausted(self) -> list[str]:
        """Objectives whose budget is gone."""
        return [
            str(row["slo"])
            for row in self.budgets.to_dict("records")
            if row["budget_remaining_percentage"] is not None
            and row["budget_remaining_percentage"] <= 0
        ]

    def to_dict(self) -> dict[str, Any]:
        """For JSON: budgets and means; unknown is null."""
        return {
            "source": self.subject,
            "objectives": [each.error_budget().to_dict() for each in self.counted.values()],
            "means": self.means.astype(object).where(self.means.notna(), None).to_dict("records"),
            "exhausted": self.exhausted,
        }

    def burn_down(self, slo: str) -> pd.DataFrame:
        """time, remaining (share of the budget) over the objective's window."""
        found = self.counted[slo]
        begin = found.since
        if len(found.total.begin):  # before the first point there is nothing to see
            begin = max(begin, float(found.total.begin.min()))
        at, left = budget.burn_down(
            found.total, found.bad, found.objective.target, begin, found.until
        )
        return pd.DataFrame({"time": pd.to_datetime(at, unit="s", utc=True), "remaining": left})

    def worst_endpoints(self, slo: str) -> pd.DataFrame:
        """endpoint, events, bad_events, bad_share, budget_share: what each took of the budget."""
        found = self.counted[slo]
        whole = found.objective
        asked = indicators.counters(whole.indicator)
        names = sorted(
            {one.labels.get("endpoint", "") for one in found.samples.series[asked.total]}
        )
        allowed = (1 - whole.target) * found.total.between(found.since, found.until)
        rows = []
        for name in names:
            total, failed = _of_endpoint(found, asked, name)
            share = failed / total if total else None
            rows.append((name, total, failed, share, failed / allowed if allowed else None))
        table = pd.DataFrame(
            rows, columns=["endpoint", "events", "bad_events", "bad_share", "budget_share"]
        )
        return table.sort_values("bad_events", ascending=False, ignore_index=True)


def read(
    source: str | Path | Recording,
    objectives_file: str | Path | None = None,
    window_days: float | None = None,
    at: float | None = None,
) -> Status:
    """The state of the objectives from a Prometheus (URL) or a Recording (or its path).

    Raises ObjectiveError, SourceError, RecordingError.
    """
    from ragprof import recording as recordings

    chosen = objectives.read(objectives_file)
    opened: str | Recording
    if isinstance(source, str) and source.startswith(("http://", "https://")):
        opened, subject = source, shell.CONFIG
    elif isinstance(source, (str, Path)):
        opened, subject = recordings.open(source), str(source)
    else:
        opened, subject = source, str(source.path)
    monitor = ErrorBudgetMonitor(opened, chosen, at)
    counted = {
        each.name: monitor.counted(each.name, window_days) for each in chosen if each.has_budget
    }
    budgets = pd.DataFrame([each.error_budget().to_dict() for each in counted.values()])
    means = pd.DataFrame(
        [monitor.mean(each.name, window_days) for each in chosen if not each.has_budget]
    )
    return Status(opened, subject, budgets, means, counted, monitor)


def slow_stages(status: Status, slow: str = "p95") -> pd.DataFrame:
    """stage, milliseconds (per slow request), share, command; the slowest stage first.

    From a Recording's traces: the critical path of the slowest 5 % of the requests of the
    busiest operation. From Prometheus: the 95th percentile of each stage's histogram.
    """
    if isinstance(status.source, str):
        return _stages_of_prometheus(status)
    return _stages_of_traces(status, slow)


def alerts(status: Status, progress: replay.Progress | None = None) -> pd.DataFrame:
    """alert, severity, fired, firing_s, first, last: which rules would have fired in the window.

    The rules of the catalogue and the burn alerts of the objectives, replayed by Prometheus.
    Raises BackfillError when it is not installed, HistoryError without any points.
    """
    extra = [
        burn_alert(each.objective, rate)
        for each in status.counted.values()
        if each.objective not in OBJECTIVES
        for rate in BURN_RATES
    ]
    own = [each.objective for each in status.counted.values()]
    chosen = [
        each
        for each in ALERTS
        if each.group != BURN_GROUP or OBJECTIVE_BY_NAME[each.objective] in own
    ]
    rules = rulefile.of_content(catalogue_rules.groups([*chosen, *extra]), "the catalogue")
    windows = list(status.counted.values())
    since = min(each.since for each in windows) if windows else time.time() - 30 * budget.DAY
    until = max(each.until for each in windows) if windows else time.time()
    where: dict[str, Any] = (
        {"prometheus": status.source, "since": replay.iso(since), "until": replay.iso(until)}
        if isinstance(status.source, str)
        else {"recording": status.source.path}
    )
    rows = []
    with history.open_history(history.metrics_of(rules), **where) as found:
        for rule in rules:
            one = replay.replay(found.prometheus, rule, found.since, found.until, progress=progress)
            begins = [each.fired for each in one.fired if each.fired is not None]
            rows.append(
                (
                    rule.name,
                    rule.labels.get("severity", ""),
                    len(one.fired),
                    sum(each.seconds(one.until) for each in one.fired),
                    pd.to_datetime(min(begins), unit="s", utc=True) if begins else pd.NaT,
                    pd.to_datetime(max(begins), unit="s", utc=True) if begins else pd.NaT,
                )
            )
    table = pd.DataFrame(rows, columns=["alert", "severity", "fired", "firing_s", "first", "last"])
    return table.sort_values("firing_s", ascending=False, ignore_index=True)


def _of_endpoint(found: Counted, asked: indicators.Counters, endpoint: str) -> tuple[float, float]:
    def events(selector: Selector | None) -> float:
        if selector is None:
            return 0.0
        series = [
            one
            for one in found.samples.series[selector]
            if one.labels.get("endpoint", "") == endpoint
        ]
        return counters.events(series).between(found.since, found.until)

    total = events(asked.total)
    failed = events(asked.bad) if asked.bad is not None else total - events(asked.good)
    return total, max(failed, 0.0)


_STAGE_QUERIES = (
    ("retrieve", "rag_retrieval_latency_seconds"),
    ("generate", "rag_generation_latency_seconds"),
    ("first token", "rag_time_to_first_token_seconds"),
    ("document processing", "rag_document_processing_duration_seconds"),
)


def _stages_of_prometheus(status: Status) -> pd.DataFrame:
    from ragprof.slo.prometheus import Prometheus

    assert isinstance(status.source, str)
    at = max((each.until for each in status.counted.values()), default=time.time())
    rows = []
    with Prometheus(status.source) as prometheus:
        for stage, metric in _STAGE_QUERIES:
            query = f"histogram_quantile(0.95, sum by (le) (rate({metric}_bucket[1d])))"
            values = [value for _, value in prometheus.query(query, at) if np.isfinite(value)]
            if values:
                rows.append((stage, values[0] * 1000))
    return _stage_table(rows, shell.command(status.subject, "SlowStages", at, {}))


def _stages_of_traces(status: Status, slow: str) -> pd.DataFrame:
    from ragprof.analysis import critical_path, populations
    from ragprof.analysis.forest import build
    from ragprof.analysis.stages import STAGES, stages

    assert not isinstance(status.source, str)
    spans = status.source.table("spans")
    if not spans.num_rows:
        return _stage_table([], "")
    forest = build(spans)
    name, roots = max(populations.operations(forest).items(), key=lambda item: len(item[1]))
    took = (forest.end - forest.start)[roots]
    slowest = set(roots[took >= np.quantile(took, float(slow.removeprefix("p")) / 100)].tolist())
    stage = stages(forest, spans)
    sections = critical_path.sections(forest)
    inside = np.isin(forest.root[sections.span], list(slowest))
    times = np.bincount(
        stage[sections.span[inside]],
        weights=(sections.end - sections.start)[inside] / 1e6,
        minlength=len(STAGES),
    ) / max(1, len(slowest))
    rows = [(STAGES[number], float(ms)) for number, ms in enumerate(times) if ms > 0]
    words = f"ragprof investigate '{shell.plain(status.subject)}' --slow {slow}"
    return _stage_table(rows, f"{words} --operation {_shell_quoted(name)}")


def _stage_table(rows: Sequence[tuple[str, float]], command: str) -> pd.DataFrame:
    table = pd.DataFrame(rows, columns=["stage", "milliseconds"])
    whole = table["milliseconds"].sum()
    table["share"] = table["milliseconds"] / whole if whole else 0.0
    table["investigate"] = command
    return table.sort_values("milliseconds", ascending=False, ignore_index=True)


def _shell_quoted(text: str) -> str:
    import shlex

    return shlex.quote("".join(each for each in text if each.isprintable()))


def attempt(what: Callable[[], pd.DataFrame]) -> tuple[pd.DataFrame, str]:
    """The table, or an empty one and the reason: a report shows what there is."""
    try:
        return what(), ""
    except RagprofError as error:
        return pd.DataFrame(), str(error)
