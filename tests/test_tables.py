"""The schemas say everything about their columns, and join keys join."""

from __future__ import annotations

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ragprof.compaction import SORT_COLUMN
from ragprof.rows import KEYS, REQUIRED, conform
from ragprof.tables import NS, SCHEMAS, TIME_COLUMN, join_key, join_keys

ids = st.text("0123456789abcdef", max_size=32)


@pytest.mark.parametrize("table", SCHEMAS)
def test_every_column_says_what_it_means(table: str) -> None:
    for field in SCHEMAS[table]:
        assert field.metadata[b"meaning"]
        if field.type == NS:
            assert b"ns since 1970" in field.metadata[b"unit"] or field.name == "end"
        if field.name.endswith("_ns"):
            assert field.metadata[b"unit"] == b"ns"


def test_columns_that_others_rely_on_exist() -> None:
    for columns in (TIME_COLUMN, SORT_COLUMN):
        for table, column in columns.items():
            assert column in SCHEMAS[table].names
    for table, names in REQUIRED.items():
        assert set(names) <= set(SCHEMAS[table].names)
    assert set(REQUIRED) == set(SORT_COLUMN) == set(SCHEMAS)


@pytest.mark.parametrize("table", SCHEMAS)
def test_no_rows_conform(table: str) -> None:
    assert conform(table, []).schema.equals(SCHEMAS[table])
    assert conform(table, SCHEMAS[table].empty_table()).num_rows == 0


@given(st.lists(st.tuples(ids, ids), max_size=20))
def test_join_keys_are_those_of_each_row(pairs: list[tuple[str, str]]) -> None:
    keys = join_keys([a for a, _ in pairs], [b for _, b in pairs])
    assert keys.type == pa.int64()
    assert keys.to_pylist() == [join_key(a, b) for a, b in pairs]
    for (a, b), key in zip(pairs, keys.to_pylist(), strict=True):
        assert (key == 0) == (not a or not b)


def test_join_keys_tell_spans_of_different_traces_apart() -> None:
    assert join_key("a", "b") != join_key("b", "a")
    assert join_key("ab") != join_key("a", "b")
    assert join_key("00000000000000000000000000000001") == -7222898860773316396


def test_key_columns_are_hashed_over_columns_of_the_same_table() -> None:
    for schema in SCHEMAS.values():
        for key, names in KEYS.items():
            if key in schema.names:
                assert set(names) <= set(schema.names)
