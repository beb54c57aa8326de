"""`%ragprof` and `%%ragprof` in a real kernel, also with top-level await."""

from __future__ import annotations

from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient

from ragprof.profiling import magics
from ragprof.profiling.engine import SessionError

v4 = nbformat.v4

SETUP = """
import asyncio, json, time
def burn(seconds=0.2):
    end = time.thread_time() + seconds
    while time.thread_time() < end: sum(range(200))
async def answer():
    burn(0.1)
    await asyncio.sleep(0.2)
    return 5
def tell(prof):
    used = set(prof.sample_stacks.tolist())
    outer = {prof.stack(at)[0].file for at in used}
    names = {frame.function.rpartition(":")[2] for at in used for frame in prof.stack(at)}
    print(json.dumps([sorted(names), all("ipykernel_" in file for file in outer)]))
"""

CELLS = {
    "load": "%load_ext ragprof\n%load_ext ragprof",
    "setup": SETUP,
    "cell": "%%ragprof -o prof\nburn()\ntext = '''\n%ragprof not me\n'''\n'the value'",
    "cell seen": "print(text.strip())\ntell(prof)",
    "line": "%ragprof burn()",
    "await line": "%ragprof -o prof number = await answer()",
    "await line seen": "print(number)\ntell(prof)",
    "await cell": "%%ragprof --engine pyinstrument -o prof\nawait answer()",
    "await cell seen": "tell(prof)",
    "await cprofile": "%%ragprof --engine=cprofile -o prof\nawait answer()",
    "await cprofile seen": "tell(prof)",
    "failing": "%%ragprof -o failed\nburn()\n1 / 0",
    "failing seen": "tell(failed)",
    "loop": "for turn in range(2):\n    %ragprof burn(\n        0.05)",
    "inner": "%%ragprof\n%ragprof burn(0.05)\nburn(0.05)",
    "at run time": "get_ipython().run_line_magic('ragprof', 'burn(0.05)')",
    "wrong engine": "%ragprof --engine nothing burn()",
    "wrong name": "%ragprof -o 1x burn()",
    "nothing": "%ragprof",
    "unload": "%unload_ext ragprof",
    "gone": "%ragprof burn()",
}


@pytest.fixture(scope="module")
def outputs() -> dict[str, list[Any]]:
    """The outputs of each cell, in one kernel."""
    notebook = v4.new_notebook(cells=[v4.new_code_cell(source) for source in CELLS.values()])  # type: ignore[no-untyped-call]
    NotebookClient(
        notebook, allow_errors=True, kernel_name="python3", timeout=120, startup_timeout=120
    ).execute()
    return {name: cell.outputs for name, cell in zip(CELLS, notebook.cells, strict=True)}


def shown(outputs: list[Any]) -> list[dict[str, str]]:
    """The profiles that were displayed."""
    return [one.data for one in outputs if one.output_type == "display_data"]


def error(outputs: list[Any]) -> str:
    return next((one.evalue for one in outputs if one.output_type == "error"), "")


def text(outputs: list[Any]) -> str:
    return "".join(one.text for one in outputs if one.output_type == "stream")


def test_a_cell_shows_its_profile_and_its_value(outputs: dict[str, list[Any]]) -> None:
    (data,) = shown(outputs["cell"])
    assert set(data) == {"text/html", "image/svg+xml", "text/plain"}
    assert "<script" not in data["image/svg+xml"]
    assert "sandbox=" in data["text/html"]
    assert "burn" in data["image/svg+xml"]
    values = [
        one.data["text/plain"] for one in outputs["cell"] if one.output_type == "execute_result"
    ]
    assert values == ["'the value'"]
    assert "sampling cost" in text(outputs["cell"])
    seen = text(outputs["cell seen"])
    assert seen.startswith("%ragprof not me\n")  # text that looks like a magic stays text
    assert '"burn"' in seen
    assert seen.endswith("true]\n")  # every stack begins at the cell


def test_a_statement_shows_its_profile(outputs: dict[str, list[Any]]) -> None:
    (data,) = shown(outputs["line"])
    assert "burn" in data["text/plain"]
    assert len(shown(outputs["loop"])) == 2
    assert len(shown(outputs["inner"])) == 2
    assert len(shown(outputs["at run time"])) == 1


@pytest.mark.parametrize("name", ["await line", "await cell", "await cprofile"])
def test_top_level_await_works_with_every_engine(outputs: dict[str, list[Any]], name: str) -> None:
    assert error(outputs[name]) == ""
    assert len(shown(outputs[name])) == 1
    seen = text(outputs[f"{name} seen"])
    assert '"answer"' in seen
    assert '"burn"' in seen
    if name == "await line":
        assert seen.startswith("5\n")
        assert '"sleep"' in seen  # the time awaited is part of it


def test_a_cell_that_fails_still_shows_its_profile(outputs: dict[str, list[Any]]) -> None:
    assert error(outputs["failing"]) == "division by zero"
    assert len(shown(outputs["failing"])) == 1
    assert '"burn"' in text(outputs["failing seen"])


def test_what_is_wrong_is_said(outputs: dict[str, list[Any]]) -> None:
    assert "invalid choice: 'nothing'" in error(outputs["wrong engine"])
    assert "'1x' is no name of a variable" in error(outputs["wrong name"])
    assert "wants a statement" in error(outputs["nothing"])
    assert error(outputs["unload"]) == ""
    assert "not found" in text(outputs["gone"]) + error(outputs["gone"])
    assert shown(outputs["gone"]) == []


@pytest.mark.parametrize(
    ("source", "made"),
    [
        ("x = 1\n", "x = 1\n"),
        ("%ragprof f(x)\n", "with get_ipython().run_line_magic('ragprof_around', ''): f(x)\n"),
        (
            "if x:\n    %ragprof --hz 9 f(x)\n",
            "if x:\n    with get_ipython().run_line_magic('ragprof_around', '--hz 9'): f(x)\n",
        ),
        ("%%ragprof -o p\nf()\n", "get_ipython().run_line_magic('ragprof_begin', '-o p')\nf()\n"),
        ("'''\n%ragprof f()\n'''\n", "'''\n%ragprof f()\n'''\n"),
        ("x = 7 \\\n %ragprof\n", "x = 7 \\\n %ragprof\n"),
        ("%%bash\n%ragprof f()\n", "%%bash\n%ragprof f()\n"),
        ("%ragprofile f()\n", "%ragprofile f()\n"),
        ("%%ragprofile\nf()\n", "%%ragprofile\nf()\n"),
        ("%ragprof\n", "%ragprof\n"),
    ],
)
def test_only_the_magics_are_rewritten(source: str, made: str) -> None:
    assert "".join(magics.rewrite(source.splitlines(keepends=True))) == made


def test_options_come_first() -> None:
    assert magics.split("--hz 9 -o p f(-o, 3)") == ("--hz 9 -o p", "f(-o, 3)")
    assert magics.split(" f(x)") == ("", "f(x)")
    with pytest.raises(SessionError, match="--engine, --hz and -o"):
        magics._options("--what 3")
