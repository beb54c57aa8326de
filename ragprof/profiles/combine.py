"""Several profiles as one: the threads of a file, the parts of a recording."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ragprof.profiles.model import Label, Profile, ProfileBuilder, ProfileError

LABEL = "profile"


def by_value_types(profiles: Sequence[Profile]) -> list[list[Profile]]:
    """The profiles that measure the same together, in the order of the first of each."""
    groups: dict[object, list[Profile]] = {}
    for profile in profiles:
        groups.setdefault((profile.value_types, profile.clock), []).append(profile)
    return list(groups.values())


def combined(profiles: Sequence[Profile]) -> Profile:
    """One profile with the samples of all, and the label ``profile`` with the name of each.

    Raises `ProfileError` when their value types or clocks differ.
    """
    if len(profiles) == 1:
        return profiles[0]
    if len(by_value_types(profiles)) != 1:
        raise ProfileError("profiles of different value types or clocks cannot be one profile.")
    builder = ProfileBuilder(
        profiles[0].value_types, name=_common(profiles), clock=profiles[0].clock
    )
    for note in {note: None for profile in profiles for note in profile.notes}:
        builder.note(note)
    for profile in profiles:
        frames = np.array([builder.frame(frame) for frame in profile.frames], dtype=np.int64)
        stacks = builder.stacks(
            frames[profile.stack_frames] if len(frames) else profile.stack_frames,
            profile.stack_lines,
            np.diff(profile.stack_offsets),
        )
        labels = dict(profile.labels)
        labels.setdefault(LABEL, Label(np.zeros(len(profile), dtype=np.int64), (profile.name,)))
        builder.samples(
            stacks[profile.sample_stacks] if len(stacks) else profile.sample_stacks,
            profile.values,
            times=profile.times,
            threads=profile.threads,
            tasks=profile.tasks,
            labels=labels,
        )
    return builder.build()


def _common(profiles: Sequence[Profile]) -> str:
    names = {profile.name for profile in profiles}
    return names.pop() if len(names) == 1 else ""
