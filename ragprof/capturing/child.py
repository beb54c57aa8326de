"""A recorded child: started with the environment that makes it report, its output passed on."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import ragprof
from ragprof.capturing.loglines import Lines
from ragprof.errors import RagprofError

# Not imported: the sampler is for the child, and this process needs none of it.
BOOTSTRAP = Path(ragprof.__file__).parent / "sampler" / "bootstrap"
GUARD = Path(__file__).with_name("spool_guard.py")
GRACE = 8.0  # seconds for each of SIGINT and SIGTERM before the next, stronger signal
SIGNALS = ("TRACES", "METRICS", "LOGS")

Output = Callable[[str, bytes], None]  # stream (stdout, stderr), bytes
Record = Callable[[str, str, int], None]  # stream, record, time it arrived (ns)


def environment(
    base: Mapping[str, str], *, endpoint: str, spool: Path | None, hz: float, service: str = ""
) -> dict[str, str]:
    """The child's environment: OpenTelemetry sends here, and the sampler loads itself.

    Everything that says *where* telemetry goes is replaced; how often and how much is only set
    when it is not set already.
    """
    env = dict(base)
    for name in SIGNALS:  # these would win over the general endpoint
        for what in ("ENDPOINT", "PROTOCOL", "HEADERS", "COMPRESSION", "CERTIFICATE"):
            env.pop(f"OTEL_EXPORTER_OTLP_{name}_{what}", None)
    env.pop("OTEL_EXPORTER_OTLP_HEADERS", None)  # credentials of another backend
    env.pop("OTEL_EXPORTER_OTLP_CERTIFICATE", None)
    env.pop("OTEL_SDK_DISABLED", None)
    env.update(
        OTEL_EXPORTER_OTLP_ENDPOINT=endpoint,
        OTEL_EXPORTER_OTLP_PROTOCOL="http/protobuf",
        OTEL_TRACES_EXPORTER="otlp",
        OTEL_METRICS_EXPORTER="otlp",
        OTEL_LOGS_EXPORTER="otlp",
        PYTHONUNBUFFERED="1",
    )
    for name, value in {
        "OTEL_BSP_SCHEDULE_DELAY": "500",  # ms, so that little is lost when the child is killed
        "OTEL_BLRP_SCHEDULE_DELAY": "500",
        "OTEL_METRIC_EXPORT_INTERVAL": "1000",
        "OTEL_BSP_MAX_QUEUE_SIZE": "16384",  # spans; the default 2048 drops bursts
        "OTEL_PYTHON_LOGGING_AUTO_INSTRUMENTATION_ENABLED": "true",
    }.items():
        env.setdefault(name, value)
    if service:
        env.setdefault("OTEL_SERVICE_NAME", service)
    for name in ("NO_PROXY", "no_proxy"):  # a proxy would swallow what goes to this machine
        env[name] = ",".join(filter(None, (env.get(name, ""), "127.0.0.1,localhost,::1")))
    if spool is not None:
        env["RAGPROF_SPOOL"] = str(spool)
        env["RAGPROF_SAMPLER_HZ"] = f"{hz:g}"
        env["PYTHONPATH"] = os.pathsep.join(
            filter(None, (str(BOOTSTRAP), env.get("PYTHONPATH", "")))
        )
    return env


class Child:
    """A running command in a process group of its own.

    `output` gets its bytes as they come, `record` its lines. Raises RagprofError when the command
    cannot be started.
    """

    def __init__(
        self,
        command: Sequence[str],
        *,
        env: Mapping[str, str],
        cwd: str | os.PathLike[str] | None = None,
        output: Output,
        record: Record,
    ) -> None:
        if not command:
            raise RagprofError("There is no command to record; give one after `--`.")
        self.command = list(command)
        self.lines_cut = 0
        self._output, self._record = output, record
        # A terminal is not handed on: only its foreground group may read it.
        stdin = subprocess.DEVNULL if sys.stdin is None or sys.stdin.isatty() else None
        try:
            self._process = subprocess.Popen(
                self.command,
                env=dict(env),
                cwd=cwd,
                stdin=stdin,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                process_group=0,
            )
        except FileNotFoundError as error:
            missing = error.filename or self.command[0]
            if os.path.exists(missing):
                raise CommandNotFound(
                    f"The interpreter in the first line of {missing!r} does not exist; install "
                    "it or correct the line."
                ) from None
            raise CommandNotFound(
                f"{missing!r} does not exist; check the command after `--` and the PATH."
            ) from None
        except OSError as error:
            raise RagprofError(
                f"{self.command[0]!r} cannot be started ({error.strerror}); "
                "check that it is executable."
            ) from None
        self.pid = self._process.pid
        self.started_ns = time.time_ns()
        self._ended = threading.Event()
        self._readers = [
            threading.Thread(target=self._read, args=(name, pipe), daemon=True)
            for name, pipe in (("stdout", self._process.stdout), ("stderr", self._process.stderr))
        ]
        for reader in self._readers:
            reader.start()

    @property
    def returncode(self) -> int | None:
        """The exit code, negative: the signal that ended it, None while it runs."""
        return self._process.poll()

    def wait(self, timeout: float | None = None) -> int | None:
        """The exit code, or None when `timeout` (seconds) passed first."""
        try:
            return self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            return None

    def signal(self, number: int, *, group: bool = False) -> None:
        """Send a signal to the command, or as a terminal does to its whole group."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            if group:
                os.killpg(self.pid, number)
            elif self.returncode is None:
                os.kill(self.pid, number)

    def stop(self, grace: float = GRACE) -> int:
        """End the command and all its group: SIGINT, SIGTERM, SIGKILL; returns the exit code.

        SIGINT first, because Python ends by it with its exit handlers run, which send the last
        spans.
        """
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGKILL):
            if self.returncode is not None:
                break
            self.signal(number, group=True)
            self.wait(grace)
        self.close()
        return self._process.wait()

    def close(self) -> None:
        """After the command ended: end what is left of its group, and read the last output."""
        for number, patience in ((signal.SIGTERM, 2.0), (signal.SIGKILL, 1.0)):
            if not self._group_lives():
                break
            self.signal(number, group=True)
            until = time.monotonic() + patience
            while self._group_lives() and time.monotonic() < until:
                time.sleep(0.02)
        self._ended.set()
        for reader in self._readers:
            reader.join(5)

    def _group_lives(self) -> bool:
        try:
            os.killpg(self.pid, 0)
        except (ProcessLookupError, PermissionError):
            return False
        return True

    def _read(self, stream: str, pipe: object) -> None:
        lines = Lines()
        fd = pipe.fileno()  # type: ignore[attr-defined]
        poll = select.poll()
        poll.register(fd, select.POLLIN)
        while True:
            ready = poll.poll(500)
            if not ready:
                self._records(stream, lines.idle())
                if self._ended.is_set():  # a process that left the group holds the pipe open
                    break
                continue
            data = os.read(fd, 1 << 16)
            if not data:
                break
            self._output(stream, data)
            self._records(stream, lines.feed(data))
        self._records(stream, lines.close())
        self.lines_cut += lines.cut

    def _records(self, stream: str, records: list[str]) -> None:
        now = time.time_ns()
        for each in records:
            self._record(stream, each, now)


class CommandNotFound(RagprofError):  # the shell's words
    """The command does not exist; shells answer 127."""


@contextlib.contextmanager
def new_spool() -> Iterator[Path]:
    """An empty folder for the sampler's files, for this user only; a guard removes it at last."""
    folder = Path(tempfile.mkdtemp(prefix="ragprof-spool-"))
    guard = subprocess.Popen(
        [sys.executable, "-I", "-S", GUARD, folder],
        stdin=subprocess.PIPE,  # closed by the system if we are killed
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,  # the terminal's Ctrl-C and hang-up are not for it
    )
    try:
        yield folder
    finally:
        assert guard.stdin is not None
        guard.stdin.close()
        threading.Thread(target=guard.wait, daemon=True).start()  # no zombie in a long program
