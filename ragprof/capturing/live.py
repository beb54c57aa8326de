"""One window of a running system -> a Recording.

Planned first, then fetched piece by piece in parallel into a folder beside the Recording, then put
together. A capture that was cut goes on where it was when the same call is made again: the window
and the plan are those of the first call.
"""

from __future__ import annotations

import contextlib
import secrets
import shutil
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from ragprof import recording, redaction
from ragprof.capturing import assembly, attached, choosing, config, pieces
from ragprof.capturing.config import Config
from ragprof.capturing.pieces import Pieces
from ragprof.errors import RagprofError
from ragprof.journal import Journal
from ragprof.manifest import MANIFEST, iso
from ragprof.recording import Recording
from ragprof.rows import time_ns
from ragprof.sources.settings import ConfigError
from ragprof.sources.source import Piece, Query, Source, SourceError, TraceSource, Window

GIVES_UP = 3  # pieces of one source that fail one after another; its others are not tried


class TooLarge(RagprofError):
    """A plan with more rows than the configuration allows."""


@dataclass
class Plan:
    """What a capture fetches. `pieces` are pairs of source and piece, in a fixed order."""

    window: Window
    pieces: list[tuple[str, Piece]]
    choice: choosing.Choice | None = None
    slow: str = ""
    id: str = field(default_factory=lambda: secrets.token_hex(8))
    fingerprint: str = ""
    hash_key: str = ""  # hex; of ids, where redaction hashes them
    went_on: bool = False  # made by an earlier call

    def totals(self) -> list[dict[str, Any]]:
        """By source: pieces, rows and bytes as estimated, `unknown` pieces without an estimate."""
        found: dict[str, dict[str, Any]] = {}
        for name, piece in self.pieces:
            total = found.setdefault(
                name, {"source": name, "pieces": 0, "rows": 0, "bytes": 0, "unknown": 0}
            )
            total["pieces"] += 1
            total["rows"] += piece.rows or 0
            total["bytes"] += piece.bytes or 0
            total["unknown"] += piece.rows is None
        return list(found.values())

    @property
    def rows(self) -> int:
        return sum(piece.rows or 0 for _, piece in self.pieces)


@dataclass
class Result:
    """What a capture did. `missing` lists what could not be fetched: source, query, why."""

    path: Path
    plan: Plan
    rows: dict[str, int]
    missing: list[dict[str, str]]
    seconds: float
    requests: int = 0
    repeated: int = 0
    received: int = 0  # bytes

    @property
    def complete(self) -> bool:
        return not self.missing


Progress = Callable[[int, int, Mapping[str, int]], None]
"""Told after each piece: pieces done, pieces in all, rows by table."""


def capture(
    config_file: str | Path | Mapping[str, Any],
    *,
    since: str | None = None,
    start: Any = None,
    end: Any = None,
    slow: str = "",
    out: str | Path | None = None,
    attach: Sequence[int] = (),
) -> Recording:
    """Capture a window of a running system as a Recording, and open it.

    `since` is a duration until `end` ("30m"); `start` and `end` are times with a zone; `end` is
    now unless given. `slow` ("p95" or "750ms") fetches slow requests and a fair baseline instead
    of all. `attach` are processes of this machine to sample with py-spy meanwhile. `out` is a
    folder, capture-TIME.ragprof unless given. Raises RagprofError: for a source that is missing,
    too, when the Recording was written without it (`out` holds it; the same call goes on).
    """
    settings = config.read(config_file)
    window = window_of(settings, since, start, end)
    target = Path(out) if out is not None else default_out(window)
    result = run(settings, window, target, slow=slow, attach=attach)
    if not result.complete:
        raise SourceError(
            f"{target} lacks {len(result.missing)} of {len(result.plan.pieces)} pieces: "
            f"{result.missing[0]['why']} Make the same call again to fetch the rest."
        )
    return recording.open(target)


def default_out(window: Window) -> Path:
    return Path(time.strftime("capture-%Y%m%dT%H%M%SZ.ragprof", time.gmtime(window.end / 1e9)))


def window_of(settings: Config, since: str | None, start: Any, end: Any) -> Window:
    """The window that is asked for; raises ConfigError or RecordingError."""
    if since is not None and start is not None:
        raise ConfigError("Both since and start are given; give one of them.")
    last = time.time_ns() if end is None else time_ns(end, "end")
    if start is not None:
        return Window(time_ns(start, "start"), last)
    return Window(last - config.duration(since or settings.since, "since"), last)


def run(
    settings: Config,
    window: Window,
    out: Path,
    *,
    slow: str = "",
    attach: Sequence[int] = (),
    attach_seconds: float = 10.0,
    confirm: Callable[[Plan], None] = lambda plan: None,
    progress: Progress = lambda done, total, rows: None,
) -> Result:
    """Plan, fetch and assemble. `confirm` sees the plan first and may raise.

    Raises ConfigError, TooLarge, SourceError when no plan can be made, RecordingError when `out`
    cannot be written.
    """
    began = time.monotonic()
    with _pieces(out) as store, _sources(settings) as sources:
        plan = _kept_plan(store, settings, slow)
        if plan is None:
            _refuse_taken(out)
            if attach:
                window = attached.sample(store.folder, attach, attach_seconds, window)
            plan = make_plan(settings, window, sources, slow)
            check_size(settings, plan)
            confirm(plan)
            store.create(_plan_json(plan))
        else:
            confirm(plan)
        fetcher = _Fetch(settings, plan, sources, store, progress)
        fetcher.all()
        _remove_earlier(out, plan)
        rules = fetcher.rules
        journal = Journal(out, window=[iso(plan.window.start), iso(plan.window.end)])
        with journal:
            numbers = [n for n in range(len(plan.pieces)) if store.has(n)]
            made = assembly.assemble(journal, store, numbers)
            attached.add(journal, made, store.folder)
            journal.note(**_manifest(settings, plan, sources, store, fetcher, made))
            if rules is not None:
                journal.note(redacted=[redaction.told(rules)])
        rows = {
            name: entry["rows"] for name, entry in recording.open(out).manifest["tables"].items()
        }
        if not fetcher.missing:
            store.remove()
        clients = [client for each in sources if (client := _client(each)) is not None]
        return Result(
            out,
            plan,
            rows,
            fetcher.missing,
            time.monotonic() - began,
            requests=sum(client.requests for client in clients),
            repeated=sum(client.repeated for client in clients),
            received=sum(client.received for client in clients),
        )


# Planning


def make_plan(settings: Config, window: Window, sources: Sequence[Source], slow: str = "") -> Plan:
    """Ask the sources for their pieces. Raises SourceError or ConfigError."""
    query = Query(
        services=settings.services,
        operations=settings.operations,
        tags=settings.tags,
        min_duration=settings.min_duration,
    )
    choice = None
    if slow:
        choosing.threshold(slow, [])
        choice = _choose(sources, window, query, slow)
        if choice is not None:
            query = replace(query, trace_ids=tuple(choice.trace_ids))
    with ThreadPoolExecutor(max(1, len(sources))) as threads:
        planned = list(threads.map(lambda source: source.plan(window, query), sources))
    rules = settings.rules()
    return Plan(
        window,
        [
            (source.name, piece)
            for source, found in zip(sources, planned, strict=True)
            for piece in found
        ],
        choice,
        slow,
        fingerprint=settings.fingerprint(),
        hash_key=rules.key.hex() if rules is not None and rules.ids else "",
    )


def check_size(settings: Config, plan: Plan) -> None:
    """Raises TooLarge for a plan that is larger than the configuration allows."""
    if plan.rows > settings.most_rows:
        raise TooLarge(
            f"The plan has about {plan.rows:,} rows, and most_rows is {settings.most_rows:,}; "
            "take a shorter window, --slow p95 or fewer services, or raise most_rows."
        )


def _choose(
    sources: Sequence[Source], window: Window, query: Query, slow: str
) -> choosing.Choice | None:
    for source in sources:
        if isinstance(source, TraceSource):
            found = source.roots(window, query)
            if found.num_rows:
                return choosing.choose(found, slow)
    return None


# Fetching


class _Fetch:
    """Fetches what is missing, several pieces at once; a cut piece is fetched anew."""

    def __init__(
        self,
        settings: Config,
        plan: Plan,
        sources: Sequence[Source],
        store: Pieces,
        progress: Progress,
    ) -> None:
        self.missing: list[dict[str, str]] = []
        self.rules = settings.rules(bytes.fromhex(plan.hash_key) if plan.hash_key else None)
        self._parallel = settings.parallel
        self._plan, self._store, self._progress = plan, store, progress
        self._sources = {source.name: source for source in sources}
        self._redacting = threading.Lock()
        self._rows: Counter[str] = Counter()
        self._done = 0
        self._failed: Counter[str] = Counter()  # by source, one after another
        self._wanted = (
            pa.array(plan.choice.trace_ids, pa.string()) if plan.choice is not None else None
        )

    def all(self) -> None:
        todo: deque[int] = deque()
        for number in range(len(self._plan.pieces)):
            if self._store.has(number):
                self._finished(self._store.rows(number))
            else:
                todo.append(number)
        running: dict[Future[Counter[str]], int] = {}
        with ThreadPoolExecutor(self._parallel, thread_name_prefix="ragprof-fetch") as threads:
            try:
                while todo or running:
                    while todo and len(running) < self._parallel:
                        number = todo.popleft()
                        if self._failed[self._plan.pieces[number][0]] >= GIVES_UP:
                            self._lacks(number, "its source failed before.")
                        else:
                            running[threads.submit(self._one, number)] = number
                    done, _ = wait(running, return_when=FIRST_COMPLETED)
                    for future in done:
                        self._took(running.pop(future), future)
            except BaseException:
                threads.shutdown(wait=False, cancel_futures=True)
                raise

    def _one(self, number: int) -> Counter[str]:
        name, piece = self._plan.pieces[number]
        tables = self._sources[name].fetch_piece(piece)
        return self._store.store(number, self._kept(tables))

    def _kept(self, tables: Iterator[tuple[str, pa.Table]]) -> Iterator[tuple[str, pa.Table]]:
        from ragprof.rows import conform

        for table, rows in tables:
            rows = conform(table, rows)
            if self._wanted is not None and table == "spans":
                rows = rows.filter(pc.is_in(rows.column("trace_id"), value_set=self._wanted))
            if self.rules is not None:
                with self._redacting:  # it counts what it replaces
                    rows = redaction.redact_rows(table, rows, self.rules)
            yield table, rows

    def _took(self, number: int, future: Future[Counter[str]]) -> None:
        name = self._plan.pieces[number][0]
        try:
            rows = future.result()
        except SourceError as error:
            self._failed[name] += 1
            self._lacks(number, str(error))
            return
        self._failed[name] = 0
        self._finished(rows)

    def _finished(self, rows: Counter[str]) -> None:
        self._rows += rows
        self._done += 1
        self._progress(self._done, len(self._plan.pieces), self._rows)

    def _lacks(self, number: int, why: str) -> None:
        name, piece = self._plan.pieces[number]
        window = f"{iso(piece.window.start)}/{iso(piece.window.end)}"
        self.missing.append({"source": name, "query": piece.text, "window": window, "why": why})


# Surroundings


@contextlib.contextmanager
def _sources(settings: Config) -> Iterator[list[Source]]:
    sources = config.connect(settings)
    try:
        yield sources
    finally:
        for source in sources:
            source.close()


@contextlib.contextmanager
def _pieces(out: Path) -> Iterator[Pieces]:
    store = Pieces(pieces.partial_folder(out))
    try:
        yield store
    finally:
        store.close()
        if store.plan is None:  # nothing was begun
            shutil.rmtree(store.folder, ignore_errors=True)


def _kept_plan(store: Pieces, settings: Config, slow: str) -> Plan | None:
    """The plan of an earlier call with the same configuration; None when there is none."""
    kept = store.plan
    if kept is None:
        return None
    if kept.get("fingerprint") != settings.fingerprint() or kept.get("slow") != slow:
        raise ConfigError(
            f"{store.folder} holds a capture with another configuration; finish it with that, "
            "remove the folder, or choose another --out."
        )
    choice = kept["choice"]
    return Plan(
        Window(**kept["window"]),
        [(name, pieces.from_json(piece)) for name, piece in kept["pieces"]],
        None if choice is None else choosing.Choice(**choice),
        kept["slow"],
        kept["id"],
        kept["fingerprint"],
        kept["hash_key"],
        went_on=True,
    )


def _plan_json(plan: Plan) -> dict[str, Any]:
    choice = plan.choice
    return {
        "id": plan.id,
        "window": {"start": plan.window.start, "end": plan.window.end},
        "pieces": [[name, pieces.to_json(piece)] for name, piece in plan.pieces],
        "choice": None
        if choice is None
        else {"trace_ids": choice.trace_ids, "operations": choice.operations},
        "slow": plan.slow,
        "fingerprint": plan.fingerprint,
        "hash_key": plan.hash_key,
    }


def _refuse_taken(out: Path) -> None:
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ConfigError(f"{out} exists already; choose another --out or remove it.")


def _remove_earlier(out: Path, plan: Plan) -> None:
    """What an earlier call of the same capture wrote gives way to the fuller Recording."""
    if not (out / MANIFEST).exists():
        return
    try:
        own = recording.open(out).manifest.get("capture", {}).get("id") == plan.id
    except RagprofError:
        own = plan.went_on
    if not own:
        raise ConfigError(f"{out} exists already and is another Recording; choose another --out.")
    shutil.rmtree(out)


def _client(source: Source) -> Any:
    found = getattr(source, "client", None) or getattr(getattr(source, "api", None), "client", None)
    return found if hasattr(found, "received") else None


def _clocks(sources: Sequence[Source]) -> dict[str, int]:
    """By source: its clock less ours, as far as its answers said it; to a second."""
    clients = {source.name: _client(source) for source in sources}
    ahead = {name: getattr(client, "clock_ahead", None) for name, client in clients.items()}
    return {name: round(seconds) for name, seconds in ahead.items() if seconds is not None}


def _manifest(
    settings: Config,
    plan: Plan,
    sources: Sequence[Source],
    store: Pieces,
    fetched: _Fetch,
    made: assembly.Assembly,
) -> dict[str, Any]:
    rows = {n: store.rows(n) for n in range(len(plan.pieces)) if store.has(n)}
    by_source: dict[str, Counter[str]] = {}
    for number, counted in rows.items():
        by_source.setdefault(plan.pieces[number][0], Counter()).update(counted)
    return {
        "sources": [
            {
                "name": source.name,
                **source.describe(),
                "rows": dict(by_source.get(source.name, {})),
                "missing": sum(each["source"] == source.name for each in fetched.missing),
            }
            for source in sources
        ],
        "queries": [
            {
                "source": name,
                "query": piece.text,
                "start": iso(piece.window.start),
                "end": iso(piece.window.end),
                "rows": dict(rows[number]) if number in rows else None,
            }
            for number, (name, piece) in enumerate(plan.pieces)
        ],
        "capture": {
            "id": plan.id,
            "slow": plan.slow,
            "chosen": None if plan.choice is None else plan.choice.operations,
            "services": list(settings.services),
            "doubled_spans": made.doubled,
        },
        "missing": fetched.missing,
        "coverage": {**made.coverage, "clocks_ahead_seconds": _clocks(sources)},
        "stacks": made.stacks,
    }
