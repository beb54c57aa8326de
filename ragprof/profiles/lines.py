"""Weight by source line: where inside its functions a profile spends its time."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ragprof.profiles.model import Profile

if TYPE_CHECKING:
    import pandas as pd


def by_line(profile: Profile, value: int = 0) -> pd.DataFrame:
    """Self and total weight of every line that ran, the largest self first.

    Columns: file, line, function, module, self, total (in the unit of the value type). Frames of
    which the file or the running line is unknown are left out. A line that occurs several times in
    a stack (recursion) counts once in its total.
    """
    import pandas as pd

    weights = profile.stack_weights(value)
    lengths = np.diff(profile.stack_offsets)
    owners = np.repeat(np.arange(profile.stack_count), lengths)
    innermost = np.zeros(len(owners), dtype=bool)
    innermost[profile.stack_offsets[1:][lengths > 0] - 1] = True
    filed = np.array([bool(frame.file) for frame in profile.frames], dtype=bool)
    keep = (weights[owners] > 0) & (profile.stack_lines > 0)
    keep &= filed[profile.stack_frames] if len(filed) else False
    rows = pd.DataFrame(
        {
            "stack": owners[keep],
            "frame": profile.stack_frames[keep],
            "line": profile.stack_lines[keep],
            "self": np.where(innermost, weights[owners], 0.0)[keep],
        }
    )
    once = rows.groupby(["stack", "frame", "line"], as_index=False)["self"].max()
    once["total"] = weights[once["stack"].to_numpy(dtype=np.int64)]
    table = once.groupby(["frame", "line"], as_index=False)[["self", "total"]].sum()
    frames = [profile.frames[frame] for frame in table["frame"].tolist()]
    table["file"] = [frame.file for frame in frames]
    table["function"] = [frame.function for frame in frames]
    table["module"] = [frame.module for frame in frames]
    return table[["file", "line", "function", "module", "self", "total"]].sort_values(
        ["self", "total", "file", "line"], ascending=[False, False, True, True], ignore_index=True
    )
