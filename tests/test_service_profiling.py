"""Continuous profiling of a service: the ring, what slow requests leave, the endpoints."""

from __future__ import annotations

import asyncio
import base64
import gzip
import json
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fastapi
import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ALWAYS_ON

from ragprof.profiles.content import Content
from ragprof.profiles.model import Profile
from ragprof.profiles.read import profiles_of
from ragprof.sampler import sharing, snapshot
from ragprof.sampler.ring import Ring
from ragprof.service import keeping
from ragprof.service.keeping import Keeper, KeptFolder, Request
from ragprof.service.pprof import Pprof
from ragprof.service.pprof_endpoint import MOST_AT_ONCE, kept
from ragprof.service.profiling import ProfilingError, ServiceProfiler, setup_profiling

# pytest-timeout's usual method owns SIGALRM, which the sampler needs.
pytestmark = pytest.mark.timeout(300, method="thread")

TOKEN = "a-token-of-32-characters-for-test"
BEARER = {"authorization": f"Bearer {TOKEN}"}
TRACE = "0af7651916cd43dd8448eb211c80319c"


def burn(seconds: float) -> None:
    end = time.thread_time() + seconds
    while time.thread_time() < end:
        sum(range(200))


def read(data: bytes) -> Profile:
    (profile,) = profiles_of(Content(data, "x.pb.gz"), format="pprof")
    return profile


def service(sampled: bool, **options: Any) -> tuple[Any, ServiceProfiler]:
    """A service with a span per request, and its profiler."""
    provider = TracerProvider(sampler=ALWAYS_ON if sampled else ALWAYS_OFF)
    tracer = provider.get_tracer("test")
    app = fastapi.FastAPI()

    @app.get("/slow/{number}")
    async def slow(number: int) -> int:
        work_of_slow()
        await asyncio.sleep(0.3)
        return number

    @app.get("/thread")
    def thread() -> int:
        work_of_thread()
        return 1

    @app.get("/fast")
    async def fast() -> int:
        return 1

    # A busy machine must not thin the looks at suspended tasks out.
    profiler = setup_profiling(app, TOKEN, **{"slow": 0.25, "budget": 0.5, **options})
    assert profiler is not None

    class Spans:
        """The server span around all middlewares, as instrumentation makes it."""

        def __init__(self, app: Any) -> None:
            self.app = app

        async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
            with tracer.start_as_current_span("request", kind=trace.SpanKind.SERVER):
                await self.app(scope, receive, send)

    app.add_middleware(Spans)
    return app, profiler


def work_of_slow() -> None:
    burn(0.1)


def work_of_thread() -> None:
    burn(0.4)


@pytest.fixture
def stopped() -> Iterator[list[ServiceProfiler]]:
    profilers: list[ServiceProfiler] = []
    yield profilers
    for profiler in profilers:
        profiler.stop()
    assert sharing.running() is None


def client(app: Any) -> httpx.AsyncClient:
    transport = httpx.ASGITransport(app=app)
    return httpx.AsyncClient(transport=transport, base_url="http://service", timeout=60)


def functions(profile: Profile) -> set[str]:
    used = set(profile.sample_stacks.tolist())
    return {frame.function.rpartition(":")[2] for at in used for frame in profile.stack(at)}


@pytest.mark.parametrize("sampled", [True, False])
def test_a_slow_request_is_kept_also_when_its_trace_was_not_sampled(
    tmp_path: Path, stopped: list[ServiceProfiler], sampled: bool
) -> None:
    app, profiler = service(sampled, folder=tmp_path / "kept")
    stopped.append(profiler)

    async def main() -> tuple[Any, bytes, Profile]:
        async with client(app) as http:
            await asyncio.gather(*(http.get(path) for path in ("/slow/1", "/fast", "/thread")))
            await asyncio.to_thread(profiler.keeper.wait, 30)
            listed = await http.get("/debug/pprof/kept?format=json", headers=BEARER)
            got = await http.get("/debug/pprof/kept", headers=BEARER)
            assert got.headers["x-ragprof-requests"] == "2"
            return listed.json(), got.content, read(got.content)

    listed, _, profile = asyncio.run(main())
    by_endpoint = {one["endpoint"]: one for one in listed["requests"]}
    assert set(by_endpoint) == {"/slow/{number}", "/thread"}
    for endpoint, function in (("/slow/{number}", "work_of_slow"), ("/thread", "work_of_thread")):
        request = by_endpoint[endpoint]
        own = profile.where(endpoint=endpoint)
        assert function in functions(own)
        assert set(own.labels["trace_id"].values()) == {request["trace_id"]}
        assert set(own.labels["span_id"].values()) != {""}
        assert own.times is not None
        assert own.times.min() >= request["start_ns"]
        assert request["duration_ns"] >= 0.25e9
    slow = profile.where(endpoint="/slow/{number}")
    assert {"running", "awaiting"} <= set(slow.labels["state"].values())
    assert slow.where(state="awaiting").total() > 0.1e9
    assert profile.labels["process"].values()[0] == str(os.getpid())
    assert sum("ragprof.request " in note for note in profile.notes) == 2
    note = next(note for note in profile.notes if "/thread" in note)
    assert json.loads(note.removeprefix("ragprof.request ")) == by_endpoint["/thread"]


def test_since_and_until_choose_what_overlaps(tmp_path: Path) -> None:
    folder = KeptFolder(tmp_path, 1 << 20)
    second = 10**9
    for start in (100, 200, 300):
        request = Request(TRACE, "/x", start * second, (start + 50) * second, 1.0, 7, "s")
        folder.store(request, spool(start * second, 7))
    assert [r["start_ns"] for r in listed(folder, 160, 240)] == [200 * second]
    assert len(listed(folder, 250, 300)) == 2  # both ends are in
    assert listed(folder, 260, 299) == []
    body, count, left = kept(folder, 0, 10**18, 2, "pprof")
    assert (count, left) == (2, 1)
    assert len(read(body)) == 2
    nothing, count, _ = kept(folder, 0, 1, 2, "pprof")
    assert count == 0
    assert len(read(nothing)) == 0


def listed(folder: KeptFolder, since: int, until: int) -> list[dict[str, Any]]:
    body, _, _ = kept(folder, since * 10**9, until * 10**9, 100, "json")
    requests: list[dict[str, Any]] = json.loads(body)["requests"]
    return requests


def spool(at: int, pid: int, count: int = 1) -> list[dict[str, Any]]:
    """Lines of a process with one stack."""
    columns: dict[str, list[Any]] = {
        "time": [at + number for number in range(count)],
        "weight_ns": [10] * count,
        "stack_id": [1] * count,
        "thread": [pid] * count,
        "task": [0] * count,
        "state": ["running"] * count,
        "wait": [""] * count,
        "trace_id": [TRACE] * count,
        "span_id": ["b7ad6b7169203331"] * count,
    }
    return [
        {"type": "process", "pid": pid, "service": ""},
        {"type": "frames", "rows": [[1, "m", "f", "/m.py", 3, "app"]]},
        {"type": "stacks", "rows": [[1, [1], [5]]]},
        {"type": "samples", "columns": columns},
    ]


def test_the_folder_never_grows_beyond_its_size(tmp_path: Path) -> None:
    folder = KeptFolder(tmp_path / "kept", 6_000)
    for number in range(40):
        request = Request(TRACE, "/x", number, number + 1, 1.0, 7, "s")
        path = folder.store(request, spool(number, 7, 200))
        os.utime(path, (number, number))
        total = sum(file.stat().st_size for file in folder.path.iterdir())
        assert total <= 6_000
    newest = folder.find()[0]
    assert newest.name.startswith("39-")
    assert newest.stat().st_mode & 0o777 == 0o600


def test_damaged_and_foreign_files_are_left_out(tmp_path: Path) -> None:
    folder = KeptFolder(tmp_path, 1 << 20)
    good = folder.store(Request(TRACE, "/x", 1, 2, 1.0, 7, "s"), spool(1, 7))
    for name, data in {
        f"3-4-7-{TRACE}.jsonl.gz": b"no gzip",
        f"5-6-7-{TRACE}.jsonl.gz": gzip.compress(b'{"type":"request"}\n'),
        f"7-8-7-{TRACE}.jsonl.gz": good.read_bytes()[:-20],
        "notes.txt": b"of somebody else",
    }.items():
        (tmp_path / name).write_bytes(data)
    body, count, _ = kept(folder, 0, 100, 10, "pprof")
    assert count == 1
    assert len(read(body)) == 1
    assert (tmp_path / "notes.txt").exists()


def test_too_many_slow_requests_are_counted_and_not_kept(tmp_path: Path) -> None:
    ring = Ring()
    ring.write(spool(time.time_ns(), 7))
    keeper = Keeper(ring, KeptFolder(tmp_path, 1 << 20), per_minute=3)
    ring.open = False  # nothing more will come, so nothing is waited for
    now = time.time_ns()
    results = [
        keeper.keep(Request(trace, "/x", now - 10**9, now, 1.0, 7, ""))
        for trace in (TRACE, "1" * 32, TRACE, TRACE, TRACE)
    ]
    assert keeper.wait(30)
    assert results == [True, True, True, False, False]
    assert (keeper.kept, keeper.empty, keeper.skipped) == (2, 1, 2)


def test_the_next_seconds_in_pprof_form_while_the_service_serves(
    tmp_path: Path, stopped: list[ServiceProfiler]
) -> None:
    app, profiler = service(True, folder=tmp_path)
    stopped.append(profiler)

    async def main() -> tuple[Profile, int, int]:
        async with client(app) as http:
            began = time.time_ns()
            answer = asyncio.create_task(http.get("/debug/pprof/profile?seconds=2", headers=BEARER))
            await asyncio.sleep(0.05)
            assert (await http.get("/slow/2")).json() == 2  # it goes on serving
            got = await answer
            assert got.status_code == 200
            return read(got.content), began, time.time_ns()

    profile, began, ended = asyncio.run(main())
    assert "work_of_slow" in functions(profile)
    assert profile.times is not None
    assert began <= profile.times.min()
    assert profile.times.max() <= ended
    assert set(profile.labels["trace_id"].values()) - {""}
    assert any("sampling cost" in note for note in profile.notes)


def test_tasks_and_threads_with_stack_and_span(
    tmp_path: Path, stopped: list[ServiceProfiler]
) -> None:
    app, profiler = service(True, folder=tmp_path)
    stopped.append(profiler)
    release = threading.Event()
    worker = threading.Thread(target=release.wait, name="by-hand")

    async def main() -> tuple[dict[str, Any], str]:
        worker.start()
        async with client(app) as http:
            pending = asyncio.create_task(http.get("/slow/1"), name="caller")
            while not any("slow" in text for text in stacks_of(await tasks(http))):
                await asyncio.sleep(0.01)
            found = await tasks(http)
            text = (await http.get("/debug/pprof/tasks", headers=BEARER)).text
            await pending
            return found, text

    async def tasks(http: httpx.AsyncClient) -> dict[str, Any]:
        got = await http.get("/debug/pprof/tasks?format=json", headers=BEARER)
        seen: dict[str, Any] = got.json()
        return seen

    def stacks_of(found: dict[str, Any]) -> list[str]:
        return [place["function"] for task in found["tasks"] for place in task["stack"]]

    try:
        found, text = asyncio.run(main())
    finally:
        release.set()
        worker.join()
    (caller,) = [task for task in found["tasks"] if task["name"] == "caller"]
    assert (caller["state"], caller["wait"]) == ("awaiting", "sleep")
    assert len(caller["trace_id"]) == 32
    assert any(place["function"].endswith("slow") for place in caller["stack"])
    running = [task for task in found["tasks"] if task["state"] == "running"]
    assert len(running) == 1
    by_hand = next(one for one in found["threads"] if one["name"] == "by-hand")
    assert by_hand["stack"][-1]["function"].startswith("threading:")
    assert by_hand["trace_id"] == ""
    assert f"trace {caller['trace_id']}" in text
    assert "by-hand" in text


def test_a_snapshot_needs_no_sampler() -> None:
    async def main() -> list[dict[str, Any]]:
        waiting = asyncio.create_task(asyncio.Event().wait(), name="waiting")
        await asyncio.sleep(0)
        found = snapshot.tasks(asyncio.get_running_loop())
        waiting.cancel()
        return found

    assert sharing.running() is None
    found = asyncio.run(main())
    (waiting,) = [task for task in found if task["name"] == "waiting"]
    assert waiting["stack"][-1]["function"] == "asyncio.locks:Event.wait"
    assert any(thread["main"] for thread in snapshot.threads())


@pytest.mark.parametrize(
    ("headers", "allowed"),
    [
        ({}, False),
        ({"authorization": "Bearer wrong"}, False),
        ({"authorization": f"Bearer {TOKEN}x"}, False),
        ({"authorization": TOKEN}, False),
        ({"authorization": "Basic not base64"}, False),
        ({"authorization": f"Bearer {TOKEN}"}, True),
        ({"authorization": "Basic " + base64.b64encode(f"x:{TOKEN}".encode()).decode()}, True),
    ],
)
def test_nothing_is_answered_without_the_token(
    tmp_path: Path, stopped: list[ServiceProfiler], headers: dict[str, str], allowed: bool
) -> None:
    app, profiler = service(True, folder=tmp_path)
    stopped.append(profiler)

    async def main() -> list[int]:
        async with client(app) as http:
            paths = ("tasks", "kept?format=json", "kept", "nothing")
            got = [await http.get(f"/debug/pprof/{path}", headers=headers) for path in paths]
            assert not any(TOKEN in one.text for one in got)
            return [one.status_code for one in got]

    assert asyncio.run(main()) == ([200, 200, 200, 404] if allowed else [401] * 4)


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("profile?seconds=0", 400),
        ("profile?seconds=1e9", 400),
        ("profile?seconds=nan", 400),
        ("profile?seconds=x", 400),
        ("tasks?format=xml", 400),
        ("kept?since=2026-01-01T00:00:00", 400),
        ("kept?since=yesterday", 400),
        ("kept?since=1e300", 400),
        ("kept?since=200&until=100", 400),
        ("kept?limit=0", 400),
        ("kept?format=xml", 400),
        ("kept?since=2026-01-01T00:00:00Z&until=2026-01-02T00:00:00%2B02:00", 200),
        ("kept?since=2026-01-01T00:00:00+02:00", 200),
        ("kept?since=1", 200),
    ],
)
def test_wrong_questions_get_one_sentence(
    tmp_path: Path, stopped: list[ServiceProfiler], path: str, status: int
) -> None:
    app, profiler = service(True, folder=tmp_path)
    stopped.append(profiler)

    async def main() -> httpx.Response:
        async with client(app) as http:
            assert (await http.post("/debug/pprof/tasks", headers=BEARER)).status_code == 405
            return await http.get(f"/debug/pprof/{path}", headers=BEARER)

    got = asyncio.run(main())
    assert got.status_code == status, got.text
    if status != 200:
        assert got.text.count("\n") == 1


def test_a_few_profiles_at_once_and_no_more(tmp_path: Path, stopped: list[ServiceProfiler]) -> None:
    app, profiler = service(True, folder=tmp_path)
    stopped.append(profiler)

    async def main() -> list[int]:
        async with client(app) as http:
            url = "/debug/pprof/profile?seconds=0.5"
            asked = (http.get(url, headers=BEARER) for _ in range(MOST_AT_ONCE + 2))
            return [got.status_code for got in await asyncio.gather(*asked)]

    assert sorted(asyncio.run(main())) == [200] * MOST_AT_ONCE + [429] * 2


def test_off_without_a_token(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("RAGPROF_PROFILING_TOKEN", raising=False)
    monkeypatch.delenv("RAGPROF_PROFILING_TOKEN_FILE", raising=False)
    app = fastapi.FastAPI()
    assert setup_profiling(app) is None
    assert sharing.running() is None
    assert app.user_middleware == []

    async def main() -> int:
        async with client(app) as http:
            return (await http.get("/debug/pprof/tasks", headers=BEARER)).status_code

    assert asyncio.run(main()) == 404


def test_the_token_comes_from_the_environment(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, stopped: list[ServiceProfiler]
) -> None:
    file = tmp_path / "token"
    file.write_text(TOKEN + "\n")
    monkeypatch.setenv("RAGPROF_PROFILING_TOKEN_FILE", str(file))
    profiler = setup_profiling(fastapi.FastAPI(), folder=tmp_path / "kept")
    assert profiler is not None
    stopped.append(profiler)
    file.write_text("short")
    with pytest.raises(ProfilingError, match="shorter than 16"):
        setup_profiling(fastapi.FastAPI())
    monkeypatch.setenv("RAGPROF_PROFILING_TOKEN_FILE", str(tmp_path / "absent"))
    with pytest.raises(ProfilingError, match="absent"):
        setup_profiling(fastapi.FastAPI())


@pytest.mark.parametrize(
    "options", [{"slow": 0}, {"slow": float("nan")}, {"budget": -1}, {"kept_per_minute": 0}]
)
def test_options_that_cannot_be_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ProfilingError):
        setup_profiling(fastapi.FastAPI(), TOKEN, **options)


def test_a_service_whose_signal_is_taken_goes_on_and_says_why(
    tmp_path: Path, stopped: list[ServiceProfiler]
) -> None:
    import signal

    app, profiler = service(True, folder=tmp_path)
    stopped.append(profiler)
    before = signal.signal(signal.SIGALRM, lambda *_: None)  # the sampler steps aside
    try:

        async def main() -> list[httpx.Response]:
            async with client(app) as http:
                paths = ("/slow/1", "/debug/pprof/profile?seconds=0.1", "/debug/pprof/tasks")
                return [await http.get(path, headers=BEARER) for path in paths]

        served, profile, tasks = asyncio.run(main())
    finally:
        signal.signal(signal.SIGALRM, before)
    assert (served.status_code, tasks.status_code) == (200, 200)
    assert profile.status_code == 503
    assert "SIGALRM has another owner" in profile.text


def test_thresholds_of_single_endpoints(tmp_path: Path, stopped: list[ServiceProfiler]) -> None:
    app, profiler = service(
        True, folder=tmp_path, slow=60, slow_by_endpoint={"/slow/{number}": 0.05}
    )
    stopped.append(profiler)

    async def main() -> None:
        async with client(app) as http:
            await asyncio.gather(http.get("/slow/1"), http.get("/thread"))
            await asyncio.to_thread(profiler.keeper.wait, 30)

    asyncio.run(main())
    found = [keeping.read(path) for path in profiler.folder.find()]
    assert [one[0].endpoint for one in found if one] == ["/slow/{number}"]


def test_the_default_folder_is_private_and_never_somebody_elses(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    first = keeping.default_folder()
    assert first == keeping.default_folder()
    assert first.stat().st_mode & 0o777 == 0o700
    first.chmod(0o777)
    assert keeping.default_folder() != first


# The ring.


def test_the_ring_keeps_the_last_seconds_and_bounds_rows() -> None:
    ring = Ring(seconds=10, rows=500)
    now = time.time_ns()
    ring.write(spool(now - 20 * 10**9, 7, 100))
    ring.write(spool(now, 7, 100))
    assert ring.rows == 100
    for _ in range(20):
        ring.write(spool(now, 7, 100))
    assert 400 <= ring.rows <= 500


def test_the_ring_drops_stacks_that_no_sample_uses_and_asks_for_them_anew() -> None:
    ring = Ring(rows=1_000, stacks=100)
    now = time.time_ns()
    told: list[bool] = []
    for number in range(1, 301):
        lines = spool(now, 7)
        lines[1]["rows"] = [[number, "m", f"f{number}", "/m.py", 3, "app"]]
        lines[2]["rows"] = [[number, [number], [5]]]
        lines[3]["columns"]["stack_id"] = [number]
        told.append(ring.write(lines))
    assert told.count(False) >= 2
    rows = {line["type"]: line for line in ring.lines()}
    names = {row[0]: row[2] for row in rows["frames"]["rows"]}
    assert len(names) <= 100
    assert names[300] == "f300"
    assert set(rows["samples"]["columns"]["stack_id"]) == {row[0] for row in rows["stacks"]["rows"]}


def test_a_reader_never_sees_a_stack_without_its_frames() -> None:
    ring = Ring(rows=2_000, stacks=200)
    done = threading.Event()
    problems: list[BaseException] = []

    def reading() -> None:
        try:
            while not done.is_set():
                for line in ring.lines():
                    assert line
        except BaseException as error:
            problems.append(error)

    reader = threading.Thread(target=reading)
    reader.start()
    now = time.time_ns()
    for number in range(1, 4_000):
        lines = spool(now, 7)
        lines[1]["rows"] = [[number, "m", f"f{number}", "/m.py", 3, "app"]]
        lines[2]["rows"] = [[number, [number], [5]]]
        lines[3]["columns"]["stack_id"] = [number]
        ring.write(lines)
    done.set()
    reader.join()
    assert problems == []


FORKING = """
import json, os, time
from ragprof.sampler import sharing
from ragprof.sampler.ring import Ring
def burn(seconds):
    end = time.thread_time() + seconds
    while time.thread_time() < end: pass
ring = Ring()
sampler = sharing.share(ring, 100, 0.5)
burn(0.1)
read_end, write_end = os.pipe()
child = os.fork()
if not child:
    burn(0.3)
    sampler.flush_soon()
    burn(0.1)
    threads = {t for line in ring.lines() if line["type"] == "samples"
               for t in line["columns"]["thread"]}
    os.write(write_end, json.dumps([ring.process["pid"], sorted(threads)]).encode())
    os._exit(0)
os.close(write_end)
with open(read_end, "rb") as stream:
    assert json.loads(stream.read()) == [child, [child]]
os.waitpid(child, 0)
assert ring.process["pid"] == os.getpid()
sharing.unshare(sampler, ring)
print("well")
"""


def test_a_forked_child_has_a_ring_of_its_own() -> None:
    done = subprocess.run(
        [sys.executable, "-c", FORKING], capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "well\n", "")


# pprof.

texts = st.text(max_size=8)
rows = st.lists(
    st.tuples(
        st.integers(0, 2**40),  # weight
        st.integers(1, 5),  # stack
        st.integers(0, 2**31),  # thread
        st.integers(0, 9),  # task
        st.sampled_from(["running", "awaiting", "waiting"]),
        st.sampled_from(["", "lock", "sleep"]),
        st.sampled_from(["", TRACE]),
    ),
    max_size=20,
)


@settings(deadline=None, max_examples=60)
@given(rows, st.lists(texts, min_size=5, max_size=5))
def test_what_the_light_writer_writes_is_what_the_reader_reads(
    samples: list[tuple[Any, ...]], names: list[str]
) -> None:
    lines = spool(10**18, 7)[:1]
    lines.append(
        {
            "type": "frames",
            "rows": [[n, f"m{n}", name, f"/m{n}.py", n, "app"] for n, name in enumerate(names, 1)],
        }
    )
    lines.append(
        {"type": "stacks", "rows": [[n, list(range(1, n + 1)), [n] * n] for n in range(1, 6)]}
    )
    columns = ("weight_ns", "stack_id", "thread", "task", "state", "wait", "trace_id")
    data: dict[str, list[Any]] = {
        name: [row[at] for row in samples] for at, name in enumerate(columns)
    }
    data["span_id"] = data["trace_id"]
    data["time"] = [10**18 + 10 * at for at in range(len(samples))]
    lines.append({"type": "samples", "columns": data})
    made = Pprof()
    made.take(lines, {"process": "7", "service": "s"})
    profile = read(made.encode())
    assert profile.value_types == (("wall", "nanoseconds"),)
    assert profile.values[:, 0].tolist() == data["weight_ns"]
    assert profile.clock == "utc"
    for at in range(len(samples)):
        stack = profile.stack(int(profile.sample_stacks[at]))
        expected = [(f"m{n}:{names[n - 1]}", f"/m{n}.py", n) for n in range(1, samples[at][1] + 1)]
        assert [(one.function, one.file, one.line) for one in stack] == expected
    if samples:
        assert profile.times is not None
        assert profile.times.tolist() == data["time"]
        assert profile.threads is not None
        assert profile.threads.tolist() == data["thread"]
        assert profile.labels["state"].values() == data["state"]
        assert set(profile.labels["service"].values()) == {"s"}
        if any(data["wait"]):
            assert profile.labels["wait"].values() == data["wait"]


def test_gos_own_tool_opens_what_the_light_writer_writes(tmp_path: Path) -> None:
    go = shutil.which("go")
    if go is None:
        pytest.fail(
            "Go is not installed: its `go tool pprof` opens the file; apt install golang-go"
        )
    made = Pprof()
    made.take(spool(10**18, 7, 3), {"endpoint": "/ask/{id}"})
    made.comment("a comment")
    file = tmp_path / "kept.pb.gz"
    file.write_bytes(made.encode())
    done = subprocess.run(
        [go, "tool", "pprof", "-raw", str(file)], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert "Comment: a comment" in done.stdout
    assert done.stdout.count("endpoint:[/ask/{id}]") == 3
    assert f"trace_id:[{TRACE}]" in done.stdout
    assert "end_timestamp_ns:[1000000000000000000 nanoseconds]" in done.stdout
    assert "m:f /m.py:5" in done.stdout
