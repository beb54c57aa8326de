"""`ragprof recording …`: every sub-command, its JSON and its exit codes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from recording_rows import T0, TRACES, write

import ragprof
from ragprof.cli import FAILED, GATE, OK, main


@pytest.fixture
def path(tmp_path: Path) -> str:
    spans = [
        {"trace_id": t, "span_id": "01", "start": T0 + n, "service": f"s{n % 2}", "name": "x"}
        for n, t in enumerate(TRACES)
    ]
    points = [{"series_id": 1, "time": T0, "value": v} for v in (float("nan"), float("-inf"))]
    return str(
        write(
            tmp_path / "a.ragprof",
            {"spans": spans, "metrics": points, "series": [{"series_id": 1, "name": "m"}]},
        ).path
    )


def call(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str]:
    code = main(["recording", *words])
    return code, capsys.readouterr().out


def test_describe_and_verify(path: str, capsys: pytest.CaptureFixture[str]) -> None:
    code, text = call(capsys, "describe", path)
    assert (code, "spans" in text) == (OK, True)
    code, text = call(capsys, "describe", path, "--json")
    assert json.loads(text)["tables"]["spans"]["rows"] == 5
    assert call(capsys, "verify", path)[0] == OK
    file = Path(path) / "spans.parquet"
    file.write_bytes(bytes(file.stat().st_size))
    code, text = call(capsys, "verify", path, "--json")
    assert code == GATE
    assert "spans" in json.loads(text)["problems"][0]


def test_slice_merge_redact_zip(
    path: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for service in ("s0", "s1"):
        out = str(tmp_path / f"{service}.ragprof")
        assert call(capsys, "slice", path, "--service", service, "--out", out)[0] == OK
    parts = [str(tmp_path / f"{service}.ragprof") for service in ("s0", "s1")]
    merged = str(tmp_path / "merged.ragprof")
    code, text = call(capsys, "merge", *parts, "--out", merged, "--json")
    assert json.loads(text)["tables"]["spans"]["rows"] == 5
    redacted = str(tmp_path / "redacted.ragprof.zip")
    key = tmp_path / "key"
    key.write_bytes(b"short")
    words = ("redact", merged, "--out", redacted, "--key-file", str(key))
    assert call(capsys, *words)[0] == FAILED
    key.write_bytes(b"k" * 32)
    assert call(capsys, *words)[0] == OK
    assert TRACES[0] not in ragprof.open(redacted).to_pandas("spans").trace_id.tolist()
    code, text = call(capsys, "zip", path, "--json")
    assert (code, json.loads(text)["path"]) == (OK, f"{path}.zip")
    since = str(ragprof.open(path).window[0].isoformat())
    one = ("slice", path, "--trace", TRACES[1], "--since", since, "--out", f"{path}.one")
    assert call(capsys, *one)[0] == OK
    assert ragprof.open(f"{path}.one").table("spans").num_rows == 1


def test_sql(path: str, capsys: pytest.CaptureFixture[str]) -> None:
    code, text = call(capsys, "sql", path, "select count(*) n from spans")
    assert (code, text.split()) == (OK, ["n", "5"])
    code, text = call(capsys, "sql", path, "--json", "select time, value from metrics")
    assert [row["value"] for row in json.loads(text)] == ["NaN", "-Infinity"]
    assert json.loads(text)[0]["time"].endswith("789+00:00")
    assert call(capsys, "sql", path, "copy spans to '/tmp/never'")[0] == FAILED


def test_what_fails_says_why(path: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["recording", "describe", f"{path}.nothing"]) == FAILED
    assert "does not exist" in capsys.readouterr().err
    assert main(["recording", "slice", path, "--since", "2026-01-01", "--out", "x"]) == FAILED
    assert "no time zone" in capsys.readouterr().err
    with pytest.raises(SystemExit) as ended:
        main(["recording", "slice", path])
    assert ended.value.code == 2


def test_the_columns_in_the_docs_are_current(capsys: pytest.CaptureFixture[str]) -> None:
    docs = (Path(__file__).parents[1] / "docs" / "recording.md").read_text()
    between = docs.split("<!-- columns -->")[1].split("<!-- end of columns -->")[0]
    assert between.strip() == call(capsys, "columns")[1].strip()
    assert len(json.loads(call(capsys, "columns", "--json")[1])) > 60
