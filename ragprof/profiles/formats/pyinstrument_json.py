"""The tree that pyinstrument's JSON renderer writes: functions with the time of each.

The renderer has already cut and grouped the tree as it was asked to.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ragprof.profiles import fields, places, quantities
from ragprof.profiles.calls import NOBODY, CallTree
from ragprof.profiles.content import Content
from ragprof.profiles.model import Profile, ProfileBuilder

TITLE = "pyinstrument's JSON"
LOOKS_FOR = "a JSON object with root_frame and sample_count"
SUFFIXES = (".pyinstrument.json",)

_SELF = "[self]"
_ROUNDING = 2e-6  # seconds: times are written with six digits


def recognises(content: Content) -> bool:
    """A JSON object with the fields of the renderer's output."""
    return content.has("root_frame", "sample_count")


def read(content: Content) -> list[Profile]:
    """One sample per function in the tree that has time of its own.

    The own time is the time less that of the callees, or what ``[self]`` says. Raises
    `ProfileError` naming the frame at fault.
    """
    document = content.document
    builder = ProfileBuilder([quantities.WALL], name=fields.text(document, "target_description"))
    tree = CallTree(builder)
    nodes: list[int] = []
    weights: list[float] = []
    root = document["root_frame"]
    waiting: list[tuple[Any, int, str]] = [] if root is None else [(root, NOBODY, "root_frame")]
    while waiting:
        entry, caller, where = waiting.pop()
        time = fields.weight(fields.number(entry, "time", where), f"{where}.time")
        name = fields.field(entry, "function", str, where)
        children = fields.field(entry, "children", list, where)
        frame = places.frame(_qualified(name, entry), fields.text(entry, "file_path"), _line(entry))
        node = caller if name == _SELF else tree.call(caller, builder.frame(frame))
        own = time
        for index, child in enumerate(children):
            own -= fields.number(child, "time", f"{where}.children[{index}]")
            waiting.append((child, node, f"{where}.children[{index}]"))
        if own > _ROUNDING * (1 + len(children)) or not children:
            nodes.append(node)
            weights.append(max(0.0, own))
    stacks = tree.stacks(nodes)
    builder.samples(stacks, quantities.scaled(np.array(weights, dtype=np.float64), 1e9))
    return [builder.build()]


def _qualified(name: str, entry: dict[str, Any]) -> str:
    owner = fields.text(entry, "class_name")
    return f"{owner}.{name}" if owner else name


def _line(entry: dict[str, Any]) -> int:
    return max(0, fields.whole(entry, "line_no"))
