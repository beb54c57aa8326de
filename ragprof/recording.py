"""A Recording: the tables of one time window on disk, opened without loading them.

A folder of Parquet files and a ``manifest.json``, or both in one ``NAME.ragprof.zip``. Nothing is
pickled and nothing from a Recording is executed.
"""

from __future__ import annotations

import builtins
import contextlib
import html
import shutil
import tempfile
import weakref
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq

from ragprof import journal, query
from ragprof.manifest import (
    LARGEST_MANIFEST,
    MANIFEST,
    RecordingError,
    disk_errors,
    parse_manifest,
    sha256,
    sync_file,
    sync_folder,
    table_file,
)
from ragprof.tables import SCHEMAS

__all__ = ["Recording", "RecordingError", "open"]


class Recording:
    """The tables of one time window. Made by `ragprof.open`; never changes what it reads.

    Attributes:
        path: the folder or zip it was opened from.
        manifest: what ``manifest.json`` says.
        window: its first and last instant, UTC.
    """

    def __init__(
        self, path: Path, folder: Path, manifest: dict[str, Any], temporary: bool = False
    ) -> None:
        self.path, self.manifest, self._folder = path, manifest, folder
        if temporary:
            weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)

    @property
    def window(self) -> tuple[pd.Timestamp, pd.Timestamp]:
        """First and last instant, UTC."""
        start, end = self.manifest["window"]
        return pd.Timestamp(start), pd.Timestamp(end)

    def dataset(self, name: str) -> ds.Dataset:
        """A table as a lazy Arrow dataset.

        Raises RecordingError when there is no such table or its file is missing or damaged.
        """
        if name not in SCHEMAS:
            raise RecordingError(f"no table {name!r}; the tables are {', '.join(SCHEMAS)}")
        problem = self._problem(name)
        if problem:
            raise RecordingError(f"{self.path}: {problem}; {self._readable()}")
        file = self._folder / table_file(name)
        return ds.dataset(file, schema=SCHEMAS[name], format="parquet")

    def table(self, name: str, columns: Sequence[str] | None = None) -> pa.Table:
        """A table (or some of its columns) as Arrow, read from disk at each call."""
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
            reason = str(error).splitlines()[0]
            raise RecordingError(
                f"{self.path}: table {name!r} is damaged ({reason}); {self._readable(name)}"
            ) from None

    def to_pandas(self, name: str, columns: Sequence[str] | None = None) -> pd.DataFrame:
        """A table as a DataFrame: text columns are str, attributes dicts, times UTC in ns."""
        return query.to_pandas(self.table(name, columns))

    def sql(self, query_text: str) -> pd.DataFrame:
        """The result of one SELECT over the tables, by DuckDB, without access to anything else.

        Raises QueryError (a RagprofError) when it is not a reading query or fails.
        """
        readable = {name: self.dataset(name) for name in SCHEMAS if not self._problem(name)}
        return query.query(readable, query_text)

    def save(self, path: str | Path) -> Recording:
        """Copy to a new folder, or to one file when `path` ends with ``.zip``; opens the copy.

        The name appears only when everything is written. Raises RecordingError when it exists.
        """
        target = Path(path)
        if target.exists():
            raise RecordingError(f"{target} exists: remove it or choose another name")
        with disk_errors(target):
            target.parent.mkdir(parents=True, exist_ok=True)
            part = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
        try:
            with disk_errors(target):
                for entry in self.manifest["tables"].values():
                    shutil.copyfile(self._folder / entry["file"], part / entry["file"])
                    sync_file(part / entry["file"])
                journal.write_manifest(part, self.manifest)
                part.chmod(0o755)
                part.rename(target)
                sync_folder(target.parent)
        finally:
            shutil.rmtree(part, ignore_errors=True)
        return open(target)

    def verify(self) -> list[str]:
        """What is wrong with the files, one sentence each; empty when all checksums agree."""
        problems = []
        for name, entry in self.manifest["tables"].items():
            if name not in SCHEMAS:
                continue
            problem = self._problem(name)
            if not problem and sha256(self._folder / table_file(name)) != entry["sha256"]:
                problem = f"table {name!r}: the checksum is not that of the manifest"
            if problem:
                problems.append(problem)
        return problems

    def describe(self) -> str:
        """What the Recording holds, for people."""
        start, end = self.window
        lines = [
            f"{self.path}",
            f"  window  {start} to {end} ({(end - start).total_seconds():.1f} s)",
        ]
        for name, entry in self.manifest["tables"].items():
            lines.append(f"  {name:8} {entry['rows']:>12,} rows")
        return "\n".join(lines)

    def __repr__(self) -> str:
        return f"<Recording {self.path}>"

    def _repr_html_(self) -> str:
        return f"<pre>{html.escape(self.describe())}</pre>"

    def _problem(self, name: str) -> str:
        """What is wrong with the file of a table, told without reading it; empty: nothing."""
        entry = self.manifest["tables"].get(name)
        file = self._folder / table_file(name)
        if entry is None:
            return f"table {name!r} is not in the manifest"
        if not file.is_file():
            return f"table {name!r}: {file.name} is missing"
        if file.stat().st_size != entry["bytes"]:
            return (
                f"table {name!r}: {file.name} has {file.stat().st_size:,} bytes, "
                f"not {entry['bytes']:,}"
            )
        return ""

    def _readable(self, damaged: str = "") -> str:
        good = [name for name in SCHEMAS if name != damaged and not self._problem(name)]
        return "still readable: " + (", ".join(good) or "nothing")


def open(path: str | Path) -> Recording:
    """Open a folder or a ``.ragprof.zip`` without loading its tables.

    What a killed recorder left is compacted first: in place, or in a temporary folder when the
    folder is read-only. A Recording that is being recorded opens as it is now. Raises
    RecordingError for everything that is not a readable Recording.
    """
    where = Path(path)
    manifest = _manifest(where)
    if manifest["state"] != "recording":
        return Recording(where, where, manifest)
    try:
        return Recording(where, where, journal.recover(where))
    except RecordingError:
        target = Path(tempfile.mkdtemp(prefix="ragprof-"))
        with contextlib.ExitStack() as undo:
            undo.callback(shutil.rmtree, target, ignore_errors=True)
            manifest = journal.snapshot(where, target)
            undo.pop_all()
        return Recording(where, target, manifest, temporary=True)


def _manifest(folder: Path) -> dict[str, Any]:
    file = folder / MANIFEST
    if not folder.exists():
        raise RecordingError(f"{folder} does not exist")
    if not file.is_file():
        raise RecordingError(f"{folder} is not a recording: it has no {MANIFEST}")
    with builtins.open(file, "rb") as source:
        return parse_manifest(source.read(LARGEST_MANIFEST), str(folder))


_ = pq
