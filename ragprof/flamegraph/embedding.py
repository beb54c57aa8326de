"""Pages inside pages, and data inside scripts, so that nothing from input can break out."""

from __future__ import annotations

import base64
from html import escape


def framed(page: str, title: str, height: int, *, picture: str = "", lazy: bool = True) -> str:
    """A page inside another: an iframe that may run its own script and reach nothing else.

    ``picture`` is an SVG for places that take frames away and keep what is in them, as JupyterLab
    does in a notebook that it does not trust. A browser that shows the frame ignores it.
    """
    loading = 'loading="lazy" ' if lazy else ""
    instead = ""
    if picture:
        data = base64.b64encode(picture.encode()).decode()
        instead = f'<img alt="{escape(title)}" src="data:image/svg+xml;base64,{data}">'
    return (
        f'<iframe sandbox="allow-scripts" {loading}title="{escape(title)}" '
        f'style="width:100%;height:{height}px;border:0" srcdoc="{escape(page)}">{instead}</iframe>'
    )


def inside_script(text: str) -> str:
    """JSON that cannot end or open anything inside a script element."""
    for char in "<>&\u2028\u2029":
        text = text.replace(char, f"\\u{ord(char):04x}")
    return text
