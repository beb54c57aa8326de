"""Files of OTLP -> spans, logs and metrics: as exporters and the Collector write them.

JSON lines (the Collector's file exporter), one JSON object, one protobuf message, or messages with
their length before each (the same exporter with `format: proto`); plain, gzip or zstd. Jaeger's
and Zipkin's JSON is read as well. A file is told by its content, not by its name.

What cannot be read is counted in `refused` with its file: a line that is half written, bytes that
are not UTF-8, JSON that is none. A file of which nothing can be read is an error.
"""

from __future__ import annotations

import glob
import gzip
import io
import json
import zlib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.compute as pc

from ragprof.sources import jaeger, otlp, otlp_metrics, trace_search, zipkin
from ragprof.sources.http import Garbled
from ragprof.sources.otlp_decode import decode, decode_json
from ragprof.sources.series import SeriesDictionary
from ragprof.sources.settings import Settings
from ragprof.sources.source import (
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
from ragprof.tables import SERIES, SPANS, TIME_COLUMN

PIECE = 32 << 20  # bytes of a file of JSON lines
BATCH = 4 << 20  # bytes of protobuf that are decoded together
LARGEST = 1 << 30  # bytes of one message
SIGNALS = {"resourceSpans": "traces", "resourceLogs": "logs", "resourceMetrics": "metrics"}

_GZIP, _ZSTD = b"\x1f\x8b", b"\x28\xb5\x2f\xfd"
_SNAKE = {"resource_spans": "traces", "resource_logs": "logs", "resource_metrics": "metrics"}


def connect(settings: Settings) -> OtlpFiles:
    """The source that a section describes; raises ConfigError. Field: path (files, folders or
    patterns such as "otel/*.jsonl").
    """
    return OtlpFiles(settings.name, settings.texts("path"))


class OtlpFiles:
    """Files as a source (see `source.TraceSource`); `refused` counts what could not be read."""

    kind = "otlp"
    tables: tuple[str, ...] = ("spans", "logs", "metrics", "series")

    def __init__(self, name: str, paths: tuple[str, ...]) -> None:
        self.name, self.paths = name, paths
        self.refused: Counter[str] = Counter()

    def describe(self) -> dict[str, Any]:
        return {"kind": self.kind, "path": list(self.paths)}

    def close(self) -> None:
        return

    def check(self, window: Window) -> list[Check]:
        try:
            files = self.files()
            rows = Counter[str]()
            for piece in self.plan(window, Query()):
                for table, found in self.fetch_piece(piece):
                    rows[table] += found.num_rows
        except SourceError as error:
            return [failed(self, "reachable", error)]
        text = ", ".join(f"{count:,} {table}" for table, count in rows.items())
        found = [Check(self.name, "reachable", OK, f"{len(files)} files: {text or 'no rows'}")]
        for reason, count in self.refused.items():
            found.append(
                Check(self.name, "content", WARNING, f"{count:,} x {reason}", "look at the file")
            )
        return found

    def files(self) -> list[Path]:
        """The files that the paths name. Raises SourceError when there are none."""
        found: list[Path] = []
        for text in self.paths:
            path = Path(text).expanduser()
            if path.is_dir():
                found += sorted(each for each in path.rglob("*") if each.is_file())
            elif path.is_file():
                found.append(path)
            else:
                found += [Path(each) for each in sorted(glob.glob(str(path), recursive=True))]
        if not found:
            raise SourceError(
                f"{self.name}: no file is at {', '.join(self.paths)}; give files, folders or "
                'patterns such as "otel/*.jsonl".'
            )
        return list(dict.fromkeys(found))

    def plan(self, window: Window, query: Query) -> list[Piece]:
        """Pieces of files. A query that asks for requests reads the files once to find them."""
        traces = list(query.trace_ids) or None
        if traces is None and (
            query.services or query.operations or query.tags or query.min_duration
        ):
            traces = self._matching(window, query)
            if query.limit:
                traces = traces[: query.limit]
        pieces = []
        for path in self.files():
            size = path.stat().st_size
            step = PIECE if _is_lines(path) else max(1, size)
            for first in range(0, max(1, size), step):
                last = min(first + step, size)
                pieces.append(
                    Piece(
                        key=f"{path}:{first}-{last}",
                        window=window,
                        text=f"{path}, bytes {first} to {last}",
                        request={
                            "path": str(path),
                            "first": first,
                            "last": last if step < size else None,  # None: to its end
                            "traces": traces,
                            "services": list(query.services),
                        },
                        bytes=last - first,
                    )
                )
        return pieces

    def fetch_piece(self, piece: Piece) -> Tables:
        """All rows of a piece that lie in the window. Raises SourceError, naming the file."""
        path = Path(piece.request["path"])
        first, last = int(piece.request["first"]), piece.request["last"]
        wanted = piece.request["traces"]
        refused: Counter[str] = Counter()
        read = False
        for table, rows in read_file(path, refused, first, last):
            read = True
            if table in TIME_COLUMN:
                rows = _inside(rows, TIME_COLUMN[table], piece.window)
            if table == "spans" and wanted is not None:
                rows = rows.filter(
                    pc.is_in(rows["trace_id"], value_set=pa.array(wanted, pa.string()))
                )
            if table == "logs" and piece.request["services"]:
                services = pa.array(piece.request["services"])
                rows = rows.filter(pc.is_in(rows["service"].cast(pa.string()), value_set=services))
            if rows.num_rows:
                yield table, rows
        if refused and not read:
            reason = next(iter(refused))
            raise SourceError(f"{self.name}: nothing of {path} can be read: {reason}.")
        self.refused.update({f"{path}: {why}": count for why, count in refused.items()})

    def roots(self, window: Window, query: Query) -> pa.Table:
        """One row per trace whose root began in the window: see `source.TraceSource`."""
        return trace_search.roots(self._spans(self.plan(window, query)), window)

    def _spans(self, pieces: list[Piece]) -> pa.Table:
        names = ["trace_id", "span_id", "parent_span_id", "service", "name", "start", "duration_ns"]
        tables = [
            rows.select(names)
            for piece in pieces
            for table, rows in self.fetch_piece(piece)
            if table == "spans"
        ]
        if not tables:
            return otlp.table(SPANS, {name: [] for name in names})
        return pa.concat_tables(tables).unify_dictionaries()

    def _matching(self, window: Window, query: Query) -> list[str]:
        """Traces with a span that fulfils a query."""
        found: dict[str, None] = {}
        for piece in self.plan(window, Query()):
            for table, rows in self.fetch_piece(piece):
                if table == "spans":
                    asked = pa.array(trace_search.matching(rows, query))
                    found.update(dict.fromkeys(rows["trace_id"].filter(asked).to_pylist()))
        return sorted(found)


def read_file(path: Path, refused: Counter[str], first: int = 0, last: int | None = None) -> Tables:
    """Everything in a file of telemetry, or in the lines that start at bytes `first` to `last`.

    Adds to `refused` (reason -> lines or rows) what could not be read. Raises SourceError when the
    file cannot be opened or holds a message above LARGEST bytes.
    """
    series = _Series()
    try:
        with _opened(path) as file:
            head = file.peek(8)[:8] if isinstance(file, io.BufferedReader) else b""
            if _is_json(head):
                if head.startswith((b"\xff\xfe", b"\xfe\xff")):
                    text = file.read(LARGEST).decode("utf-16", "replace").encode()
                    yield from _lines(io.BytesIO(text), path, refused, series, 0, None)
                else:
                    yield from _lines(file, path, refused, series, first, last)
            else:
                yield from _protobuf(file, path, refused, series)
    except (OSError, EOFError, zlib.error, pa.ArrowException) as error:
        raise SourceError(
            f"{path} cannot be read ({str(error)[:200]}); is it whole, and a file of telemetry?"
        ) from None


def _opened(path: Path) -> io.BufferedReader:
    file = path.open("rb")
    magic = file.peek(4)[:4]
    if magic.startswith(_GZIP):
        return io.BufferedReader(gzip.GzipFile(fileobj=file))
    if magic == _ZSTD:
        return io.BufferedReader(_Stream(pa.CompressedInputStream(file, "zstd")))
    return file


class _Stream(io.RawIOBase):
    """A stream of Arrow's as one of Python's."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self._stream.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)


def _is_json(head: bytes) -> bool:
    if head.startswith((b"\xff\xfe", b"\xfe\xff")):
        return True
    return head.removeprefix(b"\xef\xbb\xbf").lstrip()[:1] in (b"{", b"[")


def _is_lines(path: Path) -> bool:
    """Whether a plain file has several JSON objects, one a line, so that it can be cut."""
    if path.stat().st_size <= PIECE:
        return False
    with path.open("rb") as file:
        head = file.peek(8)[:8]
        if not _is_json(head) or head.startswith((b"\xff\xfe", b"\xfe\xff")):
            return False
        line = file.readline(PIECE)
    return line.endswith(b"\n") and _loads(line.removeprefix(b"\xef\xbb\xbf")) is not None


def _loads(line: bytes) -> Any:
    try:
        return json.loads(line)
    except (ValueError, RecursionError):
        return None


def _lines(
    file: BinaryIO,
    path: Path,
    refused: Counter[str],
    series: _Series,
    first: int,
    last: int | None,
) -> Tables:
    at = first
    if first:
        file.seek(first - 1)
        at = first - 1 + len(file.readline())  # the line that began before is not ours
    number = 0
    while last is None or at < last or (at == 0 and last == 0):
        line = file.readline(LARGEST)
        if not line:
            return
        if len(line) == LARGEST:
            raise SourceError(f"{path} has a line above {LARGEST} bytes; split it.")
        at += len(line)
        number += 1
        bare = line.removeprefix(b"\xef\xbb\xbf") if number == 1 else line
        if not bare.strip():
            continue
        content = _loads(bare)
        if content is None and number == 1 and not first:
            rest = file.read(LARGEST)
            content = _loads(bare + rest)  # one object over many lines
            if content is not None:
                yield from _content(content, refused, series)
                return
            file = io.BytesIO(rest)
        if content is None:
            ends = not line.endswith(b"\n")
            refused["half-written line at the end" if ends else "line that is not JSON"] += 1
            continue
        yield from _content(content, refused, series)


def _content(content: Any, refused: Counter[str], series: _Series) -> Tables:
    """Rows of one JSON object, whatever form it has."""
    try:
        if isinstance(content, list):
            yield from _list(content, refused, series)
            return
        if not isinstance(content, dict):
            refused["line that is no object of telemetry"] += 1
            return
        if "data" in content and isinstance(content["data"], list):
            rows, why = jaeger.read_ui(content)
            refused.update(why)
            yield "spans", rows
            return
        found = False
        for key, signal in (*SIGNALS.items(), *_SNAKE.items()):
            if key in content:
                found = True
                yield from _signal(signal, {key: content[key]}, refused, series)
        if not found:
            refused["line that is no object of telemetry"] += 1
    except (otlp.BadPayload, Garbled):
        refused["line that is JSON but not OTLP"] += 1


def _list(content: list[Any], refused: Counter[str], series: _Series) -> Tables:
    first = content[0] if content else None
    of_zipkin = isinstance(first, list) or (isinstance(first, dict) and "localEndpoint" in first)
    if of_zipkin:
        rows, why = zipkin.read(content)
    elif isinstance(first, dict) and "spans" in first:
        rows, why = jaeger.read_ui(content)
    else:
        for item in content:
            yield from _content(item, refused, series)
        return
    refused.update(why)
    yield "spans", rows


def _signal(signal: str, content: Any, refused: Counter[str], series: _Series) -> Tables:
    if signal == "metrics":
        yield from _metrics(otlp.filled(signal, content), refused, series)
        return
    rows, why, _ = decode_json(signal, content)
    refused.update(why)
    yield "spans" if signal == "traces" else "logs", rows


class _Series:
    """The series of one file, and those of them that were not given out yet."""

    def __init__(self) -> None:
        self.new: list[dict[str, Any]] = []
        self.dictionary = SeriesDictionary(self.new.extend)


def _metrics(message: Any, refused: Counter[str], series: _Series) -> Tables:
    rows, why = otlp_metrics.metrics(message, series.dictionary, "")
    refused.update(why)
    if series.new:
        columns = {name: [row[name] for row in series.new] for name in SERIES.names}
        series.new.clear()
        yield "series", otlp.table(SERIES, columns)
    yield "metrics", rows


def _protobuf(
    file: io.BufferedReader, path: Path, refused: Counter[str], series: _Series
) -> Tables:
    signal = ""
    for messages in _batches(_messages(file, path, refused)):
        signal = signal or next(filter(None, map(_guessed, messages)), "")
        try:  # messages behind one another are one message
            yield from _decoded(signal, b"".join(messages), refused, series)
        except otlp.BadPayload:
            for message in messages:
                try:
                    yield from _decoded(signal, message, refused, series)
                except otlp.BadPayload:
                    refused["message that is not OTLP"] += 1


def _decoded(signal: str, body: bytes, refused: Counter[str], series: _Series) -> Tables:
    if not signal:
        raise otlp.BadPayload("The message is of no signal.")
    if signal == "metrics":
        yield from _metrics(otlp.parse(signal, body), refused, series)
        return
    rows, why, _ = decode(signal, body)
    refused.update(why)
    yield "spans" if signal == "traces" else "logs", rows


def _messages(file: io.BufferedReader, path: Path, refused: Counter[str]) -> Iterator[bytes]:
    """The messages of a file: one without a frame, or each behind its length (four bytes, big)."""
    head = file.read(5)
    framed = len(head) == 5 and head[0] < 0x0A and head[4] in (0x0A, _ZSTD[0])
    if not framed:
        body = head + file.read(LARGEST)
        if len(body) >= LARGEST:
            raise SourceError(f"{path} is one message above {LARGEST} bytes; split it.")
        if body:
            yield body
        return
    prefix, rest = head[:4], head[4:]
    while prefix:
        size = int.from_bytes(prefix, "big")
        if size > LARGEST:
            refused["message whose length cannot be"] += 1
            return
        body = rest + file.read(size - len(rest)) if len(prefix) == 4 else b""
        if len(prefix) < 4 or len(body) < size:
            refused["half-written message at the end"] += 1
            return
        if body[:4] == _ZSTD:
            body = pa.CompressedInputStream(pa.BufferReader(body), "zstd").read()
        if body:
            yield body
        prefix, rest = file.read(4), b""


def _batches(messages: Iterator[bytes]) -> Iterator[list[bytes]]:
    waiting: list[bytes] = []
    size = 0
    for message in messages:
        waiting.append(message)
        size += len(message)
        if size >= BATCH:
            yield waiting
            waiting, size = [], 0
    if waiting:
        yield waiting


def _guessed(body: bytes) -> str:
    """Which signal a message is of: requests of all three look alike from outside."""
    best, most = "", 0
    for signal in ("traces", "logs", "metrics"):
        try:
            if signal == "metrics":
                rows = otlp_metrics.metrics(
                    otlp.parse(signal, body), SeriesDictionary(lambda _: None), ""
                )[0].num_rows
            else:
                rows = decode(signal, body).rows.num_rows
        except otlp.BadPayload:
            continue
        if rows > most:
            best, most = signal, rows
    return best


def _inside(rows: pa.Table, column: str, window: Window) -> pa.Table:
    number = rows[column].cast(pa.int64())
    return rows.filter(pc.and_(pc.greater_equal(number, window.start), pc.less(number, window.end)))
