"""The whole line on the demo: record, investigate, report."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ragprof import recording
from ragprof.demo import evaluate, faults
from ragprof.demo.record import RECORDING, record_demo, record_matrix
from ragprof.investigation.result import Investigation
from ragprof.investigation.run import investigate
from ragprof.reports import investigation as report

STALE = ("findings.json", "summary.md", "report.ipynb", "report.html")


def run_demo(
    out: Path,
    fault: faults.Fault,
    seed: int,
    seconds: float | None = None,
    module: tuple[Path, str] | None = None,
    quiet: bool = False,
) -> Investigation:
    """Record the demo into `out`, investigate the Recording and write the report beside it."""
    for name in STALE:  # what an earlier run left would pass for this one's
        (out / name).unlink(missing_ok=True)
    record_demo(out, fault, seed, seconds, module, quiet)
    if not quiet:
        print("ragprof demo: investigating", file=sys.stderr, flush=True)
    found = investigate(recording.open(out / RECORDING))
    if not quiet:
        print("ragprof demo: writing the report", file=sys.stderr, flush=True)
    report.write(found, out)
    return found


def investigate_folder(out: Path) -> Investigation:
    """Investigate the Recording in a demo's folder; writes findings.json there."""
    found = investigate(recording.open(out / RECORDING))
    found.write(out)
    return found


def investigate_matrix(
    out: Path,
    names: Sequence[str],
    seeds: Sequence[int],
    seconds: float | None = None,
    quiet: bool = False,
) -> list[Path]:
    """Record what is missing of the matrix in `out`, and investigate all of it; the folders."""
    folders = record_matrix(out, names, seeds, seconds, quiet)
    for folder in folders:
        investigate_folder(folder)
    return folders


def in_three_lines(found: Investigation, out: Path) -> list[str]:
    """The finding, the best evidence, and where the report is."""
    findings: list[dict[str, Any]] = found.to_dict()["findings"]
    if found.verdict == evaluate.NO_CAUSE or not findings:
        evidence = "Nothing differs more than this service's own windows do."
    else:
        first = findings[0]
        where = first.get("function") or first.get("resource") or first.get("span") or ""
        place = f" ({first['file']}:{first['line']})" if first.get("file") else ""
        evidence = f"{first['stage']}, {first['kind']}: {where}{place}".rstrip(": ")
    return [found.summary, evidence, f"Report: {out / 'report.html'}"]
