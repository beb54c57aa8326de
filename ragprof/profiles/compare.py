"""The difference of two profiles: which stacks and functions have more weight, and which less."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ragprof.profiles.model import Floats, Profile, ProfileBuilder, ProfileError

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Comparison:
    """Two profiles on common stacks.

    ``stacks`` holds the union of the stacks as a Profile with one sample per stack and two value
    types, after and before. In a normalised comparison both are shares of their own total.
    """

    stacks: Profile
    normalized: bool

    def difference(self) -> Floats:
        """After minus before, per stack of ``stacks``."""
        difference: Floats = self.stacks.values[:, 0] - self.stacks.values[:, 1]
        return difference

    def empty(self) -> bool:
        """True when no stack differs by more than rounding."""
        scale = float(self.stacks.values.sum()) or 1.0
        return bool(np.all(np.abs(self.difference()) <= 1e-12 * scale))

    def changed(self) -> pd.DataFrame:
        """Stacks that differ: stack (tuple of function names), after, before, difference.

        The largest absolute difference first; a stack on one side only has 0 on the other.
        """
        import pandas as pd

        difference = self.difference()
        scale = float(self.stacks.values.sum()) or 1.0
        rows = np.flatnonzero(np.abs(difference) > 1e-12 * scale)
        rows = rows[np.argsort(-np.abs(difference[rows]), kind="stable")]
        return pd.DataFrame(
            {
                "stack": [
                    tuple(frame.function for frame in self.stacks.stack(row))
                    for row in rows.tolist()
                ],
                "after": self.stacks.values[rows, 0],
                "before": self.stacks.values[rows, 1],
                "difference": difference[rows],
            }
        )

    def functions(self) -> pd.DataFrame:
        """Self and total of every function on both sides and their differences.

        Columns: function, module, file, line, self_after, self_before, self_difference,
        total_after, total_before, total_difference; the largest self difference first.
        """
        keys = ["function", "module", "file", "line"]
        after, before = self.stacks.functions(0), self.stacks.functions(1)
        table = after.merge(before, on=keys, how="outer", suffixes=("_after", "_before"))
        table = table.fillna(
            {f"{kind}_{side}": 0.0 for kind in ("self", "total") for side in ("after", "before")}
        )
        for kind in ("self", "total"):
            table[f"{kind}_difference"] = table[f"{kind}_after"] - table[f"{kind}_before"]
        order = table["self_difference"].abs().sort_values(ascending=False, kind="stable").index
        return table.loc[order].reset_index(drop=True)


def compare(after: Profile, before: Profile, *, normalize: bool = False) -> Comparison:
    """The difference ``after`` - ``before``, stack by stack, of their first value types.

    Stacks are the same when their functions (name, module, file, first line) are the same; the
    lines that run may differ. ``normalize`` compares shares of the totals, for profiles of unequal
    length. Raises `ProfileError` when the units differ.
    """
    if after.value_types[0] != before.value_types[0]:
        raise ProfileError(
            f"{' '.join(after.value_types[0])} cannot be compared with "
            f"{' '.join(before.value_types[0])}: choose profiles of one value type."
        )
    builder = ProfileBuilder([after.value_types[0], before.value_types[0]], name=after.name)
    sides: list[dict[int, float]] = []
    for profile in (after, before):
        frames = [builder.frame(frame) for frame in profile.frames]
        weights = profile.stack_weights()
        total = float(weights.sum())
        if normalize and total > 0:
            weights = weights / total
        side: dict[int, float] = {}
        for index in np.flatnonzero(weights).tolist():
            low, high = profile.stack_offsets[index], profile.stack_offsets[index + 1]
            path = [frames[frame] for frame in profile.stack_frames[low:high].tolist()]
            stack = builder.stack(path)
            side[stack] = side.get(stack, 0.0) + float(weights[index])
        sides.append(side)
    for stack in {**sides[0], **sides[1]}:
        builder.sample(stack, sides[0].get(stack, 0.0), sides[1].get(stack, 0.0))
    return Comparison(builder.build(), normalize)
