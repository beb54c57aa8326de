"""What a fault is, and the truth about it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass

from ragprof.demo.service import Service
from ragprof.errors import RagprofError

OPERATION = "POST /api/v1/ask"
SECONDS = 25.0

Beside = Callable[[int], AbstractContextManager[Callable[[], None]]]
"""Something beside the service, which is given the process id of rag-api: entered before the load
begins; what it gives is called when the faulty window starts, and its exit ends everything."""


class FaultError(RagprofError):
    """A fault that cannot be started."""


@dataclass(frozen=True)
class Truth:
    """What an investigation should find; a hit is one of `functions`, `resource` or `resources`.

    `also` are further causes at the same time; then `share` is the part of the added time of each.
    """

    stage: str
    kind: str
    functions: tuple[str, ...] = ()
    resource: str = ""
    service: str = "rag-api"
    operation: str = OPERATION
    resources: tuple[str, ...] = ()
    share: float = 1.0
    also: tuple[Truth, ...] = ()


@dataclass(frozen=True)
class Fault:
    """A fault by name: `apply` changes the service, `load` names the mix of its window.

    No truth: the right answer is that no cause is found. `healthy_load`: the mix before.
    `standing`: applied before the healthy window. `deploy`: text of a deploy that is marked shortly
    before the fault and changes nothing. `seconds`: how long each window must be for it to show.
    """

    name: str
    summary: str
    apply: Callable[[Service], object]
    truth: Truth | None
    load: str = "normal"
    seams: tuple[str, ...] = ()
    healthy_load: str = "normal"
    standing: bool = False
    deploy: str = ""
    beside: Beside | None = None
    seconds: float = SECONDS


def unchanged(service: Service) -> None:
    """No change in the service."""
