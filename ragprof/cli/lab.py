"""`ragprof lab REC`: the investigation of a recording in JupyterLab."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from ragprof.errors import RagprofError


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("recording", type=Path, help="NAME.ragprof or NAME.ragprof.zip")
    parser.add_argument("--notebook", default="investigate_slow_traces", help="another notebook")
    parser.add_argument(
        "-p",
        "--parameter",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="a parameter of the notebook; may be given several times",
    )
    parser.add_argument("--dir", type=Path, help="folder for the notebook (ragprof-lab)")
    parser.add_argument("--port", type=int, help="port on 127.0.0.1 (8888, or the next free one)")
    parser.add_argument("--no-browser", action="store_true", help="only print the address")
    parser.add_argument(
        "--json", action="store_true", help="write the notebook, say where, start nothing"
    )


def run(args: argparse.Namespace) -> int:
    from ragprof.reports import lab

    values: dict[str, str] = {"recording": str(args.recording)}
    for pair in args.parameter:
        name, equals, value = pair.partition("=")
        if not equals:
            raise RagprofError(f"-p {pair!r} is not KEY=VALUE; write it as -p slow=300ms")
        values[name.strip()] = value
    notebook = lab.prepare(args.notebook, values, (args.dir or Path("ragprof-lab")).absolute())
    if args.json:
        print(json.dumps({"notebook": str(notebook)}))
        return 0
    print(f"{notebook}: run all cells with Run > Run All Cells", flush=True)
    return lab.serve(notebook, browser=not args.no_browser, port=args.port)
