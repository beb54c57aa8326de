"""Streams -> Parquet: every table sorted by time, in row groups, in bounded memory.

Sorting is an external merge sort: runs of at most `RUN_ROWS` rows are sorted in memory and parked
as Arrow files, then merged block by block. At each step everything up to the earliest of the
runs' last loaded times is complete, so it can be sorted and written.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ragprof.archive import checksum
from ragprof.manifest import (
    disk_errors,
    iso,
    sync_file,
    sync_folder,
    table_file,
    write_manifest,
)
from ragprof.rows import ID_COLUMN
from ragprof.tables import SCHEMAS, TIME_COLUMN

RUN_ROWS = 1_000_000
RUN_BYTES = 256 << 20
BLOCK_ROWS = 32_768
ROW_GROUP_ROWS = 131_072

SORT_COLUMN = {**TIME_COLUMN, **ID_COLUMN}
"""Table -> the column that its rows are sorted by."""


@dataclass
class Tail:
    """What is unreadable at the end of a stream."""

    bytes: int = 0
    reason: str = ""


def read_stream(path: Path, table: str, tail: Tail) -> Iterator[pa.Table]:
    """Batches of an Arrow IPC stream up to the first that is incomplete or damaged.

    `tail` receives how many bytes at the end were dropped and why.
    """
    size = path.stat().st_size
    good = 0
    if not size:
        return
    with pa.OSFile(str(path)) as source:
        try:
            reader = pa.ipc.open_stream(source)
            if not reader.schema.equals(SCHEMAS[table]):
                raise pa.ArrowInvalid("the columns are not those of the table")
            good = source.tell()
            while good < size:
                batch = reader.read_next_batch()
                batch.validate(full=True)
                good = source.tell()
                yield pa.Table.from_batches([batch])
        except StopIteration:
            return
        except (pa.ArrowException, OSError, EOFError) as error:
            tail.bytes, tail.reason = size - good, str(error).splitlines()[0][:200]


class TableWriter:
    """Writes one sorted table as Parquet; a context manager whose `entry` goes to the manifest."""

    def __init__(self, folder: Path, table: str) -> None:
        self.table, self.path = table, folder / table_file(table)
        self.rows = 0
        self.start: int | None = None
        self.end: int | None = None
        schema = SCHEMAS[table]
        sort = schema.get_field_index(SORT_COLUMN[table])
        self._writer = pq.ParquetWriter(
            self.path,
            schema,
            compression="zstd",
            compression_level=3,
            version="2.6",
            write_page_index=True,
            write_page_checksum=True,
            sorting_columns=[pq.SortingColumn(sort)],
        )
        self._pending: list[pa.Table] = []
        self._pending_rows = 0

    def write(self, rows: pa.Table) -> None:
        """Append rows, which must not sort before those already written."""
        if not rows.num_rows:
            return
        self._measure(rows)
        self._pending.append(rows)
        self._pending_rows += rows.num_rows
        if self._pending_rows >= ROW_GROUP_ROWS:
            self._flush()

    def close(self) -> dict[str, Any]:
        """Finish the file; its entry for the manifest."""
        self._flush()
        self._writer.close()
        sync_file(self.path)
        return {
            "file": self.path.name,
            "rows": self.rows,
            "bytes": self.path.stat().st_size,
            "sha256": checksum(self.path),
            "start": self.start,
            "end": self.end,
        }

    def _flush(self) -> None:
        if self._pending:
            rows = pa.concat_tables(self._pending).unify_dictionaries()
            self._writer.write_table(rows, row_group_size=ROW_GROUP_ROWS)
            self._pending, self._pending_rows = [], 0

    def _measure(self, rows: pa.Table) -> None:
        self.rows += rows.num_rows
        column = TIME_COLUMN.get(self.table)
        if column is None:
            return
        start = rows[column].cast(pa.int64())
        end = start
        if self.table == "spans":
            end = pc.add(start, rows["duration_ns"])
        first, last = pc.min(start).as_py(), pc.max(end).as_py()
        self.start = first if self.start is None else min(self.start, first)
        self.end = last if self.end is None else max(self.end, last)


def sort_rows(batches: Iterable[pa.Table], table: str, scratch: Path) -> Iterator[pa.Table]:
    """Rows of all batches sorted by time (dictionaries: by id, the first of each id only).

    Rows of equal time keep their order. `scratch` is a folder for the parked runs.
    """
    runs: list[Path] = []
    buffer: list[pa.Table] = []
    rows = size = 0
    for batch in batches:
        buffer.append(batch)
        rows += batch.num_rows
        size += batch.nbytes
        if rows >= RUN_ROWS or size >= RUN_BYTES:
            runs.append(_park(_sorted(buffer, table), scratch / f"{table}-{len(runs)}.arrow"))
            buffer, rows, size = [], 0, 0
    last = _sorted(buffer, table) if buffer else None
    if not runs:
        merged: Iterator[pa.Table] = iter(()) if last is None else _blocks(last)
    else:
        if last is not None:
            runs.append(_park(last, scratch / f"{table}-{len(runs)}.arrow"))
        merged = _merge_runs(runs, table)
    yield from _distinct(merged, ID_COLUMN[table]) if table in ID_COLUMN else merged
    for run in runs:
        run.unlink()


def _blocks(rows: pa.Table) -> Iterator[pa.Table]:
    for offset in range(0, rows.num_rows, BLOCK_ROWS):
        yield rows.slice(offset, BLOCK_ROWS)


def _sorted(batches: list[pa.Table], table: str) -> pa.Table:
    rows = pa.concat_tables(batches).unify_dictionaries()
    times = rows[SORT_COLUMN[table]].cast(pa.int64()).to_numpy()
    if (times[1:] >= times[:-1]).all():
        return rows
    return rows.take(pa.array(times.argsort(kind="stable")))


def _park(rows: pa.Table, path: Path) -> Path:
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, rows.schema) as writer:
        writer.write_table(rows.combine_chunks(), max_chunksize=BLOCK_ROWS)
    return path


def _merge_runs(runs: list[Path], table: str) -> Iterator[pa.Table]:
    column = SORT_COLUMN[table]
    readers = [pa.ipc.open_file(pa.OSFile(str(run))) for run in runs]
    following = [0] * len(runs)
    loaded: list[pa.Table | None] = [None] * len(runs)
    while True:
        for i, reader in enumerate(readers):
            if loaded[i] is None and following[i] < reader.num_record_batches:
                loaded[i] = pa.Table.from_batches([reader.get_batch(following[i])])
                following[i] += 1
        present = [(i, rows) for i, rows in enumerate(loaded) if rows is not None]
        if not present:
            return
        # A run that has more to come may go on with its last time. Up to the earliest of these
        # last times everything is complete; of equal times, earlier runs come first.
        times = {i: rows[column].cast(pa.int64()).to_numpy() for i, rows in present}
        first = min(times, key=lambda i: (times[i][-1], i))
        limit = times[first][-1]
        ready: list[pa.Table] = []
        for i, rows in present:
            cut = int(times[i].searchsorted(limit, side="right" if i <= first else "left"))
            if cut:
                ready.append(rows.slice(0, cut))
            loaded[i] = rows.slice(cut) if cut < rows.num_rows else None
        yield from _blocks(_sorted(ready, table))


def _distinct(batches: Iterator[pa.Table], column: str) -> Iterator[pa.Table]:
    last: int | None = None
    for rows in batches:
        ids = rows[column].to_numpy()
        keep = [True] * len(ids)
        for i, id_ in enumerate(ids.tolist()):
            keep[i] = id_ != last
            last = id_
        yield rows if all(keep) else rows.filter(pa.array(keep))


def write_tables(
    folder: Path, sources: Mapping[str, Iterable[pa.Table]], *, ordered: bool = False
) -> dict[str, dict[str, Any]]:
    """Every table of SCHEMAS as Parquet in a folder; absent ones empty. Entries by table.

    `ordered` says that the batches come sorted already.
    """
    entries = {}
    with disk_errors(folder), tempfile.TemporaryDirectory(prefix=".sort-", dir=folder) as scratch:
        for table in SCHEMAS:
            writer = TableWriter(folder, table)
            batches = sources.get(table, ())
            rows = batches if ordered else sort_rows(batches, table, Path(scratch))
            for batch in rows:
                writer.write(batch)
            entries[table] = writer.close()
    return entries


def finish(folder: Path, manifest: dict[str, Any], entries: dict[str, dict[str, Any]]) -> None:
    """Complete a manifest with its tables and window and write it, `state` "closed"."""
    manifest["tables"] = entries
    manifest["state"] = "closed"
    manifest["window"] = manifest.get("window") or _window(entries, manifest["created"])
    sync_folder(folder)
    write_manifest(folder, manifest)


def _window(entries: dict[str, dict[str, Any]], created: str) -> list[str]:
    # A change may lie long before (the start of a process), so it counts only on its own.
    telemetry = [e for table, e in entries.items() if table != "changes" and e["start"] is not None]
    timed = telemetry or [e for e in entries.values() if e["start"] is not None]
    if not timed:
        return [created, created]
    return [iso(min(e["start"] for e in timed)), iso(max(e["end"] for e in timed))]


def compact(
    streams: Path, manifest: dict[str, Any], target: Path, *, remove: bool
) -> dict[str, Any]:
    """The streams in a folder as Parquet tables and a closed manifest in `target`.

    What cannot be read at the end of a stream is dropped and counted in the manifest's ``lost``.
    With `remove` the streams are deleted once the manifest is in place; interrupted before that,
    the same call starts anew. Raises RecordingError when the disk is full; the streams stay.
    """
    tails = {table: Tail() for table in SCHEMAS}
    sources = {
        table: read_stream(streams / f"{table}.arrows", table, tails[table])
        for table in SCHEMAS
        if (streams / f"{table}.arrows").exists()
    }
    with disk_errors(target):
        part = Path(tempfile.mkdtemp(prefix=".compacting-", dir=target))
    try:
        entries = write_tables(part, sources)
        with disk_errors(target):
            for entry in entries.values():
                (part / entry["file"]).replace(target / entry["file"])
    finally:
        shutil.rmtree(part, ignore_errors=True)
    manifest["lost"] = {
        **manifest["lost"],
        **{
            t: {"bytes": tail.bytes, "reason": tail.reason}
            for t, tail in tails.items()
            if tail.bytes
        },
    }
    finish(target, manifest, entries)
    if remove:
        shutil.rmtree(streams, ignore_errors=True)
    return manifest
