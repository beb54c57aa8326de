"""The requests of a Recording: which are looked at, their stacks, their spans' times."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pyarrow as pa

from ragprof.analysis import populations
from ragprof.analysis.columns import Bools, Floats, Ints, texts
from ragprof.analysis.forest import Forest, build
from ragprof.analysis.stages import STAGES, stages
from ragprof.profiles.model import Profile, ProfileError
from ragprof.profiles.samples import from_tables, with_wait_frames
from ragprof.recording import Recording


@dataclass(frozen=True)
class Requests:
    """Some requests of a Recording. ``roots``: their root spans, as indices into ``forest``."""

    recording: Recording
    spans: pa.Table
    forest: Forest
    roots: Ints
    what: str
    """What they are, for people: "slow requests", "all requests"."""

    def __len__(self) -> int:
        return len(self.roots)

    @cached_property
    def trace_keys(self) -> Ints:
        """The keys of their traces."""
        keys: Ints = self.forest.trace_key[self.roots]
        return keys

    def profile(self, *, whole: bool = False) -> Profile:
        """Their samples with what is waited for; weights per request, or of the ``whole``."""
        tables = [self.recording.table(name) for name in ("samples", "stacks", "frames")]
        name = f"{self.recording.path.name.removesuffix('.zip').removesuffix('.ragprof')}"
        profile = from_tables(
            *tables,
            trace_keys=self.trace_keys.tolist(),
            requests=None if whole else max(1, len(self)),
            name=f"{name}, {self.what}",
        )
        return with_wait_frames(profile)

    def sums(self, profile: Profile, weights: Floats) -> Floats:
        """Weights of the samples summed per request; requests without samples count as 0."""
        ids = {text: at for at, text in enumerate(self.trace_ids)}
        label = profile.labels["trace_id"]
        at = np.array([ids.get(text, -1) for text in label.vocabulary], dtype=np.int64)
        request = at[label.codes] if len(at) else label.codes
        inside = request >= 0
        summed: Floats = np.bincount(request[inside], weights[inside], minlength=len(self)).astype(
            np.float64, copy=False
        )
        return summed

    @cached_property
    def trace_ids(self) -> list[str]:
        """Their trace ids."""
        rows = self.forest.row[self.roots]
        return [str(one) for one in texts(self.spans["trace_id"].take(pa.array(rows)))]

    def durations(self, name: re.Pattern[str]) -> Floats:
        """Nanoseconds per request in the spans whose name matches, not counting those inside
        another; requests without such a span are left out."""
        forest = self.forest
        hits = np.array([bool(name.search(text)) for text in forest.names], dtype=bool)
        match: Bools = hits[forest.name] if len(hits) else np.zeros(len(forest), dtype=bool)
        inside = np.zeros(len(forest), dtype=bool)
        for span in np.argsort(forest.depth, kind="stable").tolist():
            up = forest.parent[span]
            inside[span] = up >= 0 and (inside[up] or match[up])
        number = np.full(len(forest), -1, dtype=np.int64)
        number[self.roots] = np.arange(len(self))
        of = number[forest.root]
        chosen = match & ~inside & (of >= 0)
        took = np.bincount(of[chosen], (forest.end - forest.start)[chosen], minlength=len(self))
        has = np.bincount(of[chosen], minlength=len(self)) > 0
        durations: Floats = took[has].astype(np.float64)
        return durations

    def kept(self, profile: Profile, wanted: Mapping[str, str]) -> Bools:
        """Which samples belong to spans of these names (``span``) or RAG stages (``stage``)."""
        ids = [str(one) for one in texts(self.spans["span_id"])]
        keep = np.ones(len(profile), dtype=bool)
        label = profile.labels["span_id"]
        stage = stages(self.forest, self.spans)
        for key, pattern in wanted.items():
            named = {}
            for span, row in enumerate(self.forest.row.tolist()):
                code = int(stage[span])
                named[ids[row]] = (
                    self.forest.names[self.forest.name[span]]
                    if key == "span"
                    else STAGES[code]
                    if code >= 0
                    else ""
                )
            hits = np.array(
                [fnmatch.fnmatchcase(named.get(one, ""), pattern) for one in label.vocabulary]
            )
            keep &= hits[label.codes] if len(hits) else False
        return keep


def choose(recording: Recording, traces: str = "all") -> Requests:
    """The requests of a Recording: ``all``, ``slow``, ``fast`` (as `ragprof investigate` parts
    them), or trace ids with commas between them.

    Raises `ProfileError` or `SelectionError` when there are none such.
    """
    spans = recording.table("spans")
    forest = build(spans)
    if traces == "all":
        found = populations.operations(forest)
        roots = np.sort(np.concatenate([*found.values(), np.zeros(0, dtype=np.int64)]))
        return Requests(recording, spans, forest, roots, "all requests")
    if traces in ("slow", "fast"):
        groups = populations.choose(forest)
        chosen = groups.slow if traces == "slow" else groups.baseline
        return Requests(
            recording,
            spans,
            forest,
            groups.roots[chosen],
            f"{traces} requests of {groups.operation}",
        )
    wanted = {one.strip().lower() for one in traces.split(",")}
    ids = np.array([str(one) for one in texts(spans["trace_id"])], dtype=object)
    roots = np.flatnonzero((forest.parent < 0) & np.isin(ids[forest.row], list(wanted)))
    if not len(roots):
        raise ProfileError(
            f"{traces!r} is neither slow, fast nor a trace id of {recording.path}: "
            "`ragprof investigate` lists the slow ones."
        )
    return Requests(recording, spans, forest, roots, f"trace {traces}")
