"""The services that ragprof has never seen: how each is started, its load, its mistakes.

Each is started under `ragprof record` as a user would start it, gets the same kind of load twice,
and in between a deploy brings one of its mistakes.
"""

from __future__ import annotations

import hashlib
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

FOLDER = Path(__file__).parent
BIN = Path(sys.prefix) / "bin"
REQUIREMENTS = FOLDER / "requirements.txt"
SECONDS = 18.0
"""Of load before the deploy, and again after it."""


@dataclass(frozen=True)
class Mistake:
    """What a deploy brings. stages, kinds, named: each a right answer; named is the function or
    the resource. No kinds: no cause is the right answer."""

    meaning: str
    stages: tuple[str, ...] = ()
    kinds: tuple[str, ...] = ()
    named: tuple[str, ...] = ()

    def is_named(self, found: Mapping) -> bool:
        """Whether the first finding is right."""
        first = found["findings"][0] if found["findings"] else None
        if first is None or not self.kinds:
            return first is None and not self.kinds
        return (
            first["stage"] in self.stages
            and first["kind"] in self.kinds
            and (first["function"] in self.named or first["resource"] in self.named)
        )


@dataclass(frozen=True)
class Service:
    """built_on: for people. command, load: words, with {port}, {url}, {folder}, {seconds} and
    {seed} to fill in. health: path that answers once it is ready; "": nothing to ask. heavy: runs
    in the environment of `requirements.txt`."""

    built_on: str
    command: str
    load: str
    health: str
    mistakes: Mapping[str, Mistake]
    heavy: bool = False
    environment: Mapping[str, str] = field(default_factory=dict)


NOTHING = Mistake("nothing changes")
VISITORS = "visitors.py {name} {url} {seconds} {seed}"
SERVICES = {
    "bookshop": Service(
        "FastAPI, uvicorn",
        "opentelemetry-instrument uvicorn bookshop:app --port {port} --no-access-log",
        VISITORS,
        "/buy/1",
        {
            # Parsing in the event loop computes and blocks: both names for it are right.
            "reparse": Mistake(
                "the catalogue is parsed anew for each request, in the event loop",
                ("request",),
                ("cpu", "blocked_loop"),
                ("bookshop:load_books", "bookshop:matching"),
            ),
            "till": Mistake(
                "every sale holds one lock for 80 ms",
                ("request",),
                ("lock_wait",),
                ("bookshop:charge",),
            ),
            "none": NOTHING,
        },
    ),
    "assistant": Service(
        "Haystack with OpenInference, FastAPI",
        "opentelemetry-instrument uvicorn assistant:app --port {port} --no-access-log",
        VISITORS,
        "/health",
        {
            "diversity": Mistake(
                "the ranker compares all passages with each other, word by word",
                ("rerank",),
                ("cpu",),
                ("assistant:common_words", "assistant:diverse", "assistant:OverlapRanker.run"),
            ),
            "one_model": Mistake(
                "the generator answers one request at a time",
                ("generate",),
                ("lock_wait",),
                ("assistant:ScriptedChatGenerator.answer_alone",),
            ),
            "whole_book": Mistake(
                "all passages found go into the prompt instead of three",
                ("generate", "request"),
                ("load",),
                ("llm.token_count.prompt",),
            ),
            "none": NOTHING,
        },
        heavy=True,
        environment={"HAYSTACK_TELEMETRY_ENABLED": "False"},
    ),
    "orders": Service(
        "Flask, SQLAlchemy, waitress with 8 threads",
        "opentelemetry-instrument waitress-serve --host=127.0.0.1 --port={port} --threads=8 "
        "orders:app",
        VISITORS,
        "/articles/A-000001",
        {
            "lazy_items": Mistake(
                "the items of each order are loaded when they are looked at",
                ("database",),
                ("extra_calls",),
                ("orders:summary", "orders:orders_of", "orders database"),
            ),
            # SQLite computes inside its call: reading a file or using the CPU, both are right.
            "any_case": Mistake(
                "a comparison in lower case passes the index by",
                ("database",),
                ("cpu", "io"),
                ("orders:by_number", "orders:article", "orders database"),
            ),
            "one_counter": Mistake(
                "numbers come from a file on a share, one thread at a time",
                ("request",),
                ("lock_wait",),
                ("orders:next_number",),
            ),
            "none": NOTHING,
        },
        environment={"ORDERS_FOLDER": "{folder}"},
    ),
    "digests": Service(
        "an asyncio worker that reads a queue, spans of kind CONSUMER by hand",
        "python digests.py {folder}/queue.db",
        "letters.py {folder}/queue.db {seconds} {seed}",
        "",
        {
            "blocking_client": Mistake(
                "the address book is asked with a client that is not for asyncio",
                ("jobs", "request"),
                ("blocked_loop",),
                ("__main__:sender_of", "event_loop"),
            ),
            "near_duplicates": Mistake(
                "each sentence is compared with all others, in the event loop",
                ("jobs", "request"),
                ("cpu", "blocked_loop"),
                ("__main__:repeats", "__main__:digest"),
            ),
            "one_ledger": Mistake(
                "digests are entered one task at a time, 90 ms each",
                ("jobs", "request"),
                ("lock_wait",),
                ("__main__:file_away",),
            ),
            "none": NOTHING,
        },
    ),
}


def environment() -> Path:
    """`bin` of a virtual environment with `requirements.txt`, made once per content of it."""
    content = hashlib.sha256(REQUIREMENTS.read_bytes() + sys.version.encode()).hexdigest()[:12]
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = cache / "ragprof" / f"foreign-{content}"
    done = folder / "installed"
    if not done.exists():
        uv = [str(BIN / "uv")]
        subprocess.run(
            [*uv, "venv", "--quiet", "--clear", "--python", sys.executable, str(folder)], check=True
        )
        install = [*uv, "pip", "install", "--quiet", "--python", str(folder / "bin" / "python")]
        subprocess.run([*install, "-r", str(REQUIREMENTS)], check=True)
        done.touch()
    return folder / "bin"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_until_answering(url: str, recorder: subprocess.Popen, seconds: float = 240) -> None:
    end = time.monotonic() + seconds
    while True:
        try:
            with urllib.request.urlopen(url, timeout=5):
                return
        except OSError:
            if recorder.poll() is not None or time.monotonic() > end:
                raise
            time.sleep(0.2)


def record(name: str, mistake: str, folder: Path, seconds: float = SECONDS, seed: int = 1) -> Path:
    """Record a service before and after its bad deploy; returns the Recording in `folder`.

    What the command says is in `folder`/service.log.
    """
    service = SERVICES[name]
    switch, out, port = folder / "deployed.txt", folder / f"{name}.ragprof", free_port()
    words = {
        "name": name,
        "folder": str(folder),
        "port": str(port),
        "url": f"http://127.0.0.1:{port}",
        "seconds": str(seconds),
    }
    bin_ = environment() if service.heavy else BIN
    command = service.command.format(**words).split()
    with (folder / "service.log").open("wb") as log:
        recorder = subprocess.Popen(
            [BIN / "ragprof", "record", "--out", out, "--service", name, "--",
             bin_ / command[0], *command[1:]],
            cwd=FOLDER,
            env={
                **os.environ,
                "DEPLOYED": str(switch),
                "PATH": f"{bin_}{os.pathsep}{os.environ['PATH']}",
                **{key: text.format(**words) for key, text in service.environment.items()},
            },
            stdout=log,
            stderr=log,
        )  # fmt: skip
    try:
        if service.health:
            wait_until_answering(words["url"] + service.health, recorder)
        for number in (seed, seed + 1):
            load = service.load.format(**words, seed=number).split()
            subprocess.run(
                [sys.executable, *load],
                cwd=FOLDER,
                check=True,
                timeout=180,
                stdout=subprocess.DEVNULL,
            )
            switch.write_text(mistake)
    finally:
        recorder.send_signal(signal.SIGINT)
        recorder.wait(timeout=240)
    return out
