"""Rows that are equal, found at C speed: the distinct stacks among those of all samples."""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Collection, Hashable, Iterable
from typing import TypeVar

import numpy as np

from ragprof.profiles.model import Ints

T = TypeVar("T", bound=Hashable)

DRAWN = 1 << 12
"""Rows that are looked at to tell how many are distinct."""


def numbered(rows: Iterable[T]) -> tuple[list[T], Ints]:
    """The distinct rows in the order of their first places, and for every row which it is."""
    seen: defaultdict[T, int] = defaultdict(itertools.count().__next__)
    which = np.fromiter(map(seen.__getitem__, rows), np.int64)
    return list(seen), which


def first_places(which: Ints, count: int) -> Ints:
    """Where each of ``count`` distinct rows is met first."""
    first = np.zeros(count, dtype=np.int64)
    first[which[::-1]] = np.arange(len(which) - 1, -1, -1)
    return first


def distinct_stacks(flat: Ints, lengths: Ints) -> tuple[Ints, Ints]:
    """Stacks that lie one after the other in ``flat``: the first place of each distinct one, and
    for every stack which of them it is."""
    rows, which = numbered(rows_of(flat, lengths))
    return first_places(which, len(rows)), which


def rows_of(flat: Ints, lengths: Ints) -> Iterable[bytes]:
    """The bytes of every row; rows lie one after the other in ``flat``."""
    ends = np.cumsum(lengths) * flat.itemsize
    begins = ends - lengths * flat.itemsize
    return slices(flat.tobytes(), begins.tolist(), ends.tolist())


def slices(data: bytes, begins: list[int], ends: list[int]) -> Iterable[bytes]:
    """``data[begin:end]`` for each."""
    return map(data.__getitem__, map(slice, begins, ends))


def spread(count: int) -> Ints:
    """Places of a few of ``count`` rows, all over them."""
    return np.linspace(0, count - 1, min(count, DRAWN)).astype(np.int64)


def mostly_repeated(drawn: Collection[Hashable], count: float) -> bool:
    """Whether more than half of ``count`` rows seem to repeat others, told from those drawn.

    Of m rows drawn from k equally frequent ones about m² / 2k repeat another.
    """
    repeats = len(drawn) - len(set(drawn))
    if 2 * len(drawn) >= count:
        return 2 * repeats > len(drawn)
    return repeats * count > len(drawn) ** 2


def gathered(begins: Ints, lengths: Ints) -> Ints:
    """The indices of every row, which has ``lengths[i]`` of them from ``begins[i]`` on."""
    before = np.cumsum(lengths) - lengths
    indices: Ints = np.arange(int(lengths.sum()), dtype=np.int64)
    indices += np.repeat(begins - before, lengths)
    return indices
