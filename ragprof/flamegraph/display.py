"""A flame graph that shows itself: in JupyterLab, nbconvert, untrusted notebooks, a terminal."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ragprof.flamegraph import speedscope
from ragprof.flamegraph.embedding import framed
from ragprof.flamegraph.page import html
from ragprof.flamegraph.picture import svg
from ragprof.flamegraph.units import share_text, weight_text
from ragprof.profiles.model import Profile


@dataclass(frozen=True)
class FlameGraph:
    """A profile, perhaps against a baseline, as HTML, SVG or text, whatever can be shown."""

    profile: Profile
    baseline: Profile | None = None
    title: str = ""
    height: int = 560
    normalized: bool = False
    inverted: bool = False

    def html(self) -> str:
        """The self-contained page."""
        return html(
            self.profile,
            self.baseline,
            title=self.title,
            inverted=self.inverted,
            normalized=self.normalized,
        )

    def svg(self, width: int = 1200) -> str:
        """The picture without scripts."""
        return svg(
            self.profile,
            self.baseline,
            width=width,
            title=self.title,
            inverted=self.inverted,
            normalized=self.normalized,
        )

    def text(self, rows: int = 15) -> str:
        """The functions with the most self weight."""
        kind = self.profile.value_types[0]
        total = self.profile.total() or 1.0
        lines = [f"{self.title or 'Flame graph'}: {weight_text(self.profile.total(), kind)}"]
        functions = self.profile.functions().head(rows)
        for name, own in zip(functions["function"], functions["self"], strict=True):
            lines.append(f"{share_text(own / total):>8} {weight_text(own, kind):>10}  {name}")
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        title = self.title or "Flame graph"
        return framed(self.html(), title, self.height, picture=self.svg())

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, str]:
        return {
            "text/html": self._repr_html_(),
            "image/svg+xml": self.svg(),
            "text/plain": self.text(),
        }


@dataclass(frozen=True)
class Speedscope:
    """A profile in the embedded speedscope viewer; where scripts do not run, the flame graph."""

    profile: Profile
    title: str = ""
    height: int = 640

    def html(self) -> str:
        """The viewer in a page of its own, for a file."""
        return speedscope.page(self.profile, self.title)

    def _repr_html_(self) -> str:
        viewer = speedscope.viewer(self.profile, self.title)
        still = FlameGraph(self.profile, title=self.title).svg()
        return framed(viewer, self.title or "speedscope", self.height, picture=still)

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, str]:
        still = FlameGraph(self.profile, title=self.title)
        return {
            "text/html": self._repr_html_(),
            "image/svg+xml": still.svg(),
            "text/plain": still.text(),
        }
