"""`rp.profile`: every engine gives a Profile, and sessions nest, overlap, fail and end well."""

from __future__ import annotations

import asyncio
import gc
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ragprof as rp
from ragprof.profiles.model import Profile
from ragprof.profiling.engine import NotEnded, SessionError
from ragprof.profiling.session import ENGINES, Session
from ragprof.profiling.spool import SpoolProfile
from ragprof.sampler import sharing

# pytest-timeout's usual method owns SIGALRM, which the sampler needs.
pytestmark = pytest.mark.timeout(300, method="thread")


def burn(seconds: float) -> int:
    end, turns = time.thread_time() + seconds, 0
    while time.thread_time() < end:
        turns += sum(range(200))
    return turns


def hot() -> None:
    burn(0.3)


def cool() -> None:
    burn(0.1)


def workload() -> None:
    hot()
    cool()


def total(profile: Profile, function: str) -> float:
    """Seconds of a function of this file, however the engine calls it."""
    table = profile.functions()
    names = table["function"].map(lambda name: name.replace(":", ".").rpartition(".")[2])
    return float(table.loc[names == function, "total"].sum()) / 1e9


@pytest.fixture(autouse=True)
def _no_sampler_stays() -> Iterator[None]:
    yield
    assert sharing.running() is None


@pytest.mark.parametrize("engine", ENGINES)
def test_every_engine_gives_the_same_kind_of_profile(engine: Any) -> None:
    with rp.profile(engine=engine, name="work") as prof:
        workload()
    assert isinstance(prof, Profile)
    assert prof.name == "work"
    assert prof.value_types[0] == ("wall", "nanoseconds")
    assert total(prof, "workload") >= 0.3
    parts = total(prof, "hot") + total(prof, "cool")
    assert parts == pytest.approx(total(prof, "workload"), rel=0.1)
    assert min(total(prof, "hot"), total(prof, "cool")) > 0.05
    assert not [frame for frame in prof.frames if "ragprof/profiling" in frame.file]
    assert "hot" in prof.flamegraph().svg()


@pytest.mark.parametrize("engine", ENGINES)
def test_an_exception_passes_and_the_profile_stays(engine: Any) -> None:
    session = rp.profile(engine=engine)

    def failing() -> None:
        with session:
            hot()
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError) as raised:
        failing()
    assert not getattr(raised.value, "__notes__", [])
    assert total(session, "hot") > 0.1


def test_before_its_end_a_session_says_so() -> None:
    session = rp.profile()
    with pytest.raises(NotEnded, match="has not begun"):
        _ = session.frames
    assert "not begun" in repr(session)
    assert not hasattr(session, "_ipython_canary_method_should_not_exist_")
    with session:
        with pytest.raises(NotEnded, match="still runs"):
            session.functions()
        assert session._repr_mimebundle_() == {"text/plain": "<Session sampler: running>"}
        with pytest.raises(SessionError, match="runs already"):
            session.start()
    with pytest.raises(SessionError, match="does not run"):
        session.stop()
    assert isinstance(session.where(state="running"), Profile)


def test_a_session_can_be_used_again() -> None:
    session = rp.profile()
    with session:
        hot()
    first = len(session)
    with session:
        pass
    assert first > len(session)
    assert total(session, "hot") == 0


def test_sampler_sessions_nest_and_the_inner_is_part_of_the_outer() -> None:
    with rp.profile() as outer:
        hot()
        with rp.profile() as inner:
            cool()
        hot()
    assert total(inner, "hot") == 0
    assert 0 < total(inner, "cool") <= total(outer, "cool") + 0.02
    assert total(outer, "hot") > 0.3


def test_sessions_in_two_threads_share_the_sampler() -> None:
    found: list[Session] = []

    def other() -> None:
        with rp.profile() as prof:
            burn(0.2)
        found.append(prof)

    with rp.profile() as whole:
        thread = threading.Thread(target=other)
        thread.start()
        thread.join()
    (own,) = found
    assert len(own) > 0
    assert total(own, "other") > 0
    assert total(whole, "other") > 0


def test_a_first_session_outside_the_main_thread_is_refused_with_the_way_out() -> None:
    errors: list[str] = []

    def other() -> None:
        try:
            rp.profile().start()
        except SessionError as error:
            errors.append(str(error))

    thread = threading.Thread(target=other)
    thread.start()
    thread.join()
    assert "main thread" in errors[0]
    assert "pyinstrument" in errors[0]


@pytest.mark.parametrize("engine", ["pyinstrument", "cprofile"])
def test_other_engines_end_where_they_began(engine: Any) -> None:
    session = rp.profile(engine=engine).start()
    errors: list[str] = []

    def other() -> None:
        try:
            session.stop()
        except SessionError as error:
            errors.append(str(error))

    thread = threading.Thread(target=other)
    thread.start()
    thread.join()
    assert "the thread where it began" in errors[0]
    hot()
    assert total(session.stop(), "hot") > 0.1


def test_cprofile_runs_once_in_a_process_and_is_free_again() -> None:
    with rp.profile(engine="cprofile"), pytest.raises(SessionError, match="runs already"):
        rp.profile(engine="cprofile").start()
    with rp.profile(engine="cprofile") as prof:
        hot()
    assert total(prof, "hot") > 0


@pytest.mark.parametrize("engine", ENGINES)
def test_a_session_that_nobody_holds_ends(engine: Any) -> None:
    rp.profile(engine=engine).start()
    gc.collect()
    assert sharing.running() is None
    with rp.profile(engine=engine) as prof:
        hot()
    assert total(prof, "hot") > 0


class Broken:
    """An engine whose end fails."""

    def start(self) -> None:
        return None

    def stop(self) -> Profile:
        raise SessionError("the engine broke")

    def abandon(self) -> None:
        return None


def test_an_end_that_fails_never_hides_the_programs_own_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("ragprof.profiling.session.make_engine", lambda *_: Broken())
    with pytest.raises(SessionError, match="broke"), rp.profile():
        pass
    with pytest.raises(KeyError) as raised, rp.profile():
        raise KeyError("theirs")
    assert "the engine broke" in raised.value.__notes__[0]


def test_decorators_of_every_kind_of_function() -> None:
    @rp.profile
    def plain(seconds: float) -> str:
        burn(seconds)
        return "done"

    @rp.profile(engine="cprofile", name="generator")
    def generator() -> Iterator[int]:
        burn(0.05)
        yield 1
        burn(0.05)
        yield 2

    @rp.profile()
    async def coroutine() -> int:
        burn(0.1)
        await asyncio.sleep(0)
        return 3

    @rp.profile(engine="pyinstrument")
    async def items() -> AsyncIterator[int]:
        burn(0.1)
        yield 4

    async def take() -> list[int]:
        return [await coroutine(), *[item async for item in items()]]

    assert plain(0.1) == "done"
    assert list(generator()) == [1, 2]
    assert asyncio.run(take()) == [3, 4]
    functions: list[Any] = [plain, generator, coroutine, items]
    for function in functions:
        assert total(function.profile, "burn") > 0.02, function
    assert plain.profile.name.endswith("plain")  # type: ignore[attr-defined]
    assert generator.profile.name == "generator"  # type: ignore[attr-defined]


def test_async_context_manager_labels_spans_and_waits() -> None:
    from opentelemetry.sdk.trace import TracerProvider

    tracer = TracerProvider().get_tracer("test")
    ids = {}

    async def request(name: str) -> None:
        with tracer.start_as_current_span(name) as span:
            ids[name] = f"{span.get_span_context().span_id:016x}"
            burn(0.1)
            await asyncio.sleep(0.2)

    async def main() -> Profile:
        async with rp.profile(budget=0.5) as prof:
            await asyncio.gather(request("a"), request("b"))
        return prof

    prof = asyncio.run(main())
    spans = set(prof.labels["span_id"].vocabulary) - {""}
    assert spans == set(ids.values())
    assert {"running", "awaiting"} <= set(prof.labels["state"].values())
    assert prof.where(state="awaiting", wait="sleep").total() > 0


def endpoint() -> int:
    return burn(0.02)


async def async_endpoint() -> None:
    burn(0.02)
    await asyncio.sleep(0.01)


@pytest.mark.parametrize("engine", ENGINES)
def test_an_endpoint_is_profiled_while_the_service_goes_on(engine: Any) -> None:
    served = 0

    async def serve() -> None:
        nonlocal served
        while True:
            await async_endpoint()
            endpoint()
            served += 1

    async def main() -> tuple[Profile, Profile, int]:
        loop = asyncio.create_task(serve())
        profiler = rp.ContinuousProfiler(engine=engine)
        before = served
        one = await profiler.profile_endpoint(async_endpoint, 1.0)
        during = served - before
        whole = await profiler.profile_service(1.0)
        loop.cancel()
        return one, whole, during

    one, whole, during = asyncio.run(main())
    assert during > 0
    assert total(one, "async_endpoint") > 0
    assert total(one, "endpoint") == 0
    stacks = [one.stack(index) for index in set(one.sample_stacks.tolist())]
    outermost = {stack[0].function.rpartition(":")[2] for stack in stacks}
    assert outermost <= {"async_endpoint"}
    assert total(whole, "endpoint") > 0


def test_an_endpoint_that_nobody_calls_gives_an_empty_profile_with_a_note() -> None:
    profile = asyncio.run(rp.ContinuousProfiler().profile_endpoint(endpoint, 0.1))
    assert len(profile) == 0
    assert "was not seen" in profile.notes[-1]
    with pytest.raises(SessionError, match="not a Python function"):
        asyncio.run(rp.ContinuousProfiler().profile_endpoint(len, 0.1))
    with pytest.raises(SessionError, match="above 0"):
        asyncio.run(rp.ContinuousProfiler().profile_service(0))


@pytest.mark.parametrize(
    "options", [{"engine": "nothing"}, {"hz": 0}, {"hz": float("nan")}, {"budget": 2}]
)
def test_options_that_cannot_be_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(SessionError):
        rp.profile(**options)


def test_a_session_inside_a_recorded_process_joins_the_recorders_sampler(tmp_path: Path) -> None:
    from spools import environment

    program = tmp_path / "program.py"
    program.write_text(
        textwrap.dedent(
            """
            import time
            import ragprof as rp
            def burn():
                end = time.thread_time() + 0.3
                while time.thread_time() < end: pass
            with rp.profile() as prof:
                burn()
            assert prof.functions()["total"].max() > 1e8, prof
            print(prof.notes[0])
            """
        )
    )
    done = subprocess.run(
        [sys.executable, str(program)],
        env=environment(tmp_path / "spool", RAGPROF_SAMPLER_HZ="50"),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "at 50 Hz" in done.stdout
    assert list((tmp_path / "spool").glob("*.jsonl"))


def test_lines_that_cannot_be_read_are_counted_and_the_rest_is_kept(tmp_path: Path) -> None:
    good = [
        '{"type":"process","pid":7,"service":"s"}',
        '{"type":"frames","rows":[[1,"m","f","/m.py",3,"app"]]}',
        '{"type":"stacks","rows":[[1,[1],[5]]]}',
        '{"type":"samples","columns":{"time":[100],"weight_ns":[60],"stack_id":[1],"thread":[7],'
        '"task":[0],"state":["running"],"wait":[""],"trace_id":[""],"span_id":[""]}}',
    ]
    bad = ["no json", '{"type":"samples","columns":{}}', '{"type":"stacks","rows":[[2,[9],[1]]]}']
    (tmp_path / "7-1.jsonl").write_text("\n".join([*good, *bad, '{"type":"cut off']))
    collected = SpoolProfile("x", since=70)
    collected.read(tmp_path)
    profile = collected.build()
    assert collected.bad_lines == 3
    assert profile.total() == 30  # what lies before the beginning is cut off
    assert profile.labels["process"].values() == ["7"]
    assert any("3 lines" in note for note in profile.notes)
    assert np.all(profile.stack_lines == 5)
