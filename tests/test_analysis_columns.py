"""Columns at once against the same said row by row: codes, attributes, templates, many requests."""

from __future__ import annotations

import re

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ragprof.analysis import attributes as attribute_analysis
from ragprof.analysis import log_templates, significance
from ragprof.analysis.columns import attribute, attributes, codes, grouped
from ragprof.tables import ATTRIBUTES

TEXT = st.sampled_from(["a", "b", "", "c", None])
PAIRS = st.lists(
    st.tuples(st.sampled_from(["k", "l", "m"]), st.sampled_from(["1", "2", "x", ""])), max_size=3
)


@given(st.lists(st.lists(TEXT, max_size=6), max_size=4), st.booleans())
@settings(max_examples=100, deadline=None)
def test_codes_number_texts_as_they_appear(chunks, encoded):
    arrays = [pa.array(chunk, pa.string()) for chunk in chunks]
    if encoded:  # with values that no row has, in another order, some of them twice
        values = ["z", "c", "", "a", "b", "a"]
        place = {"a": 5, "b": 4, "": 2, "c": 1, None: None}
        arrays = [
            pa.DictionaryArray.from_arrays(
                pa.array([3 if n % 2 and v == "a" else place[v] for n, v in enumerate(chunk)],
                         pa.int32()),
                values,
            )
            for chunk in chunks
        ]  # fmt: skip
    type_ = pa.dictionary(pa.int32(), pa.string()) if encoded else pa.string()
    numbers, values = codes(pa.chunked_array(arrays, type_))
    rows = [text or "" for chunk in chunks for text in chunk]
    assert [values[number] for number in numbers] == rows
    assert values == list(dict.fromkeys(rows))


@given(st.lists(st.lists(PAIRS, max_size=5), min_size=1, max_size=4), st.integers(0, 2))
@settings(max_examples=100, deadline=None)
def test_the_first_attribute_that_a_row_has(chunks, cut):
    column = pa.chunked_array([pa.array(chunk, ATTRIBUTES) for chunk in chunks], ATTRIBUTES)
    column = column.slice(cut)
    rows = [dict(pairs) for pairs in [pairs for chunk in chunks for pairs in chunk][cut:]]
    expected = [row.get("l", row.get("k", "")) for row in rows]
    assert attribute(column, "l", "k").tolist() == expected
    assert attribute(attributes(column), "n").tolist() == [""] * len(rows)


def test_attributes_of_requests_are_those_of_a_pivot_table():
    draw = np.random.default_rng(5)
    keys = {
        "tokens": lambda: str(draw.integers(1, 9)),
        "ratio": lambda: f"{draw.random():.3f}",
        "model": lambda: f"m{draw.integers(3)}",
        "http.status_code": lambda: str(draw.choice([200, 500])),  # names something
        "net.peer.port": lambda: str(draw.integers(2**15, 2**16)),
        "id": lambda: f"{draw.integers(2**40):x}z",
        "mixed": lambda: str(draw.choice(["1", "two"])),
        "query.text": lambda: "why",
    }
    rows = [
        {key: value() for key, value in keys.items() if draw.random() < 0.7} for _ in range(400)
    ]
    request, name = draw.integers(-1, 40, 400), draw.integers(0, 2, 400)
    names = ["ask", "embed"]
    numeric, categorical = attribute_analysis.per_request(
        attributes(pa.chunked_array([pa.array([list(row.items()) for row in rows], ATTRIBUTES)])),
        request, name, names,
    )  # fmt: skip
    table = pd.DataFrame(
        [(request[n], names[name[n]], key, value)
         for n, row in enumerate(rows) if request[n] >= 0 for key, value in row.items()],
        columns=["request", "span", "key", "value"],
    )  # fmt: skip

    def pivot(wanted, how):
        chosen = table[table["key"].isin(wanted)]
        return chosen.pivot_table(
            index="request", columns=["span", "key"], values="value", aggfunc=how
        )

    expected = pivot(["model", "mixed", "http.status_code"], "first")
    pd.testing.assert_frame_equal(categorical, expected, check_dtype=False)
    table["value"] = pd.to_numeric(table["value"], errors="coerce")
    pd.testing.assert_frame_equal(numeric, pivot(["tokens", "ratio"], "mean"))


MASKS = (
    (re.compile(r"\b[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\b", re.I), "<id>"),
    (re.compile(r"\b(?=[0-9a-f]*\d)[0-9a-f]{8,}\b", re.I), "<id>"),
    (re.compile(r"(['\"]).*?\1"), "<text>"),
    (re.compile(r"[-+]?\d+(?:\.\d+)?(?:e[-+]?\d+)?", re.I), "<n>"),
)
BODY = st.lists(
    st.one_of(
        st.text("0123456789abcdefABxyz-+.'\" \n_", max_size=12),
        st.text("0123456789abcdefA", min_size=7, max_size=20),
        st.uuids().map(str),
    ),
    max_size=5,
)


@given(BODY, st.sampled_from(["", " ", "_"]))
@settings(max_examples=300, deadline=None)
def test_templates_mask_what_the_rules_say(parts, between):
    body = between.join(parts)
    expected = body
    for pattern, mask in MASKS:
        expected = pattern.sub(mask, expected)
    assert log_templates.template(body) == expected[: log_templates.LONGEST]


@pytest.mark.parametrize("largest", [0, 7, 2**15, 2**16, 2**40])
def test_grouped_is_a_stable_order(largest):
    numbers = np.random.default_rng(3).integers(0, largest + 1, 5000)
    assert (grouped(numbers) == np.argsort(numbers, kind="stable")).all()


@pytest.mark.parametrize("shift", [0.0, 0.03, 0.08])
def test_many_single_requests_are_compared_without_drawing(shift):
    draw = np.random.default_rng(8)
    slow = np.arange(2400) % 3 == 0
    values = draw.exponential(1.0, 2400) + shift * slow
    at_once = significance.difference_p_values(values, slow, np.arange(2400))[1][0]
    assert at_once == pytest.approx(_drawn(values, slow, 1000), abs=0.05)


def _drawn(values, slow, rounds):
    draw = np.random.default_rng(1)
    observed = values[slow].mean() - values[~slow].mean()
    count, total, number = slow.sum(), values.sum(), len(values)
    reached = 0
    for _ in range(rounds):
        part = values[draw.permutation(number)[:count]].sum()
        reached += part / count - (total - part) / (number - count) >= observed
    return (reached + 1) / (rounds + 1)
