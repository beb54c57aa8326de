"""Hostile profile files: a clear error or a right answer, in bounded memory and time."""

from __future__ import annotations

import gzip
import json
import marshal
import random
import resource
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ragprof.flamegraph import html
from ragprof.profiles import wire
from ragprof.profiles.content import Content
from ragprof.profiles.model import Profile, ProfileError
from ragprof.profiles.read import profiles_of, read_profile
from ragprof.profiles.registry import all_formats
from ragprof.profiles.write import encoded

FILES = sorted((Path(__file__).parent / "profiles" / "files").iterdir())
DEEP = 100_000
GENEROUS_S = 60.0


def read(data: bytes, format: str | None = None, *, trusted: bool = False) -> Profile:
    (profile,) = profiles_of(Content(data), format=format, trusted=trusted)
    return profile


def stacks_of(profile: Profile) -> list[int]:
    """How deep each stack is."""
    return [len(profile.stack(index)) for index in range(profile.stack_count)]


# --- markup -------------------------------------------------------------------------------------


def test_markup_in_names_stays_a_name() -> None:
    name = "</script><script>alert(1)</script>"
    profile = read(f"main;{name} 5\n".encode())
    assert profile.stack(0)[1].function == name
    assert name not in html(profile)
    assert read(encoded(profile, "speedscope")).stack(0)[1].function == name


# --- sizes that are claimed ---------------------------------------------------------------------


@pytest.mark.parametrize("number", [1, 2, 4, 5, 6])
def test_a_claim_of_five_gigabytes_in_pprof_is_an_error(number: int) -> None:
    kinds = wire.bytes_field(1, wire.number_field(1, 1))
    kinds += wire.bytes_field(6, b"") + wire.bytes_field(6, b"wall")
    claim = wire.varint(number << 3 | 2) + wire.varint(5 * 2**30) + b"abc"
    with pytest.raises(ProfileError, match=r"claims to end at byte .* cut short or damaged"):
        read(kinds + claim, "pprof")
    inside = wire.bytes_field(2, wire.varint(1 << 3 | 2) + wire.varint(5 * 2**30) + b"abc")
    with pytest.raises(ProfileError, match="does not fit in its message"):
        read(kinds + inside, "pprof")


def test_numbers_without_an_end_are_errors() -> None:
    kinds = wire.bytes_field(1, wire.number_field(1, 1))
    kinds += wire.bytes_field(6, b"") + wire.bytes_field(6, b"wall")
    for data in (b"\xff" * 40, b"\x12\x05\x10\x07\x0a\x01\x80", b"\x12\x0c\x10" + b"\x80" * 11):
        with pytest.raises(ProfileError, match=r"does not end|ends in the middle|does not fit"):
            read(kinds + data, "pprof")


def test_a_message_of_many_fields_is_read_in_time() -> None:
    frames = 200_000  # not packed, one field each
    location = wire.bytes_field(
        4, wire.number_field(1, 1) + wire.bytes_field(4, wire.number_field(1, 1))
    )
    sample = wire.number_field(1, 1) * frames + wire.number_field(2, 7)
    data = wire.bytes_field(1, wire.number_field(1, 1)) + wire.bytes_field(2, sample) + location
    data += wire.bytes_field(5, wire.number_field(1, 1) + wire.number_field(2, 1))
    data += wire.bytes_field(6, b"") + wire.bytes_field(6, b"f")
    began = time.monotonic()
    profile = read(data)
    assert time.monotonic() - began < GENEROUS_S
    assert stacks_of(profile) == [frames]
    assert profile.total() == 7


def test_a_mojo_number_that_never_ends_is_an_error() -> None:
    with pytest.raises(ProfileError, match="number that is too long"):
        read(b"MOJ\x03\x02" + b"\xff" * 100)


# --- gzip ---------------------------------------------------------------------------------------


def test_gzip_that_is_cut_short_is_an_error() -> None:
    whole = (FILES[0].parent / "go_heap.pb.gz").read_bytes()
    for length in (3, 12, len(whole) // 2, len(whole) - 1):
        with pytest.raises(ProfileError, match="gzip data"):
            read(whole[:length])
    damaged = bytearray(whole)
    damaged[len(whole) // 2] ^= 0xFF
    with pytest.raises(ProfileError):
        read(bytes(damaged))


def test_a_gzip_bomb_is_refused_early_and_in_little_memory() -> None:
    code = """
        import gzip, io, resource, sys
        from ragprof.profiles.content import Content
        from ragprof.profiles.model import ProfileError
        from ragprof.profiles.read import profiles_of
        packed = io.BytesIO()
        with gzip.GzipFile(fileobj=packed, mode="wb", compresslevel=9) as file:
            for _ in range(80):
                file.write(bytes(1 << 20))
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        try:
            profiles_of(Content(packed.getvalue()))
        except ProfileError as error:
            print(error)
        used = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
        print("megabytes", round(used))
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, timeout=240
    )
    assert "as no profile does" in done.stdout, done.stdout + done.stderr
    assert int(done.stdout.split()[-1]) < 400


def test_files_larger_than_allowed_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.folded"
    path.write_text("a;b 1\n" * 100)
    with pytest.raises(ProfileError, match=r"600 bytes or more; at most 100 are read"):
        read_profile(path, max_bytes=100)
    path.write_bytes(gzip.compress(b"a;b 1\n" * 100))
    with pytest.raises(ProfileError, match=r"at most 100 are read"):
        read_profile(path, max_bytes=100)
    assert read_profile(path).total() == 100


# --- depth --------------------------------------------------------------------------------------


def speedscope(**profile: object) -> bytes:
    document = {"shared": {"frames": [{"name": "f"}]}, "profiles": [{"name": "", **profile}]}
    return json.dumps(document).encode()


def deep(format: str) -> bytes:
    """A recursion of 100,000 frames in a format."""
    if format == "collapsed":
        return b";".join([b"f"] * DEEP) + b" 5\n"
    if format == "sampled":
        return speedscope(type="sampled", unit="none", samples=[[0] * DEEP], weights=[5])
    if format == "evented":
        events = [{"type": "O", "frame": 0, "at": 0}] * DEEP
        events += [{"type": "C", "frame": 0, "at": 5}] * DEEP
        return speedscope(type="evented", unit="none", startValue=0, endValue=5, events=events)
    if format == "chrome":
        return json.dumps(
            [{"ph": "B", "name": "f", "ts": 0, "pid": 1, "tid": 1}] * DEEP
            + [{"ph": "E", "name": "f", "ts": 0.005, "pid": 1, "tid": 1}] * DEEP
        ).encode()
    if format == "gecko":
        rows = [[index - 1 if index else None, 0] for index in range(DEEP)]
        thread = {
            "samples": {"schema": {"stack": 0, "time": 1}, "data": [[DEEP - 1, 1.0]]},
            "stackTable": {"schema": {"prefix": 0, "frame": 1}, "data": rows},
            "frameTable": {"schema": {"location": 0}, "data": [[0]]},
            "stringTable": ["f"],
        }
        return json.dumps({"meta": {"interval": 5e-6}, "threads": [thread]}).encode()
    if format == "perf":
        return b"p 1 2.5: 5 cycles: \n" + b"\tff f+0x1 (lib)\n" * DEEP + b"\n"
    if format == "austin":
        return b"# mode: memory\nP1;T1" + b";f.py:f:1" * DEEP + b" 5\n"
    return b"MOJ\x01\x01mode\0memory\0\x02\x01\0\x0b\x02f\0\x03\x02\x02\x02\x01" + (
        b"\x05\x02" * DEEP + b"\x0a\x05"
    )


@pytest.mark.parametrize(
    "format",
    ["collapsed", "sampled", "evented", "chrome", "gecko", "perf", "austin", "mojo"],
)
def test_a_stack_of_a_hundred_thousand_frames_is_read(format: str) -> None:
    began = time.monotonic()
    profile = read(deep(format))
    assert time.monotonic() - began < GENEROUS_S
    assert max(stacks_of(profile)) == DEEP
    assert profile.total() == pytest.approx(5)
    assert profile.functions()["total"].tolist() == [pytest.approx(5)]
    assert read(encoded(profile, "pprof")).total() == pytest.approx(5)


def test_stacks_that_would_fill_the_memory_are_an_error_before_they_do() -> None:
    events = [{"type": "O", "frame": 0, "at": at} for at in range(40_000)]
    with pytest.raises(ProfileError, match=r"800,020,000|799,980,000|frames together"):
        read(speedscope(type="evented", unit="none", startValue=0, endValue=40_000, events=events))


@pytest.mark.parametrize("text", ["[" * 200_000, '{"a":' * 200_000, "[" * 200_000 + "]" * 200_000])
def test_json_that_nests_too_deep_is_an_error(text: str) -> None:
    with pytest.raises(ProfileError, match=r"nests deeper|no profile format"):
        read(text.encode())


def test_pyinstrument_trees_deeper_than_json_may_be_are_an_error() -> None:
    frame = '{"function": "f", "time": 1, "children": ['
    text = '{"sample_count": 1, "root_frame": ' + frame * DEEP + "]}" * DEEP + "}"
    with pytest.raises(ProfileError, match=r"nests|line 1"):
        read(text.encode())


# --- cycles -------------------------------------------------------------------------------------


def test_a_cycle_of_prefixes_is_an_error() -> None:
    thread = {
        "samples": {"schema": {"stack": 0, "time": 1}, "data": [[1, 1.0]]},
        "stackTable": {"schema": {"prefix": 0, "frame": 1}, "data": [[1, 0], [0, 0]]},
        "frameTable": {"schema": {"location": 0}, "data": [[0]]},
        "stringTable": ["f"],
    }
    document = {"meta": {"interval": 1}, "threads": [thread]}
    with pytest.raises(ProfileError, match=r"stackTable.prefix\[0\] is 1, which does not come"):
        read(json.dumps(document).encode())


def statistics(edges: dict[str, dict[str, tuple[float, float]]], own: dict[str, float]) -> bytes:
    """pstats: callee -> caller -> (own, cumulative) seconds."""
    table = {}
    for name, seconds in own.items():
        callers = {
            ("x.py", 1, caller): (1, 1, *times) for caller, times in edges.get(name, {}).items()
        }
        table["x.py", 1, name] = (1, 1, seconds, 10.0, callers)
    return marshal.dumps(table, 4)


def shares(profile: Profile) -> dict[str, float]:
    table = profile.functions()
    return dict(zip(table["function"], table["total"] / 1e9, strict=True))


def test_recursion_in_pstats_neither_hangs_nor_exceeds_the_whole() -> None:
    # main -> a <-> b, and a calls itself.
    edges = {
        "a": {"main": (1.0, 6.0), "b": (1.0, 5.0), "a": (1.0, 5.0)},
        "b": {"a": (2.0, 5.0)},
    }
    profile = read(statistics(edges, {"main": 1.0, "a": 3.0, "b": 2.0}), trusted=True)
    assert profile.total() == pytest.approx(6e9)
    found = shares(profile)
    assert found["main"] == pytest.approx(6)
    assert max(found.values()) <= 6 * (1 + 1e-9)
    own = profile.functions().set_index("function")["self"] / 1e9
    assert own.to_dict() == pytest.approx({"main": 1.0, "a": 3.0, "b": 2.0})


@settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.too_slow])
@given(st.integers(0, 2**32), st.integers(1, 25))
def test_any_call_graph_keeps_every_own_time(seed: int, size: int) -> None:
    source = random.Random(seed)
    names = [f"f{index}" for index in range(size)]
    own = {name: source.choice([0.0, source.random()]) for name in names}
    edges = {
        name: {
            caller: (source.random(), source.random())
            for caller in source.sample(names, source.randint(0, min(4, size)))
        }
        for name in names
    }
    profile = read(statistics(edges, own), trusted=True)
    total = sum(own.values())
    assert profile.total() == pytest.approx(total * 1e9, rel=1e-6, abs=1)
    table = profile.functions()
    assert (table["total"] <= profile.total() * (1 + 1e-6) + 1).all()
    for function, seconds in zip(table["function"], table["self"], strict=True):
        assert seconds == pytest.approx(own[function] * 1e9, rel=1e-6, abs=1)


def test_a_call_graph_with_more_paths_than_atoms_ends_and_keeps_the_total(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from ragprof.profiles.formats import pstats

    monkeypatch.setattr(pstats, "MOST_CALLS", 5_000)
    layers = 60  # each of two functions calls both of the next layer: 2^60 paths
    own = {f"{layer}{side}": 1.0 for layer in range(layers) for side in "ab"}
    edges = {
        f"{layer}{side}": {f"{layer - 1}{caller}": (0.5, 1.0) for caller in "ab"}
        for layer in range(1, layers)
        for side in "ab"
    }
    profile = read(statistics(edges, own), trusted=True)
    assert profile.total() == pytest.approx(2 * layers * 1e9)
    assert any("too light to tell apart" in note for note in profile.notes)


@pytest.mark.parametrize(
    "data",
    [
        b"\xfb\x29\x03",
        marshal.dumps({("f", 1, "x"): 3}, 4),
        marshal.dumps({("f", 1, "x"): (1, 1, float("nan"), 1.0, {})}, 4),
        marshal.dumps({("f", 1, "x"): (1, 1, -5.0, 1.0, {})}, 4),
        marshal.dumps({("f", 1, "x"): (1, 1, 1.0, 1.0, {("f", 1, "x"): "?"})}, 4),
        marshal.dumps([1], 4),
    ],
)
def test_damaged_pstats_is_an_error(data: bytes) -> None:
    with pytest.raises(ProfileError):
        read(data, "pstats", trusted=True)


# --- weights ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "weight", ["-1", "NaN", "Infinity", "1e999", "-0.5", '"3"', "null", "true"]
)
def test_weights_that_cannot_be_are_named(weight: str) -> None:
    text = speedscope(type="sampled", unit="none", samples=[[0], [0]], weights=[1, 77])
    document = text.decode().replace("77", weight)
    with pytest.raises(ProfileError, match=r"profiles\[0\].weights\[1\]"):
        read(document.encode())


def test_weights_whose_sum_is_beyond_all_numbers_are_an_error() -> None:
    with pytest.raises(ProfileError, match="too large for a number"):
        read(b"a;b 1e308\na;c 1e308\na;d 1e308\n")
    with pytest.raises(ProfileError, match="does not fit in 64 bits"):
        encoded(read(b"a;b 1e300\n"), "pprof")


# --- any bytes ----------------------------------------------------------------------------------


@settings(deadline=None, max_examples=150, suppress_health_check=[HealthCheck.too_slow])
@given(st.data())
def test_damaged_files_are_read_or_refused_with_a_sentence(data: st.DataObject) -> None:
    """Every sample file, cut and with bytes changed: nothing but ProfileError comes out."""
    path = data.draw(st.sampled_from(FILES))
    content = bytearray(path.read_bytes()[: 1 << 14])
    if path.suffix == ".gz":
        content = bytearray(gzip.decompress(path.read_bytes()))
    for _ in range(data.draw(st.integers(0, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(content)))
    names = [name for name, one in all_formats().items() if not one.needs_trust]
    format = data.draw(st.sampled_from([None, *names]))
    try:
        profiles = profiles_of(Content(bytes(content[:cut]), path.name), format=format)
    except ProfileError:
        return
    for profile in profiles:
        assert (profile.values >= 0).all()


def test_the_limit_on_memory_holds_for_a_hostile_file() -> None:
    """A deep tree with a sample in each node must fail before it is laid out flat."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    rows = [[index - 1 if index else None, 0] for index in range(20_000)]
    thread = {
        "samples": {
            "schema": {"stack": 0, "time": 1},
            "data": [[index, float(index)] for index in range(20_000)],
        },
        "stackTable": {"schema": {"prefix": 0, "frame": 1}, "data": rows},
        "frameTable": {"schema": {"location": 0}, "data": [[0]]},
        "stringTable": ["f"],
    }
    document = {"meta": {"interval": 1}, "threads": [thread]}
    with pytest.raises(ProfileError, match=r"20,000 stacks have 200,010,000 frames together"):
        read(json.dumps(document).encode())
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024 < 500
