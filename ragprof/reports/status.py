"""status.json: how a report went, written by the runner itself and never by the notebook."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

FILE = "status.json"


def write(out: Path, status: dict[str, Any]) -> None:
    """Replace status.json at once: a reader never sees half of it."""
    part = out / f".{FILE}.{os.getpid()}"
    part.write_text(json.dumps(status, indent=2, ensure_ascii=False, default=str) + "\n", "utf-8")
    part.replace(out / FILE)


def read(out: Path) -> dict[str, Any]:
    """status.json; a run that says running and whose process is gone is ``killed``."""
    status: dict[str, Any] = json.loads((out / FILE).read_text(encoding="utf-8"))
    if status["state"] == "running" and began(status["pid"]) != status["pid_began"]:
        status["state"] = "killed"
    return status


def began(pid: int) -> int:
    """When a process began, in clock ticks since boot; 0 when there is none."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return 0
    return int(text.rpartition(")")[2].split()[19])
