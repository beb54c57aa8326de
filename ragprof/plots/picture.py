"""A picture that shows itself: script-free SVG, drawn for a wide and for a narrow reader."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from html import escape
from typing import Any

from ragprof.plots.style import svg_css

WIDE = 960
NARROW = 380
_LETTER = 6.6  # mean width of a letter at 12 px

_CHOICE = (
    ".ragprof-plot{container-type:inline-size;max-width:960px;margin:8px 0}"
    ".ragprof-plot svg{display:block;width:100%;height:auto}"
    ".ragprof-plot .narrow{display:none}"
    "@container (max-width:600px){.ragprof-plot .wide{display:none}"
    ".ragprof-plot .narrow{display:block}}"
)


@dataclass(frozen=True)
class Picture:
    """A static picture. ``draw`` gives the inside of the SVG and its height for a width."""

    title: str
    text: str
    """What the picture says, in words: the text fallback and the label for screen readers."""
    draw: Callable[[int], tuple[str, float]]

    def svg(self, width: int = WIDE, style: str = "") -> str:
        """The picture as one ``<svg>`` element without scripts."""
        inside, height = self.draw(width)
        label = escape(f"{self.title}. {self.text}")
        return (
            f'<svg xmlns="http://www.w3.org/2000/svg" class="ragprof-svg {style}" '
            f'viewBox="0 0 {width} {height:.0f}" width="{width}" height="{height:.0f}" role="img" '
            f'aria-label="{label}"><style>{svg_css()}</style>'
            f'<rect class="f-paper" width="{width}" height="{height:.0f}" rx="8"/>{inside}</svg>'
        )

    def _repr_html_(self) -> str:
        return (
            f'<div class="ragprof-plot"><style>{_CHOICE}</style>{self.svg(WIDE, "wide")}'
            f"{self.svg(NARROW, 'narrow')}</div>"
        )

    def _repr_svg_(self) -> str:
        return self.svg()

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, str]:
        return {
            "text/html": self._repr_html_(),
            "image/svg+xml": self.svg(),
            "text/plain": f"{self.title}\n{self.text}",
        }


def empty(title: str, why: str) -> Picture:
    """A picture that says why there is nothing to see."""

    def draw(width: int) -> tuple[str, float]:
        lines = [label(12, 24, title, "t"), label(12, 48, fit(why, width - 24), "m")]
        return "".join(lines), 64

    return Picture(title, why, draw)


def label(x: float, y: float, text: str, style: str = "") -> str:
    """A text at a place; the text is escaped."""
    return f'<text x="{x:.1f}" y="{y:.1f}" class="{style}">{escape(text)}</text>'


def line(x1: float, y1: float, x2: float, y2: float, style: str, more: str = "") -> str:
    """A straight line."""
    return f'<path d="M{x1:.1f} {y1:.1f}L{x2:.1f} {y2:.1f}" class="{style}" {more}/>'


def box(
    x: float, y: float, width: float, height: float, style: str, title: str = "", more: str = ""
) -> str:
    """A rectangle, with a tooltip if given; the tooltip is escaped."""
    shape = (
        f'<rect x="{x:.1f}" y="{y:.1f}" width="{max(0.0, width):.1f}" height="{height:.1f}" '
        f'class="{style}" {more}'
    )
    return f"{shape}><title>{escape(title)}</title></rect>" if title else f"{shape}/>"


def text_width(text: str) -> float:
    """About how wide a text is at 12 px."""
    return len(text) * _LETTER


def fit(text: str, width: float) -> str:
    """As much of a text as fits into ``width`` pixels, with an ellipsis."""
    room = int(width / _LETTER)
    return text if len(text) <= room else text[: max(0, room - 1)] + "…" if room > 2 else ""


def keys(x: float, y: float, entries: list[tuple[str, str]], width: float) -> tuple[str, float]:
    """A legend of (style, text), wrapped at ``width``; the markup and the y after it."""
    parts, at = [], x
    for style, text in entries:
        step = 15 + text_width(text) * 0.92 + 14
        if at + step > width and at > x:
            at, y = x, y + 17
        parts.append(box(at, y - 9, 10, 10, style, more='rx="2"') + label(at + 15, y, text, "m n"))
        at += step
    return "".join(parts), y
