"""A whole program under an engine, as a child of this process: `ragprof profile`."""

from __future__ import annotations

import importlib.util
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

import ragprof
from ragprof.errors import RagprofError
from ragprof.profiles.model import Profile
from ragprof.profiling.session import BUDGET, EngineName
from ragprof.profiling.spool import SpoolProfile

# Not imported: the sampler is for the child.
BOOTSTRAP = Path(ragprof.__file__).parent / "sampler" / "bootstrap"
INSIDE = Path(__file__).with_name("inside.py")
PASSED_ON = ("SIGTERM", "SIGHUP", "SIGUSR1", "SIGUSR2")


class ProgramError(RagprofError):
    """A program that cannot be started, or that left no profile; ``exit_code`` as the shell has it.

    A program that fails by itself is no error: its exit code is part of the answer.
    """

    def __init__(self, message: str, exit_code: int = 1) -> None:
        super().__init__(message)
        self.exit_code = exit_code


def run_program(
    words: Sequence[str],
    *,
    module: bool = False,
    engine: EngineName = "sampler",
    hz: float = 100.0,
    stdout: int | None = None,
) -> tuple[Profile, int]:
    """Run ``python SCRIPT ARGUMENTS…`` (or ``-m MODULE``), and profile it to its end.

    Returns the Profile of wall nanoseconds and the exit code as shells give it (128 + signal). The
    sampler sees child processes too and loses at most half a second when the program is killed;
    the other engines see the main process, and its ordinary end is needed. ``stdout`` is a
    descriptor for the program's output. Raises ProgramError.
    """
    if not words:
        raise ProgramError("name a script, or a module after -m", 2)
    if not module and not Path(words[0]).exists():
        raise ProgramError(f"{words[0]!r} does not exist; check the path of the script", 2)
    name = " ".join(["-m", words[0]] if module else [Path(words[0]).name])
    with tempfile.TemporaryDirectory(prefix="ragprof-profile-") as folder:
        if engine == "sampler":
            return _sampled(words, module, hz, stdout, Path(folder), name)
        return _traced(words, module, engine, hz, stdout, Path(folder), name)


def _sampled(
    words: Sequence[str], module: bool, hz: float, stdout: int | None, folder: Path, name: str
) -> tuple[Profile, int]:
    path = os.pathsep.join(filter(None, (str(BOOTSTRAP), os.environ.get("PYTHONPATH", ""))))
    environment = {
        **os.environ,
        "PYTHONPATH": path,
        "RAGPROF_SPOOL": str(folder),
        "RAGPROF_SAMPLER_HZ": f"{hz:g}",
        "RAGPROF_SAMPLER_BUDGET": f"{BUDGET:g}",
    }
    command = [sys.executable, *(["-m"] if module else []), *words]
    code = _wait(command, environment, stdout)
    collected = SpoolProfile(name)
    collected.read(folder)
    return collected.build(), code


def _traced(
    words: Sequence[str],
    module: bool,
    engine: EngineName,
    hz: float,
    stdout: int | None,
    folder: Path,
    name: str,
) -> tuple[Profile, int]:
    if engine == "pyinstrument" and importlib.util.find_spec("pyinstrument") is None:
        raise ProgramError('pyinstrument is not installed: pip install "ragprof[lab]"')
    out = folder / "profile"
    kind = "module" if module else "script"
    command = [sys.executable, str(INSIDE), engine, str(out), f"{hz:g}", kind, *words]
    code = _wait(command, dict(os.environ), stdout)
    if not out.exists():
        raise ProgramError(
            f"the program ended (exit code {code}) without coming back to {engine}, by os._exit, "
            "exec or a signal: use the engine sampler",
            code or 1,
        )
    from ragprof.profiling import by_cprofile, by_pyinstrument

    read = by_cprofile.read if engine == "cprofile" else by_pyinstrument.read
    return read(out, name), code


def _wait(command: list[str], environment: dict[str, str], stdout: int | None) -> int:
    with _signals() as pending:
        try:
            child = subprocess.Popen(command, env=environment, stdout=stdout)
        except OSError as error:
            raise ProgramError(f"{command[0]} cannot be started: {error.strerror}") from None
        while True:
            try:
                code = child.wait(0.1)
                break
            except subprocess.TimeoutExpired:
                while pending:
                    child.send_signal(pending.pop(0))
    return 128 - code if code < 0 else code


@contextmanager
def _signals() -> Iterator[list[int]]:
    """Collect signals for the child; a terminal sends Ctrl-C to it by itself."""
    pending: list[int] = []

    def handle(number: int, frame: FrameType | None) -> None:
        if number != signal.SIGINT or not (sys.stdin and sys.stdin.isatty()):
            pending.append(number)

    numbers = [signal.SIGINT, *(getattr(signal, name) for name in PASSED_ON)]
    before = {number: signal.signal(number, handle) for number in numbers}
    try:
        yield pending
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
