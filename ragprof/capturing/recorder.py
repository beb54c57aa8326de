"""The recorder: one context manager that runs every source of a Recording."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ragprof.capturing import changes, connections, loglines, marks, processes
from ragprof.capturing.child import Child, environment, new_spool
from ragprof.capturing.grpc_receiver import GrpcReceiver
from ragprof.capturing.intake import Intake
from ragprof.capturing.outside import OutsideSampler
from ragprof.capturing.progress import Progress
from ragprof.capturing.receiver import Receiver
from ragprof.capturing.scrape import Scraper, write_points
from ragprof.capturing.services import Services
from ragprof.capturing.stacks import Dictionary, Spool
from ragprof.journal import Journal
from ragprof.manifest import RecordingError
from ragprof.sources.otlp import table
from ragprof.sources.series import Series, SeriesDictionary, labels
from ragprof.tables import LOGS

POLL = 0.25  # seconds between looks at the spool and flushes of log lines
FACTS = 1.0  # seconds between process facts
SAMPLER_STARTS = 4.0  # seconds within which the sampler reports from inside a child


class _CountedJournal(Journal):
    """A journal that remembers what was refused, for the progress line."""

    def __init__(self, path: Path) -> None:
        self.refused: Counter[str] = Counter()
        super().__init__(path)

    def refuse(self, reason: str, count: int = 1) -> None:
        self.refused[reason] += count
        super().refuse(reason, count)


class Recorder:
    """Records from entry to exit into the folder `out`; then `ragprof.recording.open(out)`.

    `metrics_urls` are scraped once a second. `sample_hz` is the asked rate of the stack sampler
    in the children, 0 for no stacks. `progress` shows what is taken on stderr; `echo` passes the
    children's output on. Raises RagprofError when `out` cannot be created.
    """

    def __init__(
        self,
        out: Path,
        *,
        metrics_urls: Sequence[str] = (),
        sample_hz: float = 100,
        progress: bool = True,
        echo: bool = True,
        stdout: int = 1,
    ) -> None:
        self.out = Path(out)
        self.children: list[Child] = []
        self.counts: Counter[str] = Counter()  # rows taken by table
        self._urls, self._hz = list(metrics_urls), sample_hz
        self._progress_wanted, self._echo, self._stdout = progress, echo, stdout
        self._stack = contextlib.ExitStack()
        self._lock = threading.Lock()
        self._lines: list[tuple[Child | None, str, str, int]] = []
        self._scrapers: list[Scraper] = []
        self._alive: dict[int, tuple[int, str]] = {}  # process -> (start ticks, service)
        self._pids: list[int] = []
        self._outside: dict[int, OutsideSampler] = {}  # by process
        self._watched: list[int] = []  # processes that are not our children
        self._senders: dict[int, int] = {}  # socket -> process
        self._stop = threading.Event()
        self._token = marks.new_token()

    # Entry and exit

    def __enter__(self) -> Recorder:
        for url in self._urls:
            _check(url)
        self._journal = _CountedJournal(self.out)
        try:
            self._enter()
        except BaseException:
            self._stack.close()
            self._journal.close()
            raise
        return self

    def _enter(self) -> None:
        self._series = SeriesDictionary(lambda rows: self._journal.append("series", rows))
        self._services = Services(
            lambda name, pid, before, now: self._change(changes.version(name, pid, before, now))
        )
        self._intake = Intake(self._journal, self._series, self._services.resource_seen)
        self._start_times = changes.StartTimes()
        self._receiver = self._stack.enter_context(
            Receiver(
                self._journal,
                self._intake,
                process_of_port=self._process_of_port,
                mark=self._posted_mark,
                token=self._token,
            )
        )
        self._grpc = self._stack.enter_context(
            GrpcReceiver(self._intake, process_of_port=self._process_of_port)
        )
        self.endpoint = self._receiver.endpoint
        self._dictionary, self._dictionary_lock = Dictionary(), threading.Lock()
        self._spool: Spool | None = None
        if self._hz > 0:
            self._spool = Spool(
                self._stack.enter_context(new_spool()),
                self._journal,
                self._series,
                self._services,
                self._dictionary,
                self._dictionary_lock,
                taken=lambda count: self._count("samples", count),
            )
        announced = marks.announce(self.out, self.endpoint, self._token)
        if announced is not None:
            self._stack.callback(announced.unlink, missing_ok=True)
        self._progress = Progress(self.out, self.taken, shown=self._progress_wanted)
        self._stack.enter_context(self._progress)
        self._threads = [
            threading.Thread(target=self._every, args=(seconds, work), name=name, daemon=True)
            for name, seconds, work in (
                ("ragprof-poll", POLL, self._poll),
                ("ragprof-facts", FACTS, self._facts),
            )
        ]
        for thread in self._threads:
            thread.start()
        for url in self._urls:
            self.scrape(url)

    def __exit__(self, *exc: object) -> None:
        try:
            self.stop_children()
            self._stop.set()
            for scraper in self._scrapers:
                scraper.stop()
            for outside in self._outside.values():
                outside.stop()
            for thread in self._threads:
                thread.join(10)
            self._facts()
            self._poll()
        finally:
            try:
                self._stack.close()  # the receivers finish what they have begun
            finally:
                self._journal.note(**self._manifest())
                self._journal.close()

    def stop_children(self) -> None:
        """End all children, the last started first."""
        for child in reversed(self.children):
            child.stop()

    # What a user of the recorder calls

    def start(
        self,
        command: Sequence[str],
        *,
        env: Mapping[str, str] | None = None,
        service: str = "",
        cwd: str | os.PathLike[str] | None = None,
    ) -> Child:
        """Start a command that is recorded; its output is passed on and kept as log records.

        `env` is added to this process's environment; `service` becomes OTEL_SERVICE_NAME where
        that is not set. Raises RagprofError when the command cannot be started.
        """
        full = environment(
            {**os.environ, **(env or {})},
            endpoint=self.endpoint,
            spool=self._spool.folder if self._spool else None,
            hz=self._hz,
            service=service,
        )
        box: list[Child] = []

        def record(stream: str, line: str, arrived: int) -> None:
            with self._lock:
                self._lines.append((box[0] if box else None, stream, line, arrived))

        child = Child(command, env=full, cwd=cwd, output=self._pass_on, record=record)
        box.append(child)
        self.children.append(child)
        self._services.started(child.pid, full.get("OTEL_SERVICE_NAME", ""))
        self._seen_start(child.pid)
        return child

    def watch(self, pid: int) -> None:
        """Record facts about a process that somebody else started, and its descendants."""
        self._services.started(pid, "")
        self._watched.append(pid)
        if self._hz > 0:
            self._sample_outside(pid)

    def scrape(self, url: str, service: str = "") -> None:
        """Scrape a metrics page once a second; `service` labels it, else who listens there."""
        port = _check(url)
        self._scrapers.append(
            Scraper(
                url,
                self._journal,
                self._series,
                service=(lambda: service)
                if service
                else (lambda: self._services.of_port(port, self._pids)),
                process_started=lambda name, seconds: self._change(
                    self._start_times.seen(url, name, seconds)
                ),
                taken=lambda count: self._count("metrics", count),
            )
        )

    def mark(self, text: str, kind: str = "mark", service: str = "", **attributes: Any) -> None:
        """Note a change now; `kind` is one of changes.KINDS. Raises RagprofError otherwise."""
        self._posted_mark(
            {"text": text, "kind": kind, "service": service, "attributes": attributes}
        )

    def taken(self) -> dict[str, int]:
        """Rows taken so far, by table."""
        with self._lock:
            counts = self.counts + self._intake.taken
        return {**counts, "refused": self.refused()}

    def refused(self) -> int:
        """What was refused so far, all reasons together."""
        return self._journal.refused.total()

    # The threads

    def _every(self, seconds: float, work: Callable[[], None]) -> None:
        due = time.monotonic()
        while not self._stop.is_set():
            try:
                work()
            except Exception as error:  # noqa: BLE001  # one source must not end the others
                self._journal.refuse(f"{work.__name__.strip('_')} failed: {error!r}"[:300])
            due = max(due + seconds, time.monotonic())
            self._stop.wait(due - time.monotonic())

    def _poll(self) -> None:
        self._write_lines()
        if self._spool is not None:
            self._spool.poll()
        self._progress.show()

    def _write_lines(self) -> None:
        with self._lock:
            lines, self._lines = self._lines, []
        rows = [
            loglines.row(line, arrived, self._services.of(child.pid) if child else "", stream)
            for child, stream, line, arrived in lines
        ]
        if not rows:
            return
        columns = {
            name: [row[name] for row in rows] for name in LOGS.names if not name.endswith("_key")
        }
        try:
            self._journal.append("logs", table(LOGS, columns))
        except RecordingError:
            self._journal.refuse("log line that could not be written", len(rows))
            return
        self._count("logs", len(rows))

    def _facts(self) -> None:
        roots = [child.pid for child in self.children] + self._watched
        pids: list[int] = []
        for root in roots:
            below = processes.tree([root])
            self._services.below(root, below)
            pids += below
        self._pids = pids
        self._starts_and_ends(pids)
        self._fall_back()
        now = time.time_ns()
        points = []
        for name, value, unit, type_, own in self._process_facts.of(pids):
            service = self._services.of(int(own["process"])) if "process" in own else ""
            temporality = "cumulative" if type_ == "counter" else ""
            key = Series(name, labels(own, {"service": service}), type_, unit, temporality)
            points.append((key, {"time": now, "value": value}))
        try:
            write_points(self._journal, self._series, points)
        except RecordingError:
            self._journal.refuse("metric point that could not be written", len(points))
            return
        self._count("metrics", len(points))

    _process_facts = processes.Facts()

    def _starts_and_ends(self, pids: list[int]) -> None:
        alive: dict[int, tuple[int, str]] = {}
        for pid in pids:
            process = processes.read(pid)
            if process is None or process.state == "Z":
                continue
            before = self._alive.get(pid)
            if before is None or before[0] != process.start_ticks:
                self._seen_start(pid)
            alive[pid] = (process.start_ticks, self._services.of(pid))
        children = {child.pid: child for child in self.children}
        for pid, (ticks, service) in self._alive.items():
            if pid not in alive or alive[pid][0] != ticks:
                code = children[pid].wait(1) if pid in children else None
                self._change(changes.ended(pid, service, code))
        self._alive = alive

    def _seen_start(self, pid: int) -> None:
        process = processes.read(pid)
        if process is None:
            return
        service, command = self._services.of(pid), processes.command(pid)
        self._alive[pid] = (process.start_ticks, service)
        self._change(changes.started(pid, command, service, processes.started(process)))

    def _fall_back(self) -> None:
        """Sample a child from outside when no sampler reported from inside it in time."""
        if self._spool is None:
            return
        inside = set(self._spool.processes())
        for child in self.children:
            late = time.time_ns() - child.started_ns > SAMPLER_STARTS * 1e9
            if not late or child.pid in self._outside or child.returncode is not None:
                continue
            below = processes.tree([child.pid])
            pythons = [pid for pid in below if processes.is_python(pid)]
            if pythons and not inside.intersection(below):
                self._sample_outside(child.pid)

    def _sample_outside(self, pid: int) -> None:
        self._outside[pid] = OutsideSampler(
            pid,
            self._hz,
            self._journal,
            self._services,
            self._dictionary,
            self._dictionary_lock,
            taken=lambda count: self._count("samples", count),
        )

    # What the sources call

    def _process_of_port(self, client: int, server: int) -> int:
        """Who sends over this connection; 0 when it is of another machine or user."""
        socket = connections.inode(client, server)
        pid = self._senders.get(socket, 0)
        if socket and not pid:
            roots = [child.pid for child in self.children] + self._watched
            pid = connections.owner([socket], processes.tree(roots))
            # A worker whose parent has just ended still sends its last spans, from outside the
            # tree; and other programs find ports 4317 and 4318.
            pid = pid or connections.owner([socket], processes.everyone())
            if len(self._senders) > 10_000:
                self._senders.clear()
            self._senders[socket] = pid
        return pid

    def _posted_mark(self, fields: dict[str, Any]) -> None:
        text, kind, service, attributes = marks.checked(fields)
        self._change(changes.row(kind, text, service, attributes))

    def _change(self, row: dict[str, Any] | None) -> None:
        if row is None:
            return
        try:
            self._journal.append("changes", [row])
        except RecordingError:
            self._journal.refuse("change that could not be written")
            return
        self._count("changes", 1)

    def _count(self, name: str, count: int) -> None:
        with self._lock:
            self.counts[name] += count

    def _pass_on(self, stream: str, data: bytes) -> None:
        if self._echo:
            self._progress.pass_on(self._stdout if stream == "stdout" else 2, data)

    def _manifest(self) -> dict[str, Any]:
        facts: dict[str, Any] = {
            "sources": [
                {"kind": "otlp", "http_ports": self._receiver.ports, "grpc_port": self._grpc.port},
                *({"kind": "scrape", **scraper.facts()} for scraper in self._scrapers),
                *(outside.facts() for outside in self._outside.values()),
                *(
                    {"kind": "command", "command": child.command, "exit_code": child.returncode}
                    for child in self.children
                ),
            ],
        }
        if self._spool is not None:
            facts["sampler"] = {str(pid): said for pid, said in self._spool.processes().items()}
        return facts


def _check(url: str) -> int:
    from urllib.parse import urlsplit

    from ragprof.capturing.scrape import checked_url

    parts = urlsplit(checked_url(url))
    return parts.port or (443 if parts.scheme == "https" else 80)
