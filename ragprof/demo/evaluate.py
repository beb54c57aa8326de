"""Findings against truths: was the injected fault named, and at which rank?"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ragprof.errors import RagprofError

NO_CAUSE = "no_cause_found"
PARTS = ("stage", "kind", "function", "hit")
"""What is judged: the stage, the kind, the function or resource, and all three in one finding."""

HEADS = {
    "stage": "stage",
    "kind": "kind",
    "function": "function or resource",
    "hit": "all three",
}
Finding = Mapping[str, Any]
Truth = Mapping[str, Any]


@dataclass(frozen=True)
class Judgement:
    """One run: the rank at which each part of the truth was first named; None: never.

    `hit` is the rank of the first finding that has stage, kind and the function or resource. Of two
    causes at once both must be named: then 1 says that they are the first two findings.
    For a fault that is none there is nothing to name: `hit` is 1 when no cause was found, else
    None. truths: (stage, kind, function or resource) of each cause. shares: of several causes, the
    true part of the added time of each and the found one (NaN when it was not found).
    """

    folder: str
    fault: str
    seed: int
    stage: int | None
    kind: int | None
    function: int | None
    hit: int | None
    first: str
    truths: tuple[tuple[str, str, str], ...] = ()
    shares: tuple[tuple[float, float | None], ...] = field(default=())

    @property
    def null(self) -> bool:
        """Whether nothing had changed."""
        return not self.truths

    @property
    def at_1(self) -> bool:
        return self.within("hit", 1)

    @property
    def at_3(self) -> bool:
        return self.within("hit", 3)

    def within(self, part: str, rank: int) -> bool:
        """Whether a part was named at this rank or before."""
        found: int | None = getattr(self, part)
        return found is not None and found <= rank


def judge(folder: Path) -> Judgement:
    """Compare `findings.json` with `truth.json` in a demo's folder."""
    truth, found = _read(folder / "truth.json"), _read(folder / "findings.json")
    findings = sorted(found["findings"], key=lambda finding: finding["rank"])
    first = _in_words(findings[0]) if findings else NO_CAUSE
    null = truth.get("verdict") == NO_CAUSE or truth["fault"] == "none"
    if not truth["kind"] and not null:
        raise RagprofError(
            f"{folder / 'truth.json'} has no kind: the fault told no truth, so nothing can be "
            "compared."
        )
    silent = found["verdict"] == NO_CAUSE
    fault, seed = str(truth["fault"]), int(truth["seed"])
    if null:
        hit = 1 if silent else None
        return Judgement(str(folder), fault, seed, None, None, None, hit, first)
    causes = [truth, *truth.get("also", ())]
    findings = [] if silent else findings
    ranks = {part: _rank(findings, causes, part) for part in PARTS}
    return Judgement(
        str(folder),
        fault,
        seed,
        **ranks,
        first=first,
        truths=tuple(
            (one["stage"], one["kind"], (*one["functions"], one.get("resource") or "")[0])
            for one in causes
        ),
        shares=_shares(findings, causes) if len(causes) > 1 else (),
    )


def _rank(findings: Sequence[Finding], causes: Sequence[Truth], part: str) -> int | None:
    """The rank at which the last of the causes is named, less those that may stand before it."""
    ranks = [
        next((int(one["rank"]) for one in findings if _matches(one, cause, part)), None)
        for cause in causes
    ]
    known = [rank for rank in ranks if rank is not None]
    return max(1, max(known) - len(causes) + 1) if len(known) == len(causes) else None


def _matches(finding: Finding, truth: Truth, part: str) -> bool:
    if part == "hit":
        return all(_matches(finding, truth, one) for one in PARTS[:3])
    if part == "function":
        return _named(finding, truth)
    return bool(finding[part] == truth[part])


def _named(finding: Finding, truth: Truth) -> bool:
    """Whether the function, its direct caller (both are in the truth) or the resource is named."""
    function, resource = finding.get("function"), finding.get("resource")
    wanted = {truth.get("resource"), *truth.get("resources", ())} - {"", None}
    return bool(function and function in truth["functions"]) or resource in wanted


def _shares(
    findings: Sequence[Finding], causes: Sequence[Truth]
) -> tuple[tuple[float, float | None], ...]:
    """True and found part of each cause in what all of them add."""
    added = [
        next((float(one["added_ms"]) for one in findings if _matches(one, cause, "hit")), None)
        for cause in causes
    ]
    total = sum(each for each in added if each is not None)
    return tuple(
        (float(cause["share"]), None if each is None else each / total)
        for cause, each in zip(causes, added, strict=True)
    )


def accuracy(judgements: Iterable[Judgement]) -> list[dict[str, Any]]:
    """One row per fault, and one for all faults together (fault ""): runs, and of each part the
    shares of runs in which it was named at rank 1 (`stage_at_1`) and within rank 3."""
    rows = [each for each in judgements if not each.null]
    groups = {name: [row for row in rows if row.fault == name] for name in _faults(rows)}
    return [_accuracy(name, group) for name, group in [*groups.items(), ("", rows)] if group]


def _accuracy(fault: str, rows: Sequence[Judgement]) -> dict[str, Any]:
    shares = {
        f"{part}_at_{rank}": sum(row.within(part, rank) for row in rows) / len(rows)
        for part in PARTS
        for rank in (1, 3)
    }
    return {"fault": fault, "runs": len(rows), **shares}


def chance(judgements: Iterable[Judgement]) -> list[dict[str, Any]]:
    """What guessing would get on the same runs, as rows of `accuracy`.

    commonest: always the answers that are true most often. uniform: any of the answers that are
    true in some run, each as likely. Both know the list of answers, which an investigation does
    not: they are the hardest guesses to beat.
    """
    truths = [one for each in judgements for one in each.truths]
    if not truths:
        return []
    commonest: dict[str, Any] = {"fault": "commonest", "runs": len(truths)}
    uniform: dict[str, Any] = {"fault": "uniform", "runs": len(truths)}
    answers: dict[str, Callable[[tuple[str, str, str]], Hashable]] = {
        "stage": lambda truth: truth[0],
        "kind": lambda truth: truth[1],
        "function": lambda truth: truth[2],
        "hit": lambda truth: truth,
    }
    for part, answer in answers.items():
        counts = Counter(answer(truth) for truth in truths)
        for rank in (1, 3):
            right = sum(count for _, count in counts.most_common(rank))
            commonest[f"{part}_at_{rank}"] = right / len(truths)
            uniform[f"{part}_at_{rank}"] = min(1.0, rank / len(counts))
    return [commonest, uniform]


def false_alarms(judgements: Iterable[Judgement]) -> dict[str, int]:
    """runs in which nothing had changed, and in how many of them a cause was named."""
    rows = [each for each in judgements if each.null]
    return {"runs": len(rows), "false": sum(not row.at_1 for row in rows)}


def evaluation(judgements: Iterable[Judgement]) -> dict[str, Any]:
    """All of it as plain data: runs, faults, chance, false_alarms."""
    rows = list(judgements)
    return {
        "runs": [asdict(each) | {"at_1": each.at_1, "at_3": each.at_3} for each in rows],
        "faults": accuracy(rows),
        "chance": chance(rows),
        "false_alarms": false_alarms(rows),
    }


def _faults(rows: Iterable[Judgement]) -> list[str]:
    return list(dict.fromkeys(row.fault for row in rows))


def _in_words(finding: Finding) -> str:
    what = finding.get("function") or finding.get("resource") or finding.get("span") or ""
    return f"{finding['stage']}/{finding['kind']} {what}".strip()


def _read(path: Path) -> dict[str, Any]:
    try:
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise RagprofError(
            f"{path} does not exist: evaluate takes folders made by `ragprof demo`."
        ) from None
    except json.JSONDecodeError as error:
        raise RagprofError(f"{path} is not JSON (line {error.lineno}): record again.") from None
    return found


def table(judgements: Iterable[Judgement]) -> str:
    """Markdown: each run, the accuracy per fault with the level of chance, the false alarms."""
    rows = list(judgements)
    parts = " | ".join(HEADS.values())
    lines = [f"| fault | seed | {parts} | first finding |", "|---|---|---|---|---|---|---|"]
    for row in rows:
        if row.null:
            cells = " | ".join(["", "", "", "silent" if row.at_1 else "false alarm"])
        else:
            ranks = [getattr(row, part) for part in PARTS]
            cells = " | ".join("-" if rank is None else f"rank {rank}" for rank in ranks)
        lines.append(f"| {row.fault} | {row.seed} | {cells} | {row.first}{_said(row)} |")
    if any(not row.null for row in rows):
        lines += ["", *_accuracy_table(rows)]
    faults = [row for row in rows if not row.null]
    at_1, at_3 = sum(row.at_1 for row in faults), sum(row.at_3 for row in faults)
    lines += ["", f"Right at rank 1: {at_1} of {len(faults)}; within rank 3: {at_3}."]
    nulls = false_alarms(rows)
    if nulls["runs"]:
        lines.append(f"A cause named where nothing changed: {nulls['false']} of {nulls['runs']}.")
    return "\n".join(lines)


def _said(row: Judgement) -> str:
    """The shares of several causes, as they are and as found."""
    if not row.shares:
        return ""
    found = ", ".join("-" if each is None else f"{each:.0%}" for _, each in row.shares)
    return f" (shares {found}; truly {', '.join(f'{true:.0%}' for true, _ in row.shares)})"


def _accuracy_table(rows: Sequence[Judgement]) -> list[str]:
    heads = " | ".join(f"{head} at 1 | at 3" for head in HEADS.values())
    lines = [f"| fault | runs | {heads} |", "|---|---|" + "---|---|" * len(PARTS)]
    names = {"": "**all faults**", "commonest": "guessing the commonest", "uniform": "guessing any"}
    for each in [*accuracy(rows), *chance(rows)]:
        cells = " | ".join(f"{each[f'{part}_at_{rank}']:.0%}" for part in PARTS for rank in (1, 3))
        runs = "" if each["fault"] in ("commonest", "uniform") else each["runs"]
        lines.append(f"| {names.get(each['fault'], each['fault'])} | {runs} | {cells} |")
    return lines
