"""Points, native histograms and exemplars written to Prometheus by remote write 1.0.

Protobuf and snappy by hand, as far as is needed: prometheus.WriteRequest of prometheus/prompb, and
snappy's block format with literals only.
"""

from __future__ import annotations

import struct
import urllib.request
from collections.abc import Mapping, Sequence
from typing import Any

STALE = struct.unpack("<d", struct.pack("<Q", 0x7FF0000000000002))[0]
"""The NaN that marks a series as gone; kept as bits by `struct`."""

Series = Mapping[str, Any]
"""labels: {name: value}; points: [(ms, value)]; exemplars: [(ms, value, labels)];
histograms: [(ms, {count, sum, schema, zero_threshold, zero_count, offset, counts})]."""


def write(url: str, series: Sequence[Series]) -> None:
    """Send series; each series' points must be newer than what the server holds of it."""
    message = b"".join(_bytes(1, _series(each)) for each in series)
    request = urllib.request.Request(
        f"{url}/api/v1/write",
        _snappy(message),
        {
            "Content-Type": "application/x-protobuf",
            "Content-Encoding": "snappy",
            "X-Prometheus-Remote-Write-Version": "0.1.0",
        },
    )
    with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(
        request, timeout=60
    ) as reply:
        assert reply.status // 100 == 2


def _series(series: Series) -> bytes:
    parts = [_bytes(1, _label(name, value)) for name, value in sorted(series["labels"].items())]
    for ms, value in series.get("points", ()):
        parts.append(_bytes(2, _double(1, value) + _integer(2, ms)))
    for ms, value, labels in series.get("exemplars", ()):
        own = b"".join(_bytes(1, _label(name, text)) for name, text in sorted(labels.items()))
        parts.append(_bytes(3, own + _double(2, value) + _integer(3, ms)))
    for ms, histogram in series.get("histograms", ()):
        parts.append(_bytes(4, _histogram(ms, histogram)))
    return b"".join(parts)


def _label(name: str, value: str) -> bytes:
    return _bytes(1, name.encode()) + _bytes(2, value.encode())


def _histogram(ms: int, h: Mapping[str, Any]) -> bytes:
    counts = h["counts"]
    span = _integer(1, _zigzag(h["offset"])) + _integer(2, len(counts))
    deltas = [now - before for before, now in zip([0, *counts], counts, strict=False)]
    return (
        _integer(1, h["count"])
        + _double(3, h["sum"])
        + _integer(4, _zigzag(h["schema"]))
        + _double(5, h["zero_threshold"])
        + _integer(6, h["zero_count"])
        + _bytes(11, span)
        + _bytes(12, b"".join(_varint(_zigzag(delta)) for delta in deltas))
        + _integer(15, ms)
    )


def _zigzag(value: int) -> int:
    return value * 2 if value >= 0 else -value * 2 - 1


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _integer(number: int, value: int) -> bytes:
    return _varint(number << 3) + _varint(value)


def _double(number: int, value: float) -> bytes:
    return _varint(number << 3 | 1) + struct.pack("<d", value)


def _bytes(number: int, value: bytes) -> bytes:
    return _varint(number << 3 | 2) + _varint(len(value)) + value


def _snappy(data: bytes) -> bytes:
    out = bytearray(_varint(len(data)))
    for at in range(0, len(data), 65536):
        part = data[at : at + 65536]
        out += bytes([61 << 2]) + struct.pack("<H", len(part) - 1) + part
    return bytes(out)
