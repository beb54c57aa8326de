"""What all tests share: which of them run on every supported Python."""

from __future__ import annotations

import pytest

EVERY_PYTHON = ("test_sampler", "test_recording", "test_journal", "test_service", "test_profiles")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.name.startswith(EVERY_PYTHON):
            item.add_marker(pytest.mark.every_python)
