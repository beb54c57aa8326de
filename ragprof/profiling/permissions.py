"""Why one process may not look into another, and the way out."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

CAP_SYS_PTRACE = 19
_REFUSED = (
    "permission denied",
    "operation not permitted",
    "eperm",
    "eacces",
    "os error 1)",
    "os error 13)",
)


@dataclass(frozen=True)
class Facts:
    """What decides about tracing; unknown values are None."""

    exists: bool = True
    own_uid: int = 0
    own_gid: int = 0
    own_ptrace: bool = False
    """Whether this process has CAP_SYS_PTRACE."""
    uid: int | None = None
    gid: int | None = None
    yama: int | None = None
    """kernel.yama.ptrace_scope; None where the kernel has no Yama."""
    container: bool = False
    """Whether this process runs in a container."""
    command_line: str = ""
    """Of the target."""

    @property
    def program(self) -> str:
        """The first word of the target's command line."""
        return self.command_line.partition(" ")[0]


def facts(pid: int, proc: Path = Path("/proc")) -> Facts:
    """The facts about this process and process ``pid``."""
    target = _status(proc / str(pid) / "status")
    own = _status(proc / "self" / "status")
    return Facts(
        exists=bool(target),
        own_uid=os.geteuid(),
        own_gid=os.getegid(),
        own_ptrace=bool(int(own.get("CapEff", "0"), 16) >> CAP_SYS_PTRACE & 1),
        uid=_first(target.get("Uid")),
        gid=_first(target.get("Gid")),
        yama=_number(proc / "sys/kernel/yama/ptrace_scope"),
        container=_contained(),
        command_line=_command_line(proc / str(pid) / "cmdline"),
    )


def is_refusal(message: str) -> bool:
    """Whether the words of py-spy or the kernel speak of permissions."""
    lower = message.lower()
    return any(sign in lower for sign in _REFUSED)


def explain(message: str, pid: int, known: Facts) -> str:
    """One sentence on why process ``pid`` could not be read, and what to do next.

    ``message`` is what py-spy said. The most particular reason comes first: gone, not Python,
    system calls filtered, another user, root without the capability, Yama.
    """
    lower = message.lower()
    if not known.exists or "no such file or directory" in lower or "no such process" in lower:
        return f"no process has the id {pid} (any more); look it up with `ps`"
    if "failed to find python version" in lower or "failed to find a python" in lower:
        named = f" ({known.program})" if known.program else ""
        return (
            f"process {pid}{named} is not a Python program that py-spy knows; "
            "give the id of the Python process itself, perhaps a child of this one (`ps --forest`)"
        )
    if not is_refusal(message):
        line = next((one for one in message.splitlines() if one.strip()), "it said nothing")
        return f"py-spy could not read process {pid}: {line.strip()[:300]}"
    if "suspend process" in lower:
        return (
            f"process {pid} may not be paused: a seccomp filter or a policy forbids ptrace here; "
            "try --nonblocking, which reads without pausing"
        )
    return _refused(pid, known)


def _refused(pid: int, known: Facts) -> str:
    other = known.uid is not None and (known.uid, known.gid) != (known.own_uid, known.own_gid)
    if known.own_uid == 0 and not known.own_ptrace:
        same = f"run it as uid {known.uid} and gid {known.gid}, the target's own" if other else ""
        allow = (
            "start this container with the capability (docker run --cap-add SYS_PTRACE, or "
            "securityContext.capabilities.add in Kubernetes)"
            if known.container
            else "give this shell the capability CAP_SYS_PTRACE"
        )
        ways = ", or ".join(filter(None, (same, allow)))
        return f"root has no CAP_SYS_PTRACE here, so process {pid} may not be read: {ways}"
    if other:
        return (
            f"process {pid} belongs to uid {known.uid} and gid {known.gid}, and this is uid "
            f"{known.own_uid} and gid {known.own_gid}: both must be the same; run it as that user "
            f"(sudo -u '#{known.uid}' -g '#{known.gid}' ragprof attach {pid}) or as root with "
            "CAP_SYS_PTRACE"
        )
    if known.yama in (1, 2):
        who = "a process's own parent" if known.yama == 1 else "administrators"
        return (
            f"kernel.yama.ptrace_scope is {known.yama}: only {who} may read process {pid}; run it "
            "as root (sudo), start the program with `ragprof profile`, or have an administrator "
            "set `sysctl kernel.yama.ptrace_scope=0`"
        )
    if known.yama == 3:
        return (
            "kernel.yama.ptrace_scope is 3: nobody may read another process until the next boot; "
            "start the program with `ragprof profile`, or use the service's own endpoint"
        )
    where = "this container" if known.container else "this system"
    return (
        f"process {pid} may not be read, although it has the same user: a policy of {where} "
        "(seccomp, SELinux, AppArmor, or a process that is not dumpable) forbids it; try "
        "--nonblocking, run it as root, or use the service's own /debug/pprof/profile"
    )


def _status(path: Path) -> dict[str, str]:
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return {}
    pairs = (line.partition(":") for line in text.splitlines())
    return {name: value.strip() for name, _, value in pairs}


def _first(words: str | None) -> int | None:
    """The effective id: the second of real, effective, saved, file system."""
    return int(words.split()[1]) if words else None


def _number(path: Path) -> int | None:
    try:
        return int(path.read_text(encoding="ascii"))
    except (OSError, ValueError):
        return None


def _contained() -> bool:
    if os.environ.get("KUBERNETES_SERVICE_HOST") or os.path.exists("/.dockerenv"):
        return True
    return os.path.exists("/run/.containerenv")


def _command_line(path: Path) -> str:
    try:
        words = path.read_bytes().split(b"\0")
    except OSError:
        return ""
    return " ".join(word.decode("utf-8", "replace") for word in words if word)
