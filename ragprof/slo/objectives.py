"""Objectives: those of the catalogue, or from a TOML or an OpenSLO file.

All become the catalogue's `Objective`, so that rules, dashboards and budgets come from one thing.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ragprof.errors import RagprofError
from ragprof.monitoring import indicators, promql
from ragprof.monitoring.catalogue_objectives import OBJECTIVES, Indicator, Objective
from ragprof.monitoring.indicators import Counters
from ragprof.monitoring.promql import Selector

LARGEST = 1 << 20  # bytes of a file of objectives
_KEYS = {
    "name", "description", "target", "window_days", "total", "bad", "good",
    "mean_sum", "mean_count",
}  # fmt: skip
_NAME = re.compile(r"[a-z][a-z0-9_-]{0,62}")


class ObjectiveError(RagprofError):
    """An objective that cannot be read or computed."""


def read(path: str | Path | None = None) -> tuple[Objective, ...]:
    """The objectives of a TOML or OpenSLO (YAML) file; those of the catalogue without a path.

    TOML has ``[[objective]]`` tables with `name`, `target` (0 to 1), `window_days`, and either
    `total` with `bad` or `good` (counters' selectors), or `mean_sum` and `mean_count`. Raises
    ObjectiveError that names the file and the field.
    """
    if path is None:
        return OBJECTIVES
    where = Path(path)
    try:
        if where.stat().st_size > LARGEST:
            raise ObjectiveError(f"{where} is larger than {LARGEST:,} bytes; split it")
        text = where.read_text(encoding="utf-8")
    except OSError as error:
        raise ObjectiveError(f"{where} cannot be read: {error.strerror}; check the path") from None
    except UnicodeDecodeError:
        raise ObjectiveError(f"{where} is not UTF-8 text; give a TOML or YAML file") from None
    found = _from_toml(text, where) if where.suffix == ".toml" else _from_openslo(text, where)
    if not found:
        raise ObjectiveError(f"{where} has no objective; add one, see docs/slo.md")
    names = [one.name for one in found]
    twice = next((name for name in names if names.count(name) > 1), "")
    if twice:
        raise ObjectiveError(f"{where}: objective {twice!r} is there twice; rename one")
    return tuple(found)


def named(name: str, objectives: Sequence[Objective]) -> Objective:
    """One objective by its name. Raises ObjectiveError with the names that there are."""
    for one in objectives:
        if one.name == name:
            return one
    known = ", ".join(one.name for one in objectives)
    raise ObjectiveError(f"there is no objective {name!r}; there are {known}")


def of_counters(
    name: str,
    target: float,
    window_days: float,
    counted: Counters,
    description: str = "",
) -> Objective:
    """An objective over counters, with the queries that rules and dashboards use."""
    indicator = indicators.of_counters(name, counted, description)
    return Objective(name, indicator, target, _days(window_days), description)


def _days(days: float) -> int:
    return int(days) if days == int(days) else days  # type: ignore[return-value]


def _from_toml(text: str, where: Path) -> list[Objective]:
    try:
        content = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ObjectiveError(f"{where} is not TOML: {error}; correct that line") from None
    tables = content.get("objective", [])
    if not isinstance(tables, list) or not all(isinstance(each, dict) for each in tables):
        raise ObjectiveError(f"{where}: 'objective' is not a list; write [[objective]]")
    return [_from_table(table, where, number) for number, table in enumerate(tables, 1)]


def _from_table(table: Mapping[str, Any], where: Path, number: int) -> Objective:
    name = table.get("name")
    at = f"{where}: objective {name!r}" if isinstance(name, str) else f"{where}: objective {number}"
    for key in table:
        if key not in _KEYS:
            raise ObjectiveError(f"{at}: {key!r} is no field; the fields are {', '.join(_KEYS)}")
    target, days = _numbers(at, table.get("target"), table.get("window_days", 30))
    _check_name(at, name)
    texts = {}
    for key in ("description", "total", "bad", "good", "mean_sum", "mean_count"):
        value = table.get(key, "")
        if not isinstance(value, str):
            raise ObjectiveError(f"{at}: {key!r} is not a text; quote it")
        texts[key] = value
    if texts["mean_sum"] or texts["mean_count"]:
        over, under = (_selector(at, key, texts[key]) for key in ("mean_sum", "mean_count"))
        indicator = Indicator(
            str(name), texts["description"], "percentunit",
            mean=f"{indicators.increase(over)} / {indicators.increase(under)}",
        )  # fmt: skip
        return Objective(str(name), indicator, target, _days(days), texts["description"])
    if bool(texts["bad"]) == bool(texts["good"]):
        raise ObjectiveError(f"{at}: give `total` with either `bad` or `good`")
    counted = Counters(
        _selector(at, "total", texts["total"]),
        _selector(at, "bad", texts["bad"]) if texts["bad"] else None,
        _selector(at, "good", texts["good"]) if texts["good"] else None,
    )
    return of_counters(str(name), target, days, counted, texts["description"])


def _check_name(at: str, name: object) -> None:
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise ObjectiveError(f"{at}: 'name' is made of small letters, digits, _ and -; correct it")


def _numbers(at: str, target: object, days: object) -> tuple[float, float]:
    if isinstance(target, bool) or not isinstance(target, (int, float)) or not 0 < target <= 1:
        raise ObjectiveError(f"{at}: 'target' is a share above 0 and up to 1, such as 0.999")
    if isinstance(days, bool) or not isinstance(days, (int, float)) or not 0 < days <= 366:
        raise ObjectiveError(f"{at}: 'window_days' is a number of days up to 366, such as 30")
    return float(target), float(days)


def _selector(at: str, key: str, text: str) -> Selector:
    try:
        return promql.counted(text)
    except promql.ExpressionError as error:
        raise ObjectiveError(f"{at}: {key!r}: {error}") from None


def _from_openslo(text: str, where: Path) -> list[Objective]:
    import yaml  # type: ignore[import-untyped]

    try:
        documents = [each for each in yaml.safe_load_all(text) if each is not None]
    except yaml.YAMLError as error:
        line = getattr(getattr(error, "problem_mark", None), "line", 0) + 1
        raise ObjectiveError(f"{where} is not YAML: line {line}; correct it") from None
    if not all(isinstance(each, dict) for each in documents):
        raise ObjectiveError(f"{where} is not OpenSLO: write documents with apiVersion and kind")
    known = {
        _at(each, "metadata.name", where): _at(each, "spec", where)
        for each in documents
        if each.get("kind") == "SLI"
    }
    found = []
    for document in documents:
        if document.get("kind") != "SLO":
            continue
        if not str(document.get("apiVersion", "")).startswith("openslo/"):
            raise ObjectiveError(f"{where}: 'apiVersion' is not openslo/v1; correct it")
        found.append(_from_document(document, known, where))
    return found


def _from_document(document: Mapping[str, Any], known: Mapping[str, Any], where: Path) -> Objective:
    name = _at(document, "metadata.name", where)
    at = f"{where}: objective {name!r}"
    spec = _at(document, "spec", where)
    if "indicatorRef" in spec:
        if spec["indicatorRef"] not in known:
            raise ObjectiveError(f"{at}: there is no SLI {spec['indicatorRef']!r}; add it")
        metric = _at(known[spec["indicatorRef"]], "ratioMetric", at)
    else:
        metric = _at(spec, "indicator.spec.ratioMetric", at)
    objectives = spec.get("objectives") or [{}]
    target = objectives[0].get("target")
    if target is None and "targetPercent" in objectives[0]:
        target = objectives[0]["targetPercent"] / 100
    window = str((spec.get("timeWindow") or [{}])[0].get("duration", "30d"))
    length = re.fullmatch(r"(\d+)([dhw])", window)
    if not length:
        raise ObjectiveError(f"{at}: 'timeWindow' {window!r} is not like 30d, 4w or 12h")
    days = int(length[1]) * {"d": 1.0, "h": 1 / 24, "w": 7.0}[length[2]]
    target, days = _numbers(at, target, days)
    _check_name(at, name)
    queries = {
        kind: _selector(at, kind, str(_at(metric, f"{kind}.metricSource.spec.query", at)))
        for kind in ("total", "bad", "good")
        if kind in metric
    }
    if "total" not in queries or ("bad" in queries) == ("good" in queries):
        raise ObjectiveError(f"{at}: ratioMetric needs `total` with either `bad` or `good`")
    counted = Counters(queries["total"], queries.get("bad"), queries.get("good"))
    return of_counters(name, target, days, counted, str(spec.get("description", "")))


def _at(document: Any, path: str, where: str | Path) -> Any:
    """A field by its dotted path. Raises ObjectiveError that names it."""
    for key in path.split("."):
        if not isinstance(document, dict) or key not in document:
            raise ObjectiveError(f"{where}: {path!r} is missing; add it")
        document = document[key]
    return document
