"""The neutral Profile: every reader makes one, every view and writer reads one.

A Profile is made only by `ProfileBuilder`, so its invariants always hold: every sample points at
a stack, every stack at frames, and every value is finite and not negative. Raw samples are kept;
trees are built when something is drawn.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ragprof.errors import RagprofError

if TYPE_CHECKING:
    import pandas as pd

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

NO_TIME = np.iinfo(np.int64).min
"""Stands in `Profile.times` for a sample without a time."""


class ProfileError(RagprofError):
    """A profile that cannot be: says which sample, stack or frame breaks which rule."""


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


@dataclass(frozen=True)
class Label:
    """A label of every sample: codes into a vocabulary; the empty string is "no label"."""

    codes: Ints
    vocabulary: tuple[str, ...]

    def values(self) -> list[str]:
        """The label of each sample as text."""
        return [self.vocabulary[code] for code in self.codes.tolist()]


_KEY = object()


class Profile:
    """Stacks with weights. Arrays are read-only; use `ProfileBuilder` to make one.

    ``frames``: the distinct frames. ``stack_offsets`` (stacks + 1), ``stack_frames`` and
    ``stack_lines``: stack ``i`` is ``stack_frames[offsets[i]:offsets[i + 1]]``, outermost first,
    with the line that runs in each frame (0: unknown). ``sample_stacks`` (samples): the stack of
    each sample. ``values`` (samples x value types): the weights. ``times`` (ns since 1970, UTC, or
    `NO_TIME`), ``threads``, ``tasks`` (0: none): per sample, or None where nothing is known.
    ``labels``: by name, for example trace_id, span_id, state.
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

    def _with(self, **changed: Any) -> Profile:
        parts = {name: getattr(self, name) for name in Profile.__annotations__}
        return Profile(_KEY, **{**parts, **changed})

    def to_pandas(self) -> pd.DataFrame:
        """One row per sample: stack (tuple of function names), the values, times and labels."""
        import pandas as pd

        names = [
            tuple(frame.function for frame in self.stack(index))
            for index in range(self.stack_count)
        ]
        columns: dict[str, Any] = {"stack": [names[index] for index in self.sample_stacks.tolist()]}
        for index, kind in enumerate(self.value_types):
            columns[f"{kind.type}_{kind.unit}"] = self.values[:, index]
        if self.times is not None:
            nothing = self.times == NO_TIME
            times = pd.Series(pd.to_datetime(np.where(nothing, 0, self.times), utc=True, unit="ns"))
            columns["time"] = times.mask(nothing)
        for part in ("threads", "tasks"):
            if getattr(self, part) is not None:
                columns[part[:-1]] = getattr(self, part)
        for name, label in self.labels.items():
            columns[name] = pd.Categorical(label.values())
        return pd.DataFrame(columns)

    def functions(self, value: int = 0) -> pd.DataFrame:
        """Self and total weight of every function, the largest self first.

        Columns: function, module, file, line, self, total (in the unit of the value type). A
        recursive function counts once per sample in its total, so no total exceeds the profile's.
        """
        import pandas as pd

        weights = self.stack_weights(value)
        lengths = np.diff(self.stack_offsets)
        own = np.zeros(len(self.frames))
        leaves = lengths > 0
        np.add.at(own, self.stack_frames[self.stack_offsets[1:][leaves] - 1], weights[leaves])
        owners = np.repeat(np.arange(self.stack_count), lengths)
        pairs = pd.unique(owners * max(1, len(self.frames)) + self.stack_frames)
        stacks, frames = np.divmod(pairs, max(1, len(self.frames)))
        total = np.bincount(frames, weights=weights[stacks], minlength=len(self.frames))
        table = pd.DataFrame(self.frames, columns=list(Frame._fields)).drop(columns="origin")
        table["self"], table["total"] = own, total
        table = table[table["total"] > 0]
        return table.sort_values(
            ["self", "total", "function"], ascending=[False, False, True], ignore_index=True
        )

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
    ) -> None:
        if not value_types:
            raise ProfileError("a profile needs at least one value type, such as wall nanoseconds.")
        self.value_types = tuple(ValueType(*kind) for kind in value_types)
        self.name = name
        self._frames: dict[Frame, int] = {}
        self._stacks: dict[tuple[tuple[int, ...], tuple[int, ...]], int] = {}
        self._stack_frames: list[Ints] = []
        self._stack_lines: list[Ints] = []
        self._lengths: list[Ints] = []
        self._stack_count = 0
        self._chunks: list[_Chunk] = []
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
        self._chunks.append(
            _Chunk(ids, weights, _ints(times), _ints(threads), _ints(tasks), dict(labels or {}))
        )

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
            _Chunk(
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
        lengths = _joined(self._lengths)
        sample_stacks = _joined([chunk.stacks for chunk in chunks])
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
            stack_frames=_joined(self._stack_frames),
            stack_lines=_joined(self._stack_lines),
            sample_stacks=sample_stacks,
            values=values,
            value_types=self.value_types,
            times=_optional([(chunk.times, len(chunk.stacks)) for chunk in chunks], int(NO_TIME)),
            threads=_optional([(chunk.threads, len(chunk.stacks)) for chunk in chunks], 0),
            tasks=_optional([(chunk.tasks, len(chunk.stacks)) for chunk in chunks], 0),
            labels=_joined_labels(chunks),
            name=self.name,
            notes=tuple(self._notes),
        )


@dataclass
class _Chunk:
    stacks: Ints
    values: Floats
    times: Ints | None
    threads: Ints | None
    tasks: Ints | None
    labels: dict[str, Label]

    def __post_init__(self) -> None:
        columns = [self.times, self.threads, self.tasks]
        columns += [label.codes for label in self.labels.values()]
        if any(column is not None and len(column) != len(self.stacks) for column in columns):
            raise ProfileError(f"columns of {len(self.stacks)} samples have different lengths.")
        for name, label in self.labels.items():
            codes = label.codes
            if len(codes) and (codes.min() < 0 or codes.max() >= len(label.vocabulary)):
                raise ProfileError(f"label {name!r} has a code outside its vocabulary.")


def _ints(column: ArrayLike | None) -> Ints | None:
    return None if column is None else np.asarray(column, dtype=np.int64)


def _joined(parts: Sequence[Ints]) -> Ints:
    return np.concatenate(parts).astype(np.int64) if parts else np.zeros(0, dtype=np.int64)


def _optional(parts: Sequence[tuple[Ints | None, int]], nothing: int) -> Ints | None:
    if all(part is None for part, _ in parts):
        return None
    return _joined(
        [
            np.full(length, nothing, dtype=np.int64) if part is None else part
            for part, length in parts
        ]
    )


def _joined_labels(chunks: Sequence[_Chunk]) -> dict[str, Label]:
    labels: dict[str, Label] = {}
    for name in {name: None for chunk in chunks for name in chunk.labels}:
        codes: dict[str, int] = {"": 0}
        columns = []
        for chunk in chunks:
            label = chunk.labels.get(name)
            if label is None:
                columns.append(np.zeros(len(chunk.stacks), dtype=np.int64))
                continue
            renamed = [codes.setdefault(text, len(codes)) for text in label.vocabulary]
            columns.append(np.array(renamed or [0], dtype=np.int64)[label.codes])
        labels[name] = Label(_joined(columns), tuple(codes))
    return labels
