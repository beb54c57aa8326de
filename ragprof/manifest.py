"""The manifest of a Recording, and how files of a Recording reach the disk.

``manifest.json`` says what a Recording holds: format version, window, tables with row counts and
checksums, sources, queries, versions, what was refused, lost and redacted. Everything is written
beside its place and renamed into it, so that a reader sees the old state or the new one.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import platform
import secrets
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa

import ragprof
from ragprof.errors import RagprofError
from ragprof.tables import SCHEMAS

FORMAT = "ragprof recording"
VERSION = 1
"""Version of the format on disk; a reader refuses a newer one."""

MANIFEST = "manifest.json"
LARGEST_MANIFEST = 64 << 20  # bytes; more is not a manifest


class RecordingError(RagprofError):
    """A Recording that cannot be written or read; says what can still be read of it."""


def table_file(table: str) -> str:
    """File name of a table within the folder of a Recording."""
    return f"{table}.parquet"


def new_manifest(**fields: Any) -> dict[str, Any]:
    """A manifest of a Recording without tables, ``state`` "recording"."""
    return {
        "format": FORMAT,
        "version": VERSION,
        "id": secrets.token_hex(8),
        "state": "recording",
        "created": now(),
        "window": None,
        "tables": {},
        "sources": [],
        "queries": [],
        "versions": {
            "ragprof": ragprof.__version__,
            "python": platform.python_version(),
            "pyarrow": pa.__version__,
        },
        "refused": {},
        "lost": {},
        "redacted": [],
        **fields,
    }


def now() -> str:
    """The present as ISO 8601 text, UTC."""
    return datetime.now(UTC).isoformat().replace("+00:00", "Z")


def iso(time_ns: int) -> str:
    """Nanoseconds since 1970 as ISO 8601 text with nine decimals, UTC."""
    seconds, nanoseconds = divmod(time_ns, 1_000_000_000)
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}.{nanoseconds:09d}Z"


def parse_manifest(text: bytes, where: str) -> dict[str, Any]:
    """A checked manifest; `where` names the Recording in errors.

    Raises RecordingError when it is not JSON, not ours, newer, or names hostile files.
    """
    try:
        manifest = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise RecordingError(f"{where}: {MANIFEST} is damaged ({error})") from None
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        raise RecordingError(f"{where} is not a recording: its {MANIFEST} is of something else")
    version = manifest.get("version")
    if not isinstance(version, int) or version < 1:
        raise RecordingError(f"{where}: {MANIFEST} is damaged (version is {version!r})")
    if version > VERSION:
        raise RecordingError(
            f"{where} has format version {version}, this ragprof {ragprof.__version__} reads "
            f"up to {VERSION}: upgrade ragprof"
        )
    complete = new_manifest() | {"created": "", "versions": {}}
    for field, default in complete.items():
        value = manifest.setdefault(field, default)
        if default is not None and not isinstance(value, type(default)):
            raise RecordingError(f"{where}: {MANIFEST} is damaged (field {field!r})")
    if manifest["state"] != "recording" and not _is_window(manifest["window"]):
        raise RecordingError(f"{where}: {MANIFEST} is damaged (field 'window')")
    for table, entry in manifest["tables"].items():
        if table in SCHEMAS and (
            not isinstance(entry, dict)
            or entry.get("file") != table_file(table)
            or not all(isinstance(entry.get(key), int) for key in ("rows", "bytes"))
        ):
            raise RecordingError(f"{where}: {MANIFEST} is damaged (table {table!r})")
    return manifest


def _is_window(window: Any) -> bool:
    try:
        start, end = (datetime.fromisoformat(text) for text in window)
        return start.tzinfo is not None and start <= end
    except (TypeError, ValueError):
        return False


def manifest_text(manifest: dict[str, Any]) -> str:
    """A manifest as JSON; values of other types become text."""
    return json.dumps(manifest, indent=1, ensure_ascii=True, default=str) + "\n"


def write_manifest(folder: Path, manifest: dict[str, Any], *, durable: bool = True) -> None:
    """Replace the manifest of a folder atomically; `durable` waits for the disk."""
    text = manifest_text(manifest)
    part = folder / f"{MANIFEST}.part"
    with disk_errors(folder):
        with part.open("w", encoding="utf-8") as file:
            file.write(text)
            if durable:
                file.flush()
                os.fsync(file.fileno())
        part.replace(folder / MANIFEST)
        if durable:
            sync_folder(folder)


def sync_folder(folder: Path) -> None:
    """Make renames within a folder durable."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_file(path: Path) -> None:
    """Wait until a written file is on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def is_disk_full(error: OSError) -> bool:
    """Whether a write failed for want of space: disk, quota or file size limit."""
    # Arrow raises OSError without errno and puts the number into the text.
    return error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG) or any(
        f"errno {number}]" in str(error) for number in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
    )


@contextlib.contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Turn a failed write under `path` into a RecordingError that names the way out."""
    try:
        yield
    except OSError as error:
        if is_disk_full(error):
            raise RecordingError(
                f"{path}: no space left to write; what was written so far stays readable: "
                "free some space, then open it again"
            ) from error
        raise RecordingError(
            f"{path}: cannot write ({error.strerror or error}); choose another folder"
        ) from error
