"""The colours of flame graphs, for light and dark, as CSS variables.

Colour says where code comes from (the application warm, everything else cool or grey), with a few
shades so that neighbours can be told apart; in a differential graph it says more (red) or less
(blue). Red and blue stay apart in the common colour vision deficiencies.
"""

from __future__ import annotations

import zlib

from ragprof.profiles.model import Frame

ORIGINS = {
    "app": "your code",
    "library": "libraries",
    "stdlib": "standard library",
    "native": "native",
    "wait": "waiting",
    "other": "origin unknown",
}
"""Colour family to what the legend calls it."""
SHADES = 3

DIFFERENCES = (0.005, 0.03, 0.15)
"""Share of the whole from which a difference is drawn in the first, second, third strength."""
SELF_SHARES = (0.003, 0.01, 0.03, 0.1, 0.25)
"""Share of the whole from which a function's own time is drawn in the next strength."""
FONT = "system-ui,-apple-system,'Segoe UI',Roboto,'DejaVu Sans',sans-serif"

_LIGHT = {
    "app": ("#f4b95a", "#efa83f", "#f8ca80"),
    "library": ("#9dbfd9", "#8ab1cf", "#b2cee3"),
    "stdlib": ("#d3d8dd", "#c6ccd3", "#dfe3e7"),
    "native": ("#c9b8dc", "#bba7d3", "#d7c9e5"),
    "wait": ("#e9eef2", "#e1e8ed", "#f0f3f6"),
    "other": ("#a9cfc0", "#98c4b3", "#bcdacd"),
    "more": ("#f6c1ad", "#ec8468", "#d1452c"),
    "less": ("#bcd4ea", "#7fb0da", "#3b7fbd"),
    "same": ("#e7e9ec",),
    "self": ("#e7e9ec", "#fde9b8", "#fbca72", "#f29b45", "#c9531f", "#962d12"),
}
_DARK = {
    "app": ("#b9791c", "#a66b14", "#c98a2e"),
    "library": ("#3b678a", "#335c7d", "#457397"),
    "stdlib": ("#4a525b", "#414951", "#545d67"),
    "native": ("#66518a", "#5b477d", "#725c97"),
    "wait": ("#2c333b", "#272d34", "#323a43"),
    "other": ("#3c7562", "#346856", "#46826e"),
    "more": ("#6d372b", "#a3422e", "#d65a3f"),
    "less": ("#2b4763", "#2f6596", "#3f8ccf"),
    "same": ("#363c43",),
    "self": ("#363c43", "#4d4023", "#6b4a1e", "#8f4f1f", "#b4521f", "#d9542b"),
}
PAPER = {
    "light": {
        "paper": "#ffffff",
        "ink": "#1d2329",
        "muted": "#5c6670",
        "line": "#d5dae0",
        "focus": "#0b62c4",
    },
    "dark": {
        "paper": "#14181d",
        "ink": "#e8ebee",
        "muted": "#9aa5b0",
        "line": "#39424c",
        "focus": "#7db7ff",
    },
}
"""What flame graphs and all other pictures have in common."""
_PAGE = {
    "light": {
        "box-ink": "#1d2329",
        "strong-ink": "#ffffff",
        "found": "#7a3fb0",
        "found-ink": "#ffffff",
    },
    "dark": {
        "box-ink": "#f2f4f6",
        "strong-ink": "#ffffff",
        "found": "#b98be6",
        "found-ink": "#14181d",
    },
}


def colour_class(frame: Frame) -> str:
    """The colour of a frame: its origin, shaded by module so that neighbours differ."""
    if frame.function.startswith("[") and not frame.file:
        family = "wait"
    else:
        family = frame.origin if frame.origin in ORIGINS else "other"
    shade = zlib.crc32((frame.module or frame.file or frame.function).encode()) % SHADES
    return f"{family}-{shade}"


def difference_class(share: float) -> str:
    """The colour of a difference, given as a share of the whole."""
    strength = sum(abs(share) >= step for step in DIFFERENCES)
    if not strength:
        return "same-0"
    return f"{'more' if share > 0 else 'less'}-{strength - 1}"


def _colours(scheme: str) -> dict[str, str]:
    families = _LIGHT if scheme == "light" else _DARK
    shades = {
        f"{family}-{index}": colour
        for family, colours in families.items()
        for index, colour in enumerate(colours)
    }
    return {**PAPER[scheme], **_PAGE[scheme], **shades}


def variables(scheme: str) -> str:
    """CSS declarations of all colours for ``light`` or ``dark``."""
    return "".join(f"--{name}:{value};" for name, value in _colours(scheme).items())


def palette() -> list[str]:
    """The names of all colours, as `variables` declares them."""
    return list(_colours("light"))


def fills(prefix: str, used: set[str]) -> str:
    """CSS rules that fill the classes ``used`` under ``prefix`` from the variables."""
    return "".join(f"{prefix} .{name}{{fill:var(--{name})}}" for name in palette() if name in used)
