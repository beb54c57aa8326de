"""The journal: what is on disk and when, after kill -9, with a full disk, from many threads."""

from __future__ import annotations

import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from recording_rows import T0, many_spans, plain

import ragprof
from ragprof import compaction
from ragprof.journal import STREAMS, Journal
from ragprof.recording import RecordingError
from ragprof.tables import SCHEMAS, join_key

ROW = {"time": T0, "body": "hello", "service": "rag-api"}


def logs(first: int, count: int) -> list[dict[str, object]]:
    return [{**ROW, "time": T0 + n, "body": f"line {n}"} for n in range(first, first + count)]


def bodies(recording: ragprof.Recording) -> list[str]:
    return recording.table("logs", ["body"])["body"].to_pylist()


def test_rows_get_their_keys_and_empty_texts(tmp_path: Path) -> None:
    with Journal(tmp_path / "a.ragprof", sources=[{"kind": "test"}]) as journal:
        journal.append("spans", [{"trace_id": "ab", "span_id": "cd", "start": T0, "name": "n"}])
        journal.refuse("too large", 2)
        journal.refuse("too large")
        journal.note(queries=["up"])
    recording = ragprof.open(tmp_path / "a.ragprof")
    (row,) = recording.table("spans").to_pylist()
    assert row["trace_key"] == join_key("ab")
    assert row["span_key"] == join_key("ab", "cd")
    assert row["parent_key"] == 0
    assert (row["service"], row["status_message"], row["events"]) == ("", "", "[]")
    assert row["attributes"] == []
    assert recording.manifest["refused"] == {"too large": 3}
    assert recording.manifest["queries"] == ["up"]
    assert recording.manifest["sources"] == [{"kind": "test"}]


def test_attribute_values_become_text(tmp_path: Path) -> None:
    attributes = {"n": 3, "yes": True, "list": [1, "a"], "text": "t", "none": None}
    with Journal(tmp_path / "a.ragprof") as journal:
        journal.append("logs", [{**ROW, "attributes": attributes}])
    frame = ragprof.open(tmp_path / "a.ragprof").to_pandas("logs")
    assert frame.attributes[0] == {"n": "3", "yes": "true", "list": '[1, "a"]', "text": "t"}


def test_half_a_surrogate_does_not_lose_the_batch(tmp_path: Path) -> None:
    with Journal(tmp_path / "a.ragprof") as journal:
        journal.append(
            "logs", [{**ROW, "body": "bad \ud800", "attributes": {"k\udfff": "v\ud800"}}]
        )
        journal.append("logs", [ROW])
    assert bodies(ragprof.open(tmp_path / "a.ragprof")) == ["bad \\ud800", "hello"]


@pytest.mark.parametrize(
    ("table", "row", "message"),
    [
        ("nothing", ROW, "no table 'nothing'"),
        ("logs", {**ROW, "colour": "red"}, "no column 'colour'"),
        ("logs", {"body": "x"}, "'time' is missing"),
        ("logs", {**ROW, "time": datetime(2026, 1, 1)}, "no time zone"),
        ("logs", {**ROW, "time": "2026-01-01T00:00:00"}, "no time zone"),
        ("logs", {**ROW, "time": "yesterday"}, "not a time"),
        ("logs", {**ROW, "time": True}, "not a time"),
        ("spans", {"start": T0, "duration_ns": "long"}, "duration_ns"),
        ("spans", {"start": T0, "duration_ns": 2**70}, "duration_ns"),
    ],
)
def test_rows_that_do_not_fit(
    tmp_path: Path, table: str, row: dict[str, object], message: str
) -> None:
    with Journal(tmp_path / "a.ragprof") as journal:
        journal.append("logs", [ROW])
        with pytest.raises(RecordingError, match=message):
            journal.append(table, [row])
    assert bodies(ragprof.open(tmp_path / "a.ragprof")) == ["hello"]


def test_naive_times_in_an_arrow_table(tmp_path: Path) -> None:
    naive = pa.table({"time": pa.array([datetime(2026, 1, 1)], pa.timestamp("ns"))})
    with (
        Journal(tmp_path / "a.ragprof") as journal,
        pytest.raises(RecordingError, match="time zone"),
    ):
        journal.append("logs", naive)


def test_aware_times_keep_the_instant(tmp_path: Path) -> None:
    with Journal(tmp_path / "a.ragprof") as journal:
        journal.append("logs", [{"time": datetime(2026, 1, 1, tzinfo=UTC), "body": "a"}])
        journal.append("logs", [{"time": "2026-01-01T02:00:00.000000001+02:00", "body": "b"}])
    times = ragprof.open(tmp_path / "a.ragprof").to_pandas("logs").time
    assert str(times.dtype) == "datetime64[ns, UTC]"
    assert (times[1] - times[0]).value == 1


def test_rows_are_on_disk_within_a_second_while_it_records(tmp_path: Path) -> None:
    with Journal(tmp_path / "a.ragprof") as journal:
        journal.append("logs", logs(0, 10))
        deadline = time.monotonic() + 1
        seen: list[str] = []
        while time.monotonic() < deadline and len(seen) < 10:
            time.sleep(0.1)
            seen = bodies(ragprof.open(tmp_path / "a.ragprof"))  # a look at what runs
        assert len(seen) == 10
        journal.append("logs", logs(10, 1))
    assert len(bodies(ragprof.open(tmp_path / "a.ragprof"))) == 11
    assert not (tmp_path / "a.ragprof" / STREAMS).exists()


WRITER = """
import sys, time
from pathlib import Path
from ragprof.journal import Journal
journal = Journal(Path(sys.argv[1]))
start, n = time.time_ns(), 0
while True:
    rows = [{"time": start + n + i, "body": f"{n + i} " + "x" * 200, "service": f"s{n % 7}"}
            for i in range(50)]
    journal.append("logs", rows)
    n += 50
    print(time.time_ns(), n, flush=True)
    time.sleep(0.002)
"""


def test_kill_9_loses_at_most_the_last_second(tmp_path: Path) -> None:
    path = tmp_path / "a.ragprof"
    writer = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE, text=True
    )
    assert writer.stdout is not None
    writer.stdout.readline()
    time.sleep(1.7)
    killed = time.time_ns()
    writer.send_signal(signal.SIGKILL)
    said = [tuple(map(int, line.split())) for line in writer.stdout if line.count(" ") == 1]
    writer.wait()
    recording = ragprof.open(path)
    numbers = [int(body.split()[0]) for body in bodies(recording)]
    assert numbers == list(range(len(numbers)))  # a prefix, whole
    assert len(numbers) >= max(n for at, n in said if at < killed - 1_000_000_000)
    assert recording.verify() == []
    assert recording.manifest["state"] == "closed"
    assert not (path / STREAMS).exists()
    assert ragprof.open(path).table("logs").equals(recording.table("logs"))


def crashed(folder: Path, batches: int = 5) -> Path:
    """A folder as a killed recorder leaves it, five batches of ten rows."""
    path = folder / "a.ragprof"
    copy = folder / "copy.ragprof"
    with Journal(path) as journal:
        for n in range(batches):
            journal.append("logs", [{**r, "service": f"s{n}"} for r in logs(n * 10, 10)])
            journal.flush()
        shutil.copytree(path, copy)
    return copy


@pytest.fixture(scope="module")
def stream() -> Iterator[bytes]:
    with tempfile.TemporaryDirectory() as folder:
        yield (crashed(Path(folder)) / STREAMS / "logs.arrows").read_bytes()


@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_a_stream_cut_anywhere_gives_whole_batches_and_says_what_was_lost(
    stream: bytes, data: st.DataObject
) -> None:
    cut = data.draw(st.integers(0, len(stream)))
    tail = data.draw(st.sampled_from([b"", b"\0" * 64, b"\xff" * 9, os.urandom(33)]))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "logs.arrows"
        path.write_bytes(stream[:cut] + tail)
        lost = compaction.Tail()
        rows = [
            body
            for batch in compaction.read_stream(path, "logs", lost)
            for body in batch["body"].to_pylist()
        ]
    assert len(rows) % 10 == 0
    assert rows == [f"line {n}" for n in range(len(rows))]
    whole = cut == len(stream)
    assert whole <= (len(rows) == 50)
    assert lost.bytes <= cut + len(tail)
    if tail.strip(b"\0") and whole:  # zeros are the format's own mark of an end
        assert lost.bytes == len(tail)
    if lost.bytes:
        assert lost.reason


def test_what_a_half_written_tail_lost_is_in_the_manifest(tmp_path: Path) -> None:
    path = crashed(tmp_path)
    file = path / STREAMS / "logs.arrows"
    whole = file.read_bytes()
    file.write_bytes(whole[:-100])
    recording = ragprof.open(path)
    assert len(bodies(recording)) == 40
    lost = recording.manifest["lost"]["logs"]
    assert 0 < lost["bytes"] < len(whole)
    assert lost["reason"]
    assert "lost" in recording.describe()


def test_an_interrupted_compaction_starts_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = crashed(tmp_path)

    def cut_off(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(compaction, "finish", cut_off)
        with pytest.raises(KeyboardInterrupt):
            ragprof.open(path)
    assert len(bodies(ragprof.open(path))) == 50


def test_dictionaries_that_grow_and_that_are_replaced(tmp_path: Path) -> None:
    path = tmp_path / "a.ragprof"
    with Journal(path) as journal:
        for n in range(4):
            journal.append("logs", [{**ROW, "service": f"s{n}"}, {**ROW, "service": f"t{n}"}])
            journal.flush()
    services = ragprof.open(path).table("logs")["service"].to_pylist()
    assert services == ["s0", "t0", "s1", "t1", "s2", "t2", "s3", "t3"]


@pytest.mark.parametrize("deltas", [True, False])
def test_a_stream_with_dictionary_deltas_reads_too(tmp_path: Path, deltas: bool) -> None:
    path = tmp_path / "logs.arrows"
    options = pa.ipc.IpcWriteOptions(emit_dictionary_deltas=deltas)
    known: list[str] = []
    with pa.OSFile(str(path), "wb") as sink:
        writer = pa.ipc.new_stream(sink, SCHEMAS["logs"], options=options)
        for n in range(3):
            known.append(f"s{n}")
            rows = compaction.pa.table(
                {
                    **{
                        f.name: pa.nulls(1, f.type)
                        for f in SCHEMAS["logs"]
                        if f.name not in ("service", "time")
                    },
                    "time": pa.array([T0 + n], SCHEMAS["logs"].field("time").type),
                    "service": pa.DictionaryArray.from_arrays(pa.array([n], pa.int32()), known),
                }
            ).select(SCHEMAS["logs"].names)
            writer.write_table(rows.cast(SCHEMAS["logs"]))
        writer.close()
    lost = compaction.Tail()
    sorted_rows = compaction.sort_rows(compaction.read_stream(path, "logs", lost), "logs", tmp_path)
    assert [s for rows in sorted_rows for s in rows["service"].to_pylist()] == ["s0", "s1", "s2"]
    assert not lost.bytes


@settings(max_examples=60, deadline=None)
@given(
    times=st.lists(st.lists(st.integers(0, 20), min_size=1, max_size=9), max_size=12),
    run=st.integers(1, 20),
    block=st.integers(1, 5),
)
def test_sorting_in_runs_is_a_stable_sort(times: list[list[int]], run: int, block: int) -> None:
    number = iter(range(1000))
    batches = [
        pa.table(
            {
                "time": pa.array(batch, SCHEMAS["logs"].field("time").type),
                "body": [str(next(number)) for _ in batch],
            }
        )
        for batch in times
    ]
    wanted = sorted(
        ((row["time"], int(row["body"])) for batch in batches for row in plain(batch)),
    )
    with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryDirectory() as scratch:
        patch.setattr(compaction, "RUN_ROWS", run)
        patch.setattr(compaction, "BLOCK_ROWS", block)
        out = list(compaction.sort_rows(batches, "logs", Path(scratch)))
        assert list(Path(scratch).iterdir()) == []
    assert [(r["time"], int(r["body"])) for batch in out for r in plain(batch)] == wanted


def test_a_dictionary_row_is_kept_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compaction, "RUN_ROWS", 3)
    monkeypatch.setattr(compaction, "BLOCK_ROWS", 2)
    with Journal(tmp_path / "a.ragprof") as journal:
        for _ in range(3):
            rows = [{"series_id": n, "name": f"m{n}"} for n in (3, 1, 2)]
            journal.append("series", rows)
            journal.flush()
    series = ragprof.open(tmp_path / "a.ragprof").table("series")
    assert series["series_id"].to_pylist() == [1, 2, 3]
    assert series["name"].to_pylist() == ["m1", "m2", "m3"]


def test_threads_append_at_once(tmp_path: Path) -> None:
    with Journal(tmp_path / "a.ragprof") as journal:

        def work(first: int) -> None:
            for n in range(20):
                journal.append("logs", logs(first + n * 5, 5))
                journal.refuse("r")

        threads = [threading.Thread(target=work, args=(k * 100,)) for k in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    recording = ragprof.open(tmp_path / "a.ragprof")
    assert bodies(recording) == [f"line {n}" for n in range(800)]
    assert recording.manifest["refused"] == {"r": 160}


def test_two_recorders_do_not_write_the_same_folder(tmp_path: Path) -> None:
    path = tmp_path / "a.ragprof"
    with Journal(path) as journal:
        journal.append("logs", [ROW])
        with pytest.raises(RecordingError, match="another process"):
            Journal(path)
        other = subprocess.run(
            [
                sys.executable,
                "-c",
                "import sys; from pathlib import Path; from ragprof.journal import Journal\n"
                "Journal(Path(sys.argv[1]))",
                str(path),
            ],
            capture_output=True,
            text=True,
        )
        assert other.returncode == 1
        assert "is being recorded by another process" in other.stderr
    with pytest.raises(RecordingError, match="holds a recording already"):
        Journal(path)
    assert bodies(ragprof.open(path)) == ["hello"]


def test_a_closed_journal_takes_nothing(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "a.ragprof")
    journal.close()
    journal.close()
    with pytest.raises(RecordingError, match="is closed"):
        journal.append("logs", [ROW])


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(RecordingError, match="cannot write"):
        Journal(tmp_path / "file" / "a.ragprof")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[tuple[Path, bool]]:
    """A folder with room for about 2 MiB: a tmpfs, or a limit on the size of files."""
    folder = tmp_path / "small"
    folder.mkdir()
    mounted = (
        os.geteuid() == 0
        and not subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(folder)], capture_output=True
        ).returncode
    )
    if mounted:
        yield folder, True
        subprocess.run(["umount", "-l", str(folder)], check=True)
        return
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, limit[1]))
    yield folder, False
    resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    signal.signal(signal.SIGXFSZ, ignored)


def test_a_full_disk_is_said_and_what_was_written_stays(
    small_disk: tuple[Path, bool], tmp_path: Path
) -> None:
    folder, mounted = small_disk
    path = folder / "a.ragprof"
    journal = Journal(path)
    taken: list[int] = []

    def fill() -> None:
        for first in range(0, 500_000, 50):
            rows = logs(first, 50)
            for row in rows:
                row["body"] = f"{row['body']} {os.urandom(100).hex()}"
            journal.append("logs", rows)
            journal.flush()
            taken.append(50)

    with pytest.raises(RecordingError, match="the disk is full"):
        fill()
    with pytest.raises(RecordingError, match="the disk is full"):
        journal.append("logs", [ROW])
    with pytest.raises(RecordingError, match=r"the disk is full|no space"):
        journal.close()
    elsewhere = tmp_path / "elsewhere.ragprof"
    if not mounted:  # no longer limited
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY,) * 2)
    shutil.copytree(path, elsewhere)
    for recording in (ragprof.open(path), ragprof.open(elsewhere)):
        numbers = [int(body.split()[1]) for body in bodies(recording)]
        assert numbers == list(range(len(numbers)))
        assert len(numbers) >= sum(taken)
        assert recording.verify() == []


def test_recording_goes_on_when_there_is_space_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ragprof.journal.FLUSH_SECONDS", 60)
    journal = Journal(tmp_path / "a.ragprof")
    journal.append("logs", logs(0, 10))
    journal.flush()
    stream = journal._streams["logs"]
    real = stream._file

    class Full:
        """Takes half of a write, then no more."""

        def __init__(self) -> None:
            self.written = False

        def write(self, data: bytes) -> int:
            if self.written:
                raise OSError(28, "No space left on device")
            self.written = True
            return real.write(data[: len(data) // 2]) or 0

        def truncate(self, size: int) -> None:
            real.truncate(size)

        def seek(self, position: int) -> None:
            real.seek(position)

    stream._file = Full()  # type: ignore[assignment]
    journal.append("logs", logs(10, 10))
    with pytest.raises(RecordingError, match="the disk is full"):
        journal.flush()
    with pytest.raises(RecordingError, match="the disk is full"):
        journal.append("logs", logs(20, 10))
    stream._file = real
    journal.flush()
    journal.append("logs", logs(20, 10))
    journal.close()
    recording = ragprof.open(tmp_path / "a.ragprof")
    assert bodies(recording) == [f"line {n}" for n in range(30)]
    assert recording.manifest["lost"] == {}


def without_override(work: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run Python as one whom file modes bind: root gives up that capability first."""
    program = f"""
import ctypes, os, sys
if os.geteuid() == 0:
    libc = ctypes.CDLL(None, use_errno=True)
    header = (ctypes.c_uint32 * 2)(0x20080522, 0)
    data = (ctypes.c_uint32 * 6)()
    assert libc.capget(header, data) == 0
    for i in (0, 1):
        data[i] &= ~0b110  # CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH
    assert libc.capset(header, data) == 0
{work}
"""
    return subprocess.run(
        [sys.executable, "-c", program, *arguments], capture_output=True, text=True
    )


def test_a_read_only_folder_opens_and_is_not_recorded_into(tmp_path: Path) -> None:
    path = crashed(tmp_path)
    before = sorted(file.name for file in path.iterdir())
    for folder in (path, path / STREAMS):
        folder.chmod(0o555)
    try:
        done = without_override(
            """
from pathlib import Path
import ragprof
from ragprof.journal import Journal
path = Path(sys.argv[1])
recording = ragprof.open(path)
print(recording.table("logs").num_rows, recording.verify(), recording.path == path)
for attempt in (lambda: Journal(path), lambda: recording.save(path / "b.ragprof")):
    try:
        attempt()
    except ragprof.RecordingError as error:
        print(error)
""",
            str(path),
        )
    finally:
        for folder in (path, path / STREAMS):
            folder.chmod(0o755)
    lines = done.stdout.splitlines()
    assert lines[0] == "50 [] True", done.stderr
    assert "holds a recording already" in lines[1]
    assert "cannot write" in lines[2]
    assert len(lines) == 3
    assert sorted(file.name for file in path.iterdir()) == before
    assert ragprof.open(path).table("logs").num_rows == 50


def test_a_million_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compaction, "RUN_ROWS", 200_000)
    half = many_spans(500_000)
    with Journal(tmp_path / "a.ragprof") as journal:
        for offset in range(0, 500_000, 25_000):
            journal.append("spans", half.slice(475_000 - offset, 25_000))
        journal.append("spans", many_spans(500_000, start=T0 + 500))
    recording = ragprof.open(tmp_path / "a.ragprof")
    frame = recording.sql(
        "select count(*) n, sum(duration_ns)::hugeint d, count(distinct name) names from spans"
    )
    assert frame.n[0] == 1_000_000
    assert int(frame.d[0]) == 2 * 7 * 499_999 * 250_000
    assert frame.names[0] == 4
    starts = recording.table("spans", ["start"])["start"].cast(pa.int64()).to_numpy()
    assert (starts[1:] > starts[:-1]).all()
    assert recording.verify() == []
