"""The formats that there are, found as modules of `ragprof.profiles.formats`."""

from __future__ import annotations

import functools
import importlib
import pkgutil
from collections.abc import Callable
from dataclasses import dataclass

from ragprof.profiles import formats
from ragprof.profiles.content import Content
from ragprof.profiles.model import Profile, ProfileError


@dataclass(frozen=True)
class Format:
    """A file format; see `ragprof.profiles.formats` for what a module gives."""

    name: str
    title: str
    looks_for: str
    suffixes: tuple[str, ...]
    recognises: Callable[[Content], bool]
    read: Callable[[Content], list[Profile]]
    write: Callable[[Profile], bytes] | None
    carries: frozenset[str]
    needs_trust: bool
    alpha: bool


@functools.cache
def all_formats() -> dict[str, Format]:
    """Every format by its name."""
    found = {}
    for module in sorted(info.name for info in pkgutil.iter_modules(formats.__path__)):
        part = importlib.import_module(f"{formats.__name__}.{module}")
        found[module] = Format(
            name=module,
            title=part.TITLE,
            looks_for=part.LOOKS_FOR,
            suffixes=tuple(part.SUFFIXES),
            recognises=part.recognises,
            read=part.read,
            write=getattr(part, "write", None),
            carries=frozenset(getattr(part, "CARRIES", ())),
            needs_trust=getattr(part, "NEEDS_TRUST", False),
            alpha=getattr(part, "ALPHA", False),
        )
    return found


def named(name: str) -> Format:
    """The format of this name. Raises `ProfileError` listing the names."""
    known = all_formats()
    if name not in known:
        raise ProfileError(f"there is no format {name!r}; there are {', '.join(known)}.")
    return known[name]


def detected(content: Content) -> Format:
    """The format of a content, told from the content and only then from the file name.

    Raises `ProfileError` that lists what was looked for.
    """
    formats_ = list(all_formats().values())
    fitting = [one for one in formats_ if one.recognises(content)]
    if len(fitting) == 1:
        return fitting[0]
    by_name = _by_suffix(content.name, fitting or formats_)
    if by_name is not None:
        return by_name
    if fitting:
        raise ProfileError(
            f"it may be {' or '.join(one.title for one in fitting)}: say which with "
            f"format={' or '.join(repr(one.name) for one in fitting)}."
        )
    looked = "; ".join(f"{one.title} ({one.looks_for})" for one in formats_)
    fault = f" It begins as JSON but is none: {content.json_fault}." if content.json_fault else ""
    raise ProfileError(f"no profile format is known in it.{fault} Looked for: {looked}.")


def for_name(name: str) -> Format:
    """The format that a file of this name is written in. Raises `ProfileError` otherwise."""
    writable = [one for one in all_formats().values() if one.write is not None]
    found = _by_suffix(name, writable)
    if found is None:
        endings = ", ".join(suffix for one in writable for suffix in one.suffixes)
        raise ProfileError(f"{name!r} names no format that is written; names end in {endings}.")
    return found


def _by_suffix(name: str, formats_: list[Format]) -> Format | None:
    """The format with the longest matching ending."""
    lowered = name.lower()
    if lowered.endswith(".gz") and not lowered.endswith(".pb.gz"):
        lowered = lowered.removesuffix(".gz")
    matches = [
        (len(suffix), one)
        for one in formats_
        for suffix in one.suffixes
        if lowered.endswith(suffix)
    ]
    return max(matches, key=lambda match: match[0])[1] if matches else None
