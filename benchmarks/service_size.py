"""Size and import time of what a service installs: the light core in an empty environment.

    python benchmarks/service_size.py [--json]

Builds the wheel, installs it with its dependencies (pins of requirements/dev.txt) into a new
virtual environment outside of the clone, and measures there. Import time is CPU time, the smallest
of seven new interpreters, less that of an interpreter that imports nothing.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
UV = Path(sys.prefix) / "bin" / "uv"
IMPORTS = {
    "nothing": "",
    "ragprof.service.metrics": "import ragprof.service.metrics",
    "ragprof.service.logging": "import ragprof.service.logging",
    "ragprof.service.tracing": "import ragprof.service.tracing",
    "instrument": "from ragprof.service import instrument",
}


def install(folder: Path) -> Path:
    """The interpreter of a new environment with the light core and nothing else."""

    def run(*words: object) -> None:
        subprocess.run([str(word) for word in words], check=True, cwd=folder)

    run(UV, "build", "--quiet", "--wheel", "--out-dir", folder / "dist", ROOT)
    run(UV, "venv", "--quiet", "--python", sys.executable, folder / "venv")
    python = folder / "venv" / "bin" / "python"
    wheel = next((folder / "dist").glob("*.whl"))
    pins = ROOT / "requirements" / "dev.txt"
    run(
        UV, "pip", "install", "--quiet", "--compile-bytecode", "--python", python, "-c", pins, wheel
    )
    return python


def sizes(python: Path) -> dict[str, int]:
    """Bytes of each installed folder or file, without bytecode."""
    site = next((python.parent.parent / "lib").glob("python*")) / "site-packages"
    found: dict[str, int] = {}
    for file in site.rglob("*"):
        if file.is_file() and file.suffix != ".pyc":
            top = file.relative_to(site).parts[0]
            found[top] = found.get(top, 0) + file.stat().st_size
    return found


def import_seconds(python: Path, statement: str) -> float:
    """The smallest CPU time of an interpreter that runs one statement."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    best = float("inf")
    for _ in range(7):
        process = subprocess.Popen([python, "-c", statement], env=environment, cwd=python.parent)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        assert process.returncode == 0, statement
        best = min(best, usage.ru_utime + usage.ru_stime)
    return best


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        python = install(Path(folder))
        size = sizes(python)
        times = {name: import_seconds(python, code) for name, code in IMPORTS.items()}
    times = {
        name: seconds - times["nothing"] for name, seconds in times.items() if name != "nothing"
    }
    if args.json:
        print(json.dumps({"bytes": size, "import_seconds": times}))
        return
    print(
        f"Python {platform.python_version()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}"
    )
    print(
        f"installed: {sum(size.values()) / 1e6:.1f} MB, of that ragprof {size['ragprof'] / 1e6:.1f}"
    )
    for name, amount in sorted(size.items(), key=lambda pair: -pair[1])[:6]:
        print(f"  {name}: {amount / 1e6:.1f} MB")
    for name, seconds in times.items():
        print(f"import {name}: {seconds * 1000:.0f} ms")


if __name__ == "__main__":
    main()
