"""Slices of time that nest, as trace events have them: into samples, and samples into slices."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from ragprof.profiles.calls import NOBODY, CallTree
from ragprof.profiles.model import NO_TIME, Frame, Profile, ProfileBuilder

_INSTANT = 1e-5  # microseconds: what lies between two slices only because of rounding
_NO_LABELS: Mapping[str, str] = {}


class Slice(NamedTuple):
    """A function from ``begin`` to ``end`` (microseconds); ``number`` orders what begins together.

    ``frame`` None: it is no function, but its time counts.
    """

    begin: float
    end: float
    number: int
    frame: Frame | None
    line: int = 0
    labels: Mapping[str, str] = _NO_LABELS


class Mark(NamedTuple):
    """The beginning (``one``) or the end of a slice whose other side is somewhere else."""

    at: float
    number: int
    name: str
    one: Slice | None


@dataclass
class Track:
    """The slices of one thread, or of one asynchronous operation."""

    process: int
    thread: int
    task: int = 0
    labels: dict[str, str] = field(default_factory=dict)
    slices: list[Slice] = field(default_factory=list)
    marks: list[Mark] = field(default_factory=list)

    def last(self) -> float:
        """The last moment that the track knows of."""
        return max([*(one.end for one in self.slices), *(mark.at for mark in self.marks)])

    def outermost(self) -> str:
        """The name that the track begins with."""
        slices = [*self.slices, *(mark.one for mark in self.marks if mark.one)]
        first = min(slices, default=None, key=lambda one: (one.begin, -one.end, one.number))
        return first.frame.function if first and first.frame else ""


def add_tracks(
    builder: ProfileBuilder,
    tracks: Sequence[Track],
    weight_of: Callable[[float], float],
    *,
    start: int = 0,
    timed: bool = True,
) -> list[str]:
    """Adds a sample for every time between two changes of a track; returns what was not right.

    ``weight_of`` turns microseconds into a weight. ``start``: ns added to all times.
    """
    tree = CallTree(builder)
    nodes: list[int] = []
    rows: list[tuple[float, float, Track, Mapping[str, str]]] = []
    faults: Counter[str] = Counter()
    end = max((track.last() for track in tracks), default=0.0)
    for track in tracks:
        slices = track.slices + _closed(track.marks, end, faults)
        for begin, stop, node, labels in _segments(slices, builder, tree, faults):
            nodes.append(node)
            rows.append((begin, stop, track, labels))
    for stack, (begin, stop, track, labels) in zip(tree.stacks(nodes).tolist(), rows, strict=True):
        builder.sample(
            stack,
            weight_of(stop - begin),
            time=start + round(begin * 1e3) if timed else None,
            thread=track.thread or None,
            task=track.task or None,
            labels={**track.labels, **labels},
        )
    return [f"{count} {fault}" for fault, count in faults.items()]


def _closed(marks: Sequence[Mark], end: float, faults: Counter[str]) -> list[Slice]:
    """The slices between beginnings and ends; what stays open ends with the trace."""
    slices: list[Slice] = []
    open_: list[Slice] = []
    for mark in sorted(marks, key=lambda mark: (mark.at, mark.number)):
        if mark.one is not None:
            open_.append(mark.one)
            continue
        depth = len(open_) - 1
        if mark.name and open_ and not _is_named(open_[-1], mark.name):
            named = (at for at in range(depth, -1, -1) if _is_named(open_[at], mark.name))
            depth = next(named, -1)
        if depth < 0:
            faults["ends have no beginning and were passed over."] += 1
            continue
        if depth < len(open_) - 1:
            faults["slices were still open when an outer one ended."] += len(open_) - 1 - depth
        slices += [one._replace(end=mark.at) for one in open_[depth:]]
        del open_[depth:]
    if open_:
        faults["slices have no end and end with the trace."] += len(open_)
    return slices + [one._replace(end=max(end, one.begin)) for one in open_]


def _is_named(one: Slice, name: str) -> bool:
    return one.frame is not None and (
        one.frame.function == name or name.startswith(f"{one.frame.function} (")
    )


def _segments(
    slices: list[Slice], builder: ProfileBuilder, tree: CallTree, faults: Counter[str]
) -> Iterator[tuple[float, float, int, Mapping[str, str]]]:
    """Begin, end, stack and labels of every time in which the stack stays the same."""
    open_: list[tuple[float, int, Mapping[str, str]]] = []  # end, node, labels
    now = 0.0
    for one in sorted(slices, key=lambda one: (one.begin, -one.end, one.number)):
        while open_ and open_[-1][0] <= one.begin + _INSTANT:
            end, node, labels = open_.pop()
            if end > now + _INSTANT:
                yield now, end, node, labels
            now = max(now, end)
        caller, end, labels = NOBODY, one.end, one.labels
        if open_:
            limit, caller, outer = open_[-1]
            if one.begin > now + _INSTANT:
                yield now, one.begin, caller, outer
            if end > limit + _INSTANT:
                faults["slices end after the one they began in and were cut there."] += 1
                end = limit
            labels = {**outer, **labels} if labels else outer
        now = max(now, one.begin)
        node = caller
        if one.frame is not None:
            node = tree.call(caller, builder.frame(one.frame), one.line)
        open_.append((end, node, labels))
    while open_:
        end, node, labels = open_.pop()
        if end > now + _INSTANT:
            yield now, end, node, labels
        now = max(now, end)


class Merged(NamedTuple):
    """A slice made of samples, in nanoseconds since the start; ``frame`` -1: no function ran."""

    thread: int
    task: int
    begin: float
    end: float
    frame: int
    labels: Mapping[str, str]
    """Of the outermost slices only."""
    depth: int


def merged(profile: Profile, scale: float) -> tuple[list[Merged], int]:
    """The samples of the first value type as slices, in the order of their beginnings, the outer
    ones first; and the start in ns that their times lack.

    ``scale``: nanoseconds per unit of weight. Samples of one thread and task that touch, with the
    same labels and the same outer frames, share the slices of these frames.
    """
    times = profile.times
    known = times[times != NO_TIME] if times is not None else []
    start = int(min(known)) if len(known) else 0
    offsets, flat = profile.stack_offsets.tolist(), profile.stack_frames.tolist()
    texts = [(name, label.values()) for name, label in profile.labels.items()]
    threads = profile.threads if profile.threads is not None else [0] * len(profile)
    tasks = profile.tasks if profile.tasks is not None else [0] * len(profile)
    tracks: dict[tuple[int, int], _Writing] = {}
    order: Sequence[int] = range(len(profile))
    if times is not None:
        order = sorted(order, key=times.tolist().__getitem__)
    done: list[Merged] = []
    weights = profile.values[:, 0].tolist()
    for row in order:
        key = (int(threads[row]), int(tasks[row]))
        track = tracks.setdefault(key, _Writing(*key))
        stack = profile.sample_stacks[row]
        path = flat[offsets[stack] : offsets[stack + 1]] or [-1]
        begin = track.now
        if times is not None and times[row] != NO_TIME:
            begin = max(begin, float(times[row] - start))
        labels = {name: values[row] for name, values in texts if values[row]}
        track.run(path, labels, begin, begin + weights[row] * scale, done)
    for track in tracks.values():
        track.close(0, done)
    return sorted(done, key=lambda one: (one.begin, one.depth)), start


@dataclass
class _Writing:
    """The slices of one track that are still open."""

    thread: int
    task: int
    now: float = 0.0
    path: list[int] = field(default_factory=list)
    begins: list[float] = field(default_factory=list)
    labels: Mapping[str, str] = field(default_factory=dict)

    def run(
        self,
        path: list[int],
        labels: Mapping[str, str],
        begin: float,
        end: float,
        done: list[Merged],
    ) -> None:
        """A stack runs from begin to end."""
        if end <= begin:
            return
        common = 0
        if begin == self.now and labels == self.labels:
            most = min(len(path), len(self.path))
            while common < most and path[common] == self.path[common]:
                common += 1
        self.close(common, done)
        self.begins += [begin] * (len(path) - common)
        self.path, self.labels, self.now = path, labels, end

    def close(self, depth: int, done: list[Merged]) -> None:
        """Ends the slices deeper than this."""
        for at in range(len(self.begins) - 1, depth - 1, -1):
            labels = self.labels if at == 0 else _NO_LABELS
            begin, frame = self.begins[at], self.path[at]
            done.append(Merged(self.thread, self.task, begin, self.now, frame, labels, at))
        del self.begins[depth:]
