"""Watch without the real servers: payloads, limits, the loopback pages."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
import time
from pathlib import Path
from typing import Any

import httpx
import pytest
from backends import servers
from catalogue_pages import BEGAN, record, requests
from hypothesis import given
from hypothesis import strategies as st

from ragprof import recording as recordings
from ragprof.cli import main
from ragprof.errors import RagprofError
from ragprof.monitoring import payload
from ragprof.monitoring.payload import Alert
from ragprof.reports import alert as alerts
from ragprof.reports.watch import MOST_WAITING, Limits, Watch, WatchError
from ragprof.reports.watch_server import serving


def webhook(**labels: str) -> dict[str, Any]:
    """As Alertmanager 0.25 sends it."""
    return {
        "version": "4",
        "groupKey": "{}:{}",
        "status": "firing",
        "receiver": "watch",
        "alerts": [
            {
                "status": "firing",
                "labels": {"alertname": "HighLatency", **labels},
                "annotations": {"summary": "Slow"},
                "startsAt": "2026-11-24T10:00:00.123456789Z",
                "endsAt": "0001-01-01T00:00:00Z",
                "generatorURL": "http://prometheus",
                "fingerprint": "a" * 16,
            }
        ],
    }


def test_payloads_of_the_webhook_and_of_the_api() -> None:
    [one] = payload.read(json.dumps(webhook(endpoint="/x")).encode())
    assert (one.name, one.firing, one.labels["endpoint"]) == ("HighLatency", True, "/x")
    assert one.starts == pytest.approx(1_795_514_400.123456789)
    again = payload.read(json.dumps({"alerts": [one.to_dict()]}).encode())
    assert again[0].labels == one.labels
    assert again[0].starts == pytest.approx(one.starts, abs=0.001)
    api = [
        {
            "labels": {"alertname": "A"},
            "startsAt": "2026-11-24T10:00:00+01:00",
            "endsAt": "2026-11-24T10:05:00Z",
            "status": {"state": "active"},
        }
    ]
    assert payload.read(json.dumps(api).encode())[0].firing
    over = webhook()["alerts"][0] | {"status": "resolved", "endsAt": "2026-11-24T10:05:00Z"}
    assert payload.read(json.dumps(over).encode())[0].ends == pytest.approx(1_795_514_700)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (b"{", "not JSON"),
        (b"{}", "'alerts'"),
        (b'{"alerts": [3]}', "no object"),
        (b'{"alerts": [{"labels": {}}]}', "'alertname'"),
        (b'{"alerts": [{"labels": {"alertname": 3}}]}', "object of texts"),
        (b'{"alerts": [{"labels": {"alertname": "A"}}]}', "'startsAt'"),
        (b'{"alerts": [{"labels": {"alertname": "A"}, "startsAt": "9999-99-99"}]}', "'startsAt'"),
        (b" " * (payload.LARGEST + 1), "larger"),
        (json.dumps([{}] * 1001).encode(), "more than"),
        (b"[" * 100_000, "not JSON"),
    ],
)
def test_a_bad_payload_is_refused_by_field(change: bytes, said: str) -> None:
    with pytest.raises(payload.PayloadError, match=said):
        payload.read(change)


@given(
    st.recursive(
        st.none() | st.text() | st.integers() | st.floats(),
        lambda inner: (
            st.lists(inner)
            | st.dictionaries(st.sampled_from(["alerts", "labels", "startsAt", "status"]), inner)
        ),
        max_leaves=12,
    )
)
def test_any_json_is_read_or_refused(content: Any) -> None:
    with contextlib.suppress(RagprofError):
        assert payload.read(json.dumps(content).encode())


def alert(name: str = "HighLatency", at: float = BEGAN + 5.0, **labels: str) -> Alert:
    return Alert(name, {"alertname": name, **labels}, at)


def test_the_same_alert_is_not_taken_again_too_soon_and_the_queue_is_bounded(
    tmp_path: Path,
) -> None:
    watch = Watch(tmp_path / "rec", tmp_path / "out", Limits(again=1000))
    assert watch.take([alert()]) == {"queued": 1}
    assert watch.take([alert(), alert(endpoint="/x")]) == {"again too soon": 1, "queued": 1}
    assert watch.take([Alert("Other", {}, 0.0, ends=1.0)]) == {"resolved": 1}
    many = [alert(endpoint=str(number)) for number in range(MOST_WAITING + 5)]
    assert watch.take(many) == {"queued": MOST_WAITING - 2, "too many waiting": 7}
    assert len(watch.status()["waiting"]) == MOST_WAITING
    short = Watch(tmp_path / "rec", tmp_path / "out", Limits(again=0.0))
    assert short.take([alert()]) == short.take([alert()]) == {"queued": 1}


def test_a_failing_investigation_says_why_and_old_folders_go(tmp_path: Path) -> None:
    watch = Watch(tmp_path / "none.ragprof", tmp_path / "out", Limits(keep=3, megabytes=1.0))
    names = [f"2026010{day}T100000Z-HighLatency" for day in range(1, 6)]
    for name in names:
        (tmp_path / "out" / name).mkdir()
    (tmp_path / "out" / names[3] / "large").write_bytes(b"x" * 2_000_000)
    (tmp_path / "out" / "mine").mkdir()
    folder = watch.investigate(alert())
    # Two more than fit in number, and the large one in size; what is not ours stays.
    left = {path.name for path in (tmp_path / "out").iterdir()}
    assert left == {names[4], folder.name, "mine"}
    answer = json.loads((folder / "watch.json").read_text())
    assert answer["state"] == "failed"
    assert "none.ragprof does not exist" in answer["summary"]


def test_an_investigation_that_runs_too_long_is_ended(tmp_path: Path) -> None:
    watch = Watch(tmp_path / "none.ragprof", tmp_path / "out", Limits(timeout=0.05))
    folder = watch.investigate(alert())
    answer = json.loads((folder / "watch.json").read_text())
    assert answer["state"] == "timeout"
    assert "longer than 0.05 s" in answer["summary"]


def test_webhooks_and_pages_on_loopback(tmp_path: Path) -> None:
    watch = Watch(tmp_path / "none.ragprof", tmp_path / "out")
    with serving(watch, 0) as url, httpx.Client(base_url=url, trust_env=False) as client:
        assert client.post("/alerts", json=webhook(x="<b>")).json() == {"queued": 1}
        assert client.post("/alerts", json=webhook(x="<b>")).json() == {"again too soon": 1}
        refused = client.post("/alerts", content=b"{")
        assert refused.status_code == 400
        assert "not JSON" in refused.json()["error"]
        assert client.post("/alerts", content=b"x" * (payload.LARGEST + 1)).status_code == 413
        assert client.get("/", headers={"Host": "evil.example"}).status_code == 403
        thread = threading.Thread(target=watch.run)
        thread.start()
        assert servers.wait(lambda: bool(watch.status()["reports"]) and not watch.running, 60)
        assert servers.wait(lambda: watch.status()["reports"][0]["state"] == "failed", 60)
        watch.stop()
        thread.join(30)
        assert not thread.is_alive()
        page = client.get("/")
        assert "default-src" in page.text
        assert "failed" in page.text
        name = watch.folders()[0].name
        assert client.get(f"/reports/{name}/alert.json").json()["alerts"][0]["labels"]["x"] == "<b>"
        for path in (
            f"/reports/{name}/watch.log",
            f"/reports/{name}/report.html",
            "/reports/..%2F..%2Fetc/passwd",
            "/reports/../watch.json",
        ):
            assert client.get(path).status_code == 404
        command = client.get("/command", params={"trace_id": "ab" * 16}).text
        assert f"--slow {'ab' * 16}" in command
        asked = {"alert": "A'; rm -rf /", "to": "1700000000000", "endpoint": "/<script>"}
        command = client.get("/command", params=asked).text
        assert "@2023-11-14T22:13:20Z" in command
        assert "rm -rf" not in command
        assert "<script>" not in command
        assert "neither" in client.get("/command", params={"trace_id": "x"}).text


def test_a_port_that_is_taken_and_a_folder_that_cannot_be(tmp_path: Path) -> None:
    watch = Watch(tmp_path / "rec", tmp_path / "out")
    with (
        socket.create_server(("127.0.0.1", 0)) as taken,
        pytest.raises(WatchError, match="another --port"),
        serving(watch, taken.getsockname()[1]),
    ):
        pass
    (tmp_path / "file").write_text("")
    with pytest.raises(WatchError, match="another --out"):
        Watch(tmp_path / "rec", tmp_path / "file")


def test_the_recording_around_an_alert(tmp_path: Path) -> None:
    folder = record(tmp_path / "long.ragprof", [(at, requests(at, 0)) for at in range(0, 9000, 60)])
    opened = alerts.recording_of(folder, alert(at=BEGAN + 6000.0), tmp_path)
    begin, end = (edge.value / 1e9 - BEGAN for edge in opened.window)
    assert begin == pytest.approx(6000 - alerts.BEFORE)
    assert end == pytest.approx(8940, abs=61)
    over = Alert("A", {"alertname": "A"}, BEGAN + 6000.0, BEGAN + 6100.0)
    (tmp_path / "x").mkdir()
    opened = alerts.recording_of(folder, over, tmp_path / "x")
    assert opened.window[1].value / 1e9 - BEGAN == pytest.approx(6100 + alerts.AFTER)
    with pytest.raises(RagprofError, match="name another recording"):
        alerts.recording_of(folder, alert(at=BEGAN + 1e6), tmp_path)
    assert alerts.operation_of(recordings.open(folder), alert()) is None


def test_the_command_of_the_annotation(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert alerts.read("HighLatency@2023-11-14T22:13:20Z").starts == BEGAN
    (tmp_path / "payload.json").write_text(json.dumps(webhook(endpoint="/x")))
    assert alerts.read(str(tmp_path / "payload.json")).labels["endpoint"] == "/x"
    for words, said in (
        (["--alert", "HighLatency"], "NAME@TIME"),
        (["--alert", "HighLatency@soon"], "is not a time"),
        (["--alert", "A@2023-11-14T22:13:20Z", "--label", "x"], "KEY=VALUE"),
        (["--alert", "A@2023-11-14T22:13:20Z"], "does not exist"),
    ):
        assert main(["investigate", str(tmp_path / "none"), *words]) == 1
        assert said in capsys.readouterr().err
    assert main(["watch", str(tmp_path / "none")]) == 1
    assert "does not exist" in capsys.readouterr().err
    assert time.time() > BEGAN
