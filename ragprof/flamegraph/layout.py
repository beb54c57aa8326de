"""Where the boxes of a flame graph go: stacks folded into a tree, level by level, in numpy.

The stacks of one box are parted by their next frame only when the box is drawn, so that the cost
follows the boxes on the picture and not the stacks below what was pruned. This is a most
significant digit radix sort with the frame as the digit; positions are prefix sums of the weights.
At most 1 / `SMALLEST` boxes of a level are drawn, which keeps the tables of digits small.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

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
    weight = own + pruned + the weights of its children. ``stack_box``: for every stack of the
    profile the innermost box that is drawn (0 also for stacks without weight).
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
    stack_box: Ints
    inverted: bool = False
    normalized: bool = False
    in_time: bool = False

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
    normalized: bool = False,
    smallest: float = SMALLEST,
    deepest: int = DEEPEST,
) -> Layout:
    """The boxes of ``profile``'s first value type, siblings ordered by name.

    ``inverted`` starts at the innermost frames. ``normalized`` scales the baseline to the total of
    the profile, so that shares are compared. ``smallest`` is the least share of the width that is
    drawn; with a baseline a box stays when it is wide enough on either side. Raises `ProfileError`
    when the baseline is of another value type.
    """
    frames, flat, offsets, weights = _folded(profile, baseline)
    totals = weights.sum(axis=0)
    if normalized and baseline is not None and totals[1] > 0:
        weights[:, 1] *= totals[0] / totals[1]
        totals = weights.sum(axis=0)
    rank, ranked = _ranks(frames)
    least = np.where(totals > 0, totals * smallest, np.inf)

    lengths = np.diff(offsets)
    stacks = np.arange(len(lengths), dtype=np.int64)
    boxes = np.zeros(len(stacks), dtype=np.int64)  # box of each stack, numbered within the level
    levels = [_Level(np.array([-1]), np.array([-1]), totals[None, :], np.zeros(1))]
    own: list[Floats] = []
    pruned: list[Floats] = []
    innermost = np.zeros(len(stacks), dtype=np.int64)
    first = 0  # number of the first box of the level
    for depth in range(deepest + 1):
        count = len(levels[-1].frame)
        innermost[stacks] = first + boxes
        ending = lengths[stacks] == depth
        own.append(_sums(boxes[ending], weights[stacks[ending]], count))
        if ending.any():
            stacks, boxes = stacks[~ending], boxes[~ending]
        if depth == deepest or not len(stacks):
            pruned.append(_sums(boxes, weights[stacks], count))
            break
        place = offsets[stacks + 1] - 1 - depth if inverted else offsets[stacks] + depth
        group, keys, sums = _grouped(
            boxes * len(frames) + rank[flat[place]], weights[stacks], count * len(frames)
        )
        parent, ranks = np.divmod(keys, len(frames))
        edges = _edges(levels[-1].x, parent, sums[:, 0])
        keep = (sums >= least).any(axis=1)
        pruned.append(_sums(parent[~keep], sums[~keep], count))
        number = np.where(keep, np.cumsum(keep) - 1, -1)
        boxes = number[group]
        if not keep.all():
            drawn = boxes >= 0
            stacks, boxes = stacks[drawn], boxes[drawn]
        if not len(stacks):
            break
        levels.append(_Level(ranked[ranks[keep]], first + parent[keep], sums[keep], edges[keep]))
        first += count

    weight, selfs, cut = (
        np.concatenate(part) for part in ([level.weight for level in levels], own, pruned)
    )
    counts = [len(level.frame) for level in levels]
    two = baseline is not None
    return Layout(
        frames=frames,
        frame=np.concatenate([level.frame for level in levels]),
        parent=np.concatenate([level.parent for level in levels]),
        depth=np.repeat(np.arange(len(counts)), counts),
        x=np.concatenate([level.x for level in levels]),
        weight=weight[:, 0],
        own=selfs[:, 0],
        pruned=cut[:, 0],
        before=weight[:, 1] if two else None,
        before_own=selfs[:, 1] if two else None,
        before_pruned=cut[:, 1] if two else None,
        value_type=profile.value_types[0],
        stack_box=_of_stacks(profile, innermost),
        inverted=inverted,
        normalized=normalized and two,
    )


def _of_stacks(profile: Profile, innermost: Ints) -> Ints:
    """From the stacks with weight, in their order, to all stacks of the profile."""
    used = profile.stack_weights() > 0
    boxes = np.zeros(len(used), dtype=np.int64)
    boxes[used] = innermost[: int(used.sum())]
    return boxes


class _Level(NamedTuple):
    frame: Ints
    parent: Ints
    weight: Floats
    x: Floats


DENSE = 4_000_000
"""Up to so many possible keys, groups are counted in a table; beyond, they are sorted."""


def _grouped(keys: Ints, weights: Floats, possible: int) -> tuple[Ints, Ints, Floats]:
    """Group number of each key, the distinct keys in order, and the weights of the groups."""
    if possible <= max(DENSE, 2 * len(keys)):
        seen = np.zeros(possible, dtype=bool)
        seen[keys] = True
        distinct = np.flatnonzero(seen)
        number = np.zeros(possible, dtype=np.int64)
        number[distinct] = np.arange(len(distinct))
        group = number[keys]
    else:
        distinct, group = np.unique(keys, return_inverse=True)
    return group, distinct, _sums(group, weights, len(distinct))


def summary_text(boxes: Layout) -> str:
    """The totals of a flame graph, and what is not drawn, in one line."""
    kind = boxes.value_type
    parts = [f"{weight_text(boxes.total, kind)} {kind.type}"]
    if boxes.before is not None:
        before = float(boxes.before[0])
        if boxes.normalized:
            parts.append("baseline scaled to the same total")
        else:
            parts.append(
                f"baseline {weight_text(before, kind)}, "
                f"difference {weight_text(boxes.total - before, kind, sign=True)}"
            )
        new, gone = one_sided(boxes)
        if new >= 0.0005:
            parts.append(f"{share_text(new)} in stacks that the baseline lacks")
        if gone >= 0.0005:
            parts.append(f"{share_text(gone)} of the baseline in stacks that are gone")
    if boxes.inverted:
        parts.append("inverted: innermost functions first")
    if boxes.pruned_share > 0:
        parts.append(f"{share_text(boxes.pruned_share)} in boxes too narrow or too deep to draw")
    return "; ".join(parts)


def edges(boxes: Layout, weight: Floats) -> Floats:
    """Left edges when the boxes are as wide as ``weight``, the siblings in their order."""
    x = np.zeros(len(weight))
    for depth in range(1, boxes.levels):
        row = np.flatnonzero(boxes.depth == depth)
        x[row] = _edges(x, boxes.parent[row], weight[row])
    return x


def one_sided(boxes: Layout) -> tuple[float, float]:
    """The share of the profile in boxes that the baseline lacks, and of the baseline in boxes that
    the profile lacks; of the boxes drawn."""
    if boxes.before is None:
        return 0.0, 0.0
    shares = []
    for here, there in ((boxes.weight, boxes.before), (boxes.before, boxes.weight)):
        alone = (here > 0) & (there == 0)
        top = alone[1:] & ~alone[boxes.parent[1:]]
        shares.append(float(here[1:][top].sum() / here[0]) if here[0] else 0.0)
    return shares[0], shares[1]


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
        stacks = side.stack_frames
        if not used.all():
            stacks, sizes, folded = stacks[np.repeat(used, sizes)], sizes[used], folded[used]
        same = np.array_equal(numbers, np.arange(len(numbers)))
        flat.append(stacks if same else numbers[stacks])
        lengths.append(sizes)
        weight = np.zeros((len(folded), len(sides)))
        weight[:, column] = folded
        weights.append(weight)
    if baseline is None:
        offsets = np.concatenate([[0], np.cumsum(lengths[0])]).astype(np.int64)
        return tuple(interned), flat[0], offsets, weights[0]
    offsets = np.concatenate([[0], np.cumsum(np.concatenate(lengths))]).astype(np.int64)
    return tuple(interned), np.concatenate(flat), offsets, np.concatenate(weights)


def _ranks(frames: tuple[Frame, ...]) -> tuple[Ints, Ints]:
    """The place of every frame in the order of names, and the frames in that order."""
    ranked = np.array(sorted(range(len(frames)), key=frames.__getitem__), dtype=np.int64)
    ranks = np.zeros(len(frames), dtype=np.int64)
    ranks[ranked] = np.arange(len(frames))
    return ranks, ranked


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
