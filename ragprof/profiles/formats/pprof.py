"""pprof's protocol buffer, https://github.com/google/pprof/blob/main/proto/profile.proto.

It carries several value types, functions with file and first line, the line that ran, labels and
comments. Time, thread and task of a sample are labels with the names that Datadog's profilers give
them (``end_timestamp_ns``, ``thread id``, ``task id``). Weights are whole numbers.
"""

from __future__ import annotations

import gzip
import itertools

import numpy as np

from ragprof.profiles import pprof_tables, quantities, wire
from ragprof.profiles.content import Content
from ragprof.profiles.model import (
    NO_TIME,
    Clock,
    Floats,
    Ints,
    Profile,
    ProfileBuilder,
    ProfileError,
    ValueType,
)
from ragprof.profiles.pprof_labels import SINCE_START, TIME, Labels
from ragprof.profiles.pprof_tables import (
    FUNCTION,
    LOCATION,
    MAPPING,
    SAMPLE,
    STRING,
    Message,
    Samples,
)

TITLE = "pprof"
LOOKS_FOR = "a protocol buffer of value types, samples, locations and strings, mostly in gzip"
SUFFIXES = (".pb.gz", ".pprof", ".pb", ".prof")
CARRIES = frozenset(
    {"values", "files", "lines", "times", "start_times", "threads", "tasks", "labels", "notes"}
)

# Fields of the message Profile, those of `pprof_tables` besides.
_SAMPLE_TYPE = 1
_TIME_NANOS, _DURATION_NANOS, _COMMENT, _DEFAULT_TYPE = 9, 10, 13, 14
_OF_BYTES = {1, 2, 3, 4, 5, 6, 11, 13}
_OF_NUMBERS = {7, 8, 9, 10, 12, 13, 14, 15}
_NONE: Ints = np.zeros(0, dtype=np.int64)
_FIRST_FIELDS = 40  # looked at to tell the format


def recognises(content: Content) -> bool:
    """The first fields are those of a Profile message."""
    data = content.data
    if data[:1] == b"\x0a" and not _begins_with_value_type(data):
        return False
    at, strings = 0, 0
    for _ in range(_FIRST_FIELDS):
        if at >= len(data):
            break
        tag = data[at]
        number, kind = tag >> 3, tag & 7
        if number not in (_OF_BYTES if kind == wire.BYTES else _OF_NUMBERS):
            return False
        if kind not in (wire.VARINT, wire.BYTES):
            return False
        value, at = _varint(data, at + 1)
        at += value if kind == wire.BYTES else 0
        strings += number in (_SAMPLE_TYPE, SAMPLE, STRING)
    return strings > 0


def _begins_with_value_type(data: bytes) -> bool:
    """Whether field 1 holds numbers, as ValueType does; OTLP has messages there."""
    length, at = _varint(data, 1)
    return length == 0 or data[at : at + 1] in (b"\x08", b"\x10")


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if at >= len(data):
            break
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            break
    return value, at


def read(content: Content) -> list[Profile]:
    """The profile with its value types, the default one (else the last, as pprof has it) first.

    Raises `ProfileError` naming the field or sample at fault. A difference of profiles
    (``pprof -diff_base -proto``) has negative weights and is refused.
    """
    data = content.data
    parts = wire.top_level(data)
    lows, highs = parts.get(STRING, (_NONE, _NONE))
    strings = [
        data[low:high].decode("utf-8", "replace")
        for low, high in zip(lows.tolist(), highs.tolist(), strict=True)
    ]
    message = Message(data, parts, strings)
    kinds = _value_types(message)
    samples = Samples.of(message)
    count = len(samples.places)
    values, lengths = wire.repeated(data, samples.fields.of(2), count)
    wrong = np.flatnonzero(lengths != len(kinds))
    if len(wrong):
        raise ProfileError(
            f"sample {samples.places[wrong[0]]} has {lengths[wrong[0]]} values, and sample_type "
            f"has {len(kinds)}."
        )
    weights = values.reshape(count, len(kinds)).astype(np.float64)
    _refuse_negative(weights, kinds, samples)
    order = _default_first(message, kinds)
    nanoseconds = [quantities.in_nanoseconds(kinds[index]) for index in order]
    labels = Labels.of(data, samples.fields.of(3, wire.BYTES), count, message.text)
    labels = labels.repeated(samples.which)
    clock: Clock = "start" if labels.times is not None and labels.relative else "utc"
    builder = ProfileBuilder([kind for kind, _ in nanoseconds], clock=clock)
    for comment in _comments(message):
        builder.note(comment)
    stacks = pprof_tables.stacks(builder, message, samples)
    weights = weights[:, order] * np.array([factor for _, factor in nanoseconds])
    builder.samples(
        stacks[samples.which],
        weights[samples.which],
        times=labels.times,
        threads=labels.threads,
        tasks=labels.tasks,
        labels=labels.texts,
    )
    return [builder.build()]


def _value_types(message: Message) -> list[ValueType]:
    found, count = message.messages(_SAMPLE_TYPE)
    if not count:
        raise ProfileError("sample_type is missing: the file does not say what it measures.")
    types = wire.last_value(found.of(1, wire.VARINT), count).tolist()
    units = wire.last_value(found.of(2, wire.VARINT), count).tolist()
    return [
        ValueType(
            message.text(kind, f"sample_type[{index}].type"),
            message.text(unit, f"sample_type[{index}].unit"),
        )
        for index, (kind, unit) in enumerate(zip(types, units, strict=True))
    ]


def _default_first(message: Message, kinds: list[ValueType]) -> list[int]:
    default = message.text(message.number(_DEFAULT_TYPE), "default_sample_type")
    names = [kind.type for kind in kinds]
    first = names.index(default) if default in names else len(kinds) - 1
    return [first, *(index for index in range(len(kinds)) if index != first)]


def _refuse_negative(weights: Floats, kinds: list[ValueType], samples: Samples) -> None:
    wrong = np.argwhere(weights < 0)
    if len(wrong):
        row, column = wrong[0].tolist()
        raise ProfileError(
            f"sample {samples.places[row]} has {kinds[column].type} = {weights[row, column]:.0f}: "
            "a difference of profiles is no profile; read both and compare them."
        )


def _comments(message: Message) -> list[str]:
    begins, ends = message.parts.get(_COMMENT, (_NONE, _NONE))
    plain = ends < 0
    indices = begins[plain]
    if not plain.all():
        values, _ = wire.packed(message.data, begins[~plain], ends[~plain])
        indices = np.concatenate([indices, values])
    return [message.text(index, "comment") for index in indices.tolist()]


class _Strings:
    """The string table while it is written."""

    def __init__(self) -> None:
        self._known: dict[str, int] = {"": 0}

    def __call__(self, text: str) -> int:
        return self._known.setdefault(text, len(self._known))

    def fields(self) -> bytes:
        return b"".join(
            wire.bytes_field(STRING, text.encode("utf-8", "replace")) for text in self._known
        )


def write(profile: Profile) -> bytes:
    """Gzip of the Profile message; the first value type is the default one.

    Fractions of a unit are rounded so that the sums stay right to half a unit. Raises
    `ProfileError` for weights beyond 64 bits.
    """
    if profile.values.max(initial=0) >= 1 << 62:
        raise ProfileError(f"a weight of {profile.values.max():g} does not fit in 64 bits.")
    strings = _Strings()
    out = [
        wire.bytes_field(
            _SAMPLE_TYPE,
            wire.number_field(1, strings(kind.type)) + wire.number_field(2, strings(kind.unit)),
        )
        for kind in profile.value_types
    ]
    stacks, tables = _written_stacks(profile, strings)
    values = np.column_stack(
        [quantities.whole(profile.values[:, index])[0] for index in range(len(profile.value_types))]
    ).astype(np.int64)
    texts = _written_labels(profile, strings)
    varints: dict[int, bytes] = {}
    for row, (stack, numbers) in enumerate(
        zip(profile.sample_stacks.tolist(), values.tolist(), strict=True)
    ):
        content = b""
        for number in numbers:
            known = varints.get(number)
            if known is None:
                known = wire.varint(number)
                if len(varints) < 1 << 16:
                    varints[number] = known
            content += known
        body = stacks[stack] + wire.bytes_field(2, content)
        if texts is not None:
            body += texts[row]
        out.append(wire.bytes_field(SAMPLE, body))
    out.append(tables)
    out += [wire.number_field(_COMMENT, strings(note)) for note in profile.notes]
    if profile.times is not None and profile.clock == "utc":
        times = profile.times[profile.times != NO_TIME]
        if len(times):
            out.append(wire.number_field(_TIME_NANOS, int(times.min())))
            out.append(wire.number_field(_DURATION_NANOS, int(times.max() - times.min())))
    out.append(wire.number_field(_DEFAULT_TYPE, strings(profile.value_types[0].type)))
    out.append(strings.fields())
    return gzip.compress(b"".join(out), 6, mtime=0)


def _written_stacks(profile: Profile, strings: _Strings) -> tuple[list[bytes], bytes]:
    """Field 1 of a sample for every stack; the fields for mapping, locations and functions."""
    known_lines, line_codes = np.unique(profile.stack_lines, return_inverse=True)
    pairs = profile.stack_frames * max(1, len(known_lines)) + line_codes.reshape(-1)
    distinct_pairs, first, which = np.unique(pairs, return_index=True, return_inverse=True)
    tables = [wire.bytes_field(MAPPING, wire.number_field(1, 1) + b"\x38\x01\x40\x01\x48\x01")]
    for number, frame in enumerate(profile.frames, 1):
        content = wire.number_field(1, number) + wire.number_field(2, strings(frame.function))
        # Without a system name, which go tool pprof would demangle: it cuts <module> away.
        content += wire.number_field(4, strings(frame.file)) + wire.number_field(5, frame.line)
        tables.append(wire.bytes_field(FUNCTION, content))
    frames, lines = profile.stack_frames[first].tolist(), profile.stack_lines[first].tolist()
    for number, (frame, line) in enumerate(zip(frames, lines, strict=True), 1):
        inner = wire.number_field(1, frame + 1) + wire.number_field(2, line)
        content = wire.number_field(1, number) + wire.number_field(2, 1)
        tables.append(wire.bytes_field(LOCATION, content + wire.bytes_field(4, inner)))
    varints = [wire.varint(number) for number in range(1, len(distinct_pairs) + 1)]
    locations, offsets = which.reshape(-1).tolist(), profile.stack_offsets.tolist()
    stacks = []
    for low, high in itertools.pairwise(offsets):
        content = b"".join([varints[place] for place in reversed(locations[low:high])])
        stacks.append(wire.bytes_field(1, content) if content else b"")
    return stacks, b"".join(tables)


def _written_labels(profile: Profile, strings: _Strings) -> list[bytes] | None:
    """The label fields of every sample."""
    columns: list[list[bytes]] = []
    for name, label in profile.labels.items():
        key = wire.number_field(1, strings(name))
        coded = [
            wire.bytes_field(3, key + wire.number_field(2, strings(text))) if text else b""
            for text in label.vocabulary
        ]
        columns.append([coded[code] for code in label.codes.tolist()])
    nanoseconds = wire.number_field(4, strings("nanoseconds")) if profile.times is not None else b""
    for name, numbers, nothing, unit in (
        (TIME if profile.clock == "utc" else SINCE_START, profile.times, int(NO_TIME), nanoseconds),
        ("thread id", profile.threads, 0, b""),
        ("task id", profile.tasks, 0, b""),
    ):
        if numbers is None:
            continue
        key = wire.number_field(1, strings(name))
        columns.append(
            [
                b"" if number == nothing else wire.bytes_field(3, key + _always(3, number) + unit)
                for number in numbers.tolist()
            ]
        )
    if not columns:
        return None
    return [b"".join(row) for row in zip(*columns, strict=True)]


def _always(number: int, value: int) -> bytes:
    """A number field that is written for 0 too."""
    return wire.varint(number << 3) + wire.varint(value)
