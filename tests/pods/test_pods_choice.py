"""Which container and process: what is not there, not running, or not clear."""

from __future__ import annotations

import pytest
from cluster import images
from cluster.objects import until

from ragprof.profiling.pods import PodError

APP = {"name": "app", "image": images.reference("app")}
SIDECAR = {"name": "sidecar", "image": images.reference("pause")}


def test_no_such_pod(cluster, apps, attach):
    with pytest.raises(PodError, match=r'pods "nowhere" not found; `kubectl get pods -A`'):
        attach(f"{apps}/nowhere")
    with pytest.raises(PodError, match="is not a pod: give NAMESPACE/NAME"):
        attach("a/b/c")


def test_several_containers(cluster, apps, attach):
    pod = cluster.pod(apps, "two", [APP, SIDECAR])
    with pytest.raises(PodError, match=r"several containers: choose .* app \| sidecar"):
        attach(pod)
    with pytest.raises(PodError, match="has no container 'web'; it has app, sidecar"):
        attach(pod, container="web")
    assert len(attach(pod, container="app", rungs=("exec",))[0])
    with pytest.raises(PodError, match="neither a shell nor Python"):
        attach(pod, container="sidecar", rungs=("exec",))


def test_no_python(cluster, apps, attach):
    pod = cluster.pod(apps, "asleep", command=["sleep", "3600"], says="")
    with pytest.raises(PodError, match=r"runs no Python process; it runs 1 \(uid 1000, sleep"):
        attach(pod)


def test_dead_pod(cluster, apps, attach):
    pod = cluster.pod(apps, "dead", [{**APP, "command": ["false"]}], ready=False)
    until(lambda: cluster.read(pod).status.container_statuses, 400)
    until(lambda: not cluster.read(pod).status.container_statuses[0].state.running, 400)
    until(lambda: _reason(cluster, pod) == "CrashLoopBackOff", 400)
    with pytest.raises(PodError, match=r"is not running \(waiting: CrashLoopBackOff\)"):
        attach(pod)


def test_pod_that_does_not_start(cluster, apps, attach):
    pod = cluster.pod(apps, "missing", [{"name": "app", "image": "localhost/no:1"}], ready=False)
    until(lambda: _reason(cluster, pod) == "ErrImageNeverPull", 400)
    with pytest.raises(PodError, match="is not running"):
        attach(pod)


def test_shared_process_namespace(cluster, apps, attach):
    """Only the processes of the chosen container count."""
    other = {**APP, "name": "other", "env": [{"name": "PORT", "value": "8081"}]}
    spec = {"containers": [APP, other]}
    pod = cluster.pod(apps, "shared", spec["containers"], share_processes=True)
    profile, _ = attach(pod, container="other", rungs=("exec",))
    assert len(profile)


def _reason(cluster, pod):
    statuses = cluster.read(pod).status.container_statuses
    waiting = statuses[0].state.waiting if statuses else None
    return waiting.reason if waiting else ""
