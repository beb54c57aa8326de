"""Source lines with their own time beside them, where the source is at hand.

Only regular files that end in ``.py`` are read: a profile from elsewhere may name any file. Nothing
is read unless the lines are asked for, and what is shown leaves with the page: the caller decides.
"""

from __future__ import annotations

import linecache
import stat
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ragprof.flamegraph.colours import FONT, SELF_SHARES, variables
from ragprof.flamegraph.units import share_text, weight_text
from ragprof.profiles.lines import by_line
from ragprof.profiles.model import Profile

if TYPE_CHECKING:
    import pandas as pd

LARGEST = 5_000_000
AROUND = 2
"""Lines shown above and below those that took time."""


@dataclass(frozen=True)
class SourceView:
    """The hottest functions of a profile, line by line. ``functions``: how many of them."""

    profile: Profile
    functions: int = 10

    def table(self) -> pd.DataFrame:
        """`ragprof.profiles.lines.by_line`, with the column ``source``; empty where not at hand."""
        table = by_line(self.profile)
        texts = {file: _lines_of(file) for file in table["file"].unique()}
        table["source"] = [
            texts[file][line - 1].strip() if line <= len(texts[file]) else ""
            for file, line in zip(table["file"], table["line"], strict=True)
        ]
        return table

    def text(self) -> str:
        """The listing as plain text."""
        parts = []
        for head, lines in self._listings():
            parts.append(head)
            parts += [
                f"{own:>9} {share:>7} {number:>6}  {source}"
                for own, share, number, source, _ in lines
            ]
            parts.append("")
        return "\n".join(parts) if parts else "No lines: the profile does not say which ones ran."

    def html(self) -> str:
        """The listing as HTML without scripts; everything from files is escaped."""
        body = []
        for head, lines in self._listings():
            rows = "".join(
                f'<tr class="l{level}"><td>{own}</td><td>{share}</td><td>{number}</td>'
                f"<td><pre>{escape(source) or ' '}</pre></td></tr>"
                for own, share, number, source, level in lines
            )
            body.append(f"<table><caption>{escape(head)}</caption>{rows}</table>")
        inside = "".join(body) or "<p>The profile does not say which lines ran.</p>"
        return f'<div class="ragprof-source"><style>{_style()}</style>{inside}</div>'

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, str]:
        return {"text/html": self.html(), "text/plain": self.text()}

    def _listings(self) -> list[tuple[str, list[tuple[str, str, int, str, int]]]]:
        """Per function its title, and (self, share, line number, source, strength) of its lines."""
        table, kind = by_line(self.profile), self.profile.value_types[0]
        total = self.profile.total() or 1.0
        sums = table.groupby(["file", "function"], sort=False)["self"].sum()
        hottest = sums[sums > 0].sort_values(ascending=False, kind="stable").head(self.functions)
        found = []
        for file, function in hottest.index:
            of = table[(table["file"] == file) & (table["function"] == function)]
            own = dict(zip(of["line"].tolist(), of["self"].tolist(), strict=True))
            source = _lines_of(str(file))
            shown = sorted(own)
            if source:
                low, high = max(1, shown[0] - AROUND), min(len(source), shown[-1] + AROUND)
                near = {line + step for line in own for step in range(-AROUND, AROUND + 1)}
                shown = [line for line in range(low, high + 1) if line in near]
            lines = []
            for line in shown:
                weight = own.get(line, 0.0)
                lines.append(
                    (
                        weight_text(weight, kind) if weight else "",
                        share_text(weight / total) if weight else "",
                        line,
                        source[line - 1].rstrip() if line <= len(source) else "",
                        sum(weight / total >= step for step in SELF_SHARES),
                    )
                )
            spent = weight_text(float(hottest[(file, function)]), kind)
            missing = "" if source else "; source not at hand"
            found.append((f"{function}, {file}: {spent} itself{missing}", lines))
        return found


def _lines_of(file: str) -> list[str]:
    """The lines of a Python source file, or none."""
    if not file.endswith(".py"):
        return []
    try:
        found = Path(file).stat()
    except (OSError, ValueError):
        return []
    if not stat.S_ISREG(found.st_mode) or found.st_size > LARGEST:
        return []
    return linecache.getlines(file)


def _style() -> str:
    root = ".ragprof-source"
    levels = "".join(
        f"{root} .l{level} td:nth-child(-n+3){{background:var(--self-{level})}}"
        + (f"{root} .l{level} td:nth-child(-n+3){{color:var(--strong-ink)}}" if level > 3 else "")
        for level in range(1, len(SELF_SHARES) + 1)
    )
    return (
        f"{root}{{{variables('light')}font:13px/1.4 {FONT};color:var(--ink);"
        f"background:var(--paper)}}@media (prefers-color-scheme:dark){{{root}"
        f"{{{variables('dark')}}}}}{root} table{{border-collapse:collapse;"
        f"margin:0 0 16px;width:auto}}"
        f"{root} caption{{text-align:left;font-weight:600;overflow-wrap:anywhere;padding:4px 0}}"
        f"{root} td{{padding:0 8px;text-align:right;border:0;white-space:nowrap;"
        "font-variant-numeric:tabular-nums;background:none;color:var(--ink)}"
        f"{root} td:last-child{{text-align:left}}{root} pre{{margin:0;font-size:12px}}{levels}"
    )
