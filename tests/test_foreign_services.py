"""Services that do not know ragprof, each with a mistake of its own, recorded and investigated."""

from __future__ import annotations

from pathlib import Path

import pytest
from foreign import measure

import ragprof as rp

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(800)]


@pytest.mark.parametrize(
    ("service", "fault"),
    [
        ("bookshop", "reparse"),  # an ordinary FastAPI application
        ("orders", "one_counter"),  # threads: Flask and SQLAlchemy under waitress
    ],
)
def test_a_mistake_of_a_service_is_named(service: str, fault: str, tmp_path: Path) -> None:
    folder = measure.tried(service, fault, tmp_path)
    assert folder is not None
    found = measure.findings(folder / "found")
    assert found["verdict"] == "cause_found"
    assert found["findings"][0]["service"] == service
    assert rp.open(folder / f"{service}.ragprof").verify() == []
