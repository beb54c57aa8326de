"""`attach` to a live pod: the rungs one after the other, until one holds."""

from __future__ import annotations

from collections.abc import Callable

from ragprof.profiles.model import Profile
from ragprof.profiling import attaching
from ragprof.profiling.pods import cluster as clusters
from ragprof.profiling.pods import endpoint, ephemeral, execution, job, target
from ragprof.profiling.pods.cluster import PodError
from ragprof.profiling.pods.request import Request, RungFailed
from ragprof.profiling.pyspy import Options

RUNGS: dict[str, tuple[str, Callable[[Request], Profile]]] = {
    "exec": (execution.NAME, execution.climb),
    "endpoint": (endpoint.NAME, endpoint.climb),
    "ephemeral": (ephemeral.NAME, ephemeral.climb),
    "job": (job.NAME, job.climb),
}


def attach(
    pod: str,
    *,
    container: str | None = None,
    pid: int | None = None,
    seconds: float = 10.0,
    hz: float = 100.0,
    native: bool = False,
    idle: bool = False,
    gil: bool = False,
    subprocesses: bool = False,
    nonblocking: bool = False,
    rungs: tuple[str, ...] = tuple(RUNGS),
    image: str | None = None,
    job_namespace: str | None = None,
    port: int | None = None,
    token: str | None = None,
    context: str | None = None,
    say: Callable[[str], None] = lambda text: None,
    progress: bool | None = None,
) -> Profile:
    """Profile a container of a live pod, ``namespace/name`` or a name in the context's namespace.

    The rungs: py-spy by ``exec`` in the container, the service's own ``endpoint`` by port-forward,
    an ``ephemeral`` container, a ``job`` on the node; ``rungs`` names those to try. ``container``
    is needed where the pod has several; ``pid`` is a process id in the container, else its
    outermost Python process. ``image`` has py-spy and a shell, else the pod's own image is used and
    py-spy is sent. ``port`` and ``token`` are those of the endpoint. ``hz`` and the switches are
    those of `ragprof.profiling.attaching.attach`. ``say`` gets one line for each rung that failed;
    they are in the notes of the Profile as well.

    Wall nanoseconds; Ctrl-C ends early, keeps what there is, and nothing stays in the container.
    Raises PodError: no cluster, no such pod or container, not running, no Python in it, or every
    rung failed, each with its reason and what to allow.
    """
    options = Options(hz, native, idle, gil, subprocesses, nonblocking)
    attaching.check(seconds, options)
    if seconds <= 0:
        raise PodError("a pod is sampled for a time: give seconds > 0.")
    unknown = set(rungs) - set(RUNGS)
    if unknown or not rungs:
        raise PodError(f"rungs are {', '.join(RUNGS)}; not {', '.join(sorted(unknown)) or 'none'}.")
    connection = clusters.connect(context)
    namespace, name = clusters.names(pod, connection.namespace)
    try:
        seen = connection.get_pod(namespace, name)
    except clusters.Refused as refused:
        hint = (
            "; a role with get on pods is needed"
            if refused.status == 403
            else "; `kubectl get pods -A` lists what there is"
            if refused.status == 404
            else ""
        )
        raise PodError(f"pod {namespace}/{name}: {refused}{hint}.") from refused
    chosen = target.choose(seen, namespace, name, container)
    with attaching.shown_progress(progress) as told:
        request = Request(
            connection, chosen, seconds, options, pid, image, job_namespace, port, token,
            told or (lambda passed, whole: None), say,
        )  # fmt: skip
        return climb(request, rungs)


def climb(request: Request, rungs: tuple[str, ...]) -> Profile:
    """The Profile of the first rung that holds. Raises `PodError` with one line per rung."""
    failures: list[str] = []
    for name in rungs:
        title, climb_rung = RUNGS[name]
        try:
            profile = climb_rung(request)
        except RungFailed as failed:
            failures.append(line(title, failed))
            request.say(failures[-1])
            continue
        return profile._with(notes=(*profile.notes, *failures))
    raise PodError(
        f"{request.target} could not be profiled.\n"
        + "\n".join(failures)
        + "\n`ragprof attach --explain` prints the roles and settings."
    )


def line(name: str, failed: RungFailed) -> str:
    """What is said of a rung that failed: one line."""
    reason = " ".join(failed.reason.split()).rstrip(".")
    return f"{name}: {reason}" + (f". To allow: {failed.allow}" if failed.allow else "")
