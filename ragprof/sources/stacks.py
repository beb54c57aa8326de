"""Stacks that services kept of slow requests: by `GET /debug/pprof/kept`, or from their folder.

Each replica is asked, page by page from the newest request to the oldest; the answer is pprof with
the labels trace_id, span_id, endpoint, service and process. The folder is that of
`ragprof.service.keeping`, one file per request.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from ragprof.profiles import places
from ragprof.profiles.content import Content
from ragprof.profiles.formats import pprof
from ragprof.profiles.model import NO_TIME, Profile, ProfileError
from ragprof.rows import conform
from ragprof.service import keeping
from ragprof.service.pprof import Pprof
from ragprof.sources.http import Client, Garbled, connection, parse_json
from ragprof.sources.settings import Settings
from ragprof.sources.source import (
    FAILED,
    OK,
    WARNING,
    Check,
    Piece,
    Query,
    SourceError,
    Tables,
    Window,
    failed,
)

PATH = "/debug/pprof/kept"
PAGE = 20  # requests of one answer
REQUEST_SAMPLES, SAMPLE_BYTES = 300, 60  # of one request, for the plan

Kept = tuple[str, int, int]  # trace id, start and end in ns


class Stacks:
    """A source (see `ragprof.sources.source`) of `samples`, one client per replica."""

    kind = "stacks"
    tables: tuple[str, ...] = ("frames", "stacks", "samples")

    def __init__(self, name: str, clients: list[Client], folders: tuple[str, ...] = ()) -> None:
        self.name = name
        self._clients, self._folders = clients, folders

    def describe(self) -> dict[str, Any]:
        return {
            "kind": self.kind,
            "addresses": [client.to.address for client in self._clients],
            "folders": list(self._folders),
        }

    def check(self, window: Window) -> list[Check]:
        found = []
        for number, place in enumerate([*self._addresses(), *self._folders]):
            try:
                count = sum(1 for _ in self._listed(number, window))
            except SourceError as error:
                found.append(failed(self, f"stacks of {place}", error))
                continue
            text = f"{place} kept {count} slow requests of the window"
            if count:
                found.append(Check(self.name, "stacks", OK, text))
            else:
                step = "nothing was slow, or its threshold is too high for this window"
                found.append(Check(self.name, "stacks", WARNING, text, step))
        if not found:
            text = "neither urls nor folders are given"
            found.append(Check(self.name, "stacks", FAILED, text, "add urls = [...]"))
        return found

    def plan(self, window: Window, query: Query) -> list[Piece]:
        pieces = []
        for number, place in enumerate([*self._addresses(), *self._folders]):
            count = sum(1 for _ in self._listed(number, window))
            rows = count * REQUEST_SAMPLES
            pieces.append(
                Piece(
                    key=f"stacks-{place}",
                    window=window,
                    text=f"GET {place}{PATH}" if number < len(self._clients) else place,
                    request={
                        "replica": number,
                        "services": list(query.services),
                        "trace_ids": list(query.trace_ids),
                    },
                    rows=rows,
                    bytes=rows * SAMPLE_BYTES,
                )
            )
        return pieces

    def fetch_piece(self, piece: Piece) -> Tables:
        number, window = piece.request["replica"], piece.window
        services, traces = set(piece.request["services"]), set(piece.request["trace_ids"])
        base = 0
        seen: set[tuple[Any, ...]] = set()
        for profile in self._profiles(number, window):
            frames, stacks, samples = tables(profile, base)
            base += max(frames.num_rows, stacks.num_rows)
            keep = [
                _is_new(row, seen, window, services, traces)
                for row in zip(
                    *(
                        samples.column(name).to_pylist()
                        for name in ("time", "process", "thread", "task", "service", "trace_id")
                    ),
                    strict=True,
                )
            ]
            yield "frames", conform("frames", frames)
            yield "stacks", conform("stacks", stacks)
            yield "samples", conform("samples", samples.filter(pa.array(keep, pa.bool_())))

    def close(self) -> None:
        for client in self._clients:
            client.close()

    def _addresses(self) -> list[str]:
        return [client.to.address for client in self._clients]

    def _listed(self, number: int, window: Window) -> Iterator[Kept]:
        """Requests that were kept and overlap the window, the newest first."""
        if number >= len(self._clients):
            folder = self._folder(number)
            for path in folder.find(window.start, window.end):
                start, end, _, rest = path.name.split("-")
                yield rest.partition(".")[0], int(start), int(end)
            return
        for page, _ in self._pages(number, window):
            yield from page

    def _pages(self, number: int, window: Window) -> Iterator[tuple[list[Kept], int]]:
        """Pages of requests, each with the time until which it was asked (ns)."""
        until, known = window.end, set[Kept]()
        while True:
            page, left = self._clients[number].call(
                "GET", PATH, _listing, params=_params(window.start, until, "json")
            )
            new = [kept for kept in page if kept not in known]
            if new:
                yield new, until
            known.update(new)
            if not left or not new:
                return
            # The times of the question are whole microseconds: the oldest may come again.
            until = min(start for _, start, _ in new)

    def _profiles(self, number: int, window: Window) -> Iterator[Profile]:
        if number >= len(self._clients):
            yield from self._of_folder(number, window)
            return
        for _, until in self._pages(number, window):
            yield self._clients[number].call(
                "GET", PATH, _profile, params=_params(window.start, until, "pprof")
            )

    def _of_folder(self, number: int, window: Window) -> Iterator[Profile]:
        for path in self._folder(number).find(window.start, window.end):
            found = keeping.read(path)
            if found is not None:
                yield _of_lines(*found)

    def _folder(self, number: int) -> keeping.KeptFolder:
        path = Path(self._folders[number - len(self._clients)]).expanduser()
        if not path.is_dir():
            raise SourceError(f"{self.name}: {path} is not a folder; correct folders.")
        return keeping.KeptFolder(path, 1 << 62)


def tables(profile: Profile, base: int = 0) -> tuple[pa.Table, pa.Table, pa.Table]:
    """(frames, stacks, samples) of a profile; ids count from `base`. Samples without a time go."""
    frames = [
        {
            "frame_id": base + number,
            "function": frame.function,
            "module": frame.module or places.module(frame.file),
            "file": frame.file,
            "line": frame.line,
            "origin": frame.origin or places.origin(frame.file),
        }
        for number, frame in enumerate(profile.frames)
    ]
    offsets = profile.stack_offsets
    stacks = {
        "stack_id": np.arange(profile.stack_count) + base,
        "frame_ids": pa.ListArray.from_arrays(
            pa.array(offsets, pa.int32()), pa.array(profile.stack_frames + base, pa.int64())
        ),
        "lines": pa.ListArray.from_arrays(
            pa.array(offsets, pa.int32()), pa.array(profile.stack_lines, pa.int32())
        ),
    }
    count = len(profile)
    zeros = np.zeros(count, np.int64)
    times = zeros + NO_TIME if profile.times is None else profile.times
    texts = {
        name: [label.vocabulary[code] for code in label.codes.tolist()]
        for name in ("service", "state", "wait", "trace_id", "span_id", "process")
        if (label := profile.labels.get(name)) is not None
    }
    process = [int(text) if text.isdigit() else 0 for text in texts.pop("process", [""] * count)]
    samples = pa.table(
        {
            "time": pa.array(times, pa.int64()),
            "weight_ns": np.rint(profile.values[:, 0]).astype(np.int64),
            "stack_id": profile.sample_stacks + base,
            "process": pa.array(process, pa.int64()),
            "thread": zeros if profile.threads is None else profile.threads,
            "task": zeros if profile.tasks is None else profile.tasks,
            **{
                name: pa.array(texts.get(name, [""] * count), pa.string())
                for name in ("service", "state", "wait", "trace_id", "span_id")
            },
        }
    ).filter(pa.array(times != NO_TIME))
    at = samples.column_names.index("time")
    time = samples.column("time").cast(pa.timestamp("ns", "UTC"))
    return pa.Table.from_pylist(frames), pa.table(stacks), samples.set_column(at, "time", time)


def connect(settings: Settings) -> Stacks:
    """The source that a section describes; raises ConfigError.

    Fields: urls (every replica), folders, and those of `http.connection` for all urls.
    """
    urls, folders = settings.texts("urls"), settings.texts("folders")
    clients = []
    if urls:
        for url in urls:
            one = Settings(
                settings.name, {**settings.fields("urls", "folders"), "url": url}, settings.where
            )
            clients.append(Client(settings.name, connection(one)))
            one.done()
    return Stacks(settings.name, clients, folders)


def _is_new(
    row: tuple[Any, ...],
    seen: set[tuple[Any, ...]],
    window: Window,
    services: set[str],
    traces: set[str],
) -> bool:
    time, *_, service, trace_id = row
    within = window.start <= time.value < window.end
    wanted = (not services or service in services) and (not traces or trace_id in traces)
    if not within or not wanted or row in seen:
        return False
    seen.add(row)
    return True


def _params(since: int, until: int, form: str) -> dict[str, str]:
    return {
        "since": _iso(since // 1000),
        "until": _iso(-(-until // 1000)),
        "limit": str(PAGE),
        "format": form,
    }


def _iso(microseconds: int) -> str:
    return f"{np.datetime64(microseconds, 'us')}Z"


def _listing(body: bytes) -> tuple[list[Kept], int]:
    answer = parse_json(body)
    try:
        found = [
            (
                str(each["trace_id"]),
                int(each["start_ns"]),
                int(each["start_ns"]) + int(each["duration_ns"]),
            )
            for each in answer["requests"]
        ]
        return found, int(answer["left_out"])
    except (KeyError, TypeError, ValueError):
        raise Garbled("JSON, but not a list of kept requests") from None


def _profile(body: bytes) -> Profile:
    try:
        return pprof.read(Content(body))[0]
    except ProfileError as error:
        raise Garbled(f"not pprof: {error}") from None


def _of_lines(request: keeping.Request, lines: list[dict[str, Any]]) -> Profile:
    made = Pprof()
    made.take(lines, {"service": request.service, "process": str(request.pid)})
    return pprof.read(Content(made.encode()))[0]
