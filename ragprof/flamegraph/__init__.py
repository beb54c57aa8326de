"""A Profile as a flame graph: layout, SVG without scripts, one-file HTML.

The names are loaded on first use: what draws an SVG needs neither the page nor the viewer.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ragprof.flamegraph.display import FlameGraph, Speedscope
    from ragprof.flamegraph.page import html
    from ragprof.flamegraph.picture import svg

__all__ = ["FlameGraph", "Speedscope", "html", "svg"]

_PUBLIC = {"FlameGraph": "display", "Speedscope": "display", "html": "page", "svg": "picture"}


def __getattr__(name: str) -> Any:
    module = _PUBLIC.get(name)
    if module is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{module}"), name)
    globals()[name] = value
    return value
