"""`ragprof mark TEXT`: note a change in the recording that runs."""

from __future__ import annotations

import argparse
import json

# Written out so that the command answers at once; a test compares it with changes.KINDS.
KINDS = ("deploy", "restart", "config", "alert", "scaling", "mark")


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("text", help="what changed, for people")
    parser.add_argument("--kind", choices=KINDS, default="mark", help="kind of change")
    parser.add_argument("--service", default="", metavar="NAME", help="service concerned")
    parser.add_argument(
        "--recording", default="", metavar="NAME.ragprof", help="which, when several run"
    )
    parser.add_argument("--json", action="store_true", help="say where it went as JSON")


def run(args: argparse.Namespace) -> int:
    from ragprof.capturing import marks

    recorder = marks.choose(args.recording)
    marks.post(recorder, {"text": args.text, "kind": args.kind, "service": args.service})
    if args.json:
        print(json.dumps({"recording": recorder.recording, "text": args.text, "kind": args.kind}))
    else:
        print(f"marked in {recorder.recording}: {args.text}")
    return 0
