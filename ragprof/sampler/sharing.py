"""One sampler for all who want samples of this process: sessions, the ring, a recorder around it.

A process has one interval timer, so a second sampler cannot run; who comes joins the first.
"""

from __future__ import annotations

import sys
import threading
from typing import Any

from . import sampler as _sampling
from .sinks import Sink

# Under its own name, and under the one that `bootstrap/sitecustomize.py` loads it by.
_NAMES = ("_ragprof_sampler.sampler", f"{__package__}.sampler")
_lock = threading.Lock()
_ours: dict[int, Any] = {}  # samplers that `share` has started, to be ended with their last sink


class CannotSample(Exception):
    """No sampler runs here and none can be started; says why."""


def running() -> Any:
    """The `Sampler` that runs in this process, whoever started it, or None."""
    for name in _NAMES:
        found = getattr(sys.modules.get(name), "_sampler", None)
        if found is not None and found.running and hasattr(found, "join"):
            return found
    return None


def share(sink: Sink, hz: float = 100.0, budget: float = 0.01) -> Any:
    """Let `sink` join the sampler of this process, which is started when none runs.

    Returns the Sampler. Raises CannotSample outside the main thread when none runs, and where
    SIGALRM or ITIMER_REAL has another owner.
    """
    with _lock:
        sampler = running()
        if sampler is None:
            sampler = _sampling.start("", hz, budget)
            if not sampler.running:
                raise CannotSample(sampler.disabled)
            _ours.clear()
            _ours[id(sampler)] = sampler
        sampler.join(sink)
        return sampler


def unshare(sampler: Any, sink: Sink) -> bool:
    """Take the sink out; a sampler started by `share` ends with its last sink.

    False when the sampler gave no sign of life, so that the last samples are missing.
    """
    with _lock:
        complete = bool(sampler.leave(sink))
        if id(sampler) in _ours and not sampler.sinks:
            if threading.current_thread() is threading.main_thread():
                sampler.stop()
            else:
                sampler.retire()
        return complete


def flush_soon() -> None:
    """Have what was sampled so far given to the sinks at the next tick."""
    sampler = running()
    if sampler is not None:
        sampler.flush_soon()
