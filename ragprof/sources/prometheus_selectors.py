"""Selectors of PromQL: taken apart, narrowed to names, and tried on labels."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from ragprof.sources.settings import ConfigError

_NAME = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]*")
_MATCHER = re.compile(
    r"""\s*(?P<label>[a-zA-Z_][a-zA-Z0-9_]*|"(?:[^"\\]|\\.)*")\s*(?P<op>=~|!~|!=|=)\s*"""
    r"""(?P<value>"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*')\s*(?:,|$)"""
)


@dataclass(frozen=True)
class Selector:
    """A vector selector: matchers of (label, operator, value); the name is one of them."""

    matchers: tuple[tuple[str, str, str], ...]

    def __str__(self) -> str:
        inner = ",".join(
            f"{label if _NAME.fullmatch(label) else _quoted(label)}{op}{_quoted(value)}"
            for label, op, value in self.matchers
        )
        return "{" + inner + "}"

    def named(self, names: Iterable[str]) -> Selector:
        """The same, of these names only."""
        pattern = "|".join(re.escape(name).replace(r"\:", ":") for name in sorted(names))
        return Selector((*self.matchers, ("__name__", "=~", pattern)))

    def also(self, label: str, op: str, value: str) -> Selector:
        """The same, with one more matcher."""
        return Selector((*self.matchers, (label, op, value)))

    def matches(self, labels: Mapping[str, str]) -> bool:
        """Whether a label set is selected; an absent label is the empty text."""
        return all(_holds(labels.get(label, ""), op, value) for label, op, value in self.matchers)


def parse(text: str) -> Selector:
    """A selector such as `up`, `up{job="rag"}` or `{job=~"rag.*"}`; raises ConfigError."""
    text = text.strip()
    name, brace, inner = text.partition("{")
    name = name.strip()
    matchers: list[tuple[str, str, str]] = []
    if name:
        if not _NAME.fullmatch(name):
            raise _wrong(text)
        matchers.append(("__name__", "=", name))
    if brace:
        if not inner.endswith("}"):
            raise _wrong(text)
        at, inner = 0, inner[:-1].rstrip()
        while at < len(inner):
            match = _MATCHER.match(inner, at)
            if match is None:
                raise _wrong(text)
            label = match["label"]
            label = _unquoted(label) if label.startswith('"') else label
            matchers.append((label, match["op"], _unquoted(match["value"])))
            at = match.end()
    if not any(_demands(op, value) for _, op, value in matchers):
        raise ConfigError(
            f"The selector {text!r} selects everything, which Prometheus refuses; add a matcher "
            'such as {job="rag"}.'
        )
    return Selector(tuple(matchers))


def _wrong(text: str) -> ConfigError:
    return ConfigError(
        f'{text!r} is not a selector; write it as up, up{{job="rag"}} or {{job=~"rag.*"}}.'
    )


def _demands(op: str, value: str) -> bool:
    try:
        return not _holds("", op, value)
    except re.error:
        return True


def _holds(given: str, op: str, value: str) -> bool:
    if op in ("=", "!="):
        return (given == value) == (op == "=")
    return (re.fullmatch(value, given, re.DOTALL) is not None) == (op == "=~")


def _quoted(value: str) -> str:
    return json.dumps(value, ensure_ascii=False)


def _unquoted(quoted: str) -> str:
    body = quoted[1:-1]
    return re.sub(r"\\(.)", lambda found: _ESCAPES.get(found[1], found[1]), body)


_ESCAPES = {"n": "\n", "t": "\t", "r": "\r"}
