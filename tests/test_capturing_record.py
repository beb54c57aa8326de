"""`ragprof record` and `ragprof mark` as people run them, and as they go wrong."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ragprof import recording
from ragprof.capturing import changes, marks, processes
from ragprof.cli import mark as mark_command

APPS = Path(__file__).parent / "apps"
PYTHON = sys.executable
Start = Callable[..., "Run"]


class Run:
    """`ragprof record` in a process of its own."""

    def __init__(self, cwd: Path, out: str, *arguments: str, cache: Path) -> None:
        self.path = cwd / out
        self.process = subprocess.Popen(
            [PYTHON, "-c", "import ragprof.cli, sys; sys.exit(ragprof.cli.main())", "record",
             "--out", out, *arguments],
            cwd=cwd,
            env={**os.environ, "XDG_CACHE_HOME": str(cache)},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )  # fmt: skip
        self.seen = ""

    def until(self, word: str) -> str:
        """Read stdout up to a line that holds `word`; that line."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.seen += line
            if word in line:
                return line
        raise AssertionError(f"{word!r} was not printed: {self.seen}{self.finish()}")

    def finish(self) -> tuple[int, str, str]:
        """Exit code, stdout, stderr."""
        out, err = self.process.communicate(timeout=120)
        return self.process.returncode, self.seen + out, err

    def recording(self) -> recording.Recording:
        return recording.open(self.path)


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    runs: list[Run] = []

    def begin(*arguments: str, out: str = "r.ragprof") -> Run:
        runs.append(Run(tmp_path, out, *arguments, cache=tmp_path / "cache"))
        return runs[-1]

    yield begin
    for run in runs:
        if run.process.poll() is None:
            run.process.kill()
            run.process.communicate()


def changes_of(rec: recording.Recording) -> list[tuple[str, str]]:
    return [(row.kind, row.text) for row in rec.to_pandas("changes").itertuples()]


def test_the_exit_code_and_output_of_the_child_are_passed_on(start: Start) -> None:
    code = "import sys; print('to stdout'); print('to stderr', file=sys.stderr); sys.exit(5)"
    status, out, err = (run := start("--", PYTHON, "-c", code)).finish()
    assert (status, out) == (5, "to stdout\n")
    assert "to stderr\n" in err
    assert "no spans came in" in err
    rec = run.recording()
    logs = rec.to_pandas("logs")
    assert sorted(logs.body) == ["to stderr", "to stdout"]
    texts = [text for _, text in changes_of(rec)]
    assert " started: " in texts[0]
    assert texts[-1].endswith("ended (exit code 5)")


def test_a_child_that_crashes_at_once_leaves_its_traceback(start: Start) -> None:
    status, _, err = (run := start("--", PYTHON, "-c", "1/0")).finish()
    assert status == 1
    assert "ended with exit code 1" in err
    (body,) = run.recording().to_pandas("logs").body
    assert body.startswith("Traceback")
    assert body.endswith("division by zero")


def test_a_child_killed_by_a_signal_gives_the_shells_code(start: Start) -> None:
    status, _, _ = (run := start("--", "sh", "-c", "kill -SEGV $$")).finish()
    assert status == 128 + signal.SIGSEGV
    assert changes_of(run.recording())[-1][1].endswith("(signal 11)")


def test_a_command_that_does_not_exist(start: Start) -> None:
    status, _, err = (run := start("--", "no-such-command", "x")).finish()
    assert status == 127
    assert "'no-such-command' does not exist" in err
    assert not run.path.exists()


def test_a_file_that_is_not_executable(start: Start, tmp_path: Path) -> None:
    (tmp_path / "data.txt").write_text("x")
    status, _, err = (run := start("--", "./data.txt")).finish()
    assert status == 1
    assert "executable" in err
    assert not run.path.exists()


def test_a_script_that_cannot_be_started(start: Start, tmp_path: Path) -> None:
    script = tmp_path / "script"
    script.write_text("#!/no/such/interpreter\n")
    script.chmod(0o755)
    status, _, err = (run := start("--no-stacks", "--", "./script")).finish()
    assert status == 127
    assert "does not exist" in err
    assert "exit code" not in err
    assert run.recording().table("spans").num_rows == 0


@pytest.mark.parametrize(
    "arguments", [(), ("--pid", "1", "--", "true"), ("--hz", "0", "--", "true")]
)
def test_wrong_calls_record_nothing(start: Start, arguments: tuple[str, ...]) -> None:
    run = start(*arguments)
    assert run.finish()[0] == 1
    assert not run.path.exists()


def test_signals_are_passed_on_and_ctrl_c_ends_cleanly(start: Start) -> None:
    run = start("--no-stacks", "--", PYTHON, str(APPS / "plain_app.py"), "30")
    run.until("ready")
    for number in (signal.SIGHUP, signal.SIGUSR1):
        os.kill(run.process.pid, number)
        run.until(number.name)
    os.killpg(run.process.pid, signal.SIGINT)
    status, out, _ = run.finish()
    assert status == 7
    assert "interrupted" in out
    assert "got SIGUSR1" in set(run.recording().to_pandas("logs").body)


def test_sigterm_ends_the_child_and_the_recording(start: Start) -> None:
    run = start("--no-stacks", "--", PYTHON, str(APPS / "plain_app.py"), "30")
    run.until("ready")
    run.process.terminate()
    assert run.finish()[0] == 128 + signal.SIGTERM
    assert run.recording().manifest["state"] == "closed"


def test_a_child_that_ignores_ctrl_c_ends_at_the_third(start: Start) -> None:
    code = (
        "import signal, time\n"
        "for s in (signal.SIGINT, signal.SIGTERM): signal.signal(s, lambda *a: print('no', s))\n"
        "print('ready', flush=True)\nwhile True: time.sleep(0.1)"
    )
    run = start("--no-stacks", "--", PYTHON, "-u", "-c", code)
    run.until("ready")
    for _ in range(3):
        os.kill(run.process.pid, signal.SIGINT)
        time.sleep(0.3)
    assert run.finish()[0] == 128 + signal.SIGKILL
    assert run.recording().manifest["state"] == "closed"


def test_duration_ends_a_whole_group_with_success(start: Start) -> None:
    script = f"{PYTHON} {APPS / 'plain_app.py'} 60 & wait"
    run = start("--no-stacks", "--duration", "1.5", "--json", "--", "sh", "-c", script)
    status, out, err = run.finish()
    assert status == 0
    summary = json.loads(out)
    assert summary["exit_code"] == 0
    assert summary["rows"]["logs"] >= 1
    assert set(summary["rows"]) == {"spans", "logs", "metrics", "samples", "changes"}
    inner = int(err.split("ready ")[1].split()[0])
    with pytest.raises(ProcessLookupError):
        os.kill(inner, 0)


def soon(check: Callable[[], bool], seconds: float = 30) -> bool:
    """Whether it becomes true within so many seconds."""
    until = time.monotonic() + seconds
    while not check():
        if time.monotonic() > until:
            return False
        time.sleep(0.1)
    return True


def test_kill_9_of_the_recorder_loses_at_most_a_second(start: Start) -> None:
    run = start("--", PYTHON, str(APPS / "span_source.py"))
    run.until("ready")
    time.sleep(4)
    rec_manifest = json.loads((run.path / "manifest.json").read_text())
    assert rec_manifest["state"] == "recording"
    recorded = [pid for pid in processes.children(run.process.pid) if spool_of(pid)]
    killed = time.time_ns()
    run.process.kill()
    run.process.wait()
    try:
        rec = run.recording()
        ticks = rec.to_pandas("spans")
        # 1 s, the exporter's own delay, and that of a busy machine
        assert killed - ticks.start.max().value < 2.5e9
        numbers = sorted(int(each["number"]) for each in ticks.attributes)
        assert numbers == list(range(len(numbers)))
        (pid,) = {int(each["process"]) for each in rec.to_pandas("changes").attributes}
        # The command runs on, and its sampler, whose file must not fill the disk.
        spool = Path(spool_of(pid))
        (file,) = spool.glob("*.jsonl")
        size = file.stat().st_size
        assert soon(lambda: file.stat().st_size < size / 2)
    finally:
        for orphan in recorded:
            os.kill(orphan, signal.SIGKILL)
    assert recorded == [pid]
    assert soon(lambda: not spool.exists())


def spool_of(pid: int) -> str:
    words = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    return next((word[14:].decode() for word in words if word.startswith(b"RAGPROF_SPOOL=")), "")


def mark(cache: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [PYTHON, "-c", "import ragprof.cli, sys; sys.exit(ragprof.cli.main())", "mark",
         *arguments],
        env={**os.environ, "XDG_CACHE_HOME": str(cache)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )  # fmt: skip


def test_two_recorders_at_once_and_marks_for_each(start: Start, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    assert "No recorder" in mark(cache, "too early").stderr
    command = ("--no-stacks", "--", PYTHON, str(APPS / "plain_app.py"), "30")
    first, second = start(*command, out="a.ragprof"), start(*command, out="b.ragprof")
    first.until("ready")
    second.until("ready")
    several = mark(cache, "which?")
    assert several.returncode == 1
    assert "a.ragprof" in several.stderr
    assert "b.ragprof" in several.stderr
    done = mark(cache, "deploy 1.4", "--kind", "deploy", "--service", "rag",
                "--recording", str(second.path), "--json")  # fmt: skip
    assert json.loads(done.stdout)["recording"] == str(second.path)
    assert mark(cache, "x", "--recording", "elsewhere").returncode == 1
    first.process.send_signal(signal.SIGINT)
    assert first.finish()[0] == 7
    assert mark(cache, "only one is left").returncode == 0
    second.process.send_signal(signal.SIGINT)
    assert second.finish()[0] == 7
    own = changes_of(second.recording())
    assert ("deploy", "deploy 1.4") in own
    assert ("mark", "only one is left") in own
    assert not {"deploy", "mark"} & {kind for kind, _ in changes_of(first.recording())}
    assert list((cache / "ragprof" / "recorders").iterdir()) == []


def test_a_recording_is_not_overwritten(start: Start) -> None:
    first = start("--no-stacks", "--", "true")
    assert first.finish()[0] == 0
    before = (first.path / "manifest.json").read_bytes()
    again = start("--no-stacks", "--", "true")
    status, _, err = again.finish()
    assert status == 1
    assert "r.ragprof" in err
    assert (first.path / "manifest.json").read_bytes() == before


def test_a_process_that_runs_already(start: Start) -> None:
    code = "import time\ndef burn():\n while True: sum(range(1000))\nburn()"
    busy = subprocess.Popen([PYTHON, "-c", code])
    try:
        run = start("--pid", str(busy.pid), "--duration", "3")
        assert run.finish()[0] == 0
    finally:
        busy.kill()
        busy.wait()
    rec = run.recording()
    names = set(rec.to_pandas("series").name)
    assert {"process.cpu.time", "process.cpu.utilization"} <= names
    samples = rec.to_pandas("samples")
    assert set(samples.process) == {busy.pid}
    assert set(samples.trace_id) == {""}
    assert samples.weight_ns.sum() > 1e9
    assert any(name.endswith(":burn") for name in rec.to_pandas("frames").function.astype(str))
    (source,) = [each for each in rec.manifest["sources"] if each["kind"] == "py-spy"]
    assert source["attributed"] is False


def test_a_process_that_does_not_exist(start: Start) -> None:
    status, _, err = (run := start("--pid", "999999999")).finish()
    assert status == 1
    assert "No process" in err
    assert not run.path.exists()


def test_a_child_that_refuses_the_sampler_is_sampled_from_outside(start: Start) -> None:
    code = (
        "import time\nend = time.time() + 8\ndef burn():\n"
        " while time.time() < end: sum(range(999))\nburn()"
    )
    run = start("--", PYTHON, "-I", "-c", code)
    assert run.finish()[0] == 0
    rec = run.recording()
    assert rec.table("samples").num_rows > 50
    assert any(each["kind"] == "py-spy" for each in rec.manifest["sources"])


def test_the_kinds_of_marks_are_those_of_changes() -> None:
    assert mark_command.KINDS == changes.KINDS


@pytest.mark.parametrize(
    "fields",
    [{}, {"text": " "}, {"text": 5}, {"text": "x", "kind": "party"}, {"text": "x", "service": 1},
     {"text": "x", "attributes": []}],
)  # fmt: skip
def test_wrong_marks_are_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(marks.RagprofError):
        marks.checked(fields)
