"""The profile report: a process, pod, endpoint or file now, against its run before.

The notebook only calls these, so that JupyterLab and the headless report show the same.
"""

from __future__ import annotations

import hashlib
import os
import shlex
import warnings
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ragprof import plots
from ragprof.errors import RagprofError
from ragprof.flamegraph import FlameGraph
from ragprof.flamegraph.source import SourceView
from ragprof.flamegraph.units import share_text, weight_text
from ragprof.plots import Picture, Table
from ragprof.plots.picture import empty
from ragprof.profiles.compare import Comparison, compare
from ragprof.profiles.model import Profile
from ragprof.profiles.read import read_profile
from ragprof.profiles.samples import with_wait_frames
from ragprof.profiles.write import LossWarning
from ragprof.profiling import permissions
from ragprof.profiling.attaching import attach
from ragprof.profiling.endpoint import fetch
from ragprof.reports.kernel import REPORT_FOLDER

KEPT = 10
"""Profiles of one subject that stay in the report's folder."""

LABELS = (
    "stage", "endpoint", "service", "process", "thread_name", "state", "wait", "span_id",
    "trace_id",
)  # fmt: skip


class ProfileReportError(RagprofError):
    """A report about nothing, or about two things at once."""


@dataclass(frozen=True)
class ProfileReport:
    """A profile, the one of the run before if there is one, and what they are of."""

    profile: Profile
    earlier: Profile | None
    earlier_name: str
    subject: str
    command: str
    kept: Path | None
    """Where this run's profile lies for the next run."""


def read(
    pid: int = 0,
    pod: str = "",
    endpoint: str = "",
    file: str = "",
    seconds: float = 10.0,
    earlier: str = "",
) -> ProfileReport:
    """Profile one of the four for `seconds`, and find its profile of the run before.

    That is the newest one of the same subject in ``profiles/`` of the report's folder; a process
    is the same when its command line is, whatever its id. `earlier` is a file instead, or
    ``none``. This run's profile is left there for the next, at most `KEPT` of one subject. Raises
    RagprofError.
    """
    given = {"pid": pid, "pod": pod, "endpoint": endpoint, "file": file}
    chosen = [name for name, value in given.items() if value]
    if len(chosen) != 1:
        raise ProfileReportError(
            f"{'nothing' if not chosen else ' and '.join(chosen)} is given: give one of pid, pod, "
            "endpoint or file"
        )
    subject = _subject(chosen[0], given[chosen[0]])
    profile = _profile(pid, pod, endpoint, file, seconds)
    folder = report_folder() / "profiles"
    before, name = _earlier(folder, subject, earlier)
    if before is not None and before.value_types[0] != profile.value_types[0]:
        before, name = None, f"{name} measures something else"
    words = ["ragprof", "report", "profile_report", "-p", f"{chosen[0]}={given[chosen[0]]}"]
    words += ["-p", f"seconds={seconds:g}", "--out", str(report_folder())]
    return ProfileReport(
        profile, before, name, subject, shlex.join(words), _keep(folder, subject, profile)
    )


def report_folder() -> Path:
    """The folder of the report that runs; in JupyterLab the current one."""
    return Path(os.environ.get(REPORT_FOLDER, "."))


def _subject(kind: str, value: Any) -> str:
    if kind == "pid":
        known = permissions.facts(int(value))
        line = known.command_line
        return f"process {line}" if line else f"process {value}"
    return f"{kind} {Path(value).name if kind == 'file' else value}"


def _profile(pid: int, pod: str, endpoint: str, file: str, seconds: float) -> Profile:
    if file:
        return read_profile(file)
    if endpoint:
        return fetch(endpoint, seconds)
    if pod:
        return attach(pod=pod, seconds=seconds, idle=True, progress=False)
    return attach(pid, seconds=seconds, idle=True, subprocesses=True, progress=False)


def _key(subject: str) -> str:
    return hashlib.blake2s(subject.encode(), digest_size=6).hexdigest()


def _of_subject(folder: Path, subject: str) -> list[Path]:
    """Kept profiles of a subject, the newest last."""
    return sorted(folder.glob(f"*-{_key(subject)}.pb.gz"))


def _earlier(folder: Path, subject: str, earlier: str) -> tuple[Profile | None, str]:
    if earlier.lower() == "none":
        return None, "none is wanted"
    if earlier:
        return read_profile(earlier), Path(earlier).name
    for path in reversed(_of_subject(folder, subject)):
        try:
            at = datetime.strptime(path.name.partition("-")[0], "%Y%m%dT%H%M%S%f")
            return read_profile(path), f"the run of {at:%Y-%m-%d %H:%M:%S} UTC"
        except (RagprofError, ValueError):
            continue  # damaged: the one before it
    return None, "there is none yet"


def _keep(folder: Path, subject: str, profile: Profile) -> Path | None:
    """Leave the profile for the next run; None where the folder cannot be written."""
    name = f"{datetime.now(UTC):%Y%m%dT%H%M%S%f}-{_key(subject)}.pb.gz"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with warnings.catch_warnings():  # what pprof cannot carry is not compared
            warnings.simplefilter("ignore", LossWarning)
            kept = profile.write(folder / name)
        for path in _of_subject(folder, subject)[:-KEPT]:
            path.unlink(missing_ok=True)
    except (OSError, RagprofError):
        return None
    return kept


def headline(report: ProfileReport) -> Table:
    """What was profiled, how much was seen, and what sampling says of itself."""
    profile = report.profile
    kind = profile.value_types[0]
    facts = [
        ("profile of", report.subject),
        ("seen", f"{weight_text(profile.total(), kind)} {kind.type} in {len(profile):,} samples "
                 f"on {profile.stack_count:,} stacks"),
        ("compared with", report.earlier_name),
    ]  # fmt: skip
    facts += [("note", text) for text in profile.notes if not text.startswith("ragprof.request ")]
    return plots.table(pd.DataFrame(facts, columns=["what", "value"]), "The profile")


def flamegraph(report: ProfileReport) -> FlameGraph | Picture:
    """The stacks, waits as innermost frames."""
    if not len(report.profile):
        return empty("Flame graph", "Nothing was seen: no thread did anything in that time.")
    return FlameGraph(with_wait_frames(report.profile), title=report.subject, height=640)


def change(report: ProfileReport) -> Comparison | Picture:
    """Shares of the whole against the earlier run: the functions that changed, and where."""
    if report.earlier is None:
        return empty("Change", f"No earlier profile to compare with: {report.earlier_name}.")
    if not len(report.profile) or not len(report.earlier):
        return empty("Change", "One of the two profiles is empty.")
    earlier, now = (with_wait_frames(one) for one in (report.earlier, report.profile))
    return compare(earlier.named(report.earlier_name), now.named("this run"), normalize=True)


def functions(report: ProfileReport, rows: int = 20) -> Table:
    """The functions with the most time of their own."""
    table = report.profile.functions()
    table = table[table["self"] > 0]
    total = report.profile.total() or 1.0
    shown = pd.DataFrame(
        {
            "function": table["function"],
            "self": [_weight(report, value) for value in table["self"]],
            "self_share": table["self"] / total,
            "total": [_weight(report, value) for value in table["total"]],
            "place": [
                f"{file}:{line}" if file and line else file
                for file, line in zip(table["file"], table["line"], strict=True)
            ],
        }
    )
    return plots.table(shown, "Functions by their own time", rows=rows)


def lines(report: ProfileReport) -> SourceView | Picture:
    """The hottest functions line by line, with their source where it is at hand."""
    if not np.any(report.profile.stack_lines):
        return empty("Lines", "The profile does not say which lines ran.")
    return SourceView(report.profile, functions=6)


def labels(report: ProfileReport, rows: int = 8) -> Table:
    """Where samples carry labels: the time by stage, endpoint, span, thread and state."""
    profile = report.profile
    total = profile.total() or 1.0
    parts = []
    for name in LABELS:
        label = profile.labels.get(name)
        if label is None:
            continue
        sums = np.bincount(
            label.codes, weights=profile.values[:, 0], minlength=len(label.vocabulary)
        )
        order = [code for code in np.argsort(-sums, kind="stable").tolist() if sums[code] > 0]
        named = [code for code in order if label.vocabulary[code]]
        for code in named[:rows]:
            own = profile.filter(label.codes == code).functions()
            parts.append(
                {
                    "by": name,
                    "value": label.vocabulary[code],
                    "time": _weight(report, float(sums[code])),
                    "share": share_text(float(sums[code]) / total),
                    "hottest function": str(own["function"].iloc[0]) if len(own) else "",
                }
            )
        if len(named) > rows:
            rest = float(sums[named[rows:]].sum())
            parts.append(
                {
                    "by": name,
                    "value": f"{len(named) - rows:,} more",
                    "time": _weight(report, rest),
                    "share": share_text(rest / total),
                    "hottest function": "",
                }
            )
    columns = ["by", "value", "time", "share", "hottest function"]
    return plots.table(
        pd.DataFrame(parts, columns=columns), "Time by label, where samples carry one", rows=200
    )


def reproduce(report: ProfileReport) -> Table:
    """How to make this report again, and where its profile is."""
    rows = [("command", report.command)]
    if report.kept is not None:
        rows.append(("profile", str(report.kept)))
        rows.append(("in Python", f"rp.read_profile({str(report.kept)!r})"))
    return plots.table(pd.DataFrame(rows, columns=["what", "how"]), "Reproduce")


def _weight(report: ProfileReport, value: float) -> str:
    return weight_text(value, report.profile.value_types[0])
