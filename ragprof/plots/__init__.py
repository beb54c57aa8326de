"""Tables as pictures: static, script-free, right in light, dark, on a phone and in print."""

from __future__ import annotations

from ragprof.plots.distributions import distribution
from ragprof.plots.heatmaps import heatmap
from ragprof.plots.picture import Picture
from ragprof.plots.stages import contributions
from ragprof.plots.style import page_css
from ragprof.plots.tabular import Table, table
from ragprof.plots.timelines import timeline
from ragprof.plots.waterfalls import waterfall

__all__ = [
    "Picture",
    "Table",
    "contributions",
    "distribution",
    "heatmap",
    "page_css",
    "table",
    "timeline",
    "waterfall",
]
