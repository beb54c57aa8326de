"""Rung 1 on real pods: py-spy by exec, and what keeps it from working."""

from __future__ import annotations

import pytest
from cluster.objects import READ, RESTRICTED, until
from conftest import functions

from ragprof.profiling.pods import PodError

EXEC = ("", "pods/exec", ("get", "create"))
TMP = {"volumeMounts": [{"name": "tmp", "mountPath": "/tmp"}]}


def by_exec(attach, pod, **options):
    profile, _ = attach(pod, rungs=("exec",), **options)
    assert len(profile) > 5
    assert "py-spy by exec in the container" in profile.notes[0]
    return profile


def test_plain(cluster, apps, attach):
    pod = cluster.pod(apps, "plain")
    profile = by_exec(attach, pod)
    assert {"busy_hash", "background_worker"} <= functions(profile)
    assert profile.value_types[0] == ("wall", "nanoseconds")
    assert cluster.files(pod) == []
    assert cluster.processes(pod) == ["python3 /app/app.py"]


def test_restricted(cluster, apps, attach):
    pod = cluster.pod(apps, "restricted", security=RESTRICTED)
    assert "busy_hash" in functions(by_exec(attach, pod))


def test_read_only_root(cluster, apps, attach):
    """Nothing can be written: py-spy goes into memory, carried by the container's Python."""
    pod = cluster.pod(apps, "read-only", security={**RESTRICTED, "readOnlyRootFilesystem": True})
    assert "busy_hash" in functions(by_exec(attach, pod))
    assert cluster.processes(pod) == ["python3 /app/app.py"]


def test_read_only_root_with_a_volume(cluster, apps, attach):
    pod = cluster.pod(apps, "volume", security={"readOnlyRootFilesystem": True}, **TMP)
    assert "busy_hash" in functions(by_exec(attach, pod))
    assert cluster.files(pod) == []


def test_no_shell_in_the_image(cluster, apps, attach):
    pod = cluster.pod(apps, "no-shell", image="noshell", security={"readOnlyRootFilesystem": True})
    assert "busy_hash" in functions(by_exec(attach, pod))


def test_py_spy_is_there_already(cluster, apps, attach):
    burn = "while True: sum(range(1000))"
    pod = cluster.pod(apps, "there", image="pyspy", command=["python3", "-c", burn], says="")
    by_exec(attach, pod)
    assert cluster.files(pod) == []


def test_root_drops_its_privileges_at_the_start(cluster, apps, attach):
    """exec is root without SYS_PTRACE, the service another user: py-spy takes on that user."""
    pod = cluster.pod(
        apps, "dropped", user=None,
        command=["setpriv", "--reuid=1000", "--regid=1000", "--clear-groups",
                 "python3", "/app/app.py"],
    )  # fmt: skip
    assert "busy_hash" in functions(by_exec(attach, pod))
    assert cluster.files(pod) == []


def test_not_pid_1_and_one_process_namespace(cluster, apps, attach):
    pod = cluster.pod(
        apps, "wrapped", command=["sh", "-c", "sleep 3600 & python3 /app/app.py; true"]
    )
    profile = by_exec(attach, pod)
    assert "busy_hash" in functions(profile)


def test_several_programs(cluster, apps, attach):
    script = "PORT=8081 python3 /app/app.py & exec sleep 3600"
    pod = cluster.pod(
        apps, "several", command=["sh", "-c", f"PORT=8080 python3 /app/app.py & {script}"]
    )
    until(lambda: len(cluster.processes(pod)) == 3, 400)
    with pytest.raises(PodError, match="several Python programs: choose one by its pid") as error:
        attach(pod)
    pid = int(str(error.value).split(": ")[-1].split(" ")[0])
    assert f"process {pid} of" in by_exec(attach, pod, pid=pid).notes[0]
    with pytest.raises(PodError, match="there is no process 4000 in the container"):
        attach(pod, pid=4000)


def test_memory_is_too_near_its_limit(cluster, apps, attach):
    limits = {"limits": {"memory": "32Mi"}}
    pod = cluster.pod(apps, "small", resources=limits, env=[{"name": "BALLAST_MB", "value": "8"}])
    with pytest.raises(PodError, match=r"MiB left of its memory limit of 32 MiB") as error:
        attach(pod, rungs=("exec", "ephemeral"))
    assert "a memory limit at least" in str(error.value)
    assert cluster.read(pod).status.container_statuses[0].restart_count == 0


def test_memory_suffices(cluster, apps, attach):
    limits = {"limits": {"memory": "64Mi"}}
    pod = cluster.pod(apps, "large", resources=limits)
    assert "busy_hash" in functions(by_exec(attach, pod))
    status = cluster.read(pod).status.container_statuses[0]
    assert (status.restart_count, bool(status.state.running)) == (0, True)


def test_seccomp_denies_ptrace(cluster, apps, attach):
    profile = {"type": "Localhost", "localhostProfile": "no-ptrace.json"}
    pod = cluster.pod(apps, "no-ptrace", security={"seccompProfile": profile})
    seen = by_exec(attach, pod)
    assert "busy_hash" in functions(seen)
    assert any("seccomp denies pausing" in note for note in seen.notes)


def test_exec_is_not_allowed(cluster, apps, attach):
    cluster.pod(apps, "guarded")
    reader = cluster.user(apps, "reader", READ)
    with pytest.raises(PodError) as error:
        attach("guarded", rungs=("exec",), kubeconfig=reader)
    assert 'cannot get resource "pods/exec"' in str(error.value)
    assert "To allow: a role with get and create on pods/exec" in str(error.value)
    allowed = cluster.user(apps, "execer", READ, EXEC)
    by_exec(attach, "guarded", kubeconfig=allowed)


def test_pods_may_not_be_read(cluster, apps, attach):
    nobody = cluster.user(apps, "nobody")
    with pytest.raises(PodError, match="a role with get on pods is needed"):
        attach("plain", kubeconfig=nobody)
