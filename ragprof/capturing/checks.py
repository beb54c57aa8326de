"""Whether the sources of a configuration can be reached, and what can be joined."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor

from ragprof.capturing.config import Config, connect_one, duration
from ragprof.errors import RagprofError
from ragprof.sources.source import FAILED, OK, WARNING, Check, Window


def check_sources(config: Config, window: Window | None = None) -> list[Check]:
    """Checks of all sources, in the order of the configuration, asked at the same time.

    The window is that of the configuration, until now, unless given. A source that cannot be used
    at all is a FAILED check: nothing is raised. The last check says what can be joined.
    """
    now = time.time_ns()
    window = window or Window(now - duration(config.since), now)

    def look(name: str) -> list[Check]:
        try:
            source = connect_one(config, name)
        except RagprofError as error:
            return [Check(name, "configuration", FAILED, str(error), "correct the file")]
        except ModuleNotFoundError as error:
            text = f"{error.name} is not installed"
            return [Check(name, "configuration", FAILED, text, 'pip install "ragprof[lab]"')]
        try:
            return source.check(window)
        except RagprofError as error:
            return [Check(name, "reachable", FAILED, str(error))]
        finally:
            source.close()

    with ThreadPoolExecutor(len(config.sections)) as threads:
        found = [check for checks in threads.map(look, config.sections) for check in checks]
    return [*found, _joins(config, found)]


def _joins(config: Config, found: list[Check]) -> Check:
    """What an investigation can join, from what the sources said."""
    kinds = {section.get("kind", name) for name, section in config.sections.items()}
    good = {check.subject for check in found if check.state == OK}
    ways = []
    if "trace ids in logs" in good:
        ways.append("logs with spans by trace id")
    elif "elasticsearch" in kinds:
        ways.append("logs with spans by service and time")
    if "exemplars" in good:
        ways.append("metrics with spans by exemplar")
    elif "prometheus" in kinds:
        ways.append("metrics with spans by service and time")
    if "stacks" in kinds:
        ways.append("stacks with spans by trace and span id")
    has_spans = bool(kinds & {"jaeger", "tempo", "zipkin", "otlp", "elasticsearch"})
    if not has_spans:
        return Check(
            "capture",
            "joins",
            WARNING,
            "no source of spans",
            "add [sources.jaeger], [sources.tempo] or [sources.elasticsearch]: without spans "
            "there are no requests to investigate",
        )
    return Check("capture", "joins", OK, "; ".join(ways) or "spans alone")
