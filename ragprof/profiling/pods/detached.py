"""A recorder that runs in a container of its own: an ephemeral container, or a job's pod.

py-spy is in the image, or is sent over the container's standard input (attach). The profile comes
back through the log, packed and in base64. The container ends by itself after the recording.
"""

from __future__ import annotations

import base64
import binascii
import time
from collections.abc import Callable
from typing import Any

from ragprof.profiles.content import unpacked
from ragprof.profiles.model import ProfileError
from ragprof.profiling.pods import inside, streams
from ragprof.profiling.pods.cluster import PodError, Refused
from ragprof.profiling.pods.request import Request, RungFailed
from ragprof.profiling.pods.streams import MARK, Recorded

START = 90.0
"""Seconds that a container gets to start, its image pulled."""
_HOPELESS = {
    "CreateContainerConfigError",
    "CreateContainerError",
    "ErrImageNeverPull",
    "ErrImagePull",
    "ImagePullBackOff",
    "InvalidImageName",
    "RunContainerError",
}

State = Callable[[], dict[str, Any]]
"""The container's ``state`` now; empty while it has none."""


def container(
    request: Request, name: str, py_spy: bytes, security: dict[str, Any]
) -> dict[str, Any]:
    """The container that records the target, to be completed by the caller."""
    image = request.image or request.target.image
    wanted = f"{request.target.container_id}/{request.pid or ''}"
    source = f"stdin:{len(py_spy)}" if py_spy else "py-spy"
    words = request.py_spy_arguments(subprocesses=True)
    arguments = (source, "/tmp", request.names, wanted, "", "base64", "yes")  # noqa: S108
    python = None if request.image or request.facts is None else request.facts.python_program
    if python is not None:
        command = inside.python(python, "record", *arguments, *words)
    else:
        command = inside.shell("record", *arguments, *words)
    return {
        "name": name,
        "image": image,
        "imagePullPolicy": "IfNotPresent",
        "command": command,
        "stdin": True,
        "stdinOnce": True,
        "securityContext": security,
        "terminationMessagePolicy": "File",
    }


def record(
    request: Request, pod: str, namespace: str, name: str, state: State, py_spy: bytes
) -> Recorded:
    """Wait for the container, send py-spy to it, wait for its end, read its log.

    Ctrl-C while it records ends it early and keeps what there is. Raises `RungFailed`.
    """
    stopped: float | None = None
    try:
        now = _wait_for_start(name, state)
        if "terminated" not in now:
            if py_spy:
                stream = _attach(request, pod, namespace, name)
                stopped = streams.record(
                    stream, request.seconds, py_spy, request.tell, attached=True
                ).stopped_after
            else:
                stopped = _wait(request, pod, namespace, name, state)
            now = _wait_for_end(request, state)
    except BaseException:
        _stop(request, pod, namespace, name)
        raise
    try:
        log = request.cluster.read_log(namespace, pod, name)
    except Refused as refused:
        raise RungFailed(
            f"its log may not be read: {refused}", "a role with get on pods/log"
        ) from refused
    result = read_log(log)
    result.stopped_after = stopped
    result.status = str(now["terminated"].get("message") or "")
    return result


def _attach(request: Request, pod: str, namespace: str, name: str) -> Any:
    try:
        return request.cluster.open_attach(namespace, pod, name)
    except Refused as refused:
        raise RungFailed(
            f"py-spy could not be sent to it: {refused}",
            "a role with get and create on pods/attach, or --image with one that has py-spy",
        ) from refused


def _stop(request: Request, pod: str, namespace: str, name: str) -> bool:
    """Its standard input ends when whoever is attached leaves, and then the recording ends.

    Returns whether that was possible.
    """
    try:
        request.cluster.open_attach(namespace, pod, name).close()
    except PodError:
        return False
    return True


def _wait(request: Request, pod: str, namespace: str, name: str, state: State) -> float | None:
    """While it records. After Ctrl-C: when that came."""
    began = time.monotonic()
    try:
        while "terminated" not in state() and time.monotonic() < began + request.seconds:
            request.tell(time.monotonic() - began)
            time.sleep(0.2)
    except KeyboardInterrupt:
        if not _stop(request, pod, namespace, name):
            request.say(f"{name} may not be stopped (pods/attach): it ends by itself in time")
            raise
        return time.monotonic() - began
    return None


def _wait_for_start(name: str, state: State) -> dict[str, Any]:
    """The state in which the container runs, or has ended."""
    deadline = time.monotonic() + START
    while True:
        now = state()
        if "running" in now or "terminated" in now:
            return now
        waiting = now.get("waiting") or {}
        if waiting.get("reason") in _HOPELESS:
            raise RungFailed(
                f"container {name} does not start: {waiting['reason']}: "
                f"{waiting.get('message') or 'no message'}"
            )
        if time.monotonic() > deadline:
            reason = waiting.get("reason") or "no reason given"
            raise RungFailed(f"container {name} did not start within {START:g} s ({reason})")
        time.sleep(0.2)


def _wait_for_end(request: Request, state: State) -> dict[str, Any]:
    """The state in which the container has ended."""
    deadline = time.monotonic() + request.seconds + streams.GRACE
    while "terminated" not in (now := state()):
        if time.monotonic() > deadline:
            raise RungFailed("the container that records did not end in time")
        time.sleep(0.2)
    return now


def read_log(log: str) -> Recorded:
    """What a recorder wrote to its log. Raises `PodError` when the profile in it is damaged."""
    recorded = Recorded()
    packed: list[str] | None = None
    for line in log.splitlines():
        if line == f"{MARK}begin":
            packed = []
        elif line == f"{MARK}end" and packed is not None:
            recorded.content = _unpacked("".join(packed))
            packed = None
        elif packed is not None:
            packed.append(line)
        else:
            recorded.take(line)
    if packed is not None:
        raise PodError("the log with the profile ends too early; try again with fewer seconds.")
    return recorded


def _unpacked(text: str) -> bytes:
    try:
        return unpacked(base64.b64decode(text, validate=True))
    except (binascii.Error, ProfileError) as error:
        raise PodError(f"the profile in the log is damaged: {error} Try again.") from error
