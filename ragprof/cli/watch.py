"""`ragprof watch SUBJECT`: takes alerts on loopback and has the report ready."""

from __future__ import annotations

import argparse
import json
import signal
import sys
import time
from pathlib import Path
from types import FrameType


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "subject", type=Path, help="a recording (also one being written) or a capture's .toml"
    )
    parser.add_argument(
        "--out", type=Path, default=Path("ragprof-watch"), metavar="DIR", help="(ragprof-watch)"
    )
    parser.add_argument("--port", type=int, default=9465, metavar="N", help="on 127.0.0.1 (9465)")
    parser.add_argument(
        "--again",
        default="30m",
        metavar="30m",
        help="the same alert is not investigated sooner than that (30m)",
    )
    parser.add_argument(
        "--timeout", type=float, default=900, metavar="S", help="seconds of one investigation (900)"
    )
    parser.add_argument("--keep", type=int, default=20, metavar="N", help="reports to keep (20)")
    parser.add_argument(
        "--megabytes", type=float, default=500, metavar="N", help="of all reports (500)"
    )
    parser.add_argument("--json", action="store_true", help="tell of each alert as a JSON line")


def run(args: argparse.Namespace) -> int:
    from ragprof.errors import RagprofError
    from ragprof.reports.watch import Limits, Watch
    from ragprof.reports.watch_server import serving
    from ragprof.slo.rulefile import seconds

    if args.timeout <= 0 or args.keep < 1 or args.megabytes <= 0 or not 0 <= args.port < 65536:
        raise RagprofError("--timeout, --keep and --megabytes are above 0; correct them")
    if not args.subject.exists():
        raise RagprofError(f"{args.subject} does not exist; name a recording or a capture's .toml")
    limits = Limits(seconds(args.again), args.timeout, args.keep, args.megabytes)

    def told(text: str) -> None:
        line = json.dumps({"time": time.time(), "text": text}) if args.json else text
        print(line, flush=True)

    watch = Watch(args.subject, args.out, limits, told)

    def stop(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, stop)
    try:
        with serving(watch, args.port) as url:
            print(f"ragprof watch: send webhooks to {url}/alerts", file=sys.stderr, flush=True)
            watch.run()
    except KeyboardInterrupt:
        watch.stop()
        return 130
    finally:
        signal.signal(signal.SIGTERM, before)
    return 0
