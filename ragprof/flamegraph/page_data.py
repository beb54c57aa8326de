"""What the page of a flame graph draws from, as JSON texts: names once, trees as parallel lists."""

from __future__ import annotations

import base64
import json
from typing import Any

import numpy as np

from ragprof.flamegraph.colours import (
    DIFFERENCES,
    ORIGINS,
    SELF_SHARES,
    colour_class,
    palette,
)
from ragprof.flamegraph.embedding import inside_script
from ragprof.flamegraph.in_time import layout_in_time
from ragprof.flamegraph.layout import Layout, layout
from ragprof.flamegraph.units import scale
from ragprof.profiles.model import NO_TIME, Floats, Frame, Ints, Profile
from ragprof.profiles.subseconds import Subseconds, subseconds

MOST_CELL_ENTRIES = 60_000
"""Pairs of heatmap cell and box on a page; with more of them the boxes are made coarser."""
COARSER = (0.003, 0.01, 0.03, 0.1, 1.0)


def texts(
    profile: Profile,
    baseline: Profile | None,
    boxes: Layout,
    smallest: float,
    weights: tuple[Floats, Floats],
) -> dict[str, str]:
    """The JSON texts of the page by the id of their element; `data` is read at once, the rest when
    it is looked at. ``weights``: self and total of the profile's frames.

    ``callers-data``: the inverted tree. ``time-data`` and ``heat-data``: the order of time and the
    sub-second heatmap, of a profile with times and without a baseline.
    """
    inverted = layout(
        profile, baseline, inverted=True, normalized=boxes.normalized, smallest=smallest
    )
    trees = {"calls": boxes, "callers": inverted}
    times = profile.times
    timed = baseline is None and times is not None and bool((times != NO_TIME).any())
    timed = timed and profile.total() > 0
    if timed:
        trees["time"] = layout_in_time(profile)
    frames = list(
        dict.fromkeys(
            tree.frames[frame] for tree in trees.values() for frame in np.unique(tree.frame[1:])
        )
    )
    numbers = {frame: number for number, frame in enumerate(frames)}
    packed = {name: _tree(tree, numbers) for name, tree in trees.items()}
    colours = [colour_class(frame) for frame in frames]
    families = {colour.split("-")[0] for colour in colours}
    factor, steps = scale(boxes.value_type)
    own, total = _by_number(profile, numbers, weights)
    data: dict[str, Any] = {
        "names": [frame.function for frame in frames],
        "places": [
            f"{frame.file}:{frame.line}" if frame.file and frame.line else frame.file
            for frame in frames
        ],
        "colours": colours,
        "selfs": _numbers(own),
        "totals": _numbers(total),
        "calls": packed.pop("calls"),
        "before": baseline is not None,
        "normalized": boxes.normalized,
        "factor": factor,
        "units": steps,
        "steps": DIFFERENCES,
        "selfSteps": SELF_SHARES,
        "legend": [(f"{family}-0", text) for family, text in ORIGINS.items() if family in families],
        "palette": palette(),
    }
    parts: dict[str, Any] = {
        "data": data,
        **{f"{name}-data": tree for name, tree in packed.items()},
    }
    if timed:
        parts["heat-data"] = _heat(profile, boxes)
    return {name: _json(part) for name, part in parts.items()}


def frame_numbers(text: str) -> dict[str, int]:
    """The number of each function name on the page, from the text of ``data``."""
    names: list[str] = json.loads(text)["names"]
    return {name: number for number, name in enumerate(names)}


def _tree(boxes: Layout, numbers: dict[Frame, int]) -> dict[str, Any]:
    """Parents as steps from the last one, since boxes come level by level."""
    of_frame = np.full(len(boxes.frames) + 1, -1, dtype=np.int64)  # the last one is the root's, -1
    for frame in np.unique(boxes.frame[1:]).tolist():
        of_frame[frame] = numbers[boxes.frames[frame]]
    tree: dict[str, Any] = {
        "frame": of_frame[boxes.frame].tolist(),
        "up": np.diff(boxes.parent, prepend=0).tolist(),
        "own": _numbers(boxes.own),
        "cut": _numbers(boxes.pruned),
    }
    if boxes.before_own is not None and boxes.before_pruned is not None:
        tree["beforeOwn"] = _numbers(boxes.before_own)
        tree["beforeCut"] = _numbers(boxes.before_pruned)
    if boxes.in_time:
        tree["left"] = _numbers(boxes.x)
    return tree


def _by_number(
    profile: Profile, numbers: dict[Frame, int], weights: tuple[Floats, Floats]
) -> tuple[Floats, Floats]:
    """Self and total of the frames on the page."""
    own, total = np.zeros(len(numbers)), np.zeros(len(numbers))
    of_frame = np.array([numbers.get(frame, -1) for frame in profile.frames], dtype=np.int64)
    known = of_frame >= 0
    for target, given in zip((own, total), weights, strict=True):
        target[of_frame[known]] = given[known]
    return own, total


def _heat(profile: Profile, boxes: Layout) -> dict[str, Any]:
    """The heatmap, and for each cell the weight in each box of the call tree."""
    cells = subseconds(profile)
    deepest = boxes.stack_box
    for coarser in (None, *COARSER):
        if coarser is not None:  # the innermost callers that are wide enough to stay
            wide = boxes.weight >= coarser * boxes.total
            wide[0] = True
            while not wide[deepest].all():
                deepest = np.where(wide[deepest], deepest, boxes.parent[deepest])
        pairs, weights = _entries(cells, deepest, len(boxes.frame))
        if len(pairs) <= MOST_CELL_ENTRIES:
            break
    cell, box = np.divmod(pairs, len(boxes.frame))
    count = cells.columns * cells.rows
    first = np.concatenate([[0], np.cumsum(np.bincount(cell, minlength=count))])
    unit = float(weights.max()) / 65_535 if len(weights) else 1.0
    wide_boxes = len(boxes.frame) > 65_535
    return {
        "columns": cells.columns,
        "rows": cells.rows,
        "seconds": cells.seconds,
        "start": cells.start // 1_000_000,
        "utc": profile.clock == "utc",
        "unit": unit,
        "wide": wide_boxes,
        "first": _packed(first, "<u4"),
        "boxes": _packed(box, "<u4" if wide_boxes else "<u2"),
        "weights": _packed(np.ceil(weights / unit), "<u2"),
    }


def _entries(cells: Subseconds, deepest: Ints, boxes: int) -> tuple[Ints, Floats]:
    """Distinct cell * boxes + box in order, and their weights."""
    profile = cells.profile
    inside = (cells.cells >= 0) & (profile.values[:, 0] > 0)
    key = cells.cells[inside] * boxes + deepest[profile.sample_stacks[inside]]
    pairs, group = np.unique(key, return_inverse=True)
    weights: Floats = np.bincount(group, profile.values[inside, 0], len(pairs)).astype(
        np.float64, copy=False
    )
    return pairs, weights


def _packed(values: Any, kind: str) -> str:
    array = np.minimum(np.asarray(values), np.iinfo(kind).max).astype(kind)
    return base64.b64encode(array.tobytes()).decode("ascii")


def _numbers(values: Floats) -> list[float]:
    """Six significant digits; whole numbers without a point, to keep the page small."""
    rounded = [float(f"{value:.6g}") if value else 0.0 for value in values.tolist()]
    return [int(value) if value.is_integer() else value for value in rounded]


def _json(value: Any) -> str:
    return inside_script(
        json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    )
