"""`ragprof compare A B`: what changed between profiles or recordings; a gate with `--fail-if`."""

from __future__ import annotations

import argparse
import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ragprof.cli import GATE, OK, TOO_LITTLE_DATA

if TYPE_CHECKING:
    from ragprof.flamegraph.inputs import Input
    from ragprof.profiles.gate import Condition, Verdict


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("profiles", type=Path, nargs="+", metavar="IN", help="A B [C…], the "
                        "earlier first: profiles, folders of repeats, recordings; one recording "
                        "alone: its fast requests against its slow ones")  # fmt: skip
    parser.add_argument("--fail-if", action="append", default=[], metavar="CONDITION",
                        help="exit with 3 when surely true: self(NAME)>+10%%, total(NAME)>+5ms, "
                        "p95(SPAN)>+10%%; NAME is a regular expression")  # fmt: skip
    parser.add_argument("--traces", metavar="slow|fast|ID,…", help="requests of recordings")
    parser.add_argument("--filter", action="append", default=[], metavar="KEY=VALUE,…",
                        help="span=…, stage=…, thread=… or a label; * is a wildcard")  # fmt: skip
    parser.add_argument("--normalise", action="store_true", help="compare shares of the totals")
    parser.add_argument("--out", type=Path, metavar="FILE", help="X.html or X.svg: the last "
                        "against the first as a flame graph")  # fmt: skip
    parser.add_argument("--rows", type=int, default=15, help="functions shown; default 15")
    parser.add_argument("--trusted", action="store_true", help="read pstats files, which can do "
                        "harm")  # fmt: skip
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(args: argparse.Namespace) -> int:
    from ragprof.flamegraph import comparison as views
    from ragprof.flamegraph import inputs
    from ragprof.profiles import gate
    from ragprof.profiles.compare import compare
    from ragprof.profiles.model import ProfileError

    conditions = [gate.condition(text) for text in args.fail_if]
    wanted = inputs.filters(args.filter)
    given = _loaded(args)
    profiles = [inputs.filtered(one, wanted) for one in given]
    found = compare(profiles[0], profiles[1], *profiles[2:], normalize=args.normalise)
    verdicts = [
        (one.path, _judged(asked, given[0], one)) for asked in conditions for one in given[1:]
    ]
    if args.out is not None:
        graph = found.flamegraph()
        if args.out.suffix not in (".svg", ".html"):
            raise ProfileError(f"{args.out}: a comparison is written as X.html or X.svg.")
        try:
            args.out.write_text(
                graph.svg() if args.out.suffix == ".svg" else graph.html(), encoding="utf-8"
            )
        except OSError as error:
            raise ProfileError(f"{args.out} cannot be written: {error.strerror}.") from error
    if args.json:
        print(json.dumps(_plain(args, found, verdicts), ensure_ascii=False, allow_nan=False))
    else:
        print(views.text_table(found, args.rows))
        for path, verdict in verdicts:
            print(_told(verdict, path if len(given) > 2 else None))
        if args.out is not None:
            print(args.out)
    outcomes = {verdict.outcome for _, verdict in verdicts}
    if "failed" in outcomes:
        return GATE
    return TOO_LITTLE_DATA if "too little data" in outcomes else OK


def _loaded(args: argparse.Namespace) -> list[Input]:
    from ragprof.flamegraph import inputs
    from ragprof.profiles.model import ProfileError

    paths: list[Path] = args.profiles
    if len(paths) == 1:
        if args.traces or not inputs.is_recording(paths[0]):
            raise ProfileError(
                "a comparison needs two profiles, or one recording without --traces, whose fast "
                "requests are then compared with its slow ones."
            )
        return [inputs.load(paths[0], group) for group in ("fast", "slow")]
    return [inputs.load(path, args.traces, trusted=args.trusted) for path in paths]


def _judged(asked: Condition, first: Input, other: Input) -> Verdict:
    from ragprof.profiles import gate

    if not (first.knows(asked) or other.knows(asked)):
        what = "span" if asked.of_spans else "function"
        raise gate.ConditionError(
            f"{asked.text!r}: no {what} of {first.path} and {other.path} matches, so the "
            "gate would always pass: correct the name."
        )
    before, least = first.measured(asked)
    after, also = other.measured(asked)
    return gate.judge(asked, before, after, least=max(least, also))


def _told(verdict: Verdict, path: Path | None) -> str:
    """The verdict in one line."""
    where = f" ({path})" if path is not None else ""
    asked = verdict.condition
    if verdict.outcome == "too little data":
        return f"{asked.text}{where}: too little data, {verdict.reason}"

    def text(value: float) -> str:
        if not asked.relative:
            return f"{value:+.4g}"
        return "from nothing" if math.isinf(value) else f"{value * 100:+.1f} %"

    return (
        f"{asked.text}{where}: {verdict.outcome}; {text(verdict.change)} "
        f"(95 % interval {text(verdict.low)} to {text(verdict.high)}, "
        f"{verdict.counts[0]} against {verdict.counts[1]}): {verdict.reason}"
    )


def _plain(args: argparse.Namespace, found: Any, verdicts: list[tuple[Path, Verdict]]) -> Any:
    from ragprof.flamegraph import comparison as views

    def number(value: float) -> float | str | None:
        return None if math.isnan(value) else "Infinity" if math.isinf(value) else value

    first = found.profiles[0]
    return {
        "profiles": found.labels(),
        "unit": "share" if found.normalized else first.value_types[0].unit,
        "totals": [profile.total() for profile in found.profiles],
        "functions": views.changes(found, args.rows),
        "gate": [
            {
                "condition": verdict.condition.text,
                "path": str(path),
                "outcome": verdict.outcome,
                "before": number(verdict.before),
                "after": number(verdict.after),
                "change": number(verdict.change),
                "interval": [number(verdict.low), number(verdict.high)],
                "counts": list(verdict.counts),
                "reason": verdict.reason,
            }
            for path, verdict in verdicts
        ],
    }
