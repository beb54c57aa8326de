"""One Kubernetes node for all tests of this folder; `make test-pods` builds it before."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from cluster import build, node
from cluster.objects import Cluster

from ragprof.profiles.model import Profile
from ragprof.profiling import pods

REPOSITORY = Path(__file__).parents[2]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:  # the waits of a test are shorter, and say what did not come
        item.add_marker(pytest.mark.timeout(1800))


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # ends the node in order as well
    with node.running(build.build()) as one:
        yield Cluster(one)


@pytest.fixture(scope="session")
def apps(cluster: Cluster) -> str:
    """The namespace of most pods."""
    return cluster.namespace("apps")


@pytest.fixture(autouse=True)
def _own_pods(cluster: Cluster) -> Iterator[None]:
    """Pods end with their test: what they compute would slow all later tests down."""
    before = set(cluster.pods)
    yield
    cluster.remove([pod for pod in cluster.pods if pod not in before])


@pytest.fixture
def attach(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., tuple[Profile, list[str]]]:
    """`pods.attach` for one second, as administrator or with another kubeconfig; what it said."""

    def call(pod: str, *, kubeconfig: Path | None = None, **options: Any) -> Any:
        monkeypatch.setenv("KUBECONFIG", str(kubeconfig or cluster.node.kubeconfig))
        said: list[str] = []
        profile = pods.attach(pod, **{"seconds": 1, "say": said.append, **options})
        return profile, said

    return call


@pytest.fixture
def command(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """`ragprof attach …` as a process of its own."""

    def start(*words: str, kubeconfig: Path | None = None) -> subprocess.Popen[str]:
        monkeypatch.setenv("KUBECONFIG", str(kubeconfig or cluster.node.kubeconfig))
        return subprocess.Popen(
            [Path(sys.executable).with_name("ragprof"), "attach", *words],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    return start


def functions(profile: Profile) -> set[str]:
    """Names of the functions that were seen, without their modules."""
    return {frame.function.rpartition(":")[2] for frame in profile.frames}
