"""Stacks that py-spy takes of running processes while a capture is made."""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Sequence
from pathlib import Path

from ragprof import recording
from ragprof.capturing import processes
from ragprof.capturing.assembly import Assembly
from ragprof.capturing.outside import OutsideSampler
from ragprof.capturing.pieces import Pieces
from ragprof.capturing.services import Services
from ragprof.capturing.stacks import Dictionary
from ragprof.journal import Journal
from ragprof.sources.settings import ConfigError
from ragprof.sources.source import SourceError, Window

HZ = 100.0
FOLDER = "attached"
NUMBER = 999_999  # of the piece that holds these samples


def sample(folder: Path, pids: Sequence[int], seconds: float, window: Window) -> Window:
    """Sample processes and their children for some seconds into FOLDER; the window, made longer.

    Raises ConfigError for a process that does not run, SourceError when py-spy may not look.
    """
    for pid in pids:
        if processes.read(pid) is None:
            raise ConfigError(f"No process has the id {pid}; look it up with `ps`.")
    target = folder / FOLDER
    shutil.rmtree(target, ignore_errors=True)
    dictionary, lock, services = Dictionary(), threading.Lock(), Services(lambda *_: None)
    with Journal(target) as journal:
        samplers = [OutsideSampler(pid, HZ, journal, services, dictionary, lock) for pid in pids]
        until = time.monotonic() + seconds
        while time.monotonic() < until and not any(each.problem for each in samplers):
            time.sleep(0.1)
        for each in samplers:
            each.stop()
    problem = next((each.problem for each in samplers if each.problem), "")
    if problem:
        shutil.rmtree(target, ignore_errors=True)
        raise SourceError(f"No stacks by --attach: {problem}.")
    return Window(window.start, max(window.end, time.time_ns()))


def add(journal: Journal, made: Assembly, folder: Path) -> None:
    """Add what `sample` took to the Recording, when it took anything."""
    target = folder / FOLDER
    if not target.exists():
        return
    taken = recording.open(target)
    tables = [
        (name, taken.dataset(name).to_table())
        for name in ("frames", "stacks", "samples")
        if name in taken.manifest["tables"]
    ]
    aside = Pieces(folder / f"{FOLDER}.pieces")
    try:
        aside.store(NUMBER, tables)
        made.add(aside, NUMBER)
    finally:
        aside.remove()
