"""What a sample file must read as, in words; ``python tests/profiles/snapshots.py`` writes anew."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ragprof.profiles.model import Profile
from ragprof.profiles.read import read_profiles

HERE = Path(__file__).parent
FILES = HERE / "files"
SNAPSHOTS = HERE / "snapshots"
STACKS = 12


def files() -> list[Path]:
    """The sample files."""
    return sorted(FILES.iterdir())


def snapshot(path: Path) -> str:
    """The profiles of a file: what they measure, their notes and labels, the heaviest stacks."""
    return "\n".join(_described(one) for one in read_profiles(path, trusted=True)) + "\n"


def _described(profile: Profile) -> str:
    kinds = ", ".join(
        f"{kind.type} {profile.total(index):.6g} {kind.unit}"
        for index, kind in enumerate(profile.value_types)
    )
    lines = [f"{profile.name}: {len(profile)} samples, {kinds}"]
    if profile.times is not None:
        times = profile.times[profile.times > np.iinfo(np.int64).min]
        lines.append(f"  clock {profile.clock}, {len(times)} times, first {times.min()}")
    if profile.threads is not None:
        lines.append(f"  threads {sorted(set(profile.threads.tolist()))}")
    for name, label in sorted(profile.labels.items()):
        lines.append(f"  {name}: {', '.join(sorted(set(label.values())))[:200]}")
    lines += [f"  note: {note}" for note in profile.notes]
    folded: dict[str, float] = {}
    for index, weight in enumerate(profile.stack_weights().tolist()):
        low, high = profile.stack_offsets[index], profile.stack_offsets[index + 1]
        ran = profile.stack_lines[low:high].tolist()
        path = ";".join(
            f"{frame.function}:{line}" if line else frame.function
            for frame, line in zip(profile.stack(index), ran, strict=True)
        )
        folded[path] = folded.get(path, 0.0) + weight
    ordered = sorted(folded.items(), key=lambda item: (-item[1], item[0]))
    lines += [f"  {weight:.6g} {path or '(no stack)'}" for path, weight in ordered[:STACKS]]
    frame = max(profile.frames, default=None, key=lambda one: (one.file, one.function))
    if frame is not None:
        lines.append(f"  of the frames, the last by file is {tuple(frame)}")
    return "\n".join(lines)


def main() -> None:
    SNAPSHOTS.mkdir(exist_ok=True)
    for path in files():
        (SNAPSHOTS / f"{path.name}.txt").write_text(snapshot(path), encoding="utf-8")


if __name__ == "__main__":
    main()
