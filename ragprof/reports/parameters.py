"""The parameters of a notebook: read from its parameters cell, checked before anything runs."""

from __future__ import annotations

import ast
import io
import json
import math
import tokenize
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from ragprof.errors import RagprofError

TAG = "parameters"
_TYPES: dict[str, type] = {
    "str": str,
    "int": int,
    "float": float,
    "bool": bool,
    "list": list,
    "dict": dict,
}
_YES, _NO = ("true", "yes", "on", "1"), ("false", "no", "off", "0")


class ParameterError(RagprofError):
    """A parameter that the notebook does not have, or a value of another type."""


@dataclass(frozen=True)
class Parameter:
    """One assignment of the parameters cell."""

    name: str
    type: str
    """str, int, float, bool, list, dict, or any when neither annotation nor default tells."""
    default: Any
    optional: bool
    """Whether None is a value."""
    help: str


def read(notebook: Any, where: str) -> dict[str, Parameter]:
    """The parameters by name, in the order of the cell tagged ``parameters``; empty without one.

    Defaults are literals and are never executed. Raises ParameterError when the cell is no Python.
    """
    cell = parameters_cell(notebook)
    if cell is None:
        return {}
    try:
        tree = ast.parse(cell.source)
        comments = _comments(cell.source)
    except (SyntaxError, tokenize.TokenError) as error:
        raise ParameterError(
            f"{where}: the parameters cell is not valid Python ({error}); correct the cell"
        ) from None
    found = {}
    for node in tree.body:
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.value:
            name, annotation = node.target.id, ast.unparse(node.annotation)
        elif (
            isinstance(node, ast.Assign)
            and len(node.targets) == 1
            and isinstance(node.targets[0], ast.Name)
        ):
            name, annotation = node.targets[0].id, ""
        else:
            continue
        try:
            default = ast.literal_eval(node.value)
        except ValueError:
            raise ParameterError(
                f"{where}: the default of parameter {name!r} is not a literal; "
                "write a number, text, list, dict, True, False or None"
            ) from None
        kind, optional = _kind(annotation, default)
        help_ = comments.get(node.end_lineno or 0) or _above(comments, cell.source, node.lineno)
        found[name] = Parameter(name, kind, default, optional, help_)
    return found


def parameters_cell(notebook: Any) -> Any | None:
    """The first code cell tagged ``parameters``."""
    for cell in notebook.cells:
        if cell.cell_type == "code" and TAG in cell.metadata.get("tags", []):
            return cell
    return None


def check(
    known: Mapping[str, Parameter], given: Mapping[str, Any], notebook: str
) -> dict[str, Any]:
    """The given values with their types; texts (from a command line) are read as the type.

    Times become ISO texts, paths become texts. Raises ParameterError for an unknown name, a value
    of another type, and a ``recording`` that cannot be opened.
    """
    values = {}
    for name, value in given.items():
        if name not in known:
            near = get_close_matches(name, known, 1)
            hint = f"did you mean {near[0]!r}? " if near else ""
            raise ParameterError(
                f"{notebook} has no parameter {name!r}: {hint}it has {', '.join(known) or 'none'}"
            )
        values[name] = _value(known[name], value, notebook)
    if "recording" in known:
        recording = values.get("recording", known["recording"].default)
        if recording or known["recording"].default == "":
            values["recording"] = _recording(recording, notebook)
    return values


def _recording(path: Any, notebook: str) -> str:
    from ragprof import recording

    if not path:
        raise ParameterError(f"{notebook} needs a recording: give it as -p recording=PATH")
    where = Path(str(path)).expanduser().absolute()
    try:
        recording.open(where)
    except recording.RecordingError as error:
        raise ParameterError(
            f"parameter 'recording': {error}; give the folder or zip that `ragprof record` wrote"
        ) from None
    return str(where)


def _value(parameter: Parameter, value: Any, notebook: str) -> Any:
    if isinstance(value, Path):
        value = str(value)
    if isinstance(value, datetime):  # pandas timestamps too
        if value.tzinfo is None:
            raise ParameterError(
                f"{notebook}: parameter {parameter.name!r} is a time without a zone; add one"
            )
        value = value.isoformat()
    if value is None or (isinstance(value, str) and value.lower() in ("none", "null")):
        if parameter.optional:
            return None
        if value is None:
            raise _wrong(parameter, value, notebook)
    wanted = _TYPES.get(parameter.type)
    if wanted is None or (isinstance(value, wanted) and not (wanted is int and value is True)):
        return value
    if wanted is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if isinstance(value, str):
        return _from_text(parameter, value, notebook)
    raise _wrong(parameter, value, notebook)


def _from_text(parameter: Parameter, text: str, notebook: str) -> Any:
    try:
        if parameter.type == "int":
            return int(text)
        if parameter.type == "float":
            number = float(text)
            if math.isnan(number):
                raise ValueError
            return number
        if parameter.type == "bool":
            if text.lower() not in _YES + _NO:
                raise ValueError
            return text.lower() in _YES
        value = json.loads(text)
        if not isinstance(value, _TYPES[parameter.type]):
            raise ValueError
    except ValueError:
        raise _wrong(parameter, text, notebook) from None
    return value


def _wrong(parameter: Parameter, value: Any, notebook: str) -> ParameterError:
    examples = {
        "int": "a whole number, such as 3",
        "float": "a number, such as 0.5",
        "bool": "true or false",
        "list": 'a JSON list, such as ["a", "b"]',
        "dict": 'a JSON object, such as {"a": 1}',
    }
    return ParameterError(
        f"{notebook}: parameter {parameter.name!r} is {parameter.type}, not {value!r}; "
        f"give {examples.get(parameter.type, 'a text')}"
    )


def _kind(annotation: str, default: Any) -> tuple[str, bool]:
    parts = [part.strip(" '\"") for part in annotation.replace("Optional[", "None|").split("|")]
    optional = default is None or "None" in parts
    for part in parts:
        name = part.split("[")[0].rstrip("]").lower()
        if name in _TYPES:
            return name, optional
    if default is None:
        return "any", True
    name = type(default).__name__
    return (name if name in _TYPES else "any"), optional


def _comments(source: str) -> dict[int, str]:
    """Line -> its comment."""
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    return {
        token.start[0]: token.string.lstrip("#: ").strip()
        for token in tokens
        if token.type == tokenize.COMMENT
    }


def _above(comments: Mapping[int, str], source: str, line: int) -> str:
    """The comment block directly above a line."""
    lines = source.splitlines()
    block = []
    line -= 1
    while line > 0 and lines[line - 1].strip().startswith("#"):
        block.append(comments[line])
        line -= 1
    return " ".join(reversed(block))
