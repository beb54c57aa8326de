"""`ragprof investigate REC`: why requests were slow, in three lines."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING

from ragprof.errors import RagprofError

if TYPE_CHECKING:
    import pandas as pd

    from ragprof.recording import Recording


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "recording", type=Path, help="NAME.ragprof, NAME.ragprof.zip, or with --alert a .toml"
    )
    parser.add_argument(
        "--slow", nargs="+", default=["p95"], metavar="p95|300ms|TRACE_ID", help="which are slow"
    )
    parser.add_argument("--window", metavar="A..B", help="slow window, ISO times with zone")
    parser.add_argument("--baseline", metavar="A..B|REC2", help="baseline window or recording")
    parser.add_argument("--operation", metavar="NAME", help="name of the root span")
    parser.add_argument(
        "--alert",
        metavar="PAYLOAD.json|NAME@TIME",
        help="what Alertmanager sent, or an alert by name and time: looks around it",
    )
    parser.add_argument(
        "--label", action="append", default=[], metavar="KEY=VALUE", help="a label of that alert"
    )
    parser.add_argument(
        "--source",
        type=Path,
        metavar="DIR",
        help="a checkout of the service: hot lines, and commits between two service.versions",
    )
    parser.add_argument(
        "--out",
        type=Path,
        metavar="DIR",
        help="write the report: HTML, notebook, findings.json, summary.md",
    )
    parser.add_argument("--json", action="store_true", help="print findings.json")


def run(args: argparse.Namespace) -> int:
    import tempfile

    from ragprof import recording as recordings
    from ragprof.investigation.run import investigate
    from ragprof.reports import investigation as report
    from ragprof.reports.runner import show_progress

    with tempfile.TemporaryDirectory(prefix="ragprof-") as temporary:
        operation = args.operation
        if args.alert:
            recording, operation = _of_alert(args, Path(temporary))
        else:
            recording = recordings.open(args.recording)
        window, between = args.window or "", args.baseline or ""
        if between and (".." not in between or Path(between).exists()):
            other = recordings.open(Path(between))
            window, between = window or _text(recording.window), _text(other.window)
            folder = args.out or Path(temporary)
            folder.mkdir(parents=True, exist_ok=True)
            recording = recordings.merge([recording, other], folder / "both.ragprof")
        found = investigate(
            recording,
            slow=args.slow if len(args.slow) > 1 else args.slow[0],
            window=report.window_of(window, "window"),
            baseline=report.window_of(between, "baseline"),
            operation=operation,
            source=args.source,
        )
        if args.out:
            report.write(
                found,
                args.out,
                progress=show_progress,
                slow=" ".join(args.slow),
                window=window,
                baseline=between,
                operation=operation or "",
                source=str(args.source or ""),
            )
        if args.json:
            print(json.dumps(found.to_dict(), ensure_ascii=False, allow_nan=False))
        else:
            print("\n".join(found.lines()))
            if args.out:
                print(f"Report: {args.out / 'report.html'}")
    return 0


def _of_alert(args: argparse.Namespace, temporary: Path) -> tuple[Recording, str | None]:
    """The recording around the alert, and the operation that it is about."""
    from ragprof.reports import alert as alerts

    labels = {}
    for pair in args.label:
        name, equals, value = pair.partition("=")
        if not equals:
            raise RagprofError(f"--label {pair!r} is not KEY=VALUE; write endpoint=/api/v1/ask")
        labels[name] = value
    alert = alerts.read(args.alert, labels)
    folder = args.out or temporary
    folder.mkdir(parents=True, exist_ok=True)
    recording = alerts.recording_of(args.recording, alert, folder)
    return recording, args.operation or alerts.operation_of(recording, alert)


def _text(window: tuple[pd.Timestamp, pd.Timestamp]) -> str:
    return "..".join(edge.isoformat() for edge in window)
