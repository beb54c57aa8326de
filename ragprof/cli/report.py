"""`ragprof report [NOTEBOOK] -p key=value… --out DIR`: run a notebook headless, or schedule it."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from ragprof.errors import RagprofError


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("notebook", nargs="?", help="path of an .ipynb file or a bundled name")
    parser.add_argument(
        "-p",
        "--parameter",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="a parameter of the notebook; may be given several times",
    )
    parser.add_argument("--out", type=Path, metavar="DIR", help="folder for what it leaves")
    parser.add_argument("--list", action="store_true", help="list notebooks and their parameters")
    parser.add_argument("--json", action="store_true", help="answer with JSON")
    parser.add_argument(
        "--timeout", type=float, default=900, metavar="S", help="seconds for the whole run (900)"
    )
    parser.add_argument(
        "--cell-timeout", type=float, metavar="S", help="seconds for each cell (as --timeout)"
    )
    parser.add_argument(
        "--schedule", metavar="CRON", help="print an entry that runs it then, such as '0 7 * * 1'"
    )
    parser.add_argument(
        "--as",
        dest="form",
        choices=("cron", "systemd", "cronjob"),
        help="what kind of entry (cron)",
    )
    parser.add_argument("--image", metavar="NAME", help="container image of a cronjob")


def run(args: argparse.Namespace) -> int:
    from ragprof.reports import catalogue

    if args.list:
        entries = [catalogue.find(args.notebook)] if args.notebook else catalogue.bundled()
        if args.json:
            print(json.dumps([entry.to_dict() for entry in entries], indent=2))
        else:
            print("\n\n".join(_listed(entry) for entry in entries) or "no notebook is installed")
        return 0
    if not args.notebook:
        raise RagprofError("name a notebook; `ragprof report --list` shows those that there are")
    if args.timeout <= 0 or (args.cell_timeout is not None and args.cell_timeout <= 0):
        raise RagprofError("--timeout and --cell-timeout are seconds above 0; correct them")
    if args.form and not args.schedule:
        raise RagprofError("--as goes with --schedule; give the times, such as '0 7 * * 1'")
    if args.out is None:
        raise RagprofError("say with --out where the report goes, such as --out report")
    values = _values(args.parameter)
    if args.schedule:
        return _schedule(args, values)
    return _run(args, values)


def _run(args: argparse.Namespace, values: dict[str, str]) -> int:
    from ragprof.reports import runner

    try:
        page = runner.run(
            args.notebook,
            args.out,
            values,
            timeout=args.timeout,
            cell_timeout=args.cell_timeout,
            progress=None if args.json else runner.show_progress,
        )
    except runner.ReportError as error:
        if not args.json:
            raise
        print(json.dumps(dict(error.status), indent=2, ensure_ascii=False))
        print(f"ragprof report: {error}", file=sys.stderr)
        return 1
    if args.json:
        print((page.parent / "status.json").read_text("utf-8"), end="")
    else:
        print(page)
    return 0


def _schedule(args: argparse.Namespace, values: dict[str, str]) -> int:
    from ragprof.reports import catalogue, parameters, schedule

    entry = catalogue.find(args.notebook)
    checked = parameters.check(entry.parameters, values, entry.name)
    text = schedule.text(
        args.schedule,
        args.form or "cron",
        notebook=args.notebook,
        values={name: value for name, value in checked.items() if name in values},
        out=args.out,
        timeout=args.timeout,
        image=args.image,
    )
    print(json.dumps({"as": args.form or "cron", "entry": text}) if args.json else text)
    return 0


def _values(pairs: list[str]) -> dict[str, str]:
    values = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals or not name.strip():
            raise RagprofError(f"-p {pair!r} is not KEY=VALUE; write it as -p recording=PATH")
        values[name.strip()] = value
    return values


def _listed(entry: object) -> str:
    from ragprof.reports.catalogue import Entry

    assert isinstance(entry, Entry)
    lines = [f"{entry.name}  {entry.title}"]
    if entry.description:
        lines.append(f"  {entry.description}")
    for one in entry.parameters.values():
        kind = one.type + (" or none" if one.optional and one.default is not None else "")
        lines.append(f"  {one.name:<12} {kind}, {one.default!r}  {one.help}".rstrip())
    return "\n".join(lines)
