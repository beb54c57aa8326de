"""Labels of the sampler: a label that is given is right, however many requests run at once."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest
from spools import Sample, read_spools, run_program, sampled

pytestmark = pytest.mark.sampler

LOOPS = ["asyncio", "uvloop"]

# Each request runs a function of its own name in a span of its own: the stack tells the truth.
REQUESTS = """
t = tracer()
truth = {}
def request(number):
    scope = {"asyncio": asyncio, "burn": burn}
    exec(f'''async def request_{number}(rounds):
    for _ in range(rounds):
        work_{number}()
        await asyncio.sleep(0.002)
def work_{number}():
    burn(0.003)
''', scope)
    return scope[f"request_{number}"]
async def traced(number):
    await asyncio.sleep(0.001 * (number % 7))
    with t.start_as_current_span(f"r{number}") as span:
        ids = span.get_span_context()
        truth[number] = [format(ids.trace_id, "032x"), format(ids.span_id, "016x")]
        await request(number)(4)
async def main():
    for start in range(0, 120, 40):
        await asyncio.gather(*(traced(n) for n in range(start, start + 40)))
    print(json.dumps(truth))
run(main())
"""


@pytest.mark.parametrize("loop", LOOPS)
def test_forty_requests_at_once_keep_their_labels(tmp_path: Path, loop: str) -> None:
    done = run_program(tmp_path, REQUESTS, LOOP=loop)
    assert (done.returncode, done.stderr) == (0, "")
    truth = {int(number): tuple(label) for number, label in json.loads(done.stdout).items()}
    (file,) = read_spools(tmp_path / "spool")
    seen: list[tuple[Sample, tuple[str, ...]]] = []
    for sample in file.samples:
        for function in sample.functions:
            name, _, number = function.partition("_")
            if name in ("request", "work") and number.isdigit():
                seen.append((sample, truth[int(number)]))
                break
    labelled = [(sample, right) for sample, right in seen if sample.label != ("", "")]
    assert len({right for _, right in labelled}) > 40
    assert all(sample.label == right for sample, right in labelled)
    running = [sample for sample, _ in seen if sample.state == "running"]
    assert len(running) > 30
    assert sum(sample.label != ("", "") for sample in running) >= 0.95 * len(running)
    assert {sample.state for sample, _ in seen} >= {"running", "awaiting"}


@pytest.mark.parametrize("loop", LOOPS)
def test_nested_spans_label_the_innermost(tmp_path: Path, loop: str) -> None:
    source = """
t = tracer()
def outer_work(): burn(0.15)
def inner_work(): burn(0.15)
async def main():
    with t.start_as_current_span("outer") as outer:
        outer_work()
        with t.start_as_current_span("inner") as inner:
            inner_work()
            await asyncio.sleep(0.15)
        print(json.dumps([format(s.get_span_context().span_id, "016x") for s in (outer, inner)]))
run(main())
"""
    done = run_program(tmp_path, source, LOOP=loop)
    assert (done.returncode, done.stderr) == (0, "")
    (file,) = read_spools(tmp_path / "spool")
    outer, inner = json.loads(done.stdout)
    assert {sample.label[1] for sample in file.of("outer_work")} == {outer}
    assert {sample.label[1] for sample in file.of("inner_work")} == {inner}
    assert {s.label[1] for s in file.of("sleep") if s.state == "awaiting"} == {inner}


def test_no_span_no_label(tmp_path: Path) -> None:
    source = """
t = tracer()
def unlabelled(): burn(0.2)
async def traced():
    with t.start_as_current_span("r"):
        await asyncio.sleep(0.3)
async def main():
    task = asyncio.create_task(traced())
    await asyncio.sleep(0.02)
    unlabelled()   # the other task's span was activated last on this thread
    await task
run(main())
"""
    file = sampled(tmp_path, source)
    assert len(file.of("unlabelled")) > 5
    assert {sample.label for sample in file.of("unlabelled")} == {("", "")}


def test_without_opentelemetry_everything_is_unlabelled(tmp_path: Path) -> None:
    file = sampled(tmp_path, "burn(0.2)\nassert 'opentelemetry' not in sys.modules\n")
    assert file.seconds("burn", "running") > 0.1
    assert {sample.label for sample in file.samples} == {("", "")}


WORKERS = """
import concurrent.futures
t = tracer()
ids = {}
def label(span): return [format(span.get_span_context().trace_id, "032x"),
                         format(span.get_span_context().span_id, "016x")]
def copied(): burn(0.2)
def handed(): burn(0.2)
def opened():
    with t.start_as_current_span("inside") as span:
        ids["opened"] = label(span)
        opened_work()
def opened_work(): burn(0.2)
def own_root():
    with t.start_as_current_span("own") as span:
        ids["own"] = label(span)
        own_work()
def own_work(): burn(0.2)
def stranger(): burn(0.2)
async def main():
    pool = concurrent.futures.ThreadPoolExecutor(2)
    with t.start_as_current_span("a") as span:
        ids["a"] = label(span)
        await asyncio.to_thread(copied)
        await asyncio.to_thread(opened)
        await asyncio.wrap_future(pool.submit(handed))
        await asyncio.wrap_future(pool.submit(own_root))
        thread = threading.Thread(target=stranger)
        thread.start()
        while thread.is_alive():
            await asyncio.sleep(0.01)
    print(json.dumps(ids))
run(main())
"""


@pytest.mark.parametrize("loop", LOOPS)
def test_worker_threads_know_what_they_work_for(tmp_path: Path, loop: str) -> None:
    done = run_program(tmp_path, WORKERS, LOOP=loop)
    assert (done.returncode, done.stderr) == (0, "")
    (file,) = read_spools(tmp_path / "spool")
    truth = {name: tuple(label) for name, label in json.loads(done.stdout).items()}
    main_thread = file.process["pid"]
    for function, right in [
        ("copied", truth["a"]),
        ("handed", truth["a"]),
        ("opened_work", truth["opened"]),
        ("own_work", truth["own"]),
        ("stranger", ("", "")),
    ]:
        samples = [s for s in file.of(function) if s.thread != main_thread]
        assert samples, function
        assert {sample.label for sample in samples} == {right}, function
        assert file.seconds(function, "running") > 0.05, function


if importlib.util.find_spec("anyio") is not None:

    def test_anyio_workers_know_what_they_work_for(tmp_path: Path) -> None:
        source = """
t = tracer()
import anyio, anyio.to_thread
truth = {}
def make(number):
    scope = {"burn": burn}
    exec(f"def endpoint_{number}(): burn(0.06)", scope)
    return scope[f"endpoint_{number}"]
async def request(number):
    with t.start_as_current_span("r") as span:
        ids = span.get_span_context()
        truth[number] = [format(ids.trace_id, "032x"), format(ids.span_id, "016x")]
        await anyio.to_thread.run_sync(make(number))
async def main():
    await anyio.to_thread.run_sync(burn, 0.3)   # the sampler looks for new modules now and then
    await asyncio.gather(*(request(n) for n in range(20)))
    print(json.dumps(truth))
run(main())
"""
        done = run_program(tmp_path, source)
        assert (done.returncode, done.stderr) == (0, "")
        (file,) = read_spools(tmp_path / "spool")
        right = {f"endpoint_{n}": tuple(label) for n, label in json.loads(done.stdout).items()}
        seen = [(s, right[f]) for s in file.samples for f in s.functions if f in right]
        assert len(seen) > 20
        assert all(sample.label == label for sample, label in seen)
