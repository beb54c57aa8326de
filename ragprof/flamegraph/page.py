"""A flame graph as one self-contained HTML page: zoom, search, keyboard, no network.

The page also works as the ``srcdoc`` of a sandboxed iframe (``allow-scripts`` is all it needs).
"""

from __future__ import annotations

import json
from functools import cache
from html import escape
from importlib.resources import files
from typing import Any

import numpy as np

from ragprof.flamegraph.colours import (
    DIFFERENCES,
    ORIGINS,
    colour_class,
    palette,
    variables,
)
from ragprof.flamegraph.layout import SMALLEST, Layout, layout, summary_text
from ragprof.flamegraph.units import scale, weight_text
from ragprof.profiles.model import Floats, Profile

_POLICY = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'"


def html(
    profile: Profile,
    baseline: Profile | None = None,
    *,
    title: str = "",
    smallest: float = SMALLEST,
    rows: int = 25,
) -> str:
    """The whole page as text.

    Boxes below ``smallest`` of the width are left out and their share is stated. With a baseline
    the colours are the difference in the profiles' unit (give both per request) or in shares, and
    the widths may be either side's. ``rows`` functions with the most self weight stand in a table
    for those who cannot use the picture.
    """
    boxes = layout(profile, baseline, smallest=smallest)
    title = title or profile.name or "Flame graph"
    summary = summary_text(boxes)
    data = json.dumps(_data(boxes), ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    functions = _table(profile, baseline, rows)
    options = ""
    if baseline is not None:
        options = (
            '<label>Colour<select id="colour"><option value="difference">difference</option>'
            '<option value="share">difference of shares</option>'
            '<option value="module">module</option></select></label>'
            '<label>Width<select id="width"><option value="this">this profile</option>'
            '<option value="before">baseline</option></select></label>'
        )
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        '<meta name="color-scheme" content="light dark">'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
        f"<title>{escape(title)}</title><style>:root{{{variables('light')}}}"
        f"@media (prefers-color-scheme:dark){{:root{{{variables('dark')}}}}}"
        f"@media print{{:root{{{variables('light')}}}}}{_asset('page.css')}</style></head><body>"
        f"<header><h1>{escape(title)}<small>{escape(summary)}</small></h1>"
        '<input id="search" type="search" placeholder="Search (regular expression)" '
        'aria-label="Search functions by regular expression" autocomplete="off" spellcheck="false">'
        '<output id="share" for="search" aria-live="polite"></output>'
        '<button id="reset" type="button">Reset</button>'
        '<button id="invert" type="button" aria-pressed="false">Inverted</button>'
        f"{options}</header>"
        f'<div id="graph" tabindex="0" role="application" aria-roledescription="flame graph" '
        f'aria-label="{escape(title)}: {escape(summary)}. Arrow keys move between boxes, Enter '
        'zooms, Escape resets, slash searches." aria-describedby="details">'
        '<div id="spacer"></div><canvas id="canvas" aria-hidden="true"></canvas></div>'
        '<div id="details" aria-live="polite"></div>'
        '<footer><div id="legend"></div><div id="keys">Click or Enter zooms, arrows move, '
        "Esc resets, / searches.</div></footer>"
        f"<noscript>{functions}</noscript>"
        f"<details><summary>As a table: the functions with the most time of their own</summary>"
        f"{functions}</details>"
        '<div id="tip" role="presentation" hidden></div>'
        f'<script id="data" type="application/json">{_inside_script(data)}</script>'
        f"<script>{_asset('page.js')}</script></body></html>\n"
    )


def _data(boxes: Layout) -> dict[str, Any]:
    """What the script draws from: frames that occur, and the boxes as parallel lists."""
    used, numbers = np.unique(boxes.frame[1:], return_inverse=True)
    frames = [boxes.frames[frame] for frame in used.tolist()]
    colours = [colour_class(frame) for frame in frames]
    families = {colour.split("-")[0] for colour in colours}
    factor, steps = scale(boxes.value_type)
    before = None
    if boxes.before_own is not None and boxes.before_pruned is not None:
        before = {"own": _numbers(boxes.before_own), "cut": _numbers(boxes.before_pruned)}
    return {
        "names": [frame.function for frame in frames],
        "places": [
            f"{frame.file}:{frame.line}" if frame.file and frame.line else frame.file
            for frame in frames
        ],
        "colours": colours,
        "frame": [-1, *numbers.tolist()],
        "parent": boxes.parent.tolist(),
        "own": _numbers(boxes.own),
        "cut": _numbers(boxes.pruned),
        "before": before,
        "factor": factor,
        "units": steps,
        "steps": DIFFERENCES,
        "legend": [(f"{family}-0", text) for family, text in ORIGINS.items() if family in families],
        "palette": palette(),
    }


def _numbers(values: Floats) -> list[float]:
    """Six significant digits; whole numbers without a point, to keep the page small."""
    rounded = [float(f"{value:.6g}") for value in values.tolist()]
    return [int(value) if value.is_integer() else value for value in rounded]


def _inside_script(text: str) -> str:
    """JSON that no frame name can end or open anything from, inside a script element."""
    for char in "<>&\u2028\u2029":
        text = text.replace(char, f"\\u{ord(char):04x}")
    return text


def _table(profile: Profile, baseline: Profile | None, rows: int) -> str:
    kind = profile.value_types[0]
    functions = profile.functions()
    heads = ["itself", "in total"]
    if baseline is not None:
        keys = ["function", "module", "file", "line"]
        other = baseline.functions()[[*keys, "self"]].rename(columns={"self": "before"})
        functions = functions.merge(other, on=keys, how="outer").fillna(
            {"self": 0.0, "total": 0.0, "before": 0.0}
        )
        functions["change"] = functions["self"] - functions["before"]
        functions = functions.sort_values("change", key=abs, ascending=False, kind="stable")
        heads += ["difference"]
    lines = []
    for row in functions.head(rows).to_dict("records"):
        cells = [weight_text(row["self"], kind), weight_text(row["total"], kind)]
        if baseline is not None:
            cells.append(weight_text(row["change"], kind, sign=True))
        body = "".join(f"<td>{escape(cell)}</td>" for cell in cells)
        lines.append(f"<tr>{body}<td>{escape(str(row['function']))}</td></tr>")
    head = "".join(f'<th scope="col">{name}</th>' for name in [*heads, "function"])
    return f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(lines)}</tbody></table>"


@cache
def _asset(name: str) -> str:
    return files("ragprof.flamegraph").joinpath(name).read_text(encoding="utf-8")
