"""What a PromQL expression names: metrics, labels, thresholds. Tokens only, nothing is evaluated.

Expressions are evaluated by Prometheus alone; this reads them far enough to check their names
against the catalogue and to put another threshold in.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from ragprof.errors import RagprofError

_TOKEN = re.compile(
    r"""
    (?P<space>\s+|\#[^\n]*)
  | (?P<text>"(?:\\.|[^"\\])*"|'(?:\\.|[^'\\])*'|`[^`]*`)
  | (?P<duration>(?:\d+(?:ms|[smhdwy]))+(?![A-Za-z0-9_]))
  | (?P<number>0x[0-9a-fA-F]+|(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)
  | (?P<name>[A-Za-z_:][A-Za-z0-9_:]*)
  | (?P<sign>=~|!~|==|!=|<=|>=|[-+*/%^<>=(){}\[\],@:])
    """,
    re.VERBOSE,
)
_GROUPINGS = ("by", "without", "on", "ignoring", "group_left", "group_right")
_WORDS = {*_GROUPINGS, "and", "or", "unless", "bool", "offset", "inf", "nan", "atan2"}
_COMPARISONS = ("==", "!=", "<=", ">=", "<", ">")
_MATCHES = ("=", "!=", "=~", "!~")


class ExpressionError(RagprofError):
    """An expression that cannot be read, or that is not of the form that is needed."""


@dataclass(frozen=True)
class Token:
    """A token: kind is text, duration, number, name or sign; `at` is its place in the text."""

    kind: str
    text: str
    at: int


@dataclass
class Reference:
    """One use of a metric: its labels are those matched and those grouped by around it."""

    metric: str
    labels: set[str] = field(default_factory=set)
    at: int = 0


@dataclass(frozen=True)
class Threshold:
    """A comparison with a number: `value` stands at `start:end` of the text."""

    comparison: str
    value: float
    start: int
    end: int


@dataclass(frozen=True)
class Selector:
    """A metric and its label matchers (label, operator, value), as in ``name{label="value"}``."""

    metric: str
    matchers: tuple[tuple[str, str, str], ...] = ()

    def matches(self, metric: str, labels: dict[str, str]) -> bool:
        """Whether a series is meant; regular expressions are anchored, as in Prometheus."""
        if metric != self.metric:
            return False
        for label, operator, value in self.matchers:
            has = labels.get(label, "")
            if operator in ("=", "!="):
                same = has == value
            else:
                same = re.fullmatch(value, has, re.DOTALL) is not None
            if same == operator.startswith("!"):
                return False
        return True

    def __str__(self) -> str:
        if not self.matchers:
            return self.metric
        inside = ",".join(f"{label}{sign}{quoted(value)}" for label, sign, value in self.matchers)
        return f"{self.metric}{{{inside}}}"


def quoted(text: str) -> str:
    """A PromQL string."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'


def tokens(expression: str) -> list[Token]:
    """The tokens without space and comments. Raises ExpressionError at what is none."""
    found, at = [], 0
    while at < len(expression):
        match = _TOKEN.match(expression, at)
        if match is None:
            raise ExpressionError(
                f"{expression[:80]!r}: character {at + 1} ({expression[at]!r}) is not PromQL; "
                "correct the expression"
            )
        if match.lastgroup != "space":
            found.append(Token(str(match.lastgroup), match[0], at))
        at = match.end()
    return found


def references(expression: str) -> list[Reference]:
    """The metrics that an expression reads, each with the labels that it must have for it.

    Labels of an aggregation's `by` belong to every metric inside the aggregation; those of `on`,
    `ignoring` and `group_left` to every metric of the expression.
    """
    words = tokens(expression)
    found: list[tuple[int, Reference]] = []
    groups: list[tuple[set[str], int, int]] = []  # labels, first and last token they are about
    at = 0
    while at < len(words):
        token = words[at]
        following = words[at + 1].text if at + 1 < len(words) else ""
        if token.kind == "name" and token.text.lower() in _GROUPINGS and following == "(":
            end = _closing(words, at + 1, expression)
            labels = {each.text for each in words[at + 2 : end] if each.kind == "name"}
            groups.append((labels, *_scope(words, at, end, token.text.lower(), expression)))
            at = end + 1
        elif (
            token.kind == "name"
            and token.text.lower() not in _WORDS
            and following not in ("(", "by", "without")  # else a function or an aggregation
        ):
            reference = Reference(token.text, at=token.at)
            found.append((at, reference))
            if following == "{":
                end = _closing(words, at + 1, expression)
                reference.labels |= {label for label, _, _ in _matchers(words[at + 2 : end])}
                at = end
            at += 1
        elif token.text == "{":  # a selector without a name
            end = _closing(words, at, expression)
            inside = _matchers(words[at + 1 : end])
            for name in (value for label, _, value in inside if label == "__name__"):
                labels = {label for label, _, _ in inside if label != "__name__"}
                found.append((at, Reference(name, labels, token.at)))
            at = end + 1
        else:
            at += 1
    for labels, first, last in groups:
        for place, reference in found:
            if first <= place <= last:
                reference.labels |= labels
    return [reference for _, reference in found]


def thresholds(expression: str) -> list[Threshold]:
    """The comparisons with a number, in order; the first is what people call the threshold."""
    words = tokens(expression)
    found = []
    inside = 0
    for at, token in enumerate(words):
        inside += {"{": 1, "}": -1}.get(token.text, 0)
        if inside or token.kind != "sign" or token.text not in _COMPARISONS:
            continue
        after = at + 1
        if after < len(words) and words[after].text == "bool":
            after += 1
        negative = after < len(words) and words[after].text == "-"
        number = after + negative
        if number < len(words) and words[number].kind == "number":
            end = words[number].at + len(words[number].text)
            value = float(words[number].text) * (-1 if negative else 1)
            found.append(Threshold(token.text, value, words[after].at, end))
    return found


def with_threshold(expression: str, value: float) -> str:
    """The expression with another threshold: in its first comparison, and in those equal to it.

    Raises ExpressionError when it compares with no number.
    """
    found = thresholds(expression)
    if not found:
        raise ExpressionError(
            f"{expression[:80]!r} has no comparison with a number to sweep; write it as X > 2"
        )
    for place in reversed(found):
        if (place.comparison, place.value) == (found[0].comparison, found[0].value):
            expression = f"{expression[: place.start]}{value:g}{expression[place.end :]}"
    return expression


def selector(text: str) -> Selector:
    """A plain vector selector. Raises ExpressionError when the text is anything more."""
    words = tokens(text)
    wrong = ExpressionError(
        f'{text[:120]!r} is not a counter\'s selector; write it as name{{label="value"}}'
    )
    if not words or words[0].kind != "name":
        raise wrong
    if len(words) == 1:
        return Selector(words[0].text)
    if words[1].text != "{" or _closing(words, 1, text) != len(words) - 1:
        raise wrong
    return Selector(words[0].text, tuple(_matchers(words[2:-1])))


_COUNTED = re.compile(
    r"\s*sum\s*\(\s*(?:rate|increase)\s*\((?P<inside>.*)\[[^\[\]]*\]\s*\)\s*\)\s*", re.DOTALL
)
_SUMMED = re.compile(r"\s*sum\s*\((?P<inside>.*)\)\s*", re.DOTALL)


def counted(text: str) -> Selector:
    """The selector inside ``sum(rate(X[5m]))``, ``sum(increase(X[1h]))``, ``sum(X)`` or ``X``.

    Raises ExpressionError for everything else.
    """
    for form in (_COUNTED, _SUMMED):
        match = form.fullmatch(text)
        if match:
            return selector(match["inside"].strip())
    return selector(text.strip())


def _matchers(words: list[Token]) -> list[tuple[str, str, str]]:
    found = []
    for at in range(len(words) - 2):
        label, sign, value = words[at : at + 3]
        if label.kind == "name" and sign.text in _MATCHES and value.kind == "text":
            found.append((label.text, sign.text, _unquoted(value.text)))
    return found


def _unquoted(text: str) -> str:
    inside = text[1:-1]
    if text.startswith("`"):
        return inside
    return re.sub(r"\\(.)", lambda match: {"n": "\n", "t": "\t"}.get(match[1], match[1]), inside)


def _scope(
    words: list[Token], at: int, end: int, grouping: str, expression: str
) -> tuple[int, int]:
    """First and last token of what a grouping clause at `at` to `end` is about."""
    if grouping not in ("by", "without"):
        return 0, len(words)
    if end + 1 < len(words) and words[end + 1].text == "(":  # sum by (x) (…)
        return end + 1, _closing(words, end + 1, expression)
    depth = 0
    for before in range(at - 1, -1, -1):  # sum(…) by (x)
        depth += {")": 1, "(": -1}.get(words[before].text, 0)
        if depth == 0:
            return before, at
    return 0, len(words)


def _closing(words: list[Token], opening: int, expression: str) -> int:
    """The token that closes the bracket at `opening`."""
    depth = 0
    for at, token in _from(words, opening):
        depth += {"(": 1, "{": 1, "[": 1, ")": -1, "}": -1, "]": -1}.get(token.text, 0)
        if depth == 0:
            return at
    raise ExpressionError(f"{expression[:80]!r}: a bracket is not closed; correct the expression")


def _from(words: list[Token], start: int) -> Iterator[tuple[int, Token]]:
    return ((at, words[at]) for at in range(start, len(words)))
