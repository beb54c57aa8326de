"""Stacks that grow call by call, as call trees and opening and closing events give them.

A stack is a node: its caller's node and one more frame. Nodes cost the same however deep they are;
only the stacks that samples point at are written out, and only after their size is known.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from ragprof.profiles.model import MOST_STACK_FRAMES, Ints, ProfileBuilder, ProfileError

NOBODY = -1
"""The caller of an outermost frame; as a stack, the empty one."""


class CallTree:
    """The stacks of one profile while it is read; equal stacks are one node."""

    def __init__(self, builder: ProfileBuilder) -> None:
        self._builder = builder
        self._nodes: dict[tuple[int, int, int], int] = {}
        self.callers: list[int] = []
        self.frames: list[int] = []
        self.lines: list[int] = []

    def call(self, caller: int, frame: int, line: int = 0) -> int:
        """The node of ``frame`` called from the node ``caller`` (`NOBODY`: outermost)."""
        key = (caller, frame, line)
        node = self._nodes.get(key)
        if node is None:
            node = self._nodes[key] = len(self.callers)
            self.callers.append(caller)
            self.frames.append(frame)
            self.lines.append(line)
        return node

    def stacks(self, nodes: ArrayLike) -> Ints:
        """The stack ids of these nodes in the builder."""
        return add_stacks(self._builder, self.callers, self.frames, self.lines, nodes)


def add_stacks(
    builder: ProfileBuilder,
    callers: ArrayLike,
    frames: ArrayLike,
    lines: ArrayLike,
    nodes: ArrayLike,
) -> Ints:
    """Writes out the stacks of ``nodes``; returns the stack id of each.

    ``callers`` (nodes): the caller of each node, which comes before it, or `NOBODY`. Raises
    `ProfileError` for a caller that does not come before its callee (a cycle among them) and when
    the stacks together are larger than a profile may be.
    """
    above = np.asarray(callers, dtype=np.int64)
    wanted = np.asarray(nodes, dtype=np.int64)
    _check(above)
    if len(wanted) and (wanted.min() < NOBODY or wanted.max() >= len(above)):
        raise ProfileError(f"a sample points at stack {wanted.max()} of {len(above)}.")
    used, inverse = np.unique(wanted, return_inverse=True)
    lengths = _depths(above)[used] if len(above) else np.zeros(len(used), dtype=np.int64)
    lengths[used == NOBODY] = 0
    total = int(lengths.sum())
    if total > MOST_STACK_FRAMES:
        raise ProfileError(
            f"its {len(used):,} stacks have {total:,} frames together, the deepest "
            f"{int(lengths.max()):,}; at most {MOST_STACK_FRAMES:,} are read: cut the recording."
        )
    flat_frames = np.zeros(total, dtype=np.int64)
    flat_lines = np.zeros(total, dtype=np.int64)
    of_frame, of_line = np.asarray(frames, dtype=np.int64), np.asarray(lines, dtype=np.int64)
    place, node = np.cumsum(lengths) - 1, used.copy()
    place, node = place[node != NOBODY], node[node != NOBODY]
    while len(node):  # all stacks climb one frame at a time
        flat_frames[place], flat_lines[place] = of_frame[node], of_line[node]
        node = above[node]
        place = place - 1
        going = node != NOBODY
        if not going.all():
            place, node = place[going], node[going]
    ids = builder.stacks(flat_frames, flat_lines, lengths)
    return ids[inverse.reshape(-1)] if len(ids) else np.zeros(0, dtype=np.int64)


def _check(above: Ints) -> None:
    wrong = np.flatnonzero((above >= np.arange(len(above))) | (above < NOBODY))
    if len(wrong):
        raise ProfileError(
            f"stack {wrong[0]} names stack {above[wrong[0]]} as its caller, which does not come "
            "before it."
        )


def _depths(above: Ints) -> Ints:
    depths: list[int] = []
    for caller in above.tolist():
        depths.append(1 if caller == NOBODY else depths[caller] + 1)
    return np.array(depths, dtype=np.int64)
