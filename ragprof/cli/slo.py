"""`ragprof slo report`: what is left of the error budgets, and how fast they burn."""

from __future__ import annotations

import argparse
import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ragprof.slo.status import Status

NOTEBOOK = "slo_report"


def arguments(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(title="actions", metavar="ACTION", required=True)
    report = actions.add_parser(
        "report",
        help="budgets and burn rates of all objectives",
        description="Budgets and burn rates of all objectives, by events.",
    )
    report.add_argument("--recording", type=Path, metavar="REC", help="of a recording")
    report.add_argument("--prometheus", metavar="URL", help="of a Prometheus, until now")
    report.add_argument(
        "--objectives", type=Path, metavar="FILE", help="TOML or OpenSLO (those of the catalogue)"
    )
    report.add_argument(
        "--window-days", type=float, metavar="N", help="instead of each objective's own window"
    )
    report.add_argument("--out", type=Path, metavar="DIR", help="write the report as a page, too")
    report.add_argument(
        "--gate", action="store_true", help="exit code 3 when a budget is exhausted"
    )
    report.add_argument("--json", action="store_true", help="answer with JSON")


def run(args: argparse.Namespace) -> int:
    from ragprof.cli import GATE, OK
    from ragprof.errors import RagprofError
    from ragprof.slo import status

    if (args.recording is None) == (args.prometheus is None):
        raise RagprofError("name the source: either --recording REC or --prometheus URL")
    if args.window_days is not None and not 0 < args.window_days <= 366:
        raise RagprofError("--window-days is above 0 and at most 366; correct it")
    found = status.read(args.recording or args.prometheus, args.objectives, args.window_days)
    page = _page(args) if args.out else None
    if args.json:
        answer = found.to_dict() | ({"report": str(page)} if page else {})
        print(json.dumps(answer, indent=1, allow_nan=False))
    else:
        print("\n".join(lines(found)))
        if page:
            print(f"Report: {page}")
    return GATE if args.gate and found.exhausted else OK


def lines(found: Status) -> list[str]:
    """The state in a few lines per objective."""
    said = []
    for one in found.to_dict()["objectives"]:
        left = one["budget_remaining_percentage"]
        head = f"{one['slo']}: target {one['target']:.4%}, {_share(one['actual'])} over "
        said.append(head + f"{one['window_days']:g} days")
        if left is None:
            said.append(f"  {one['reason']}")
            continue
        said.append(
            f"  budget: {left:.1f} % left; {one['budget_used_events']:.0f} of "
            f"{one['budget_total_events']:.1f} bad events of {one['events']:.0f} "
            f"({one['budget_used_minutes']:.1f} of {one['budget_total_minutes']:.1f} min)"
        )
        rates = ", ".join(f"{window} {_number(rate)}" for window, rate in one["burn_rates"].items())
        ends = one["seconds_to_exhaustion"]
        when = "" if ends is None else f"; exhausted in {_duration(ends)}"
        said.append(f"  burn rate: {rates}{when}")
        if one["coverage"] < 0.99:
            said.append(f"  data for {one['coverage']:.2%} of the window")
        if one["reason"]:
            said.append(f"  {one['reason']}")
    for mean in found.to_dict()["means"]:
        value = "unknown" if mean["actual"] is None else f"{mean['actual']:.3f}"
        met = {None: mean["reason"], True: "met", False: "not met"}[mean["met"]]
        said.append(f"{mean['slo']}: {value} against {mean['target']:g}: {met}; no budget, a mean")
    return said


def _page(args: argparse.Namespace) -> Path:
    from ragprof.reports import runner

    values: dict[str, Any] = {
        "recording": args.recording and args.recording.absolute(),
        "prometheus": args.prometheus,
        "objectives": args.objectives and args.objectives.absolute(),
        "window_days": args.window_days,
    }
    given = {name: value for name, value in values.items() if value is not None}
    progress = None if args.json else runner.show_progress
    return runner.run(NOTEBOOK, args.out, given, progress=progress)


def _share(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.4%} good"


def _number(value: float | None) -> str:
    return "-" if value is None or not math.isfinite(value) else f"{value:.3g}"


def _duration(seconds: float) -> str:
    for unit, size in (("days", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.0f} s"
