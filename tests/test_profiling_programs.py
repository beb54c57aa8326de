"""`ragprof profile`: programs run as without it, and leave a profile."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

import ragprof as rp
from ragprof.cli import profile as command
from ragprof.profiling.programs import ProgramError, run_program
from ragprof.profiling.session import ENGINES

RAGPROF = Path(sys.executable).with_name("ragprof")

BURN = """
import os, sys, time
def burn(seconds=0.3):
    end = time.thread_time() + seconds
    while time.thread_time() < end: sum(range(200))
"""


def run(
    folder: Path, source: str, *words: str, arguments: tuple[str, ...] = (), engine: str = "sampler"
) -> subprocess.CompletedProcess[str]:
    program = folder / "program.py"
    program.write_text(BURN + source)
    return subprocess.run(
        [RAGPROF, "profile", "--engine", engine, *words, str(program), *arguments],
        capture_output=True,
        text=True,
        timeout=120,
        cwd=folder,
    )


@pytest.mark.parametrize("engine", ENGINES)
def test_the_program_runs_as_without_us(tmp_path: Path, engine: str) -> None:
    (tmp_path / "beside.py").write_text("VALUE = 'imported'")
    source = (
        "import beside\nburn()\n"
        "print(sys.argv[1:], __name__, beside.VALUE, os.path.basename(sys.argv[0]))\n"
        "print('words', file=sys.stderr)\nsys.exit(7)\n"
    )
    out = tmp_path / "seen.pb.gz"
    done = run(
        tmp_path, source, "--out", str(out), arguments=("--json", "-m", "x y"), engine=engine
    )
    assert done.returncode == 7, done.stderr
    assert done.stdout == "['--json', '-m', 'x y'] __main__ imported program.py\n"
    assert "words" in done.stderr
    assert "burn" in done.stderr
    profile = rp.read_profile(out)
    table = profile.functions()
    hot = table[table["function"].str.endswith("burn")]
    assert hot["total"].sum() > 0.15e9
    assert not table["file"].str.contains("ragprof/profiling|runpy").any()


@pytest.mark.parametrize("engine", ENGINES)
def test_a_module_with_its_arguments(tmp_path: Path, engine: str) -> None:
    package = tmp_path / "pack"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "__main__.py").write_text(BURN + "burn()\nprint(sys.argv[1:], __package__)\n")
    done = subprocess.run(
        [RAGPROF, "profile", "--engine", engine, "--json", "-m", "pack", "-v", "--out", "x"],
        capture_output=True,
        text=True,
        timeout=120,
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    assert "['-v', '--out', 'x'] pack" in done.stderr  # --json: its output goes there
    found = json.loads(done.stdout)
    assert (found["engine"], found["exit_code"], found["unit"]) == (engine, 0, "nanoseconds")
    assert any(row["function"].endswith("burn") for row in found["functions"])


@pytest.mark.parametrize("engine", ENGINES)
def test_a_program_that_raises_fails_as_without_us(tmp_path: Path, engine: str) -> None:
    done = run(tmp_path, "burn()\nraise ValueError('theirs')\n", engine=engine)
    assert done.returncode == 1
    assert "ValueError: theirs" in done.stderr
    trace = done.stderr[done.stderr.index("Traceback") :]
    assert "inside.py" not in trace
    assert "burn" in done.stderr


def test_children_and_a_sudden_end_are_seen_by_the_sampler(tmp_path: Path) -> None:
    source = """
import multiprocessing
def in_child(): burn(0.3)
if __name__ == "__main__":
    child = multiprocessing.get_context("fork").Process(target=in_child)
    child.start()
    child.join()
    burn()
    os._exit(5)
"""
    out = tmp_path / "seen.pb.gz"
    done = run(tmp_path, source, "--out", str(out))
    assert done.returncode == 5
    profile = rp.read_profile(out)
    names = {frame.function.rpartition(":")[2] for frame in profile.frames}
    assert {"in_child", "burn"} <= names
    assert len(set(profile.labels["process"].values())) == 2


def test_the_engines_that_need_an_ordinary_end_say_so(tmp_path: Path) -> None:
    done = run(tmp_path, "os._exit(5)\n", engine="cprofile")
    assert done.returncode == 5
    assert "use the engine sampler" in done.stderr


@pytest.mark.parametrize("engine", ENGINES)
def test_an_interrupted_program_leaves_its_profile(tmp_path: Path, engine: str) -> None:
    program = tmp_path / "program.py"
    program.write_text(BURN + "burn()\nprint('ready', flush=True)\nburn(600)\n")
    out = tmp_path / "seen.pb.gz"
    process = subprocess.Popen(
        [RAGPROF, "profile", "--engine", engine, "--out", str(out), str(program)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    time.sleep(0.6)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    assert "KeyboardInterrupt" in errors
    assert rp.read_profile(out).total() > 0.2e9


def test_a_killed_program_loses_little(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(BURN + "burn(1.5)\nos.kill(os.getpid(), 9)\n")
    profile, code = run_program([str(program)])
    assert code == 128 + 9
    assert profile.total() > 0.5e9


def test_what_cannot_run_is_refused_before_anything_runs(tmp_path: Path) -> None:
    missing = subprocess.run(
        [RAGPROF, "profile", "nothing.py"], capture_output=True, text=True, timeout=60
    )
    assert missing.returncode == 2
    assert "'nothing.py' does not exist" in missing.stderr
    marker = tmp_path / "ran"
    done = run(tmp_path, f"open({str(marker)!r}, 'w')\n", "--out", "a.xyz")
    assert done.returncode == 1
    assert "names end in" in done.stderr
    done = run(tmp_path, f"open({str(marker)!r}, 'w')\n", "--out", "absent/a.svg")
    assert done.returncode == 1
    assert "absent does not exist" in done.stderr
    assert not marker.exists()
    with pytest.raises(ProgramError, match="name a script"):
        run_program([])
    module = subprocess.run(
        [RAGPROF, "profile", "-m", "no_such_module"], capture_output=True, text=True, timeout=60
    )
    assert module.returncode == 1
    assert "No module named" in module.stderr


def test_the_commands_engines_are_the_sessions() -> None:
    assert command.ENGINES == ENGINES


def test_other_environment_is_passed_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "lib"))
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib" / "own_library.py").write_text("NAME = 'own'")
    done: Any = run(tmp_path, "import own_library\nprint(own_library.NAME)\nburn(0.1)\n")
    assert done.stdout == "own\n"
    assert os.environ["PYTHONPATH"].endswith("lib")
