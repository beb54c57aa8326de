"""The speedscope viewer (npm `speedscope`, MIT, see LICENSE) around a profile, in one page.

The viewer's files are vendored unchanged (`VENDORED.json`, `revendor.py`). It needs WebGL. The page
makes no network request: the profile reaches the viewer as a dropped file does.
"""

from __future__ import annotations

import re
from functools import cache
from html import escape
from importlib.resources import files

from ragprof.flamegraph.embedding import framed, inside_script
from ragprof.profiles.formats import speedscope
from ragprof.profiles.model import Profile

_POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; img-src data:; "
    "script-src 'unsafe-inline' 'wasm-unsafe-eval'"
)
_BEFORE = """
try { window.localStorage; } catch { // a sandboxed frame has no storage of its own
  Object.defineProperty(window, "localStorage", { value: {}, configurable: true });
}
"""
_AFTER = """
(() => {
  const holder = document.getElementById("profile");
  const drop = () => {
    if (document.title.endsWith("- speedscope")) { document.body.dataset.ready = "true"; return; }
    const target = document.querySelector("canvas");
    if (target && !document.body.dataset.dropped) {
      const carried = new DataTransfer();
      carried.items.add(new File([holder.textContent], holder.dataset.name));
      const how = { bubbles: true, cancelable: true, dataTransfer: carried };
      target.dispatchEvent(new DragEvent("drop", how));
      document.body.dataset.dropped = "true";
    }
    setTimeout(drop, 30);
  };
  requestAnimationFrame(() => requestAnimationFrame(drop));
})();
"""


def viewer(profile: Profile, title: str = "") -> str:
    """The viewer with the profile, as the text of a page that needs nothing else."""
    text = inside_script(speedscope.write(profile).decode())
    name = title or profile.name or "profile"
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
        f"<title>{escape(name)}</title><style>{_style()}</style></head><body>"
        f'<script id="profile" type="application/json" data-name="{escape(name)}">{text}</script>'
        f"<script>{_BEFORE}</script><script>{_script()}</script><script>{_AFTER}</script>"
        "</body></html>\n"
    )


def page(profile: Profile, title: str = "") -> str:
    """A page that holds the viewer in a sandboxed frame of the window's size."""
    name = title or profile.name or "profile"
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        f"<title>{escape(name)}</title><style>html,body{{height:100%;margin:0}}"
        "iframe{display:block;height:100%!important}</style></head><body>"
        f"{framed(viewer(profile, title), name, 600, lazy=False)}</body></html>\n"
    )


@cache
def _script() -> str:
    return _without_map(_asset("speedscope.js"))


@cache
def _style() -> str:
    """Without the font, which would be a request; the browser's fixed-width one takes its place."""
    return re.sub(r"@font-face\{[^}]*\}", "", _without_map(_asset("speedscope.css")))


def _without_map(text: str) -> str:
    """Without the last line, which names a source map that is not there."""
    return re.sub(r"\n(?://|/\*)# sourceMappingURL=.*", "", text)


def _asset(name: str) -> str:
    return files("ragprof.flamegraph.speedscope").joinpath(name).read_text(encoding="utf-8")
