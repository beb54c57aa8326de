"""What runs inside containers: POSIX shell, and Python 3.8 or later for images without a shell.

The two probes print the same lines, and the two recorders speak the same protocol; see `streams`.
Their texts are passed as arguments (``sh -c``, ``python3 -c``); values are arguments of their own.
"""

from __future__ import annotations

from pathlib import Path

_HERE = Path(__file__).parent
PYTHONS = (
    "python3",
    "python",
    "/usr/local/bin/python3",
    "/usr/bin/python3",
    "/opt/venv/bin/python3",
    "/app/.venv/bin/python3",
)


def shell(script: str, *arguments: str) -> list[str]:
    """The command that runs ``probe`` or ``record`` with a shell.

    It is a part of the request's address, and of audit logs: comments stay here.
    """
    lines = (_HERE / f"{script}.sh").read_text(encoding="utf-8").splitlines()
    text = "\n".join(line for line in lines if line.strip() and not line.lstrip().startswith("#"))
    return ["sh", "-c", text, script, *arguments]


def python(program: str, script: str, *arguments: str) -> list[str]:
    """The command that runs ``probe`` or ``record`` with a Python of the container."""
    text = (_HERE / f"{script}.py").read_text(encoding="utf-8")
    return [program, "-I", "-S", "-B", "-c", text, *arguments]
