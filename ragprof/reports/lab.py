"""A notebook with its parameters set, in a folder of its own, opened in JupyterLab on loopback."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import FrameType
from typing import Any

import nbformat

from ragprof.errors import RagprofError
from ragprof.reports import catalogue, parameters


def prepare(notebook: str, values: Mapping[str, Any], folder: Path) -> Path:
    """Copy `notebook` into `folder` with `values` as the defaults of its parameters cell.

    A copy that is there and differs is kept under its name: the new one gets a number. Raises
    NotebookError and ParameterError.
    """
    entry = catalogue.find(notebook)
    checked = parameters.check(entry.parameters, values, entry.name)
    node = catalogue.load(entry.path)
    cell = parameters.parameters_cell(node)
    if cell is not None:
        cell.source = _with_values(entry, checked)
    text = str(nbformat.writes(node))  # type: ignore[no-untyped-call]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        target = folder / f"{entry.name}.ipynb"
        number = 2
        while target.exists() and target.read_text("utf-8") != text:
            target = folder / f"{entry.name}-{number}.ipynb"
            number += 1
        target.write_text(text, "utf-8")
    except OSError as error:
        raise RagprofError(
            f"{folder} cannot be written: {error.strerror}; start it in a folder of your own"
        ) from None
    return target


def _with_values(entry: catalogue.Entry, values: Mapping[str, Any]) -> str:
    lines = []
    for one in entry.parameters.values():
        value = values.get(one.name, one.default)
        lines.append(f"{one.name} = {value!r}" + (f"  # {one.help}" if one.help else ""))
    return "\n".join(lines)


def serve(notebook: Path, *, browser: bool = True, port: int | None = None) -> int:
    """Run JupyterLab for the notebook's folder until it ends; returns its exit code.

    It listens on 127.0.0.1 only, with a token. Its Python 3 kernel is this Python, whatever
    kernels are installed. SIGTERM and Ctrl-C end it.
    """
    with tempfile.TemporaryDirectory(prefix="ragprof-lab-") as name:
        home = Path(name)
        spec = home / "jupyter" / "kernels" / "python3"
        spec.mkdir(parents=True)
        command = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
        (spec / "kernel.json").write_text(
            json.dumps({"argv": command, "display_name": "Python 3", "language": "python"}), "utf-8"
        )
        arguments = [
            sys.executable,
            "-m",
            "jupyterlab",
            "--ServerApp.ip=127.0.0.1",
            f"--ServerApp.root_dir={notebook.parent}",
            f"--LabApp.default_url=/lab/tree/{notebook.name}",
            "--LabApp.news_url=None",  # asks no server for news, updates or extensions
            "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate",
            "--LabApp.extension_manager=readonly",
        ]
        if os.geteuid() == 0:
            arguments.append("--allow-root")
        if port is not None:
            arguments.append(f"--ServerApp.port={port}")
        if not browser:
            arguments.append("--no-browser")
        with _passing_on() as children:
            process = subprocess.Popen(arguments, env=_environment(home))
            children.append(process)
            while True:
                try:
                    code = process.wait()
                    break
                except KeyboardInterrupt:
                    process.terminate()  # the terminal's Ctrl-C would ask the user to confirm
        return 0 if code in (-signal.SIGTERM, -signal.SIGINT) else code


def _environment(home: Path) -> dict[str, str]:
    """The own kernel first; a writable place for Jupyter when the home folder is none."""
    env = dict(os.environ)
    paths = [str(home / "jupyter"), env.get("JUPYTER_PATH", "")]
    env["JUPYTER_PATH"] = os.pathsep.join(path for path in paths if path)
    if not os.access(Path.home(), os.W_OK):
        for variable, folder in (
            ("JUPYTER_CONFIG_DIR", "config"),
            ("JUPYTER_DATA_DIR", "data"),
            ("JUPYTER_RUNTIME_DIR", "runtime"),
            ("IPYTHONDIR", "ipython"),
            ("MPLCONFIGDIR", "matplotlib"),
        ):
            env.setdefault(variable, str(home / folder))
    return env


@contextlib.contextmanager
def _passing_on() -> Iterator[list[subprocess.Popen[bytes]]]:
    """SIGTERM goes on to the server, which then ends its kernels."""
    children: list[subprocess.Popen[bytes]] = []

    def end(number: int, frame: FrameType | None) -> None:
        for child in children:
            child.terminate()

    before = {number: signal.signal(number, end) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield children
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
