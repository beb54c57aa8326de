"""SQL reads the tables and can do nothing else."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from recording_rows import T0, write

import ragprof
from ragprof.errors import RagprofError
from ragprof.query import QueryError


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> ragprof.Recording:
    return write(
        tmp_path_factory.mktemp("sql") / "a.ragprof",
        {
            "spans": [
                {"start": T0 + n, "duration_ns": n, "name": f"n{n % 2}", "attributes": {"k": n}}
                for n in range(10)
            ],
            "metrics": [
                {"series_id": 1, "time": T0, "value": value}
                for value in (float("nan"), float("inf"), float("-inf"), 1.5)
            ],
        },
    )


def test_a_query(recording: ragprof.Recording) -> None:
    frame = recording.sql(
        "select name, count(*) n, max(start) latest from spans group by 1 order by 1"
    )
    assert frame.n.tolist() == [5, 5]
    assert str(frame.latest.dtype) == "datetime64[ns, UTC]"
    assert frame.latest[1].value == T0 + 9
    kept = recording.sql("from spans where attributes['k'] = '3'").attributes[0]
    assert kept == {"k": "3"}
    assert recording.sql("with a as (select 1 x) select x, x from a").shape == (1, 2)
    assert len(recording.sql("explain select 1")) == 1
    assert len(recording.sql("describe spans")) == 18


def test_nan_and_infinities_survive(recording: ragprof.Recording) -> None:
    values = recording.sql("select value from metrics").value.to_numpy()
    np.testing.assert_array_equal(values, [np.nan, np.inf, -np.inf, 1.5])


HOSTILE = [
    "copy spans to '{out}'",
    "copy (select 1) to '{out}' (format csv)",
    "copy spans from '{file}'",
    "attach '{out}' as other",
    "attach '{file}'",
    "detach memory",
    "install httpfs",
    "force install httpfs from community",
    "load httpfs",
    "load '{file}'",
    "select * from read_text('{file}')",
    "select * from read_blob('{file}')",
    "select * from read_csv('{file}')",
    "select * from read_csv_auto('{file}')",
    "select * from read_json('{file}')",
    "select * from read_parquet('{file}')",
    "select * from '{file}'",
    "select * from glob('/*')",
    "select * from parquet_metadata('{file}')",
    "select * from sniff_csv('{file}')",
    "select * from query('copy spans to ''{out}''')",
    "select * from query_table('{file}')",
    "select getenv('HOME')",
    "select * from read_text('https://example.invalid/')",
    "set enable_external_access = true",
    "set lock_configuration = false",
    "reset enable_external_access",
    "set global allowed_directories = ['/']",
    "set memory_limit = '1GB'",
    "pragma enable_external_access",
    "pragma threads = 1",
    "pragma database_list",
    "export database '{out}'",
    "import database '{out}'",
    "create table t as select 1",
    "create view v as select 1",
    "create macro m(x) as x",
    "create secret (type s3)",
    "insert into spans select * from spans",
    "delete from spans",
    "drop view spans",
    "update spans set name = 'x'",
    "call pragma_version()",
    "checkpoint",
    "vacuum",
    "begin transaction",
    "prepare p as select 1",
    "explain analyze copy spans to '{out}'",
    "select 1; select 2",
    "select 1; copy spans to '{out}'",
    "",
    "nonsense",
    "select * from recording",
    "select * from HOSTILE_FRAME",
]


@pytest.mark.parametrize("query", HOSTILE)
def test_a_query_can_only_read_the_tables(
    recording: ragprof.Recording, tmp_path: Path, query: str
) -> None:
    hostile_frame = recording.to_pandas("spans")  # a variable of the caller is no table
    assert len(hostile_frame) == 10
    file, out = tmp_path / "file.csv", tmp_path / "out"
    file.write_text("a\n1\n")
    with pytest.raises(QueryError) as caught:
        recording.sql(query.format(file=file, out=out))
    assert isinstance(caught.value, RagprofError)
    assert [each.name for each in tmp_path.iterdir()] == ["file.csv"]
    assert recording.verify() == []
    assert recording.sql("select count(*) n from spans").n[0] == 10
