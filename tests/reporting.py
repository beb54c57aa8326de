"""What the tests of reports share: a hostile recording and small notebooks."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import nbformat
from planted import ASK, Tree, record

from ragprof.recording import Recording

NASTY = "</script><script>window.broken=1</script><img src=x onerror=window.broken=2>"


def hostile(path: Path) -> Recording:
    """A slower rerank stage; every text of the telemetry tries to become markup."""

    def trace(tree: Tree, draw: random.Random, faulty: bool) -> None:
        slow = 45 if faulty else 0
        root = tree.span(ASK + NASTY, 0, 70 + slow + draw.random() * 9, kind="server")
        first = tree.span("embed" + NASTY, 1, 12, root, openinference__span__kind="EMBEDDING")
        tree.sample(first, 2, 10, 1)
        rank = {"openinference__span__kind": "RERANKER", "note": NASTY + str(draw.randrange(9))}
        second = tree.span("rank" + NASTY, 14, 10 + slow, root, **rank)
        tree.sample(second, 15, 9 + slow, 2)
        for call in range(8):
            tree.span("SELECT" + NASTY, 30 + call, 1, root, kind="client")

    return record(
        path, trace, say=lambda name: name + NASTY, metrics=lambda faulty: {"x" + NASTY: 1.0}
    )


def notebook(
    path: Path, *cells: str, parameters: str = "n: int = 3  # how many", **own: Any
) -> str:
    """A notebook file of code cells after a parameters cell; its path as text."""
    v4 = nbformat.v4
    made = v4.new_notebook(
        cells=[
            v4.new_markdown_cell("# A small report\n\nIt shows a number."),
            v4.new_code_cell(parameters, metadata={"tags": ["parameters"]}),
            *(v4.new_code_cell(cell) for cell in cells),
        ],
        metadata=own,
    )
    nbformat.write(made, path)
    return str(path)
