"""Scales and ticks: numbers and times to pixels, with round steps."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pandas as pd

DASH = "\N{EN DASH}"
"""Stands for a value that is missing."""

Scale = Callable[[float], float]


def linear(low: float, high: float, start: float, end: float) -> Scale:
    """Values from low..high to pixels start..end."""
    span = (high - low) or 1.0
    return lambda value: start + (value - low) / span * (end - start)


def logarithmic(low: float, high: float, start: float, end: float) -> Scale:
    """Positive values from low..high to pixels start..end; smaller ones sit at ``start``."""
    inner = linear(math.log10(low), math.log10(high), start, end)
    return lambda value: inner(math.log10(max(value, low)))


def ticks(low: float, high: float, count: int = 4) -> list[float]:
    """About ``count`` round numbers that lie in low..high."""
    if not high > low:
        return [low]
    raw = (high - low) / max(1, count)
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(size * power for size in (1, 2, 2.5, 5, 10) if size * power >= raw * 0.999)
    first = math.ceil(low / step - 1e-9)
    return [index * step for index in range(first, math.floor(high / step + 1e-9) + 1)]


def log_ticks(low: float, high: float) -> list[float]:
    """Powers of ten in low..high, with 2 and 5 between them when there are few."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    sizes = (1, 2, 5) if len(powers) <= 4 else (1,)
    marks = [size * 10.0**power for power in powers for size in sizes]
    return [mark for mark in marks if low * 0.999 <= mark <= high * 1.001]


_STEPS = [
    *(f"{size}ms" for size in (1, 2, 5, 10, 20, 50, 100, 200, 500)),
    *(f"{size}s" for size in (1, 2, 5, 10, 20, 30)),
    *(f"{size}min" for size in (1, 2, 5, 10, 20, 30)),
    *(f"{size}h" for size in (1, 2, 3, 6, 12)),
    *(f"{size}D" for size in (1, 2, 7, 14, 30, 90, 180, 360)),
]


def time_ticks(low: int, high: int, count: int = 6) -> list[tuple[int, str]]:
    """About ``count`` round UTC times (ns since 1970) in low..high with their labels."""
    span = max(1, high - low)
    steps = [pd.Timedelta(step).value for step in _STEPS]
    step = next((step for step in steps if span / step <= count), steps[-1])
    day = 86_400_000_000_000
    form = "%H:%M:%S" if step < day // 1440 else "%H:%M" if step < day else "%d %b"
    if span >= day > step:
        form = f"%d %b {form}"
    if span > 300 * day:
        form = "%Y-%m-%d"
    first = -(-low // step) * step
    times = np.arange(first, high + 1, step).tolist()
    labels = [pd.Timestamp(time, tz="UTC").strftime(form) for time in times]
    if step < 1_000_000_000:
        labels = [
            f"{text}.{time // 1_000_000 % 1000:03d}"
            for time, text in zip(times, labels, strict=True)
        ]
    return list(zip(times, labels, strict=True))


def number_text(value: float, digits: int = 3) -> str:
    """A number for people: thousands with commas, ``digits`` significant, no needless zeros."""
    if not math.isfinite(value):
        return DASH if math.isnan(value) else "∞" if value > 0 else "\N{MINUS SIGN}∞"
    if value == 0:
        return "0"
    size = abs(value)
    if size >= 1e7 or size < 1e-4:
        shown = f"{size:.{digits - 1}e}".replace("e+0", "e").replace("e-0", "e-").replace("e+", "e")
    else:
        places = max(0, digits - 1 - math.floor(math.log10(size)))
        shown = f"{size:,.{places}f}"
        if "." in shown:
            shown = shown.rstrip("0").rstrip(".")
    return ("\N{MINUS SIGN}" if value < 0 else "") + shown


def ms_text(value: float, *, sign: bool = False) -> str:
    """Milliseconds for people: µs below a tenth, seconds from ten thousand."""
    mark = "+" if sign and value > 0 else ""
    size = abs(value)
    if size >= 10_000:
        return f"{mark}{number_text(value / 1000)} s"
    if size < 0.1 and value:
        return f"{mark}{number_text(value * 1000)} µs"
    return f"{mark}{number_text(value)} ms"
