"""The demo's two services, with continuous profiling that keeps what every request did."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path

from ragprof.demo import app, reference


def create_api():
    return _keeping(app)


def create_reference():
    return _keeping(reference)


def _keeping(module):
    folder = Path(os.environ["KEPT_FOLDER"]) / module.SERVICE
    options = {"slow": 0.001, "folder": folder, "kept_per_minute": 100_000, "budget": 0.05}
    module.instrument = partial(module.instrument, profiling=options)
    return module.create_app()
