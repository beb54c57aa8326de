"""`ragprof profile`: programs run as without it, and leave a profile."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

import ragprof as rp
from ragprof.cli import main
from ragprof.cli import profile as command
from ragprof.profiles.model import Profile
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
    folder: Path, source: str, *arguments: str, engine: Any = "sampler"
) -> tuple[Profile, int, str]:
    """A program's Profile, exit code and output."""
    program, output = folder / "program.py", folder / "output"
    program.write_text(BURN + source)
    with output.open("wb") as stream:
        words = [str(program), *arguments]
        profile, code = run_program(words, engine=engine, stdout=stream.fileno())
    return profile, code, output.read_text()


def names(profile: Profile) -> set[str]:
    return {frame.function.rpartition(":")[2] for frame in profile.frames}


@pytest.mark.parametrize("engine", ENGINES)
def test_the_program_runs_as_without_us(
    tmp_path: Path, engine: Any, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "beside.py").write_text("VALUE = 'imported'")
    source = (
        "import beside\nburn()\n"
        "print(sys.argv[1:], __name__, beside.VALUE, os.path.basename(sys.argv[0]))\n"
        "print('words', file=sys.stderr)\nsys.exit(7)\n"
    )
    profile, code, output = run(tmp_path, source, "--json", "-m", "x y", engine=engine)
    assert code == 7
    assert output == "['--json', '-m', 'x y'] __main__ imported program.py\n"
    assert capfd.readouterr().err == "words\n"
    table = profile.functions()
    hot = table[table["function"].str.endswith("burn")]
    assert hot["total"].sum() > 0.15e9
    assert not table["file"].str.contains("ragprof/profiling|runpy").any()
    assert profile.name == "program.py"
    assert profile.value_types[0] == ("wall", "nanoseconds")


@pytest.mark.parametrize("engine", ENGINES)
def test_a_module_with_its_arguments(
    tmp_path: Path, engine: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "pack"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "__main__.py").write_text(BURN + "burn()\nprint(sys.argv[1:], __package__)\n")
    monkeypatch.chdir(tmp_path)
    with (tmp_path / "output").open("wb") as stream:
        profile, code = run_program(
            ["pack", "-v", "--out", "x"], module=True, engine=engine, stdout=stream.fileno()
        )
    assert code == 0
    assert (tmp_path / "output").read_text() == "['-v', '--out', 'x'] pack\n"
    assert "burn" in names(profile)


@pytest.mark.parametrize("engine", ENGINES)
def test_a_program_that_raises_fails_as_without_us(
    tmp_path: Path, engine: Any, capfd: pytest.CaptureFixture[str]
) -> None:
    profile, code, _ = run(tmp_path, "burn()\nraise ValueError('theirs')\n", engine=engine)
    assert code == 1
    errors = capfd.readouterr().err
    assert "ValueError: theirs" in errors
    assert "inside.py" not in errors
    assert "runpy" not in errors
    assert "burn" in names(profile)


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
    profile, code, _ = run(tmp_path, source)
    assert code == 5
    assert {"in_child", "burn"} <= names(profile)
    assert len(set(profile.labels["process"].values())) == 2


def test_the_engines_that_need_an_ordinary_end_say_so(tmp_path: Path) -> None:
    with pytest.raises(ProgramError, match="use the engine sampler") as refused:
        run(tmp_path, "os._exit(5)\n", engine="cprofile")
    assert refused.value.exit_code == 5


@pytest.mark.parametrize("engine", ["sampler", "cprofile"])
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
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 130, errors
    assert "KeyboardInterrupt" in errors
    assert "burn" in errors  # what was seen is told
    assert rp.read_profile(out).total() > 0.2e9


def test_a_killed_program_loses_little(tmp_path: Path) -> None:
    profile, code, _ = run(tmp_path, "burn(3)\nos.kill(os.getpid(), 9)\n")
    assert code == 128 + 9
    assert profile.total() > 2.3e9
    told = re.search(r"sampled for ([\d.]+) s", " ".join(profile.notes))
    assert told is not None
    assert float(told[1]) > 0.9 * profile.total() / 1e9  # of the whole, not of a part


def test_json_goes_to_stdout_and_the_programs_output_to_stderr(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(BURN + "burn()\nprint('theirs')\nsys.exit(3)\n")
    picture = tmp_path / "seen.svg"
    done = subprocess.run(
        [RAGPROF, "profile", "--json", "--out", str(picture), str(program)],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 3, done.stderr
    assert "theirs\n" in done.stderr
    found = json.loads(done.stdout)
    assert (found["engine"], found["exit_code"], found["unit"]) == ("sampler", 3, "nanoseconds")
    assert any(row["function"].endswith("burn") for row in found["functions"])
    assert found["files"] == [str(picture)]
    assert "burn" in picture.read_text()


def test_what_cannot_run_is_refused_before_anything_runs(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main(["profile", "nothing.py"]) == 2
    assert "'nothing.py' does not exist" in capfd.readouterr().err
    marker, program = tmp_path / "ran", tmp_path / "program.py"
    program.write_text(f"open({str(marker)!r}, 'w')\n")
    assert main(["profile", "--out", "a.xyz", str(program)]) == 1
    assert "names end in" in capfd.readouterr().err
    assert main(["profile", "--out", "absent/a.svg", str(program)]) == 1
    assert "absent does not exist" in capfd.readouterr().err
    assert main(["profile", "--hz", "0", str(program)]) == 1
    assert not marker.exists()
    with pytest.raises(ProgramError, match="name a script"):
        run_program([])
    assert run_program(["no_such_module"], module=True)[1] == 1
    assert "No module named" in capfd.readouterr().err


def test_the_commands_engines_are_the_sessions() -> None:
    assert command.ENGINES == ENGINES


def test_other_environment_is_passed_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "lib"))
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib" / "own_library.py").write_text("NAME = 'own'")
    _, code, output = run(tmp_path, "import own_library\nprint(own_library.NAME)\nburn(0.1)\n")
    assert (code, output) == (0, "own\n")
    assert os.environ["PYTHONPATH"].endswith("lib")
