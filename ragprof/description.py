"""What a Recording holds, for people: as text and as HTML."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from html import escape
from pathlib import Path
from typing import Any


def text(path: Path, manifest: dict[str, Any], problems: Mapping[str, str]) -> str:
    """Lines of plain text: window, tables, and what was refused, lost or redacted."""
    facts = list(_facts(path, manifest))
    width = max(len(name) for name, _ in facts)
    lines = [f"{name:{width}}  {value}" for name, value in facts]
    lines += ["", f"{'table':10}{'rows':>14}{'bytes':>16}"]
    for name, rows, size, problem in _tables(manifest, problems):
        lines.append(f"{name:10}{rows:>14}{size:>16}" + (f"  {problem}" if problem else ""))
    return "\n".join(lines)


def html(path: Path, manifest: dict[str, Any], problems: Mapping[str, str]) -> str:
    """The same as a self-contained fragment; everything from the Recording is escaped."""
    facts = "".join(
        f"<tr><th style='text-align:left'>{escape(name)}</th>"
        f"<td style='text-align:left'>{escape(value)}</td></tr>"
        for name, value in _facts(path, manifest)
    )
    tables = "".join(
        f"<tr><td style='text-align:left'>{escape(name)}</td><td>{rows}</td><td>{size}</td>"
        f"<td style='text-align:left'>{escape(problem)}</td></tr>"
        for name, rows, size, problem in _tables(manifest, problems)
    )
    return (
        f"<table>{facts}</table><table><thead><tr><th style='text-align:left'>table</th>"
        f"<th>rows</th><th>bytes</th><th></th></tr></thead><tbody>{tables}</tbody></table>"
    )


def _facts(path: Path, manifest: dict[str, Any]) -> Iterator[tuple[str, str]]:
    yield "recording", str(path)
    start, end = manifest["window"]
    yield "window", f"{start} to {end}"
    yield "written by", ", ".join(f"{k} {v}" for k, v in manifest["versions"].items())
    for source in manifest["sources"]:
        yield "source", _short(source)
    for query in manifest["queries"]:
        yield "query", _short(query)
    for part in manifest.get("slices", []):
        yield "slice", _short(part)
    if manifest.get("merged"):
        yield "merged", f"{len(manifest['merged'])} recordings"
    for reason, count in manifest["refused"].items():
        yield "refused", f"{count:,}: {reason}"
    for table, lost in manifest["lost"].items():
        yield "lost", f"{table}: {_short(lost)}"
    for redacted in manifest["redacted"]:
        yield "redacted", _short(redacted.get("replaced", {}))


def _short(value: Any) -> str:
    if isinstance(value, dict):
        value = ", ".join(f"{key}: {item}" for key, item in value.items() if item is not None)
    value = " ".join(str(value).split())
    return value if len(value) <= 200 else f"{value[:199]}…"


def _tables(
    manifest: dict[str, Any], problems: Mapping[str, str]
) -> Iterator[tuple[str, str, str, str]]:
    for name, problem in problems.items():
        entry = manifest["tables"].get(name)
        rows, size = (f"{entry['rows']:,}", f"{entry['bytes']:,}") if entry else ("", "")
        yield name, rows, size, problem
