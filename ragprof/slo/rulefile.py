"""Rule files of Prometheus: plain ones and PrometheusRules, read as far as a replay needs it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ragprof.errors import RagprofError
from ragprof.monitoring import promql

LARGEST = 4 << 20  # bytes
DEFAULT_INTERVAL = 60.0  # seconds: Prometheus's own default
_SECONDS = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800, "y": 31_536_000}
_LABEL = re.compile(r"\{\{\s*\$labels\.([A-Za-z_][A-Za-z0-9_]*)\s*\}\}")


class RuleError(RagprofError):
    """A rule file that cannot be read, or a rule that cannot be replayed."""


@dataclass(frozen=True)
class AlertRule:
    """One alerting rule. `wait` is its `for`, `keep` its `keep_firing_for`, all in seconds."""

    name: str
    expression: str
    group: str
    interval: float
    wait: float = 0.0
    keep: float = 0.0
    labels: Mapping[str, str] = field(default_factory=dict)

    def with_threshold(self, value: float) -> AlertRule:
        """The rule with another threshold. Raises ExpressionError when it compares with none."""
        return replace(self, expression=promql.with_threshold(self.expression, value))

    def identity(self, labels: Mapping[str, str]) -> dict[str, str]:
        """The labels of the alert that a row of the expression makes."""
        given = {name: value for name, value in labels.items() if name != "__name__"}
        own = {
            name: _LABEL.sub(lambda match: given.get(match[1], ""), value)
            for name, value in self.labels.items()
        }
        return {**given, **own, "alertname": self.name}


def read(path: str | Path, interval: float = DEFAULT_INTERVAL) -> list[AlertRule]:
    """The alerting rules of a file, a PrometheusRule, or all ``*.yml`` of a folder.

    `interval` (s) is for groups without their own. Raises RuleError that names file and field.
    """
    where = Path(path)
    if where.is_dir():
        files = sorted(file for ending in ("*.yml", "*.yaml") for file in where.rglob(ending))
        found = [rule for file in files if _has_groups(file) for rule in read(file, interval)]
        if not found:
            raise RuleError(f"{where} has no rule file; give the file itself")
        return found
    return of_content(_load(where), where, interval)


def of_content(
    content: Mapping[str, Any], where: str | Path, interval: float = DEFAULT_INTERVAL
) -> list[AlertRule]:
    """The alerting rules of a rule file that is read already. Raises RuleError as `read` does."""
    groups = content.get("groups", (content.get("spec") or {}).get("groups"))
    if not isinstance(groups, list):
        raise RuleError(f"{where} has no 'groups'; give a rule file or a PrometheusRule")
    rules = []
    for group in groups:
        name = str(_field(group, "name", where))
        every = _duration(group.get("interval"), f"{where}: group {name!r}: interval", interval)
        for rule in _field(group, "rules", where):
            if "alert" in rule:
                rules.append(_rule(rule, name, every or interval, where))
    if not rules:
        raise RuleError(f"{where} has no alerting rule; add one with 'alert' and 'expr'")
    return rules


def seconds(text: str) -> float:
    """A Prometheus duration (``1h30m``) in seconds. Raises RuleError."""
    parts = re.findall(r"(\d+)(ms|[smhdwy])", text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        raise RuleError(f"{text!r} is not a duration; write it like 30s, 5m or 1h30m")
    return float(sum(int(number) * _SECONDS[unit] for number, unit in parts))


def _rule(rule: Mapping[str, Any], group: str, interval: float, where: str | Path) -> AlertRule:
    name = str(rule["alert"])
    at = f"{where}: alert {name!r}"
    expression = str(_field(rule, "expr", where))
    labels = {str(key): str(value) for key, value in (rule.get("labels") or {}).items()}
    for key, value in labels.items():
        if "{{" in _LABEL.sub("", value):
            raise RuleError(
                f"{at}: label {key!r} has a template other than $labels, which is part of the "
                "alert's identity; use $labels or move it to an annotation"
            )
    promql.tokens(expression)
    return AlertRule(
        name,
        expression,
        group,
        interval,
        _duration(rule.get("for"), f"{at}: for", 0.0),
        _duration(rule.get("keep_firing_for"), f"{at}: keep_firing_for", 0.0),
        labels,
    )


def _duration(value: Any, at: str, default: float) -> float:
    if value is None:
        return default
    try:
        return seconds(str(value)) if str(value) != "0" else 0.0
    except RuleError as error:
        raise RuleError(f"{at}: {error}") from None


def _field(entry: Any, name: str, where: str | Path) -> Any:
    if not isinstance(entry, Mapping) or name not in entry:
        raise RuleError(f"{where}: {name!r} is missing; add it")
    return entry[name]


def _has_groups(path: Path) -> bool:
    content = _load(path)
    return "groups" in content or "groups" in (content.get("spec") or {})


def _load(path: Path) -> dict[str, Any]:
    import yaml  # type: ignore[import-untyped]

    try:
        if path.stat().st_size > LARGEST:
            raise RuleError(f"{path} is larger than {LARGEST:,} bytes; split it")
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise RuleError(f"{path} cannot be read: {error.strerror}; check the path") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        line = getattr(getattr(error, "problem_mark", None), "line", 0) + 1
        raise RuleError(f"{path} is not YAML: line {line}; correct it") from None
    if not isinstance(content, dict):
        raise RuleError(f"{path} is not a rule file: it has no fields; give one with 'groups'")
    return content
