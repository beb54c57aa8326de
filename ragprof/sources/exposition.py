"""Prometheus text and OpenMetrics -> points of `metrics` and their series.

Parsed by prometheus_client. The buckets of a classic histogram become one series with counts per
bucket; `_created` samples are the start times of counters and are left out.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

from prometheus_client import Metric
from prometheus_client.openmetrics.parser import (
    text_string_to_metric_families as parse_openmetrics,
)
from prometheus_client.parser import text_string_to_metric_families as parse_text
from prometheus_client.samples import Exemplar, Sample

from ragprof.errors import RagprofError
from ragprof.sources.otlp import LATEST_NS
from ragprof.sources.series import Series, labels

ACCEPT = "application/openmetrics-text;version=1.0.0;q=1,text/plain;version=0.0.4;q=0.5,*/*;q=0.1"
TYPES = {
    "counter": "counter",
    "gauge": "gauge",
    "histogram": "histogram",
    "gaugehistogram": "histogram",
    "summary": "summary",
    "info": "gauge",
    "stateset": "gauge",
}
CREATED = ("counter", "histogram", "summary")
TRACE_LABELS = ("trace_id", "traceID", "traceId", "TraceID")
SPAN_LABELS = ("span_id", "spanID", "spanId", "SpanID")

Point = dict[str, Any]


class BadExposition(RagprofError):  # the other side's text, not our error
    """Text that is not the exposition format it claims to be."""


def points(
    text: str, content_type: str, time: int, common: Mapping[str, str]
) -> list[tuple[Series, Point]]:
    """Series and points (`time` in ns, `value`, `histogram`, `exemplars`) of one exposition.

    `time` (ns) holds for samples without their own; `common` are labels of all series. Raises
    BadExposition.
    """
    openmetrics = "application/openmetrics-text" in content_type
    parse = parse_openmetrics if openmetrics else parse_text
    found: list[tuple[Series, Point]] = []
    try:
        families = list(parse(text))
        # The text format has no `_created` samples: there they are gauges of their own.
        created = {f"{each.name}_created" for each in families if each.type in CREATED}
        for family in families:
            if family.name not in created:
                found += _family(family, time, common)
    except (ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
        form = "OpenMetrics" if openmetrics else "Prometheus text"
        raise BadExposition(
            f"The metrics page is not {form} ({error}); check its Content-Type and lines."
        ) from None
    return found


def _family(family: Metric, time: int, common: Mapping[str, str]) -> Iterable[tuple[Series, Point]]:
    type_ = TYPES.get(family.type, "unknown")
    unit = family.unit or ""
    temporality = "cumulative" if family.type in CREATED else ""
    grouped: dict[tuple[tuple[str, str], ...], list[Sample]] = {}
    for sample in family.samples:
        if sample.name.endswith("_created") and family.type in CREATED:
            continue
        if type_ in ("histogram", "summary"):
            own = {k: v for k, v in sample.labels.items() if k not in ("le", "quantile")}
            if type_ == "summary" and "quantile" in sample.labels:
                series = Series(family.name, labels(sample.labels, common), type_, unit)
                yield series, {"time": _time(sample, time), "value": float(sample.value)}
                continue
            grouped.setdefault(labels(own, common), []).append(sample)
            continue
        series = Series(sample.name, labels(sample.labels, common), type_, unit, temporality)
        row: Point = {"time": _time(sample, time), "value": float(sample.value)}
        if sample.exemplar is not None:
            row["exemplars"] = [_exemplar(sample.exemplar, time)]
        yield series, row
    for own_labels, samples in grouped.items():
        yield (
            Series(family.name, own_labels, type_, unit, temporality),
            _histogram(samples, time),
        )


def _histogram(samples: list[Sample], time: int) -> Point:
    cumulative: dict[float, float] = {}
    exemplars: list[dict[str, Any]] = []
    total = count = math.nan
    for sample in samples:
        if sample.name.endswith("_bucket"):
            cumulative[float(sample.labels["le"])] = float(sample.value)
        elif sample.name.endswith(("_sum", "_gsum")):
            total = float(sample.value)
        elif sample.name.endswith(("_count", "_gcount")):
            count = float(sample.value)
        if sample.exemplar is not None:
            exemplars.append(_exemplar(sample.exemplar, time))
    bounds = sorted(cumulative)
    counts = [
        cumulative[bound] - (cumulative[bounds[i - 1]] if i else 0.0)
        for i, bound in enumerate(bounds)
    ]
    if math.isnan(count) and bounds:
        count = cumulative[bounds[-1]]
    return {
        "time": _time(samples[0], time),
        "value": total,
        "histogram": {"count": count, "sum": total, "bounds": bounds, "counts": counts},
        "exemplars": exemplars or None,
    }


def _time(sample: Sample, time: int) -> int:
    return time if sample.timestamp is None else _ns(sample.timestamp, time)


def _ns(stamp: Any, otherwise: int) -> int:
    if hasattr(stamp, "nsec"):
        ns = stamp.sec * 1_000_000_000 + stamp.nsec
    elif math.isfinite(stamp):
        ns = round(stamp * 1e9)
    else:
        return otherwise
    return ns if 0 < ns <= LATEST_NS else otherwise


def _exemplar(exemplar: Exemplar, time: int) -> dict[str, Any]:
    def first(names: tuple[str, ...]) -> str:
        return next((exemplar.labels[name] for name in names if name in exemplar.labels), "")

    return {
        "time": time if exemplar.timestamp is None else _ns(exemplar.timestamp, time),
        "value": float(exemplar.value),
        "trace_id": first(TRACE_LABELS).replace("-", "").lower(),
        "span_id": first(SPAN_LABELS).lower(),
    }
