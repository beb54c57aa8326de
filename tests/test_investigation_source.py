"""From a finding to the lines and commits of a checkout, which is only read."""

from __future__ import annotations

import json
import os
import random
import subprocess
from pathlib import Path

import jsonschema
import pytest
from planted import ASK, Tree, record

import ragprof.investigation
from ragprof.cli import main
from ragprof.errors import RagprofError
from ragprof.investigation.run import investigate
from ragprof.investigation.source import find
from ragprof.recording import Recording

SCHEMA = json.loads(
    (Path(ragprof.investigation.__file__).parent / "findings.schema.json").read_text()
)
BEFORE = "\n" * 9 + "def f1():\n    return 1\n\n\ndef f2():\n    x = 1\n    return x\n"
AFTER = BEFORE.replace("    return x", "    return x + slow()")


def scoring(tree: Tree, draw: random.Random, faulty: bool) -> None:
    """f2 runs longer since version 1.1.0; planted stacks say that line 2 of the file runs."""
    took = 20 + draw.random() * 5 + (50 if faulty else 0)
    root = tree.span(ASK, 0, took + 20, kind="server")
    span = tree.span("scoring", 3, took, root, openinference__span__kind="RERANKER")
    tree.sample(span, 4, took, 2)
    for one in tree.spans:
        one["resource"] = {"service.version": "1.1.0" if faulty else "1.0.0"}


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Recording:
    return record(tmp_path_factory.mktemp("source") / "a.ragprof", scoring)


def git(folder: Path, *words: str) -> str:
    identity = {
        "GIT_AUTHOR_NAME": "a", "GIT_AUTHOR_EMAIL": "a@example.org", "GIT_COMMITTER_NAME": "a",
        "GIT_COMMITTER_EMAIL": "a@example.org", "GIT_CONFIG_NOSYSTEM": "1", "HOME": str(folder),
    }  # fmt: skip
    done = subprocess.run(
        ["git", "-C", folder, *words], env={**os.environ, **identity}, check=True,
        capture_output=True, text=True,
    )  # fmt: skip
    return done.stdout


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """Three commits: 1.0.0, one that touches f2 and is 1.1.0, and one that touches f1 alone."""
    folder = tmp_path / "checkout"
    folder.mkdir()
    git(folder, "init", "--quiet")
    for text, message, tag in (
        (BEFORE, "first", "v1.0.0"),
        (BEFORE.replace("return 1", "return 2"), "f1 alone", ""),
        (AFTER.replace("return 1", "return 2"), "f2 asks slow()", "1.1.0"),
    ):
        (folder / "app.py").write_text(text)
        git(folder, "add", "app.py")
        git(folder, "commit", "--quiet", "-m", message)
        if tag:
            git(folder, "tag", tag)
    return folder


def test_lines_and_commits(recorded: Recording, checkout: Path) -> None:
    before = git(checkout, "status", "--porcelain=v2", "--branch")
    found = investigate(recorded, source=checkout)
    first = found.finding(1)
    assert first.function == "app:f2"
    assert first.source.path == "app.py"
    (line,) = first.source.lines.to_dict("records")
    assert line["line"] == 2
    assert line["added_ms"] == pytest.approx(50, abs=3)
    assert list(first.source.commits["subject"]) == ["f2 asks slow()"]
    assert any("1 commits between 1.0.0 and 1.1.0" in note for note in found.notes)
    jsonschema.validate(json.loads(json.dumps(found.to_dict())), SCHEMA)
    assert git(checkout, "status", "--porcelain=v2", "--branch") == before


def test_on_the_command_line(
    recorded: Recording, checkout: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["investigate", str(recorded.path), "--source", str(checkout), "--json"]
    assert main(words) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["findings"][0]["commits"][0]["subject"] == "f2 asks slow()"


def test_hooks_and_programs_of_the_checkout_do_not_run(
    recorded: Recording, checkout: Path, tmp_path: Path
) -> None:
    trap = tmp_path / "ran"
    program = tmp_path / "trap.sh"
    program.write_text(f"#!/bin/sh\ntouch {trap}\n")
    program.chmod(0o755)
    for name in ("core.fsmonitor", "diff.external", "core.pager", "gpg.program"):
        git(checkout, "config", name, str(program))
    git(checkout, "config", "log.showSignature", "true")
    found = investigate(recorded, source=checkout)
    assert len(found.finding(1).source.commits) == 1
    assert not trap.exists()


def test_what_is_missing_is_said(recorded: Recording, checkout: Path, tmp_path: Path) -> None:
    git(checkout, "tag", "-d", "1.1.0")
    found = investigate(recorded, source=checkout)
    assert any("no tag or commit '1.1.0'" in note for note in found.notes)
    empty = tmp_path / "empty"
    empty.mkdir()
    found = investigate(recorded, source=empty)
    assert any("app.py is not in" in note for note in found.notes)
    assert found.finding(1).source.lines["line"].tolist() == [2]
    with pytest.raises(RagprofError, match="not a folder"):
        investigate(recorded, source=tmp_path / "nowhere")


def test_a_file_outside_of_the_checkout_is_not_read(tmp_path: Path) -> None:
    inside = tmp_path / "in" / "pkg"
    inside.mkdir(parents=True)
    (inside / "app.py").write_text("")
    (tmp_path / "secret.py").write_text("")
    (inside / "link.py").symlink_to(tmp_path / "secret.py")
    root = tmp_path / "in"
    assert find(root, "/srv/pkg/app.py") == (inside / "app.py").resolve()
    assert find(root, "../secret.py") is None
    assert find(root, "/x/pkg/link.py") is None
