"""What flame graphs and comparisons read: a profile file, a folder of repeats, a Recording."""

from __future__ import annotations

import fnmatch
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ragprof.manifest import MANIFEST
from ragprof.profiles import gate
from ragprof.profiles.combine import combined
from ragprof.profiles.model import Floats, Label, Profile, ProfileError
from ragprof.profiles.read import read_profile

if TYPE_CHECKING:
    from ragprof.flamegraph.requests import Requests


@dataclass(frozen=True)
class Input:
    """A profile and where it comes from. ``repeats``: the profiles of a folder, else one.
    ``requests``: those of a Recording."""

    path: Path
    profile: Profile
    repeats: tuple[Profile, ...]
    requests: Requests | None = None

    def knows(self, asked: gate.Condition) -> bool:
        """Whether any function, or any span of the Recording, has a matching name.

        Raises `ConditionError` when the condition reads spans and there are none.
        """
        names = [frame.function for frame in self.profile.frames]
        if asked.of_spans:
            names = [] if self.requests is None else self.requests.forest.names
            if self.requests is None:
                raise gate.ConditionError(
                    f"{asked.text!r} reads spans, and {self.path} is no Recording: "
                    "give Recordings, or use self() or total()."
                )
        return any(asked.name.search(name) for name in names)

    def measured(self, asked: gate.Condition) -> tuple[Floats, int]:
        """One number per request or repeat, and how many of them a verdict needs.

        Requests are those of a Recording, or the distinct trace ids of a profile's samples.
        """
        if self.requests is not None:
            if asked.of_spans:
                return self.requests.durations(asked.name), gate.LEAST_REQUESTS
            whole = self.requests.profile(whole=True)
            weights = gate.matching(whole, asked)
            return self.requests.sums(whole, weights), gate.LEAST_REQUESTS
        if len(self.repeats) > 1:
            sums = [float(gate.matching(one, asked).sum()) for one in self.repeats]
            return np.array(sums), gate.LEAST_REPEATS
        weights = gate.matching(self.profile, asked)
        label = self.profile.labels.get("trace_id")
        if label is None:
            return np.array([weights.sum()]), gate.LEAST_REPEATS
        seen = np.bincount(label.codes, minlength=len(label.vocabulary)) > 0
        seen &= np.array([text != "" for text in label.vocabulary], dtype=bool)
        per_trace = np.bincount(label.codes, weights, minlength=len(label.vocabulary))[seen]
        return per_trace.astype(np.float64), gate.LEAST_REQUESTS


def load(path: Path, traces: str | None = None, *, trusted: bool = False) -> Input:
    """A profile file, a folder of profile files (repeats of one measurement), or a Recording.

    ``traces``: all, slow, fast or trace ids of a Recording; its weights are per request. Those of
    repeats are the mean of the files. Raises `ProfileError` for what is none of these.
    """
    if is_recording(path):
        from ragprof import recording as recordings  # what only Recordings need takes a second
        from ragprof.flamegraph import requests

        chosen = requests.choose(recordings.open(path), traces or "all")
        profile = chosen.profile()
        return Input(path, profile, (profile,), chosen)
    if traces is not None:
        raise ProfileError(f"{path} is no Recording: --traces chooses the requests of Recordings.")
    if path.is_dir():
        files = sorted(one for one in path.iterdir() if one.is_file() and one.name[0] != ".")
        if not files:
            raise ProfileError(f"{path} is a folder without files: give profiles, or a Recording.")
        repeats = tuple(read_profile(file, trusted=trusted) for file in files)
        profile = combined(repeats).scaled(1 / len(repeats)).named(path.name)
        return Input(path, profile, repeats)
    profile = read_profile(path, trusted=trusted)
    return Input(path, profile, (profile,))


def is_recording(path: Path) -> bool:
    """Whether a path is a Recording: a folder with a manifest, or named ``.ragprof[.zip]``."""
    if path.is_dir():
        return (path / MANIFEST).exists() or path.name.endswith(".ragprof")
    return path.name.endswith((".ragprof.zip", ".ragprof"))


def filters(texts: Sequence[str]) -> dict[str, str]:
    """``span=…,stage=…,thread=…`` as a dictionary. Raises `ProfileError` naming the wrong part."""
    wanted: dict[str, str] = {}
    for text in texts:
        for part in text.split(","):
            key, sign, value = part.partition("=")
            if not sign or not key.strip() or not value.strip():
                raise ProfileError(
                    f"{part!r} is not a filter: write span=NAME, stage=NAME, thread=NUMBER or "
                    "LABEL=VALUE, with commas between them; * stands for anything."
                )
            wanted[key.strip()] = value.strip()
    return wanted


def filtered(given: Input, wanted: Mapping[str, str]) -> Profile:
    """The samples that fit every filter: ``span`` and ``stage`` by the spans of a Recording, else
    by labels of that name; ``thread`` by number or name; others by label. ``*`` is a wildcard.

    Raises `ProfileError` when the profile does not know the key.
    """
    profile = given.profile
    keep = np.ones(len(profile), dtype=bool)
    for key, pattern in wanted.items():
        if key in ("span", "stage") and given.requests is not None:
            keep &= given.requests.kept(profile, {key: pattern})
            continue
        label = _label(profile, key)
        if label is not None:
            hits = [fnmatch.fnmatchcase(text, pattern) for text in label.vocabulary]
            keep &= np.array(hits, dtype=bool)[label.codes]
        elif key in ("thread", "task") and getattr(profile, key + "s") is not None:
            numbers = getattr(profile, key + "s")
            known = np.unique(numbers)
            fit = [one for one in known.tolist() if fnmatch.fnmatchcase(str(one), pattern)]
            keep &= np.isin(numbers, fit)
        else:
            has = [*profile.labels, *(("thread",) if profile.threads is not None else ())]
            raise ProfileError(
                f"{given.path} does not know {key!r}; filter by {', '.join(has) or 'nothing'}."
            )
    return profile.filter(keep)


def _label(profile: Profile, key: str) -> Label | None:
    if key == "thread" and "thread_name" in profile.labels:
        return profile.labels["thread_name"]
    if key == "span":
        for name in ("span", "span_name", "span_id"):
            if name in profile.labels:
                return profile.labels[name]
    return profile.labels.get(key)
