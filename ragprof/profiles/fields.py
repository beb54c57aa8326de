"""Fields of JSON documents, checked: an error names the field that is missing or wrong."""

from __future__ import annotations

import math
from typing import Any, TypeVar

from ragprof.profiles.model import ProfileError

T = TypeVar("T")
_NAMES = {dict: "an object", list: "a list", str: "a text", int: "a whole number"}


def field(owner: Any, key: str, kind: type[T], where: str = "") -> T:
    """``owner[key]``, which must be there and of this kind. ``where`` names the owner."""
    name = f"{where}.{key}" if where else key
    if not isinstance(owner, dict):
        raise ProfileError(f"{where or 'the document'} is {_shown(owner)}, not an object.")
    if key not in owner:
        raise ProfileError(f"{name} is missing.")
    value = owner[key]
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise ProfileError(f"{name} is {_shown(value)}, not {_NAMES.get(kind, kind.__name__)}.")
    return value


def number(owner: Any, key: str, where: str = "", default: float | None = None) -> float:
    """``owner[key]`` as a finite number; ``default`` when it is missing or null."""
    name = f"{where}.{key}" if where else key
    if not isinstance(owner, dict):
        raise ProfileError(f"{where or 'the document'} is {_shown(owner)}, not an object.")
    value = owner.get(key)
    if value is None and default is not None:
        return default
    return finite(value, name)


def finite(value: Any, name: str) -> float:
    """A JSON value that must be a finite number; ``name`` says where it stands."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ProfileError(f"{name} is {_shown(value)}, not a number.")
    try:
        real = float(value)
    except OverflowError:
        real = math.inf
    if not math.isfinite(real):
        raise ProfileError(f"{name} is {_shown(value)}, not a finite number.")
    return real


def weight(value: Any, name: str) -> float:
    """A JSON value that must be a number >= 0."""
    real = finite(value, name)
    if real < 0:
        raise ProfileError(f"{name} is {real:g}: a weight cannot be negative.")
    return real


def text(owner: dict[str, Any], key: str, default: str = "") -> str:
    """``owner[key]`` as text; ``default`` when it is missing or null."""
    value = owner.get(key)
    return default if value is None else value if isinstance(value, str) else str(value)


def whole(owner: dict[str, Any], key: str, default: int = 0) -> int:
    """``owner[key]`` as a whole number that fits in 64 bits; else ``default``."""
    value = owner.get(key)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return default
    if isinstance(value, float) and not math.isfinite(value):
        return default
    return int(value) if abs(value) < 1 << 62 else default


def _shown(value: Any) -> str:
    if isinstance(value, dict):
        return "an object"
    if isinstance(value, list):
        return "a list"
    if value is None:
        return "null"
    shown = repr(value) if not isinstance(value, int) or abs(value) < 10**20 else "a huge number"
    return shown if len(shown) <= 60 else shown[:57] + "..."
