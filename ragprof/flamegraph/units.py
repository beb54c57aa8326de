"""Weights as text for people, by the unit of a profile."""

from __future__ import annotations

from ragprof.profiles.model import ValueType

MINUS = "\N{MINUS SIGN}"

_TIME = ((1e9, "s"), (1e6, "ms"), (1e3, "µs"), (1.0, "ns"))
_BYTES = ((2.0**30, "GiB"), (2.0**20, "MiB"), (2.0**10, "KiB"), (1.0, "B"))
_COUNT = ((1e9, "G"), (1e6, "M"), (1e3, "k"), (1.0, ""))
_TO_NANOSECONDS = {"nanoseconds": 1.0, "microseconds": 1e3, "milliseconds": 1e6, "seconds": 1e9}


def scale(kind: ValueType) -> tuple[float, tuple[tuple[float, str], ...]]:
    """A factor to the base unit, and the steps (size, suffix) in which people read it."""
    if kind.unit in _TO_NANOSECONDS:
        return _TO_NANOSECONDS[kind.unit], _TIME
    if kind.unit == "bytes":
        return 1.0, _BYTES
    return 1.0, _COUNT


def weight_text(weight: float, kind: ValueType, *, sign: bool = False) -> str:
    """A weight with three significant digits and its unit, such as ``12.3 ms``."""
    factor, steps = scale(kind)
    number = weight * factor
    size, suffix = next((step for step in steps if abs(number) >= step[0]), steps[-1])
    shown = number / size
    digits = 0 if abs(shown) >= 100 or shown == round(shown) else 1 if abs(shown) >= 10 else 2
    mark = "+" if sign and number > 0 else MINUS if number < 0 else ""
    return f"{mark}{abs(shown):.{digits}f} {suffix}".rstrip()


def share_text(share: float, *, sign: bool = False) -> str:
    """A share as a percentage with a sensible number of digits."""
    number = abs(share) * 100
    digits = 0 if number >= 99.95 or number == 0 else 1 if number >= 1 else 2
    mark = "+" if sign and share > 0 else MINUS if share < 0 else ""
    return f"{mark}{number:.{digits}f} %"
