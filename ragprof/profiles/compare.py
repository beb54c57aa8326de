"""The difference of profiles: which stacks and functions have more weight, and which less."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ragprof.profiles.distinct import distinct_stacks, gathered
from ragprof.profiles.model import Floats, Profile, ProfileBuilder, ProfileError, ValueType

if TYPE_CHECKING:
    import pandas as pd

KEYS = ["function", "module", "file", "line"]


@dataclass(frozen=True)
class Comparison:
    """Two or more profiles on common stacks; it shows itself in a notebook.

    ``stacks`` holds the union of the stacks as a Profile with one sample per stack and one value
    type per profile, in their order. ``names``: one per profile, "before" and "after" for two. In a
    normalised comparison the values are shares of the profile's own total. Differences are the last
    profile minus the first.
    """

    stacks: Profile
    profiles: tuple[Profile, ...]
    names: tuple[str, ...]
    normalized: bool

    def difference(self) -> Floats:
        """The last profile minus the first, per stack of ``stacks``."""
        difference: Floats = self.stacks.values[:, -1] - self.stacks.values[:, 0]
        return difference

    def empty(self) -> bool:
        """True when no stack differs by more than rounding."""
        return not len(self._differing())

    def changed(self) -> pd.DataFrame:
        """Stacks that differ: stack (tuple of function names), a column per profile, difference.

        The largest absolute difference first; a stack on one side only has 0 on the other.
        """
        import pandas as pd

        rows, difference = self._differing(), self.difference()
        rows = rows[np.argsort(-np.abs(difference[rows]), kind="stable")]
        return pd.DataFrame(
            {
                "stack": [
                    tuple(frame.function for frame in self.stacks.stack(row))
                    for row in rows.tolist()
                ],
                **{name: self.stacks.values[rows, at] for at, name in enumerate(self.names)},
                "difference": difference[rows],
            }
        )

    def _differing(self) -> np.ndarray[Any, np.dtype[np.int64]]:
        scale = float(self.stacks.values.sum()) or 1.0
        return np.flatnonzero(np.abs(self.difference()) > 1e-12 * scale)

    def functions(self) -> pd.DataFrame:
        """Self and total of every function in every profile, and their differences.

        Columns: function, module, file, line, then self_NAME, total_NAME for each of ``names``,
        self_difference, total_difference; the largest self difference first.
        """

        table: pd.DataFrame | None = None
        for at, name in enumerate(self.names):
            one = self.stacks.functions(at).rename(
                columns={"self": f"self_{name}", "total": f"total_{name}"}
            )
            table = one if table is None else table.merge(one, on=KEYS, how="outer")
        assert table is not None
        table = table.fillna({name: 0.0 for name in table.columns if name not in KEYS})
        for kind in ("self", "total"):
            table[f"{kind}_difference"] = (
                table[f"{kind}_{self.names[-1]}"] - table[f"{kind}_{self.names[0]}"]
            )
        order = table["self_difference"].abs().sort_values(ascending=False, kind="stable").index
        return table.loc[order].reset_index(drop=True)

    def flamegraph(self, title: str = "") -> Any:
        """The last profile against the first as a differential flame graph."""
        from ragprof.flamegraph import FlameGraph

        title = title or f"{self.labels()[-1]} against {self.labels()[0]}"
        return FlameGraph(self.profiles[-1], self.profiles[0], title, normalized=self.normalized)

    def labels(self) -> list[str]:
        """What the profiles are called for people: their own names where they differ."""
        own = [profile.name for profile in self.profiles]
        return own if all(own) and len(set(own)) == len(own) else list(self.names)

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, str]:
        from ragprof.flamegraph.comparison import mimebundle

        return mimebundle(self)


def compare(before: Profile, after: Profile, *more: Profile, normalize: bool = False) -> Comparison:
    """The profiles stack by stack, by their first value types.

    Stacks are the same when their functions (name, module, file, first line) are the same; the
    lines that run may differ. ``normalize`` compares shares of the totals, for profiles of unequal
    length. Raises `ProfileError` when the units differ.
    """
    profiles = (before, after, *more)
    first = before.value_types[0]
    for profile in profiles[1:]:
        if profile.value_types[0] != first:
            raise ProfileError(
                f"{' '.join(profile.value_types[0])} cannot be compared with "
                f"{' '.join(first)}: choose profiles of one value type."
            )
    names = ("before", "after") if len(profiles) == 2 else _names(profiles)
    builder = ProfileBuilder(
        [ValueType(f"{first.type}_{name}", first.unit) for name in names], name=after.name
    )
    flat, lengths, sides, weights = [], [], [], []
    for side, profile in enumerate(profiles):
        frames = np.array([builder.frame(frame) for frame in profile.frames], dtype=np.int64)
        folded = profile.stack_weights()
        used = np.flatnonzero(folded)
        sizes = np.diff(profile.stack_offsets)[used]
        inside = gathered(profile.stack_offsets[:-1][used], sizes)
        flat.append(frames[profile.stack_frames[inside]] if len(frames) else inside)
        lengths.append(sizes)
        sides.append(np.full(len(used), side))
        total = float(folded.sum())
        weights.append(folded[used] / total if normalize and total > 0 else folded[used])
    paths, sizes = np.concatenate(flat), np.concatenate(lengths)
    which_first, which = distinct_stacks(paths, sizes)
    values = np.zeros((len(which_first), len(profiles)))
    np.add.at(values, (which, np.concatenate(sides)), np.concatenate(weights))
    begins = np.cumsum(sizes) - sizes
    chosen = paths[gathered(begins[which_first], sizes[which_first])]
    ids = builder.stacks(chosen, np.zeros_like(chosen), sizes[which_first])
    builder.samples(ids, values)
    return Comparison(builder.build(), profiles, names, normalize)


def _names(profiles: Sequence[Profile]) -> tuple[str, ...]:
    """Names that can be columns: the profiles' own, else their numbers; each only once."""
    names: list[str] = []
    for number, profile in enumerate(profiles, 1):
        name = profile.name or str(number)
        names.append(name if name not in names else f"{name} ({number})")
    return tuple(names)
