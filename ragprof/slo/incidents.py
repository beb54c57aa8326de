"""Labelled incidents, and how well alerts matched them."""

from __future__ import annotations

import statistics
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from ragprof.errors import RagprofError
from ragprof.slo.firing import Episode

LARGEST = 8 << 20  # bytes


class IncidentError(RagprofError):
    """A file of incidents that cannot be read."""


@dataclass(frozen=True)
class Incident:
    """Something that users noticed, in s since 1970. `alert` names the one that should fire."""

    start: float
    end: float
    alert: str = ""
    text: str = ""


@dataclass(frozen=True)
class Score:
    """True and false alarms of one rule, and incidents found and missed.

    `delays` are seconds from the start of each found incident to the first alarm in it.
    """

    true_alarms: int
    false_alarms: int
    found: int
    missed: int
    delays: tuple[float, ...]

    @property
    def precision(self) -> float | None:
        """The share of alarms that met an incident; None without alarms."""
        alarms = self.true_alarms + self.false_alarms
        return self.true_alarms / alarms if alarms else None

    @property
    def recall(self) -> float | None:
        """The share of incidents that had an alarm; None without incidents."""
        incidents = self.found + self.missed
        return self.found / incidents if incidents else None

    def to_dict(self) -> dict[str, Any]:
        return {
            "precision": self.precision,
            "recall": self.recall,
            "true_alarms": self.true_alarms,
            "false_alarms": self.false_alarms,
            "incidents_found": self.found,
            "incidents_missed": self.missed,
            "median_delay_s": statistics.median(self.delays) if self.delays else None,
        }


def score(
    alert: str, fired: Sequence[Episode], incidents: Sequence[Incident], until: float
) -> Score:
    """An alarm is true when it overlaps an incident; an incident without `alert` is everybody's."""
    mine = [each for each in incidents if each.alert in ("", alert)]
    spans = [(each.fired, until if each.ended is None else each.ended) for each in fired]
    alarms = [(begin, end) for begin, end in spans if begin is not None]
    true = sum(any(_overlap(alarm, each) for each in mine) for alarm in alarms)
    delays = []
    for each in mine:
        begins = [begin for begin, end in alarms if _overlap((begin, end), each)]
        if begins:
            delays.append(max(0.0, min(begins) - each.start))
    return Score(true, len(alarms) - true, len(delays), len(mine) - len(delays), tuple(delays))


def read(path: str | Path) -> list[Incident]:
    """Incidents of a TOML file: ``[[incident]]`` with `start`, `end`, and maybe `alert`, `text`.

    Times have a zone. Raises IncidentError that names the file and the field.
    """
    where = Path(path)
    try:
        if where.stat().st_size > LARGEST:
            raise IncidentError(f"{where} is larger than {LARGEST:,} bytes; split it")
        content = tomllib.loads(where.read_text(encoding="utf-8"))
    except OSError as error:
        raise IncidentError(f"{where} cannot be read: {error.strerror}; check the path") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise IncidentError(f"{where} is not TOML: {error}; correct that line") from None
    entries = content.get("incident")
    if not isinstance(entries, list) or not entries:
        raise IncidentError(f"{where} has no [[incident]]; add one with start and end")
    return [_incident(entry, f"{where}: incident {n}") for n, entry in enumerate(entries, 1)]


def _incident(entry: Mapping[str, Any], at: str) -> Incident:
    unknown = set(entry) - {"start", "end", "alert", "text"}
    if unknown:
        raise IncidentError(
            f"{at}: {min(unknown)!r} is no field; there are start, end, alert, text"
        )
    start, end = (_time(entry.get(name), f"{at}: {name!r}") for name in ("start", "end"))
    if end <= start:
        raise IncidentError(f"{at} ends before it starts; swap the times")
    return Incident(start, end, str(entry.get("alert", "")), str(entry.get("text", "")))


def _time(value: Any, at: str) -> float:
    if isinstance(value, str):
        try:
            value = datetime.fromisoformat(value)
        except ValueError:
            value = None
    if not isinstance(value, datetime):
        raise IncidentError(f"{at} is not a time; write it like 2026-01-31T10:00:00Z")
    if value.tzinfo is None:
        raise IncidentError(f"{at} has no time zone; end it with Z")
    return value.timestamp()


def _overlap(alarm: tuple[float, float], incident: Incident) -> bool:
    return alarm[0] < incident.end and alarm[1] > incident.start
