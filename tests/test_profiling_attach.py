"""Attaching by py-spy: real processes, and what is said when one may not be read."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import ragprof as rp
from ragprof.cli import main
from ragprof.profiling import permissions, pyspy
from ragprof.profiling.permissions import Facts, explain
from ragprof.profiling.pyspy import AttachError, Options
from ragprof.sampler import sharing

RAGPROF = Path(sys.executable).with_name("ragprof")

TARGET = """
import subprocess, sys, threading, time
def burn():
    end = time.time() + 0.2
    while time.time() < end: pass
def busy():
    while True: burn()
def idle(): time.sleep(1000)
if sys.argv[1:] == ["parent"]:
    child = subprocess.Popen([sys.executable, __file__])
threading.Thread(target=idle, daemon=True, name="idler").start()
print("ready", flush=True)
busy()
"""

E1 = "Permission Denied: Try running again with elevated permissions by going 'sudo env ...'"
E2 = (
    "Error: Failed to get process executable name. Check that the process is running.\n\n"
    "Caused by:\n    0: Permission denied (os error 13)"
)
SECCOMP = "Error: Failed to suspend process\nReason: EPERM: Operation not permitted"
GONE = (
    "Error: Failed to get process executable name. Check that the process is running.\n\n"
    "Caused by:\n    0: No such file or directory (os error 2)"
)
NOT_PYTHON = "Error: Failed to find python version from target process"

SAME = Facts(own_uid=1000, own_gid=1000, uid=1000, gid=1000)
ROOT = Facts(own_uid=0, own_gid=0, own_ptrace=False, uid=1000, gid=1000, container=True)


@pytest.mark.parametrize(
    ("message", "facts", "said"),
    [
        (E1, replace(SAME, own_uid=1001), ["uid 1000", "sudo -u '#1000'"]),
        (E1, replace(SAME, own_gid=1001), ["gid 1001", "both must be the same"]),
        (E1, replace(SAME, yama=1), ["ptrace_scope is 1", "own parent", "ragprof profile"]),
        (E1, replace(SAME, yama=2), ["ptrace_scope is 2", "administrators"]),
        (E1, replace(SAME, yama=3), ["ptrace_scope is 3", "next boot"]),
        (E1, replace(SAME, yama=0), ["although it has the same user", "seccomp"]),
        (E1, SAME, ["although it has the same user", "/debug/pprof/profile"]),
        (E2, ROOT, ["root has no CAP_SYS_PTRACE", "uid 1000 and gid 1000", "--cap-add SYS_PTRACE"]),
        (E2, replace(ROOT, uid=0, gid=0, container=False), ["give this shell the capability"]),
        (SECCOMP, SAME, ["may not be paused", "--nonblocking"]),
        (SECCOMP, ROOT, ["may not be paused", "--nonblocking"]),
        (GONE, SAME, ["no process has the id 4711"]),
        (E1, Facts(exists=False), ["no process has the id 4711"]),
        (
            NOT_PYTHON,
            replace(SAME, command_line="/bin/sleep 60"),
            ["/bin/sleep", "not a Python program"],
        ),
        ("thread panicked at 'x'\nmore", SAME, ["thread panicked at 'x'"]),
        ("", SAME, ["it said nothing"]),
    ],
)
def test_each_refusal_is_explained_with_the_way_out(
    message: str, facts: Facts, said: list[str]
) -> None:
    text = explain(message, 4711, facts)
    assert "\n" not in text
    for part in said:
        assert part in text


def test_facts_of_a_process_are_those_of_proc(tmp_path: Path) -> None:
    (tmp_path / "self").mkdir()
    (tmp_path / "self" / "status").write_text("Name:\tx\nCapEff:\t0000000000080000\n")
    (tmp_path / "77").mkdir()
    (tmp_path / "77" / "status").write_text("Uid:\t1\t2\t3\t4\nGid:\t5\t6\t7\t8\n")
    (tmp_path / "77" / "cmdline").write_bytes(b"/usr/bin/python3\0app.py\0")
    yama = tmp_path / "sys/kernel/yama"
    yama.mkdir(parents=True)
    (yama / "ptrace_scope").write_text("1\n")
    found = permissions.facts(77, tmp_path)
    assert (found.exists, found.own_ptrace, found.yama) == (True, True, 1)
    assert (found.uid, found.gid, found.program) == (2, 6, "/usr/bin/python3")
    assert not permissions.facts(78, tmp_path).exists
    assert permissions.facts(os.getpid()).uid == os.geteuid()


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """A Python process with a child: one thread of each computes, one sleeps."""
    if pyspy.program() is None:
        pytest.fail('py-spy is not installed: pip install "ragprof[lab]"')
    program = tmp_path_factory.mktemp("target") / "target.py"
    program.write_text(TARGET)
    process = subprocess.Popen(
        [sys.executable, str(program), "parent"],
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert process.stdout is not None
    assert [process.stdout.readline() for _ in range(2)] == ["ready\n"] * 2
    yield process.pid
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def functions(profile: Any) -> set[str]:
    return {frame.function for frame in profile.frames}


def test_a_running_process_is_profiled_from_outside(target: int) -> None:
    prof = rp.attach(target, seconds=1)
    assert prof.value_types[0] == ("wall", "nanoseconds")
    assert {"burn", "busy"} <= functions(prof)
    assert set(prof.labels["process"].values()) == {str(target)}
    assert "MainThread" in prof.labels["thread_name"].values()
    assert prof.total() > 0
    burn = [index for index, frame in enumerate(prof.frames) if frame.function == "burn"]
    assert len(burn) == 1  # one frame, however many of its lines ran
    lines = prof.stack_lines[prof.stack_frames == burn[0]]
    assert set(lines.tolist()) <= {4, 5}
    assert any("at 100 Hz" in note for note in prof.notes)


def test_options_add_idle_threads_children_and_the_interpreters_holder(target: int) -> None:
    prof = rp.attach(target, seconds=1, idle=True, subprocesses=True, hz=50)
    assert "idle" in functions(prof)
    assert len(set(prof.labels["process"].values())) == 2
    held = rp.attach(target, seconds=1, gil=True, nonblocking=True)
    assert "idle" not in functions(held)


def test_native_frames_come_with_native(target: int) -> None:
    prof = rp.attach(target, seconds=1, native=True)
    assert any(frame.file and not frame.file.endswith(".py") for frame in prof.frames)


def test_a_dump_has_the_stack_of_every_thread(target: int) -> None:
    prof = rp.attach(target, seconds=0)
    assert len(prof) == 2
    assert prof.value_types[0] == ("samples", "count")
    names = prof.labels["thread_name"].values()
    states = dict(zip(names, prof.labels["state"].values(), strict=True))
    assert states["idler"] == "waiting"
    with_child = rp.attach(target, seconds=0, subprocesses=True)
    assert len(with_child) == 4


def test_a_process_that_ends_early_leaves_what_there_is() -> None:
    source = "print('ready', flush=True)\nwhile True: pass"
    process = subprocess.Popen([sys.executable, "-c", source], stdout=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.readline()

    def end() -> None:
        wait_for_pyspy(os.getpid())
        time.sleep(4)
        process.kill()
        process.wait()

    ending = threading.Thread(target=end)
    ending.start()
    prof = rp.attach(process.pid, seconds=600)
    ending.join()
    assert prof.total() > 0
    assert any("ended after" in note for note in prof.notes)


HOLDER = """
import ctypes, os, sys
libc = ctypes.CDLL(None, use_errno=True)
pid = int(sys.argv[1])
PTRACE_ATTACH = 16
assert libc.ptrace(PTRACE_ATTACH, pid, None, None) == 0, os.strerror(ctypes.get_errno())
os.waitpid(pid, 0x40000000)  # __WALL
print("held", flush=True)
sys.stdin.read()
"""


@pytest.mark.skipif(sys.platform != "linux", reason="ptrace's requests by Linux's numbers")
def test_a_process_held_still_for_ever_is_seen_and_one_that_runs_is_not(target: int) -> None:
    """As one that was killed just when py-spy took hold of it: neither would ever end."""
    held = pyspy._Held(target)
    looks = [held.still(time.monotonic()) for _ in range(30) if not time.sleep(0.1)]
    assert not any(looks)
    command = [sys.executable, "-c", HOLDER, str(target)]
    holder = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        assert not held.still(time.monotonic())
        deadline = time.monotonic() + 30
        while not held.still(time.monotonic()):
            assert time.monotonic() < deadline, "not seen"
            time.sleep(0.1)
    finally:
        holder.communicate()


def test_what_cannot_be_attached_to_is_explained() -> None:
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    with pytest.raises(AttachError, match=f"no process has the id {gone.pid}"):
        rp.attach(gone.pid, seconds=1)
    sleep = subprocess.Popen(["sleep", "60"])
    try:
        with pytest.raises(AttachError, match="not a Python program"):
            rp.attach(sleep.pid, seconds=1)
        with pytest.raises(AttachError, match="not a Python program"):
            rp.attach(sleep.pid, seconds=0)
    finally:
        sleep.kill()
        sleep.wait()


if os.geteuid() == 0:  # only root can become another user

    def test_another_users_process_is_refused_with_the_way_out(target: int) -> None:
        code = (
            "import os, sys\n"
            "from ragprof.profiling import permissions, pyspy\n"
            "os.setgroups([]); os.setgid(1000); os.setuid(1000)\n"
            f"print(permissions.explain({E1!r}, {target}, permissions.facts({target})))"
        )
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, timeout=60
        )
        assert "belongs to uid 0 and gid 0, and this is uid 1000" in done.stdout, done.stderr

    def test_root_without_the_capability_is_told_so(target: int) -> None:
        command = ["setpriv", "--bounding-set", "-sys_ptrace", "--inh-caps", "-sys_ptrace"]
        done = subprocess.run(
            [*command, RAGPROF, "attach", str(os.getpid()), "--seconds", "1"],
            capture_output=True,
            text=True,
            timeout=120,
        )
        # Root may read processes of root that have no more capabilities than itself.
        assert done.returncode == 1, done.stdout
        assert "CAP_SYS_PTRACE" in done.stderr


def test_ctrl_c_keeps_what_there_is(target: int, tmp_path: Path) -> None:
    out = tmp_path / "seen.pb.gz"
    command = [RAGPROF, "attach", str(target), "--seconds", "600", "--json", "--out", str(out)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    wait_for_pyspy(process.pid)
    time.sleep(4)
    process.send_signal(signal.SIGINT)
    answer, _ = process.communicate(timeout=60)
    assert process.returncode == 130
    found = json.loads(answer)
    assert found["interrupted"] is True
    assert found["samples"] > 0
    assert any("stopped by Ctrl-C" in note for note in found["notes"])
    assert rp.read_profile(out).total() == found["total"]


def wait_for_pyspy(pid: int) -> None:
    """Until py-spy runs below a process."""
    deadline = time.monotonic() + 60
    while not _recording(pid):
        assert time.monotonic() < deadline, "py-spy did not start"
        time.sleep(0.1)


def _recording(pid: int) -> bool:
    try:
        found = [one for task in Path(f"/proc/{pid}/task").iterdir()
                 for one in (task / "children").read_text().split()]  # fmt: skip
        return any(b"py-spy" in Path(f"/proc/{child}/cmdline").read_bytes() for child in found)
    except OSError:
        return False


def test_the_command_says_what_it_saw_and_writes_it(
    target: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = [tmp_path / name for name in ("a.svg", "a.html", "a.speedscope.json", "a.collapsed")]
    words = ["attach", str(target), "--seconds", "1"]
    outs = [word for file in files for word in ("--out", str(file))]
    assert main([*words, *outs]) == 0
    said = capsys.readouterr()
    assert "burn" in said.out
    assert "a.collapsed: " in said.err  # what that format cannot carry
    assert all("burn" in file.read_text() for file in files)
    assert main([*words, "--dump"]) == 0
    assert "idler: waiting" in capsys.readouterr().out
    assert main([*words, "--out", str(tmp_path / "a.xyz")]) == 1
    assert "names end in" in capsys.readouterr().err
    assert main(["attach"]) == 1
    assert "give the id of the process" in capsys.readouterr().err


@pytest.mark.parametrize("options", [{"seconds": -1}, {"seconds": float("nan")}, {"hz": 0}])
def test_numbers_that_cannot_be_are_refused(options: dict[str, float]) -> None:
    with pytest.raises(AttachError, match="correct it"):
        rp.attach(os.getpid(), **options)  # type: ignore[arg-type]


def test_a_file_without_any_stack_is_an_empty_profile() -> None:
    assert len(pyspy.read('{"profiles":[],"shared":{"frames":[]}}', 7, "x")) == 0
    assert Options(hz=49.6, idle=True).words() == ["--rate", "50", "--full-filenames", "--idle"]
    assert sharing.running() is None
