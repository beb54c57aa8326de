"""The in-process sampler: stacks of a Python service, labelled with trace and span.

Standard library only, and no import outside this folder: a recorder puts `bootstrap/` on the
PYTHONPATH of a process that does not have ragprof, and the folder loads itself by file path.
"""

from __future__ import annotations

from .sampler import Sampler, start, stop

__all__ = ["Sampler", "start", "stop"]
