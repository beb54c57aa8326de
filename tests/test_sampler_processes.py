"""The sampler in real processes: exec, fork, other owners of the signal, and how they end."""

from __future__ import annotations

import importlib.util
import os
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest
from spools import ROOT, environment, read_spools, run_program, sampled

pytestmark = pytest.mark.sampler


def test_exec_is_survived_and_sampled_anew(tmp_path: Path) -> None:
    source = """
if len(sys.argv) > 1:
    time.sleep(0.3)
    burn(0.2)
    print("second")
else:
    burn(0.1)
    os.execl(sys.executable, sys.executable, __file__, "again")
"""
    done = run_program(tmp_path, source)
    assert (done.returncode, done.stdout, done.stderr) == (0, "second\n", "")
    first, second = read_spools(tmp_path / "spool")
    assert first.process["pid"] == second.process["pid"]
    assert first.samples
    assert second.seconds("burn", "running") > 0.1


def test_exec_of_a_program_that_is_not_python(tmp_path: Path) -> None:
    done = run_program(tmp_path, "os.execv('/bin/sh', ['sh', '-c', 'sleep 0.5; echo alive'])\n")
    assert (done.returncode, done.stdout, done.stderr) == (0, "alive\n", "")


def test_a_failed_exec_does_not_end_the_sampling(tmp_path: Path) -> None:
    source = """
try:
    os.execv("/does/not/exist", ["x"])
except FileNotFoundError:
    pass
def after(): burn(0.3)
after()
"""
    assert sampled(tmp_path, source).seconds("after", "running") > 0.2


def test_a_forked_child_has_its_own_spool_file(tmp_path: Path) -> None:
    source = """
def in_parent(): burn(0.25)
def in_child(): burn(0.25)
burn(0.05)
child = os.fork()
if child == 0:
    in_child()
    sys.exit(3)
in_parent()
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 3
"""
    done = run_program(tmp_path, source)
    assert (done.returncode, done.stderr) == (0, "")
    parent, child = read_spools(tmp_path / "spool")
    assert parent.process["pid"] != child.process["pid"]
    assert parent.seconds("in_parent", "running") > 0.1
    assert child.seconds("in_child", "running") > 0.1
    assert not parent.of("in_child")
    assert not child.of("in_parent")
    assert child.stats["disabled"] == ""


def test_programs_started_by_the_application_are_left_alone(tmp_path: Path) -> None:
    source = """
import subprocess
for extra in ({}, {"preexec_fn": os.setpgrp}, {"start_new_session": True}):
    done = subprocess.run(["/bin/sh", "-c", "sleep 0.3; echo alive"], capture_output=True, **extra)
    assert (done.returncode, done.stdout) == (0, b"alive\\n"), done
"""
    sampled(tmp_path, source)


def test_multiprocessing_children_are_sampled(tmp_path: Path) -> None:
    source = """
import multiprocessing
def work(): burn(0.3)
if __name__ == "__main__":
    for method in ("spawn", "fork"):
        child = multiprocessing.get_context(method).Process(target=work)
        child.start()
        child.join()
        assert child.exitcode == 0
"""
    done = run_program(tmp_path, source)
    assert (done.returncode, done.stderr) == (0, "")
    files = read_spools(tmp_path / "spool")
    assert len(files) == 3
    assert sum(file.seconds("work", "running") > 0.05 for file in files) == 2


def test_the_next_sitecustomize_runs_as_well(tmp_path: Path) -> None:
    site = tmp_path / "site"
    site.mkdir()
    (site / "sitecustomize.py").write_text("import builtins\nbuiltins.CUSTOM = __name__\n")
    path = os.pathsep.join([environment(tmp_path)["PYTHONPATH"], str(site)])
    done = run_program(tmp_path, "print(CUSTOM)\nburn(0.1)\n", PYTHONPATH=path)
    assert (done.returncode, done.stdout, done.stderr) == (0, "sitecustomize\n", "")
    (file,) = read_spools(tmp_path / "spool")
    assert file.of("burn")


def test_an_instrumenting_launcher_may_put_its_own_sitecustomize_first(tmp_path: Path) -> None:
    """As `opentelemetry-instrument` does: its folder before all others, then `execl`."""
    site = tmp_path / "site"
    site.mkdir()
    (site / "sitecustomize.py").write_text("import builtins\nbuiltins.CUSTOM = 'instrumented'\n")
    source = f"""
if len(sys.argv) > 1:
    burn(0.2)
    print(CUSTOM)
else:
    os.environ["PYTHONPATH"] = {str(site)!r} + os.pathsep + os.environ["PYTHONPATH"]
    os.execl(sys.executable, sys.executable, __file__, "again")
"""
    done = run_program(tmp_path, source)
    assert (done.returncode, done.stdout, done.stderr) == (0, "instrumented\n", "")
    assert read_spools(tmp_path / "spool")[-1].of("burn")


@pytest.mark.parametrize(
    ("take", "reason"),
    [
        ("signal.signal(signal.SIGALRM, alarmed); signal.alarm(1)", "SIGALRM"),
        ("signal.setitimer(signal.ITIMER_REAL, 1.0)", "ITIMER_REAL"),
    ],
)
def test_the_application_may_take_the_signal(tmp_path: Path, take: str, reason: str) -> None:
    source = f"""
import signal
got = []
def alarmed(*_): got.append(time.monotonic())
burn(0.2)
began = time.monotonic()
{take}
if "setitimer" in {take!r}:
    signal.signal(signal.SIGALRM, alarmed)
while time.monotonic() < began + 1.4:
    time.sleep(0.05)
assert len(got) == 1 and 0.9 < got[0] - began < 1.4, (got, began)
"""
    file = sampled(tmp_path, source)
    assert reason in file.stats["disabled"]
    assert file.of("burn")


def test_an_owner_who_was_there_before_keeps_the_signal(tmp_path: Path) -> None:
    source = f"""
import signal
signal.signal(signal.SIGALRM, lambda *_: print("mine"))
sys.path.insert(0, {str(ROOT)!r})
from ragprof.sampler import start
assert not start(os.environ["RAGPROF_SPOOL"]).running
os.kill(os.getpid(), signal.SIGALRM)
burn(0.1)
"""
    done = run_program(tmp_path, source, PYTHONPATH="")
    assert (done.returncode, done.stdout, done.stderr) == (0, "mine\n", "")
    (file,) = read_spools(tmp_path / "spool")
    assert file.stats["disabled"] == "SIGALRM has another owner"
    assert not file.samples


def test_exceptions_of_other_signal_handlers_reach_the_application(tmp_path: Path) -> None:
    source = """
import signal
class Stop(Exception): pass
def stop(*_): raise Stop
signal.signal(signal.SIGUSR1, stop)
caught = 0
for _ in range(300):
    try:
        os.kill(os.getpid(), signal.SIGUSR1)
        burn(0.001)
    except Stop:
        caught += 1
assert caught == 300, caught
"""
    assert sampled(tmp_path, source).stats["disabled"] == ""


def test_exit_codes_errors_and_output_stay_the_same(tmp_path: Path) -> None:
    done = run_program(tmp_path, "burn(0.05)\nraise SystemExit(7)\n")
    assert (done.returncode, done.stderr) == (7, "")
    done = run_program(tmp_path, "burn(0.05)\n1 / 0\n")
    assert done.returncode == 1
    assert done.stderr.rstrip().endswith("ZeroDivisionError: division by zero")
    assert "ragprof" not in done.stderr


def test_a_folder_that_cannot_be_written_does_not_matter(tmp_path: Path) -> None:
    (tmp_path / "spool").write_text("a file, not a folder")
    done = run_program(tmp_path, "burn(0.1)\nprint('done')\n")
    assert (done.returncode, done.stdout, done.stderr) == (0, "done\n", "")


def test_a_full_disk_loses_samples_and_says_so(tmp_path: Path) -> None:
    source = """
import resource
burn(0.2)
resource.setrlimit(resource.RLIMIT_FSIZE, (3000, resource.RLIM_INFINITY))
burn(0.5)
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
def after(): burn(0.5)
after()
"""
    file = sampled(tmp_path, source)  # every line of it can be read
    assert file.seconds("after", "running") > 0.2


def test_a_killed_process_leaves_what_it_had(tmp_path: Path) -> None:
    done = run_program(tmp_path, "burn(0.7)\nos.kill(os.getpid(), 9)\n")
    assert done.returncode == -signal.SIGKILL
    (file,) = read_spools(tmp_path / "spool")
    assert file.seconds("burn") > 0.2


def test_stats_tell_rates_and_cost(tmp_path: Path) -> None:
    stats = sampled(tmp_path, "burn(0.6)\n").stats
    assert stats["asked_hz"] == 100
    assert 10 < stats["effective_hz"] <= 110
    assert 0 < stats["cost_seconds"] < 0.3 * stats["elapsed_seconds"]
    assert stats["samples"] > 10
    assert stats["unsampled_threads"] == 0


def test_looks_are_few_while_nothing_goes_on(tmp_path: Path) -> None:
    """An idle loop uses no CPU, so its clock stands still; work is sampled at the rate asked."""
    source = """
async def working():
    for _ in range(50):
        burn(0.01)
        await asyncio.sleep(0.001)
async def main():
    await asyncio.sleep(3)
    await working()
asyncio.run(main())
"""
    file = sampled(tmp_path, "import asyncio" + source, RAGPROF_SAMPLER_BUDGET="0.2")
    assert file.stats["clock"] == "cpu"
    assert file.stats["looks"] < 20 * file.stats["elapsed_seconds"] + 200
    assert file.stats["effective_hz"] > 90
    assert 0.4 < file.seconds("working", "running") < 0.6  # its CPU time, however busy the machine
    assert len([sample for sample in file.of("working") if sample.state == "running"]) > 25


def test_running_samples_weigh_the_cpu_time_of_their_functions(tmp_path: Path) -> None:
    """Also of pieces much shorter than a tick, between waits."""
    source = """
import asyncio
def heavy(): burn(0.003)
def light(): burn(0.001)
async def client():
    for _ in range(60):
        heavy()
        await asyncio.sleep(0.004)
        light()
        await asyncio.sleep(0.003)
async def main():
    await asyncio.gather(*(client() for _ in range(8)))
asyncio.run(main())
"""
    file = sampled(tmp_path, source, RAGPROF_SAMPLER_BUDGET="0.2")
    heavy, light = (file.seconds(name, "running") for name in ("heavy", "light"))
    assert 1.1 < heavy < 1.8
    assert 0.25 < light < 0.8


@pytest.mark.parametrize("take", ["signal(signal.SIGPROF, print)", "setitimer(2, 1000.0)"])
def test_without_the_timer_of_cpu_time_wall_time_ticks(tmp_path: Path, take: str) -> None:
    source = f"""
import signal
burn(0.1)
signal.{take}
def after(): burn(0.3)
def waiting(): time.sleep(0.3)
after()
waiting()
"""
    stats = sampled(tmp_path, source)
    assert stats.stats["clock"] == "wall"
    assert stats.stats["disabled"] == ""
    assert stats.seconds("after", "running") > 0.2
    assert len(stats.of("waiting")) > 0
    assert stats.stats["looks"] > 40


def test_it_loads_without_asyncio_and_without_its_parent_package(tmp_path: Path) -> None:
    source = (
        "assert not any(n == 'ragprof' or n.startswith('ragprof.') for n in sys.modules)\nburn(0.1)"
    )
    assert sampled(tmp_path, source).of("burn")


def test_started_by_import(tmp_path: Path) -> None:
    root = Path(__file__).resolve().parent.parent
    program = f"""
import sys; sys.path.insert(0, {str(root)!r})
from ragprof.sampler import start, stop
import time
sampler = start({str(tmp_path / "mine")!r}, hz=200, budget=0.2)
assert sampler.running and start("elsewhere") is sampler
def working():
    end = time.thread_time() + 0.3
    while time.thread_time() < end: pass
working()
stop()
import signal
assert signal.getsignal(signal.SIGALRM) == signal.SIG_DFL
assert signal.getsignal(signal.SIGPROF) == signal.SIG_DFL
assert signal.getitimer(signal.ITIMER_REAL) == signal.getitimer(signal.ITIMER_PROF) == (0.0, 0.0)
assert not hasattr(signal.signal, "__wrapped__")
"""
    clean = {k: v for k, v in os.environ.items() if not k.startswith("RAGPROF_")}
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60, env=clean)
    (file,) = read_spools(tmp_path / "mine")
    assert file.seconds("working", "running") > 0.2


if importlib.util.find_spec("uvicorn") and importlib.util.find_spec(
    "opentelemetry.instrumentation.auto_instrumentation"
):
    INSTRUMENT = "from opentelemetry.instrumentation.auto_instrumentation import run; run()"

    @pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
    def test_opentelemetry_instrument_and_uvicorn(tmp_path: Path, loop: str) -> None:
        (tmp_path / "served.py").write_text(
            "import time\nfrom opentelemetry import trace\n"
            "tracer = trace.get_tracer('x')\n"
            "def busy():\n"
            "    end = time.thread_time() + 0.1\n"
            "    while time.thread_time() < end: pass\n"
            "async def app(scope, receive, send):\n"
            "    if scope['type'] != 'http': return\n"
            "    with tracer.start_as_current_span('r') as span:\n"
            "        busy()\n"
            "        body = format(span.get_span_context().trace_id, '032x').encode()\n"
            "    await send({'type': 'http.response.start', 'status': 200, 'headers': []})\n"
            "    await send({'type': 'http.response.body', 'body': body})\n"
        )
        exporters = {f"OTEL_{kind}_EXPORTER": "none" for kind in ("TRACES", "METRICS", "LOGS")}
        with (tmp_path / "port").open("w+") as output:
            server = subprocess.Popen(
                [
                    *(sys.executable, "-c", INSTRUMENT),
                    *(sys.executable, "-m", "uvicorn", "served:app", "--port", "0"),
                    *("--loop", loop, "--lifespan", "off"),
                ],
                env=environment(tmp_path / "spool", **exporters),
                cwd=tmp_path,
                stderr=output,
            )
            try:
                url = _address(tmp_path / "port")
                traces = {_get(url) for _ in range(6)}
                time.sleep(0.5)
            finally:
                server.terminate()
                server.wait(20)
        assert len(traces) == 6
        file = read_spools(tmp_path / "spool")[-1]
        labels = {sample.label[0] for sample in file.of("busy")}
        assert len(labels & traces) >= 4
        assert labels <= traces | {""}

    def _address(output: Path) -> str:
        end = time.monotonic() + 40
        while time.monotonic() < end:
            for word in output.read_text().split():
                if word.startswith("http://127.0.0.1:"):
                    return word
            time.sleep(0.1)
        raise AssertionError(output.read_text())

    def _get(url: str) -> str:
        with urllib.request.urlopen(url, timeout=20) as response:
            return str(response.read().decode())
