"""A service of threads as its framework's users wire it: Flask and SQLAlchemy under waitress."""

from __future__ import annotations

from pathlib import Path

import pytest
from foreign import measure, services

import ragprof as rp

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(800)]

SEEDS = (1, 11)
"""Another load spoils a recording of half a minute: what is not right at first is tried anew."""


def test_threads_under_flask_are_joined_to_their_spans(tmp_path: Path) -> None:
    mistake = services.SERVICES["orders"].mistakes["one_counter"]
    for seed in SEEDS:
        folder = tmp_path / str(seed)
        folder.mkdir()
        recording = services.record("orders", "one_counter", folder, seed=seed)
        assert rp.open(recording).verify() == []
        found = measure.investigate(recording, folder / "found")
        print(found["summary"], found["findings"][:1])
        if mistake.is_named(found):
            return
    pytest.fail("the lock is named with none of the seeds")
