"""A running system, captured and investigated: what the notebook `live_investigation` calls."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from ragprof import recording as recordings
from ragprof.capturing import live
from ragprof.manifest import MANIFEST
from ragprof.recording import Recording
from ragprof.reports import alert as alerts
from ragprof.reports import investigation
from ragprof.sources.source import SourceError

if TYPE_CHECKING:
    from ragprof.investigation.result import Investigation


def captured(
    config: str | Path,
    window: str = "30m",
    alert: str = "",
    labels: Mapping[str, str] | None = None,
    slow: str = "p95",
    out: str | Path = "",
) -> Recording:
    """The window of a running system as a Recording, by the sources of a configuration.

    `window` is a duration until now or ``A..B`` in ISO 8601 with a zone; with an `alert` (a
    payload file of Alertmanager, or ``NAME@TIME`` and its `labels`) it is the time around that.
    Of spans the slow ones and a fair baseline are fetched (`slow`; empty: all). A source that
    fails is left out when another answers: the manifest and the coverage say so. Raises
    RagprofError.
    """
    if alert:
        found = alerts.read(alert, dict(labels or {}))
        folder = Path(out) if out else Path(f"alert-{found.name}-{int(found.starts)}")
        folder.mkdir(parents=True, exist_ok=True)
        return alerts.recording_of(Path(config), found, folder)
    asked: dict[str, str | pd.Timestamp] = {}
    if ".." in window:
        span = investigation.window_of(window, "window")
        assert span is not None
        asked["start"], asked["end"] = span
    elif window:
        asked["since"] = window
    end = asked.get("end", pd.Timestamp.now(tz="UTC"))
    folder = Path(out) if out else Path(f"capture-{end:%Y%m%dT%H%M%SZ}.ragprof")
    try:
        return live.capture(config, slow=slow, out=folder, **asked)  # type: ignore[arg-type]
    except SourceError:
        if not (folder / MANIFEST).is_file():
            raise
        return recordings.open(folder)


def investigated(
    recording: Recording,
    alert: str = "",
    labels: Mapping[str, str] | None = None,
    slow: str = "p95",
    baseline: str = "",
    operation: str = "",
) -> Investigation:
    """Why requests of the Recording were slow; `operation` is that of the alert unless given."""
    if alert and not operation:
        found = alerts.read(alert, dict(labels or {}))
        operation = alerts.operation_of(recording, found) or ""
    return investigation.read(recording.path, slow, "", baseline, operation)
