"""Session fixtures of the real servers, one of each for all workers of a run.

`RAGPROF_TEST_PROMETHEUS_URL`, `…_ALERTMANAGER_URL`, `…_ELASTICSEARCH_URL` and `…_JAEGER_URL` take
servers that exist instead. Tests write under names of their own. A test that needs another
configuration or the server's files starts its own with `backends.servers.start_…`.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from backends import servers
from backends.servers import Server


@pytest.fixture(scope="session")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that all workers of this run share, and nobody else."""
    own = tmp_path_factory.getbasetemp()
    return own.parent if "PYTEST_XDIST_WORKER" in os.environ else own


def _serve(run: Path, name: str, start: Callable[[], Server]) -> Iterator[Server]:
    url = os.environ.get(f"RAGPROF_TEST_{name.rstrip('89').upper()}_URL", "").rstrip("/")
    if name.startswith("elasticsearch") and url and name[-1] != servers.elasticsearch_major(url):
        url = ""  # the given server is of the other version
    if url:
        yield Server(url)
        return
    with servers.shared(run, name, start) as server:
        yield server


def _folder(name: str) -> Path:
    return Path(tempfile.mkdtemp(prefix=f"ragprof-{name}-"))


@pytest.fixture(scope="session")
def prometheus(run_folder: Path) -> Iterator[Server]:
    """A Prometheus that scrapes nothing and takes remote write."""
    yield from _serve(
        run_folder,
        "prometheus",
        lambda: servers.start_prometheus(_folder("prometheus"), remove=True),
    )


@pytest.fixture(scope="session")
def alertmanager(run_folder: Path) -> Iterator[Server]:
    yield from _serve(
        run_folder,
        "alertmanager",
        lambda: servers.start_alertmanager(_folder("alertmanager"), remove=True),
    )


@pytest.fixture(scope="session")
def elasticsearch8(run_folder: Path) -> Iterator[Server]:
    yield from _serve(
        run_folder,
        "elasticsearch8",
        lambda: servers.start_elasticsearch(servers.ELASTICSEARCH_8),
    )


@pytest.fixture(scope="session")
def elasticsearch9(run_folder: Path) -> Iterator[Server]:
    yield from _serve(
        run_folder,
        "elasticsearch9",
        lambda: servers.start_elasticsearch(servers.ELASTICSEARCH_9),
    )


@pytest.fixture(scope="session")
def jaeger(run_folder: Path) -> Iterator[Server]:
    """Jaeger; spans go to `http://127.0.0.1:{server.ports["otlp_http"]}/v1/traces`.

    With RAGPROF_TEST_JAEGER_URL they go to RAGPROF_TEST_JAEGER_OTLP_PORT, else 4318.
    """
    for server in _serve(
        run_folder, "jaeger", lambda: servers.start_jaeger(_folder("jaeger"), remove=True)
    ):
        server.ports.setdefault(
            "otlp_http", int(os.environ.get("RAGPROF_TEST_JAEGER_OTLP_PORT", "4318"))
        )
        yield server


@pytest.fixture
def rsyslog(tmp_path: Path) -> Iterator[Callable[[str], Server]]:
    """Starts rsyslogd with a configuration; what a test started ends with the test."""
    started: list[Server] = []

    def start(config: str) -> Server:
        folder = tmp_path / f"rsyslog{len(started)}"
        started.append(servers.start_rsyslog(folder, config))
        return started[-1]

    yield start
    for server in started:
        server.stop()
