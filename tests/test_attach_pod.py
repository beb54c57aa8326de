"""Attaching to a pod, as far as it goes without a cluster: the recorders, the probes, the choices.

The rest runs on real pods: `make test-pods`.
"""

from __future__ import annotations

import base64
import contextlib
import gzip
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from ragprof.cli import attach_pod
from ragprof.profiling import pyspy
from ragprof.profiling.pods import (
    PodError,
    cluster,
    delivery,
    detached,
    inside,
    ladder,
    rights,
    streams,
    target,
)
from ragprof.profiling.pods.request import RungFailed

ARGUMENTS = ("record", "--format", "speedscope", "--rate", "50", "--full-filenames")
BURN = "while True:\n    sum(range(1000))\n"


@pytest.fixture
def burning():
    process = subprocess.Popen([sys.executable, "-c", BURN])
    yield process.pid
    process.kill()
    process.wait(30)


def recorder(kind, *arguments):
    if kind == "shell":
        return inside.shell("record", *arguments)
    return inside.python(sys.executable, "record", *arguments)


def recorded(kind, folder, pid, *, encoding="raw", duration="1", stop=b"", user="", short=0):
    """Run a recorder as exec does, py-spy on its standard input; its output and messages."""
    program = Path(pyspy.program()).read_bytes()
    words = recorder(
        kind, f"stdin:{len(program)}", str(folder), "token", str(pid), user, encoding, "yes",
        *ARGUMENTS, "--duration", duration,
    )  # fmt: skip
    process = subprocess.Popen(
        words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    kept = -1 if short else os.dup(process.stdin.fileno())  # the connection stays open
    try:
        with contextlib.suppress(BrokenPipeError):
            process.stdin.write(program[: len(program) - short])
            process.stdin.flush()
            if stop:
                time.sleep(2)
                process.stdin.write(stop)
                process.stdin.flush()
        return process.communicate(timeout=120)
    finally:
        process.kill()
        if kept >= 0:
            os.close(kept)


@pytest.mark.parametrize("kind", ["shell", "python"])
def test_recorder(kind, tmp_path, burning):
    out, err = recorded(kind, tmp_path, burning)
    lines = err.decode().splitlines()
    assert f"@ragprof target {burning} {os.geteuid()}:{os.getegid()} self" in err.decode()
    assert "@ragprof code 0" in lines
    assert f"@ragprof bytes {len(out)}" in lines
    profile = pyspy.read(out.decode(), burning, "it")
    assert len(profile) > 5
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("kind", ["shell", "python"])
@pytest.mark.parametrize("stop", [b"stop\n", b""])
def test_recorder_ends_early(kind, stop, tmp_path, burning):
    """On a line on its standard input, and when the connection ends."""
    began = time.monotonic()
    if stop:
        out, _ = recorded(kind, tmp_path, burning, duration="600", stop=stop)
    else:
        program = Path(pyspy.program())
        words = recorder(
            kind, str(program), str(tmp_path), "token", str(burning), "", "raw", "yes",
            *ARGUMENTS, "--duration", "600",
        )  # fmt: skip
        done = subprocess.run(words, input=b"", capture_output=True, timeout=120)
        out = done.stdout
        assert b"@ragprof started" in done.stderr
    assert time.monotonic() - began < 110
    assert not stop or len(pyspy.read(out.decode(), burning, "it")) > 5
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("kind", ["shell", "python"])
def test_recorder_for_a_log(kind, tmp_path, burning):
    out, err = recorded(kind, tmp_path, burning, encoding="base64")
    assert err == b""
    seen = detached.read_log(out.decode())
    assert seen.facts["code"] == "0"
    assert len(pyspy.read(seen.content.decode(), burning, "it")) > 5


@pytest.mark.parametrize("kind", ["shell", "python"])
def test_recorder_fails_clearly(kind, tmp_path, burning):
    _, err = recorded(kind, tmp_path, burning, short=100)
    assert "arrived incomplete" in err.decode()
    _, err = recorded(kind, tmp_path, 2**22 - 3)
    seen = streams.Recorded()
    for line in err.decode().splitlines():
        seen.take(line)
    assert "No such file or directory" in seen.failed
    assert "backtrace" not in seen.failed
    assert list(tmp_path.iterdir()) == []


def test_recorder_without_a_place(tmp_path, burning):
    _, err = recorded("shell", tmp_path / "nowhere", burning)
    assert "no folder can be made" in err.decode()


def test_recorder_is_terminated(tmp_path, burning):
    words = recorder(
        "shell", str(pyspy.program()), str(tmp_path), "token", str(burning), "", "raw", "yes",
        *ARGUMENTS, "--duration", "600",
    )  # fmt: skip
    process = subprocess.Popen(words, stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    while "started" not in process.stderr.readline():
        assert process.poll() is None
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("program", [None, sys.executable])
def test_probe(program, burning):
    words = inside.shell("probe") if program is None else inside.python(program, "probe")
    out = subprocess.run(words, capture_output=True, text=True, timeout=120).stdout
    facts = target.read_probe(out, program)
    assert facts.machine == os.uname().machine
    assert (facts.uid, facts.gid) == (os.geteuid(), os.getegid())
    process = next(each for each in facts.own_processes() if each.pid == burning)
    assert process.python
    assert (process.parent, process.uid) == (os.getpid(), os.geteuid())
    assert process.memory > 1 << 20
    assert program or facts.places
    assert facts.pid not in {each.pid for each in facts.own_processes()}


PROBE = """machine\taarch64
self\tPid:\t90
self\tUid:\t0\t0\t0\t0
self\tGid:\t0\t0\t0\t0
self\tCapEff:\t00000000a80425fb
own\t0::/
mount\ttmpfs /dev/shm tmpfs rw,noexec 0 0
place\t/tmp
memory.max\t104857600
memory.current\t83886080
memory.stat\tinactive_file 41943040
process\t1\t/usr/bin/python3.11
status\tPPid:\t0
status\tUid:\t1000\t1000\t1000\t1000
status\tGid:\t1000\t1000\t1000\t1000
status\tVmRSS:\t   11000 kB
cgroup\t0::/
command\tpython3 -m uvicorn app:app
process\t7\t
status\tPPid:\t1
cgroup\t0::/
command\tpython3 -c worker
process\t50\t/usr/bin/python3.11
status\tPPid:\t0
cgroup\t0::/../other
command\tpython3 other.py
process\t90\t/bin/dash
status\tPPid:\t0
cgroup\t0::/
command\tsh -c probe
end
"""


def test_facts_of_a_probe():
    facts = target.read_probe(PROBE, None)
    assert facts.headroom == 60 << 20
    assert not facts.can_trace
    assert [each.pid for each in facts.own_processes()] == [1, 7]
    assert target.process_of(facts, None).pid == 1
    assert target.process_of(facts, 7).command == "python3 -c worker"
    assert delivery.in_memory(facts, "/dev/shm")
    assert not delivery.in_memory(facts, "/tmp")


def test_memory_of_version_1_and_without_a_limit():
    text = PROBE.replace("memory.max", "memory/memory.limit_in_bytes")
    text = text.replace("memory.current", "memory/memory.usage_in_bytes")
    text = text.replace("memory.stat\tinactive", "memory/memory.stat\ttotal_inactive")
    assert target.read_probe(text, None).headroom == 60 << 20
    assert target.read_probe(text.replace("104857600", str(2**63 - 4096)), None).headroom is None
    assert target.read_probe(PROBE.replace("104857600", "max"), None).headroom is None


def test_memory_is_refused_with_a_reason():
    facts = target.read_probe(PROBE.replace("104857600", str(60 << 20)), None)
    with pytest.raises(RungFailed, match="20 MiB left of its memory limit of 60 MiB") as failed:
        delivery.check_memory(facts, native=False, in_memory=0, python=False)
    assert failed.value.allow == "a memory limit at least 4 MiB higher"


def test_another_machine():
    with pytest.raises(RungFailed, match="the container is Linux on"):
        delivery.binary("aarch64" if os.uname().machine != "aarch64" else "x86_64")
    assert delivery.binary(os.uname().machine)[:4] == b"\x7fELF"


def pod(**status):
    return {
        "metadata": {"name": "p"},
        "spec": {"nodeName": "n", "containers": [{"name": "app", "image": "i"}]},
        "status": {"phase": "Running", "containerStatuses": [], **status},
    }


@pytest.mark.parametrize(
    ("status", "said"),
    [
        ({"phase": "Succeeded"}, "not running (phase Succeeded)"),
        ({"phase": "Failed", "reason": "Evicted"}, "not running (phase Failed: Evicted)"),
        ({}, "'app' of pod ns/p is not running (unknown: no reason given)"),
        (
            {
                "containerStatuses": [
                    {"name": "app", "state": {"waiting": {"reason": "CrashLoopBackOff"}}}
                ]
            },
            "not running (waiting: CrashLoopBackOff)",
        ),
    ],
)
def test_not_running(status, said):
    with pytest.raises(PodError) as error:
        target.choose(pod(**status), "ns", "p", None)
    assert said in str(error.value)


def test_default_container():
    """The annotation that kubectl uses counts here as well."""
    two = pod(
        containerStatuses=[
            {"name": "app", "containerID": "containerd://abc", "state": {"running": {}}}
        ]
    )
    two["spec"]["containers"].append({"name": "sidecar", "image": "j"})
    with pytest.raises(PodError, match=r"--container app \| sidecar"):
        target.choose(two, "ns", "p", None)
    two["metadata"]["annotations"] = {"kubectl.kubernetes.io/default-container": "app"}
    chosen = target.choose(two, "ns", "p", None)
    assert (chosen.container, chosen.container_id, chosen.node) == ("app", "abc", "n")


def test_user_of_the_container_counts_before_that_of_the_pod():
    running = [{"name": "app", "containerID": "containerd://abc", "state": {"running": {}}}]
    one = pod(containerStatuses=running)
    one["spec"]["securityContext"] = {"runAsUser": 1, "runAsGroup": 2}
    assert target.choose(one, "ns", "p", None).user == (1, 2)
    one["spec"]["containers"][0]["securityContext"] = {"runAsUser": 0}
    assert target.choose(one, "ns", "p", None).user == (0, 2)


def test_damaged_logs():
    packed = base64.encodebytes(gzip.compress(b"{}")).decode()
    good = f"@ragprof started\n@ragprof begin\n{packed}@ragprof end\n"
    assert detached.read_log(good).content == b"{}"
    assert detached.read_log("noise\n@ragprof failed for a reason\n").failed == "for a reason"
    with pytest.raises(PodError, match="ends too early"):
        detached.read_log(good.replace("@ragprof end\n", ""))
    with pytest.raises(PodError, match="is damaged"):
        detached.read_log(good.replace(packed[:8], "!!!!!!!!"))
    cut = base64.encodebytes(gzip.compress(os.urandom(999))[:-20]).decode()
    with pytest.raises(PodError, match="is damaged"):
        detached.read_log(f"@ragprof begin\n{cut}@ragprof end\n")


class Streams:
    """A recorder's streams without a cluster."""

    def __init__(self, *steps):
        self.steps = list(steps)
        self.sent = b""
        self.channels = {1: b"", 2: b"", 3: b'{"status": "Success"}'}
        self.closed = False

    def is_open(self):
        return bool(self.steps)

    def update(self, timeout):
        step = self.steps.pop(0)
        if isinstance(step, BaseException):
            raise step
        for channel, data in step.items():
            self.channels[channel] += data

    def read_channel(self, channel):
        data, self.channels[channel] = self.channels[channel], b""
        return data

    def write_channel(self, channel, data):
        assert channel == 0
        self.sent += data

    def close(self):
        self.closed = True


def test_stream_of_a_recorder():
    done = []
    one = Streams(
        {2: b"@ragprof ready\n@ragprof tar"},
        {2: b"get 7 0:0 self 0:0\n@ragprof started\n"},
        {2: b"py-spy> Sampling\n@ragprof code 0\n@ragprof bytes 5\n", 1: b"ab"},
        {1: b"cde"},
    )
    seen = streams.record(one, 1, b"x" * 100_000, done.append)
    assert (seen.content, seen.facts["target"], len(one.sent)) == (
        b"abcde",
        "7 0:0 self 0:0",
        10**5,
    )
    assert one.closed
    assert done


@pytest.mark.parametrize(
    "said",
    [
        "Permission Denied: Try running again with elevated permissions",
        "Error: No python processes found in process 6 or any of its subprocesses",
    ],
)
def test_words_of_a_refusal(said):
    assert streams.Recorded(said=[said]).refused
    assert not streams.Recorded(said=["Error: disk full"]).refused


def test_stream_is_cut_short():
    with pytest.raises(PodError, match="incomplete: 2 of 5 bytes"):
        streams.record(Streams({2: b"@ragprof bytes 5\n", 1: b"ab"}), 1)


def test_ctrl_c_keeps_what_there_is():
    one = Streams(
        {2: b"@ragprof started\n"},
        KeyboardInterrupt(),
        {2: b"@ragprof code 0\n@ragprof bytes 2\n", 1: b"ab"},
    )
    seen = streams.record(one, 60)
    assert (seen.content, one.sent) == (b"ab", b"stop\n")
    assert seen.stopped_after is not None


def test_ctrl_c_before_the_start_and_twice():
    for steps in ([KeyboardInterrupt()], [{2: b"@ragprof started\n"}, *[KeyboardInterrupt()] * 2]):
        one = Streams(*steps)
        with pytest.raises(KeyboardInterrupt):
            streams.record(one, 60)
        assert one.closed


def test_names():
    assert cluster.names("ns/name", "default") == ("ns", "name")
    assert cluster.names("pod/name", "default") == ("default", "name")
    for wrong in ("", "/", "a/", "a/b/c"):
        with pytest.raises(PodError, match="give NAMESPACE/NAME"):
            cluster.names(wrong, "default")


def test_arguments_that_cannot_be():
    with pytest.raises(PodError, match="seconds > 0"):
        ladder.attach("a/b", seconds=0)
    with pytest.raises(PodError, match="not ladder"):
        ladder.attach("a/b", rungs=("ladder",))
    assert tuple(ladder.RUNGS) == attach_pod.RUNGS == tuple(each.name for each in rights.RUNGS)


def test_explain_is_yaml_ready_to_apply():
    documents = list(yaml.safe_load_all(rights.explain("shop")))
    assert [each["kind"] for each in documents] == ["Role", "RoleBinding"] * len(rights.RUNGS)
    assert {each["metadata"]["namespace"] for each in documents} == {"shop"}


def test_shells_agree(tmp_path):
    """The scripts hold to POSIX: the shells at hand read them without complaint."""
    for shell in filter(shutil.which, ("dash", "bash", "busybox")):
        for script in ("probe", "record"):
            words = [shell, "sh"] if shell == "busybox" else [shell]
            path = Path(inside.__file__).with_name(f"{script}.sh")
            done = subprocess.run([*words, "-n", path], capture_output=True, text=True)
            assert (done.returncode, done.stderr) == (0, "")


def test_recorder_leaves_no_child_to_others(tmp_path, burning):
    """In a container those would fall to the service, which never waits for them."""
    script = (
        "import ctypes, os, subprocess, sys\n"
        "ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)\n"  # PR_SET_CHILD_SUBREAPER
        "subprocess.run(sys.argv[1:], input=b'stop\\n', capture_output=True)\n"
        "try:\n    print(os.waitpid(-1, 0))\nexcept ChildProcessError:\n    print('nobody')\n"
    )
    words = recorder(
        "shell", str(pyspy.program()), str(tmp_path), "token", str(burning), "", "raw", "yes",
        *ARGUMENTS, "--duration", "600",
    )  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-c", script, *words], capture_output=True, text=True, timeout=120
    )
    assert done.stdout == "nobody\n"
