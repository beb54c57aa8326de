"""Frames that belong to the measuring and not to the program."""

from __future__ import annotations

import os

import numpy as np
from numpy.typing import NDArray

from ragprof.profiles.model import Frame, Profile, ProfileBuilder

_HERE = os.path.dirname(os.path.abspath(__file__)) + os.sep
_RUNNERS = ("<frozen runpy>", f"{os.sep}runpy.py", f"{os.sep}cProfile.py")


def is_ours(frame: Frame) -> bool:
    """Whether a frame starts the program or watches it."""
    return frame.file.startswith(_HERE) or frame.file.endswith(_RUNNERS)


def trimmed(profile: Profile) -> Profile:
    """The profile without such frames, wherever they stand; the weights stay."""
    ours = np.array([is_ours(frame) for frame in profile.frames], dtype=bool)
    return rebuilt(profile, ~ours[profile.stack_frames]) if ours.any() else profile


def rooted(profile: Profile, wanted: NDArray[np.bool_]) -> Profile:
    """Stacks from their outermost wanted frame on; stacks without one stay as they are.

    ``wanted``: a boolean per frame.
    """
    lengths = np.diff(profile.stack_offsets)
    owners = np.repeat(np.arange(profile.stack_count), lengths)
    places = np.flatnonzero(wanted[profile.stack_frames])
    begins = profile.stack_offsets[:-1].copy()
    begins[owners[places[::-1]]] = places[::-1]  # the outermost is written last
    keep = np.arange(len(owners)) >= begins[owners] if len(owners) else np.zeros(0, dtype=bool)
    return rebuilt(profile, keep)


def rebuilt(profile: Profile, keep: NDArray[np.bool_]) -> Profile:
    """The profile with those frames of its stacks (a boolean per entry of ``stack_frames``)."""
    builder = ProfileBuilder(profile.value_types, name=profile.name, clock=profile.clock)
    for text in profile.notes:
        builder.note(text)
    used = np.unique(profile.stack_frames[keep])
    ids = np.zeros(len(profile.frames), dtype=np.int64)
    ids[used] = [builder.frame(profile.frames[frame]) for frame in used.tolist()]
    owners = np.repeat(np.arange(profile.stack_count), np.diff(profile.stack_offsets))
    stacks = builder.stacks(
        ids[profile.stack_frames[keep]],
        profile.stack_lines[keep],
        np.bincount(owners[keep], minlength=profile.stack_count),
    )
    builder.samples(
        stacks[profile.sample_stacks],
        profile.values,
        times=profile.times,
        threads=profile.threads,
        tasks=profile.tasks,
        labels=profile.labels,
    )
    return builder.build()
