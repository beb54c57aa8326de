"""The demo's API with continuous profiling that keeps what every request did."""

from __future__ import annotations

import os
from pathlib import Path

from ragprof.demo.app import create_app as create_demo
from ragprof.service.profiling import setup_profiling


def create_app():
    app = create_demo()
    setup_profiling(
        app,
        slow=0.001,
        folder=Path(os.environ["KEPT_FOLDER"]),
        kept_per_minute=100_000,
    )
    return app
