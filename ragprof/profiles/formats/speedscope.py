"""speedscope's JSON, https://www.speedscope.app/file-format-schema.json.

It carries functions with file and line, and weights in the order of the samples. Threads, tasks,
labels, and the time of each sample are not in it.
"""

from __future__ import annotations

import json
from typing import Any

from ragprof.profiles.model import Frame, Profile, ProfileBuilder, ProfileError, ValueType

SCHEMA = "https://www.speedscope.app/file-format-schema.json"
_UNITS = {"nanoseconds", "microseconds", "milliseconds", "seconds", "bytes"}


def dumps(profile: Profile) -> str:
    """The profile as speedscope JSON: one sampled profile per value type."""
    frames: list[dict[str, Any]] = []
    for frame in profile.frames:
        entry: dict[str, Any] = {"name": frame.function}
        if frame.file:
            entry["file"] = frame.file
        if frame.line:
            entry["line"] = frame.line
        frames.append(entry)
    stacks = [
        profile.stack_frames[low:high].tolist()
        for low, high in zip(profile.stack_offsets[:-1], profile.stack_offsets[1:], strict=True)
    ]
    samples = [stacks[stack] for stack in profile.sample_stacks.tolist()]
    profiles = [
        {
            "type": "sampled",
            "name": f"{profile.name} {kind.type}".strip(),
            "unit": kind.unit if kind.unit in _UNITS else "none",
            "startValue": 0,
            "endValue": profile.total(index),
            "samples": samples,
            "weights": profile.values[:, index].tolist(),
        }
        for index, kind in enumerate(profile.value_types)
    ]
    document = {
        "$schema": SCHEMA,
        "exporter": "ragprof",
        "name": profile.name,
        "activeProfileIndex": 0,
        "shared": {"frames": frames},
        "profiles": profiles,
    }
    return json.dumps(document, ensure_ascii=False, separators=(",", ":"), allow_nan=False)


def loads(text: str) -> list[Profile]:
    """The profiles of a speedscope file, sampled and evented, in their order.

    Raises `ProfileError` naming the field that is missing or wrong.
    """
    try:
        document = json.loads(text)
        frames = [
            Frame(str(frame["name"]), "", str(frame.get("file") or ""), int(frame.get("line") or 0))
            for frame in document["shared"]["frames"]
        ]
        profiles = list(document["profiles"])
    except (ValueError, RecursionError) as error:
        raise ProfileError(f"this is not speedscope JSON: {error}.") from error
    except (KeyError, TypeError, AttributeError) as error:
        raise ProfileError(
            "speedscope JSON has profiles, and shared.frames with names; "
            f"{error} is missing or wrong."
        ) from error
    return [_read(profile, index, frames) for index, profile in enumerate(profiles)]


def _read(profile: Any, index: int, frames: list[Frame]) -> Profile:
    where = f"profiles[{index}]"
    readers = {"sampled": _sampled, "evented": _evented}
    try:
        unit = str(profile["unit"])
        reader = readers[profile["type"]]
        kind = ValueType("wall", unit) if unit.endswith("seconds") else ValueType("space", unit)
        if unit == "none":
            kind = ValueType("samples", "count")
        builder = ProfileBuilder([kind], name=str(profile.get("name") or ""))
        ids = [builder.frame(frame) for frame in frames]  # equal frames share one id
        reader(profile, where, ids, builder)
    except (KeyError, TypeError, IndexError, AttributeError) as error:
        raise ProfileError(f"{where} lacks a field or has a wrong one: {error!r}.") from error
    try:
        return builder.build()
    except ProfileError as error:
        raise ProfileError(f"{where}: {error}") from error


def _sampled(profile: dict[str, Any], where: str, ids: list[int], builder: ProfileBuilder) -> None:
    samples, weights = profile["samples"], profile["weights"]
    if len(samples) != len(weights):
        raise ProfileError(f"{where} has {len(samples)} samples and {len(weights)} weights.")
    for sample, weight in zip(samples, weights, strict=True):
        if any(frame < 0 for frame in sample):
            raise ProfileError(f"{where}.samples names a frame below 0.")
        builder.sample(builder.stack([ids[frame] for frame in sample]), float(weight))


def _evented(profile: dict[str, Any], where: str, ids: list[int], builder: ProfileBuilder) -> None:
    """The stack between two events weighs the time between them."""
    stack: list[int] = []
    last = float(profile["startValue"])
    for number, event in enumerate(profile["events"]):
        at, frame = float(event["at"]), ids[event["frame"]]
        if at < last:
            raise ProfileError(f"{where}.events[{number}] at {at} comes before the last, {last}.")
        if at > last:
            builder.sample(builder.stack(stack), at - last)
            last = at
        if event["type"] == "O":
            stack.append(frame)
        elif event["type"] == "C" and stack and stack[-1] == frame:
            stack.pop()
        else:
            raise ProfileError(
                f"{where}.events[{number}] closes a frame that is not the innermost open one."
            )
    end = float(profile["endValue"])
    if end > last:
        builder.sample(builder.stack(stack), end - last)
