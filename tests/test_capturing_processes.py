"""Facts from /proc and the cgroup."""

from __future__ import annotations

import os
import socket
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from ragprof.capturing import changes, connections, processes
from ragprof.capturing.child import BOOTSTRAP, environment


def test_facts_of_this_process_agree_with_the_system() -> None:
    facts, own = processes.Facts(), os.getpid()
    facts.of([own])
    end = time.process_time() + 0.1
    while time.process_time() < end:
        sum(range(1000))
    found = {name: value for name, value, _, _, labels in facts.of([own]) if "process" in labels}
    used = os.times()
    assert found["process.cpu.time"] == pytest.approx(used.user + used.system, abs=0.2)
    assert 0 < found["process.cpu.utilization"] <= 64
    assert found["process.thread.count"] >= threading.active_count()
    assert found["process.open_file_descriptor.count"] >= 3
    assert found["process.memory.usage"] > 5e6


def test_the_machine_has_pressure_or_at_least_steal_and_time() -> None:
    names = {name for name, *_ in processes.machine_facts()}
    assert {"system.cpu.steal", "system.cpu.time"} <= names


def test_a_process_that_is_gone_has_no_facts() -> None:
    child = subprocess.Popen(["true"])
    child.wait()
    assert processes.read(child.pid) is None
    assert processes.command(child.pid) == []
    assert not any(labels.get("process") for *_, labels in processes.Facts().of([child.pid]))


def test_the_tree_of_a_process() -> None:
    child = subprocess.Popen(
        ["sh", "-c", "sleep 30 & sleep 30 & echo; wait"], stdout=subprocess.PIPE
    )
    try:
        assert child.stdout is not None
        child.stdout.readline()
        found = processes.tree([child.pid])
        assert found[0] == child.pid
        assert len(found) == 3
        assert sorted(processes._children_by_scan(child.pid)) == sorted(found[1:])
        assert processes.command(found[1]) == ["sleep", "30"]
        started = processes.read(found[1])
        assert started is not None
        assert abs(processes.started(started) - time.time_ns()) < 60e9
    finally:
        for pid in reversed(processes.tree([child.pid])):
            os.kill(pid, 9)
        child.communicate()


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
@pytest.mark.parametrize("ask", [connections.inode, connections._from_table])
def test_whose_connection_it_is(host: str, ask: Callable[[int, int], int]) -> None:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.create_server((host, 0), family=family) as server:
        port = server.getsockname()[1]
        with socket.create_connection((host, port)) as client:
            inode = ask(client.getsockname()[1], port)
            assert inode == os.fstat(client.fileno()).st_ino
            assert connections.owner([inode], [1, os.getpid()]) == os.getpid()
            assert connections.owner([inode], processes.everyone()) == os.getpid()
            assert connections.owner([inode], []) == 0
            gone = client.getsockname()[1]
        assert ask(gone, port) != inode
        assert connections.listener(port, [os.getpid()]) == os.getpid()
    assert connections.listener(port, [os.getpid()]) == 0


@pytest.mark.parametrize(
    ("stat", "seconds"),
    [
        ("usage_usec 5\nnr_periods 3\nnr_throttled 2\nthrottled_usec 1500000\n", 1.5),
        ("nr_periods 3\nnr_throttled 2\nthrottled_time 1500000000\n", 1.5),
    ],
)
def test_throttling_in_both_versions_of_cgroups(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stat: str, seconds: float
) -> None:
    monkeypatch.setattr(processes, "CGROUPS", tmp_path)
    folder = tmp_path / "app"
    folder.mkdir()
    (folder / "cpu.stat").write_text(stat)
    (folder / "cpu.pressure").write_text(
        "some avg10=12.50 avg60=1.00 avg300=0.10 total=2500000\nfull avg10=0.00 total=0\n"
    )
    found = {name: (value, labels) for name, value, _, _, labels in processes.cgroup_facts(folder)}
    assert found == {
        "cgroup.cpu.throttled_time": (seconds, {"cgroup": "app"}),
        "cgroup.cpu.throttled_periods": (2.0, {"cgroup": "app"}),
        "cgroup.cpu.pressure.some.avg10": (0.125, {"cgroup": "app"}),
        "cgroup.cpu.pressure.some.total": (2.5, {"cgroup": "app"}),
    }


def test_a_python_is_told_from_its_program() -> None:
    assert processes.is_python(os.getpid())
    child = subprocess.Popen(["sleep", "30"])
    try:
        time.sleep(0.1)
        assert not processes.is_python(child.pid)
    finally:
        child.kill()
        child.wait()


def test_the_environment_says_where_telemetry_goes_and_keeps_the_users_choices() -> None:
    base = {
        "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "https://vendor.example/v1/traces",
        "OTEL_EXPORTER_OTLP_HEADERS": "api-key=secret",
        "OTEL_BSP_SCHEDULE_DELAY": "77",
        "OTEL_SERVICE_NAME": "own",
        "PYTHONPATH": "/mine",
        "NO_PROXY": "internal",
        "PATH": "/bin",
    }
    env = environment(base, endpoint="http://127.0.0.1:1", spool=Path("/s"), hz=50, service="other")
    assert env["OTEL_EXPORTER_OTLP_ENDPOINT"] == "http://127.0.0.1:1"
    assert env["OTEL_EXPORTER_OTLP_PROTOCOL"] == "http/protobuf"
    assert "secret" not in str(env)
    assert "vendor" not in str(env)
    assert env["OTEL_BSP_SCHEDULE_DELAY"] == "77"
    assert env["OTEL_SERVICE_NAME"] == "own"
    assert env["PYTHONPATH"].split(os.pathsep) == [str(BOOTSTRAP), "/mine"]
    assert env["NO_PROXY"].startswith("internal,127.0.0.1")
    assert (env["RAGPROF_SPOOL"], env["RAGPROF_SAMPLER_HZ"]) == ("/s", "50")
    without = environment(base, endpoint="http://127.0.0.1:1", spool=None, hz=0)
    assert without["PYTHONPATH"] == "/mine"
    assert "RAGPROF_SPOOL" not in without
    assert (BOOTSTRAP / "sitecustomize.py").exists()


def test_a_restart_is_seen_in_process_start_times() -> None:
    times = changes.StartTimes()
    url = "http://127.0.0.1/metrics"
    assert times.seen(url, "rag", 1000.0) is None
    assert times.seen(url, "rag", 1000.2) is None
    row = times.seen(url, "rag", 2000.0)
    assert row is not None
    assert (row["kind"], row["service"], row["time"]) == ("restart", "rag", 2000 * 10**9)
