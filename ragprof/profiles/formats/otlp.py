"""OTLP profiles, https://github.com/open-telemetry/opentelemetry-proto (profiles, in alpha).

The message ProfilesData as a file. It carries several value types, functions with file and first
line, the line that ran, UTC times, links to spans, and labels as attributes. Weights are whole
numbers. Samples with the same stack, link and attributes are one, with a time and a value each.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ragprof.profiles import places, quantities
from ragprof.profiles.content import Content
from ragprof.profiles.model import (
    MOST_STACK_FRAMES,
    NO_TIME,
    Frame,
    Profile,
    ProfileBuilder,
    ProfileError,
    ValueType,
)

TITLE = "OTLP profiles"
LOOKS_FOR = "a protocol buffer of resource profiles and a dictionary"
SUFFIXES = (".otlp", ".otlp.pb")
CARRIES = frozenset({"values", "files", "lines", "times", "threads", "tasks", "labels"})
ALPHA = True

_RESOURCES, _DICTIONARY = 0x0A, 0x12  # the tags of ProfilesData
_NESTED = (0x0A, 0x12, 0x1A)  # the tags of a message in ResourceProfiles and in the dictionary
_NAMES = {"thread.name": "thread_name", "process.pid": "process", "service.name": "service"}
_KEYS = {label: key for key, label in _NAMES.items()}
_THREAD, _TASK = "thread.id", "task.id"
_SPAN = ("trace_id", "span_id")


def recognises(content: Content) -> bool:
    """The first field is resource profiles or a dictionary: a message of messages."""
    data = content.data[:16]
    if len(data) < 4 or data[0] not in (_RESOURCES, _DICTIONARY):
        return False
    at = 1
    while at < len(data) - 2 and data[at] & 0x80:
        at += 1
    if data[0] == _RESOURCES:
        return data[at + 1] in _NESTED
    return data[at + 1] == _RESOURCES and data[at + 2] == 0  # the mapping that stands for none


def _messages() -> Any:
    from opentelemetry.proto.profiles.v1development import profiles_pb2

    if "stack_table" not in profiles_pb2.ProfilesDictionary.DESCRIPTOR.fields_by_name:
        raise ProfileError(
            "the installed opentelemetry-proto has an older form of OTLP profiles: install a "
            "newer one."
        )
    return profiles_pb2


def read(content: Content) -> list[Profile]:
    """The profiles, those over the same samples as one with several value types.

    Raises `ProfileError` naming the table at fault.
    """
    from google.protobuf.message import DecodeError

    data = _messages().ProfilesData()
    try:
        data.ParseFromString(content.data)
    except DecodeError as error:
        raise ProfileError(f"the bytes are cut short or damaged: {error}.") from error
    tables = _Tables(data.dictionary)
    profiles: list[Profile] = []
    for resource in data.resource_profiles:
        labels = tables.plain(resource.resource.attributes)
        for scope in resource.scope_profiles:
            groups: list[list[Any]] = []
            for one in scope.profiles:
                if groups and _same_samples(groups[-1][0], one):
                    groups[-1].append(one)
                else:
                    groups.append([one])
            profiles += [tables.profile(group, labels) for group in groups]
    return profiles


def _same_samples(one: Any, other: Any) -> bool:
    if len(one.samples) != len(other.samples):
        return False
    return all(
        mine.stack_index == yours.stack_index
        and mine.link_index == yours.link_index
        and len(mine.values) == len(yours.values)
        and mine.attribute_indices == yours.attribute_indices
        and mine.timestamps_unix_nano == yours.timestamps_unix_nano
        for mine, yours in zip(one.samples, other.samples, strict=True)
    )


class _Tables:
    """The dictionary of a file."""

    def __init__(self, dictionary: Any) -> None:
        self._dictionary = dictionary
        self._strings = list(dictionary.string_table)

    def text(self, index: int, whose: str) -> str:
        """A text of the string table."""
        if not 0 <= index < max(1, len(self._strings)):
            raise ProfileError(f"{whose} is outside string_table.")
        return self._strings[index] if self._strings else ""

    def row(self, table: str, index: int) -> Any:
        """A row of a table of the dictionary."""
        rows = getattr(self._dictionary, table)
        if not 0 <= index < len(rows):
            raise ProfileError(f"row {index} of {table} is missing: it has {len(rows)}.")
        return rows[index]

    def plain(self, attributes: Any) -> dict[str, str]:
        """Attributes of a resource as labels; their texts may lie in the string table."""
        found = {
            one.key or self.text(one.key_strindex, "key_strindex"): self.value(one.value)
            for one in attributes
        }
        return {_NAMES.get(key, key): text for key, text in found.items() if text}

    def value(self, value: Any) -> str:
        """The value of an attribute as text."""
        kind = value.WhichOneof("value")
        if kind is None:
            return ""
        held = getattr(value, kind)
        if kind == "string_value_strindex":
            return self.text(held, kind)
        if kind == "bytes_value":
            return str(held.hex())
        return str(held).lower() if kind == "bool_value" else str(held)

    def profile(self, group: Sequence[Any], labels: dict[str, str]) -> Profile:
        """Profile messages over the same samples as one Profile."""
        kinds = [
            quantities.in_nanoseconds(
                ValueType(
                    self.text(one.sample_type.type_strindex, "sample_type.type_strindex"),
                    self.text(one.sample_type.unit_strindex, "sample_type.unit_strindex"),
                )
            )
            for one in group
        ]
        builder = ProfileBuilder([kind for kind, _ in kinds])
        stacks: dict[int, int] = {}
        for number, samples in enumerate(zip(*(one.samples for one in group), strict=True)):
            first = samples[0]
            if first.stack_index not in stacks:
                stacks[first.stack_index] = self._stack(builder, first.stack_index)
            about = dict(labels)
            for index in first.attribute_indices:
                attribute = self.row("attribute_table", index)
                key = self.text(attribute.key_strindex, "key_strindex")
                about[_NAMES.get(key, key)] = self.value(attribute.value)
            if first.link_index:
                link = self.row("link_table", first.link_index)
                about |= {"trace_id": link.trace_id.hex(), "span_id": link.span_id.hex()}
            threads = [_number(about.pop(key, "")) for key in (_THREAD, _TASK)]
            times = list(first.timestamps_unix_nano)
            count = max(len(times), len(first.values))
            if first.values and times and len(first.values) != len(times):
                raise ProfileError(
                    f"sample {number} has {len(first.values)} values and {len(times)} times."
                )
            columns = [list(sample.values) or [1] * count for sample in samples]
            for point in range(count):
                values = [column[point] for column in columns]
                if min(values) < 0 or (times and times[point] >= 1 << 62):
                    raise ProfileError(f"sample {number} has a negative value or no such time.")
                builder.sample(
                    stacks[first.stack_index],
                    *(value * factor for value, (_, factor) in zip(values, kinds, strict=True)),
                    time=times[point] if times else None,
                    thread=threads[0] or None,
                    task=threads[1] or None,
                    labels=about,
                )
        return builder.build()

    def _stack(self, builder: ProfileBuilder, index: int) -> int:
        frames, lines = [], []
        for place in self.row("stack_table", index).location_indices:
            location = self.row("location_table", place)
            for line in location.lines:  # the innermost inlined function comes first
                frames.append(builder.frame(self._frame(line.function_index)))
                lines.append(max(0, line.line))
            if not location.lines:
                mapping = self.row("mapping_table", location.mapping_index)
                file = self.text(mapping.filename_strindex, "filename_strindex")
                frames.append(builder.frame(places.frame(f"{location.address:#x}", file)))
                lines.append(0)
            if len(frames) > MOST_STACK_FRAMES:
                raise ProfileError("a stack is deeper than a profile may be.")
        return builder.stack(frames[::-1], lines[::-1])

    def _frame(self, index: int) -> Frame:
        function = self.row("function_table", index)
        name = self.text(function.name_strindex, "name_strindex")
        name = name or self.text(function.system_name_strindex, "system_name_strindex")
        file = self.text(function.filename_strindex, "filename_strindex")
        return places.frame(name, file, max(0, function.start_line))


def _number(text: str) -> int:
    return int(text) if text.isdecimal() and len(text) < 19 else 0


@dataclass
class _Writer:
    """The dictionary while it is written: every row once, by what it says."""

    out: Any

    def __post_init__(self) -> None:
        self._rows: dict[tuple[str, object], int] = {}
        dictionary = self.out.dictionary
        dictionary.string_table.append("")
        for table in ("mapping", "location", "function", "link", "attribute", "stack"):
            getattr(dictionary, f"{table}_table").add()

    def text(self, text: str) -> int:
        """The row of a text."""
        if not text:
            return 0
        known = self._rows.get(("string", text))
        if known is None:
            known = self._rows["string", text] = len(self.out.dictionary.string_table)
            self.out.dictionary.string_table.append(text.encode("utf-8", "replace").decode())
        return known

    def row(self, table: str, key: object) -> tuple[int, Any]:
        """The row of a key, and the message to fill when it is new."""
        known = self._rows.get((table, key))
        if known is not None:
            return known, None
        rows = getattr(self.out.dictionary, f"{table}_table")
        self._rows[table, key] = len(rows)
        return len(rows), rows.add()

    def attribute(self, key: str, value: str | int) -> int:
        """The row of an attribute."""
        index, new = self.row("attribute", (key, value))
        if new is not None:
            new.key_strindex = self.text(key)
            if isinstance(value, int):
                new.value.int_value = value
            else:
                new.value.string_value = value.encode("utf-8", "replace").decode()
        return index

    def location(self, frame: Frame, line: int) -> int:
        """The row of a function and the line that runs in it."""
        function, new = self.row("function", frame)
        if new is not None:
            new.name_strindex = self.text(frame.function)
            new.filename_strindex = self.text(frame.file)
            new.start_line = frame.line
        index, new = self.row("location", (function, line))
        if new is not None:
            new.lines.add(function_index=function, line=line)
        return index


def write(profile: Profile) -> bytes:
    """ProfilesData with a Profile message per value type, over the same samples.

    Raises `ProfileError` for weights beyond 64 bits.
    """
    import hashlib  # takes longer to load than the rest of this module

    if profile.values.max(initial=0) >= 1 << 62:
        raise ProfileError(f"a weight of {profile.values.max():g} does not fit in 64 bits.")
    out = _messages().ProfilesData()
    writer = _Writer(out)
    scope = out.resource_profiles.add().scope_profiles.add()
    scope.scope.name = "ragprof"
    rows = _identities(profile, writer)
    utc = profile.times is not None and profile.clock == "utc"
    times = profile.times.tolist() if profile.times is not None and utc else []
    known = [time for time in times if time != NO_TIME]
    for index, kind in enumerate(profile.value_types):
        values = quantities.whole(profile.values[:, index])[0].astype(np.int64).tolist()
        message = scope.profiles.add()
        message.sample_type.type_strindex = writer.text(kind.type)
        message.sample_type.unit_strindex = writer.text(kind.unit)
        if known:
            message.time_unix_nano = min(known)
            message.duration_nano = max(known) - min(known) + 1
        for (stack, link, attributes, timed), members in rows.items():
            sample = message.samples.add(stack_index=stack, link_index=link)
            sample.attribute_indices.extend(attributes)
            sample.values.extend([values[row] for row in members])
            if timed:
                sample.timestamps_unix_nano.extend([times[row] for row in members])
    for message in scope.profiles:
        digest = hashlib.blake2b(message.SerializeToString(deterministic=True), digest_size=16)
        message.profile_id = digest.digest()
    return bytes(out.SerializeToString(deterministic=True))


def _identities(
    profile: Profile, writer: _Writer
) -> dict[tuple[int, int, tuple[int, ...], bool], list[int]]:
    """The samples by stack, link, attributes and whether they have a time."""
    offsets = profile.stack_offsets.tolist()
    flat, lines = profile.stack_frames.tolist(), profile.stack_lines.tolist()
    stacks = []
    for low, high in itertools.pairwise(offsets):
        path = tuple(
            writer.location(profile.frames[frame], line)
            for frame, line in zip(flat[low:high][::-1], lines[low:high][::-1], strict=True)
        )
        index, new = writer.row("stack", path) if path else (0, None)
        if new is not None:
            new.location_indices.extend(path)
        stacks.append(index)
    texts = {name: label.values() for name, label in profile.labels.items()}
    spans = [texts.pop(name) for name in _SPAN] if _linkable(texts) else []
    numbers = [(_THREAD, profile.threads), (_TASK, profile.tasks)]
    rows: dict[tuple[int, int, tuple[int, ...], bool], list[int]] = {}
    for row, stack in enumerate(profile.sample_stacks.tolist()):
        link = 0
        if spans and (spans[0][row] or spans[1][row]):
            link = _link(writer, spans[0][row], spans[1][row])
        attributes = [
            writer.attribute(_KEYS.get(name, name), values[row])
            for name, values in texts.items()
            if values[row]
        ]
        attributes += [
            writer.attribute(key, int(column[row]))
            for key, column in numbers
            if column is not None and column[row]
        ]
        timed = (
            profile.clock == "utc"
            and profile.times is not None
            and bool(profile.times[row] != NO_TIME)
        )
        rows.setdefault((stacks[stack], link, tuple(attributes), timed), []).append(row)
    return rows


def _linkable(texts: dict[str, list[str]]) -> bool:
    """Whether the labels for trace and span are what a link holds: both, in hex."""
    return all(name in texts for name in _SPAN) and all(
        len(text) in (0, digits) and not set(text) - set("0123456789abcdef")
        for name, digits in zip(_SPAN, (32, 16), strict=True)
        for text in set(texts[name])
    )


def _link(writer: _Writer, trace: str, span: str) -> int:
    index, new = writer.row("link", (trace, span))
    if new is not None:
        new.trace_id, new.span_id = bytes.fromhex(trace), bytes.fromhex(span)
    return index
