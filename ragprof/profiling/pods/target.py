"""What to profile in a pod: the container, the process, and what the container says of itself."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from ragprof.profiling.permissions import CAP_SYS_PTRACE
from ragprof.profiling.pods import inside, streams
from ragprof.profiling.pods.cluster import Cluster, PodError

UNLIMITED = 1 << 62


@dataclass(frozen=True)
class Target:
    """A running container of a pod, as the API describes it."""

    namespace: str
    pod: str
    container: str
    container_id: str
    """Without the runtime's prefix: it is part of the names of the container's cgroups."""
    image: str
    node: str
    spec: dict[str, Any]
    """The pod's ``spec``."""

    @property
    def container_spec(self) -> dict[str, Any]:
        """The container's part of the pod's ``spec``."""
        return next(each for each in self.spec["containers"] if each["name"] == self.container)

    @property
    def user(self) -> tuple[int | None, int | None]:
        """uid and gid that the pod asks for; None: those of the image."""
        pod = self.spec.get("securityContext") or {}
        own = self.container_spec.get("securityContext") or {}
        return (
            own.get("runAsUser", pod.get("runAsUser")),
            own.get("runAsGroup", pod.get("runAsGroup")),
        )

    def __str__(self) -> str:
        return f"{self.namespace}/{self.pod}, container {self.container}"


@dataclass
class Process:
    """A process that the container sees."""

    pid: int
    program: str
    command: str = ""
    parent: int = 0
    uid: int = -1
    gid: int = -1
    memory: int = 0
    """Resident, in bytes."""
    seccomp: int = 0
    cgroup: str = ""

    @property
    def python(self) -> bool:
        first = self.command.split(" ", 1)[0]
        return "python" in self.program.lower() or "python" in first.lower()

    def __str__(self) -> str:
        return f"{self.pid} (uid {self.uid}, {self.command.strip()[:60] or self.program or '?'})"


@dataclass
class Facts:
    """What `inside/probe.*` saw, by exec in the container."""

    python_program: str | None
    """The Python that ran the probe, because there is no shell; None: a shell ran it."""
    machine: str = ""
    uid: int = -1
    gid: int = -1
    can_trace: bool = False
    """Whether exec has the capability SYS_PTRACE."""
    yama: int = 0
    """kernel.yama.ptrace_scope of the node; 0 also where there is none."""
    cgroup: str = ""
    programs: dict[str, str] = field(default_factory=dict)
    places: list[str] = field(default_factory=list)
    """Folders where files can be made and run."""
    in_memory: set[str] = field(default_factory=set)
    """Mount points whose files are memory (tmpfs)."""
    pid: int = 0
    """Of the probe itself."""
    memory_limit: int | None = None
    memory_charged: int | None = None
    memory_cache: int = 0
    """Part of what is charged that the kernel can drop."""
    processes: list[Process] = field(default_factory=list)

    @property
    def headroom(self) -> int | None:
        """Bytes until the memory limit; None: no limit, or not known."""
        if self.memory_limit is None or self.memory_limit >= UNLIMITED:
            return None
        if self.memory_charged is None:
            return None
        return max(0, self.memory_limit - max(0, self.memory_charged - self.memory_cache))

    def own_processes(self) -> list[Process]:
        """Those of the container itself, where the pod shares one process namespace."""
        return [
            each
            for each in self.processes
            if each.cgroup == self.cgroup and self.pid not in (each.pid, each.parent)
        ]


def choose(pod: dict[str, Any], namespace: str, name: str, container: str | None) -> Target:
    """The container to profile. Raises `PodError`: no such container, several, or not running."""
    spec, status = pod["spec"], pod.get("status") or {}
    names = [each["name"] for each in spec.get("containers") or ()]
    where = f"pod {namespace}/{name}"
    if container is None:
        default = ((pod.get("metadata") or {}).get("annotations") or {}).get(
            "kubectl.kubernetes.io/default-container"
        )
        container = default if default in names else None
    if container is None:
        if len(names) != 1:
            raise PodError(
                f"{where} has several containers: choose one with --container {' | '.join(names)}."
            )
        container = names[0]
    if container not in names:
        raise PodError(f"{where} has no container {container!r}; it has {', '.join(names)}.")
    phase = status.get("phase", "Unknown")
    if phase != "Running":
        raise PodError(
            f"{where} is not running (phase {phase}"
            f"{': ' + str(status['reason']) if status.get('reason') else ''}): "
            "only a running pod can be profiled."
        )
    if (pod.get("metadata") or {}).get("deletionTimestamp"):
        raise PodError(f"{where} is being deleted: choose the pod that replaces it.")
    seen: dict[str, Any] = next(
        (each for each in status.get("containerStatuses") or () if each["name"] == container), {}
    )
    state: dict[str, Any] = seen.get("state") or {}
    if "running" not in state:
        kind = next(iter(state), "unknown")
        reason = (state.get(kind) or {}).get("reason") or "no reason given"
        raise PodError(
            f"container {container!r} of {where} is not running ({kind}: {reason}): wait until it "
            "runs, or look at `kubectl describe pod`."
        )
    return Target(
        namespace=namespace,
        pod=name,
        container=container,
        container_id=str(seen.get("containerID") or "").rpartition("//")[2],
        image=next(each["image"] for each in spec["containers"] if each["name"] == container),
        node=str(spec.get("nodeName") or ""),
        spec=spec,
    )


def probe(cluster: Cluster, target: Target) -> Facts:
    """Look around in the container, by exec. Raises `Refused`, or `PodError` without a shell
    and without Python."""
    programs: list[str | None] = [None, *inside.PYTHONS]
    for program in programs:
        command = inside.shell("probe") if program is None else inside.python(program, "probe")
        stream = cluster.open_exec(target.namespace, target.pod, target.container, command)
        out, err, status = streams.run(stream)
        if out.rstrip().endswith(b"end"):
            return read_probe(out.decode("utf-8", "replace"), program)
        missing = "not found" in status or "no such file" in status
        if not missing:
            raise PodError(f"a command in the container failed: {err.strip() or status}")
    raise PodError(
        "the image has neither a shell nor Python on its PATH, so nothing can be run by exec"
    )


def read_probe(text: str, program: str | None) -> Facts:
    """The facts in what the probe printed."""
    facts = Facts(program)
    for line in text.splitlines():
        tag, _, rest = line.partition("\t")
        if tag == "machine":
            facts.machine = rest
        elif tag == "self":
            name, _, value = rest.partition(":")
            if name == "Pid":
                facts.pid = int(value)
            elif name == "CapEff":
                facts.can_trace = bool(int(value, 16) >> CAP_SYS_PTRACE & 1)
            elif name in ("Uid", "Gid"):
                setattr(facts, name.lower(), int(value.split()[1]))
        elif tag == "yama":
            facts.yama = int(rest)
        elif tag == "own":
            facts.cgroup += rest + "\n"
        elif tag == "program":
            name, _, path = rest.partition("\t")
            facts.programs.setdefault(name, path)
        elif tag == "place" and rest not in facts.places:
            facts.places.append(rest)
        elif tag == "mount":
            words = rest.split(" ")
            if len(words) > 2 and words[2] == "tmpfs":
                facts.in_memory.add(words[1])
        elif tag.startswith("memory"):
            _memory(facts, tag.removeprefix("memory/"), rest)
        elif tag == "process":
            pid, _, path = rest.partition("\t")
            facts.processes.append(Process(int(pid), path))
        elif tag == "status":
            _status(facts.processes[-1], *rest.partition(":")[::2])
        elif tag == "cgroup":
            facts.processes[-1].cgroup += rest + "\n"
        elif tag == "command":
            facts.processes[-1].command = rest
    return facts


def _memory(facts: Facts, file: str, text: str) -> None:
    """Version 2 and version 1 of cgroups."""
    if file in ("memory.max", "memory.limit_in_bytes"):
        facts.memory_limit = None if text == "max" else int(text)
    elif file in ("memory.current", "memory.usage_in_bytes"):
        facts.memory_charged = int(text)
    elif file == "memory.stat":
        name, _, value = text.partition(" ")
        if name in ("inactive_file", "total_inactive_file"):
            facts.memory_cache = int(value)


def _status(process: Process, name: str, value: str) -> None:
    words = value.split()
    if name == "PPid":
        process.parent = int(words[0])
    elif name == "Uid":
        process.uid = int(words[1])
    elif name == "Gid":
        process.gid = int(words[1])
    elif name == "VmRSS":
        process.memory = int(words[0]) * 1024
    elif name == "Seccomp":
        process.seccomp = int(words[0])


def process_of(facts: Facts, pid: int | None) -> Process:
    """The process to profile: the one with this pid, else the outermost Python process.

    Raises `PodError` when there is none, or several of which none is the parent of the others.
    """
    own = facts.own_processes()
    if pid is not None:
        found = next((each for each in facts.processes if each.pid == pid), None)
        if found is None:
            raise PodError(
                f"there is no process {pid} in the container; it has "
                f"{'; '.join(map(str, own)) or 'none that can be seen'}."
            )
        return found
    python = [each for each in own if each.python]
    pids = {each.pid for each in python}
    outermost = [each for each in python if each.parent not in pids]
    if not outermost:
        raise PodError(
            "the container runs no Python process; it runs "
            f"{'; '.join(map(str, own)) or 'nothing that can be seen'}."
        )
    if len(outermost) > 1:
        raise PodError(
            "the container runs several Python programs: choose one by its pid in the container, "
            f"as `ragprof attach PID --pod …`: {'; '.join(map(str, outermost))}."
        )
    return outermost[0]
