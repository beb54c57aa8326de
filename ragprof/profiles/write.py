"""Writing a profile in any of the formats that are written, and saying what does not fit."""

from __future__ import annotations

import os
import warnings
from pathlib import Path

import numpy as np

from ragprof.profiles import places, registry
from ragprof.profiles.model import Frame, Profile, ProfileError
from ragprof.profiles.registry import Format

PARTS = (
    "values",
    "modules",
    "files",
    "lines",
    "times",
    "start_times",
    "threads",
    "tasks",
    "labels",
    "notes",
)
"""What a format may carry besides functions and one weight per sample: its ``CARRIES``."""


class LossWarning(UserWarning):
    """A part of the profile that the file does not have, because its format cannot carry it."""


def write_profile(
    profile: Profile, path: str | Path, *, format: str | None = None, alpha: bool = False
) -> Path:
    """Writes a profile to a file, in ``format`` or as its name says; returns the path.

    The file appears under its name only when it is complete. Warns with `LossWarning` of what the
    format cannot carry. Raises `ProfileError` for unknown formats and profiles that do not fit, and
    for a format that may still change unless ``alpha`` allows it.
    """
    path = Path(path)
    chosen = registry.named(format) if format else registry.for_name(path.name)
    data = encoded(profile, chosen.name, alpha=alpha)
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        unfinished.write_bytes(data)
        unfinished.replace(path)
    except OSError as error:
        unfinished.unlink(missing_ok=True)
        raise ProfileError(f"{path} cannot be written: {error.strerror or error}.") from error
    return path


def encoded(profile: Profile, format: str, *, alpha: bool = False) -> bytes:
    """The file content of a profile in a format. Warns and raises as `write_profile`."""
    chosen = registry.named(format)
    if chosen.write is None:
        writable = ", ".join(one.name for one in registry.all_formats().values() if one.write)
        raise ProfileError(f"{chosen.title} is read, not written; {writable} are written.")
    if chosen.alpha and not alpha:
        raise ProfileError(
            f"{chosen.title} may still change, so that files of today may not be read tomorrow: "
            "allow it with alpha=True."
        )
    lost = losses(profile, chosen)
    if lost:
        warnings.warn(
            f"{chosen.title} cannot carry {', '.join(lost)}: not in the file.",
            LossWarning,
            stacklevel=3,
        )
    return chosen.write(profile)


def losses(profile: Profile, format: Format) -> list[str]:
    """What the profile has and the format cannot carry, for people."""
    frames = profile.frames
    timed = profile.times is not None
    utc = timed and profile.clock == "utc"
    with_files = "files" in format.carries
    has = {
        "values": [str(kind.type) for kind in profile.value_types[1:]],
        "modules": ["modules"] if any(_untold(frame, with_files) for frame in frames) else [],
        "files": ["source files"] if any(frame.file for frame in frames) else [],
        "lines": ["the lines that ran"] if np.any(profile.stack_lines) else [],
        "times": ["the time of each sample"] if utc else [],
        "start_times": ["times since the start"] if timed and not utc else [],
        "threads": ["threads"] if profile.threads is not None else [],
        "tasks": ["tasks"] if profile.tasks is not None else [],
        "labels": [f"labels ({', '.join(profile.labels)})"] if profile.labels else [],
        "notes": ["notes"] if profile.notes else [],
    }
    return [text for part in PARTS if part not in format.carries for text in has[part]]


def _untold(frame: Frame, with_file: bool) -> bool:
    """Whether the module cannot be told again from the function's name and its file."""
    told = places.frame(frame.function, frame.file if with_file else "").module
    return frame.module not in ("", told)
