"""The columns of a profile's samples while it is built: pieces that are joined at the end."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

NO_TIME = np.iinfo(np.int64).min
"""Stands in `Profile.times` for a sample without a time."""


@dataclass(frozen=True)
class Label:
    """A label of every sample: codes into a vocabulary; the empty string is "no label"."""

    codes: Ints
    vocabulary: tuple[str, ...]

    def values(self) -> list[str]:
        """The label of each sample as text."""
        return [self.vocabulary[code] for code in self.codes.tolist()]


@dataclass
class Chunk:
    """Some samples: stacks (n), values (n x value types), and what else is known of them (n)."""

    stacks: Ints
    values: Floats
    times: Ints | None
    threads: Ints | None
    tasks: Ints | None
    labels: dict[str, Label]

    def fault(self) -> str:
        """What is wrong with the columns, or nothing."""
        columns = [self.times, self.threads, self.tasks]
        columns += [label.codes for label in self.labels.values()]
        if any(column is not None and len(column) != len(self.stacks) for column in columns):
            return f"columns of {len(self.stacks)} samples have different lengths."
        for name, label in self.labels.items():
            codes = label.codes
            if len(codes) and (codes.min() < 0 or codes.max() >= len(label.vocabulary)):
                return f"label {name!r} has a code outside its vocabulary."
        return ""


def ints(column: ArrayLike | None) -> Ints | None:
    """The column as 64-bit integers, if there is one."""
    return None if column is None else np.asarray(column, dtype=np.int64)


def joined(parts: Sequence[Ints]) -> Ints:
    """The pieces one after the other."""
    return (
        np.concatenate(parts).astype(np.int64, copy=False) if parts else np.zeros(0, dtype=np.int64)
    )


def optional(parts: Sequence[tuple[Ints | None, int]], nothing: int) -> Ints | None:
    """The pieces one after the other; a missing one is ``nothing`` as often as it is long."""
    if all(part is None for part, _ in parts):
        return None
    return joined(
        [
            np.full(length, nothing, dtype=np.int64) if part is None else part
            for part, length in parts
        ]
    )


def joined_labels(chunks: Sequence[Chunk]) -> dict[str, Label]:
    """The labels of all pieces; a sample without one has the empty string."""
    labels: dict[str, Label] = {}
    for name in {name: None for chunk in chunks for name in chunk.labels}:
        codes: dict[str, int] = {"": 0}
        columns = []
        for chunk in chunks:
            label = chunk.labels.get(name)
            if label is None:
                columns.append(np.zeros(len(chunk.stacks), dtype=np.int64))
                continue
            renamed = [codes.setdefault(text, len(codes)) for text in label.vocabulary]
            columns.append(np.array(renamed or [0], dtype=np.int64)[label.codes])
        labels[name] = Label(joined(columns), tuple(codes))
    return labels
