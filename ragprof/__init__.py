"""ragprof: why was it slow? From a latency alarm to the line of Python.

The public names are loaded on first use, so that a service which imports only
``ragprof.service`` never loads Arrow, pandas or Jupyter.
"""

from __future__ import annotations

import importlib
from typing import Any

__version__ = "0.1.0"

# Public name -> module that defines it (see docs/design.md for the layers).
_PUBLIC = {
    "open": "ragprof.recording",
    "merge": "ragprof.recording",
    "Recording": "ragprof.recording",
    "RecordingError": "ragprof.recording",
    "capture": "ragprof.capturing.live",
    "investigate": "ragprof.investigation.run",
    "compare": "ragprof.profiles.compare",
    "read_profile": "ragprof.profiles.read",
    "profile": "ragprof.profiling.session",
    "attach": "ragprof.profiling.attaching",
    "ContinuousProfiler": "ragprof.profiling.continuous",
}
__all__ = sorted([*_PUBLIC, "__version__"])


def __getattr__(name: str) -> Any:
    module = _PUBLIC.get(name)
    if module is None:
        raise AttributeError(f"module 'ragprof' has no attribute {name!r}")
    try:
        value = getattr(importlib.import_module(module), name)
    except ModuleNotFoundError as error:
        if (error.name or "ragprof").startswith("ragprof"):
            raise
        raise ModuleNotFoundError(
            f"ragprof.{name} needs {error.name!r}, which is not installed: "
            'pip install "ragprof[lab]"',
            name=error.name,
        ) from None
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__


def load_ipython_extension(ipython: Any) -> None:
    """`%load_ext ragprof`: the magics `%ragprof` and `%%ragprof`."""
    importlib.import_module("ragprof.profiling.magics").load(ipython)


def unload_ipython_extension(ipython: Any) -> None:
    """`%unload_ext ragprof`."""
    importlib.import_module("ragprof.profiling.magics").unload(ipython)
