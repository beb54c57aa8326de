"""Trace and span ids in the one form that the tables hold: 32 and 16 lower-case hex digits.

Backends write them in hex of either case, with dashes or 0x, without leading zeros, as 64 bits
only (padded, as OpenTelemetry's bridges do), in base64 (protobuf's JSON) or in decimal (Datadog).
"""

from __future__ import annotations

import base64
import binascii
import re
from typing import Any

TRACE, SPAN = 32, 16  # hex digits

_HEX = re.compile(r"[0-9a-f]+")


def normal_id(value: Any, digits: int, *, short: bool = False) -> str | None:
    """An id as hex of `digits` digits; None when it is none.

    `short`: the field surely holds an id, so digits may be missing at its front, and base64 is
    understood.
    """
    if isinstance(value, bool):
        return None
    if isinstance(value, int):
        return f"{value:0{digits}x}" if 0 < value < 16**digits else None
    if not isinstance(value, str):
        return None
    word = value.strip().lower().removeprefix("0x").replace("-", "")
    if len(word) == digits and _HEX.fullmatch(word):
        return word if word.strip("0") else None
    if short and len(word) <= digits and _HEX.fullmatch(word):
        return word.rjust(digits, "0") if word.strip("0") else None
    if word.isascii() and word.isdigit() and len(word) > 16 and 0 < int(word) < 16**digits:
        return f"{int(word):0{digits}x}"
    if digits == TRACE and len(word) == 16 and _HEX.fullmatch(word) and word.strip("0"):
        return word.rjust(32, "0")
    return _from_base64(value.strip(), digits) if short else None


def trace_id(value: Any) -> str:
    """A trace id of a field that holds one; empty when it is none."""
    return normal_id(value, TRACE, short=True) or ""


def span_id(value: Any) -> str:
    """A span id of a field that holds one; empty when it is none."""
    return normal_id(value, SPAN, short=True) or ""


def written_forms(trace: str) -> list[str]:
    """The texts by which a backend may know a trace: padded, and of 64 bits when it has no more."""
    low = trace[16:]
    if trace.startswith("0" * 16):
        return [trace, low, *([low.lstrip("0")] if low.startswith("0") else [])]
    return [trace]


def _from_base64(word: str, digits: int) -> str | None:
    try:
        raw = base64.b64decode(word, validate=True)
    except (ValueError, binascii.Error):
        return None
    return raw.hex() if len(raw) * 2 == digits and any(raw) else None
