"""A Recording while it is recorded: one append-only Arrow IPC stream per table.

Rows are on disk within a second of `Journal.append`, so kill -9 loses at most that second. A
write that fails (a full disk) is undone to the last whole batch, kept in memory and tried again;
until it succeeds, further rows are refused with an error.
"""

from __future__ import annotations

import contextlib
import fcntl
import io
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import pyarrow as pa

from ragprof import compaction
from ragprof.manifest import (
    MANIFEST,
    RecordingError,
    disk_errors,
    is_disk_full,
    new_manifest,
    parse_manifest,
    write_manifest,
)
from ragprof.rows import conform
from ragprof.tables import SCHEMAS

STREAMS = "journal"
"""Sub-folder of a Recording that holds its streams while it records."""

LOCK = ".lock"
FLUSH_SECONDS = 0.4
FLUSH_ROWS = 50_000
BATCH_ROWS = 16_384


class Journal:
    """Appends to a new Recording in folder `path`; a context manager, safe between threads.

    `manifest` adds fields to the manifest (``sources``, ``queries``, ...). Raises RecordingError
    when the folder holds a Recording already, another recorder writes it, or it cannot be written.
    """

    def __init__(self, path: Path, **manifest: Any) -> None:
        self.path = Path(path)
        self._lock = threading.RLock()
        self._closing = threading.Event()
        self._pending: dict[str, list[pa.Table]] = {}
        self._pending_rows = 0
        self._failure: OSError | None = None
        self._closed = False
        self._guard = _create(self.path)
        self._manifest = new_manifest(**manifest)
        self._dirty = False
        try:
            write_manifest(self.path, self._manifest, durable=False)
        except RecordingError:
            self._guard.close()
            raise
        self._streams: dict[str, _Stream] = {}
        self._flusher = threading.Thread(target=self._flush_always, name="journal", daemon=True)
        self._flusher.start()

    def append(self, table: str, rows: pa.Table | Sequence[Mapping[str, Any]]) -> None:
        """Add rows to a table of SCHEMAS; they are on disk within a second.

        Columns may be missing: keys are computed, texts empty (see `ragprof.rows.conform`).
        Raises RecordingError for rows that do not fit, and when the disk is full: these rows
        are then not taken.
        """
        table_rows = conform(table, rows)
        if not table_rows.num_rows:
            return
        with self._lock:
            if self._closed:
                raise RecordingError(f"{self.path} is closed: open a new recording to append")
            if self._failure is not None:
                raise self._full(self._failure)
            self._pending.setdefault(table, []).append(table_rows)
            self._pending_rows += table_rows.num_rows
            if self._pending_rows >= FLUSH_ROWS:
                self._flush()
                if self._failure is not None:
                    raise self._full(self._failure)

    def refuse(self, reason: str, count: int = 1) -> None:
        """Count rows that were not taken, by reason, in the manifest's ``refused``."""
        with self._lock:
            refused = self._manifest["refused"]
            refused[reason] = refused.get(reason, 0) + count
            self._dirty = True

    def note(self, **manifest: Any) -> None:
        """Set fields of the manifest."""
        with self._lock:
            self._manifest.update(manifest)
            self._dirty = True

    def flush(self) -> None:
        """Write what was appended so far; raises RecordingError when that fails."""
        with self._lock:
            self._flush()
            if self._failure is not None:
                raise self._full(self._failure)

    def close(self) -> None:
        """Write everything, compact to Parquet, write the manifest; a second call does nothing.

        Raises RecordingError when the disk is full: the streams stay, and the next
        `ragprof.open` compacts them.
        """
        with self._lock:
            if self._closed:
                return
            self._closed = True
            self._closing.set()
        self._flusher.join()
        try:
            with self._lock:
                self._flush()
                for stream in self._streams.values():
                    stream.close()
                if self._failure is not None:
                    raise self._full(self._failure)
            compaction.compact(self.path / STREAMS, self._manifest, self.path, remove=True)
            (self.path / LOCK).unlink(missing_ok=True)
        finally:
            self._guard.close()

    def __enter__(self) -> Journal:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _flush_always(self) -> None:
        while not self._closing.wait(FLUSH_SECONDS):
            with self._lock:
                self._flush()

    def _flush(self) -> None:
        try:
            for stream in self._streams.values():
                stream.retry()
            for table in list(self._pending):
                rows = pa.concat_tables(self._pending.pop(table))
                self._pending_rows -= rows.num_rows
                if table not in self._streams:
                    self._streams[table] = _Stream(self.path / STREAMS, table)
                self._streams[table].write(rows)
            if self._dirty:
                write_manifest(self.path, self._manifest, durable=False)
                self._dirty = False
        except OSError as error:
            self._failure = error
        except RecordingError as error:  # of the manifest
            self._failure = error.__cause__ if isinstance(error.__cause__, OSError) else OSError(5)
        else:
            self._failure = None

    def _full(self, error: OSError) -> RecordingError:
        if is_disk_full(error):
            return RecordingError(
                f"{self.path}: the disk is full; what was recorded so far stays readable: free "
                "some space (recording then goes on) or open the recording on another disk"
            )
        return RecordingError(
            f"{self.path}: cannot write ({error}); what was recorded so far stays"
        )


class _Stream:
    """One file: batches are serialised in memory first, so that a failed write can be undone."""

    def __init__(self, folder: Path, table: str) -> None:
        self._file = (folder / f"{table}.arrows").open("wb", buffering=0)
        self._bytes = io.BytesIO()
        self._writer = pa.ipc.new_stream(self._bytes, SCHEMAS[table])
        self._good = 0

    def write(self, rows: pa.Table) -> None:
        """Append rows; raises OSError, after which `retry` goes on."""
        for batch in _small_dictionaries(rows).to_batches(max_chunksize=BATCH_ROWS):
            self._writer.write_batch(batch)
        self.retry()

    def retry(self) -> None:
        """Write what is still in memory; a failed write is undone."""
        data = self._bytes.getvalue()
        written = 0
        try:
            while written < len(data):
                written += self._file.write(data[written:])
        except OSError:
            with contextlib.suppress(OSError):
                self._file.truncate(self._good)
                self._file.seek(self._good)
            raise
        self._good += written
        self._bytes.seek(0)
        self._bytes.truncate()

    def close(self) -> None:
        self._file.close()


def _small_dictionaries(rows: pa.Table) -> pa.Table:
    """One chunk per column, dictionaries holding only the values that occur."""
    columns = []
    for column in rows.columns:
        if pa.types.is_dictionary(column.type):
            column = column.cast(pa.string()).combine_chunks().dictionary_encode()
        columns.append(column)
    return pa.table(columns, schema=rows.schema).combine_chunks()


def _create(path: Path) -> io.FileIO:
    """Make the folder and take its lock; the lock file."""
    with disk_errors(path):
        (path / STREAMS).mkdir(parents=True, exist_ok=True)
    guard = lock(path)
    if guard is None:
        raise RecordingError(f"{path} is being recorded by another process: choose another name")
    if (path / MANIFEST).exists():
        guard.close()
        raise RecordingError(f"{path} holds a recording already: choose another name or remove it")
    return guard


def lock(path: Path) -> io.FileIO | None:
    """Take the lock of a Recording's folder until the file is closed; None when taken.

    The system releases it when the recorder dies. Raises RecordingError when the folder cannot
    be written.
    """
    with disk_errors(path):
        guard = io.FileIO(path / LOCK, "w")
    try:
        fcntl.flock(guard, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        guard.close()
        return None
    return guard


def recover(path: Path) -> dict[str, Any]:
    """Compact in place what a killed recorder left; the manifest.

    Raises RecordingError when the folder is still being recorded or cannot be written.
    """
    guard = lock(path)
    if guard is None:
        raise RecordingError(f"{path} is still being recorded")
    with guard:
        manifest = parse_manifest((path / MANIFEST).read_bytes(), str(path))
        if manifest["state"] == "recording":
            compaction.compact(path / STREAMS, manifest, path, remove=True)
        (path / LOCK).unlink(missing_ok=True)
    return manifest


def snapshot(path: Path, target: Path) -> dict[str, Any]:
    """Compact the streams of a Recording as they are now into another folder; the manifest."""
    manifest = parse_manifest((path / MANIFEST).read_bytes(), str(path))
    return compaction.compact(path / STREAMS, manifest, target, remove=False)


__all__ = ["Journal", "lock", "recover", "snapshot"]
