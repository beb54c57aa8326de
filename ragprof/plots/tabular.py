"""A DataFrame as a compact HTML table: right-aligned numbers, units, everything escaped."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from html import escape
from typing import Any

import pandas as pd

from ragprof.plots.scales import DASH, number_text
from ragprof.plots.style import table_css

_UNITS = (
    ("_per_second", "1/s"),
    ("_seconds", "s"),
    ("_percent", "%"),
    ("_bytes", "B"),
    ("_share", "share"),
    ("_ms", "ms"),
    ("_ns", "ns"),
    ("_s", "s"),
)

Format = Callable[[Any], str]


@dataclass(frozen=True)
class Table:
    """A table that shows itself as HTML or text."""

    frame: pd.DataFrame
    caption: str = ""
    formats: Mapping[str, Format] | None = None
    rows: int = 50

    def _repr_html_(self) -> str:
        shown = self.frame.head(self.rows)
        numeric = [
            pd.api.types.is_numeric_dtype(self.frame.dtypes.iloc[index])
            and not pd.api.types.is_bool_dtype(self.frame.dtypes.iloc[index])
            for index in range(self.frame.shape[1])
        ]
        heads = "".join(
            _head(str(name), right) for name, right in zip(self.frame.columns, numeric, strict=True)
        )
        body = []
        for row in shown.itertuples(index=False, name=None):
            cells = []
            for name, right, value in zip(self.frame.columns, numeric, row, strict=True):
                own = (self.formats or {}).get(str(name))
                text = own(value) if own else value_text(value)
                style = "r" if right else ""
                style += " none" if text in ("", DASH) else ""
                cells.append(f'<td class="{style.strip()}">{_breakable(text)}</td>')
            body.append(f"<tr>{''.join(cells)}</tr>")
        if not body:
            body = [f'<tr><td class="none" colspan="{max(1, len(numeric))}">no rows</td></tr>']
        hidden = len(self.frame) - len(shown)
        caption = self.caption
        if hidden > 0:
            caption = f"{caption} (the first {self.rows} of {len(self.frame):,} rows)".strip()
        title = f"<caption>{escape(caption)}</caption>" if caption else ""
        return (
            f'<div class="ragprof-table" tabindex="0" role="region" '
            f'aria-label="{escape(caption or "table")}"><style>{table_css()}</style><table>{title}'
            f"<thead><tr>{heads}</tr></thead><tbody>{''.join(body)}</tbody></table></div>"
        )

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, str]:
        text = self.frame.head(self.rows).to_string(index=False)
        return {
            "text/html": self._repr_html_(),
            "text/plain": f"{self.caption}\n{text}".lstrip("\n"),
        }


def table(
    frame: pd.DataFrame,
    caption: str = "",
    *,
    formats: Mapping[str, Format] | None = None,
    rows: int = 50,
) -> Table:
    """``frame`` as a table of at most ``rows`` rows.

    Units are read from column names (``added_ms`` becomes "added, ms"); ``formats`` maps a column
    to a function from its value to text.
    """
    return Table(frame, caption, formats, rows)


def value_text(value: Any) -> str:
    """A cell for people: numbers short, times in UTC, lists joined, missing as a dash."""
    if value is None or value is pd.NaT or value is pd.NA:
        return DASH
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, pd.Timestamp):
        return f"{value:%Y-%m-%d %H:%M:%S}.{value.microsecond // 1000:03d}"
    if isinstance(value, Mapping):
        return ", ".join(f"{key}={value_text(item)}" for key, item in value.items())
    if isinstance(value, (list, tuple, set)):
        return "; ".join(value_text(item) for item in value)
    if isinstance(value, int):
        return f"{value:,}".replace("-", "\N{MINUS SIGN}")
    try:
        number = float(value)
    except (TypeError, ValueError):
        return str(value)
    return number_text(number)


def _breakable(text: str) -> str:
    """Escaped text whose long words (paths, qualified names) may wrap after . : / and _."""
    words = [
        re.sub(r"([.:/_])(?=\w)", "\\1\0", word) if len(word) > 24 else word
        for word in text.split(" ")
    ]
    return escape(" ".join(words)).replace("\0", "<wbr>")


def _head(name: str, right: bool) -> str:
    unit = ""
    for ending, symbol in _UNITS:
        if name.endswith(ending) and len(name) > len(ending):
            name, unit = name[: -len(ending)], symbol
            break
    text = escape(name.replace("_", " "))
    tail = f' <span class="u">{escape(unit)}</span>' if unit else ""
    return f'<th scope="col" class="{"r" if right else ""}">{text}{tail}</th>'
