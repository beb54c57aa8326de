"""The one interface of all backends: what a capture asks, what a source answers.

A source cuts its part of a capture into pieces (`plan`), each small enough to be held in memory
and fetched by itself (`fetch_piece`), so that a capture runs in parallel and goes on after a cut.
Each backend's module has `connect(settings) -> Source`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from ragprof.errors import RagprofError

if TYPE_CHECKING:
    import pyarrow as pa

OK, WARNING, FAILED = "ok", "warning", "failed"


class SourceError(RagprofError):
    """A backend that cannot be reached, refuses, or answers what it must not; names the source."""


@dataclass(frozen=True)
class Window:
    """The time from `start` to before `end`, in ns since 1970, UTC: start <= t < end."""

    start: int
    end: int

    def __post_init__(self) -> None:
        if self.start >= self.end:
            raise SourceError(
                "The window ends before it starts; give a start that is before the end."
            )

    @property
    def seconds(self) -> float:
        return (self.end - self.start) / 1e9

    def cut(self, length: int) -> list[Window]:
        """Windows of at most `length` ns that follow each other without gap or overlap."""
        starts = range(self.start, self.end, max(1, length))
        return [Window(at, min(at + length, self.end)) for at in starts]


@dataclass(frozen=True)
class Query:
    """What is wanted of a window; an empty field does not restrict.

    A source applies what its backend can, and filters the rest itself. `operations` are span
    names, `tags` are attributes of a span, `min_duration` (ns) is that of any span of a trace,
    `trace_ids` are 32 hex digits. Metrics, changes and samples heed `services` alone.
    """

    services: tuple[str, ...] = ()
    operations: tuple[str, ...] = ()
    tags: Mapping[str, str] = field(default_factory=dict)
    min_duration: int = 0
    trace_ids: tuple[str, ...] = ()
    limit: int = 0  # traces or log records per piece at most; 0: no limit


@dataclass(frozen=True)
class Piece:
    """One part of a fetch. `key` names it within its source (a capture that goes on
    keeps the plan it has); `request` is what the source needs to fetch it (JSON).

    `rows` and `bytes` are estimates, None where the backend cannot tell cheaply; `text` is the
    query as the backend would be asked by hand, without secrets, for the manifest.
    """

    key: str
    window: Window
    text: str
    request: Mapping[str, Any] = field(default_factory=dict)
    rows: int | None = None
    bytes: int | None = None


@dataclass(frozen=True)
class Check:
    """One thing that was looked at: `state` is OK, WARNING or FAILED; `next_step` when not OK."""

    source: str
    subject: str  # reachable, permission, version, spans, logs, exemplars, clock, ...
    state: str
    text: str
    next_step: str = ""


Tables = Iterator[tuple[str, "pa.Table"]]
"""Pairs of table name and rows, in any columns that `ragprof.rows.conform` takes.

Ids of series, stacks and frames are the piece's own (a capture renumbers them); a dictionary's
rows come before the rows that name them.
"""


@runtime_checkable
class Source(Protocol):
    """A backend. Safe to use from several threads. Nothing in it prints a secret."""

    name: str  # of the section in the configuration
    kind: str  # prometheus, elasticsearch, jaeger, ...
    tables: tuple[str, ...]  # what it can fill

    def describe(self) -> dict[str, Any]:
        """For the manifest: kind, address without user and password, version, settings."""
        ...

    def check(self, window: Window) -> list[Check]:
        """Whether it can be reached, what may be read, and what can be joined. Never raises
        SourceError: that becomes a FAILED check.
        """
        ...

    def plan(self, window: Window, query: Query) -> list[Piece]:
        """The pieces of a fetch, with estimates; asks the backend little. Raises SourceError."""
        ...

    def fetch_piece(self, piece: Piece) -> Tables:
        """All rows of a piece, each once. Raises SourceError."""
        ...

    def close(self) -> None:
        """Give connections back."""
        ...


@runtime_checkable
class TraceSource(Source, Protocol):
    """A source of spans that can list requests cheaply, so that a capture can choose among them."""

    def roots(self, window: Window, query: Query) -> pa.Table:
        """One row per trace whose root began in the window, or at least its slowest rows.

        Columns: trace_id (32 hex), service, name, start (ns, UTC), duration_ns.
        Raises SourceError.
        """
        ...


def fetch(source: Source, window: Window, query: Query | None = None) -> Tables:
    """Everything of one window, piece by piece, one after the other. Raises SourceError."""
    for piece in source.plan(window, query or Query()):
        yield from source.fetch_piece(piece)


def failed(source: Source, subject: str, error: Exception, next_step: str = "") -> Check:
    """The check that an error stands for."""
    return Check(source.name, subject, FAILED, str(error), next_step)


def worst(checks: Iterable[Check]) -> str:
    """The worst state among checks; OK when there are none."""
    states = {check.state for check in checks}
    return next((state for state in (FAILED, WARNING) if state in states), OK)
