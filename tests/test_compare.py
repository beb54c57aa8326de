"""Comparison of two and more profiles, conditions of the gate, and `ragprof compare`."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import ragprof
from ragprof.cli import FAILED, GATE, OK, TOO_LITTLE_DATA, main
from ragprof.profiles import gate
from ragprof.profiles.compare import compare
from ragprof.profiles.model import Frame, Profile, ProfileBuilder, ProfileError, ValueType

STACKS = st.lists(
    st.tuples(st.lists(st.sampled_from("abcde"), max_size=6), st.integers(0, 1000)), max_size=30
)
NASTY = "</script><b>x"


def make(stacks: list[tuple[list[str], float]], *, name: str = "") -> Profile:
    builder = ProfileBuilder(name=name)
    for path, weight in stacks:
        builder.sample(builder.stack([builder.frame(Frame(frame)) for frame in path]), weight)
    return builder.build()


def test_a_profile_against_itself_has_no_difference() -> None:
    profile = make([(["a", "b"], 3), (["a"], 1), (["a", "b"], 2)])
    for normalize in (False, True):
        comparison = compare(profile, profile, normalize=normalize)
        assert comparison.empty()
        assert not len(comparison.changed())
        assert (comparison.functions()["self_difference"] == 0).all()


@given(STACKS, STACKS, STACKS)
@settings(max_examples=50, deadline=None)
def test_differences_and_values_sum_to_the_totals(
    left: list[tuple[list[str], int]],
    middle: list[tuple[list[str], int]],
    right: list[tuple[list[str], int]],
) -> None:
    profiles = [make(stacks) for stacks in (left, middle, right)]
    comparison = compare(*profiles)
    for at, profile in enumerate(profiles):
        assert comparison.stacks.total(at) == pytest.approx(profile.total())
    change = profiles[2].total() - profiles[0].total()
    assert comparison.difference().sum() == pytest.approx(change)
    assert comparison.changed()["difference"].sum() == pytest.approx(change, abs=1e-6)
    stacks = {comparison.stacks.stack(at) for at in range(comparison.stacks.stack_count)}
    assert len(stacks) == comparison.stacks.stack_count  # identical stacks are one


def test_comparison_keeps_one_sided_stacks_and_can_normalise() -> None:
    after, before = make([(["a"], 30), (["new"], 10)]), make([(["a"], 300), (["old"], 100)])
    changed = ragprof.compare(before, after, normalize=True).changed()
    differences = changed.set_index("stack")["difference"].to_dict()
    assert differences == pytest.approx({("new",): 0.25, ("old",): -0.25})
    assert compare(before, after).changed()["difference"].iloc[0] == -270
    other = ProfileBuilder([ValueType("alloc", "bytes")]).build()
    with pytest.raises(ProfileError, match="cannot be compared"):
        compare(after, other)


def test_three_profiles_have_a_column_each() -> None:
    runs = [make([(["f"], weight), (["g"], 5)], name=f"v{weight}") for weight in (10, 20, 40)]
    table = compare(*runs).functions().set_index("function")
    assert table.loc["f", ["self_v10", "self_v20", "self_v40", "self_difference"]].tolist() == [
        10, 20, 40, 30,
    ]  # fmt: skip
    assert table.loc["g", "self_difference"] == 0
    same = compare(runs[0], runs[0], runs[0])
    assert len(set(same.names)) == 3


def test_a_comparison_shows_itself_and_escapes_names() -> None:
    comparison = compare(make([([NASTY], 10)]), make([([NASTY], 30)]))
    bundle = comparison._repr_mimebundle_()
    assert set(bundle) == {"text/html", "image/svg+xml", "text/plain"}
    assert NASTY not in bundle["text/html"]
    assert 'sandbox="allow-scripts"' in bundle["text/html"]
    assert bundle["text/plain"].splitlines()[2].split() == [
        "10", "ns", "30", "ns", "+20", "ns", "+20", "ns", NASTY,
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "metric", "limit", "relative"),
    [
        ("self(rerank)>+10%", "self", 0.1, True),
        ("p95( GET /answer ) > 2.5 %", "p95", 0.025, True),
        ("total(a|b)>+5ms", "total", 5e6, False),
        ("mean(x)>300", "mean", 300, False),
        ("p99.9(x)>1s", "p99.9", 1e9, False),
    ],
)
def test_conditions_are_read(text: str, metric: str, limit: float, relative: bool) -> None:
    asked = gate.condition(text)
    assert (asked.metric, asked.relative) == (metric, relative)
    assert asked.limit == pytest.approx(limit)


@pytest.mark.parametrize(
    "text", ["", "self(rerank)", "self()>1%", "self(x)<1%", "own(x)>1%", "self(()>1%", "p95(x)>-1%"]
)
def test_what_is_no_condition_is_refused(text: str) -> None:
    with pytest.raises(gate.ConditionError):
        gate.condition(text)


def test_self_and_total_count_recursion_once() -> None:
    profile = make([(["f", "g", "f"], 5), (["g"], 2), (["f", "h"], 1)])
    own = gate.matching(profile, gate.condition("self(f)>1%"))
    total = gate.matching(profile, gate.condition("total(f|h)>1%"))
    assert own.tolist() == [5, 0, 0]
    assert total.tolist() == [5, 0, 1]


def test_the_gate_fails_on_a_clear_rise_and_not_on_noise() -> None:
    random = np.random.default_rng(5)
    base = random.gamma(4, 25, 200)
    for text in ("self(x)>+10%", "p90(x)>+10%", "mean(x)>+10"):
        asked = gate.condition(text)
        worse = gate.judge(asked, base, random.gamma(4, 25, 200) * 1.6)
        assert worse.outcome == "failed"
        assert worse.low > asked.limit
        assert gate.judge(asked, base, random.gamma(4, 25, 200)).outcome == "passed"
        assert gate.judge(asked, base, base * 0.5).outcome == "passed"


def test_false_alarms_are_rare_also_with_few_repeats() -> None:
    random = np.random.default_rng(11)
    asked = gate.condition("self(x)>+0%")
    verdicts = [
        gate.judge(asked, random.gamma(20, 5, 5), random.gamma(20, 5, 5), least=gate.LEAST_REPEATS)
        for _ in range(300)
    ]
    failed = sum(verdict.outcome == "failed" for verdict in verdicts)
    assert failed <= 0.06 * len(verdicts)  # 2.5 % by construction


def test_too_little_data_is_neither_passed_nor_failed() -> None:
    few, many = np.full(19, 1.0), np.full(500, 9.0)
    verdict = gate.judge(gate.condition("self(x)>+1%"), few, many)
    assert verdict.outcome == "too little data"
    assert "19 and 500 of at least 20" in verdict.reason
    assert gate.judge(gate.condition("p95(x)>1%"), many[:59], many).outcome == "too little data"
    assert gate.judge(gate.condition("p95(x)>1%"), many[:60], many).outcome == "passed"
    assert gate.judge(gate.condition("p99(x)>1%"), many[:299], many).outcome == "too little data"
    empty = gate.judge(gate.condition("self(x)>1%"), np.zeros(0), many)
    assert empty.outcome == "too little data"
    assert math.isnan(empty.before)


def test_from_nothing_to_something_is_growth_beyond_every_limit() -> None:
    nothing, something = np.zeros(30), np.full(30, 2.0)
    assert gate.judge(gate.condition("self(x)>500%"), nothing, something).outcome == "failed"
    assert gate.judge(gate.condition("self(x)>+10%"), nothing, nothing).outcome == "passed"


def write(path: Path, scale: float, seed: int) -> Path:
    """A collapsed file of one repeat."""
    random = np.random.default_rng(seed)
    rows = [
        f"main;answer;rerank {round(1000 * scale * random.normal(1, 0.02))}",
        f"main;answer;search {round(500 * random.normal(1, 0.02))}",
    ]
    path.write_text("\n".join(rows) + "\n", encoding="utf-8")
    return path


@pytest.fixture
def repeats(tmp_path: Path) -> tuple[Path, Path]:
    folders = []
    for name, scale in (("before", 1.0), ("after", 1.5)):
        folder = tmp_path / name
        folder.mkdir()
        for run in range(6):
            write(folder / f"run{run}.txt", scale, run + int(scale * 100))
        folders.append(folder)
    return folders[0], folders[1]


def test_the_command_compares_repeats_and_gates(
    repeats: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    before, after = (str(path) for path in repeats)
    assert main(["compare", before, after]) == OK
    assert "rerank" in capsys.readouterr().out.splitlines()[2]
    assert main(["compare", before, after, "--fail-if", "self(rerank)>+10%"]) == GATE
    assert "failed" in capsys.readouterr().out
    assert main(["compare", before, after, "--fail-if", "self(rerank)>+90%"]) == OK
    assert main(["compare", before, after, "--fail-if", "self(search)>+10%", "--json"]) == OK
    printed = capsys.readouterr().out.splitlines()[-1]
    result = json.loads(printed)
    assert result["gate"][0]["outcome"] == "passed"
    assert result["functions"][0]["function"] == "rerank"
    assert result["functions"][0]["self_difference"] == pytest.approx(500, rel=0.1)


def test_one_file_a_side_is_too_little_and_typos_are_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before, after = (str(write(tmp_path / f"{at}.txt", 1 + at, at)) for at in range(2))
    gated = ["compare", before, after, "--fail-if"]
    assert main([*gated, "self(rerank)>+10%"]) == TOO_LITTLE_DATA
    assert main([*gated, "self(rerrank)>+10%"]) == FAILED
    assert "no function of" in capsys.readouterr().err
    assert main([*gated, "p95(answer)>+10%"]) == FAILED
    assert "is no Recording" in capsys.readouterr().err
    assert main(["compare", before]) == FAILED
    assert main(["compare", before, after, "--out", str(tmp_path / "x.svg")]) == OK
    assert (tmp_path / "x.svg").read_text(encoding="utf-8").startswith("<svg")
    assert main(["compare", before, after, before, "--out", str(tmp_path / "x.png")]) == FAILED


def test_requests_of_a_profile_file_are_its_trace_ids(tmp_path: Path) -> None:
    paths = []
    for name, scale in (("a", 1.0), ("b", 3.0)):
        builder = ProfileBuilder(name=name)
        stack = builder.stack([builder.frame(Frame("app:rerank"))])
        for request in range(25):
            builder.sample(stack, 1e7 * scale, labels={"trace_id": f"{request:032x}"})
        paths.append(tmp_path / f"{name}.pb.gz")
        builder.build().write(paths[-1])
    command = ["compare", *map(str, paths), "--fail-if"]
    assert main([*command, "self(rerank)>+150%"]) == GATE
    assert main([*command, "self(rerank)>+250%"]) == OK
