"""What all tests share: which run on every supported Python, and the servers of tests/backends."""

from __future__ import annotations

import pytest
from backends.fixtures import (  # noqa: F401
    alertmanager,
    elasticsearch8,
    elasticsearch9,
    jaeger,
    prometheus,
    rsyslog,
    run_folder,
)
from hypothesis import settings

settings.register_profile("tests", deadline=None)  # the machine may be busy with other work
settings.load_profile("tests")

EVERY_PYTHON = (
    "test_sampler",
    "test_recording",
    "test_journal",
    "test_service",
    "test_profiles",
    "test_profiling",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.name.startswith(EVERY_PYTHON):
            item.add_marker(pytest.mark.every_python)
