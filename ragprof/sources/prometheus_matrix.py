"""The answer of a range selector, parsed by columns.

The points of each series are cut out of the JSON and read as two columns of numbers by Arrow's CSV
reader; what is left of the JSON (labels, warnings, native histograms) is small, and is parsed and
checked by the JSON reader. Format: the Prometheus HTTP API, "Range vectors".
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from pyarrow import csv

from ragprof.sources.http import Garbled

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]

_BEGIN, _END, _BETWEEN = b'"values":[[', b"]]", b"],["
_OPEN = ord("[")
_TO_LINES, _DROPPED = bytes.maketrans(b"]", b"\n"), b'["'
_READ = csv.ReadOptions(column_names=["", "time", "value"], use_threads=False, block_size=1 << 22)
_PARSE = csv.ParseOptions(quote_char=False, newlines_in_values=False)
_CONVERT = csv.ConvertOptions(
    column_types={"": pa.null(), "time": pa.float64(), "value": pa.float64()},
    null_values=[""],
)


@dataclass
class Matrix:
    """Series one after the other: `lengths[i]` rows of `times` (ms) and `values` are of series i.

    `histograms[i]` are the native histograms of series i: [time (s), {count, sum, buckets}].
    """

    labels: list[dict[str, str]]
    lengths: Integers
    times: Integers
    values: Floats
    histograms: list[list[Any]]
    warnings: list[str] = field(default_factory=list)

    def slices(self) -> list[slice]:
        """The rows of each series."""
        ends = np.cumsum(self.lengths)
        return [slice(int(e - n), int(e)) for e, n in zip(ends, self.lengths, strict=True)]


def parse(body: bytes) -> Matrix:
    """A matrix answer; raises Garbled when it is anything else, a cut one included."""
    rest, columns, counts = _cut_out(body)
    try:
        answer = json.loads(rest)
    except (ValueError, RecursionError) as error:
        raise Garbled(f"not JSON: {str(error)[:100]}") from None
    try:
        if answer["status"] != "success" or answer["data"]["resultType"] != "matrix":
            raise Garbled("not a matrix")
        result = answer["data"]["result"]
        labels = [_labels(series["metric"]) for series in result]
        lengths = [0 if (at := series.get("values")) is None else counts[at] for series in result]
        histograms = [_list(series.get("histograms", [])) for series in result]
        warnings = [str(text) for text in _list(answer.get("warnings") or [])]
        warnings += [str(text) for text in _list(answer.get("infos") or [])]
    except (KeyError, TypeError, AttributeError, IndexError):
        raise Garbled("JSON, but not of the Prometheus API") from None
    times, values = _numbers(columns)
    if len(times) != sum(lengths):
        raise Garbled("points that do not belong to their series")
    return Matrix(labels, np.array(lengths, np.int64), times, values, histograms, warnings)


def _cut_out(body: bytes) -> tuple[bytes, bytes, list[int]]:
    """The JSON with a number in place of each list of points, all points, and how many each.

    Within a JSON string a quote is escaped, so the marks can only be what they look like.
    """
    view = memoryview(body)
    codes = np.frombuffer(body, np.uint8)
    rest, points, counts = list[Any](), list[Any](), list[int]()
    at = 0
    while (begin := body.find(_BEGIN, at)) >= 0:
        first = begin + len(_BEGIN)
        end = body.find(_END, first)
        if end < 0:
            raise Garbled("the answer ends too early")
        rest += [view[at : first - 2], b"%d" % len(counts)]
        counts.append(int(np.count_nonzero(codes[first:end] == _OPEN)) + 1)
        points.append(view[first:end])
        at = end + len(_END)
    rest.append(view[at:])
    return b"".join(rest), _BETWEEN.join(points), counts


def _numbers(points: bytes) -> tuple[Integers, Floats]:
    if not points:
        return np.empty(0, np.int64), np.empty(0, np.float64)
    # `1.5,"7"],[2.5,"8"` becomes lines of an empty column, a time and a value.
    text = b"," + points.translate(_TO_LINES, _DROPPED)
    if b"+Inf" in text:
        text = text.replace(b"+Inf", b"Inf")  # Arrow reads NaN, Inf and -Inf
    try:
        table = csv.read_csv(pa.BufferReader(text), _READ, _PARSE, _CONVERT)
    except pa.ArrowInvalid as error:
        raise Garbled(f"points that are not numbers: {str(error)[:100]}") from None
    seconds = table.column("time").to_numpy()
    if table.column("value").null_count or not np.isfinite(seconds).all():
        raise Garbled("points without a time or a value")
    return np.rint(seconds * 1000).astype(np.int64), table.column("value").to_numpy()


def _labels(metric: dict[str, str]) -> dict[str, str]:
    if not all(isinstance(value, str) for value in metric.values()):
        raise TypeError
    return metric


def _list(value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise TypeError
    return value
