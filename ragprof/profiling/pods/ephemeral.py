"""Rung 3: an ephemeral container beside the process, with its user and no capability.

Where that user may not read it (it changed its user after it started, or Yama), a second one is
root with SYS_PTRACE. An ephemeral container ends, but its entry stays in the pod until the pod
goes.
"""

from __future__ import annotations

from typing import Any

from ragprof.profiles.model import Profile
from ragprof.profiling.pods import delivery, detached
from ragprof.profiling.pods.cluster import Refused
from ragprof.profiling.pods.request import Request, RungFailed
from ragprof.profiling.pods.streams import Recorded

NAME = "ephemeral container"
HARMLESS: dict[str, Any] = {
    "allowPrivilegeEscalation": False,
    "capabilities": {"drop": ["ALL"]},
    "seccompProfile": {"type": "RuntimeDefault"},
}
TRACER: dict[str, Any] = {
    "runAsUser": 0,
    "runAsGroup": 0,
    "runAsNonRoot": False,
    "allowPrivilegeEscalation": False,
    "capabilities": {"drop": ["ALL"], "add": ["SYS_PTRACE"]},
    "seccompProfile": {"type": "RuntimeDefault"},
}


def climb(request: Request) -> Profile:
    """The Profile, or `RungFailed`."""
    if request.facts is not None and _pod_is_limited(request):
        delivery.check_memory(
            request.facts, native=request.options.native, in_memory=0, python=False
        )
    py_spy = b"" if request.image else delivery.binary(request.machine)
    failures: list[str] = []
    for number, security in enumerate([_same_user(request), TRACER]):
        try:
            recorded = _attempt(request, f"ragprof-{request.names}-{number}", security, py_spy)
        except RungFailed as failed:
            if not failures:
                raise
            raise RungFailed(f"{failures[0]}; as root: {failed.reason}", failed.allow) from failed
        if recorded.content:
            how = "py-spy in an ephemeral container"
            return request.profile(recorded, how if not number else f"{how}, root with SYS_PTRACE")
        failures.append(recorded.failed)
        if not recorded.refused:
            break
    raise RungFailed("; as root: ".join(failures))


def _attempt(request: Request, name: str, security: dict[str, Any], py_spy: bytes) -> Recorded:
    target = request.target
    container = {
        **detached.container(request, name, py_spy, security),
        "targetContainerName": target.container,
    }
    try:
        request.cluster.add_ephemeral(target.namespace, target.pod, container)
    except Refused as refused:
        raise RungFailed(str(refused), _allow(refused)) from refused

    def state() -> dict[str, Any]:
        pod = request.cluster.get_pod(target.namespace, target.pod)
        statuses = pod["status"].get("ephemeralContainerStatuses") or ()
        found: dict[str, Any] = next((each for each in statuses if each["name"] == name), {})
        return dict(found.get("state") or {})

    return detached.record(request, target.pod, target.namespace, name, state, py_spy)


def _allow(refused: Refused) -> str:
    if "violates PodSecurity" in str(refused):
        return "a namespace whose Pod Security level admits the capability SYS_PTRACE (privileged)"
    if refused.status == 403:
        return "a role with patch on pods/ephemeralcontainers"
    return ""


def _same_user(request: Request) -> dict[str, Any]:
    """The user of the process, copied in full: the target's own is not inherited.

    A user needs no capability to read its own process. Root must have all that the process has,
    so there, and where the image decides who the user is, the target's settings are copied.
    """
    uid, gid = _user(request)
    own = request.target.container_spec.get("securityContext") or {}
    copied = {name: value for name, value in own.items() if name != "readOnlyRootFilesystem"}
    security = dict(HARMLESS) if uid else copied
    if uid is not None:
        security |= {"runAsUser": uid, "runAsNonRoot": uid != 0}
    if gid is not None:
        security["runAsGroup"] = gid
    return security


def _user(request: Request) -> tuple[int | None, int | None]:
    """uid and gid of the process, else those the pod asks for, else the image's."""
    if request.process is not None:
        return request.process.uid, request.process.gid
    return request.target.user


def _pod_is_limited(request: Request) -> bool:
    """Whether the pod as a whole has a memory limit: every container has one."""
    containers = request.target.spec["containers"]
    return all(
        "memory" in ((each.get("resources") or {}).get("limits") or {}) for each in containers
    )
