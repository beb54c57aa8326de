"""The notebooks that there are: those of the package and those that the user names."""

from __future__ import annotations

from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import nbformat

import ragprof
from ragprof.errors import RagprofError
from ragprof.reports import parameters


class NotebookError(RagprofError):
    """A notebook that is not there or cannot be read."""


@dataclass(frozen=True)
class Entry:
    """A notebook that can be run as a report."""

    name: str
    path: Path
    title: str
    description: str
    parameters: dict[str, parameters.Parameter]

    def to_dict(self) -> dict[str, Any]:
        """For JSON: the parameters as a list with name, type, default, help."""
        return {
            "name": self.name,
            "path": str(self.path),
            "title": self.title,
            "description": self.description,
            "parameters": [
                {
                    "name": one.name,
                    "type": one.type,
                    "default": one.default,
                    "optional": one.optional,
                    "help": one.help,
                }
                for one in self.parameters.values()
            ],
        }


def folder() -> Path:
    """Where the bundled notebooks are: in the wheel, else in the source tree."""
    package = Path(ragprof.__file__).parent
    installed = package / "notebooks"
    return installed if installed.is_dir() else package.parent / "notebooks"


def bundled() -> list[Entry]:
    """The notebooks of the package, by name."""
    return [entry(path) for path in sorted(folder().glob("*.ipynb"))]


def find(name: str | Path) -> Entry:
    """A notebook by its path, or a bundled one by its name.

    Raises NotebookError when there is none or it is no notebook.
    """
    path = Path(name).expanduser()
    if path.suffix == ".ipynb" and path.is_file():
        return entry(path)
    known = {file.stem: file for file in folder().glob("*.ipynb")}
    stem = path.stem if path.suffix == ".ipynb" and path.parent == Path() else str(name)
    if stem in known:
        return entry(known[stem])
    if path.is_file():
        raise NotebookError(f"{path} is not a notebook: its name does not end with .ipynb")
    near = get_close_matches(stem, known, 1)
    hint = f"did you mean {near[0]!r}? " if near else ""
    raise NotebookError(
        f"there is no notebook {str(name)!r}: {hint}give the path of an .ipynb file, or one of "
        f"{', '.join(sorted(known)) or 'the bundled ones (none is installed)'}"
    )


def entry(path: Path) -> Entry:
    """What a notebook file says about itself. Raises NotebookError, ParameterError."""
    notebook = load(path)
    title, description = _title(notebook)
    return Entry(
        path.stem,
        path.absolute(),
        title or path.stem.replace("_", " "),
        description,
        parameters.read(notebook, path.name),
    )


def load(path: Path) -> Any:
    """A notebook file as nbformat 4. Raises NotebookError when it is none."""
    try:
        return nbformat.read(path, as_version=4)  # type: ignore[no-untyped-call]
    except OSError as error:
        raise NotebookError(f"{path} cannot be read: {error.strerror}; check the path") from None
    except (ValueError, KeyError, AttributeError, nbformat.ValidationError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0][:200]
        raise NotebookError(
            f"{path} is not a readable notebook ({reason}); open it in JupyterLab and save it again"
        ) from None


def _title(notebook: Any) -> tuple[str, str]:
    """The ``ragprof`` metadata, else the first heading and the paragraph after it."""
    own = notebook.metadata.get("ragprof", {})
    if own.get("title"):
        return str(own["title"]), str(own.get("description", ""))
    for cell in notebook.cells:
        if cell.cell_type != "markdown":
            continue
        blocks = [block.strip() for block in cell.source.strip().split("\n\n")]
        if blocks and blocks[0].startswith("#"):
            text = " ".join(blocks[1].split()) if len(blocks) > 1 else ""
            return blocks[0].splitlines()[0].lstrip("# "), text
    return "", ""
