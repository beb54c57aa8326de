"""`ragprof flamegraph IN`: a profile or a recording as a picture, a page, or a tree of text."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING

from ragprof.cli import OK

if TYPE_CHECKING:
    from ragprof.profiles.model import Profile


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("profile", type=Path, metavar="IN", help="a profile of any format, a "
                        "folder of repeats, or a recording")  # fmt: skip
    parser.add_argument("--out", type=Path, metavar="FILE", help="X.svg, X.html, "
                        "X.speedscope.html (the speedscope viewer), or a format by its name: "
                        "X.speedscope.json, X.pb.gz, …; without it a tree of text")  # fmt: skip
    parser.add_argument("--invert", action="store_true", help="innermost functions first")
    parser.add_argument("--filter", action="append", default=[], metavar="KEY=VALUE,…",
                        help="span=…, stage=…, thread=… or a label; * is a wildcard")  # fmt: skip
    parser.add_argument("--traces", metavar="slow|fast|ID,…", help="requests of a recording")
    parser.add_argument("--against", type=Path, metavar="IN2", help="a baseline: red is more")
    parser.add_argument("--normalise", action="store_true", help="compare shares of the totals")
    parser.add_argument("--lines", action="store_true", help="also source lines, where at hand; "
                        "they become part of the page")  # fmt: skip
    parser.add_argument("--title", default="", help="default: the name of the profile")
    parser.add_argument("--trusted", action="store_true", help="read pstats files, which can do "
                        "harm")  # fmt: skip
    parser.add_argument("--json", action="store_true", help="print totals and functions as JSON")


def run(args: argparse.Namespace) -> int:
    from ragprof.flamegraph import inputs
    from ragprof.flamegraph.layout import layout
    from ragprof.profiles.model import ProfileError

    wanted = inputs.filters(args.filter)
    given = inputs.load(args.profile, args.traces, trusted=args.trusted)
    profile = inputs.filtered(given, wanted)
    if not len(profile):
        why = "no sample fits the filter" if wanted else "it has no samples"
        raise ProfileError(f"{args.profile}: {why}.")
    baseline = None
    if args.against is not None:
        against = inputs.load(args.against, args.traces, trusted=args.trusted)
        baseline = inputs.filtered(against, wanted)
    if args.out is not None:
        _write(args, profile, baseline)
    if args.json:
        boxes = layout(profile, baseline, inverted=args.invert, normalized=args.normalise)
        functions = profile.functions()
        kind = profile.value_types[0]
        described = {
            "name": profile.name,
            "unit": kind.unit,
            "type": kind.type,
            "total": profile.total(),
            "samples": len(profile),
            "stacks": profile.stack_count,
            "requests": None if given.requests is None else len(given.requests),
            "pruned_share": boxes.pruned_share,
            "notes": list(profile.notes),
            "out": None if args.out is None else str(args.out),
            "functions": functions.head(50).to_dict("records"),
        }
        print(json.dumps(described, ensure_ascii=False, allow_nan=False))
    elif args.out is None:
        _print(args, profile, baseline)
    else:
        print(args.out)
    return OK


def _write(args: argparse.Namespace, profile: Profile, baseline: Profile | None) -> None:
    """The file that ``--out`` names, in the form that its name says."""
    from ragprof.flamegraph import html, svg
    from ragprof.flamegraph.source import SourceView
    from ragprof.profiles.model import ProfileError

    name = args.out.name.lower()
    if name.endswith(".speedscope.html"):
        from ragprof.flamegraph import speedscope

        text = speedscope.page(profile, args.title)
    elif name.endswith((".html", ".htm")):
        lines = ""
        if args.lines:
            lines = f"<details><summary>Lines</summary>{SourceView(profile).html()}</details>"
        text = html(profile, baseline, title=args.title, inverted=args.invert,
                    normalized=args.normalise, more=lines)  # fmt: skip
    elif name.endswith(".svg"):
        text = svg(profile, baseline, title=args.title, inverted=args.invert,
                   normalized=args.normalise)  # fmt: skip
    else:
        convert(profile, args.out)
        return
    try:
        args.out.write_text(text, encoding="utf-8")
    except OSError as error:
        raise ProfileError(f"{args.out} cannot be written: {error.strerror or error}.") from error


def convert(profile: Profile, out: Path) -> None:
    """Another format; what it cannot carry is said on the standard error."""
    import sys
    import warnings

    from ragprof.profiles.write import write_profile

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        write_profile(profile, out)
    for warning in caught:
        print(f"{out}: {warning.message}", file=sys.stderr)


def _print(args: argparse.Namespace, profile: Profile, baseline: Profile | None) -> None:
    from rich.console import Console

    from ragprof.flamegraph.source import SourceView
    from ragprof.flamegraph.terminal import tree

    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = 160  # a pipe has no width; lines are cut at it
    console.print(
        tree(profile, baseline, title=args.title, inverted=args.invert, normalized=args.normalise)
    )
    if args.lines:
        console.print(SourceView(profile).text(), markup=False)
    for note in profile.notes:
        console.print(note, style="bright_black", markup=False)
