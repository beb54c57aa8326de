"""The investigation as a report: read with text parameters, written into one folder."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from ragprof import recording as recordings
from ragprof.errors import RagprofError
from ragprof.investigation.run import investigate
from ragprof.reports import runner, summary

if TYPE_CHECKING:
    from ragprof.investigation.result import Investigation
    from ragprof.recording import Recording

NOTEBOOK = "investigate_slow_traces"


def read(
    recording: str | Path,
    slow: str = "p95",
    window: str = "",
    baseline: str = "",
    operation: str = "",
    source: str = "",
) -> Investigation:
    """Investigate with parameters as texts, as notebooks and command lines have them.

    `slow` is a percentile, a duration (``300ms``) or trace ids; windows are ``A..B`` in ISO 8601
    with a zone; empty means that the investigation chooses. Raises RagprofError.
    """
    words = re.split(r"[\s,]+", slow.strip())
    return investigate(
        recordings.open(recording),
        slow=words if len(words) > 1 else words[0] or "p95",
        window=window_of(window, "window"),
        baseline=window_of(baseline, "baseline"),
        operation=operation or None,
        source=source or None,
    )


def write(
    subject: Investigation | Recording | str | Path,
    out: Path,
    *,
    progress: runner.Progress | None = None,
    **parameters: Any,
) -> Path:
    """Leave report.ipynb, report.html, findings.json, summary.md, status.json in `out`.

    `subject` is a Recording (or its path), or an Investigation of one, which is then not made
    anew for findings.json. `parameters` are those of the notebook. Returns report.html.
    """
    from ragprof.investigation.result import Investigation

    if isinstance(subject, Investigation):
        found = subject
    else:
        path = subject if isinstance(subject, (str, Path)) else subject.path
        found = read(path, **parameters)
    page = runner.run(
        NOTEBOOK,
        out,
        {"recording": found.recording.path.absolute(), **parameters},
        progress=progress,
    )
    found.write(Path(out))
    (Path(out) / "summary.md").write_text(summary.text(found, page), encoding="utf-8")
    return page


def window_of(text: str, name: str) -> tuple[pd.Timestamp, pd.Timestamp] | None:
    """``A..B`` as two UTC times; None for an empty text. Raises RagprofError."""
    if not text:
        return None
    begin, dots, end = text.partition("..")
    try:
        low, high = pd.Timestamp(begin), pd.Timestamp(end)
    except ValueError:
        low = high = pd.NaT
    if not dots or low is pd.NaT or high is pd.NaT:
        raise RagprofError(
            f"parameter {name!r}: {text!r} is not a window; write two ISO 8601 times as A..B, "
            "such as 2026-01-01T10:00:00Z..2026-01-01T10:05:00Z"
        )
    if low.tzinfo is None or high.tzinfo is None:
        raise RagprofError(f"parameter {name!r}: {text!r} has no time zone; end each time with Z")
    if low >= high:
        raise RagprofError(f"parameter {name!r}: {text!r} ends before it begins; swap the times")
    return low.tz_convert("UTC"), high.tz_convert("UTC")


def command(found: Investigation, **parameters: str) -> str:
    """The command line that makes this report again."""
    words = ["ragprof", "report", NOTEBOOK, "-p", f"recording={found.recording.path}"]
    for name, value in parameters.items():
        if value and (name, value) != ("slow", "p95"):
            words += ["-p", f"{name}={value}"]
    return shlex.join([*words, "--out", "report"])
