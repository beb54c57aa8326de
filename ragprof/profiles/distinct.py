"""Rows that are equal, found at C speed: the distinct stacks among those of all samples."""

from __future__ import annotations

import itertools
from collections.abc import Iterable

import numpy as np

from ragprof.profiles.model import Ints


def distinct(rows: Iterable[object]) -> tuple[Ints, Ints]:
    """The index of the first of each distinct row, and for every row which of them it is."""
    every = list(rows)
    seen = dict(zip(dict.fromkeys(every), itertools.count(), strict=False))
    which = np.fromiter(map(seen.__getitem__, every), np.int64, len(every))
    first = np.zeros(len(seen), dtype=np.int64)
    first[which[::-1]] = np.arange(len(which) - 1, -1, -1)
    return first, which


def distinct_stacks(flat: Ints, lengths: Ints) -> tuple[Ints, Ints]:
    """`distinct` of stacks that lie one after the other in ``flat``."""
    ends = np.cumsum(lengths) * flat.itemsize
    begins = ends - lengths * flat.itemsize
    return distinct(slices(flat.tobytes(), begins.tolist(), ends.tolist()))


def slices(data: bytes, begins: list[int], ends: list[int]) -> Iterable[bytes]:
    """``data[begin:end]`` for each."""
    return map(data.__getitem__, map(slice, begins, ends))


def gathered(begins: Ints, lengths: Ints) -> Ints:
    """The indices of every row, which has ``lengths[i]`` of them from ``begins[i]`` on."""
    before = np.cumsum(lengths) - lengths
    indices: Ints = np.arange(int(lengths.sum()), dtype=np.int64)
    indices += np.repeat(begins - before, lengths)
    return indices
