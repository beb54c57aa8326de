"""What an observed application imports: metrics, structured logging, tracing, profiling.

Light on purpose: prometheus_client, structlog and OpenTelemetry, nothing else. A service needs
one line::

    app = instrument(app, "rag-api")
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ragprof.service.application import instrument

__all__ = ["instrument"]


def __getattr__(name: str) -> Any:
    if name != "instrument":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return importlib.import_module("ragprof.service.application").instrument
