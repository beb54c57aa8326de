"""Recordings: what is written is read, damage is named, and nothing else is harmed."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given, settings
from recording_rows import QUICK, T0, TRACES, many_spans, plain, recordings, write

import ragprof
from ragprof.journal import Journal
from ragprof.recording import RecordingError
from ragprof.tables import SCHEMAS


@pytest.fixture
def recording(tmp_path: Path) -> ragprof.Recording:
    return write(
        tmp_path / "a.ragprof",
        {
            "spans": [
                {"trace_id": t, "span_id": "01", "service": "rag-api", "start": T0 + n, "name": "n"}
                for n, t in enumerate(TRACES)
            ],
            "logs": [{"time": T0, "body": "<b>hi</b>", "attributes": {"k": "v"}}],
        },
        sources=[{"kind": "<script>"}],
    )


@settings(max_examples=10, deadline=None, phases=QUICK)
@given(tables=recordings)
def test_write_read_write(tables: dict[str, list[dict[str, Any]]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        first = write(Path(folder) / "a.ragprof", tables)
        with Journal(Path(folder) / "b.ragprof") as journal:
            for name in SCHEMAS:
                journal.append(name, first.table(name))
        second = ragprof.open(Path(folder) / "b.ragprof")
        zipped = second.save(Path(folder) / "c.ragprof.zip")
        for name in SCHEMAS:
            assert first.table(name).schema.equals(SCHEMAS[name])
            assert len(tables[name]) == first.table(name).num_rows
            assert plain(first.table(name)) == plain(second.table(name))
            assert plain(first.table(name)) == plain(zipped.table(name))
            for row in tables[name]:
                _assert_holds(first.table(name), row)
        assert zipped.verify() == second.verify() == first.verify() == []


def _assert_holds(table: pa.Table, row: dict[str, Any]) -> None:
    wanted = {
        key: sorted(value.items()) if isinstance(value, dict) and key != "histogram" else value
        for key, value in row.items()
    }
    found = [
        {
            key: sorted(value) if key in ("attributes", "resource", "labels") else value
            for key, value in stored.items()
            if key in row
        }
        for stored in table.cast(_int_times(table.schema)).to_pylist()
    ]
    if wanted.get("exemplars"):
        order = ("time", "value", "trace_id", "span_id")
        wanted["exemplars"] = [{key: e[key] for key in order} for e in wanted["exemplars"]]
    assert repr(wanted) in {repr({key: each[key] for key in wanted}) for each in found}


def _int_times(schema: pa.Schema) -> pa.Schema:
    def integer(type_: pa.DataType) -> pa.DataType:
        if pa.types.is_timestamp(type_):
            return pa.int64()
        if pa.types.is_list(type_) and pa.types.is_struct(type_.value_type):
            return pa.list_(pa.struct([(f.name, integer(f.type)) for f in type_.value_type]))
        return type_

    return pa.schema([(field.name, integer(field.type)) for field in schema])


def test_frames_have_text_dicts_and_utc_times(recording: ragprof.Recording) -> None:
    frame = recording.to_pandas("spans", ["service", "start", "attributes"])
    assert list(frame.columns) == ["service", "start", "attributes"]
    assert frame.service.tolist() == ["rag-api"] * 5
    assert str(frame.start.dtype) == "datetime64[ns, UTC]"
    assert frame.start[1].value == T0 + 1
    assert recording.to_pandas("logs").attributes[0] == {"k": "v"}
    assert recording.window == (
        pd.Timestamp(T0, tz="UTC"),
        pd.Timestamp(T0 + 4, tz="UTC"),
    )


def test_one_row_and_none(tmp_path: Path) -> None:
    one = write(tmp_path / "one.ragprof", {"changes": [{"time": T0, "kind": "mark"}]})
    assert one.to_pandas("changes").end.isna().tolist() == [True]
    assert one.window[0] == one.window[1] == pd.Timestamp(T0, tz="UTC")
    empty = write(tmp_path / "empty.ragprof", {})
    for name in SCHEMAS:
        assert empty.table(name).num_rows == len(empty.to_pandas(name)) == 0
        assert list(empty.to_pandas(name).columns) == SCHEMAS[name].names
    assert empty.sql("select count(*) n from spans").n[0] == 0
    assert empty.slice(since=T0).redact().table("spans").num_rows == 0
    merged = ragprof.merge([empty, one], tmp_path / "both.ragprof")
    assert merged.table("changes").num_rows == 1
    assert "recording" in empty.describe()


def test_html_is_escaped(recording: ragprof.Recording) -> None:
    html = recording._repr_html_()
    assert "<script>" not in html
    assert "&lt;script&gt;" in html
    assert "rag" in repr(recording)


def test_unknown_tables_and_columns(recording: ragprof.Recording) -> None:
    with pytest.raises(RecordingError, match="no table 'span'"):
        recording.table("span")
    with pytest.raises(RecordingError, match="no column 'nam'"):
        recording.table("spans", ["nam"])


def test_saving_never_overwrites(recording: ragprof.Recording, tmp_path: Path) -> None:
    saved = recording.save(tmp_path / "deep" / "b.ragprof")
    assert saved.verify() == []
    assert plain(saved.table("spans")) == plain(recording.table("spans"))
    for path in (saved.path, recording.path):
        with pytest.raises(RecordingError, match="exists"):
            recording.save(path)
    assert [file.name for file in (tmp_path / "deep").iterdir()] == ["b.ragprof"]


def test_a_save_that_fails_leaves_nothing(
    recording: ragprof.Recording, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    for name in ("b.ragprof", "b.ragprof.zip"):
        with monkeypatch.context() as patch:
            patch.setattr("ragprof.recording.sync_file", full)
            with pytest.raises(RecordingError, match="no space left"):
                recording.save(tmp_path / "out" / name)
    assert list((tmp_path / "out").iterdir()) == []


def damage_flip(file: Path) -> None:
    data = bytearray(file.read_bytes())
    middle = data.index(b"\x28\xb5\x2f\xfd") + 9  # within the first zstd frame
    data[middle] ^= 0xFF
    file.write_bytes(data)


def damage_cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-50])


def damage_zeros(file: Path) -> None:
    file.write_bytes(bytes(file.stat().st_size))


@pytest.mark.parametrize("damage", [damage_flip, damage_cut, damage_zeros, Path.unlink])
def test_a_damaged_table_leaves_the_others_readable(
    recording: ragprof.Recording, tmp_path: Path, damage: Any
) -> None:
    damage(recording.path / "spans.parquet")
    opened = ragprof.open(recording.path)
    assert opened.to_pandas("logs").body.tolist() == ["<b>hi</b>"]
    assert opened.sql("select body from logs").body.tolist() == ["<b>hi</b>"]
    with pytest.raises(RecordingError, match=r"'spans' is (damaged|missing).*readable: logs,"):
        opened.table("spans")
    with pytest.raises(RecordingError, match="'spans'"):
        opened.slice(since=T0)
    (problem,) = opened.verify()
    assert "spans" in problem
    if damage is not damage_flip and damage is not damage_zeros:  # seen without reading
        assert "spans" in opened.describe().split("bytes", 1)[1].splitlines()[1]
        with pytest.raises(RecordingError, match="'spans'"):
            opened.save(tmp_path / "b.ragprof")


def edit(recording: ragprof.Recording, **fields: Any) -> None:
    file = recording.path / "manifest.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **fields}))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"version": 2}, "format version 2.*upgrade ragprof"),
        ({"version": "1"}, "damaged"),
        ({"format": "other"}, "not a recording"),
        ({"tables": []}, "damaged.*'tables'"),
        ({"tables": {"spans": {"file": "../../etc/passwd", "rows": 1, "bytes": 1}}}, "damaged"),
        ({"tables": {"spans": {"file": "spans.parquet", "rows": "1", "bytes": 1}}}, "damaged"),
        ({"window": None}, "damaged.*'window'"),
        ({"window": ["2026-01-01T00:00:00", "2026-01-01T00:00:00"]}, "damaged.*'window'"),
        ({"refused": 3}, "damaged.*'refused'"),
        ({"state": 7}, "damaged.*'state'"),
    ],
)
def test_a_manifest_that_is_wrong(
    recording: ragprof.Recording, fields: dict[str, Any], message: str
) -> None:
    edit(recording, **fields)
    with pytest.raises(RecordingError, match=message) as caught:
        ragprof.open(recording.path)
    assert "spans.parquet (5 rows)" in str(caught.value)


@pytest.mark.parametrize("text", [b"", b"{", b"\xff\xfe", b"[" * 100_000, b"[]", b"null"])
def test_a_manifest_that_is_damaged_or_missing(recording: ragprof.Recording, text: bytes) -> None:
    (recording.path / "manifest.json").write_bytes(text)
    with pytest.raises(RecordingError, match=r"manifest.json.*readable.*spans.parquet \(5 rows\)"):
        ragprof.open(recording.path)
    (recording.path / "manifest.json").unlink()
    with pytest.raises(RecordingError, match=r"not a recording.*spans.parquet \(5 rows\)"):
        ragprof.open(recording.path)


def test_what_is_not_a_recording(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("hello")
    (tmp_path / "empty").mkdir()
    with pytest.raises(RecordingError, match="does not exist"):
        ragprof.open(tmp_path / "nothing")
    with pytest.raises(RecordingError, match="not a readable zip"):
        ragprof.open(tmp_path / "text")
    with pytest.raises(RecordingError, match="not a recording"):
        ragprof.open(tmp_path / "empty")


def test_a_zip_is_read_in_place(recording: ragprof.Recording, tmp_path: Path) -> None:
    zipped = recording.save(tmp_path / "b.ragprof.zip")
    assert zipped.verify() == []
    assert plain(zipped.table("spans")) == plain(recording.table("spans"))
    assert zipped.sql("select count(*) n from spans").n[0] == 5
    with zipfile.ZipFile(zipped.path) as archive:
        assert archive.testzip() is None
        assert "b.ragprof/manifest.json" in archive.namelist()
        archive.extractall(tmp_path / "unpacked")
    assert ragprof.open(tmp_path / "unpacked" / "b.ragprof").verify() == []
    assert plain(zipped.save(tmp_path / "c.ragprof").table("logs")) == plain(
        recording.table("logs")
    )


@pytest.mark.parametrize("top", ["", "a.ragprof/"])
def test_a_zip_of_other_make(recording: ragprof.Recording, tmp_path: Path, top: str) -> None:
    path = tmp_path / "other.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in recording.path.iterdir():
            archive.write(file, top + file.name)
    opened = ragprof.open(path)
    assert opened.verify() == []
    assert plain(opened.table("spans")) == plain(recording.table("spans"))


def test_a_zip_of_what_a_killed_recorder_left(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "a.ragprof")
    journal.append("logs", [{"time": T0, "body": "x"}])
    journal.flush()
    shutil.make_archive(str(tmp_path / "a.ragprof"), "zip", tmp_path, "a.ragprof")
    journal.close()
    opened = ragprof.open(tmp_path / "a.ragprof.zip")
    assert opened.table("logs").num_rows == 1


@pytest.mark.parametrize(
    "name",
    ["../evil", "/etc/evil", "a/../../evil", "..\\evil", "C:evil", "a.ragprof/../../evil"],
)
def test_a_zip_with_hostile_paths(recording: ragprof.Recording, tmp_path: Path, name: str) -> None:
    zipped = recording.save(tmp_path / "b.ragprof.zip").path
    with zipfile.ZipFile(zipped, "a") as archive:
        archive.writestr(name, "x")
    with pytest.raises(RecordingError, match="outside of the recording"):
        ragprof.open(zipped)


def test_a_zip_with_a_link_or_two_of_a_name(recording: ragprof.Recording, tmp_path: Path) -> None:
    link = zipfile.ZipInfo("b.ragprof/journal/logs.arrows")
    link.external_attr = 0o120777 << 16
    zipped = recording.save(tmp_path / "b.ragprof.zip").path
    with zipfile.ZipFile(zipped, "a") as archive:
        archive.writestr(link, "/etc/passwd")
    with pytest.raises(RecordingError, match="outside of the recording"):
        ragprof.open(zipped)
    twice = recording.save(tmp_path / "c.ragprof.zip").path
    with zipfile.ZipFile(twice, "a") as archive, pytest.warns(UserWarning, match="Duplicate"):
        archive.writestr("c.ragprof/manifest.json", "{}")
    with pytest.raises(RecordingError, match="two members"):
        ragprof.open(twice)


def test_a_zip_that_would_not_fit(tmp_path: Path, recording: ragprof.Recording) -> None:
    path = tmp_path / "bomb.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.write(recording.path / "manifest.json", "manifest.json")
        archive.writestr("spans.parquet", bytes(30_000_000))
    with pytest.raises(RecordingError, match="would unpack to 30,000,000 bytes"):
        ragprof.open(path)
    huge = tmp_path / "manifest.zip"
    with zipfile.ZipFile(huge, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("manifest.json", bytes(70_000_000))
    with pytest.raises(RecordingError, match="too large"):
        ragprof.open(huge)


def test_a_zip_that_is_cut_or_scrambled(recording: ragprof.Recording, tmp_path: Path) -> None:
    zipped = recording.save(tmp_path / "b.ragprof.zip").path
    whole = zipped.read_bytes()
    for n, data in enumerate((whole[:-30], whole[: len(whole) // 2], b"PK\x03\x04" + bytes(99))):
        cut = tmp_path / f"cut{n}.zip"
        cut.write_bytes(data)
        with pytest.raises(RecordingError, match="not a readable zip"):
            ragprof.open(cut)
    flipped = bytearray(whole)
    flipped[whole.index(b"PAR1") + 60] ^= 0xFF
    (tmp_path / "flip.zip").write_bytes(flipped)
    assert len(ragprof.open(tmp_path / "flip.zip").verify()) == 1
    nothing = tmp_path / "nothing.zip"
    with zipfile.ZipFile(nothing, "w") as archive:
        archive.writestr("a.txt", "x")
    with pytest.raises(RecordingError, match=r"no manifest\.json"):
        ragprof.open(nothing)


def test_what_was_temporary_goes_with_the_recording(
    recording: ragprof.Recording, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "scratch").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "scratch"))
    part = recording.slice(since=T0)
    assert len(list((tmp_path / "scratch").iterdir())) == 1
    del part
    assert list((tmp_path / "scratch").iterdir()) == []
    with pytest.raises(RecordingError):
        ragprof.open(__file__)
    assert list((tmp_path / "scratch").iterdir()) == []


OPEN = """
import resource, sys, time
import ragprof
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
import ragprof.recording
loaded = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
recording = ragprof.open(sys.argv[1])
recording.describe(), recording.window, recording.dataset("spans").count_rows()
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - loaded)
"""


def test_opening_does_not_load(tmp_path: Path) -> None:
    with Journal(tmp_path / "a.ragprof") as journal:
        for n in range(2):
            journal.append("spans", many_spans(250_000, start=T0 + n * 250_000_000))
    done = subprocess.run(
        [sys.executable, "-c", OPEN, str(tmp_path / "a.ragprof")], capture_output=True, text=True
    )
    assert int(done.stdout) < 20_000, done.stderr  # KiB; the spans are 75 MB in memory
