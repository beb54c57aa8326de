"""`ragprof profile SCRIPT | -m MODULE ARGUMENTS…`: run a program and see where its time goes."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ragprof.errors import RagprofError

if TYPE_CHECKING:
    from ragprof.profiles.model import Profile

ENGINES = ("sampler", "pyinstrument", "cprofile")  # a test compares it with the session's
PICTURES = (".svg", ".html")


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.usage = (
        "ragprof profile [--engine NAME] [--hz N] [--out FILE]... [--json] "
        "(SCRIPT | -m MODULE) [ARGUMENTS…]"
    )
    parser.add_argument(
        "--engine",
        choices=ENGINES,
        default="sampler",
        help="sampler: all threads, tasks and child processes; cprofile counts every call",
    )
    parser.add_argument("--hz", type=float, default=100, metavar="N", help="looks per second (100)")
    output_options(parser)
    parser.add_argument(
        "-m", dest="module", nargs=argparse.REMAINDER, metavar="MODULE", help="run a module"
    )
    parser.add_argument("program", nargs=argparse.REMAINDER, metavar="SCRIPT", help="and arguments")


def output_options(parser: argparse.ArgumentParser) -> None:
    """--out and --json, for every command that ends in a profile."""
    parser.add_argument(
        "--out",
        action="append",
        type=Path,
        default=[],
        metavar="FILE",
        help="write it: .svg .html .speedscope.json .pb.gz .collapsed .trace.json; may be repeated",
    )
    parser.add_argument("--json", action="store_true", help="answer with JSON on stdout")


def run(args: argparse.Namespace) -> int:
    from ragprof.profiling import programs

    if not 0 < args.hz <= 1000:
        raise RagprofError("--hz is above 0 and at most 1000; correct it")
    check_outputs(args.out)
    words = args.module if args.module is not None else args.program
    try:
        profile, code = programs.run_program(
            words,
            module=args.module is not None,
            engine=args.engine,
            hz=args.hz,
            stdout=sys.stderr.fileno() if args.json else None,
        )
    except programs.ProgramError as error:
        print(f"ragprof profile: {error}", file=sys.stderr)
        return error.exit_code
    try:
        tell(args, profile, {"engine": args.engine, "exit_code": code}, sys.stderr)
    except (RagprofError, OSError) as error:
        print(f"ragprof profile: {error}", file=sys.stderr)
        return code or 1
    return code


def check_outputs(paths: list[Path]) -> None:
    """Before anything runs: each file can be written. Raises RagprofError."""
    from ragprof.profiles import registry

    for path in paths:
        if path.suffix not in PICTURES:
            registry.for_name(path.name)
        if not path.absolute().parent.is_dir():
            raise RagprofError(f"{path.parent} does not exist; make the folder of --out first")


def save(profile: Profile, path: Path) -> None:
    """Write a profile as the name of the file says: a picture, or a format."""
    if path.suffix in PICTURES:
        from ragprof.flamegraph import html, svg

        made = svg(profile) if path.suffix == ".svg" else html(profile)
        path.write_text(made, "utf-8")
    else:
        from ragprof.cli.flamegraph import convert

        convert(profile, path)


def tell(args: argparse.Namespace, profile: Profile, more: dict[str, Any], stream: Any) -> None:
    """Write the files and say what was seen: the functions with the most time of their own."""
    for path in args.out:
        save(profile, path)
    if args.json:
        json.dump(
            {**more, **summary(profile), "files": [str(path) for path in args.out]}, sys.stdout
        )
        print()
        return
    from ragprof.flamegraph import FlameGraph

    print(FlameGraph(profile, title=profile.name).text(), file=stream)
    for note in profile.notes:
        print(f"note: {note}", file=stream)
    for path in args.out:
        print(f"written: {path}", file=stream)


def summary(profile: Profile, rows: int = 50) -> dict[str, Any]:
    """A profile for JSON: totals, notes, and its functions by self weight."""
    kind = profile.value_types[0]
    return {
        "name": profile.name,
        "samples": len(profile),
        "stacks": profile.stack_count,
        "total": profile.total(),
        "type": kind.type,
        "unit": kind.unit,
        "notes": list(profile.notes),
        "functions": profile.functions().head(rows).to_dict("records"),
    }
