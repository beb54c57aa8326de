"""The profile report: of a file, a process and a service, against the run before."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import httpx
import pytest

import ragprof as rp
from ragprof.cli import main
from ragprof.errors import RagprofError
from ragprof.profiles.compare import Comparison
from ragprof.profiles.model import Frame, Profile, ProfileBuilder
from ragprof.profiling.endpoint import fetch
from ragprof.profiling.engine import SessionError
from ragprof.reports import profiles
from ragprof.reports.kernel import REPORT_FOLDER

pytestmark = pytest.mark.filterwarnings("ignore::ragprof.profiles.write.LossWarning")

TOKEN = "a-token-of-32-characters-for-test"
NASTY = "</script><script>window.broken=1</script>"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(REPORT_FOLDER, str(tmp_path / "report"))
    return tmp_path / "report" / "profiles"


def profile(path: Path, hot: float, cold: float) -> Path:
    builder = ProfileBuilder(name="x")
    outer = builder.frame(Frame("app:main", "app", __file__, 1))
    for name, weight in (("hot", hot), (f"cold{NASTY}", cold)):
        inner = builder.frame(Frame(f"app:{name}", "app", __file__, 5))
        labels = {"span_id": f"{name[:4]}span", "stage": "rerank" if name == "hot" else ""}
        builder.sample(builder.stack([outer, inner], [2, 6]), weight * 1e9, labels=labels)
    return builder.build().write(path)


def test_the_run_before_is_found_by_itself(tmp_path: Path, folder: Path) -> None:
    file = profile(tmp_path / "run.pb.gz", 1, 3)
    first = profiles.read(file=str(file))
    assert first.earlier is None
    assert "there is none yet" in profiles.change(first)._repr_html_()  # type: ignore[union-attr]
    profile(file, 3, 1)
    second = profiles.read(file=str(file))
    assert second.earlier is not None
    assert second.earlier_name.startswith("the run of 20")
    change = profiles.change(second)
    assert isinstance(change, Comparison)
    top = change.functions().iloc[0]
    assert abs(top["self_difference"]) == pytest.approx(0.5)
    other = profiles.read(file=str(profile(tmp_path / "other.pb.gz", 1, 1)))
    assert other.earlier is None  # another subject


def test_an_earlier_profile_can_be_given_or_refused(tmp_path: Path, folder: Path) -> None:
    file = profile(tmp_path / "run.pb.gz", 1, 3)
    older = profile(tmp_path / "older.pb.gz", 2, 2)
    profiles.read(file=str(file))
    assert profiles.read(file=str(file), earlier="none").earlier is None
    given = profiles.read(file=str(file), earlier=str(older))
    assert given.earlier_name == "older.pb.gz"


def test_a_few_runs_are_kept_and_damaged_ones_are_passed_over(tmp_path: Path, folder: Path) -> None:
    file = profile(tmp_path / "run.pb.gz", 1, 3)
    for _ in range(profiles.KEPT + 3):
        report = profiles.read(file=str(file))
    kept = sorted(folder.iterdir())
    assert len(kept) == profiles.KEPT
    assert report.kept == kept[-1]
    kept[-1].write_bytes(b"damaged")
    assert profiles.read(file=str(file)).earlier is not None


def test_sections_show_functions_lines_and_labels(tmp_path: Path, folder: Path) -> None:
    report = profiles.read(file=str(profile(tmp_path / "run.pb.gz", 1, 3)))
    shown = {
        name: getattr(profiles, name)(report)._repr_mimebundle_()["text/html"]
        for name in ("headline", "flamegraph", "functions", "lines", "labels", "reproduce")
    }
    assert all("<script>window" not in html for html in shown.values())
    assert "rerank" in shown["labels"]
    assert "hotspan" in shown["labels"]
    assert "app:hot" in shown["functions"]
    assert "import json" in shown["lines"]  # this file is at hand
    assert "profile_report" in shown["reproduce"]
    assert "4 s" in shown["headline"]


def test_one_subject_is_needed(folder: Path) -> None:
    with pytest.raises(RagprofError, match="nothing is given"):
        profiles.read()
    with pytest.raises(RagprofError, match="pid and file"):
        profiles.read(pid=1, file="x")


def test_headless_with_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file, out = profile(tmp_path / "run.pb.gz", 1, 3), tmp_path / "report"
    monkeypatch.setenv(REPORT_FOLDER, str(out))
    profiles.read(file=str(file))
    monkeypatch.delenv(REPORT_FOLDER)
    profile(file, 3, 1)
    assert main(["report", "profile_report", "-p", f"file={file}", "--out", str(out)]) == 0
    page = (out / "report.html").read_text()
    assert "this run against the run of 20" in page
    assert "<script>window.broken" not in page
    assert json.loads((out / "status.json").read_text())["state"] == "ok"
    assert len(list((out / "profiles").iterdir())) == 2


def test_on_a_schedule(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    words = ["report", "profile_report", "-p", "endpoint=http://rag-api:8000", "--out", "r"]
    assert main([*words, "--schedule", "0 7 * * 1"]) == 0
    entry = capsys.readouterr().out
    assert "profile_report -p endpoint=http://rag-api:8000" in entry


SERVICE = f"""
import asyncio, time, fastapi, uvicorn, sys
from ragprof.service.profiling import setup_profiling
from ragprof.service.tracing import setup_tracing
app = fastapi.FastAPI()
@app.get("/work")
async def work():
    burn()
    await asyncio.sleep(0.05)
def burn():
    end = time.thread_time() + 0.05
    while time.thread_time() < end: pass
setup_tracing(app, "rag-api")
setup_profiling(app, {TOKEN!r}, folder=sys.argv[2])
uvicorn.run(app, port=int(sys.argv[1]), log_level="warning", loop="uvloop")
"""


@pytest.fixture
def service(tmp_path: Path) -> Iterator[str]:
    """A real server, with somebody who asks it all the time."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
    program = tmp_path / "service.py"
    program.write_text(SERVICE)
    server = subprocess.Popen([sys.executable, str(program), str(port), str(tmp_path / "kept")])
    url = f"http://127.0.0.1:{port}"
    done = threading.Event()

    def ask() -> None:
        with httpx.Client(base_url=url, timeout=60, trust_env=False) as http:
            while not done.is_set():
                http.get("/work")

    asking = threading.Thread(target=ask)
    deadline = time.monotonic() + 60
    while True:
        try:
            httpx.get(f"{url}/work", timeout=30, trust_env=False)
            break
        except httpx.TransportError:
            assert server.poll() is None, "the service ended"
            assert time.monotonic() < deadline, "the service does not answer"
            time.sleep(0.1)
    asking.start()
    yield url
    done.set()
    asking.join()
    server.terminate()
    server.wait(30)


def test_a_service_by_its_endpoint(
    service: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with pytest.raises(SessionError, match="wants its token"):
        fetch(service, 1, "wrong")
    with pytest.raises(SessionError, match="answers 400: seconds is above 0"):
        fetch(service, 0, TOKEN)
    with pytest.raises(SessionError, match="has no /other"):
        fetch(f"{service}/other", 1, TOKEN)
    monkeypatch.setenv("RAGPROF_PROFILING_TOKEN", TOKEN)
    report = profiles.read(endpoint=service, seconds=2)
    prof = report.profile
    names = {frame.function.rpartition(":")[2] for frame in prof.frames}
    assert {"burn", "work"} <= names
    assert set(prof.labels["service"].values()) == {"rag-api"}
    running = prof.where(state="running")
    burning = [
        label
        for label, stack in zip(
            running.labels["span_id"].values(), running.sample_stacks.tolist(), strict=True
        )
        if any(frame.function.endswith(":burn") for frame in running.stack(stack))
    ]
    assert burning
    assert all(burning)  # each sample of a request knows its span
    assert "span_id" in profiles.labels(report)._repr_html_()
    assert profiles.read(endpoint=service, seconds=1).earlier is not None


class Redirecting(BaseHTTPRequestHandler):
    """Sends every request elsewhere, and remembers what came."""

    seen: list[str] = []  # noqa: RUF012

    def do_GET(self) -> None:
        self.seen.append(self.path)
        self.send_response(302)
        self.send_header("location", "/elsewhere")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        return None


def test_a_token_does_not_follow_a_redirect(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    server = HTTPServer(("127.0.0.1", 0), Redirecting)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        with pytest.raises(SessionError, match="answers 302"):
            fetch(f"http://127.0.0.1:{server.server_port}", 1, TOKEN)
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
    assert Redirecting.seen == ["/debug/pprof/profile?seconds=1"]


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("rag-api:8000", "is no address"),
        ("file:///etc/passwd", "is no address"),
        ("", "no address"),
    ],
)
def test_what_is_no_address_is_refused(url: str, said: str) -> None:
    with pytest.raises(SessionError, match=said):
        fetch(url, 1)


def test_a_service_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound, and nobody listens
        with pytest.raises(SessionError, match="does not answer"):
            fetch(f"http://127.0.0.1:{taken.getsockname()[1]}", 1)


def test_a_process_is_the_same_when_its_command_is(folder: Path) -> None:
    def report() -> profiles.ProfileReport:
        source = "import time\nprint(1, flush=True)\nwhile True: time.sleep(0.01)"
        process = subprocess.Popen([sys.executable, "-c", source], stdout=subprocess.PIPE)
        assert process.stdout is not None
        process.stdout.readline()
        try:
            return profiles.read(pid=process.pid, seconds=1)
        finally:
            process.kill()
            process.wait()

    first, second = report(), report()
    assert first.earlier is None
    assert isinstance(second.earlier, Profile)
    assert first.subject == second.subject
    assert os.path.basename(sys.executable) in first.subject
    assert rp.read_profile(str(first.kept)).total() == first.profile.total()
