"""OTLP profiles against opentelemetry-proto's own classes: what we write, and what others write."""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.profiles.v1development import profiles_pb2 as pb

from ragprof.profiles.content import Content
from ragprof.profiles.model import Profile, ProfileError
from ragprof.profiles.read import profiles_of
from ragprof.profiles.write import encoded

sys.path.insert(0, str(Path(__file__).parent / "profiles"))

import same

pytestmark = pytest.mark.filterwarnings("ignore::ragprof.profiles.write.LossWarning")

KEYS = {"thread_name": "thread.name", "process": "process.pid", "service": "service.name"}
NOW = 1_700_000_000_000_000_000


def read(data: pb.ProfilesData) -> list[Profile]:
    return profiles_of(Content(data.SerializeToString()))


def decoded(data: bytes) -> tuple[list[tuple[str, str]], Counter[Any]]:
    """What a file says, by the generated classes alone: value types, and every observation."""
    file = pb.ProfilesData.FromString(data)
    tables = file.dictionary
    texts = tables.string_table
    profiles = [one for r in file.resource_profiles for s in r.scope_profiles for one in s.profiles]
    kinds = [
        (texts[one.sample_type.type_strindex], texts[one.sample_type.unit_strindex])
        for one in profiles
    ]
    seen: Counter[Any] = Counter()
    for samples in zip(*(one.samples for one in profiles), strict=True):
        first = samples[0]
        functions, files, lines = [], [], []
        for place in reversed(tables.stack_table[first.stack_index].location_indices):
            for line in reversed(tables.location_table[place].lines):
                function = tables.function_table[line.function_index]
                functions.append(texts[function.name_strindex])
                files.append((texts[function.filename_strindex], function.start_line))
                lines.append(line.line)
        labels = {}
        for index in first.attribute_indices:
            attribute = tables.attribute_table[index]
            labels[texts[attribute.key_strindex]] = attribute.value
        thread = labels.pop("thread.id", AnyValue()).int_value
        task = labels.pop("task.id", AnyValue()).int_value
        named = {name: value.string_value for name, value in labels.items()}
        link = tables.link_table[first.link_index]
        if first.link_index:
            ids = {"trace_id": link.trace_id.hex(), "span_id": link.span_id.hex()}
            named |= {name: text for name, text in ids.items() if text}
        for point in range(len(first.values)):
            time = first.timestamps_unix_nano[point] if first.timestamps_unix_nano else None
            values = tuple(float(sample.values[point]) for sample in samples)
            what = (tuple(functions), tuple(files), tuple(lines), time, thread, task)
            seen[(*what, tuple(sorted(named.items())), values)] += 1
    return kinds, seen


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow])
@given(same.profiles())
def test_the_generated_classes_read_what_we_write(profile: Profile) -> None:
    kinds, seen = decoded(encoded(profile, "otlp", alpha=True))
    expected: Counter[Any] = Counter()
    for (functions, files, lines, time, thread, task, labels, values), count in same.rows(
        profile
    ).items():
        utc = time[1] if time and time[0] == "utc" else None
        named = tuple(sorted((KEYS.get(name, name), text) for name, text in labels))
        expected[(functions, files, lines, utc, thread, task, named, values)] += count
    assert seen == expected
    assert not seen or kinds == [tuple(kind) for kind in profile.value_types]


@settings(deadline=None, max_examples=30, suppress_health_check=[HealthCheck.too_slow])
@given(same.profiles())
def test_our_files_keep_the_rules_of_the_format(profile: Profile) -> None:
    file = pb.ProfilesData.FromString(encoded(profile, "otlp", alpha=True))
    tables = file.dictionary
    assert tables.string_table[0] == ""
    assert len(set(tables.string_table)) == len(tables.string_table)
    for name in ("mapping", "location", "function", "link", "attribute", "stack"):
        rows = getattr(tables, f"{name}_table")
        assert rows[0] == type(rows[0])(), f"{name}_table does not begin with a row of defaults"
        contents = [row.SerializeToString(deterministic=True) for row in rows]
        assert len(set(contents)) == len(contents), f"{name}_table has a row twice"
    for one in file.resource_profiles[0].scope_profiles[0].profiles:
        assert len(one.profile_id) == 16
        identities = []
        for sample in one.samples:
            assert sample.values
            assert len(sample.timestamps_unix_nano) in (0, len(sample.values))
            for time in sample.timestamps_unix_nano:
                assert one.time_unix_nano <= time < one.time_unix_nano + one.duration_nano
            timed = bool(sample.timestamps_unix_nano)
            attributes = frozenset(sample.attribute_indices)
            identities.append((sample.stack_index, attributes, sample.link_index, timed))
        assert len(set(identities)) == len(identities)


def others() -> pb.ProfilesData:
    """A file as another program may write it, with what ours does not use."""
    words = ["", "cpu", "nanoseconds", "main", "inlined", "caller", "app.py", "libc.so", "zone"]
    words += ["service.name", "shop", "thread.id", "samples", "count", "a", "host.name"]
    at = words.index
    return pb.ProfilesData(
        dictionary=pb.ProfilesDictionary(
            string_table=words,
            mapping_table=[pb.Mapping(), pb.Mapping(filename_strindex=at("libc.so"))],
            function_table=[
                pb.Function(),
                pb.Function(name_strindex=at("main"), filename_strindex=at("app.py"), start_line=3),
                pb.Function(name_strindex=at("inlined"), filename_strindex=at("app.py")),
                pb.Function(system_name_strindex=at("caller")),
            ],
            location_table=[
                pb.Location(),
                pb.Location(lines=[pb.Line(function_index=1, line=9)]),
                pb.Location(
                    lines=[pb.Line(function_index=2, line=5), pb.Line(function_index=3, line=6)]
                ),
                pb.Location(mapping_index=1, address=0xBEEF),
            ],
            stack_table=[
                pb.Stack(),
                pb.Stack(location_indices=[2, 1]),
                pb.Stack(location_indices=[3, 1]),
            ],
            link_table=[pb.Link(), pb.Link(trace_id=b"\xab" * 16, span_id=b"\xcd" * 8)],
            attribute_table=[
                pb.KeyValueAndUnit(),
                pb.KeyValueAndUnit(
                    key_strindex=at("zone"), value=AnyValue(string_value_strindex=at("a"))
                ),
                pb.KeyValueAndUnit(key_strindex=at("thread.id"), value=AnyValue(int_value=7)),
            ],
        ),
        resource_profiles=[
            pb.ResourceProfiles(
                resource={
                    "attributes": [
                        KeyValue(
                            key_strindex=at("service.name"),
                            value=AnyValue(string_value_strindex=at("shop")),
                        ),
                        KeyValue(key="host.name", value=AnyValue(string_value="here")),
                    ]
                },
                scope_profiles=[
                    pb.ScopeProfiles(
                        profiles=[
                            pb.Profile(
                                sample_type=pb.ValueType(
                                    type_strindex=at("cpu"), unit_strindex=at("nanoseconds")
                                ),
                                samples=[
                                    pb.Sample(stack_index=1, values=[10], link_index=1),
                                    pb.Sample(
                                        stack_index=2,
                                        values=[2, 3],
                                        timestamps_unix_nano=[NOW, NOW + 5],
                                        attribute_indices=[1, 2],
                                    ),
                                ],
                            ),
                            pb.Profile(
                                sample_type=pb.ValueType(
                                    type_strindex=at("samples"), unit_strindex=at("count")
                                ),
                                samples=[
                                    pb.Sample(stack_index=1, timestamps_unix_nano=[NOW, NOW, NOW])
                                ],
                            ),
                        ]
                    )
                ],
            )
        ],
    )


def test_we_read_what_another_program_may_write() -> None:
    cpu, samples = read(others())
    assert [tuple(kind) for kind in cpu.value_types] == [("cpu", "nanoseconds")]
    assert cpu.values[:, 0].tolist() == [10, 2, 3]
    # The innermost inlined function comes first in the file; a system name is better than none.
    assert [frame.function for frame in cpu.stack(0)] == ["main", "caller", "inlined"]
    assert [(frame.file, frame.line) for frame in cpu.stack(0)] == [
        ("app.py", 3),
        ("", 0),
        ("app.py", 0),
    ]
    assert cpu.stack_lines[:3].tolist() == [9, 6, 5]
    assert [frame.function for frame in cpu.stack(1)] == ["main", "0xbeef"]
    assert cpu.stack(1)[1].file == "libc.so"
    labels = {name: label.values() for name, label in cpu.labels.items()}
    assert labels == {
        "service": ["shop"] * 3,
        "host.name": ["here"] * 3,
        "trace_id": ["ab" * 16, "", ""],
        "span_id": ["cd" * 8, "", ""],
        "zone": ["", "a", "a"],
    }
    assert cpu.threads is not None
    assert cpu.threads.tolist() == [0, 7, 7]
    assert cpu.times is not None
    assert cpu.times[1:].tolist() == [NOW, NOW + 5]
    # Times without values are one each.
    assert samples.values[:, 0].tolist() == [1, 1, 1]
    assert samples.value_types[0].type == "samples"


@pytest.mark.parametrize("table", ["stack", "location", "function", "link", "attribute"])
def test_a_row_that_is_missing_is_named(table: str) -> None:
    data = others()
    del getattr(data.dictionary, f"{table}_table")[1:]
    with pytest.raises(ProfileError, match=f"of {table}_table is missing: it has 1"):
        read(data)
