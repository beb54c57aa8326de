"""Findings against truths: was the injected fault named, and at which rank?"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ragprof.errors import RagprofError

NO_CAUSE = "no_cause_found"


@dataclass(frozen=True)
class Judgement:
    """One run: the rank at which each part of the truth was first named; None: never.

    `hit` is the rank of the first finding that has stage, kind and the function or resource.
    For `none` there is nothing to name: `hit` is 1 when no cause was found, else None.
    """

    folder: str
    fault: str
    seed: int
    stage: int | None
    kind: int | None
    function: int | None
    hit: int | None
    first: str

    @property
    def at_1(self) -> bool:
        return self.hit == 1

    @property
    def at_3(self) -> bool:
        return self.hit is not None and self.hit <= 3


def judge(folder: Path) -> Judgement:
    """Compare `findings.json` with `truth.json` in a demo's folder."""
    truth, found = _read(folder / "truth.json"), _read(folder / "findings.json")
    findings = sorted(found["findings"], key=lambda finding: finding["rank"])
    named = {"folder": str(folder), "fault": truth["fault"], "seed": int(truth["seed"])}
    first = _in_words(findings[0]) if findings else NO_CAUSE
    if not truth["kind"] and truth["fault"] != "none":
        raise RagprofError(
            f"{folder / 'truth.json'} has no kind: the fault told no truth, so nothing can be "
            "compared."
        )
    if truth["fault"] == "none":
        silent = found["verdict"] == NO_CAUSE
        return Judgement(
            **named, stage=None, kind=None, function=None, hit=1 if silent else None, first=first
        )
    if found["verdict"] == NO_CAUSE:
        findings = []
    return Judgement(
        **named,
        stage=_rank(findings, lambda finding: finding["stage"] == truth["stage"]),
        kind=_rank(findings, lambda finding: finding["kind"] == truth["kind"]),
        function=_rank(findings, lambda finding: _named(finding, truth)),
        hit=_rank(
            findings,
            lambda finding: (
                finding["stage"] == truth["stage"]
                and finding["kind"] == truth["kind"]
                and _named(finding, truth)
            ),
        ),
        first=first,
    )


def _rank(findings: Iterable[Mapping[str, Any]], match: Any) -> int | None:
    return next((int(finding["rank"]) for finding in findings if match(finding)), None)


def _named(finding: Mapping[str, Any], truth: Mapping[str, Any]) -> bool:
    """Whether the function, its direct caller (both are in the truth) or the resource is named."""
    function, resource = finding.get("function"), finding.get("resource")
    wanted = truth.get("resource")
    return bool(function and function in truth["functions"]) or bool(
        resource and wanted and resource == wanted
    )


def _in_words(finding: Mapping[str, Any]) -> str:
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
    """A Markdown table of judgements with the shares at rank 1 and 3 below."""
    rows = list(judgements)
    lines = [
        "| fault | seed | stage | kind | function or resource | all three | first finding |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        ranks = (row.stage, row.kind, row.function, row.hit)
        cells = " | ".join("-" if rank is None else f"rank {rank}" for rank in ranks)
        lines.append(f"| {row.fault} | {row.seed} | {cells} | {row.first} |")
    at_1, at_3 = sum(row.at_1 for row in rows), sum(row.at_3 for row in rows)
    lines += ["", f"Right at rank 1: {at_1} of {len(rows)}; within rank 3: {at_3} of {len(rows)}."]
    return "\n".join(lines)
