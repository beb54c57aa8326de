"""Units of weights: times become nanoseconds, whatever a file counts in."""

from __future__ import annotations

from typing import overload

import numpy as np

from ragprof.profiles.model import Floats, ValueType

NANOSECONDS = {
    "nanoseconds": 1.0,
    "nanosecond": 1.0,
    "ns": 1.0,
    "microseconds": 1e3,
    "microsecond": 1e3,
    "us": 1e3,
    "µs": 1e3,
    "milliseconds": 1e6,
    "millisecond": 1e6,
    "ms": 1e6,
    "seconds": 1e9,
    "second": 1e9,
    "s": 1e9,
}
"""How many nanoseconds a unit of time is."""

WALL = ValueType("wall", "nanoseconds")
SAMPLES = ValueType("samples", "count")


def in_nanoseconds(kind: ValueType) -> tuple[ValueType, float]:
    """The value type with time in nanoseconds, and the factor that its weights take."""
    factor = NANOSECONDS.get(kind.unit.strip().lower())
    return (kind, 1.0) if factor is None else (ValueType(kind.type, "nanoseconds"), factor)


@overload
def scaled(weights: Floats, factor: float) -> Floats: ...
@overload
def scaled(weights: float, factor: float) -> float: ...
def scaled(weights: Floats | float, factor: float) -> Floats | float:
    """Weights times a factor; what is a whole number but for rounding becomes one.

    0.02 s are 20,000,000 ns, not 20,000,000.000000004.
    """
    if factor == 1.0:
        return weights
    product = np.asarray(weights, dtype=np.float64) * factor
    with np.errstate(invalid="ignore"):
        whole = np.rint(product)
        near = (np.abs(product - whole) <= 1e-3) & (whole >= 1)
    snapped = np.where(near, whole, product)
    return snapped if isinstance(weights, np.ndarray) else float(snapped)


def is_time(kind: ValueType) -> bool:
    """Whether the weights are times."""
    return kind.unit.strip().lower() in NANOSECONDS


def whole(weights: Floats) -> tuple[Floats, float]:
    """Weights as whole numbers of the same sum, and by how much the most changed one moved.

    Each running sum is rounded, so the sum of all is right to half a unit.
    """
    sums = np.rint(np.cumsum(weights))
    rounded: Floats = np.diff(sums, prepend=0.0)
    if len(weights) and np.array_equal(weights, np.rint(weights)):
        return weights, 0.0
    return rounded, float(np.max(np.abs(rounded - weights), initial=0.0))
