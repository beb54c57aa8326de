"""`ragprof investigate REC`: why requests were slow, in three lines."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING

from ragprof.errors import RagprofError

if TYPE_CHECKING:
    import pandas as pd


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("recording", type=Path, help="NAME.ragprof or NAME.ragprof.zip")
    parser.add_argument(
        "--slow", nargs="+", default=["p95"], metavar="p95|300ms|TRACE_ID", help="which are slow"
    )
    parser.add_argument("--window", metavar="A..B", help="slow window, ISO times with zone")
    parser.add_argument("--baseline", metavar="A..B|REC2", help="baseline window or recording")
    parser.add_argument("--operation", metavar="NAME", help="name of the root span")
    parser.add_argument("--out", type=Path, metavar="DIR", help="write findings.json, summary.md")
    parser.add_argument("--json", action="store_true", help="print findings.json")


def run(args: argparse.Namespace) -> int:
    import tempfile

    from ragprof import recording as recordings
    from ragprof.investigation.run import investigate

    with tempfile.TemporaryDirectory(prefix="ragprof-") as folder:
        recording = recordings.open(args.recording)
        window = _window(args.window) if args.window else None
        baseline = None
        if args.baseline and ".." in args.baseline and not Path(args.baseline).exists():
            baseline = _window(args.baseline)
        elif args.baseline:
            other = recordings.open(Path(args.baseline))
            window, baseline = window or recording.window, other.window
            merge = getattr(recordings, "merge", None)
            if merge is None:
                raise RagprofError("Recordings cannot be merged: give the baseline as A..B.")
            recording = merge([recording, other], Path(folder) / "both.ragprof")
        found = investigate(
            recording,
            slow=args.slow if len(args.slow) > 1 else args.slow[0],
            window=window,
            baseline=baseline,
            operation=args.operation,
        )
        if args.out:
            found.write(args.out)
        if args.json:
            print(json.dumps(found.to_dict(), ensure_ascii=False, allow_nan=False))
        else:
            print("\n".join(found.lines()))
    return 0


def _window(text: str) -> tuple[pd.Timestamp, pd.Timestamp]:
    import pandas as pd

    begin, _, end = text.partition("..")
    try:
        low, high = pd.Timestamp(begin), pd.Timestamp(end)
    except ValueError as error:
        raise RagprofError(f"{text!r} is not a window ({error}): write A..B in ISO 8601.") from None
    if low is pd.NaT or high is pd.NaT or low.tzinfo is None or high.tzinfo is None:
        raise RagprofError(f"{text!r} has no time zone: write for example 2026-01-01T10:00:00Z.")
    if low >= high:
        raise RagprofError(f"{text!r} ends before it begins: write the earlier time first.")
    return low.tz_convert("UTC"), high.tz_convert("UTC")
