"""States and waits of the sampler, told from CPU clocks and from the primitives."""

from __future__ import annotations

from pathlib import Path

import pytest
from spools import SpoolFile, read_spools, run_program, sampled

pytestmark = pytest.mark.sampler

LOOPS = ["asyncio", "uvloop"]

BLOCKING = """
import socket
lock = threading.Lock()
held = [threading.Lock()]
class Store:
    def __init__(self): self._guard = threading.Lock()
    def guarded(self):
        with self._guard:
            pass
def sleeping(): time.sleep(0.25)
def working(): burn(0.25)
def receiving():
    here, there = socket.socketpair()
    threading.Timer(0.25, there.send, [b"x"]).start()
    here.recv(1)
def locking():
    lock.acquire()
    threading.Timer(0.25, lock.release).start()
    lock.acquire()
def guarding():
    store = Store()
    store._guard.acquire()
    threading.Timer(0.25, store._guard.release).start()
    store.guarded()
def collecting():
    import queue
    q = queue.Queue()
    threading.Timer(0.25, q.put, [1]).start()
    q.get()
async def main():
    for function in (sleeping, working, receiving, locking, guarding, collecting):
        function()
        await asyncio.sleep(0)
run(main())
"""


@pytest.mark.parametrize("loop", LOOPS)
def test_calls_that_block_the_loop_are_told_apart(tmp_path: Path, loop: str) -> None:
    file = sampled(tmp_path, BLOCKING, LOOP=loop)
    for function, wait in [
        ("sleeping", "sleep"),
        ("receiving", "io"),
        ("locking", "lock"),
        ("Store.guarded", "lock"),
        ("collecting", "queue"),
    ]:
        seconds = file.seconds(function, "waiting", wait)
        assert 0.08 < seconds < 2, (function, seconds)
        assert seconds > 0.8 * file.seconds(function), function
    assert file.seconds("working", "running") > 0.8 * file.seconds("working")


def test_a_long_c_call_that_runs_is_running(tmp_path: Path) -> None:
    source = """
import hashlib
def hashing():
    for _ in range(3):
        hashlib.pbkdf2_hmac("sha256", b"x", b"y", 200000)
async def main(): hashing()
run(main())
"""
    for attempt in range(4):  # the host must give the CPU: a wait is told by its absence
        folder = tmp_path / str(attempt)
        folder.mkdir()
        file = sampled(folder, source)
        if file.seconds("hashing", "running") > 0.8 * file.seconds("hashing") > 0.03:
            return
    raise AssertionError([(s.weight, s.state, s.wait) for s in file.of("hashing")])


AWAITING = """
async def on_lock():
    lock = asyncio.Lock()
    await lock.acquire()
    asyncio.get_running_loop().call_later(0.3, lock.release)
    await lock.acquire()
async def on_semaphore():
    semaphore = asyncio.Semaphore(1)
    await semaphore.acquire()
    asyncio.get_running_loop().call_later(0.3, semaphore.release)
    async with semaphore:
        pass
async def on_queue():
    q = asyncio.Queue()
    asyncio.get_running_loop().call_later(0.3, q.put_nowait, 1)
    await q.get()
async def on_sleep(): await asyncio.sleep(0.3)
async def on_executor(): await asyncio.to_thread(time.sleep, 0.3)
async def on_task(): await asyncio.create_task(asyncio.sleep(0.3))
async def on_gather(): await asyncio.gather(asyncio.sleep(0.3), asyncio.sleep(0.2))
async def on_future():
    future = asyncio.get_running_loop().create_future()
    asyncio.get_running_loop().call_later(0.3, future.set_result, 1)
    await future
async def answer(reader, writer):
    await asyncio.sleep(0.3)
    writer.write(b"x")
    await writer.drain()
    writer.close()
async def on_socket():
    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
    await reader.read(1)
    writer.close()
    server.close()
async def numbers():
    await asyncio.sleep(0.3)
    yield 1
async def on_generator():
    async for _ in numbers():
        pass
async def main():
    await asyncio.gather(on_lock(), on_semaphore(), on_queue(), on_sleep(), on_executor(),
                         on_task(), on_gather(), on_future(), on_socket(), on_generator())
run(main())
"""


@pytest.mark.parametrize("loop", LOOPS)
def test_suspended_tasks_say_what_they_wait_on(tmp_path: Path, loop: str) -> None:
    file = sampled(tmp_path, AWAITING, LOOP=loop)
    for function, wait in [
        ("on_lock", "lock"),
        ("on_semaphore", "lock"),
        ("on_queue", "queue"),
        ("on_sleep", "sleep"),
        ("on_executor", "executor"),
        ("on_task", "task"),
        ("on_gather", "task"),
        ("on_future", "future"),
        ("on_socket", "io"),
        ("on_generator", "sleep"),
    ]:
        seconds = file.seconds(function, "awaiting", wait)
        assert seconds > 0.12, (function, seconds, [s.wait for s in file.of(function)])
    numbers = [sample.functions for sample in file.of("numbers")]
    assert all(functions[:2] == ["on_generator", "numbers"] for functions in numbers)
    assert len({sample.task for sample in file.of("on_sleep") if sample.state == "awaiting"}) == 1


@pytest.mark.parametrize("loop", LOOPS)
def test_an_idle_loop_is_no_work(tmp_path: Path, loop: str) -> None:
    source = """
async def main():
    await asyncio.sleep(0.2)   # imports are over
    print(time.time_ns())
    await asyncio.sleep(0.8)
run(main())
"""
    done = run_program(tmp_path, source, LOOP=loop)
    assert (done.returncode, done.stderr) == (0, "")
    (file,) = read_spools(tmp_path / "spool")
    begin = int(done.stdout)
    late = [sample for sample in file.samples if sample.state != "awaiting"]
    assert sum(s.weight for s in late if s.time - s.weight * 1e9 > begin) < 0.1
    assert 0.5 < file.seconds("main", "awaiting", "sleep") < 1.3


def test_weights_add_up_to_the_time_that_passed(tmp_path: Path) -> None:
    file = sampled(tmp_path, "def working(): burn(0.5)\nworking()\n")
    assert 0.45 < file.seconds("working") < 3.0
    assert all(sample.weight > 0 for sample in file.samples)
    running = [s.time for s in file.of("working") if s.state == "running"]
    assert running == sorted(running)


def test_pauses_and_lag_are_points(tmp_path: Path) -> None:
    source = """
import gc
def blocking(): time.sleep(0.2)
async def main():
    await asyncio.sleep(0.3)
    for _ in range(3):
        gc.collect()
        blocking()
        await asyncio.sleep(0.05)
run(main())
"""
    file = sampled(tmp_path, source)
    pauses = [point for point in file.point("python.gc.pause") if point[3] == {"generation": "2"}]
    assert len(pauses) >= 3
    assert all(0 < point[2] < 1 for point in pauses)
    lags = [point[2] for point in file.point("python.event_loop.lag")]
    assert 0.1 < max(lags) < 0.6


def test_two_threads_that_compute_wait_for_the_interpreter(tmp_path: Path) -> None:
    source = """
def working(): burn(0.4)
def rival(): burn(0.6)
async def main():
    thread = threading.Thread(target=rival)
    thread.start()
    working()
    thread.join()
run(main())
"""
    file = sampled(tmp_path, source)
    assert {(s.state, s.wait) for s in file.of("working")} <= {("running", ""), ("waiting", "gil")}
    assert _share(file, "working", "running") > 0.2
    assert len(file.of("rival")) > 3


WAITING_FOR_THREADS = """
import queue
def rival(): burn(0.25)
def joining(thread): thread.join()
def on_event(thread):
    over = threading.Event()
    threading.Thread(target=lambda: (thread.join(), over.set())).start()
    over.wait()
def on_queue(thread):
    q = queue.Queue()
    threading.Thread(target=lambda: (thread.join(), q.put(1))).start()
    q.get()
for function in (joining, on_event, on_queue):
    thread = threading.Thread(target=rival)
    thread.start()
    function(thread)
def outliving(): burn(0.25)
threading.Thread(target=outliving).start()
"""


def test_ticks_come_while_the_main_thread_waits_for_a_lock(tmp_path: Path) -> None:
    file = sampled(tmp_path, WAITING_FOR_THREADS)
    for function, wait in [("joining", "lock"), ("on_event", "lock"), ("on_queue", "queue")]:
        assert file.seconds(function, "waiting", wait) > 0.1, function
    assert file.seconds("rival", "running") > 0.4
    assert len(file.of("rival")) > 6
    assert len(file.of("outliving")) > 2  # after the end of the main program


def test_system_calls_of_others_are_restarted_again(tmp_path: Path) -> None:
    source = """
import ctypes
libc = ctypes.CDLL(None, use_errno=True)
thread = threading.Thread(target=burn, args=(0.1,))
thread.start()
thread.join()
r, w = os.pipe()
threading.Timer(0.3, os.write, (w, b"x")).start()
buffer = ctypes.create_string_buffer(1)
assert libc.read(r, buffer, 1) == 1, ctypes.get_errno()   # EINTR would be -1
"""
    assert sampled(tmp_path, source).stats["disabled"] == ""


def _share(file: SpoolFile, function: str, state: str) -> float:
    return file.seconds(function, state) / file.seconds(function)
