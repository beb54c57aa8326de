"""Pages inside pages, and data inside scripts, so that nothing from input can break out."""

from __future__ import annotations

from html import escape


def framed(page: str, title: str, height: int, *, lazy: bool = True) -> str:
    """A page inside another: an iframe that may run its own script and reach nothing else."""
    loading = 'loading="lazy" ' if lazy else ""
    return (
        f'<iframe sandbox="allow-scripts" {loading}title="{escape(title)}" '
        f'style="width:100%;height:{height}px;border:0" srcdoc="{escape(page)}"></iframe>'
    )


def inside_script(text: str) -> str:
    """JSON that cannot end or open anything inside a script element."""
    for char in "<>&\u2028\u2029":
        text = text.replace(char, f"\\u{ord(char):04x}")
    return text
