"""The neutral Profile: every reader makes one, every view and writer reads one.

A Profile is made only by `ProfileBuilder`, so its invariants always hold: every sample points at
a stack, every stack at frames, and every value is finite and not negative. Raw samples are kept;
trees are built when something is drawn.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from ragprof.errors import RagprofError
from ragprof.profiles.columns import (
    NO_TIME,
    Chunk,
    Floats,
    Ints,
    Label,
    ints,
    joined,
    joined_labels,
    optional,
)

if TYPE_CHECKING:
    import pandas as pd

__all__ = [
    "MOST_STACK_FRAMES",
    "NO_TIME",
    "Clock",
    "Floats",
    "Frame",
    "Ints",
    "Label",
    "Profile",
    "ProfileBuilder",
    "ProfileError",
    "ValueType",
    "refuse_depth",
]

MOST_STACK_FRAMES = 1 << 27
"""Frames of all distinct stacks of one profile together: 2 GiB in memory."""

Clock = Literal["utc", "start"]
"""What `Profile.times` count from: 1970 in UTC, or a beginning that only the recorder knows."""


class ProfileError(RagprofError):
    """A profile that cannot be: says which sample, stack or frame breaks which rule."""


def refuse_depth(frames: int) -> None:
    """Raises `ProfileError` when stacks have more frames together than a profile holds."""
    if frames > MOST_STACK_FRAMES:
        raise ProfileError(
            f"its stacks have {frames:,} frames or more together; {MOST_STACK_FRAMES:,} are the "
            "most that a profile holds."
        )


class Frame(NamedTuple):
    """A function as it appears in a stack."""

    function: str
    """`module:qualname`, or whatever the profiler calls it."""
    module: str = ""
    file: str = ""
    line: int = 0
    """First line of the function; 0: unknown."""
    origin: str = ""
    """app, library, stdlib, native, or empty when unknown."""


class ValueType(NamedTuple):
    """What the weights of a profile measure, in pprof's words."""

    type: str
    """wall, cpu, samples, alloc_space, ..."""
    unit: str
    """nanoseconds, count, bytes, ..."""


_KEY = object()


class Profile:
    """Stacks with weights. Arrays are read-only; use `ProfileBuilder` to make one.

    ``frames``: the distinct frames. ``stack_offsets`` (stacks + 1), ``stack_frames`` and
    ``stack_lines``: stack ``i`` is ``stack_frames[offsets[i]:offsets[i + 1]]``, outermost first,
    with the line that runs in each frame (0: unknown). ``sample_stacks`` (samples): the stack of
    each sample. ``values`` (samples x value types): the weights. ``times`` (ns, or `NO_TIME`),
    ``threads``, ``tasks`` (0: none): per sample, or None where nothing is known. ``clock``: "utc"
    when the times are ns since 1970, "start" when they are ns since some beginning that the file
    does not place. ``labels``: by name, for example trace_id, span_id, state, thread_name.
    """

    frames: tuple[Frame, ...]
    stack_offsets: Ints
    stack_frames: Ints
    stack_lines: Ints
    sample_stacks: Ints
    values: Floats
    value_types: tuple[ValueType, ...]
    times: Ints | None
    threads: Ints | None
    tasks: Ints | None
    labels: Mapping[str, Label]
    name: str
    notes: tuple[str, ...]
    clock: Clock

    def __init__(self, key: object, **parts: Any) -> None:
        if key is not _KEY:
            raise TypeError("a Profile is made by ProfileBuilder.build()")
        for name, part in parts.items():
            if isinstance(part, np.ndarray):
                part.setflags(write=False)
            object.__setattr__(self, name, part)

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"a Profile does not change: {name} cannot be set")

    def __len__(self) -> int:
        """The number of samples."""
        return len(self.sample_stacks)

    def total(self, value: int = 0) -> float:
        """The sum of the weights of one value type."""
        return float(self.values[:, value].sum())

    @property
    def stack_count(self) -> int:
        """The number of distinct stacks kept."""
        return len(self.stack_offsets) - 1

    def stack(self, index: int) -> tuple[Frame, ...]:
        """The frames of one stack, outermost first."""
        low, high = self.stack_offsets[index], self.stack_offsets[index + 1]
        return tuple(self.frames[frame] for frame in self.stack_frames[low:high].tolist())

    def stack_weights(self, value: int = 0) -> Floats:
        """The weight of every stack: samples folded, one number per stack."""
        weights: Floats = np.bincount(
            self.sample_stacks, weights=self.values[:, value], minlength=self.stack_count
        ).astype(np.float64, copy=False)
        return weights

    def filter(self, keep: ArrayLike) -> Profile:
        """The samples where ``keep`` (a boolean per sample) holds; stacks are shared."""
        mask = np.asarray(keep, dtype=bool)
        if mask.shape != (len(self),):
            raise ProfileError(
                f"a filter of {mask.size} values for {len(self)} samples: give one per sample."
            )
        return self._with(
            sample_stacks=self.sample_stacks[mask],
            values=self.values[mask],
            times=None if self.times is None else self.times[mask],
            threads=None if self.threads is None else self.threads[mask],
            tasks=None if self.tasks is None else self.tasks[mask],
            labels={
                name: Label(label.codes[mask], label.vocabulary)
                for name, label in self.labels.items()
            },
        )

    def where(self, **labels: str | Iterable[str]) -> Profile:
        """The samples whose labels have these values: ``where(state="running")``."""
        mask = np.ones(len(self), dtype=bool)
        for name, wanted in labels.items():
            if name not in self.labels:
                raise ProfileError(
                    f"the profile has no label {name!r}; it has {', '.join(self.labels) or 'none'}."
                )
            label = self.labels[name]
            texts = {wanted} if isinstance(wanted, str) else set(wanted)
            codes = [code for code, text in enumerate(label.vocabulary) if text in texts]
            mask &= np.isin(label.codes, codes)
        return self.filter(mask)

    def scaled(self, factor: float) -> Profile:
        """All weights times ``factor``: for example 1 / number of requests."""
        if not (np.isfinite(factor) and factor >= 0):
            raise ProfileError(
                f"a profile cannot be scaled by {factor}: give a finite number >= 0."
            )
        return self._with(values=self.values * factor)

    def named(self, name: str, *notes: str) -> Profile:
        """The same profile under a name, with more notes."""
        return self._with(name=name, notes=(*self.notes, *notes))

    def _with(self, **changed: Any) -> Profile:
        parts = {name: getattr(self, name) for name in Profile.__annotations__}
        return Profile(_KEY, **{**parts, **changed})

    def to_pandas(
        self,
        by: Literal["sample", "stack"] = "sample",
        frames: Literal["stack", "columns"] = "stack",
    ) -> pd.DataFrame:
        """One row per sample, or per distinct stack with its weights summed.

        Columns: ``stack`` (tuple of function names, outermost first), or with frames="columns"
        ``frame_0``, ``frame_1``, ... (categories; empty below the innermost); the values as
        ``TYPE_UNIT``; per sample also ``time``, ``thread``, ``task`` and the labels.
        """
        from ragprof.profiles import tabular

        return tabular.to_pandas(self, by, frames)

    def sql(self, query: str) -> pd.DataFrame:
        """The result of one SELECT over ``samples``, ``stacks`` and ``frames`` of this profile.

        ``samples``: sample, stack_id, the values as ``TYPE_UNIT``, time (UTC; a duration when only
        the recorder's clock is known), thread, task, labels. ``stacks``: stack_id, depth (0 is the
        outermost), frame_id, line. ``frames``: frame_id, function, module, file, line, origin. It
        can only read. Raises `ragprof.query.QueryError`.
        """
        from ragprof.profiles import tabular

        return tabular.sql(self, query)

    def functions(self, value: int = 0) -> pd.DataFrame:
        """Self and total weight of every function, the largest self first.

        Columns: function, module, file, line, self, total (in the unit of the value type). A
        recursive function counts once per sample in its total, so no total exceeds the profile's.
        """
        from ragprof.profiles import tabular

        return tabular.functions(self, value)

    def write(self, path: str | Path, *, format: str | None = None, alpha: bool = False) -> Path:
        """Writes the profile in a format, else in that of the name of ``path``; returns the path.

        `.speedscope.json`, `.pb.gz`, `.collapsed` and `.folded`, `.trace.json`; `.otlp` only with
        ``alpha=True``. What the format cannot carry is told in a `LossWarning`. Raises
        `ProfileError` for another name and for a profile that the format cannot hold.
        """
        from ragprof.profiles.write import write_profile

        return write_profile(self, path, format=format, alpha=alpha)

    def to_speedscope(self, path: str | Path) -> Path:
        """Writes JSON for speedscope; see `write`."""
        return self.write(path, format="speedscope")

    def to_pprof(self, path: str | Path) -> Path:
        """Writes pprof's compressed protocol buffer, for ``go tool pprof``; see `write`."""
        return self.write(path, format="pprof")

    def to_collapsed(self, path: str | Path) -> Path:
        """Writes collapsed stacks, one a line, for inferno and flamegraph.pl; see `write`."""
        return self.write(path, format="collapsed")

    def to_chrome(self, path: str | Path) -> Path:
        """Writes trace events for Perfetto and chrome://tracing; see `write`."""
        return self.write(path, format="chrome")

    def to_otlp(self, path: str | Path, *, alpha: bool = False) -> Path:
        """Writes OTLP profiles, whose format is not stable yet: needs ``alpha=True``."""
        return self.write(path, format="otlp", alpha=alpha)

    def flamegraph(self, baseline: Profile | None = None, title: str = "") -> Any:
        """A flame graph that shows itself in a notebook, against ``baseline`` if given."""
        from ragprof.flamegraph import FlameGraph

        return FlameGraph(self, baseline, title or self.name)

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, str]:
        bundle: dict[str, str] = self.flamegraph()._repr_mimebundle_()
        return bundle

    def __repr__(self) -> str:
        kind = self.value_types[0]
        return (
            f"<Profile {self.name or 'without a name'}: {len(self)} samples on "
            f"{self.stack_count} stacks, {self.total():g} {kind.unit} {kind.type}>"
        )


class ProfileBuilder:
    """The one way to make a Profile: intern frames and stacks, add samples, build.

    ``value_types`` name the weights; the default is the wall time that a sample stands for.
    """

    def __init__(
        self,
        value_types: Sequence[ValueType] = (ValueType("wall", "nanoseconds"),),
        *,
        name: str = "",
        clock: Clock = "utc",
    ) -> None:
        if not value_types:
            raise ProfileError("a profile needs at least one value type, such as wall nanoseconds.")
        self.value_types = tuple(ValueType(*kind) for kind in value_types)
        self.name = name
        self.clock = clock
        self._frames: dict[Frame, int] = {}
        self._stacks: dict[tuple[tuple[int, ...], tuple[int, ...]], int] = {}
        self._stack_frames: list[Ints] = []
        self._stack_lines: list[Ints] = []
        self._lengths: list[Ints] = []
        self._stack_count = 0
        self._stack_size = 0
        self._chunks: list[Chunk] = []
        self._single: list[tuple[Any, ...]] = []
        self._notes: list[str] = []

    def note(self, text: str) -> None:
        """Something that the reader of the profile must know, such as samples missed."""
        self._notes.append(text)

    def frame(self, frame: Frame) -> int:
        """The id of a frame; equal frames have one id."""
        return self._frames.setdefault(frame, len(self._frames))

    def stack(self, frames: Sequence[int], lines: Sequence[int] | None = None) -> int:
        """The id of a stack of frame ids, outermost first; equal stacks have one id."""
        lines = [0] * len(frames) if lines is None else lines
        if len(lines) != len(frames):
            raise ProfileError(f"a stack of {len(frames)} frames with {len(lines)} lines.")
        key = (tuple(frames), tuple(lines))
        known = self._stacks.get(key)
        if known is None:
            known = self._stacks[key] = self._append_stacks(
                np.array(frames, dtype=np.int64),
                np.array(lines, dtype=np.int64),
                np.array([len(frames)], dtype=np.int64),
            )
        return known

    def stacks(self, frames: ArrayLike, lines: ArrayLike, lengths: ArrayLike) -> Ints:
        """Many stacks at once, flat; returns their ids. They are not compared with others."""
        counts = np.asarray(lengths, dtype=np.int64)
        first = self._append_stacks(
            np.asarray(frames, dtype=np.int64), np.asarray(lines, dtype=np.int64), counts
        )
        return np.arange(first, first + len(counts), dtype=np.int64)

    def _append_stacks(self, frames: Ints, lines: Ints, lengths: Ints) -> int:
        if len(frames) and (frames.min() < 0 or frames.max() >= len(self._frames)):
            raise ProfileError(
                f"stack {self._stack_count} names a frame outside 0..{len(self._frames) - 1}."
            )
        if len(frames) != len(lines) or int(lengths.sum()) != len(frames):
            raise ProfileError("frames, lines and lengths of the stacks do not fit together.")
        self._stack_size += len(frames)
        refuse_depth(self._stack_size)
        first = self._stack_count
        self._stack_frames.append(frames)
        self._stack_lines.append(lines)
        self._lengths.append(lengths)
        self._stack_count += len(lengths)
        return first

    def sample(
        self,
        stack: int,
        *values: float,
        time: int | None = None,
        thread: int | None = None,
        task: int | None = None,
        labels: Mapping[str, str] | None = None,
    ) -> None:
        """One sample: a stack id and one weight per value type."""
        if len(values) != len(self.value_types):
            raise ProfileError(
                f"a sample with {len(values)} values where {len(self.value_types)} are declared."
            )
        self._single.append((stack, values, time, thread, task, dict(labels or {})))

    def samples(
        self,
        stacks: ArrayLike,
        values: ArrayLike,
        *,
        times: ArrayLike | None = None,
        threads: ArrayLike | None = None,
        tasks: ArrayLike | None = None,
        labels: Mapping[str, Label] | None = None,
    ) -> None:
        """Many samples at once: stack ids (n), values (n or n x value types), the rest (n)."""
        self._flush()
        ids = np.asarray(stacks, dtype=np.int64)
        weights = np.asarray(values, dtype=np.float64)
        weights = weights.reshape(len(ids), len(self.value_types))
        chunk = Chunk(ids, weights, ints(times), ints(threads), ints(tasks), dict(labels or {}))
        fault = chunk.fault()
        if fault:
            raise ProfileError(fault)
        self._chunks.append(chunk)

    def _flush(self) -> None:
        if not self._single:
            return
        rows, self._single = self._single, []
        names = {name: None for row in rows for name in row[5]}
        labels = {}
        for name in names:
            codes: dict[str, int] = {"": 0}
            column = [codes.setdefault(row[5].get(name, ""), len(codes)) for row in rows]
            labels[name] = Label(np.array(column, dtype=np.int64), tuple(codes))

        def column_of(index: int, nothing: int) -> Ints | None:
            if all(row[index] is None for row in rows):
                return None
            return np.array(
                [nothing if row[index] is None else row[index] for row in rows], dtype=np.int64
            )

        values = np.array([row[1] for row in rows], dtype=np.float64)
        self._chunks.append(
            Chunk(
                np.array([row[0] for row in rows], dtype=np.int64),
                values.reshape(len(rows), len(self.value_types)),
                column_of(2, NO_TIME),
                column_of(3, 0),
                column_of(4, 0),
                labels,
            )
        )

    def build(self) -> Profile:
        """The Profile. Raises `ProfileError` naming the sample that breaks a rule."""
        self._flush()
        chunks = self._chunks
        lengths = joined(self._lengths)
        sample_stacks = joined([chunk.stacks for chunk in chunks])
        values = (
            np.concatenate([chunk.values for chunk in chunks])
            if chunks
            else np.zeros((0, len(self.value_types)))
        )
        bad = np.flatnonzero((sample_stacks < 0) | (sample_stacks >= self._stack_count))
        if len(bad):
            raise ProfileError(
                f"sample {bad[0]} points at stack {sample_stacks[bad[0]]}, and there are "
                f"{self._stack_count} stacks: add the stack first."
            )
        wrong = np.argwhere(~(np.isfinite(values) & (values >= 0)))
        if len(wrong):
            row, column = (int(index) for index in wrong[0])
            raise ProfileError(
                f"sample {row} has {self.value_types[column].type} = {values[row, column]}: "
                "weights are finite and not negative; drop such samples before building."
            )
        return Profile(
            _KEY,
            frames=tuple(self._frames),
            stack_offsets=np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
            stack_frames=joined(self._stack_frames),
            stack_lines=joined(self._stack_lines),
            sample_stacks=sample_stacks,
            values=values,
            value_types=self.value_types,
            times=optional([(chunk.times, len(chunk.stacks)) for chunk in chunks], int(NO_TIME)),
            threads=optional([(chunk.threads, len(chunk.stacks)) for chunk in chunks], 0),
            tasks=optional([(chunk.tasks, len(chunk.stacks)) for chunk in chunks], 0),
            labels=joined_labels(chunks),
            name=self.name,
            notes=tuple(self._notes),
            clock=self.clock,
        )
