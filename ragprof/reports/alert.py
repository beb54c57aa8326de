"""From an alert to what is investigated: the data, the window, the operation."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from ragprof import recording as recordings
from ragprof.errors import RagprofError
from ragprof.manifest import MANIFEST
from ragprof.monitoring import payload
from ragprof.monitoring.payload import Alert
from ragprof.sources.source import SourceError

if TYPE_CHECKING:
    from ragprof.recording import Recording

BEFORE = 1800.0
"""Seconds before the alert that are looked at: its windows reach back, and the baseline too."""
AFTER = 60.0  # seconds after its end


class AlertError(RagprofError):
    """An alert for which there is nothing to investigate."""


def read(text: str, labels: Mapping[str, str] | None = None) -> Alert:
    """An alert from a payload file, or from ``NAME@TIME``. Of several, the first that fires.

    Raises PayloadError.
    """
    path = Path(text)
    if not path.is_file():
        return payload.named(text, labels or {})
    with path.open("rb") as file:
        alerts = payload.read(file.read(payload.LARGEST + 1), str(path))
    return next((alert for alert in alerts if alert.firing), alerts[0])


def recording_of(subject: Path, alert: Alert, out: Path) -> Recording:
    """The Recording around an alert: of a Recording (also one being written), or captured anew.

    A configuration (``.toml``) is captured into `out`. Raises AlertError when the alert lies
    outside of the data.
    """
    end = time.time() if alert.ends is None else alert.ends + AFTER
    end = max(end, alert.starts + AFTER)
    since, until = _time(alert.starts - BEFORE), _time(end)
    if subject.suffix == ".toml":
        return _captured(subject, since, until, out)
    opened = recordings.open(subject)
    first, last = opened.window
    if until <= first or since >= last:
        raise AlertError(
            f"{subject} holds {first:%Y-%m-%d %H:%M:%S} to {last:%Y-%m-%d %H:%M:%S} UTC, and alert "
            f"{alert.name} began {_time(alert.starts):%Y-%m-%d %H:%M:%S}; name another recording"
        )
    if first >= since and last <= until and not _being_written(subject):
        return opened
    return opened.slice(since, until).save(out / "recording.ragprof")


def _being_written(subject: Path) -> bool:
    """Whether a Recording still grows: a report reads it twice, and both must see the same."""
    try:
        content = json.loads((subject / MANIFEST).read_bytes())
        return bool(content["state"] == "recording")
    except (OSError, ValueError, KeyError, TypeError):
        return False


def operation_of(recording: Recording, alert: Alert) -> str | None:
    """The root operation that the alert's `endpoint` label means; None: the investigation chooses.

    The root span is named ``METHOD /route`` or by the route alone. Of several methods the one with
    most requests is taken.
    """
    from ragprof.analysis import populations
    from ragprof.analysis.forest import build

    endpoint = alert.labels.get("endpoint", "")
    if not endpoint:
        return None
    found = populations.operations(build(recording.table("spans")))
    fitting = {
        name: len(roots)
        for name, roots in found.items()
        if name == endpoint or name.partition(" ")[2].partition(" (")[0] == endpoint
    }
    return max(fitting, key=lambda name: fitting[name], default=None)


def _captured(config: Path, since: pd.Timestamp, until: pd.Timestamp, out: Path) -> Recording:
    """What the configured sources hold of that time; without those that fail, if any answers."""
    from ragprof.capturing.live import capture

    folder = out / "recording.ragprof"
    now = pd.Timestamp.now(tz="UTC")
    try:
        return capture(config, start=since, end=min(until, now), out=folder)
    except SourceError:
        if not (folder / MANIFEST).is_file():
            raise
        return recordings.open(folder)  # what came in, its manifest says what is missing


def _time(seconds: float) -> pd.Timestamp:
    return pd.Timestamp(round(seconds * 1e9), unit="ns", tz="UTC")
