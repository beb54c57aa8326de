"""Rung 4 on real pods: a job on the node, allowed and refused, and gone afterwards."""

from __future__ import annotations

import signal

import pytest
from cluster import images
from cluster.objects import READ, sampling, until
from conftest import functions

from ragprof.profiling.pods import PodError

JOBS = ("batch", "jobs", ("create", "delete"))


def test_job(cluster, apps, attach):
    pod = cluster.pod(apps, "by-job")
    profile, _ = attach(pod, rungs=("job",))
    assert "busy_hash" in functions(profile)
    assert "py-spy in a job on node node1" in profile.notes[0]
    gone(cluster, apps)


def test_image_with_py_spy(cluster, apps, attach):
    pod = cluster.pod(apps, "by-job-image")
    profile, _ = attach(pod, rungs=("job",), image=images.reference("pyspy"))
    assert "busy_hash" in functions(profile)
    gone(cluster, apps)


def test_pod_security_of_the_namespace(cluster, attach):
    """baseline refuses hostPID; a namespace made for it admits the job."""
    namespace = cluster.namespace("base-job", "baseline")
    pod = cluster.pod(namespace, "by-job")
    with pytest.raises(PodError) as error:
        attach(pod, rungs=("job",))
    assert "violates PodSecurity" in str(error.value)
    assert "--job-namespace" in str(error.value)
    gone(cluster, namespace)
    profile, _ = attach(pod, rungs=("job",), job_namespace=cluster.namespace("jobs"))
    assert "busy_hash" in functions(profile)
    gone(cluster, "jobs")


def test_not_allowed(cluster, apps, attach):
    cluster.pod(apps, "no-jobs")
    user = cluster.user(apps, "no-jobs", READ)
    with pytest.raises(PodError) as error:
        attach("no-jobs", rungs=("job",), kubeconfig=user)
    assert 'cannot create resource "jobs"' in str(error.value)
    assert "To allow: a role with create and delete on jobs" in str(error.value)


def test_ctrl_c_deletes_the_job(cluster, apps, command):
    pod = cluster.pod(apps, "job-stopped")
    process = command("--pod", pod, "--rung", "job", "--seconds", "900", "--json")
    until(lambda: any(map(sampling, job_containers(cluster, apps))), 400)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=400)
    assert process.returncode == 130, err
    assert "stopped by Ctrl-C" in out
    gone(cluster, apps)


def job_containers(cluster, namespace):
    return [
        status.container_id.rpartition("//")[2]
        for pod in cluster.core.list_namespaced_pod(namespace, label_selector="job-name").items
        for status in pod.status.container_statuses or ()
        if status.container_id
    ]


def gone(cluster, namespace):
    until(lambda: not cluster.batch.list_namespaced_job(namespace).items, 400)
    until(
        lambda: not cluster.core.list_namespaced_pod(namespace, label_selector="job-name").items,
        400,
    )
