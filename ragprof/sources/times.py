"""Times as backends write them -> ns since 1970: ISO texts, and numbers of any unit."""

from __future__ import annotations

import math
import re
from datetime import UTC, datetime, timedelta

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ragprof.sources.otlp import LATEST_NS

Ints = NDArray[np.int64]

_ISO = re.compile(
    r"\s*(\d{4})-(\d\d)-(\d\d)[T ](\d\d):(\d\d):(\d\d)(?:[.,](\d{1,12}))?\s*"
    r"(?:(Z|z|UTC)|([+-])(\d\d):?(\d\d))?\s*"
)
_NUMBER = re.compile(r"\s*(\d{1,19})(?:\.(\d{1,9}))?\s*")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def times(texts: pa.Array) -> Ints:
    """Times in ns since 1970, 0 where a text is none. Texts without a zone are UTC, as
    Elasticsearch takes them.
    """
    try:
        found = texts.cast(pa.timestamp("ns", tz="UTC"))
        if not found.null_count:
            return np.asarray(found.cast(pa.int64()).to_numpy())
    except pa.ArrowInvalid:
        pass
    return np.array([time_ns(text) or 0 for text in texts.to_pylist()], np.int64)


def time_ns(text: str) -> int | None:
    """One time in ns since 1970, every digit kept; None when it is none."""
    found = _ISO.fullmatch(text)
    if found:
        try:
            year, month, day, hour, minute, second = map(int, found.group(1, 2, 3, 4, 5, 6))
            moment = datetime(year, month, day, hour, minute, second, tzinfo=UTC)
        except ValueError:
            return None
        if found[9]:
            shift = timedelta(hours=int(found[10]), minutes=int(found[11]))
            moment = moment - shift if found[9] == "+" else moment + shift
        since = moment - _EPOCH
        ns = (since.days * 86400 + since.seconds) * 1_000_000_000
        ns += int((found[7] or "").ljust(9, "0")[:9])
        return ns if 0 < ns <= LATEST_NS else None
    number = _NUMBER.fullmatch(text)
    if not number:
        try:  # 1.7e9
            value = float(text)
        except ValueError:
            return None
        return number_ns(value)
    whole = int(number[1])
    scale = _scale(whole)
    part = int((number[2] or "").ljust(9, "0")) * scale // 1_000_000_000
    ns = whole * scale + part
    return ns if 0 < ns <= LATEST_NS else None


def number_ns(value: float) -> int | None:
    """Seconds, milliseconds, microseconds or nanoseconds since 1970, told by magnitude, in ns."""
    if not math.isfinite(value) or value <= 0:
        return None
    ns = round(value * _scale(value))
    return ns if ns <= LATEST_NS else None


def _scale(value: float) -> int:
    # Seconds stay below 1e11 until the year 5138; milliseconds are above it since 1973.
    for limit, scale in ((1e11, 1_000_000_000), (1e14, 1_000_000), (1e17, 1000)):
        if value < limit:
            return scale
    return 1
