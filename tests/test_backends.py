"""The servers that the tests talk to: they start, are shared between workers, and go."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest
from backends import servers
from backends.servers import Server

SECOND_WORKER = """
import pathlib, sys
from backends import servers

def start():
    return servers.start_prometheus(pathlib.Path(sys.argv[2]))

with servers.shared(pathlib.Path(sys.argv[1]), "prometheus", start) as server:
    print(server.url, flush=True)
    sys.stdin.readline()
"""


def _worker(run: Path, folder: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", SECOND_WORKER, str(run), str(folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(Path(servers.__file__).parents[1])},
    )


def test_workers_share_one_server_and_the_last_one_ends_it(tmp_path: Path) -> None:
    workers = [_worker(tmp_path, tmp_path / "data") for _ in range(2)]
    try:
        urls = {worker.stdout.readline().strip() for worker in workers if worker.stdout}
        assert len(urls) == 1
        url = urls.pop()
        pid = json.loads((tmp_path / "prometheus.server").read_text())["pid"]
        workers[0].kill()  # its lock goes with it
        workers[0].wait()
        assert servers.answers(f"{url}/-/ready")
        workers[1].communicate("done\n", timeout=60)
        assert servers.wait(lambda: not servers.answers_pid(pid))
        assert not servers.answers(f"{url}/-/ready")
    finally:
        for worker in workers:
            worker.kill()
            worker.wait()


@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGKILL])
def test_servers_for_use_by_hand_end_with_their_process(end: signal.Signals) -> None:
    by_hand = subprocess.Popen(
        [sys.executable, "-m", "backends", "prometheus"],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(Path(servers.__file__).parents[1])},
    )
    try:
        assert by_hand.stdout is not None
        words = [by_hand.stdout.readline() for _ in range(2)]  # it brings its Alertmanager
        said = {line.split()[1].partition("=")[0]: line.split("=")[1].split()[0] for line in words}
        prometheus, manager = (
            said[f"RAGPROF_TEST_{name}_URL"] for name in ("PROMETHEUS", "ALERTMANAGER")
        )
        assert servers.answers(f"{manager}/-/ready")
        with urllib.request.urlopen(f"{prometheus}/api/v1/rules", timeout=60) as reply:
            groups = json.load(reply)["data"]["groups"]
        assert [group["name"] for group in groups] == ["rag-api-alerts", "rag-slo-burn-rate"]
        targets = Path(words[0].split()[-1])
        by_hand.send_signal(end)
        assert by_hand.wait(60) == (0 if end is signal.SIGINT else -signal.SIGKILL)
    finally:
        by_hand.kill()
        by_hand.wait()
    for url in (prometheus, manager):
        assert servers.wait(lambda: not servers.answers(f"{url}/-/ready"))  # noqa: B023
    assert servers.wait(lambda: not targets.parent.exists())


def test_a_server_that_cannot_start_says_why(tmp_path: Path) -> None:
    with pytest.raises(servers.Unstartable, match="not_a_key"):
        servers.start_prometheus(tmp_path, "not_a_key: 1\n")


def test_a_missing_program_names_the_installer() -> None:
    with pytest.raises(servers.Unstartable, match=r"tests/backends/install\.sh"):
        servers.find("no-such-program")


@pytest.mark.parametrize("name", ["elasticsearch8", "elasticsearch9"])
def test_elasticsearch_takes_and_finds_a_document(
    name: str, request: pytest.FixtureRequest
) -> None:
    server: Server = request.getfixturevalue(name)
    assert servers.elasticsearch_major(server.url) == name[-1]
    document = json.dumps({"event": "started"}).encode()
    put = urllib.request.Request(
        f"{server.url}/backends-start/_doc/1?refresh=true",
        document,
        {"Content-Type": "application/json"},
        method="PUT",
    )
    with urllib.request.urlopen(put, timeout=60) as reply:
        assert reply.status in (200, 201)
    with urllib.request.urlopen(f"{server.url}/backends-start/_search", timeout=60) as reply:
        assert json.load(reply)["hits"]["total"]["value"] == 1


def test_jaeger_and_alertmanager_answer(jaeger: Server, alertmanager: Server) -> None:
    assert servers.answers(f"{jaeger.url}/api/v3/services")
    assert servers.answers(f"{alertmanager.url}/api/v2/status")
