"""Frames that belong to the measuring and not to the program."""

from __future__ import annotations

import os

import numpy as np

from ragprof.profiles.model import Frame, Profile, ProfileBuilder

_HERE = os.path.dirname(os.path.abspath(__file__)) + os.sep
_RUNNERS = ("<frozen runpy>", f"{os.sep}runpy.py", f"{os.sep}cProfile.py")


def is_ours(frame: Frame) -> bool:
    """Whether a frame starts the program or watches it."""
    return frame.file.startswith(_HERE) or frame.file.endswith(_RUNNERS)


def trimmed(profile: Profile) -> Profile:
    """The profile without such frames, wherever they stand; the weights stay."""
    ours = np.array([is_ours(frame) for frame in profile.frames], dtype=bool)
    if not ours.any():
        return profile
    builder = ProfileBuilder(profile.value_types, name=profile.name)
    for text in profile.notes:
        builder.note(text)
    ids = np.array([builder.frame(frame) for frame in profile.frames], dtype=np.int64)
    keep = ~ours[profile.stack_frames]
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
