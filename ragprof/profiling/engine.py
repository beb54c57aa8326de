"""What every engine does, and the errors of sessions."""

from __future__ import annotations

import threading
from typing import Protocol

from ragprof.errors import RagprofError
from ragprof.profiles.model import Profile


class SessionError(RagprofError):
    """A session that cannot begin or end: says why, and what to do instead."""


class NotEnded(SessionError, AttributeError):
    """A profile was asked for while its session still runs, or before it began."""


class Engine(Protocol):
    """Looks at this process from `start` to `stop`; one session each."""

    def start(self) -> None:
        """Begin. Raises SessionError when it cannot."""

    def stop(self) -> Profile:
        """End, also after a failure, and give what was seen. Raises SessionError."""

    def abandon(self) -> None:
        """End without a result: nobody holds the session any more."""


def same_thread(began: int, engine: str) -> None:
    """Raises SessionError in another thread than the one in which a session began."""
    if threading.get_ident() != began:
        raise SessionError(
            f"a session of {engine} ends in the thread where it began; end it there, or use "
            "engine='sampler', which sees all threads"
        )
