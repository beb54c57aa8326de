"""The demo's two services started for real, a foreign fault applied, and the load run on them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from ragprof.cli import main
from ragprof.demo import faults
from ragprof.demo.stage import Stage, open_stage, plain_start, play
from ragprof.errors import RagprofError


@pytest.fixture(scope="module")
def stage() -> Iterator[Stage]:
    with plain_start() as start:
        yield open_stage(start)


def test_an_answer_has_sources_definitions_and_is_cached_the_second_time(stage: Stage) -> None:
    body = {"question": "What should one know about the varroa mite?", "top_k": 3}
    first, second = (
        httpx.post(f"{stage.api}/api/v1/ask", json=body, timeout=30).json() for _ in range(2)
    )
    assert "arroa" in first["answer"]
    assert first["model"] == "extractive"
    assert first["sources"][0]["document"] == "beekeeping"
    assert len(first["sources"]) == 3
    assert first["definitions"]["beekeeping"].startswith("Keeping bees")
    assert (first["cached"], second["cached"]) == (False, True)
    assert second["answer"] == first["answer"]


def test_documents_and_search(stage: Stage) -> None:
    found = httpx.get(f"{stage.api}/api/v1/documents/tides").json()
    assert found["author"] == "Owen Pritchard"
    assert found["chunks"] == 15
    assert httpx.get(f"{stage.api}/api/v1/documents/none").status_code == 404
    body = {"question": "Why is old ice blue?", "strategy": "keyword"}
    results = httpx.post(f"{stage.api}/api/v1/search", json=body).json()["results"]
    assert results[0]["document"] == "glaciers"


def test_metrics_tell_pool_cache_and_loop(stage: Stage) -> None:
    page = httpx.get(f"{stage.api}/metrics").text
    assert 'rag_database_connection_pool_max{pool_name="rag"} 8.0' in page
    assert "rag_event_loop_lag_seconds_count" in page
    assert "/metrics" not in page.replace("# HELP", "")


def test_a_fault_needs_the_token_and_leaves_no_trace_in_the_metrics(stage: Stage) -> None:
    for token in ("t", "wrong"):
        answer = httpx.post(
            f"{stage.api}/admin/fault",
            json={"name": "pool_of_one"},
            headers={"Authorization": f"Bearer {token}"},
        )
        assert answer.status_code == 403
    assert "admin" not in httpx.get(f"{stage.api}/metrics").text


def test_somebodys_own_fault_runs_in_the_service_and_tells_its_truth(
    stage: Stage, tmp_path: Path
) -> None:
    path = tmp_path / "my_fault.py"
    path.write_text(
        "import time\n"
        "def slow_search(service):\n"
        "    search = service.search\n"
        "    def slower(*arguments):\n"
        "        time.sleep(0.6)\n"
        "        return search(*arguments)\n"
        "    service.search = slower\n"
        "    return {'stage': 'retrieve', 'kind': 'io', 'functions': ['my_fault:slower']}\n"
    )
    fault = faults.foreign(f"{path}:slow_search")
    played = play(stage, fault, seed=3, seconds=5, module=(path, "slow_search"))
    assert played.truth["stage"] == "retrieve"
    assert played.truth["functions"] == ["my_fault:slower"]
    assert played.truth["windows"]["healthy"] < played.truth["windows"]["faulty"]
    effect = played.truth["effect"]
    assert effect["healthy_failed"] == effect["faulty_failed"] == 0
    assert effect["faulty_p50_ms"] - effect["healthy_p50_ms"] > 200
    path.write_text("def slow_search(service):\n    raise ValueError('on purpose')\n")
    with pytest.raises(RagprofError, match="on purpose"):
        play(stage, fault, seed=3, seconds=0.5, module=(path, "slow_search"))


def test_faults_are_listed_for_people_and_programs(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["demo", "--list", "--json"]) == 0
    names = [each["name"] for each in json.loads(capsys.readouterr().out)]
    assert names == list(faults.FAULTS)
    assert main(["demo", "--list"]) == 0
    assert "pool_of_one" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["--fault", "gremlins"], "no fault 'gremlins'"),
        (["--fault-module", "nothing.py:f"], "not a file"),
        (["--fault-module", "nothing.py"], "PATH:FUNCTION"),
        (["--seconds", "1"], "between 5 and 1800"),
        (["matrix", "--seeds", "one"], "--seeds"),
        (["evaluate"], "Name the folders"),
    ],
)
def test_wrong_arguments_are_explained(
    capsys: pytest.CaptureFixture[str], arguments: list[str], problem: str
) -> None:
    assert main(["demo", *arguments]) == 1
    assert problem in capsys.readouterr().err
