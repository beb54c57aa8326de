"""A Profile as a flame graph: layout, SVG without scripts, one-file HTML."""

from __future__ import annotations

from ragprof.flamegraph.display import FlameGraph, Speedscope
from ragprof.flamegraph.page import html
from ragprof.flamegraph.picture import svg

__all__ = ["FlameGraph", "Speedscope", "html", "svg"]
