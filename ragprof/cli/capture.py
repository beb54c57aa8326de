"""`ragprof capture`: one window of a running system as a recording."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ragprof.capturing.live import Plan, Progress, Result

CONFIG = "ragprof.toml"


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--config", type=Path, default=Path(CONFIG), help=f"sources and secrets ({CONFIG})"
    )
    parser.add_argument("--since", metavar="DURATION", help='window until now, such as "30m"')
    parser.add_argument("--start", metavar="TIME", help="begin of the window, ISO 8601 with zone")
    parser.add_argument("--end", metavar="TIME", help="end of the window (now)")
    parser.add_argument(
        "--slow", default="", metavar="HOW", help="p95 or 750ms: slow requests and a fair baseline"
    )
    parser.add_argument("--out", type=Path, help="folder to write (capture-TIME.ragprof)")
    parser.add_argument("--dry-run", action="store_true", help="say how much it is, fetch nothing")
    parser.add_argument(
        "--attach", action="append", type=int, default=[], metavar="PID", help="stacks by py-spy"
    )
    parser.add_argument("--attach-seconds", type=float, default=10.0, metavar="S")
    parser.add_argument("--json", action="store_true", help="summary as JSON on stdout")


def run(args: argparse.Namespace) -> int:
    from ragprof.capturing import config, live

    settings = config.read(args.config)
    window = live.window_of(settings, args.since, args.start, args.end)
    if args.dry_run:
        sources = config.connect(settings)
        try:
            plan = live.make_plan(settings, window, sources, args.slow)
        finally:
            for source in sources:
                source.close()
        if args.json:
            print(json.dumps(_plan(plan)))
        else:
            print("\n".join(plan_lines(plan)))
        live.check_size(settings, plan)
        return 0
    out = args.out or live.default_out(window)
    with _shown(quiet=args.json) as (confirm, progress):
        result = live.run(
            settings,
            window,
            out,
            slow=args.slow,
            attach=args.attach,
            attach_seconds=args.attach_seconds,
            confirm=confirm,
            progress=progress,
        )
    if args.json:
        print(json.dumps(_summary(result)))
    else:
        _tell(result)
    for each in result.missing[:5]:
        print(f"ragprof capture: not fetched: {each['why']}", file=sys.stderr)
    if result.missing:
        print(
            f"ragprof capture: {len(result.missing)} of {len(result.plan.pieces)} pieces are "
            "missing; run the same command again to fetch them",
            file=sys.stderr,
        )
    return 0 if result.complete else 1


def plan_lines(plan: Plan) -> list[str]:
    """The plan for people: what is asked of whom, and how much it is."""
    from ragprof.manifest import iso

    start, end = (iso(at)[:19] + "Z" for at in (plan.window.start, plan.window.end))
    begun = ", begun before" if plan.went_on else ""
    lines = [f"{start} to {end} ({plan.window.seconds:,.0f} s){begun}"]
    for total in plan.totals():
        known = total["unknown"] < total["pieces"]
        size = f"about {total['rows']:,} rows, {_size(total['bytes'])}" if known else "unknown"
        lines.append(f"  {total['source']:<16} {total['pieces']:>5} requests   {size}")
    if plan.choice is not None:
        for each in plan.choice.operations:
            lines.append(
                f"  {each['operation']}: {each['slow_kept']} of {each['slow']} slow requests "
                f"(from {each['threshold_ms']:g} ms), {each['baseline_kept']} of "
                f"{each['requests'] - each['slow']} others"
            )
    return lines


@contextmanager
def _shown(*, quiet: bool) -> Iterator[tuple[Any, Progress]]:
    """The plan and a bar with rates on stderr; the bar on a terminal only."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    console = Console(stderr=True, highlight=False)
    bar = Progress(
        TextColumn("capturing"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[rows]}"),
        console=console,
        disable=quiet or not console.is_terminal,
        transient=True,
    )
    task = bar.add_task("capturing", rows="", total=None)

    def confirm(plan: Plan) -> None:
        if not quiet:
            for line in plan_lines(plan):
                console.print(line, markup=False, soft_wrap=True)
        bar.start()

    def progress(done: int, total: int, rows: Mapping[str, int]) -> None:
        elapsed = bar.tasks[0].elapsed or 0.0
        count = sum(rows.values())
        rate = f"{count:,} rows" + (f", {count / elapsed:,.0f} a second" if elapsed else "")
        bar.update(task, completed=done, total=total, rows=rate)

    try:
        yield confirm, progress
    finally:
        bar.stop()


def _tell(result: Result) -> None:
    rows = ", ".join(f"{count:,} {name}" for name, count in result.rows.items())
    rate = sum(result.rows.values()) / max(result.seconds, 1e-9)
    print(f"{result.path}: {rows or 'nothing'}")
    print(
        f"{result.seconds:.1f} s, {rate:,.0f} rows a second, {result.requests:,} requests "
        f"({result.repeated:,} repeated), {_size(result.received)} received"
    )
    if not result.rows.get("samples"):
        print(
            "No stacks: an investigation stops at the span. Add [sources.stacks] with the "
            "services' /debug/pprof/kept, or --attach PID."
        )


def _plan(plan: Plan) -> dict[str, Any]:
    return {
        "window": {"start": plan.window.start, "end": plan.window.end},
        "rows": plan.rows,
        "sources": plan.totals(),
        "pieces": [
            {"source": name, "query": piece.text, "rows": piece.rows, "bytes": piece.bytes}
            for name, piece in plan.pieces
        ],
        "chosen": None if plan.choice is None else plan.choice.operations,
    }


def _summary(result: Result) -> dict[str, Any]:
    fields = asdict(result)
    fields.pop("plan")
    return {
        "recording": str(fields.pop("path")),
        "complete": result.complete,
        "went_on": result.plan.went_on,
        **fields,
    }


def _size(count: int) -> str:
    size = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000 or unit == "GB":
            break
        size /= 1000
    return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
