"""Recordings whose metrics pages hold the whole catalogue, with values that grow."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from ragprof.capturing.scrape import write_points
from ragprof.journal import Journal
from ragprof.monitoring.catalogue import METRICS, Metric
from ragprof.sources import exposition
from ragprof.sources.series import Series, SeriesDictionary, labels

BEGAN = 1_700_000_000


def record(folder: Path, pages: Iterable[tuple[float, str]], up: bool = True) -> Path:
    """Pages with their times (s since `BEGAN`) as a Recording."""
    journal = Journal(folder)
    series = SeriesDictionary(lambda rows: journal.append("series", rows))
    common = {"service": "rag-api", "instance": "127.0.0.1:1"}
    for at, page in pages:
        now = round((BEGAN + at) * 1e9)
        points = exposition.points(page, "text/plain", now, common)
        if up:
            points.append((Series("up", labels(common), "gauge"), {"time": now, "value": 1.0}))
        write_points(journal, series, points)
    journal.close()
    return folder


def whole_catalogue(count: int) -> str:
    """A page with every metric, after `count` observations of each."""
    return "\n".join(line for metric in METRICS for line in _lines(metric, count)) + "\n"


def requests(good: int, bad: int, endpoint: str = "/api/v1/ask", slow: int = 0) -> str:
    """A page of requests: so many good, failed and (of all) slow ones."""
    own = f'endpoint="{endpoint}",method="POST"'
    lines = ["# TYPE rag_http_requests_total counter"]
    for status, count in ((200, good), (500, bad)):
        if count or status == 200:
            lines.append(f'rag_http_requests_total{{{own},status_code="{status}"}} {count}')
    name, all_ = "rag_http_request_duration_seconds", good + bad
    lines += [
        f"# TYPE {name} histogram",
        f'{name}_bucket{{{own},le="0.5"}} {all_ - slow}',
        f'{name}_bucket{{{own},le="+Inf"}} {all_}',
        f"{name}_sum{{{own}}} {all_ * 0.1}",
        f"{name}_count{{{own}}} {all_}",
        "",
    ]
    return "\n".join(lines)


def _lines(metric: Metric, count: int) -> Iterable[str]:
    own = ",".join(f'{label}="{_value(metric, label)}"' for label in metric.labels)
    inside = f"{{{own}}}" if own else ""
    yield f"# TYPE {metric.name} {metric.kind}"
    if metric.kind in ("counter", "gauge"):
        yield f"{metric.name}{inside} {count}"
        for good, bad in (('"200"', '"500"'), ('"success"', '"error"')):
            if good in inside:
                yield f"{metric.name}{inside.replace(good, bad)} {count}"
        return
    if metric.kind == "histogram":
        comma = "," if own else ""
        for number, bound in enumerate((*metric.buckets, "+Inf"), 1):
            seen = count * number // (len(metric.buckets) + 1)
            yield f'{metric.name}_bucket{{{own}{comma}le="{bound}"}} {seen}'
    yield f"{metric.name}_sum{inside} {count * 0.2}"
    yield f"{metric.name}_count{inside} {count}"


def _value(metric: Metric, label: str) -> str:
    if label == "status_code":
        return "200"
    return metric.values.get(label, ("one",))[0]
