"""A Recording in one zip file: written uncompressed, so that its tables are read in place.

The tables are compressed already. A zip of other make (compressed, or with the folder inside)
opens too: its members are unpacked into a temporary folder, those with hostile names never.
"""

from __future__ import annotations

import hashlib
import shutil
import stat
import struct
import tempfile
import zipfile
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import IO, TypeAlias

import pyarrow as pa

from ragprof.manifest import LARGEST_MANIFEST, MANIFEST, RecordingError, table_file
from ragprof.tables import SCHEMAS

Source: TypeAlias = "Path | pa.Buffer"
"""Where the bytes of a table are: a file, or a part of a memory-mapped zip."""

STREAMS = "journal"
MOST_MEMBERS = 10_000
_LARGEST_RATIO = 50  # Parquet with zstd does not shrink further; more is a zip bomb


def write_zip(path: Path, manifest: bytes, sources: Mapping[str, Source], name: str) -> None:
    """Write a zip with the folder `name` inside; not atomic, the caller renames.

    Raises OSError when it cannot be written.
    """
    with zipfile.ZipFile(path, "x", zipfile.ZIP_STORED, allowZip64=True) as archive:
        archive.writestr(f"{name}/{MANIFEST}", manifest)
        for table, source in sources.items():
            with archive.open(f"{name}/{table_file(table)}", "w", force_zip64=True) as member:
                copy_source(source, member)


def copy_source(source: Source, target: IO[bytes]) -> None:
    """Copy the bytes of a table into a file object, a few MiB at a time."""
    write = target.write
    if isinstance(source, Path):
        with source.open("rb") as file:
            while block := file.read(1 << 22):
                write(block)
        return
    view = memoryview(source)
    for offset in range(0, len(view), 1 << 22):
        write(view[offset : offset + (1 << 22)])


def checksum(source: Source) -> str:
    """SHA-256 of the bytes of a table, 64 hex digits."""
    if isinstance(source, Path):
        with source.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    return hashlib.sha256(memoryview(source)).hexdigest()


def read_zip(path: Path, scratch: Path) -> tuple[bytes, dict[str, Source]]:
    """The manifest's text and where the tables are.

    Stored tables stay in the zip; compressed tables and streams are unpacked into `scratch`.
    Raises RecordingError for a file that is no zip, has hostile names or holds no Recording.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            members = _members(path, archive)
            if MANIFEST not in members:
                inside = ", ".join(sorted(members)[:8]) or "nothing"
                raise RecordingError(
                    f"{path} is not a recording: it has no {MANIFEST} (inside: {inside})"
                )
            if members[MANIFEST].file_size > LARGEST_MANIFEST:
                raise RecordingError(f"{path} is not a recording: its {MANIFEST} is too large")
            manifest = archive.read(members[MANIFEST])
            mapped = pa.memory_map(str(path)).read_buffer()
            tables: dict[str, Source] = {}
            for table in SCHEMAS:
                member = members.get(table_file(table))
                if member is not None:
                    tables[table] = _stored(mapped, member) or _unpack(
                        archive, member, scratch / table_file(table)
                    )
            streams = [name for name in members if name.startswith(f"{STREAMS}/")]
            for name in streams:
                (scratch / STREAMS).mkdir(exist_ok=True)
                _unpack(archive, members[name], scratch / name)
            return manifest, tables
    except (zipfile.BadZipFile, EOFError, NotImplementedError, RuntimeError) as error:
        raise RecordingError(
            f"{path} is not a readable zip ({error}): copy it again, or unzip what can be "
            "unzipped and open the folder"
        ) from None


def _members(path: Path, archive: zipfile.ZipFile) -> dict[str, zipfile.ZipInfo]:
    """Members by name within the Recording; a single top folder is taken off."""
    infos = [info for info in archive.infolist() if not info.is_dir()]
    if len(infos) > MOST_MEMBERS:
        raise RecordingError(f"{path} is not a recording: it has {len(infos):,} members")
    members: dict[str, zipfile.ZipInfo] = {}
    tops = {PurePosixPath(info.filename).parts[:1] for info in infos}
    nested = len(tops) == 1 and all(len(PurePosixPath(i.filename).parts) > 1 for i in infos)
    for info in infos:
        name = info.filename
        parts = PurePosixPath(name).parts
        mode = info.external_attr >> 16
        if (
            name.startswith("/")
            or "\\" in name
            or ":" in name.split("/")[0][:2]
            or ".." in parts
            or not parts
            or (mode and stat.S_ISLNK(mode))
        ):
            raise RecordingError(
                f"{path}: refused, its member {name!r} points outside of the recording"
            )
        key = "/".join(parts[1:] if nested else parts)
        if key in members:
            raise RecordingError(f"{path}: refused, it has two members {name!r}")
        members[key] = info
    return members


def _stored(mapped: pa.Buffer, info: zipfile.ZipInfo) -> pa.Buffer | None:
    if info.compress_type != zipfile.ZIP_STORED or info.flag_bits & 1:
        return None
    header = bytes(mapped.slice(info.header_offset, 30))
    if len(header) < 30 or header[:4] != b"PK\x03\x04":
        raise zipfile.BadZipFile(f"no header of {info.filename!r}")
    name_length, extra_length = struct.unpack("<HH", header[26:30])
    start = info.header_offset + 30 + name_length + extra_length
    if start + info.file_size > mapped.size:
        raise zipfile.BadZipFile(f"{info.filename!r} is cut off")
    return mapped.slice(start, info.file_size)


def _unpack(archive: zipfile.ZipFile, info: zipfile.ZipInfo, target: Path) -> Path:
    if info.file_size > _LARGEST_RATIO * max(info.compress_size, 1 << 16):
        raise zipfile.BadZipFile(f"{info.filename!r} would unpack to {info.file_size:,} bytes")
    with archive.open(info) as member, target.open("xb") as file:
        shutil.copyfileobj(member, file, 1 << 20)
    return target


def scratch_folder() -> Path:
    """A new private folder for what a Recording needs while it is open."""
    return Path(tempfile.mkdtemp(prefix="ragprof-"))
