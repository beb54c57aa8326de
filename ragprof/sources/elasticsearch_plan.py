"""A window of documents cut in time into pieces of a known number of documents."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from ragprof.sources.elasticsearch_client import Elastic
from ragprof.sources.source import Window

BUCKETS = 200  # of one histogram
FINEST = 1_000_000  # ns: what every date field can tell apart
PAGE_BYTES, PAGE_ROWS = 8 << 20, 5000
SAMPLE = 20  # documents, for the average size


@dataclass(frozen=True)
class Part:
    """A window with its number of documents, and the average size of one in bytes."""

    window: Window
    count: int
    average: float


@dataclass(frozen=True)
class Counted:
    """What is counted: the documents of `index` that match, by the date field `time`."""

    client: Elastic
    index: str
    time: str
    query: Mapping[str, Any]

    def histogram(self, window: Window, step: int) -> tuple[dict[int, int], float]:
        """Documents by the start of each step (ns since 1970), and the average size of some."""
        offset = window.start % step
        clause = {
            "range": {
                self.time: {
                    "gte": window.start // FINEST,
                    "lt": -(-window.end // FINEST),
                    "format": "epoch_millis",
                }
            }
        }
        page = self.client.search(
            {
                "size": SAMPLE,
                "query": {"bool": {"filter": [dict(self.query), clause]}},
                "track_total_hits": False,
                "aggs": {
                    "by_time": {
                        "date_histogram": {
                            "field": self.time,
                            "fixed_interval": f"{step // FINEST}ms",
                            "offset": f"{offset // FINEST}ms",
                            "min_doc_count": 1,
                        }
                    }
                },
            },
            self.index,
        )
        buckets = json.loads(bytes(page.aggregations))["by_time"]["buckets"]
        sizes = [
            sum(len(key) + len(raw) + 4 for key, raw in hit.source.items())
            for hit in page.hits.hits
        ]
        average = sum(sizes) / len(sizes) if sizes else 0.0
        return {int(each["key"]) * FINEST: int(each["doc_count"]) for each in buckets}, average


def cut_by_count(counted: Counted, window: Window, most: int) -> list[Part]:
    """Parts that cover the window without gap or overlap where there are documents.

    Each has at most `most` of them, unless one millisecond alone has more.
    """
    return list(_parts(counted, window, most))


def _parts(counted: Counted, window: Window, most: int) -> Iterator[Part]:
    step = max(FINEST, -(-(window.end - window.start) // BUCKETS // FINEST) * FINEST)
    # Edges on whole milliseconds, so that every document is on the same side for us and for them.
    counts, average = counted.histogram(window, step)
    start: int | None = None
    end = count = 0
    for at, found in sorted(counts.items()):
        low, high = max(at, window.start), min(at + step, window.end)
        if low >= high:  # a millisecond at the edge that the window only touches
            continue
        if found > most and step > FINEST:
            if start is not None:
                yield Part(Window(start, end), count, average)
            start, count = None, 0
            yield from _parts(counted, Window(low, high), most)
            continue
        if start is not None and count + found > most:
            yield Part(Window(start, end), count, average)
            start, count = None, 0
        start = low if start is None else start
        end, count = high, count + found
    if start is not None:
        yield Part(Window(start, end), count, average)


def page_size(average: float) -> int:
    """Documents of a page, so that its answer stays of bounded size."""
    return int(min(PAGE_ROWS, max(10, PAGE_BYTES / max(average, 1.0))))
