"""Where the boxes of a flame graph go: stacks folded into a tree, level by level, in numpy.

The stacks of one box are sorted by their next frame only when the box is drawn, so that the cost
follows the boxes on the picture and not the stacks below what was pruned. This is a most
significant digit radix sort with the frame as the digit; positions are prefix sums of the weights.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ragprof.flamegraph.units import share_text, weight_text
from ragprof.profiles.model import Floats, Frame, Ints, Profile, ProfileError, ValueType

SMALLEST = 0.001
"""Boxes narrower than this share of the whole width are not drawn."""
DEEPEST = 500
"""Levels drawn. Deeper frames (endless recursion) count in the box where drawing stops."""


@dataclass(frozen=True)
class Layout:
    """The boxes of a flame graph, parents before children; box 0 is the root, "all".

    Per box: ``frame`` (index into ``frames``; -1 at the root), ``parent`` (-1 at the root),
    ``depth`` (0 at the root), ``x`` (left edge) and ``weight`` in the profile's unit, ``own``
    (weight of samples that end here), ``pruned`` (weight of children that are not drawn). With a
    baseline, ``before``, ``before_own`` and ``before_pruned`` are the same for it. For each box,
    weight = own + pruned + the weights of its children.
    """

    frames: tuple[Frame, ...]
    frame: Ints
    parent: Ints
    depth: Ints
    x: Floats
    weight: Floats
    own: Floats
    pruned: Floats
    before: Floats | None
    before_own: Floats | None
    before_pruned: Floats | None
    value_type: ValueType
    inverted: bool

    @property
    def total(self) -> float:
        """The weight of the root."""
        return float(self.weight[0])

    @property
    def levels(self) -> int:
        """The number of rows, the root's included."""
        return int(self.depth.max()) + 1

    @property
    def pruned_share(self) -> float:
        """The share of the whole weight that lies in boxes not drawn."""
        return float(self.pruned.sum() / self.total) if self.total else 0.0


def layout(
    profile: Profile,
    baseline: Profile | None = None,
    *,
    inverted: bool = False,
    smallest: float = SMALLEST,
    deepest: int = DEEPEST,
) -> Layout:
    """The boxes of ``profile``'s first value type, siblings ordered by name.

    ``inverted`` starts at the innermost frames. ``smallest`` is the least share of the width that
    is drawn; with a baseline a box stays when it is wide enough on either side. Raises
    `ProfileError` when the baseline is of another value type.
    """
    frames, flat, offsets, weights = _folded(profile, baseline)
    rank = _ranks(frames)
    lengths = np.diff(offsets)
    totals = weights.sum(axis=0)
    least = np.where(totals > 0, totals * smallest, np.inf)

    stacks = np.arange(len(lengths), dtype=np.int64)
    boxes = np.zeros(len(stacks), dtype=np.int64)
    level_frame = [np.array([-1], dtype=np.int64)]
    level_parent = [np.array([-1], dtype=np.int64)]
    level_weight = [totals[None, :]]
    level_x = [np.zeros(1)]
    own: list[Floats] = []
    pruned: list[Floats] = []
    first = 0  # number of the first box of the level
    for depth in range(deepest + 1):
        count = len(level_frame[-1])
        ending = lengths[stacks] == depth
        own.append(_sums(boxes[ending] - first, weights[stacks[ending]], count))
        stacks, boxes = stacks[~ending], boxes[~ending]
        if depth == deepest or not len(stacks):
            pruned.append(_sums(boxes - first, weights[stacks], count))
            break
        place = offsets[stacks + 1] - 1 - depth if inverted else offsets[stacks] + depth
        key = (boxes - first) * len(frames) + rank[flat[place]]
        order = np.argsort(key, kind="stable")
        key, stacks, boxes = key[order], stacks[order], boxes[order]
        starts = np.flatnonzero(np.concatenate([[True], key[1:] != key[:-1]]))
        group_weight = np.add.reduceat(weights[stacks], starts, axis=0)
        group_parent = boxes[starts]
        group_x = _edges(level_x[-1], group_parent - first, group_weight[:, 0])
        keep = (group_weight >= least).any(axis=1)
        pruned.append(_sums(group_parent[~keep] - first, group_weight[~keep], count))
        first += count
        sizes = np.diff(np.concatenate([starts, [len(stacks)]]))
        kept = np.repeat(keep, sizes)
        stacks = stacks[kept]
        if not len(stacks):
            break
        boxes = first + np.repeat(np.arange(int(keep.sum())), sizes[keep])
        level_frame.append(flat[place[order][starts]][keep])
        level_parent.append(group_parent[keep])
        level_weight.append(group_weight[keep])
        level_x.append(group_x[keep])

    weight, selfs, cut = (np.concatenate(part) for part in (level_weight, own, pruned))
    counts = [len(part) for part in level_frame]
    two = baseline is not None
    return Layout(
        frames=frames,
        frame=np.concatenate(level_frame),
        parent=np.concatenate(level_parent),
        depth=np.repeat(np.arange(len(counts)), counts),
        x=np.concatenate(level_x),
        weight=weight[:, 0],
        own=selfs[:, 0],
        pruned=cut[:, 0],
        before=weight[:, 1] if two else None,
        before_own=selfs[:, 1] if two else None,
        before_pruned=cut[:, 1] if two else None,
        value_type=profile.value_types[0],
        inverted=inverted,
    )


def summary_text(boxes: Layout) -> str:
    """The totals of a flame graph, and what is not drawn, in one line."""
    kind = boxes.value_type
    parts = [f"{weight_text(boxes.total, kind)} {kind.type}"]
    if boxes.before is not None:
        before = float(boxes.before[0])
        parts.append(
            f"baseline {weight_text(before, kind)}, "
            f"difference {weight_text(boxes.total - before, kind, sign=True)}"
        )
    if boxes.inverted:
        parts.append("inverted: innermost functions first")
    if boxes.pruned_share > 0:
        parts.append(f"{share_text(boxes.pruned_share)} in boxes too narrow or too deep to draw")
    return "; ".join(parts)


def _folded(
    profile: Profile, baseline: Profile | None
) -> tuple[tuple[Frame, ...], Ints, Ints, Floats]:
    """Frames, flat stacks, offsets, and weights (stacks x sides) of one or two profiles."""
    sides = [profile] if baseline is None else [profile, baseline]
    if baseline is not None and baseline.value_types[0] != profile.value_types[0]:
        raise ProfileError(
            f"{' '.join(profile.value_types[0])} cannot be drawn against "
            f"{' '.join(baseline.value_types[0])}: choose profiles of one value type."
        )
    interned: dict[Frame, int] = {}
    flat, lengths, weights = [], [], []
    for column, side in enumerate(sides):
        numbers = np.array(
            [interned.setdefault(frame, len(interned)) for frame in side.frames], dtype=np.int64
        )
        folded = side.stack_weights()
        used = folded > 0
        sizes = np.diff(side.stack_offsets)
        inside = np.repeat(used, sizes)
        flat.append(numbers[side.stack_frames[inside]] if len(numbers) else side.stack_frames)
        lengths.append(sizes[used])
        weight = np.zeros((int(used.sum()), len(sides)))
        weight[:, column] = folded[used]
        weights.append(weight)
    offsets = np.concatenate([[0], np.cumsum(np.concatenate(lengths))]).astype(np.int64)
    return tuple(interned), np.concatenate(flat), offsets, np.concatenate(weights)


def _ranks(frames: tuple[Frame, ...]) -> Ints:
    """The place of every frame in the order of names."""
    ranks = np.zeros(len(frames), dtype=np.int64)
    ranks[sorted(range(len(frames)), key=frames.__getitem__)] = np.arange(len(frames))
    return ranks


def _sums(groups: Ints, weights: Floats, count: int) -> Floats:
    return np.stack(
        [
            np.bincount(groups, weights=weights[:, side], minlength=count)
            for side in range(weights.shape[1])
        ],
        axis=1,
    )


def _edges(parent_x: Floats, parents: Ints, weights: Floats) -> Floats:
    """Left edges: the parent's edge plus the weights of the siblings before."""
    before = np.cumsum(weights) - weights
    starts = np.concatenate([[True], parents[1:] != parents[:-1]])
    base = before[np.flatnonzero(starts)][np.cumsum(starts) - 1]
    edges: Floats = parent_x[parents] + before - base
    return edges
