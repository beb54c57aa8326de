"""What is asked of the ladder, what was learnt on it, and how a rung fails."""

from __future__ import annotations

import math
import platform
import secrets
from collections.abc import Callable
from dataclasses import dataclass, field

from ragprof.profiles.model import Profile
from ragprof.profiling import pyspy
from ragprof.profiling.pods.cluster import Cluster, PodError
from ragprof.profiling.pods.streams import Recorded
from ragprof.profiling.pods.target import Facts, Process, Target
from ragprof.profiling.pyspy import Options, Progress


class RungFailed(PodError):
    """Why one rung does not hold, and what an administrator would have to allow for it."""

    def __init__(self, reason: str, allow: str = "") -> None:
        super().__init__(reason)
        self.reason, self.allow = reason, allow


@dataclass
class Request:
    """One attempt to profile a container."""

    cluster: Cluster
    target: Target
    seconds: float
    options: Options
    pid: int | None = None
    """In the container; None: its outermost Python process."""
    image: str | None = None
    """Has py-spy and a shell; None: the target's own image, and py-spy is sent."""
    job_namespace: str | None = None
    port: int | None = None
    token: str | None = None
    progress: Progress = lambda passed, whole: None
    say: Callable[[str], None] = lambda text: None
    facts: Facts | None = None
    """What a probe by exec saw, if one was possible."""
    process: Process | None = None
    names: str = field(default_factory=lambda: secrets.token_hex(4))
    """Makes the names of what is created unlike any other."""

    @property
    def machine(self) -> str:
        """As `uname -m` says it; without a probe the node is taken to be like this machine."""
        return (self.facts.machine if self.facts else "") or platform.machine()

    def py_spy_arguments(self, subprocesses: bool = False) -> list[str]:
        """The arguments of ``py-spy record``, without the process and the output."""
        words = [*self.options.words()]
        if subprocesses and "--subprocesses" not in words:
            words.append("--subprocesses")
        duration = str(max(1, math.ceil(self.seconds)))
        return ["record", "--format", "speedscope", "--duration", duration, *words]

    def tell(self, passed: float) -> None:
        """Progress of the recording."""
        self.progress(passed, self.seconds)

    def profile(self, recorded: Recorded, how: str) -> Profile:
        """The Profile of what py-spy wrote in a container."""
        pid = int((recorded.facts.get("target") or "0").split()[0])
        text = recorded.content.decode("utf-8", "replace")
        profile = pyspy.read(text, pid, str(self.target))
        notes = [f"{how}: process {pid} of {self.target}, {self.options.hz:g} Hz"]
        if "nonblocking" in recorded.facts:
            notes.append("seccomp denies pausing the process: some stacks may be torn")
        if recorded.stopped_after is not None:
            notes.append(
                f"stopped by Ctrl-C after {recorded.stopped_after:.1f} of {self.seconds:g} s"
            )
        return profile._with(notes=(*profile.notes, *notes))
