"""Ctrl-C and worse: what was seen is kept, and nothing stays in the container."""

from __future__ import annotations

import json
import signal
import time

import pytest
from cluster.objects import RESTRICTED, processes, sampling, until

SAMPLES = 5


def recording(cluster, pod):
    return any("py-spy record --format" in each for each in cluster.processes(pod))


def runs(process):
    """True while the command has not ended; else fails with what it said."""
    assert process.poll() is None, process.communicate()
    return True


def clean(cluster, pod):
    """A process that ended and was not waited for counts as well: its command line is empty."""
    deadline = time.monotonic() + 400
    while _left(cluster, pod) != (["python3 /app/app.py"], []) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert _left(cluster, pod) == (["python3 /app/app.py"], [])


def _left(cluster, pod):
    return cluster.processes(pod), cluster.files(pod)


@pytest.mark.parametrize("read_only", [False, True])
def test_ctrl_c(cluster, apps, command, read_only):
    security = {**RESTRICTED, "readOnlyRootFilesystem": read_only}
    pod = cluster.pod(apps, f"stopped-{read_only}".lower(), security=security)
    process = command("--pod", pod, "--seconds", "900", "--json")
    until(lambda: runs(process) and cluster.samples(pod), 400)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=400)
    assert process.returncode == 130, err
    answer = json.loads(out)
    assert answer["interrupted"] is True
    assert answer["samples"] > SAMPLES
    assert any("busy_hash" in each["function"] for each in answer["functions"])
    clean(cluster, pod)


def test_killed(cluster, apps, command):
    """The recorder ends when the connection does."""
    pod = cluster.pod(apps, "killed")
    process = command("--pod", pod, "--seconds", "900")
    until(lambda: runs(process) and recording(cluster, pod), 400)
    process.kill()
    process.communicate(timeout=400)
    clean(cluster, pod)


def test_ctrl_c_with_an_ephemeral_container(cluster, apps, command):
    pod = cluster.pod(apps, "beside-stopped")
    process = command("--pod", pod, "--rung", "ephemeral", "--seconds", "900", "--json")
    until(lambda: beside(cluster, pod) and sampling(beside(cluster, pod)), 400)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=400)
    assert process.returncode == 130, err
    assert json.loads(out)["samples"] > SAMPLES
    until(lambda: not beside(cluster, pod), 400)


def test_killed_with_an_ephemeral_container(cluster, apps, command):
    pod = cluster.pod(apps, "beside-killed")
    process = command("--pod", pod, "--rung", "ephemeral", "--seconds", "900")
    until(lambda: runs(process) and beside(cluster, pod), 400)
    process.kill()
    process.communicate(timeout=400)
    until(lambda: not beside(cluster, pod), 400)


def beside(cluster, pod):
    """The ephemeral container in which py-spy runs, seen from the machine; else nothing."""
    state = cluster.read(pod).status.ephemeral_container_statuses
    if not state or not state[0].container_id:
        return ""
    number = state[0].container_id.rpartition("//")[2]
    return number if any("py-spy record" in each for each in processes(number)) else ""
