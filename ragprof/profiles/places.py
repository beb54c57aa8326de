"""What the name and the source file of a function tell: its module, and whose code it is."""

from __future__ import annotations

import functools
import re

from ragprof.profiles.model import Frame

_LIBRARY = re.compile(r"(?:site|dist)-packages/(.+)$")
_STDLIB = re.compile(r"lib/python3\.\d+/(?!site-packages/|dist-packages/)(.+)$")
_FROZEN = re.compile(r"^<frozen ([\w.]+)>$")
_OWN_NAME = re.compile(r"^([A-Za-z_][\w.]*):[^:/\\]+$")


def module(file: str) -> str:
    """The dotted module of a Python source file, as far as its path tells; else empty."""
    frozen = _FROZEN.match(file)
    if frozen:
        return frozen.group(1)
    if not file.endswith(".py"):
        return ""
    found = _LIBRARY.search(file) or _STDLIB.search(file)
    path = found.group(1) if found else file.rpartition("/")[2]
    return path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")


def origin(file: str) -> str:
    """app, library (site-packages), stdlib, native, or empty when there is no file."""
    if not file:
        return ""
    if _LIBRARY.search(file):
        return "library"
    if _STDLIB.search(file) or file.startswith("<frozen"):
        return "stdlib"
    return "app" if file.endswith(".py") or file.startswith("<") else "native"


@functools.lru_cache(1 << 16)
def frame(function: str, file: str = "", line: int = 0) -> Frame:
    """A frame as a file names it, with the module and origin that its names tell."""
    own = _OWN_NAME.match(function)
    named = own.group(1) if own else module(file)
    return Frame(function or "(unnamed)", named, file, line, origin(file))
