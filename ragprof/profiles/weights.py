"""Self and total weight by frame, as arrays."""

from __future__ import annotations

import numpy as np

from ragprof.profiles.model import Floats, Profile


def by_frame(profile: Profile, value: int = 0) -> tuple[Floats, Floats]:
    """Self and total of every entry of ``profile.frames``, in the unit of the value type.

    A frame that occurs several times in a stack (recursion) counts once in its total.
    """
    weights = profile.stack_weights(value)
    lengths = np.diff(profile.stack_offsets)
    count = len(profile.frames)
    used = weights > 0
    leaves = used & (lengths > 0)
    own: Floats = np.bincount(
        profile.stack_frames[profile.stack_offsets[1:][leaves] - 1], weights[leaves], count
    ).astype(np.float64, copy=False)
    inside = np.repeat(used, lengths)
    owners = np.repeat(np.arange(profile.stack_count), lengths)[inside]
    frames = profile.stack_frames[inside]
    # By frame, stacks in their order: a frame's second place in a stack follows its first. Small
    # integers are sorted by radix, in linear time.
    small = frames.astype(np.uint16) if count <= 1 << 16 else frames
    order = np.argsort(small, kind="stable")
    frames, owners = frames[order], owners[order]
    once = np.ones(len(frames), dtype=bool)
    once[1:] = (frames[1:] != frames[:-1]) | (owners[1:] != owners[:-1])
    total: Floats = np.bincount(frames[once], weights[owners[once]], count).astype(
        np.float64, copy=False
    )
    return own, total
