"""Where the boxes of a flame chart go: samples in the order of time, equal neighbours joined.

Threads and tasks run at the same time, so each has a lane of its own: the boxes of the first level.
"""

from __future__ import annotations

import numpy as np

from ragprof.flamegraph.layout import DEEPEST, Layout
from ragprof.profiles.model import Floats, Frame, Ints, Profile

SMALLEST = 0.0005
"""Runs narrower than this share of the width are not drawn."""
MOST_BOXES = 12_000
"""With more boxes the least width is doubled: a page stays small however long the profile is."""


def layout_in_time(profile: Profile, *, smallest: float = SMALLEST) -> Layout:
    """The boxes of the first value type, from left to right in the order of time.

    Samples without times keep the order of the file. A box is a run of neighbouring samples of one
    thread and task that share their callers; it is drawn when it has ``smallest`` of the whole
    weight (more when there would be over `MOST_BOXES`), else it counts in its caller's ``pruned``.
    """
    boxes = _layout(profile, smallest)
    while len(boxes.frame) > MOST_BOXES:
        smallest *= 2
        boxes = _layout(profile, smallest)
    return boxes


def _layout(profile: Profile, smallest: float) -> Layout:
    lanes, names = _lanes(profile)
    order = np.lexsort((np.arange(len(profile)), _times(profile), lanes))
    lanes, stacks = lanes[order], profile.sample_stacks[order]
    weights = profile.values[order, 0]
    ends = np.cumsum(weights)
    begins = ends - weights
    total = float(ends[-1]) if len(ends) else 0.0
    least = total * smallest if total else np.inf
    several = len(names) > 1
    frames = (*profile.frames, *(Frame(name) for name in names)) if several else profile.frames
    offsets = profile.stack_offsets
    lengths = np.diff(offsets) + several

    alive = np.flatnonzero(weights > 0)  # places in the order of time
    boxes = np.zeros(len(alive), dtype=np.int64)
    level_frame, level_parent = [np.array([-1])], [np.array([-1])]
    level_weight, level_x = [np.array([total])], [np.zeros(1)]
    own: list[Floats] = []
    pruned: list[Floats] = []
    first = 0
    for depth in range(DEEPEST + 1):
        count = len(level_frame[-1])
        ending = lengths[stacks[alive]] == depth
        own.append(_sums(boxes[ending], weights[alive[ending]], count))
        alive, boxes = alive[~ending], boxes[~ending]
        if depth == DEEPEST or not len(alive):
            pruned.append(_sums(boxes, weights[alive], count))
            break
        if several and depth == 0:
            frame = len(profile.frames) + lanes[alive]
        else:
            frame = profile.stack_frames[offsets[stacks[alive]] + depth - several]
        starts = np.ones(len(alive), dtype=bool)
        starts[1:] = (
            (boxes[1:] != boxes[:-1])
            | (frame[1:] != frame[:-1])
            | (begins[alive[1:]] > ends[alive[:-1]])  # something else ran in between
        )
        run = np.cumsum(starts) - 1
        at = np.flatnonzero(starts)
        size = _sums(run, weights[alive], len(at))
        keep = size >= least
        pruned.append(_sums(boxes[at][~keep], size[~keep], count))
        level_frame.append(frame[at][keep])
        level_parent.append(first + boxes[at][keep])
        level_weight.append(size[keep])
        level_x.append(begins[alive[at]][keep])
        boxes = np.where(keep, np.cumsum(keep) - 1, -1)[run]
        alive, boxes = alive[boxes >= 0], boxes[boxes >= 0]
        first += count
        if not len(alive):
            own.append(np.zeros(len(level_frame[-1])))
            pruned.append(np.zeros(len(level_frame[-1])))
            break
    counts = [len(part) for part in level_frame]
    return Layout(
        frames=frames,
        frame=np.concatenate(level_frame),
        parent=np.concatenate(level_parent),
        depth=np.repeat(np.arange(len(counts)), counts),
        x=np.concatenate(level_x),
        weight=np.concatenate(level_weight),
        own=np.concatenate(own),
        pruned=np.concatenate(pruned),
        before=None,
        before_own=None,
        before_pruned=None,
        value_type=profile.value_types[0],
        stack_box=np.zeros(profile.stack_count, dtype=np.int64),
        in_time=True,
    )


def _sums(groups: Ints, weights: Floats, count: int) -> Floats:
    sums: Floats = np.bincount(groups, weights, count).astype(np.float64, copy=False)
    return sums


def _lanes(profile: Profile) -> tuple[Ints, list[str]]:
    """The lane of every sample, numbered in the order of first appearance, and the lanes' names."""
    threads = profile.threads if profile.threads is not None else np.zeros(len(profile), np.int64)
    tasks = profile.tasks if profile.tasks is not None else np.zeros(len(profile), np.int64)
    if not len(profile):
        return threads, []
    pairs, at, lane = np.unique(
        np.stack([threads, tasks], axis=1), axis=0, return_index=True, return_inverse=True
    )
    begun = np.lexsort((at, _times(profile)[at]))
    number = np.empty(len(pairs), dtype=np.int64)
    number[begun] = np.arange(len(pairs))
    names = [
        f"[thread {thread}, task {task}]" if task else f"[thread {thread}]"
        for thread, task in pairs[begun].tolist()
    ]
    return number[lane.reshape(-1)], names


def _times(profile: Profile) -> Ints:
    return profile.times if profile.times is not None else np.zeros(len(profile), dtype=np.int64)
