"""From a function to its source: the lines that took longer, and the commits that touched it.

Reads a local checkout and never changes it; nothing of it is executed: Python is parsed, and git
runs without hooks, pagers, external diffs and the user's aliases.
"""

from __future__ import annotations

import ast
import os
import subprocess
from dataclasses import dataclass, field
from pathlib import Path, PurePath

import numpy as np
import pandas as pd

from ragprof.analysis.columns import attribute
from ragprof.analysis.lines import by_line
from ragprof.errors import RagprofError
from ragprof.investigation.case import Case

MOST_LINES = 8
MOST_COMMITS = 10
LARGEST = 4 << 20
"""Bytes of a source file that is read."""
_GIT = (
    "git", "--no-pager", "-c", "core.hooksPath=/dev/null", "-c", "core.fsmonitor=false",
    "-c", "log.showSignature=false", "-c", "diff.external=",
)  # fmt: skip


@dataclass(frozen=True)
class Source:
    """path: the file in the checkout, empty when it is not there. lines: line, text, baseline_ms,
    slow_ms, added_ms per request; the largest addition first. commits: commit, date, subject; the
    newest first. note: why there are no lines or commits."""

    path: str = ""
    lines: pd.DataFrame = field(default_factory=pd.DataFrame)
    commits: pd.DataFrame = field(default_factory=pd.DataFrame)
    note: str = ""


def source_of(case: Case, service: str, function: str, file: str, folder: Path) -> Source:
    """The source of a finding's function in `folder`. Raises RagprofError when it is no folder."""
    if not folder.is_dir():
        raise RagprofError(f"{folder} is not a folder: --source takes a checkout of the service.")
    recording = case.recording
    lines = by_line(
        case.samples, recording.table("stacks"), recording.table("frames"), function, file,
        case.slow, case.baseline,
    ).head(MOST_LINES)  # fmt: skip
    path = find(folder, file)
    if path is None:
        note = f"{file} is not in {folder}" if function else "no function to look for"
        return Source(lines=lines.assign(text=""), note=note)
    texts = path.read_bytes()[:LARGEST].decode("utf-8", errors="replace").splitlines()
    lines = lines.assign(
        text=[texts[line - 1].strip() if 0 < line <= len(texts) else "" for line in lines["line"]]
    )
    commits, note = _commits(case, service, function, folder, path)
    return Source(str(path.relative_to(folder.resolve())), lines, commits, note)


def find(folder: Path, file: str) -> Path | None:
    """The file of the checkout with the longest common end of path; None when there is none."""
    root = folder.resolve()
    parts = [part for part in PurePath(file).parts if part not in ("/", "..", ".")]
    for skipped in range(len(parts)):
        path = root.joinpath(*parts[skipped:]).resolve()
        if path.is_file() and path.is_relative_to(root):
            return path
    return None


def versions(case: Case, service: str) -> tuple[str, str]:
    """service.version of most spans in the baseline and in the slow window; empty: unknown."""
    forest = case.forest
    resource = case.recording.table("spans", ["resource"])["resource"]
    version = attribute(resource, "service.version")[forest.row]
    own = np.array([name == service for name in forest.services] + [False])[forest.service]
    found = []
    for low, high in (case.baseline_window, case.window):
        inside = own & (forest.start >= low.value) & (forest.start < high.value) & (version != "")
        values, counts = np.unique(version[inside], return_counts=True)
        found.append(str(values[np.argmax(counts)]) if len(values) else "")
    return found[0], found[1]


def _commits(
    case: Case, service: str, function: str, folder: Path, path: Path
) -> tuple[pd.DataFrame, str]:
    none = pd.DataFrame({"commit": [], "date": [], "subject": []})
    before, after = versions(case, service)
    if not before or not after:
        return none, f"{service} does not tell its service.version: commits are not looked for"
    if before == after:
        return none, f"service.version of {service} is {after} in both windows: no commits between"
    try:
        low, high = (_revision(folder, one) for one in (before, after))
        missing = before if not low else after if not high else ""
        if missing:
            return none, f"git knows no tag or commit {missing!r} in {folder}"
        inside = path.relative_to(Path(_git(folder, "rev-parse", "--show-toplevel")).resolve())
        extent = _extent(_git(folder, "show", f"{high}:{inside.as_posix()}"), function)
        chosen = (
            ["-L", f"{extent[0]},{extent[1]}:{inside.as_posix()}", "-s"]
            if extent
            else ["--", f":/{inside.as_posix()}"]
        )
        text = _git(
            folder, "log", "--no-ext-diff", "--no-textconv", f"--max-count={MOST_COMMITS}",
            "--format=%h%x09%cI%x09%s", f"{low}..{high}", *chosen,
        )  # fmt: skip
    except FileNotFoundError:
        return none, "git is not installed: commits are not looked for"
    except (subprocess.SubprocessError, ValueError, RagprofError) as error:
        return none, f"git could not read {folder}: {error}"
    rows = [line.split("\t", 2) for line in text.splitlines() if line.count("\t") >= 2]
    what = f"touched {function}" if extent else f"touched {inside}"
    note = f"{len(rows)} commits between {before} and {after} {what}"
    return pd.DataFrame(rows, columns=["commit", "date", "subject"]), note


def _revision(folder: Path, version: str) -> str:
    """The commit of a version: a tag of that name, with or without v, or a commit id."""
    for name in (f"refs/tags/{version}", f"refs/tags/v{version}", version):
        try:
            return _git(
                folder, "rev-parse", "--verify", "--quiet", "--end-of-options", name + "^{commit}"
            )
        except RagprofError:
            continue
    return ""


def _extent(text: str, function: str) -> tuple[int, int] | None:
    """First and last line of `module:qualname` in a Python source text."""
    try:
        node: ast.AST = ast.parse(text)
    except (SyntaxError, ValueError, RecursionError):
        return None
    named = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    for name in function.partition(":")[2].split("."):
        if name == "<locals>":
            continue
        found = next(
            (one for one in ast.walk(node) if isinstance(one, named) and one.name == name), None
        )
        if found is None:
            return None
        node = found
    if not isinstance(node, named) or node.end_lineno is None:
        return None
    first = min([node.lineno, *(one.lineno for one in node.decorator_list)])
    return first, node.end_lineno


def _git(folder: Path, *words: str) -> str:
    environment = {
        **{key: value for key, value in os.environ.items() if not key.startswith("GIT_")},
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_OPTIONAL_LOCKS": "0",
        "GIT_TERMINAL_PROMPT": "0",
    }
    done = subprocess.run(
        [*_GIT, "-C", str(folder), *words],
        capture_output=True, text=True, errors="replace", timeout=30, env=environment, check=False,
    )  # fmt: skip
    if done.returncode:
        said = done.stderr.strip().splitlines()
        raise RagprofError(said[0] if said else f"git {words[0]} failed")
    return done.stdout.rstrip("\n")
