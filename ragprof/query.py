"""SQL on Arrow datasets, read-only for real: DuckDB without access to anything else.

External access is off and the configuration locked, so a query can neither read nor write files,
load extensions, attach databases or see variables of the host program.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import duckdb
import pandas as pd
import pyarrow as pa
import pyarrow.dataset as ds

from ragprof.errors import RagprofError

_SETTINGS = {
    "TimeZone": "UTC",
    "python_enable_replacements": False,
    "python_scan_all_frames": False,
    "autoinstall_known_extensions": False,
    "autoload_known_extensions": False,
    "allow_community_extensions": False,
    "enable_external_access": False,
    "lock_configuration": True,  # the last: nothing can be set after it
}


class QueryError(RagprofError):
    """A query that cannot run, or that wants more than to read the tables."""


def query(datasets: Mapping[str, ds.Dataset], sql: str) -> pd.DataFrame:
    """The result of one SELECT over the datasets by name; times are UTC in nanoseconds.

    Raises QueryError for anything but one reading statement, and for what DuckDB refuses.
    """
    return to_pandas(arrow(datasets, sql))


def arrow(datasets: Mapping[str, ds.Dataset], sql: str) -> pa.Table:
    """As `query`, as an Arrow table."""
    with duckdb.connect(":memory:") as connection:
        for name, dataset in datasets.items():
            connection.register(name, dataset)
        for setting, value in _SETTINGS.items():
            connection.execute(f"SET {setting} = {value!r}")
        try:
            statements = connection.extract_statements(sql)
            if len(statements) != 1 or statements[0].type not in _READING:
                raise QueryError("the query must be one SELECT; a recording is read-only")
            result = connection.sql(statements[0].query).to_arrow_reader(1 << 16)
            return result.read_all()
        except duckdb.Error as error:
            raise QueryError(f"the query failed: {error}") from None


_READING = {duckdb.StatementType.SELECT, duckdb.StatementType.EXPLAIN}


def to_pandas(table: pa.Table) -> pd.DataFrame:
    """A table as a frame: text as text, maps as dicts, times as UTC nanoseconds."""
    columns: list[Any] = []  # a query may give two columns one name
    for column in table.columns:
        type_ = column.type
        if pa.types.is_dictionary(type_):
            column = column.cast(type_.value_type)
        elif pa.types.is_timestamp(type_) and type_.tz is not None:
            column = column.cast(pa.timestamp("ns", tz="UTC"))
        if pa.types.is_map(type_):
            maps = [None if pairs is None else dict(pairs) for pairs in column.to_pylist()]
            columns.append(pd.Series(maps, dtype=object))
        else:
            columns.append(column.to_pandas())
    frame = pd.DataFrame(dict(enumerate(columns)))
    frame.columns = pd.Index(table.column_names)
    return frame
