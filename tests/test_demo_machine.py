"""Pressure on the CPU from outside of the demo: it begins when told to, and ends in any case."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ragprof.capturing import processes
from ragprof.demo import pressure
from ragprof.demo.faults import machine


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(300)"]) as child:
        yield child
        child.kill()


def state(pid: int) -> str:
    found = processes.read(pid)
    return found.state if found else ""


def reached(holds: Callable[[], bool], seconds: float = 60) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if holds():
            return True
        time.sleep(0.005)
    return False


def test_without_a_cgroup_the_service_is_stopped_for_a_part_of_the_time(
    sleeper: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine, "own_group", lambda pid: None)
    with machine.cpu_limit(sleeper.pid) as start:
        assert state(sleeper.pid) != "T"
        start()
        assert reached(lambda: state(sleeper.pid) == "T")
        assert reached(lambda: state(sleeper.pid) == "S")
    assert reached(lambda: state(sleeper.pid) == "S")
    assert sleeper.poll() is None


def test_a_cgroup_gets_a_quota_and_is_given_back(tmp_path: Path) -> None:
    for names, content in (
        (("cpu.max",), ["30000 100000"]),
        (("cpu.cfs_period_us", "cpu.cfs_quota_us"), ["100000", "30000"]),
    ):
        folder = tmp_path / names[0]
        folder.mkdir()
        for name in names:
            (folder / name).write_text("max")
        machine.allow(folder, 0.3)
        assert [(folder / name).read_text() for name in names] == content
    group = tmp_path / "group"
    group.mkdir()
    (group / "cgroup.procs").write_text("4711\n")
    machine.leave(group)
    assert (tmp_path / "cgroup.procs").read_text() == "4711"


def test_a_cgroup_that_cannot_be_made_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "cgroup.procs").write_text("")
    monkeypatch.setattr(processes, "cgroup_folders", lambda pid: [tmp_path, tmp_path / "absent"])
    assert machine.own_group(os.getpid()) is None  # no controller in it
    assert [each.name for each in tmp_path.iterdir()] == ["cgroup.procs"]


def test_neighbours_compute_until_they_are_ended() -> None:
    started: list[subprocess.Popen[bytes]] = []
    run = machine.run

    def remember(*words: str) -> subprocess.Popen[bytes]:
        started.append(run(*words))
        return started[-1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(machine, "run", remember)
        patch.setattr(os, "sched_getaffinity", lambda pid: {0})
        with machine.busy_neighbour(os.getpid()) as start:
            assert not started
            start()
            assert len(started) == 2
            assert reached(lambda: all(machine.cpu_seconds(each.pid) > 0.1 for each in started))
    assert all(each.returncode is not None for each in started)


def test_pressure_ends_when_its_parent_is_gone_or_its_time_is_over() -> None:
    done: list[int] = []
    pressure.again(lambda: done.append(1), os.getppid() + 1, 60)
    pressure.again(lambda: done.append(1), os.getppid(), 0)
    assert not done
    assert pressure.main([str(os.getppid()), "0", "burn"]) == 0
