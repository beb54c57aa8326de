"""The sections of the notebook `slo_report`: each shows itself."""

from __future__ import annotations

from html import escape
from typing import Any

import pandas as pd

from ragprof.errors import RagprofError
from ragprof.plots import Table, table
from ragprof.plots.picture import Picture
from ragprof.slo import pictures, status
from ragprof.slo.status import Status


class Page:
    """Something that shows itself as HTML, or as text; also several below each other."""

    def __init__(self, *parts: Any) -> None:
        self.parts = parts

    def _repr_html_(self) -> str:
        return "".join(part._repr_html_() for part in self.parts)

    def __repr__(self) -> str:
        return "\n\n".join(_text(part) for part in self.parts)


class Note:
    """A sentence."""

    def __init__(self, text: str, lead: bool = False) -> None:
        self.text, self.lead = text, lead

    def _repr_html_(self) -> str:
        kind = "ragprof-lead" if self.lead else "ragprof-muted"
        return f'<p class="{kind}">{escape(self.text)}</p>'

    def __repr__(self) -> str:
        return self.text


class Command:
    """A command to paste."""

    def __init__(self, text: str) -> None:
        self.text = text

    def _repr_html_(self) -> str:
        return f"<pre>{escape(self.text)}</pre>"

    def __repr__(self) -> str:
        return self.text


def read(
    recording: str | None = None,
    prometheus: str | None = None,
    objectives: str | None = None,
    window_days: float | None = None,
) -> Status:
    """The state of the objectives, from parameters as a notebook has them. Raises RagprofError."""
    if bool(recording) == bool(prometheus):
        raise RagprofError("name the source: either recording or prometheus")
    return status.read(recording or str(prometheus), objectives or None, window_days)


def headline(slo: Status) -> Page:
    """One sentence on all objectives."""
    gone = slo.exhausted
    unknown = [str(row["slo"]) for row in slo.budgets.to_dict("records") if row["reason"]]
    if gone:
        text = f"The error budget of {', '.join(gone)} is exhausted."
    elif len(slo.budgets):
        least = slo.budgets["budget_remaining_percentage"].astype(float)
        if least.isna().all():
            text = "Nothing is known of the budgets: there is no data."
        else:
            row = slo.budgets.loc[least.idxmin()]
            text = f"All budgets hold; {row['slo']} has least left, {least.min():.1f} %."
    else:
        text = "There is no objective with a budget."
    parts = [Title("Service level objectives"), Note(text, lead=True)]
    if unknown:
        parts.append(Note(f"Without events or data: {', '.join(unknown)}."))
    return Page(*parts)


class Title:
    """The heading of the page."""

    def __init__(self, text: str) -> None:
        self.text = text

    def _repr_html_(self) -> str:
        return f"<h1>{escape(self.text)}</h1>"

    def __repr__(self) -> str:
        return self.text


def budgets(slo: Status) -> Page:
    """One row per objective; those that are means below, without a budget."""
    parts: list[Any] = []
    if len(slo.budgets):
        columns = {
            "slo": "objective",
            "target": "target",
            "actual": "actual",
            "budget_remaining_percentage": "budget_left_percent",
            "budget_used_events": "bad_events",
            "budget_total_events": "allowed_events",
            "events": "events",
            "budget_remaining_minutes": "minutes_left",
            "coverage": "data_for_share",
            "reason": "note",
        }
        parts.append(_table(slo.budgets[list(columns)].rename(columns=columns)))
    if len(slo.means):
        parts.append(Note("Means have no events to budget: their value and trend."))
        parts.append(_table(slo.means[["slo", "target", "actual", "met", "trend", "events"]]))
    return Page(*parts)


def burn_downs(slo: Status) -> Page:
    """A picture per budget."""
    shown: list[Picture] = [pictures.burn_down(slo.burn_down(name), name) for name in slo.counted]
    return Page(*shown)


def burn_rates(slo: Status) -> Page:
    """Burn rates by window: 1 uses the budget up exactly at the window's end."""
    rows = [
        {"objective": row["slo"], **{f"over {k}": v for k, v in row["burn_rates"].items()}}
        for row in slo.budgets.to_dict("records")
    ]
    return Page(_table(pd.DataFrame(rows))) if rows else Page(Note("No budget, no burn rate."))


def alerts(slo: Status) -> Page:
    """Which rules would have fired."""
    found, problem = status.attempt(lambda: status.alerts(slo))
    if problem:
        return Page(Note(problem))
    fired = found[found["fired"] > 0]
    quiet = ", ".join(found.loc[found["fired"] == 0, "alert"])
    parts: list[Any] = [_table(fired)] if len(fired) else [Note("No alert would have fired.")]
    return Page(*parts, Note(f"Quiet: {quiet}.")) if quiet else Page(*parts)


def endpoints(slo: Status) -> Page:
    """The worst endpoints of each budget."""
    parts: list[Any] = []
    for name in slo.counted:
        parts += [Note(name), _table(slo.worst_endpoints(name).head(8))]
    return Page(*parts) if parts else Page(Note("No objective counts events."))


def stages(slo: Status) -> Page:
    """The slowest stages, and the command that investigates them."""
    found, problem = status.attempt(lambda: status.slow_stages(slo))
    if problem or not len(found):
        return Page(Note(problem or "There are no traces and no stage metrics."))
    columns = {"milliseconds": "per_slow_request_ms", "share": "share"}
    shown = found[["stage", *columns]].rename(columns=columns)
    return Page(_table(shown), Command(str(found["investigate"].iloc[0])))


def _table(frame: pd.DataFrame) -> Table:
    return table(frame)


def _text(part: Any) -> str:
    shown = getattr(part, "_repr_mimebundle_", None)
    if shown is not None:
        return str(shown()["text/plain"])
    return repr(part)
