"""What a capture has fetched so far: a folder beside the Recording, `NAME.ragprof.partial`.

It holds the plan and one sub-folder per finished piece, so that a capture that was cut, killed or
short of an answer goes on where it was. A piece appears whole or not at all.
"""

from __future__ import annotations

import fcntl
import io
import json
import os
import shutil
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pyarrow as pa

from ragprof.manifest import disk_errors
from ragprof.rows import conform
from ragprof.sources.settings import ConfigError
from ragprof.sources.source import Piece, Window
from ragprof.tables import SCHEMAS

PLAN = "plan.json"
BATCH_ROWS = 16_384
_COMPRESSED = pa.ipc.IpcWriteOptions(compression="lz4")
ORDER = ("frames", "stacks", "series", "spans", "logs", "metrics", "samples", "changes")
"""Tables in an order in which dictionaries come before the rows that name them."""


def partial_folder(out: Path) -> Path:
    """Where the pieces of a Recording lie until it is complete."""
    return out.with_name(out.name + ".partial")


class Pieces:
    """The folder, locked for this process; `plan` is what `create` was given."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        with disk_errors(folder):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._lock = io.FileIO(folder / "lock", "w")
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._lock.close()
            raise ConfigError(
                f"{folder} is being filled by another capture; wait for it or choose another --out."
            ) from None
        self.plan: dict[str, Any] | None = self._read_plan()

    def create(self, plan: dict[str, Any]) -> None:
        """Write a new plan; what was fetched for another one goes."""
        for path in self.folder.iterdir():
            if path.name[:6].isdigit():
                shutil.rmtree(path)
        part = self.folder / f"{PLAN}.part"
        with disk_errors(self.folder):
            part.write_text(json.dumps(plan), encoding="utf-8")
            part.replace(self.folder / PLAN)
        self.plan = plan

    def has(self, number: int) -> bool:
        """Whether a piece was fetched."""
        return (self.folder / f"{number:06d}").is_dir()

    def store(self, number: int, tables: Iterable[tuple[str, pa.Table]]) -> Counter[str]:
        """Write a piece as it comes; rows by table. What was begun and not finished goes."""
        part = self.folder / f"{number:06d}.part"
        shutil.rmtree(part, ignore_errors=True)
        rows: Counter[str] = Counter()
        writers: dict[str, pa.ipc.RecordBatchStreamWriter] = {}
        with disk_errors(self.folder):
            part.mkdir()
            try:
                for table, found in tables:
                    conformed = conform(table, found)
                    if table not in writers:
                        writers[table] = pa.ipc.new_stream(
                            part / f"{table}.arrows", SCHEMAS[table], options=_COMPRESSED
                        )
                    writers[table].write_table(conformed.combine_chunks(), BATCH_ROWS)
                    rows[table] += conformed.num_rows
            finally:
                for writer in writers.values():
                    writer.close()
            (part / "rows.json").write_text(json.dumps(rows), encoding="utf-8")
            os.rename(part, self.folder / f"{number:06d}")
        return rows

    def rows(self, number: int) -> Counter[str]:
        """Rows by table of a piece that was fetched."""
        path = self.folder / f"{number:06d}" / "rows.json"
        return Counter(json.loads(path.read_text(encoding="utf-8")))

    def read(self, number: int, table: str) -> Iterator[pa.Table]:
        """A table of a piece, batch by batch."""
        path = self.folder / f"{number:06d}" / f"{table}.arrows"
        if path.exists():
            with pa.ipc.open_stream(path) as stream:
                for batch in stream:
                    yield pa.Table.from_batches([batch])

    def close(self) -> None:
        self._lock.close()

    def remove(self) -> None:
        """The capture is complete."""
        shutil.rmtree(self.folder, ignore_errors=True)
        self._lock.close()

    def _read_plan(self) -> dict[str, Any] | None:
        try:
            plan = json.loads((self.folder / PLAN).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        return plan if isinstance(plan, dict) else None


def to_json(piece: Piece) -> dict[str, Any]:
    """A piece as it is kept in the plan."""
    return {**asdict(piece), "request": dict(piece.request)}


def from_json(kept: dict[str, Any]) -> Piece:
    return Piece(**{**kept, "window": Window(**kept["window"])})
