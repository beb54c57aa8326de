"""Rows that are equal, found at C speed: the distinct stacks among those of all samples."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from ragprof.profiles.model import Ints


def distinct(rows: Iterable[object]) -> tuple[Ints, Ints]:
    """The index of the first of each distinct row, and for every row which of them it is."""
    seen: dict[object, int] = {}
    which = np.array([seen.setdefault(row, len(seen)) for row in rows], dtype=np.int64)
    first = np.zeros(len(seen), dtype=np.int64)
    first[which[::-1]] = np.arange(len(which) - 1, -1, -1)
    return first, which


def distinct_stacks(flat: Ints, lengths: Ints) -> tuple[Ints, Ints]:
    """`distinct` of stacks that lie one after the other in ``flat``."""
    ends = np.cumsum(lengths)
    data, size = flat.tobytes(), flat.itemsize
    begins = ((ends - lengths) * size).tolist()
    return distinct(
        data[low:high] for low, high in zip(begins, (ends * size).tolist(), strict=True)
    )


def gathered(begins: Ints, lengths: Ints) -> Ints:
    """The indices of every row, which has ``lengths[i]`` of them from ``begins[i]`` on."""
    before = np.cumsum(lengths) - lengths
    indices: Ints = np.arange(int(lengths.sum()), dtype=np.int64)
    indices += np.repeat(begins - before, lengths)
    return indices
