"""What every engine does, and the errors of sessions."""

from __future__ import annotations

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
