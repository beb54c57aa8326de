"""A flame graph as one self-contained HTML page: views, zoom, search, keyboard, no network.

The page also works as the ``srcdoc`` of a sandboxed iframe (``allow-scripts`` is all it needs).
"""

from __future__ import annotations

from functools import cache
from html import escape
from importlib.resources import files

from ragprof.flamegraph import page_data
from ragprof.flamegraph.colours import variables
from ragprof.flamegraph.layout import SMALLEST, layout, summary_text
from ragprof.flamegraph.units import weight_text
from ragprof.profiles.model import Floats, Profile
from ragprof.profiles.weights import by_frame

_POLICY = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'"
_SCRIPTS = ("tree.js", "canvas.js", "heat.js", "page.js")


def html(
    profile: Profile,
    baseline: Profile | None = None,
    *,
    title: str = "",
    inverted: bool = False,
    normalized: bool = False,
    smallest: float = SMALLEST,
    rows: int = 25,
    more: str = "",
) -> str:
    """The whole page as text.

    Views: calls, inverted, one function between its callers and what it calls (sandwich), and, for
    a profile with times and no baseline, the order of time and a sub-second heatmap whose cells
    select samples. Boxes below ``smallest`` of the width are left out and their share is stated.
    With a baseline the colours are the difference in the profiles' unit (give both per request), or
    with ``normalized`` (or chosen on the page) in shares of the totals; the widths may be either
    side's or both. ``rows`` functions with the most self weight stand in a table for those who
    cannot use the picture. ``more`` is HTML that is added at the end, trusted.
    """
    boxes = layout(profile, baseline, normalized=normalized, smallest=smallest)
    weights = by_frame(profile)
    texts = page_data.texts(profile, baseline, boxes, smallest, weights)
    title = title or profile.name or "Flame graph"
    summary = summary_text(boxes)
    numbers = page_data.frame_numbers(texts["data"])
    functions = _table(profile, weights, baseline, rows, numbers)
    heat = "heat-data" in texts
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        '<meta name="color-scheme" content="light dark">'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
        f"<title>{escape(title)}</title><style>{_colours()}{_asset('page.css')}</style></head>"
        f"<body><header><h1>{escape(title)}<small>{escape(summary)}</small></h1>"
        '<input id="search" type="search" placeholder="Search (regular expression)" '
        'aria-label="Search functions by regular expression" autocomplete="off" spellcheck="false">'
        '<output id="share" for="search" aria-live="polite"></output>'
        f"{_choices(baseline is not None, normalized, 'time-data' in texts)}"
        '<button id="reset" type="button">Reset</button>'
        '<button id="copy" type="button" title="Copy the chosen frame">Copy frame</button>'
        + (
            '<button id="heatmap" type="button" aria-pressed="false">Heatmap</button>'
            if heat
            else ""
        )
        + '<button id="theme" type="button" title="Light or dark">Theme</button></header>'
        + (_HEAT if heat else "")
        + f'<div id="graph" tabindex="0" role="application" aria-roledescription="flame graph" '
        f'aria-label="{escape(title)}: {escape(summary)}. Arrow keys move between boxes, Enter '
        'zooms, Escape resets, slash searches." aria-describedby="details">'
        '<div id="spacer"></div><canvas id="canvas" aria-hidden="true"></canvas></div>'
        '<div id="details" aria-live="polite"></div>'
        '<footer><div id="legend"></div><div id="keys">Click or Enter zooms, arrows move, Esc '
        "resets, / searches, c copies, i inverts, digits choose the view.</div></footer>"
        f"<noscript>{functions}</noscript>"
        "<details><summary>As a table: the functions with the most time of their own</summary>"
        f"{functions}</details>{more}"
        '<div id="tip" role="presentation" hidden></div>'
        + "".join(
            f'<script id="{name}" type="application/json">{text}</script>'
            for name, text in texts.items()
        )
        + f"<script>{_script(inverted)}</script></body></html>\n"
    )


_HEAT = (
    '<section id="heat" aria-label="Sub-second heatmap" hidden><canvas id="cells" tabindex="0" '
    'role="application" aria-roledescription="heatmap" aria-label="Weight by second and by the '
    "moment within it. Arrow keys move, Enter selects, Shift and arrows extend, Escape clears."
    '" aria-describedby="moment"></canvas><div>A column is a second, from left to right; within it '
    'time runs upwards. <output id="moment" aria-live="polite"></output></div></section>'
)


def _choices(two: bool, normalized: bool, timed: bool) -> str:
    """The selects of the toolbar."""
    views = [("calls", "calls"), ("callers", "inverted"), ("sandwich", "sandwich")]
    if timed:
        views.append(("time", "in time"))
    parts = [
        _select("view", "View", views),
        _select("order", "Order", [("name", "by name"), ("weight", "largest first")]),
    ]
    colours = [("module", "module"), ("self", "self time")]
    if two:
        parts.append(_select("colour", "Colour", [("difference", "difference"), *colours]))
        kinds = [("absolute", "absolute"), ("normalised", "normalised")]
        parts.append(_select("compare", "Difference", kinds[::-1] if normalized else kinds))
        widths = [("this", "this profile"), ("before", "baseline"), ("both", "both")]
        parts.append(_select("width", "Width", widths))
    else:
        parts.append(_select("colour", "Colour", colours))
    return "".join(parts)


def _select(name: str, label: str, options: list[tuple[str, str]]) -> str:
    inside = "".join(f'<option value="{value}">{text}</option>' for value, text in options)
    return f'<label>{label}<select id="{name}">{inside}</select></label>'


def _table(
    profile: Profile,
    weights: tuple[Floats, Floats],
    baseline: Profile | None,
    rows: int,
    numbers: dict[str, int],
) -> str:
    """The functions with the most self weight, or with a baseline the largest change of it; those
    on the page have a button that shows their sandwich."""
    kind = profile.value_types[0]
    own = dict(zip(profile.frames, weights[0].tolist(), strict=True))
    total = dict(zip(profile.frames, weights[1].tolist(), strict=True))
    heads = ["itself", "in total"]
    if baseline is None:
        rank = own
    else:
        before = dict(zip(baseline.frames, by_frame(baseline)[0].tolist(), strict=True))
        rank = {frame: own.get(frame, 0.0) - before.get(frame, 0.0) for frame in {**own, **before}}
        heads.append("difference")
    shown = [frame for frame in rank if rank[frame] or total.get(frame)]
    order = sorted(shown, key=lambda frame: (-abs(rank[frame]), -total.get(frame, 0.0), frame))
    lines = []
    for frame in order[:rows]:
        cells = [weight_text(own.get(frame, 0.0), kind), weight_text(total.get(frame, 0.0), kind)]
        if baseline is not None:
            cells.append(weight_text(rank[frame], kind, sign=True))
        body = "".join(f"<td>{escape(cell)}</td>" for cell in cells)
        name = escape(frame.function)
        if frame.function in numbers:
            name = (
                f'<button type="button" data-frame="{numbers[frame.function]}" '
                f'title="Callers and callees">{name}</button>'
            )
        lines.append(f"<tr>{body}<td>{name}</td></tr>")
    head = "".join(f'<th scope="col">{name}</th>' for name in [*heads, "function"])
    return f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(lines)}</tbody></table>"


def _colours() -> str:
    light = variables("light") + "--scheme:light;color-scheme:light;"
    dark = variables("dark") + "--scheme:dark;color-scheme:dark;"
    return (
        f":root{{{light}}}@media (prefers-color-scheme:dark)"
        f"{{:root:not([data-theme=light]){{{dark}}}}}:root[data-theme=dark]{{{dark}}}"
        f"@media print{{:root:root:root{{{light}}}}}"
    )


@cache
def _script(inverted: bool) -> str:
    parts = "".join(_asset(name) for name in _SCRIPTS)
    first = "  show('callers');\n" if inverted else ""
    return f'"use strict";\n(() => {{\n{parts}{first}}})();\n'


@cache
def _asset(name: str) -> str:
    return files("ragprof.flamegraph").joinpath(name).read_text(encoding="utf-8")
