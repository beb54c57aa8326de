"""Faults of somebody's own file, and how a fault is started in the running service."""

from __future__ import annotations

import importlib.util
import inspect
import sys
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import Any

from ragprof.demo.faults.fault import Fault, FaultError, unchanged
from ragprof.demo.service import Service


def foreign(module: str) -> Fault:
    """Somebody's own fault: applied by `load`, its truth is what it returns."""
    return Fault(module, "somebody's own fault", unchanged, None)


def load(path: Path, function: str) -> Callable[[Service], object]:
    """`FUNCTION` of somebody's own Python file, imported under the file's name."""
    if not path.is_file():
        raise FaultError(f"{path} is not a file: --fault-module takes PATH:FUNCTION.")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None:
        raise FaultError(f"{path} is not a Python file: its name should end in .py.")
    module = importlib.util.module_from_spec(spec)
    sys.modules.setdefault(path.stem, module)
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise FaultError(f"{path} cannot be imported: {type(error).__name__}: {error}") from error
    found = getattr(module, function, None)
    if not callable(found):
        raise FaultError(f"{path} has no function {function!r}.")
    result: Callable[[Service], object] = found
    return result


async def start(
    apply: Callable[[Service], object | Awaitable[object]], service: Service
) -> dict[str, Any] | None:
    """Apply a fault in the running service; the truth that it returned, if any, as plain data."""
    try:
        result = apply(service)
        if inspect.isawaitable(result):
            result = await result
    except Exception as error:
        raise FaultError(f"The fault failed: {type(error).__name__}: {error}") from error
    if is_dataclass(result) and not isinstance(result, type):
        return asdict(result)
    return dict(result) if isinstance(result, Mapping) else None
