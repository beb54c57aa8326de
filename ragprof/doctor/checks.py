"""A check: what was looked at, what was seen, and what to do next."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from typing import Any

from ragprof.errors import RagprofError

OK, WARNING, FAILED, SKIPPED = "ok", "warning", "failed", "not asked"
"""`SKIPPED`: the place to look at was not named on the command line."""


@dataclass(frozen=True)
class Result:
    """The outcome of one check. `next_step` is empty when it is OK."""

    name: str
    state: str
    evidence: str
    next_step: str = ""


@dataclass(frozen=True)
class Places:
    """Where to look; an empty place is not asked for. URLs without a slash at the end.

    `metrics` are addresses of metrics pages; `rules` and `dashboards` files or folders (those of
    the catalogue when empty); `receiver` lets the doctor start a loopback receiver for
    notifications, to which Alertmanager has a route.
    """

    metrics: tuple[str, ...] = ()
    prometheus: str = ""
    alertmanager: str = ""
    elasticsearch: str = ""
    jaeger: str = ""
    log_file: str = ""
    otlp: str = ""
    rules: str = ""
    receiver: int = 0
    sampling: float | None = None
    service: str = "rag-api"
    config: str = ""
    window: float = 3600.0  # seconds


Check = Callable[[Places], "Result | Iterable[Result]"]


def run(checks: Iterable[tuple[str, Check]], places: Places) -> list[Result]:
    """Run checks one after the other; what goes wrong in one is its result."""
    found: list[Result] = []
    for name, check in checks:
        try:
            made = check(places)
            found += [made] if isinstance(made, Result) else list(made)
        except RagprofError as error:
            found.append(Result(name, FAILED, str(error), "follow the sentence beside this"))
    return found


def not_asked(name: str, option: str) -> Result:
    """The result of a check whose place was not named."""
    return Result(name, SKIPPED, f"no {option} was given", f"name it with {option}")


def worst(results: Iterable[Result]) -> str:
    """The worst state; OK without any."""
    states = {each.state for each in results}
    return next((state for state in (FAILED, WARNING, SKIPPED) if state in states), OK)


def to_dict(kind: str, results: list[Result]) -> dict[str, Any]:
    """For JSON."""
    return {
        "checklist": kind,
        "state": worst(results),
        "checks": [asdict(each) for each in results],
    }
