"""Rung 4: a job on the pod's node, root with SYS_PTRACE and the node's processes.

It is deleted at the end; a deadline and a time to live end it also when this program is killed.
"""

from __future__ import annotations

import contextlib
import time
from typing import Any

from ragprof.profiles.model import Profile
from ragprof.profiling.pods import delivery, detached, ephemeral
from ragprof.profiling.pods.cluster import PodError, Refused
from ragprof.profiling.pods.request import Request, RungFailed

NAME = "job on the node"


def climb(request: Request) -> Profile:
    """The Profile, or `RungFailed`. The job is gone afterwards, also after Ctrl-C."""
    target = request.target
    namespace = request.job_namespace or target.namespace
    name = f"ragprof-{request.names}"
    py_spy = b"" if request.image else delivery.binary(request.machine)
    try:
        request.cluster.create_job(namespace, _job(request, name, py_spy))
    except Refused as refused:
        allow = "a role with create and delete on jobs" if refused.status == 403 else ""
        raise RungFailed(str(refused), allow) from refused
    try:
        pod = _pod_name(request, namespace, name)

        def state() -> dict[str, Any]:
            statuses = request.cluster.get_pod(namespace, pod)["status"].get("containerStatuses")
            return dict((statuses or [{}])[0].get("state") or {})

        recorded = detached.record(request, pod, namespace, "recorder", state, py_spy)
    finally:
        with contextlib.suppress(PodError):
            request.cluster.delete_job(namespace, name)
    if not recorded.content:
        raise RungFailed(recorded.failed)
    return request.profile(recorded, f"py-spy in a job on node {target.node}")


def _job(request: Request, name: str, py_spy: bytes) -> dict[str, Any]:
    target = request.target
    recorder = detached.container(request, "recorder", py_spy, ephemeral.TRACER)
    spec: dict[str, Any] = {
        "restartPolicy": "Never",
        "hostPID": True,
        "nodeName": target.node,
        "tolerations": [{"operator": "Exists"}],
        "automountServiceAccountToken": False,
        "terminationGracePeriodSeconds": 1,
        "containers": [recorder],
    }
    if request.job_namespace in (None, target.namespace) and target.spec.get("imagePullSecrets"):
        spec["imagePullSecrets"] = target.spec["imagePullSecrets"]
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": name, "labels": {"app.kubernetes.io/managed-by": "ragprof"}},
        "spec": {
            "backoffLimit": 0,
            "activeDeadlineSeconds": int(request.seconds + detached.START + 60),
            "ttlSecondsAfterFinished": 60,
            "template": {
                "metadata": {"labels": {"app.kubernetes.io/managed-by": "ragprof"}},
                "spec": spec,
            },
        },
    }


def _pod_name(request: Request, namespace: str, job: str) -> str:
    """The job's pod, once there is one. A refusal by Pod Security shows as an event of the job."""
    deadline = time.monotonic() + detached.START
    while True:
        try:
            pods = request.cluster.job_pods(namespace, job)
        except Refused as refused:
            raise RungFailed(str(refused), "a role with list and get on pods") from refused
        if pods:
            return str(pods[0]["metadata"]["name"])
        for event in request.cluster.events(namespace, "Job", job):
            if "forbidden" in event or "Error creating" in event:
                raise RungFailed(
                    event,
                    f"Pod Security level privileged in namespace {namespace}, or --job-namespace "
                    "with one that has it",
                )
        if time.monotonic() > deadline:
            raise RungFailed(f"the job in namespace {namespace} got no pod")
        time.sleep(0.3)
