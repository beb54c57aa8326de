"""Collapsed stacks as ``py-spy record --format raw`` writes them.

Frames read ``function (file:line)`` with the line that ran; a process and a thread are frames above
them. The weights are samples.
"""

from __future__ import annotations

from ragprof.profiles import places, pyspy_names
from ragprof.profiles.content import Content
from ragprof.profiles.formats import collapsed
from ragprof.profiles.model import Profile, ProfileBuilder
from ragprof.profiles.quantities import SAMPLES

TITLE = "py-spy's raw stacks"
LOOKS_FOR = "collapsed stacks whose frames read 'function (file:line)'"
SUFFIXES = ()


def recognises(content: Content) -> bool:
    """Most of the first stacks have py-spy's frames."""
    if content.is_binary or content.is_json:
        return False
    lines = collapsed.parsed("\n".join(collapsed.first_lines(content.start)), strict=False)
    fitting = sum(pyspy_names.is_stack(path) for path in lines.paths)
    return fitting * 2 > len(lines.paths) + lines.stray


def read(content: Content) -> list[Profile]:
    """One sample per line, with process, thread and its name; lines are those that ran.

    Raises `ProfileError` as `collapsed` does.
    """
    lines = collapsed.parsed(content.text)
    builder = ProfileBuilder([SAMPLES])
    for path, weight in zip(lines.paths, lines.weights, strict=True):
        names = path.split(";")
        whose, names = pyspy_names.split_origin(names)
        frames, ran = [], []
        for name in names:
            function, file, line = pyspy_names.parts(name)
            frames.append(builder.frame(places.frame(function, file)))
            ran.append(line)
        builder.sample(
            builder.stack(frames, ran),
            weight,
            thread=whose.thread or None,
            labels=whose.labels(),
        )
    collapsed.note_stray(builder, lines)
    return [builder.build()]
