"""Scrapes `/metrics` of the recorded service, once a second, and counts what failed."""

from __future__ import annotations

import threading
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ragprof.capturing.intake import inflate
from ragprof.errors import RagprofError
from ragprof.journal import Journal
from ragprof.manifest import RecordingError
from ragprof.sources import exposition
from ragprof.sources.otlp import table
from ragprof.sources.series import Series, SeriesDictionary, labels
from ragprof.tables import METRICS

INTERVAL = 1.0  # seconds
TIMEOUT = 5.0  # seconds
MAX_PAGE = 16 << 20  # bytes

# A proxy from the environment has no business between us and a service on this machine.
_open = urllib.request.build_opener(urllib.request.ProxyHandler({})).open


def checked_url(url: str) -> str:
    """`url` when it can be scraped; raises RagprofError otherwise."""
    parts = urllib.parse.urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise RagprofError(
            f"{url!r} is not a URL to scrape; give one like http://127.0.0.1:8000/metrics."
        )
    return url


def fetch(url: str) -> tuple[str, str]:
    """The page and its Content-Type; raises OSError or RagprofError."""
    request = urllib.request.Request(  # noqa: S310  # the scheme was checked
        url, headers={"Accept": exposition.ACCEPT, "Accept-Encoding": "gzip"}
    )
    with _open(request, timeout=TIMEOUT) as reply:
        raw = reply.read(MAX_PAGE + 1)
        if len(raw) > MAX_PAGE:
            raise RagprofError(f"{url} is larger than {MAX_PAGE} bytes; expose fewer series.")
        if reply.headers.get("Content-Encoding", "").lower() == "gzip":
            raw = inflate(raw, MAX_PAGE)
        return raw.decode("utf-8", "replace"), reply.headers.get("Content-Type", "")


class Scraper:
    """Scrapes one URL in its own thread until `stop`; `service()` and labels name its series."""

    def __init__(
        self,
        url: str,
        journal: Journal,
        series: SeriesDictionary,
        *,
        service: Callable[[], str],
        process_started: Callable[[str, float], None] = lambda service, seconds: None,
        taken: Callable[[int], None] = lambda points: None,
    ) -> None:
        self.url = checked_url(url)
        self.scraped = self.failed = 0
        self.last_error = ""
        self._journal, self._series, self._service = journal, series, service
        self._process_started, self._taken = process_started, taken
        self._exemplars: dict[Series, set[tuple[Any, ...]]] = {}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="ragprof-scrape", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        self._thread.join(TIMEOUT + 1)

    def facts(self) -> dict[str, Any]:
        """For the manifest: what was scraped and what failed."""
        return {
            "url": self.url,
            "scraped": self.scraped,
            "failed": self.failed,
            "last_error": self.last_error,
        }

    def _run(self) -> None:
        due = time.monotonic()
        while not self._stop.is_set():
            self.scrape()
            due = max(due + INTERVAL, time.monotonic())
            self._stop.wait(due - time.monotonic())

    def scrape(self) -> None:
        """One scrape: its points, and `up` as Prometheus has it (1 scraped, 0 failed)."""
        now = time.time_ns()
        common = {"service": self._service(), "instance": urllib.parse.urlsplit(self.url).netloc}
        up = Series("up", labels(common), "gauge")
        try:
            page, content_type = fetch(self.url)
            found = exposition.points(page, content_type, now, common)
            ok = True
        except (OSError, ValueError, RagprofError) as error:
            found, ok = [], False
            self.last_error = str(error)
        found.append((up, {"time": now, "value": 1.0 if ok else 0.0}))
        for series, point in found:
            if series.name == "process_start_time_seconds":
                self._process_started(common["service"], point["value"])
            if point.get("exemplars"):
                point["exemplars"] = self._new(series, point["exemplars"])
        try:
            write_points(self._journal, self._series, found)
        except RecordingError as error:
            ok, self.last_error = False, str(error)
            self._journal.refuse("metric point that could not be written", len(found))
        self._taken(len(found))
        self.scraped += ok
        self.failed += not ok

    def _new(self, series: Series, exemplars: list[dict[str, Any]]) -> list[dict[str, Any]] | None:
        """Exemplars that the last scrape did not show: a page repeats them until replaced."""
        before = self._exemplars.get(series, set())
        now = {tuple(each.values()) for each in exemplars}
        self._exemplars[series] = now
        return [each for each in exemplars if tuple(each.values()) not in before] or None


def write_points(
    journal: Journal, series: SeriesDictionary, points: Sequence[tuple[Series, Mapping[str, Any]]]
) -> None:
    """Append points with their series; raises RecordingError when the journal cannot write."""
    if not points:
        return
    ids = series.ids(description for description, _ in points)
    columns: dict[str, list[Any]] = {
        "series_id": ids,
        **{
            name: [point.get(name) for _, point in points]
            for name in ("time", "value", "histogram", "exemplars")
        },
    }
    journal.append("metrics", table(METRICS, columns))
