"""summary.md: at most ten lines to paste into an incident channel."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from ragprof.plots.scales import ms_text

if TYPE_CHECKING:
    from ragprof.investigation.result import Investigation

LINES = 10


def text(found: Investigation, report: Path | None = None) -> str:
    """The finding, where it is, the best evidence for and against, the stages, the report."""
    counts = found.requests["group"].value_counts()
    begin, end = found.window
    lines = [
        f"**{_one_line(found.summary)}**",
        f"`{_code(found.operation)}`, {begin:%Y-%m-%d %H:%M:%S} to {end:%H:%M:%S} UTC: "
        f"{counts.get('slow', 0)} slow requests against {counts.get('baseline', 0)}",
    ]
    rows: list[dict[str, Any]] = [
        {str(key): value for key, value in row.items()} for row in found.findings.to_dict("records")
    ]
    if rows:
        first = rows[0]
        place = " · ".join(
            f"`{_code(str(part))}`"
            for part in (
                first["function"],
                f"{first['file']}:{first['line']}" if first["file"] else "",
            )
            if part
        )
        lines.append(
            f"- {first['kind']} in {first['stage']}, {_one_line(str(first['service']))}"
            f"{', p = ' + format(first['p_value'], '.2g')}{': ' + place if place else ''}"
        )
        lines += [f"- for: {_one_line(one)}" for one in list(first["for"])[:1]]
        if first["p95_without_ms"] == first["p95_without_ms"]:  # not NaN
            lines.append(
                f"- were it as before: p95 {ms_text(float(first['p95_without_ms']))} "
                f"({ms_text(float(first['p95_without_low_ms']))} to "
                f"{ms_text(float(first['p95_without_high_ms']))}) instead of "
                f"{ms_text(float(first['p95_ms']))}"
            )
        lines += [f"- against: {_one_line(one)}" for one in list(first["against"])[:1]]
        lines += [
            f"- also: {one['kind']} in {one['stage']} {ms_text(float(one['added_ms']), sign=True)}"
            for one in rows[1:2]
        ]
    else:
        lines += [f"- {_one_line(note)}" for note in found.notes[:4]]
    stages = ", ".join(
        f"{row.stage} {ms_text(float(row.added_ms), sign=True)}"
        for row in found.stages.head(4).itertuples()
    )
    lines.append(f"- stages: {stages}")
    if report is not None:
        lines.append(f"- report: {report}")
    return "\n".join(lines[:LINES]) + "\n"


def _one_line(text_: str) -> str:
    """Text from the telemetry without line breaks and without a way to mention or format."""
    flat = " ".join(str(text_).split())
    for sign in "\\`*<>@|[]":
        flat = flat.replace(sign, " " if sign == "`" else f"\\{sign}")
    return flat


def _code(text_: str) -> str:
    return " ".join(text_.replace("`", "'").split())
