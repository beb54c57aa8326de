"""A Recording: the tables of one time window on disk, opened without loading them.

A folder of Parquet files and a ``manifest.json``, or both in one ``NAME.ragprof.zip``. Nothing is
pickled and nothing from a Recording is executed.
"""

from __future__ import annotations

import copy
import hashlib
import shutil
import tempfile
import weakref
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
from pyarrow.fs import LocalFileSystem

from ragprof import archive, compaction, description, journal, query, redaction, slicing
from ragprof.archive import Source
from ragprof.manifest import (
    LARGEST_MANIFEST,
    MANIFEST,
    RecordingError,
    disk_errors,
    iso,
    manifest_text,
    new_manifest,
    parse_manifest,
    sync_file,
    sync_folder,
    table_file,
    write_manifest,
)
from ragprof.rows import time_ns
from ragprof.tables import SCHEMAS

__all__ = ["Recording", "RecordingError", "merge", "open"]

_FORMAT = ds.ParquetFileFormat(
    default_fragment_scan_options=ds.ParquetFragmentScanOptions(page_checksum_verification=True)
)


class Recording:
    """The tables of one time window. Made by `ragprof.open`; never changes what it reads.

    Attributes:
        path: the folder or zip it was opened from.
        manifest: what ``manifest.json`` says.
    """

    def __init__(
        self,
        path: Path,
        manifest: dict[str, Any],
        sources: Mapping[str, Source],
        scratch: Path | None = None,
    ) -> None:
        self.path, self.manifest, self._sources = path, manifest, dict(sources)
        if scratch is not None:  # what only this Recording needs goes with it
            weakref.finalize(self, shutil.rmtree, scratch, ignore_errors=True)

    @property
    def window(self) -> tuple[pd.Timestamp, pd.Timestamp]:
        """First and last instant, UTC, in nanoseconds."""
        start, end = (pd.Timestamp(text).as_unit("ns") for text in self.manifest["window"])
        return start, end

    def dataset(self, name: str) -> ds.Dataset:
        """A table as a lazy Arrow dataset, columns as in ``ragprof.tables.SCHEMAS``.

        Raises RecordingError when there is no such table or its file is missing or damaged.
        """
        if name not in SCHEMAS:
            raise RecordingError(f"no table {name!r}; the tables are {', '.join(SCHEMAS)}")
        problem = self.problem(name)
        if problem:
            raise RecordingError(f"{self.path}: {problem}; {self._readable(name)}")
        source = self._sources[name]
        fragment = (
            _FORMAT.make_fragment(str(source.absolute()), LocalFileSystem())
            if isinstance(source, Path)
            else _FORMAT.make_fragment(source)
        )
        return ds.FileSystemDataset([fragment], SCHEMAS[name], _FORMAT)

    def table(self, name: str, columns: Sequence[str] | None = None) -> pa.Table:
        """A table (or some of its columns) as Arrow, read from disk at each call.

        Raises RecordingError for an unknown table or column and for damaged data.
        """
        dataset = self.dataset(name)
        unknown = [column for column in columns or () if column not in SCHEMAS[name].names]
        if unknown:
            raise RecordingError(
                f"table {name!r} has no column {unknown[0]!r}; "
                f"it has {', '.join(SCHEMAS[name].names)}"
            )
        try:
            return dataset.to_table(columns=None if columns is None else list(columns))
        except (pa.ArrowException, OSError) as error:
            raise self._damaged(name, error) from None

    def to_pandas(self, name: str, columns: Sequence[str] | None = None) -> pd.DataFrame:
        """A table as a DataFrame: texts are str, attributes dicts, times UTC in nanoseconds.

        Raises RecordingError as `table` does.
        """
        return query.to_pandas(self.table(name, columns))

    def sql(self, query: str) -> pd.DataFrame:
        """The result of one SELECT over the tables, by DuckDB, without access to anything else.

        Raises QueryError (a RagprofError) when it is no reading query or fails. Damaged tables
        are absent.
        """
        return query_datasets(self, query)

    def scan(self, name: str, filter: ds.Expression | None = None) -> Iterator[pa.Table]:
        """The rows of a table that pass a filter, in order, batch by batch.

        Raises RecordingError as `table` does.
        """
        batches = self.dataset(name).to_batches(
            filter=filter,
            batch_size=compaction.BLOCK_ROWS,
            batch_readahead=2,
            fragment_readahead=1,
        )
        try:
            for batch in batches:
                if batch.num_rows:
                    yield pa.Table.from_batches([batch])
        except (pa.ArrowException, OSError) as error:
            raise self._damaged(name, error) from None

    def slice(
        self,
        since: Any = None,
        until: Any = None,
        traces: Iterable[str] | None = None,
        services: Iterable[str] | None = None,
    ) -> Recording:
        """The rows in ``[since, until)``, of some traces, of some services: a new Recording.

        A span belongs to the instant at which it starts. With `traces`, metrics and changes are
        those from the first start to the last end of these traces. A service of "" means what
        belongs to none. Times are aware datetimes, ISO 8601 text with a zone, or ns since 1970.
        The result lives in a temporary folder until it is saved. Raises RecordingError for naive
        times and damaged tables.
        """
        part = slicing.Part(
            None if since is None else time_ns(since, "since"),
            None if until is None else time_ns(until, "until"),
            None if traces is None else frozenset([traces] if isinstance(traces, str) else traces),
            None
            if services is None
            else frozenset([services] if isinstance(services, str) else services),
        )
        manifest = copy.deepcopy(self.manifest)
        start, end = (int(instant.value) for instant in self.window)
        if part.traces is not None:
            manifest["window"] = None  # that of the rows
        else:
            start = start if part.since is None else min(max(start, part.since), end)
            end = end if part.until is None else max(min(end, part.until), start)
            manifest["window"] = [iso(start), iso(end)]
        manifest["slices"] = [
            *manifest.get("slices", []),
            {
                "since": None if part.since is None else iso(part.since),
                "until": None if part.until is None else iso(part.until),
                "traces": None if part.traces is None else len(part.traces),
                "services": None if part.services is None else sorted(part.services),
            },
        ]
        return _build(manifest, slicing.slice_tables(self.scan, part), self.path)

    def redact(
        self,
        *,
        allow: Sequence[str] = (),
        deny: Sequence[str] = redaction.DENY,
        texts: bool = True,
        ids: bool = True,
        key: bytes | None = None,
    ) -> Recording:
        """A Recording to pass on: private values replaced, joins intact, the rest untouched.

        Args:
            allow: patterns of attribute keys; when given, values of all other keys go.
            deny: patterns of attribute keys whose values go; stronger than `allow`.
            texts: replace log bodies, status messages and texts of changes.
            ids: hash trace, span and request ids, the same in every table.
            key: of that hash; random unless given. The same key keeps joins between Recordings.

        The manifest's ``redacted`` says what was replaced; its sources and queries are scrubbed.
        """
        rules = redaction.Rules(tuple(allow), tuple(deny), texts, ids)
        if key is not None:
            rules.key = hashlib.blake2b(key, digest_size=32).digest()
        manifest = copy.deepcopy(self.manifest)
        tables = redaction.redact_tables(self.scan, rules)
        return _build(manifest, tables, self.path, redact=rules)

    def save(self, path: str | Path) -> Recording:
        """Copy to a new folder, or to one file when `path` ends with ``.zip``; opens the copy.

        The name appears only when everything is written. Raises RecordingError when it exists
        already, when a table is damaged, or when it cannot be written.
        """
        target = _new_target(path)
        for name in SCHEMAS:
            self.dataset(name)
        with disk_errors(target):
            part = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
        try:
            with disk_errors(target):
                if target.suffix == ".zip":
                    made = part / target.name
                    text = manifest_text(self.manifest).encode()
                    archive.write_zip(made, text, self._sources, _stem(target))
                    sync_file(made)
                else:
                    made = part / "recording"
                    made.mkdir()
                    for name, source in self._sources.items():
                        with (made / table_file(name)).open("xb") as file:
                            archive.copy_source(source, file)
                        sync_file(made / table_file(name))
                    write_manifest(made, self.manifest)
                _publish(made, target)
        finally:
            shutil.rmtree(part, ignore_errors=True)
        return open(target)

    def verify(self) -> list[str]:
        """What is wrong with the files, one sentence each; empty when all checksums agree."""
        problems = []
        for name, entry in self.manifest["tables"].items():
            if name not in SCHEMAS:
                continue
            problem = self.problem(name)
            if not problem:
                problem = _check(name, self._sources[name], entry)
            if problem:
                problems.append(problem)
        absent = [name for name in SCHEMAS if name not in self.manifest["tables"]]
        return problems + [f"table {name!r} is not in the manifest" for name in absent]

    def problem(self, name: str) -> str:
        """What is wrong with the file of a table, told without reading it; empty: nothing."""
        entry = self.manifest["tables"].get(name)
        source = self._sources.get(name)
        if entry is None:
            return f"table {name!r} is not in the manifest"
        if source is None or (isinstance(source, Path) and not source.is_file()):
            return f"table {name!r} is missing ({table_file(name)})"
        size = source.stat().st_size if isinstance(source, Path) else source.size
        if size != entry["bytes"]:
            return (
                f"table {name!r} is damaged ({table_file(name)} has {size:,} bytes and should "
                f"have {entry['bytes']:,})"
            )
        return ""

    def describe(self) -> str:
        """What the Recording holds, for people."""
        return description.text(self.path, self.manifest, self._problems())

    def __repr__(self) -> str:
        rows = sum(entry["rows"] for entry in self.manifest["tables"].values())
        return f"<Recording {self.path}: {rows:,} rows>"

    def _repr_html_(self) -> str:
        return description.html(self.path, self.manifest, self._problems())

    def _problems(self) -> dict[str, str]:
        return {name: self.problem(name) for name in SCHEMAS}

    def _damaged(self, name: str, error: Exception) -> RecordingError:
        reason = str(error).splitlines()[0][:300]
        return RecordingError(
            f"{self.path}: table {name!r} is damaged ({reason}); {self._readable(name)}"
        )

    def _readable(self, damaged: str) -> str:
        good = [name for name, bad in self._problems().items() if not bad and name != damaged]
        return "still readable: " + (", ".join(good) or "nothing")


def query_datasets(recording: Recording, sql: str) -> pd.DataFrame:
    """`Recording.sql` over the tables that are not damaged."""
    readable = {name: recording.dataset(name) for name in SCHEMAS if not recording.problem(name)}
    return query.query(readable, sql)


def open(path: str | Path) -> Recording:
    """Open a folder or a ``.ragprof.zip`` without loading its tables.

    What a killed recorder left is compacted first: in place, or in a temporary folder when the
    folder cannot be written. A Recording that is being recorded opens as it is now. Raises
    RecordingError for everything that is not a readable Recording; it says what still is.
    """
    where = Path(path)
    if where.is_file():
        return _open_zip(where)
    if not where.is_dir():
        raise RecordingError(f"{where} does not exist")
    sources: dict[str, Source] = {name: where / table_file(name) for name in SCHEMAS}
    try:
        manifest = parse_manifest(_manifest_bytes(where), str(where))
    except RecordingError as error:
        raise _with_rescue(error, sources) from None
    if manifest["state"] != "recording":
        return Recording(where, manifest, sources)
    recovered = _recover(where)
    if recovered is not None:
        return Recording(where, recovered, sources)
    scratch = archive.scratch_folder()
    try:
        manifest = journal.snapshot(where, scratch)
    except BaseException:
        shutil.rmtree(scratch, ignore_errors=True)
        raise
    return Recording(where, manifest, _files(scratch), scratch)


def merge(recordings: Iterable[Recording | str | Path], out: str | Path) -> Recording:
    """One Recording of several, written to `out` (a new folder or ``.zip``), sorted by time.

    Equal series, stacks and frames become one and are renumbered; rows are kept as they are, so
    a span that two Recordings hold is there twice. Raises RecordingError as `open` and `save` do.
    """
    opened = [item if isinstance(item, Recording) else open(item) for item in recordings]
    if not opened:
        raise RecordingError("nothing to merge: name at least one recording")
    target = _new_target(out)
    manifests = [recording.manifest for recording in opened]
    manifest = copy.deepcopy(manifests[0])
    manifest["window"] = [
        min((m["window"][0] for m in manifests), key=pd.Timestamp),
        max((m["window"][1] for m in manifests), key=pd.Timestamp),
    ]
    manifest["created"] = min((m["created"] for m in manifests), key=pd.Timestamp)
    for field in ("sources", "queries", "redacted"):
        manifest[field] = _distinct(item for m in manifests for item in m[field])
    originals = {m["id"]: m for m in manifests}.values()  # slices of one count once
    manifest["refused"] = _added(m["refused"] for m in originals)
    manifest["lost"] = _added_lost(m["lost"] for m in originals)
    if len(originals) > 1:
        manifest["id"] = new_manifest()["id"]
    manifest["merged"] = [{"window": m["window"], "slices": m.get("slices", [])} for m in manifests]
    manifest.pop("slices", None)
    tables = slicing.merge_tables([recording.scan for recording in opened])
    return _build(manifest, tables, target, ordered=False).save(target)


def _build(
    manifest: dict[str, Any],
    tables: Mapping[str, Iterable[pa.Table]],
    path: Path,
    *,
    ordered: bool = True,
    redact: redaction.Rules | None = None,
) -> Recording:
    scratch = archive.scratch_folder()
    try:
        entries = compaction.write_tables(scratch, tables, ordered=ordered)
        if redact is not None:  # only now it is known what was replaced
            manifest = redaction.redact_manifest(manifest, redact)
        compaction.finish(scratch, manifest, entries)
    except BaseException:
        shutil.rmtree(scratch, ignore_errors=True)
        raise
    return Recording(path, manifest, _files(scratch), scratch)


def _open_zip(path: Path) -> Recording:
    scratch = archive.scratch_folder()
    try:
        text, sources = archive.read_zip(path, scratch)
        try:
            manifest = parse_manifest(text, str(path))
        except RecordingError as error:
            raise _with_rescue(error, sources) from None
        if manifest["state"] == "recording":
            manifest = compaction.compact(scratch / archive.STREAMS, manifest, scratch, remove=True)
            sources = _files(scratch)
    except BaseException:
        shutil.rmtree(scratch, ignore_errors=True)
        raise
    return Recording(path, manifest, sources, scratch)


def _recover(path: Path) -> dict[str, Any] | None:
    """The manifest after compacting in place; None when the folder cannot be written."""
    try:
        return journal.recover(path)
    except RecordingError:
        return None


def _files(folder: Path) -> dict[str, Source]:
    return {name: folder / table_file(name) for name in SCHEMAS}


def _manifest_bytes(folder: Path) -> bytes:
    file = folder / MANIFEST
    if not file.is_file():
        raise RecordingError(f"{folder} is not a recording: it has no {MANIFEST}")
    if file.stat().st_size > LARGEST_MANIFEST:
        raise RecordingError(f"{folder} is not a recording: its {MANIFEST} is too large")
    try:
        return file.read_bytes()
    except OSError as error:
        raise RecordingError(f"{file}: cannot read ({error.strerror})") from None


def _with_rescue(error: RecordingError, sources: Mapping[str, Source]) -> RecordingError:
    """The error, with the tables that can still be read as plain Parquet."""
    found = []
    for name, source in sources.items():
        try:
            if isinstance(source, Path) and not source.is_file():
                continue
            with pq.ParquetFile(source) as file:
                found.append(f"{table_file(name)} ({file.metadata.num_rows:,} rows)")
        except (pa.ArrowException, OSError):
            continue
    if not found:
        return error
    return RecordingError(f"{error}; still readable as plain Parquet: {', '.join(found)}")


def _check(name: str, source: Source, entry: dict[str, Any]) -> str:
    try:
        if archive.checksum(source) != entry.get("sha256"):
            return f"table {name!r} is damaged ({table_file(name)} has another checksum)"
        with pq.ParquetFile(source) as file:
            if file.metadata.num_rows != entry["rows"]:
                return (
                    f"table {name!r} has {file.metadata.num_rows:,} rows and the manifest says "
                    f"{entry['rows']:,}"
                )
    except (pa.ArrowException, OSError) as error:
        return f"table {name!r} is damaged ({str(error).splitlines()[0]})"
    return ""


def _new_target(path: str | Path) -> Path:
    target = Path(path)
    if target.exists():
        raise RecordingError(f"{target} exists: remove it or choose another name")
    with disk_errors(target):
        target.parent.mkdir(parents=True, exist_ok=True)
    return target


def _publish(made: Path, target: Path) -> None:
    made.rename(target)
    sync_folder(target.parent)


def _stem(path: Path) -> str:
    name = path.name.removesuffix(".zip").removesuffix(".ragprof")
    return f"{name}.ragprof"


def _distinct(items: Iterable[Any]) -> list[Any]:
    found: list[Any] = []
    for item in items:
        if item not in found:
            found.append(item)
    return found


def _added(counts: Iterable[Mapping[str, int]]) -> dict[str, int]:
    total: dict[str, int] = {}
    for count in counts:
        for reason, number in count.items():
            total[reason] = total.get(reason, 0) + number
    return total


def _added_lost(losses: Iterable[Mapping[str, Mapping[str, Any]]]) -> dict[str, Any]:
    total: dict[str, Any] = {}
    for loss in losses:
        for table, lost in loss.items():
            before = total.get(table, {"bytes": 0})
            total[table] = {**lost, "bytes": before["bytes"] + lost["bytes"]}
    return total
