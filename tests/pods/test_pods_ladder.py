"""The whole ladder on real pods, the explanations, and the ways to a cluster."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from cluster.objects import READ, RESTRICTED
from conftest import functions

from ragprof.cli import attach_pod
from ragprof.profiling.pods import PodError, ladder, rights


def test_every_rung_is_refused(cluster, apps, attach):
    cluster.pod(apps, "closed")
    user = cluster.user(apps, "closed", READ)
    with pytest.raises(PodError) as error:
        attach("closed", kubeconfig=user)
    first, *lines, last = str(error.value).splitlines()
    assert first == f"{apps}/closed, container app could not be profiled."
    assert [line.split(":")[0] for line in lines] == [title for title, _ in ladder.RUNGS.values()]
    assert all("To allow:" in line for line in lines)
    assert "--explain" in last


def test_the_next_rung_holds(cluster, apps, attach):
    """Each rung that failed is told in one line, and is a note of the profile."""
    pod = cluster.pod(
        apps, "climbed", image="noshell", command=["python3", "/app/app.py"], pod_security={},
        security={**RESTRICTED, "readOnlyRootFilesystem": True},
        resources={"limits": {"memory": "40Mi"}},
        env=[{"name": "BALLAST_MB", "value": "8"}],
    )  # fmt: skip
    profile, said = attach(pod, rungs=("exec", "endpoint", "job"))
    assert "busy_hash" in functions(profile)
    assert len(said) == 2
    assert "memory limit of 40 MiB" in said[0]
    assert set(said) <= set(profile.notes)


def test_roles_of_explain_suffice(cluster, apps, attach):
    """What --explain prints is applied as it is, rung by rung, and the rung holds."""
    for name in ("exec", "ephemeral", "job"):
        namespace = cluster.namespace(f"explained-{name}")
        cluster.pod(namespace, "app")
        rung = next(each for each in rights.RUNGS if each.name == name)
        documents = [each for each in yaml.safe_load_all(rights.role(rung, namespace)) if each]
        rules = [
            (group, resource, tuple(rule["verbs"]))
            for rule in documents[0]["rules"]
            for group in rule["apiGroups"]
            for resource in rule["resources"]
        ]
        user = cluster.user(namespace, "explained", *rules)
        profile, _ = attach("app", rungs=(name,), kubeconfig=user)
        assert "busy_hash" in functions(profile)


def test_explain_tells_what_is_lacking(cluster, apps, command):
    user = cluster.user(apps, "lacks", READ, ("", "pods/exec", ("get", "create")))
    out, _ = command("--explain", "--pod", f"{apps}/any", "--json", kubeconfig=user).communicate(
        timeout=400
    )
    rungs = {each["rung"]: each["lacking"] for each in json.loads(out)["rungs"]}
    assert rungs["exec"] == []
    assert "patch pods/ephemeralcontainers" in rungs["ephemeral"]
    out, _ = command("--explain", "--pod", f"{apps}/any", kubeconfig=user).communicate(timeout=400)
    assert "# You have these rights." in out
    assert "create jobs" in out
    assert all(yaml.safe_load_all(out))


def test_command(cluster, apps, command, tmp_path):
    pod = cluster.pod(apps, "commanded")
    out = tmp_path / "profile.speedscope.json"
    process = command("--pod", pod, "--seconds", "1", "--out", str(out))
    said, err = process.communicate(timeout=400)
    assert process.returncode == 0, err
    assert "busy_hash" in said
    assert "note: py-spy by exec in the container" in said
    assert json.loads(out.read_text())["shared"]["frames"]


def test_rungs_of_command_and_ladder_agree():
    assert tuple(ladder.RUNGS) == attach_pod.RUNGS == tuple(each.name for each in rights.RUNGS)


def test_service_account_of_a_pod(cluster, apps, tmp_path):
    """In a pod there is no kubeconfig, but a token, a certificate and an address."""
    cluster.pod(apps, "from-inside")
    cluster.user(apps, "inside", READ, ("", "pods/exec", ("get", "create")))
    account = tmp_path / "account"
    account.mkdir()
    (account / "token").write_text(cluster.token(apps, "inside"))
    (account / "namespace").write_text(apps)
    (account / "ca.crt").write_bytes((cluster.node.state / "pki/ca.crt").read_bytes())
    host, port = cluster.node.api.removeprefix("https://").split(":")
    environment = {**os.environ, "KUBERNETES_SERVICE_HOST": host, "KUBERNETES_SERVICE_PORT": port}
    environment.pop("KUBECONFIG", None)
    environment["HOME"] = str(tmp_path)
    mounted = "/run/secrets/kubernetes.io/serviceaccount"
    script = (
        "mount --make-rprivate / && mount -t tmpfs tmpfs /run && "
        f'mkdir -p {mounted} && mount --bind {account} {mounted} && exec "$@"'
    )
    attach = [Path(sys.executable).with_name("ragprof"), "attach", "--pod", "from-inside"]
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-c", script, "sh", *attach, "--seconds", "1", "--json"],
        env=environment, capture_output=True, text=True, timeout=400,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["samples"] > 5


def test_no_way_to_a_cluster(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("KUBECONFIG", raising=False)
    with pytest.raises(PodError, match=r"no way to a cluster: .* Set KUBECONFIG"):
        ladder.attach("a/b")


def test_server_does_not_answer(cluster, monkeypatch, tmp_path):
    text = cluster.node.kubeconfig.read_text().replace(cluster.node.api, "https://127.0.0.1:9")
    (tmp_path / "config").write_text(text)
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "config"))
    with pytest.raises(PodError, match="the API server does not answer"):
        ladder.attach("a/b")


def test_pod_ends_while_it_is_profiled(cluster, apps, command):
    pod = cluster.pod(apps, "ends", command=["timeout", "8", "python3", "/app/app.py"])
    process = command("--pod", pod, "--seconds", "60", "--rung", "exec")
    _, err = process.communicate(timeout=400)
    assert process.returncode in (0, 1)
    assert "Traceback" not in err
