"""A flame graph as SVG without scripts: for untrusted notebooks, documents and print."""

from __future__ import annotations

import re
from html import escape
from typing import Literal

import numpy as np

from ragprof.flamegraph.colours import (
    DIFFERENCES,
    FONT,
    ORIGINS,
    colour_class,
    difference_class,
    fills,
    variables,
)
from ragprof.flamegraph.layout import SMALLEST, Layout, edges, layout, summary_text
from ragprof.flamegraph.units import MINUS, share_text, weight_text
from ragprof.profiles.model import Floats, Profile

ROW = 18
HEAD = 52
FOOT = 30
_LETTER = 6.5  # mean width of a letter at 11 px

Widths = Literal["this", "before", "both"]
"""Whose weight a box is as wide as: the profile's, the baseline's, or the sum of both."""


def svg(
    profile: Profile,
    baseline: Profile | None = None,
    *,
    width: int = 1200,
    title: str = "",
    inverted: bool = False,
    normalized: bool = False,
    widths: Widths = "this",
    smallest: float = SMALLEST,
) -> str:
    """The flame graph as one ``<svg>`` element, root on top, ``width`` pixels wide.

    Every box has a ``<title>`` with its name, weight and share. With a baseline red boxes have more
    weight than the baseline and blue ones less, in the unit of the profiles (give both per request,
    see `ragprof.profiles.samples.from_tables`) or, ``normalized``, in shares of the totals. The
    widths are ``profile``'s unless ``widths`` says otherwise; stacks that only the baseline has are
    seen with "before" and "both". Colours follow the reader's light or dark preference.
    """
    boxes = layout(profile, baseline, inverted=inverted, normalized=normalized, smallest=smallest)
    title = title or profile.name or "Flame graph"
    height = HEAD + boxes.levels * ROW + FOOT
    summary = summary_text(boxes)
    body = "".join(_boxes(boxes, width, widths)) + _legend(boxes, height - 12)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" class="ragprof-flame" viewBox="0 0 {width} '
        f'{height}" width="{width}" height="{height}" role="img" aria-label="'
        f'{escape(title)}: {escape(summary)}" style="max-width:100%;height:auto">'
        f"<style>{_style(body)}</style>"
        f'<rect class="paper" width="{width}" height="{height}" rx="6"/>'
        f'<text class="title" x="12" y="22">{escape(_fit(title, (width - 24) / 1.35))}</text>'
        f'<text class="muted" x="12" y="40">{escape(_fit(summary, width - 24))}</text>'
        f"{body}</svg>\n"
    )


def _style(body: str) -> str:
    used = set(re.findall(r'<rect class="([\w-]+)"', body))
    return (
        f".ragprof-flame{{{variables('light')}font:11px {FONT}}}"
        f"@media (prefers-color-scheme:dark){{.ragprof-flame{{{variables('dark')}}}}}"
        f"@media print{{.ragprof-flame{{{variables('light')}}}}}"
        ".ragprof-flame text{fill:var(--box-ink);pointer-events:none}"
        ".ragprof-flame .title{font-size:15px;font-weight:600;fill:var(--ink)}"
        ".ragprof-flame .muted{fill:var(--muted)}"
        ".ragprof-flame .paper{fill:var(--paper)}"
        ".ragprof-flame g>.more-2+text,.ragprof-flame g>.less-2+text{fill:var(--strong-ink)}"
        ".ragprof-flame g:hover>rect{stroke:var(--focus);stroke-width:1.5}"
        + fills(".ragprof-flame", used)
    )


def _boxes(boxes: Layout, width: int, widths: Widths) -> list[str]:
    """The boxes at least a tenth of a pixel wide, each with its title."""
    left, size = _places(boxes, width, widths)
    if not size[0]:
        return [f'<text class="muted" x="12" y="{HEAD + 13}">no samples</text>']
    before = boxes.before
    kind, total = boxes.value_type, boxes.total
    whole = total or (float(before[0]) if before is not None else 1.0)
    names = [frame.function for frame in boxes.frames]
    colours = {frame: colour_class(boxes.frames[frame]) for frame in set(boxes.frame[1:].tolist())}
    colours[-1] = "same-0"
    drawn: list[str] = []
    weights, frames, depths = (part.tolist() for part in (boxes.weight, boxes.frame, boxes.depth))
    lefts, sizes = left.tolist(), size.tolist()
    for index in np.flatnonzero(size >= 0.1).tolist():
        weight, frame = weights[index], frames[index]
        name = names[frame] if index else "all"
        label = f"{name}\n{weight_text(weight, kind)}, {share_text(weight / whole)}"
        if before is None:
            colour = colours[frame]
        else:
            then = float(before[index])
            colour = difference_class((weight - then) / whole)
            label += (
                f"\nbaseline {weight_text(then, kind)}, "
                f"difference {weight_text(weight - then, kind, sign=True)}"
            )
            if not weight or not then:
                label += f"\nonly in {'the baseline' if then else 'this profile'}"
        y = HEAD + depths[index] * ROW
        text = _fit(name, sizes[index] - 6, name.split(":")[-1])
        shown = (
            f'<text x="{lefts[index] + 3:.1f}" y="{y + 12.5}">{escape(text)}</text>' if text else ""
        )
        drawn.append(
            f'<g><title>{escape(label)}</title><rect class="{colour}" x="{lefts[index]:.2f}" '
            f'y="{y}" width="{max(0.3, sizes[index] - 0.5):.2f}" height="{ROW - 1}" rx="1.5"/>'
            f"{shown}</g>"
        )
    return drawn


def _places(boxes: Layout, width: int, widths: Widths) -> tuple[Floats, Floats]:
    """Left edge and width of every box in pixels."""
    weight, x = boxes.weight, boxes.x
    if boxes.before is not None and widths != "this":
        weight = boxes.before if widths == "before" else boxes.weight + boxes.before
        x = edges(boxes, weight)
    scale = (width - 2) / weight[0] if weight[0] else 0.0
    return 1 + x * scale, weight * scale


def _fit(text: str, width: float, shorter: str = "") -> str:
    """As much of a text as fits, with an ellipsis; nothing when three letters do not fit.

    Where the text does not fit, ``shorter`` (the name without its module) takes its place.
    """
    room = int(width / _LETTER)
    if room < 4:
        return text if len(text) <= room else ""
    if len(text) > room and shorter:
        text = shorter
    if len(text) <= room:
        return text
    return text[: room - 1] + "…"


def _legend(boxes: Layout, y: int) -> str:
    if boxes.before is not None:
        steps = [f"{share_text(step)}" for step in DIFFERENCES]
        entries = [
            *((f"less-{index}", f"{MINUS}{steps[index]}") for index in (2, 1, 0)),
            ("same-0", "same"),
            *((f"more-{index}", f"+{steps[index]}") for index in (0, 1, 2)),
        ]
        lead = "against the baseline, of the whole:"
    else:
        used = {colour_class(boxes.frames[frame]).split("-")[0] for frame in boxes.frame[1:]}
        entries = [(f"{family}-0", text) for family, text in ORIGINS.items() if family in used]
        lead = ""
    x = 12.0
    parts = []
    if lead:
        parts.append(f'<text class="muted" x="{x}" y="{y}">{lead}</text>')
        x += len(lead) * _LETTER * 0.93 + 8
    for colour, text in entries:
        parts.append(
            f'<rect class="{colour}" x="{x:.1f}" y="{y - 9}" width="11" height="11" rx="2"/>'
            f'<text class="muted" x="{x + 15:.1f}" y="{y}">{text}</text>'
        )
        x += 15 + len(text) * _LETTER + 14
    return "".join(parts)
