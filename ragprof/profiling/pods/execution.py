"""Rung 1: py-spy by exec in the container, under the user of the process.

It needs no capability. py-spy is sent when the container has none, into a folder that is removed
at the end, or into memory where nothing can be written.
"""

from __future__ import annotations

from ragprof.profiles.model import Profile
from ragprof.profiling.pods import delivery, inside, streams, target
from ragprof.profiling.pods.cluster import PodError, Refused
from ragprof.profiling.pods.request import Request, RungFailed
from ragprof.profiling.pods.streams import Recorded
from ragprof.profiling.pods.target import Facts, Process

NAME = "exec in the container"


def climb(request: Request) -> Profile:
    """The Profile, or `RungFailed`. `PodError` where no rung can help: no Python process."""
    facts = look_around(request)
    process = request.process = target.process_of(facts, request.pid)
    user = _user(facts, process)
    command, py_spy = _command(request, facts, process, user)
    stream = _open(request, command)
    recorded = streams.record(stream, request.seconds, py_spy, request.tell)
    if not recorded.content:
        raise _failure(recorded, process, facts)
    return request.profile(recorded, "py-spy by exec in the container")


def look_around(request: Request) -> Facts:
    """Probe the container once. Raises `RungFailed` when exec is refused or nothing can run."""
    try:
        request.facts = target.probe(request.cluster, request.target)
    except Refused as refused:
        raise _refusal(refused) from refused
    except PodError as error:
        raise RungFailed(str(error), "a shell or Python in the image") from error
    return request.facts


def _open(request: Request, command: list[str]) -> object:
    where = request.target
    try:
        return request.cluster.open_exec(where.namespace, where.pod, where.container, command)
    except Refused as refused:
        raise _refusal(refused) from refused


def _refusal(refused: Refused) -> RungFailed:
    allow = "a role with get and create on pods/exec" if refused.status == 403 else ""
    return RungFailed(str(refused), allow)


def _user(facts: Facts, process: Process) -> str:
    """``uid:gid`` that py-spy must take on, or nothing when exec gives the right one."""
    if (facts.uid, facts.gid) == (process.uid, process.gid) or facts.can_trace:
        return ""
    if facts.uid == 0 and (facts.python_program or {"setpriv", "chroot"} & set(facts.programs)):
        return f"{process.uid}:{process.gid}"
    raise RungFailed(
        f"process {process.pid} runs as uid {process.uid} and gid {process.gid}, and exec as uid "
        f"{facts.uid} and gid {facts.gid}: both must be the same",
        "an ephemeral container, which may run as that user",
    )


def _command(
    request: Request, facts: Facts, process: Process, user: str
) -> tuple[list[str], bytes]:
    """The recorder's command, and the py-spy to send to it."""
    there = facts.programs.get("py-spy")
    py_spy = b"" if there else delivery.binary(facts.machine)
    source = there or f"stdin:{len(py_spy)}"
    children = any(each.parent == process.pid and each.python for each in facts.processes)
    words = request.py_spy_arguments(subprocesses=children)

    def arguments(place: str) -> tuple[str, ...]:
        return (source, place, request.names, str(process.pid), user, "raw", "yes", *words)

    native = request.options.native
    if facts.places and not facts.python_program:
        place = facts.places[0]
        kept = len(py_spy) if delivery.in_memory(facts, place) else 0
        delivery.check_memory(facts, native=native, in_memory=kept, python=False)
        return inside.shell("record", *arguments(place)), py_spy
    python = facts.python_program or facts.programs.get("python3") or facts.programs.get("python")
    if python is None:
        raise RungFailed(
            "nothing can be written in the container (read-only root file system, no writable "
            "folder whose files may run), and it has no python3 on its PATH to keep py-spy in "
            "memory",
            "an emptyDir volume at /tmp",
        )
    delivery.check_memory(facts, native=native, in_memory=len(py_spy), python=True)
    return inside.python(python, "record", *arguments("/")), py_spy


def _failure(recorded: Recorded, process: Process, facts: Facts) -> RungFailed:
    said = recorded.failed
    who = f"process {process.pid} (uid {process.uid}, gid {process.gid})"
    allow = "an ephemeral container with the capability SYS_PTRACE"
    if "its worker" in said:
        return RungFailed(f"{who}: {said}", allow)
    if "137" in recorded.status or recorded.facts.get("code") == "137":
        return RungFailed(
            "py-spy was killed in the container, perhaps for its memory",
            "a higher memory limit of the container",
        )
    if recorded.refused:
        if facts.yama:
            return RungFailed(
                f"the node's kernel.yama.ptrace_scope is {facts.yama}: {who} may not be read",
                allow,
            )
        return RungFailed(
            f"{who} may not be read with the same user: it changed its user after it started, or a "
            "policy forbids it",
            allow,
        )
    return RungFailed(said)
