"""`ragprof mark` finds the recorders that run: each announces itself by a file of this user."""

from __future__ import annotations

import json
import os
import secrets
import urllib.error
import urllib.request
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ragprof.capturing import processes
from ragprof.capturing.changes import KINDS
from ragprof.errors import RagprofError

MARK_PATH = "/ragprof/mark"  # of the receiver

_open = urllib.request.build_opener(urllib.request.ProxyHandler({})).open


@dataclass(frozen=True)
class Running:
    """A recorder that runs."""

    pid: int
    start_ticks: int  # with the pid it names the process for good
    recording: str  # absolute path
    endpoint: str
    token: str


def new_token() -> str:
    return secrets.token_hex(16)


def folder() -> Path:
    """Where recorders announce themselves: the user's cache folder."""
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(base).expanduser() / "ragprof" / "recorders"


def announce(recording: Path, endpoint: str, token: str) -> Path | None:
    """Write this recorder's file, readable by this user only; None when that is impossible."""
    own = processes.read(os.getpid())
    running = Running(
        pid=os.getpid(),
        start_ticks=own.start_ticks if own else 0,
        recording=str(recording.absolute()),
        endpoint=endpoint,
        token=token,
    )
    path = folder() / f"{os.getpid()}-{token[:8]}.json"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(".part")
        descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w") as file:
            json.dump(asdict(running), file)
        part.replace(path)
    except OSError:
        return None
    return path


def running() -> list[Running]:
    """The recorders of this user that run; files of dead ones are removed."""
    found: list[Running] = []
    for path in sorted(folder().glob("*.json")):
        try:
            each = Running(**json.loads(path.read_text()))
            process = processes.read(int(each.pid))
        except (OSError, ValueError, TypeError):
            continue
        if process is not None and process.start_ticks == each.start_ticks:
            found.append(each)
        else:
            path.unlink(missing_ok=True)
    return found


def choose(recording: str = "") -> Running:
    """The one recorder that runs, or the one that writes `recording`.

    Raises RagprofError when there is none, or several and no choice.
    """
    recorders = running()
    if recording:
        wanted = str(Path(recording).absolute())
        recorders = [each for each in recorders if each.recording == wanted]
        if not recorders:
            raise RagprofError(
                f"No recorder of yours writes {recording}; see which run with `ragprof mark` "
                "without --recording."
            )
    if not recorders:
        raise RagprofError(
            "No recorder of yours runs; start one with `ragprof record -- COMMAND` first."
        )
    if len(recorders) > 1:
        names = ", ".join(each.recording for each in recorders)
        raise RagprofError(f"Several recorders run: {names}; name one with --recording.")
    return recorders[0]


def post(recorder: Running, fields: dict[str, Any]) -> None:
    """Send a mark; raises RagprofError when the recorder does not take it."""
    request = urllib.request.Request(  # noqa: S310  # http to our own loopback port
        recorder.endpoint + MARK_PATH,
        data=json.dumps(fields).encode(),
        headers={"Content-Type": "application/json", "X-Ragprof-Token": recorder.token},
    )
    try:
        _open(request, timeout=10).close()
    except urllib.error.HTTPError as error:
        try:
            message = json.loads(error.read()).get("message", "")
        except ValueError:
            message = ""
        raise RagprofError(
            f"The recorder refused the mark: {message or error}; correct it and mark again."
        ) from None
    except OSError as error:
        raise RagprofError(
            f"The recorder of {recorder.recording} does not answer ({error}); is it still running?"
        ) from None


def checked(fields: dict[str, Any]) -> tuple[str, str, str, dict[str, str]]:
    """Text, kind, service and attributes of a mark; raises RagprofError naming the field."""
    text, kind = fields.get("text", ""), fields.get("kind", "mark")
    service, attributes = fields.get("service", ""), fields.get("attributes", {})
    if not isinstance(text, str) or not text.strip():
        raise RagprofError("A mark needs a text; say what changed.")
    if kind not in KINDS:
        raise RagprofError(f"kind {kind!r} is none of {', '.join(KINDS)}; choose one of them.")
    if not isinstance(service, str) or not isinstance(attributes, dict):
        raise RagprofError("service must be text and attributes an object; correct the mark.")
    return text, kind, service, {str(key): str(value) for key, value in attributes.items()}
