"""Rung 2 on real pods: the service's own profiler by port-forward, with its token."""

from __future__ import annotations

import pytest
from cluster.objects import READ
from conftest import functions

from ragprof.profiling.pods import PodError

TOKEN = "a-token-of-the-tests-alone"
STARTED = "running on"
PORTS = [{"name": "http", "containerPort": 8080}]
FORWARD = ("", "pods/portforward", ("get", "create"))


@pytest.fixture(scope="module")
def serving(cluster, apps):
    env = [{"name": "RAGPROF_PROFILING_TOKEN", "value": TOKEN}, {"name": "HOME", "value": "/tmp"}]
    pod = cluster.pod(apps, "serving", image="serving", env=env, ports=PORTS, says=STARTED)
    return pod


def test_endpoint(serving, attach, monkeypatch):
    monkeypatch.setenv("RAGPROF_PROFILING_TOKEN", TOKEN)
    profile, _ = attach(serving, rungs=("endpoint",))
    assert "busy_hash" in functions(profile)
    assert any("port-forward to port 8080" in note for note in profile.notes)


def test_port_and_token_as_arguments(serving, cluster, apps, attach):
    user = cluster.user(apps, "forwarder", READ, FORWARD)
    profile, _ = attach("serving", rungs=("endpoint",), port=8080, token=TOKEN, kubeconfig=user)
    assert "busy_hash" in functions(profile)


@pytest.mark.parametrize("token", ["", "wrong"])
def test_wrong_token(serving, attach, monkeypatch, token):
    monkeypatch.setenv("RAGPROF_PROFILING_TOKEN", token)
    with pytest.raises(PodError, match="To allow: the token of the service"):
        attach(serving, rungs=("endpoint",))


def test_not_switched_on(cluster, apps, attach):
    pod = cluster.pod(apps, "off", image="serving", ports=PORTS, says=STARTED)
    with pytest.raises(PodError, match=r"answers 404.*off without a token"):
        attach(pod, rungs=("endpoint",))


def test_nothing_listens(serving, attach):
    with pytest.raises(PodError, match="port 9: nothing answers"):
        attach(serving, rungs=("endpoint",), port=9)


def test_no_port_is_declared(cluster, apps, attach):
    pod = cluster.pod(apps, "no-port")
    with pytest.raises(PodError, match=r"declares no port.*and --port"):
        attach(pod, rungs=("endpoint",))


def test_not_allowed(serving, cluster, apps, attach):
    user = cluster.user(apps, "no-forward", READ)
    with pytest.raises(PodError) as error:
        attach("serving", rungs=("endpoint",), kubeconfig=user)
    assert 'cannot get resource "pods/portforward"' in str(error.value)
    assert "a role with get and create on pods/portforward" in str(error.value)
