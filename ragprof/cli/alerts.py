"""`ragprof alerts replay RULES`: when alert rules would have fired, and whether that was right."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ragprof.slo.history import History
    from ragprof.slo.incidents import Incident
    from ragprof.slo.replay import Progress, Replayed
    from ragprof.slo.rulefile import AlertRule


def arguments(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(title="actions", metavar="ACTION", required=True)
    replay = actions.add_parser(
        "replay",
        help="replay alert rules on a recording or on the history of a Prometheus",
        description="Replay alert rules on history. Expressions are evaluated by Prometheus.",
    )
    replay.add_argument(
        "rules",
        nargs="?",
        type=Path,
        metavar="RULES",
        help="rule file, PrometheusRule or folder (the rules of `ragprof monitoring export`)",
    )
    replay.add_argument("--recording", type=Path, metavar="REC", help="replay on a recording")
    replay.add_argument("--prometheus", metavar="URL", help="replay on a Prometheus")
    replay.add_argument("--since", default="30d", metavar="30d|TIME", help="window of --prometheus")
    replay.add_argument("--until", default="now", metavar="1h|TIME", help="its end (now)")
    replay.add_argument("--alert", action="append", metavar="NAME", help="only this alert")
    replay.add_argument(
        "--interval", type=float, default=60, metavar="S", help="for groups without one (60)"
    )
    replay.add_argument("--incidents", type=Path, metavar="TOML", help="labelled incidents")
    replay.add_argument(
        "--threshold",
        action="append",
        type=float,
        default=[],
        metavar="X",
        help="replay with this threshold as well; may be given several times",
    )
    replay.add_argument("--json", action="store_true", help="answer with JSON")


def run(args: argparse.Namespace) -> int:
    from ragprof.errors import RagprofError
    from ragprof.monitoring import rules as catalogue
    from ragprof.slo import history, incidents, rulefile

    if args.interval <= 0:
        raise RagprofError("--interval is a number of seconds above 0; correct it")
    rules = (
        rulefile.read(args.rules, args.interval)
        if args.rules
        else rulefile.of_content(catalogue.groups(), "the catalogue")
    )
    if args.alert:
        known = {rule.name for rule in rules}
        for name in args.alert:
            if name not in known:
                raise RagprofError(f"there is no alert {name!r}; there are {', '.join(known)}")
        rules = [rule for rule in rules if rule.name in args.alert]
    labelled = incidents.read(args.incidents) if args.incidents else None
    with (
        history.open_history(
            history.metrics_of(rules),
            recording=args.recording,
            prometheus=args.prometheus,
            since=args.since,
            until=args.until,
        ) as found,
        _progress(args.json, len(rules)) as told,
    ):
        replayed = _replay(rules, found, args.threshold, told)
    if args.json:
        print(json.dumps(_answer(found, replayed, labelled), indent=1, allow_nan=False))
    else:
        _print(found, replayed, labelled)
    return 0


def _replay(
    rules: list[AlertRule], found: History, thresholds: list[float], told: Progress
) -> list[tuple[Replayed, list[tuple[float, Replayed]]]]:
    from ragprof.slo import replay
    from ragprof.slo.history import window_notes

    answers = []
    for rule in rules:
        one = replay.replay(found.prometheus, rule, found.since, found.until, progress=told)
        one.notes.extend(window_notes(rule, found))
        swept = (
            replay.sweep(
                found.prometheus, rule, thresholds, found.since, found.until, progress=told
            )
            if thresholds
            else []
        )
        answers.append((one, swept))
    return answers


def _answer(
    found: History,
    replayed: list[tuple[Replayed, list[tuple[float, Replayed]]]],
    labelled: list[Incident] | None,
) -> dict[str, Any]:
    from ragprof.slo.replay import iso

    return {
        "source": found.source,
        "window": [iso(found.since), iso(found.until)],
        "notes": found.notes,
        "alerts": [
            one.to_dict(labelled)
            | (
                {"sweep": [{"threshold": at, **each.to_dict(labelled)} for at, each in swept]}
                if swept
                else {}
            )
            for one, swept in replayed
        ],
    }


def _print(
    found: History,
    replayed: list[tuple[Replayed, list[tuple[float, Replayed]]]],
    labelled: list[Incident] | None,
) -> None:
    from ragprof.slo.replay import iso

    print(f"{found.source}: {iso(found.since)} to {iso(found.until)}")
    for note in found.notes:
        print(f"  {note}")
    for one, swept in replayed:
        print(f"\n{one.rule.name}: {_summary(one, labelled)}")
        for each in one.fired[:20]:
            told = ("alertname", "severity")
            labels = ", ".join(f"{k}={v}" for k, v in each.labels.items() if k not in told)
            end = iso(each.ended) or "still"
            print(f"  {iso(each.fired)} to {end} ({each.seconds(one.until):.0f} s) {labels}")
        if len(one.fired) > 20:
            print(f"  … and {len(one.fired) - 20} more; --json has all")
        for note in one.notes:
            print(f"  note: {note}")
        for threshold, other in swept:
            print(f"  with {threshold:g}: {_summary(other, labelled)}")


def _summary(one: Replayed, labelled: list[Incident] | None) -> str:
    fired = one.fired
    total = sum(each.seconds(one.until) for each in fired)
    pending = len(one.episodes) - len(fired)
    text = f"fired {len(fired)} times, {total:.0f} s together; {pending} only pending"
    if labelled is None:
        return text
    score = one.score(labelled)
    precision = "-" if score.precision is None else f"{score.precision:.2f}"
    recall = "-" if score.recall is None else f"{score.recall:.2f}"
    return f"{text}; precision {precision}, recall {recall}"


@contextmanager
def _progress(quiet: bool, rules: int) -> Iterator[Progress]:
    """A bar on the standard error of a terminal, one step a rule and query."""
    if quiet or not sys.stderr.isatty():
        yield lambda name, done, of: None
        return
    from rich.console import Console
    from rich.progress import Progress as Bar

    with Bar(console=Console(stderr=True), transient=True) as bar:
        tasks: dict[str, Any] = {}

        def told(name: str, done: int, of: int) -> None:
            if name not in tasks:
                tasks[name] = bar.add_task(name, total=of)
            bar.update(tasks[name], completed=done)

        yield told
