"""Continuous profiling of a service with several workers: each its own ring, one folder for all."""

from __future__ import annotations

import os
import signal
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from served import serving, wait_for

from ragprof.profiles.content import Content
from ragprof.profiles.model import Profile
from ragprof.profiles.read import profiles_of

pytestmark = pytest.mark.timeout(600)

TOKEN = "a-token-of-32-characters-for-test"
BEARER = {"authorization": f"Bearer {TOKEN}"}
GUNICORN = (
    "gunicorn", "profiled_app:app", "-k", "uvicorn.workers.UvicornWorker", "-w", "2",
    "-b", "127.0.0.1:{port}",
)  # fmt: skip
SERVERS = {
    "uvicorn": ("uvicorn", "profiled_app:app", "--port", "{port}", "--workers", "2"),
    "gunicorn": GUNICORN,
    "gunicorn that forks the loaded application": (*GUNICORN, "--preload"),
}


def read(data: bytes) -> Profile:
    (profile,) = profiles_of(Content(data, "x.pb.gz"), format="pprof")
    return profile


def functions(profile: Profile) -> set[str]:
    used = set(profile.sample_stacks.tolist())
    return {frame.function.rpartition(":")[2] for at in used for frame in profile.stack(at)}


@pytest.mark.parametrize("server", SERVERS)
def test_each_worker_keeps_its_slow_requests_and_any_answers_for_all(
    tmp_path: Path, server: str
) -> None:
    environment = {
        "KEPT_FOLDER": str(tmp_path / "kept"), "RAGPROF_PROFILING_TOKEN": TOKEN,
    }  # fmt: skip
    with serving(tmp_path, *SERVERS[server], **environment) as client:

        def get(path: str) -> Any:
            answer = client.get(f"/debug/pprof/{path}", headers=BEARER)
            assert answer.status_code == 200, answer.text
            return answer

        def kept_by() -> set[int]:
            return {int(one["process"]) for one in get("kept?format=json").json()["requests"]}

        served: set[int] = set()

        def both_kept() -> set[int] | None:
            """The workers, when of each one slow request is kept with its work and its wait."""
            with ThreadPoolExecutor(4) as threads:
                served.update(threads.map(lambda _: client.get("/slow").json()["pid"], range(4)))
            assert kept_by() <= served
            whole = read(get("kept").content)
            for pid in map(str, served):
                if pid not in whole.labels["process"].vocabulary:
                    return None
                own = whole.where(process=pid, endpoint="/slow")
                if "work_of_slow" not in functions(own.where(state="running")):
                    return None
                if not own.where(state="awaiting").total():
                    return None
            return served if len(served) == 2 else None

        pids = wait_for(both_kept, "kept request of each worker", 300)

        # A profile and the list of tasks are of the worker that answers, and of it alone.
        ended = threading.Event()

        def load() -> None:
            while not ended.is_set():
                client.get("/slow")

        with ThreadPoolExecutor(4) as threads:
            for _ in range(4):
                threads.submit(load)
            try:
                profile = read(get("profile?seconds=2").content)
            finally:
                ended.set()
        (pid,) = {int(pid) for pid in profile.labels["process"].values()}
        assert pid in pids
        assert profile.total() > 0
        assert get("tasks?format=json").json()["tasks"]

        # What a worker that dies has kept stays, and the others answer with it.
        os.kill(pid, signal.SIGKILL)
        assert wait_for(lambda: pid in kept_by(), "answer without the dead worker")
