"""speedscope's JSON, https://www.speedscope.app/file-format-schema.json, of every version.

It carries functions with file and line, and weights in the order of the samples. Threads, tasks,
labels, and the time of each sample are not in it. Files by py-spy name the line that ran, those of
other exporters the function's first line.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ragprof.profiles import fields, places, pyspy_names, quantities
from ragprof.profiles.calls import NOBODY, CallTree
from ragprof.profiles.content import Content
from ragprof.profiles.distinct import distinct_stacks, gathered
from ragprof.profiles.model import (
    Floats,
    Frame,
    Ints,
    Label,
    Profile,
    ProfileBuilder,
    ProfileError,
    ValueType,
)

TITLE = "speedscope JSON"
LOOKS_FOR = "a JSON object with profiles and shared.frames"
SUFFIXES = (".speedscope.json", ".speedscope")
CARRIES = frozenset({"values", "files"})

SCHEMA = "https://www.speedscope.app/file-format-schema.json"
EXPORTER = "ragprof"
_UNITS = {"nanoseconds", "microseconds", "milliseconds", "seconds", "bytes"}
_SELF = "[self]"  # of pyinstrument: the time of the caller itself
_OWN = "ragprof"  # the value type in full, which the format has no field for


def recognises(content: Content) -> bool:
    """A JSON object with ``profiles`` and ``shared``."""
    return content.has("profiles", "shared") and "threads" not in content.document


def read(content: Content) -> list[Profile]:
    """The profiles of the file, sampled and evented, in their order.

    Profiles that ragprof wrote over the same samples are one again, with their value types. Raises
    `ProfileError` naming the field that is missing or wrong.
    """
    document = content.document
    if document is None:
        raise ProfileError(content.json_fault or "there is no JSON object.")
    shared = fields.field(document, "shared", dict)
    exporter = fields.text(document, "exporter")
    frames = _frames(fields.field(shared, "frames", list, "shared"), exporter)
    entries = fields.field(document, "profiles", list)
    profiles: list[Profile] = []
    last: Any = None
    for index, entry in enumerate(entries):
        own = isinstance(entry, dict) and isinstance(entry.get(_OWN), dict) and entry[_OWN]
        if own and last is not None and _same(last, entry, own):
            profiles[-1] = _widened(profiles[-1], entry, own, f"profiles[{index}]")
            continue
        profiles.append(_profile(entry, f"profiles[{index}]", frames))
        last = entry if own else None
    return profiles


@dataclass(frozen=True)
class _Frames:
    """Frames of the file; ``ran``: the lines that ran; ``kept``: false where it is no function."""

    frames: list[Frame]
    ran: Ints
    kept: NDArray[np.bool_]


def _frames(entries: list[Any], exporter: str) -> _Frames:
    by_pyspy = exporter.startswith("py-spy")
    by_pyinstrument = exporter.startswith("pyinstrument")
    frames, ran, kept = [], [], []
    for index, entry in enumerate(entries):
        name = fields.field(entry, "name", str, f"shared.frames[{index}]")
        line = max(0, fields.whole(entry, "line"))
        frames.append(places.frame(name, fields.text(entry, "file"), 0 if by_pyspy else line))
        ran.append(line if by_pyspy else 0)
        kept.append(
            not (by_pyspy and pyspy_names.is_origin(name))
            and not (by_pyinstrument and name == _SELF)
        )
    return _Frames(frames, np.array(ran, dtype=np.int64), np.array(kept, dtype=bool))


def _profile(entry: Any, where: str, frames: _Frames) -> Profile:
    readers = {"sampled": _sampled, "evented": _evented}
    kind = fields.field(entry, "type", str, where)
    if kind not in readers:
        raise ProfileError(f"{where}.type is {kind!r}: expected sampled or evented.")
    value_type, factor = quantities.in_nanoseconds(_value_type(entry, where))
    own = entry.get(_OWN)
    name = fields.text(own if isinstance(own, dict) else entry, "name")
    whose = pyspy_names.thread_of(name)
    builder = ProfileBuilder([value_type], name=name)
    ids = np.array([builder.frame(frame) for frame in frames.frames], dtype=np.int64)
    stacks, weights = readers[kind](entry, where, ids, frames, builder)
    if len(weights) and not (np.isfinite(weights) & (weights >= 0)).all():
        index = int(np.flatnonzero(~(np.isfinite(weights) & (weights >= 0)))[0])
        raise ProfileError(
            f"{where}.weights[{index}] is {weights[index]}: weights are finite and not negative."
        )
    nothing = np.zeros(len(stacks), dtype=np.int64)
    builder.samples(
        stacks,
        quantities.scaled(weights, factor),
        threads=np.full(len(stacks), whose.thread) if whose.thread else None,
        labels={label: Label(nothing, (text,)) for label, text in whose.labels().items()},
    )
    return builder.build()


def _value_type(entry: Any, where: str) -> ValueType:
    own = entry.get(_OWN)
    if isinstance(own, dict) and own.get("type"):
        return ValueType(fields.text(own, "type"), fields.text(own, "unit"))
    unit = fields.field(entry, "unit", str, where)
    if unit == "none":
        return quantities.SAMPLES
    return ValueType("wall" if unit.endswith("seconds") else "space", unit)


def _flat(samples: list[Any], where: str) -> tuple[Ints, Ints]:
    """Frame indices of all samples one after the other, and how many each has."""
    try:
        lengths = np.fromiter(map(len, samples), np.int64, len(samples))
        flat = np.fromiter(itertools.chain.from_iterable(samples), np.int64, int(lengths.sum()))
    except (TypeError, ValueError, OverflowError):
        for index, sample in enumerate(samples):
            if not isinstance(sample, list) or any(type(frame) is not int for frame in sample):
                raise ProfileError(
                    f"{where}.samples[{index}] is not a list of frame numbers."
                ) from None
        raise
    return flat, lengths


def _sampled(
    entry: dict[str, Any], where: str, ids: Ints, frames: _Frames, builder: ProfileBuilder
) -> tuple[Ints, Floats]:
    samples = fields.field(entry, "samples", list, where)
    weights = _weights(entry, where)
    if len(samples) != len(weights):
        raise ProfileError(f"{where} has {len(samples)} samples and {len(weights)} weights.")
    flat, lengths = _flat(samples, where)
    wrong = np.flatnonzero((flat < 0) | (flat >= len(ids)))
    if len(wrong):
        sample = int(np.searchsorted(np.cumsum(lengths), wrong[0], side="right"))
        raise ProfileError(
            f"{where}.samples[{sample}] names frame {flat[wrong[0]]}, and shared.frames has "
            f"{len(ids)}."
        )
    first, which = distinct_stacks(flat, lengths)
    rows = gathered((np.cumsum(lengths) - lengths)[first], lengths[first])
    chosen = flat[rows]
    kept = frames.kept[chosen] if len(ids) else np.zeros(0, dtype=bool)
    owners = np.repeat(np.arange(len(first)), lengths[first])
    chosen = chosen[kept]
    stacks = builder.stacks(
        ids[chosen] if len(ids) else chosen,
        frames.ran[chosen] if len(ids) else chosen,
        np.bincount(owners[kept], minlength=len(first)),
    )
    return stacks[which] if len(stacks) else which, weights


def _weights(entry: dict[str, Any], where: str) -> Floats:
    weights = fields.field(entry, "weights", list, where)
    if not {*map(type, weights)} <= {int, float} or any(abs(one) >= 1 << 1000 for one in weights):
        for index, weight in enumerate(weights):
            fields.finite(weight, f"{where}.weights[{index}]")
    return np.fromiter(weights, np.float64, len(weights))


def _evented(
    entry: dict[str, Any], where: str, ids: Ints, frames: _Frames, builder: ProfileBuilder
) -> tuple[Ints, Floats]:
    """The stack between two events weighs the time between them; no stack, no sample."""
    tree = CallTree(builder)
    last = fields.number(entry, "startValue", where)
    node, open_frames, callers = NOBODY, [], []
    nodes: list[int] = []
    weights: list[float] = []
    known = ids.tolist()
    ran, kept = frames.ran.tolist(), frames.kept.tolist()
    for number, event in enumerate(fields.field(entry, "events", list, where)):
        at = fields.number(event, "at", f"{where}.events[{number}]")
        frame = fields.field(event, "frame", int, f"{where}.events[{number}]")
        if not 0 <= frame < len(known):
            raise ProfileError(
                f"{where}.events[{number}] names frame {frame}, and shared.frames has {len(known)}."
            )
        if at < last:
            raise ProfileError(f"{where}.events[{number}] at {at} comes before the last, {last}.")
        if at > last and node != NOBODY:
            nodes.append(node)
            weights.append(at - last)
        last = at
        if event.get("type") == "O":
            callers.append(node)
            open_frames.append(frame)
            if kept[frame]:
                node = tree.call(node, known[frame], ran[frame])
        elif event.get("type") == "C" and open_frames and open_frames[-1] == frame:
            open_frames.pop()
            node = callers.pop()
        else:
            raise ProfileError(
                f"{where}.events[{number}] closes a frame that is not the innermost open one."
            )
    end = entry.get("endValue")
    if isinstance(end, int | float) and end > last and node != NOBODY:
        nodes.append(node)
        weights.append(fields.finite(end, f"{where}.endValue") - last)
    return tree.stacks(nodes), np.array(weights, dtype=np.float64)


def _same(last: Any, entry: Any, own: dict[str, Any]) -> bool:
    """Whether two profiles are two value types of the same samples, as `write` makes them."""
    return bool(own.get("of") == last[_OWN].get("of") and entry.get("samples") == last["samples"])


def _widened(profile: Profile, entry: Any, own: dict[str, Any], where: str) -> Profile:
    """The profile with the weights of this entry as one more value type."""
    weights = _weights(entry, where)
    if len(weights) != len(profile):
        raise ProfileError(f"{where} has {len(profile)} samples and {len(weights)} weights.")
    kind, factor = quantities.in_nanoseconds(_value_type(entry, where))
    builder = ProfileBuilder([*profile.value_types, kind], name=profile.name)
    for frame in profile.frames:
        builder.frame(frame)
    builder.stacks(profile.stack_frames, profile.stack_lines, np.diff(profile.stack_offsets))
    builder.samples(
        profile.sample_stacks,
        np.column_stack([profile.values, quantities.scaled(weights, factor)]),
    )
    return builder.build()


def write(profile: Profile) -> bytes:
    """One sampled profile per value type, all over the same samples."""
    frames: list[dict[str, Any]] = []
    for frame in profile.frames:
        entry: dict[str, Any] = {"name": frame.function}
        if frame.file:
            entry["file"] = frame.file
        if frame.line:
            entry["line"] = frame.line
        frames.append(entry)
    offsets, flat = profile.stack_offsets.tolist(), profile.stack_frames.tolist()
    stacks = [flat[low:high] for low, high in itertools.pairwise(offsets)]
    samples: Sequence[list[int]] = [stacks[stack] for stack in profile.sample_stacks.tolist()]
    profiles = [
        {
            "type": "sampled",
            "name": f"{profile.name} {kind.type}".strip(),
            "unit": kind.unit if kind.unit in _UNITS else "none",
            "startValue": 0,
            "endValue": profile.total(index),
            "samples": samples,
            "weights": [_number(weight) for weight in profile.values[:, index].tolist()],
            _OWN: {"name": profile.name, "type": kind.type, "unit": kind.unit, "of": 0},
        }
        for index, kind in enumerate(profile.value_types)
    ]
    document = {
        "$schema": SCHEMA,
        "exporter": EXPORTER,
        "name": profile.name,
        "activeProfileIndex": 0,
        "shared": {"frames": frames},
        "profiles": profiles,
    }
    text = json.dumps(document, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return text.encode("utf-8", "replace")


def _number(weight: float) -> float | int:
    return int(weight) if weight.is_integer() else weight
