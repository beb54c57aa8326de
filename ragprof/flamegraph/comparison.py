"""A comparison that shows itself: the functions that changed most, and the differential graph."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING, Any

from ragprof.flamegraph.colours import FONT, variables
from ragprof.flamegraph.units import share_text, weight_text

if TYPE_CHECKING:
    from ragprof.profiles.compare import Comparison

ROWS = 15


def changes(comparison: Comparison, rows: int = ROWS) -> list[dict[str, Any]]:
    """The functions whose self changed most, as plain data: function, module, file, line, ``self``
    and ``total`` (one number per profile), self_difference, total_difference."""
    table = comparison.functions().head(rows)
    found = []
    for row in table.to_dict("records"):
        found.append(
            {
                **{key: row[key] for key in ("function", "module", "file", "line")},
                "self": [float(row[f"self_{name}"]) for name in comparison.names],
                "total": [float(row[f"total_{name}"]) for name in comparison.names],
                "self_difference": float(row["self_difference"]),
                "total_difference": float(row["total_difference"]),
            }
        )
    return found


def cells(comparison: Comparison, rows: int = ROWS) -> tuple[list[str], list[list[str]]]:
    """The table for people: its heads and rows of text, the function in the last column."""

    def text(value: float, sign: bool = False) -> str:
        if comparison.normalized:
            return share_text(value, sign=sign)
        return weight_text(value, comparison.profiles[0].value_types[0], sign=sign)

    lines = []
    for row in changes(comparison, rows):
        lines.append(
            [
                *(text(value) for value in row["self"]),
                text(row["self_difference"], True),
                text(row["total_difference"], True),
                str(row["function"]),
            ]
        )
    return [*heads(comparison), "self change", "total change", "function"], lines


def heads(comparison: Comparison) -> list[str]:
    """The columns' heads: before and after, or numbers; `legend` says what they are."""
    count = len(comparison.names)
    return list(comparison.names) if count == 2 else [str(at + 1) for at in range(count)]


def legend(comparison: Comparison) -> str:
    """Which profile each head stands for, with its total."""
    kind = comparison.profiles[0].value_types[0]
    return "; ".join(
        f"{head}: {profile.name or 'without a name'}, {weight_text(profile.total(), kind)}"
        for head, profile in zip(heads(comparison), comparison.profiles, strict=True)
    )


def text_table(comparison: Comparison, rows: int = ROWS) -> str:
    """The table as plain text."""
    head, lines = cells(comparison, rows)
    widths = [max(len(line[at]) for line in [head, *lines]) for at in range(len(head) - 1)]
    drawn = [legend(comparison)]
    for line in [head, *lines]:
        numbers = "  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=False))
        drawn.append(f"{numbers}  {line[-1]}")
    return "\n".join(drawn)


def html_table(comparison: Comparison, rows: int = ROWS) -> str:
    """The table as HTML; everything from the profiles is escaped."""
    titles, lines = cells(comparison, rows)
    root = ".ragprof-compare"
    style = (
        f"{root}{{{variables('light')}font:13px/1.4 {FONT};color:var(--ink);"
        "background:var(--paper);overflow-x:auto}"
        f"@media (prefers-color-scheme:dark){{{root}{{{variables('dark')}}}}}"
        f"{root} table{{border-collapse:collapse}}{root} caption{{text-align:left}}"
        f"{root} th,{root} td{{padding:4px 10px;text-align:right;white-space:nowrap;"
        "background:none;color:var(--ink);border-bottom:1px solid var(--line)}"
        f"{root} th:last-child,{root} td:last-child{{text-align:left;white-space:normal;"
        "overflow-wrap:anywhere}"
    )
    head = "".join(f'<th scope="col">{escape(text)}</th>' for text in titles)
    body = "".join(
        "<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in line) + "</tr>" for line in lines
    )
    return (
        f'<div class="ragprof-compare"><style>{style}</style><table><caption>Time of the functions '
        f"themselves, the largest change first. {escape(legend(comparison))}</caption>"
        f"<thead><tr>{head}</tr></thead>"
        f"<tbody>{body}</tbody></table></div>"
    )


def mimebundle(comparison: Comparison) -> dict[str, str]:
    """HTML (table and flame graph), SVG without scripts, text."""
    graph = comparison.flamegraph()
    return {
        "text/html": html_table(comparison) + graph._repr_html_(),
        "image/svg+xml": graph.svg(),
        "text/plain": text_table(comparison),
    }
