"""Rung 3 on real pods: an ephemeral container, allowed and refused."""

from __future__ import annotations

import pytest
from cluster import images
from cluster.objects import READ, RESTRICTED, until
from conftest import functions

from ragprof.profiling.pods import PodError

PATCH = ("", "pods/ephemeralcontainers", ("patch",))
ATTACH = ("", "pods/attach", ("get", "create"))
LOG = ("", "pods/log", ("get",))
WORKER = {"user": None, "env": [{"name": "WORKER_UID", "value": "1000"}]}


def by_ephemeral(attach, pod, **options):
    profile, _ = attach(pod, rungs=("ephemeral",), **options)
    assert "busy_hash" in functions(profile)
    return profile


def ended(cluster, pod):
    """The ephemeral containers, once all have ended."""
    until(
        lambda: all(
            each.state.terminated for each in cluster.read(pod).status.ephemeral_container_statuses
        ),
        400,
    )
    return cluster.read(pod).spec.ephemeral_containers


def test_image_of_the_pod(cluster, apps, attach):
    """py-spy is sent to a container of the target's own image, with its user and no capability."""
    pod = cluster.pod(apps, "beside")
    profile = by_ephemeral(attach, pod)
    assert "py-spy in an ephemeral container" in profile.notes[0]
    (container,) = ended(cluster, pod)
    assert container.target_container_name == "app"
    assert container.security_context.run_as_user == 1000
    assert container.security_context.run_as_group == 1000
    assert container.security_context.capabilities.add is None
    assert cluster.processes(pod) == ["python3 /app/app.py"]


def test_image_without_a_shell(cluster, apps, attach):
    """exec may not read the workers; beside them the image's Python carries py-spy."""
    pod = cluster.pod(apps, "beside-no-shell", image="noshell", **WORKER)
    profile, said = attach(pod, rungs=("exec", "ephemeral"))
    assert "its worker" in said[0]
    assert "busy_hash" in functions(profile)


def test_restricted_namespace_and_an_image_with_py_spy(cluster, attach):
    """Needs neither exec nor attach: get pods, patch pods/ephemeralcontainers, get pods/log."""
    namespace = cluster.namespace("strict", "restricted")
    pod = cluster.pod(namespace, "strict", security=RESTRICTED)
    user = cluster.user(namespace, "debugger", READ, PATCH, LOG)
    image = images.reference("pyspy")
    profile, said = attach(pod, rungs=("exec", "ephemeral"), image=image, kubeconfig=user)
    assert "busy_hash" in functions(profile)
    assert "pods/exec" in said[0]
    with pytest.raises(PodError, match="a role with get and create on pods/attach"):
        attach(pod, rungs=("ephemeral",), kubeconfig=user)


def test_workers_that_changed_their_user(cluster, apps, attach):
    """Those of a server that stays root: py-spy would pass over them without a word."""
    pod = cluster.pod(apps, "workers", **WORKER)
    until(lambda: len(cluster.processes(pod)) == 2, 400)
    profile, said = attach(pod, rungs=("exec", "ephemeral"))
    assert "busy_hash" in functions(profile)
    assert "its worker" in said[0]
    assert "root with SYS_PTRACE" in profile.notes[0]
    assert len(ended(cluster, pod)) == 2


def test_a_worker_that_changed_its_user(cluster, apps, attach):
    """The same user may not read it, by exec or beside it: root with SYS_PTRACE may."""
    pod = cluster.pod(apps, "worker", **WORKER)
    until(lambda: len(cluster.processes(pod)) == 2, 400)
    profile, said = attach(pod, rungs=("exec", "ephemeral"), pid=worker_pid(attach, pod))
    assert "busy_hash" in functions(profile)
    assert "changed its user after it started" in said[0]
    assert "root with SYS_PTRACE" in profile.notes[0]
    assert len(ended(cluster, pod)) == 2


def worker_pid(attach, pod):
    with pytest.raises(PodError) as error:
        attach(pod, pid=4000)
    words = str(error.value).replace(";", " ").split("(uid 1000")[0].split()
    return int(words[-1])


def test_root_is_refused_by_pod_security(cluster, attach):
    namespace = cluster.namespace("base", "baseline")
    pod = cluster.pod(namespace, "worker", **WORKER)
    until(lambda: len(cluster.processes(pod)) == 2, 400)
    with pytest.raises(PodError) as error:
        attach(pod, rungs=("ephemeral",), pid=worker_pid(attach, pod))
    assert "violates PodSecurity" in str(error.value)
    assert "a namespace whose Pod Security level admits" in str(error.value)


def test_not_allowed(cluster, apps, attach):
    cluster.pod(apps, "alone")
    user = cluster.user(apps, "only-reads", READ)
    with pytest.raises(PodError) as error:
        attach("alone", rungs=("ephemeral",), kubeconfig=user)
    assert 'cannot patch resource "pods/ephemeralcontainers"' in str(error.value)
    assert "To allow: a role with patch on pods/ephemeralcontainers" in str(error.value)


def test_image_that_is_not_there(cluster, apps, attach):
    pod = cluster.pod(apps, "no-image")
    with pytest.raises(PodError, match="does not start: ") as error:
        attach(pod, rungs=("ephemeral",), image="localhost/none:1")
    assert "localhost/none:1" in str(error.value)


def test_pod_of_root_that_must_not_be_root(cluster, apps, attach):
    """runAsNonRoot of the pod binds the container beside it; the target's user is copied."""
    pod = cluster.pod(apps, "non-root", pod_security={"runAsNonRoot": True})
    by_ephemeral(attach, pod)


def test_container_user_is_copied(cluster, apps, attach):
    """The user of the container, not that of the pod, also where exec is not allowed."""
    cluster.pod(apps, "own-user", security={"runAsUser": 2000, "runAsGroup": 2000})
    user = cluster.user(apps, "beside-only", READ, PATCH, ATTACH, LOG)
    profile, said = attach("own-user", rungs=("exec", "ephemeral"), kubeconfig=user)
    assert "busy_hash" in functions(profile)
    assert len(said) == 1
