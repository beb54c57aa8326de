"""pyinstrument's session: ``.pyisession``, and the same JSON under another name.

Every sample with its stack and its seconds; a frame is ``function NUL file NUL first line``, then
attributes, among them the line that ran. A stack begins with its thread.
"""

from __future__ import annotations

import math

from ragprof.profiles import fields, places, quantities
from ragprof.profiles.content import Content
from ragprof.profiles.model import Frame, Profile, ProfileBuilder, ProfileError

TITLE = "a pyinstrument session"
LOOKS_FOR = "a JSON object with frame_records and start_call_stack"
SUFFIXES = (".pyisession",)

SYNTHETIC = {
    "[await]": "awaiting",
    "[out-of-context]": "awaiting",
}
"""Innermost frames of pyinstrument that tell a state, and the state."""

_THREAD = "<thread>"
_LINE = "l"
_CLASS = "c"
_MAIN = "pyinstrument/__main__.py"
_RUNNERS = ("<string>", "<frozen runpy>", "/runpy.py")


def recognises(content: Content) -> bool:
    """A JSON object with the fields of a session."""
    return content.has("frame_records", "start_call_stack")


def read(content: Content) -> list[Profile]:
    """One sample per record, at its time, with thread and the label ``state`` of awaiting ones.

    Raises `ProfileError` naming the record at fault.
    """
    document = content.document
    start = fields.number(document, "start_time", default=0.0)
    builder = ProfileBuilder([quantities.WALL], name=fields.text(document, "target_description"))
    now = start * 1e9
    known: dict[str, tuple[int, int]] = {}
    for number, record in enumerate(fields.field(document, "frame_records", list)):
        where = f"frame_records[{number}]"
        if not isinstance(record, list) or len(record) != 2 or not isinstance(record[0], list):
            raise ProfileError(f"{where} is not a stack and its seconds.")
        weight = quantities.scaled(fields.weight(record[1], where), 1e9)
        now += weight
        if not math.isfinite(now) or abs(now) >= 1 << 62:
            raise ProfileError(f"{where} lies beyond all times.")
        path, lines = [], []
        thread, thread_name, state = 0, "", ""
        cut = _own_frames(record[0])
        for depth, text in enumerate(record[0]):
            if not isinstance(text, str):
                raise ProfileError(f"{where} has a frame that is no text.")
            name, _, rest = text.partition("\x00")
            if depth == 0 and rest.startswith(_THREAD):
                thread_name, written = name, rest.rpartition("\x00")[2]
                thread = int(written) if written.isdecimal() and len(written) < 19 else 0
                continue
            state = SYNTHETIC.get(name, state)
            if name == "[self]" or depth < cut:
                continue
            if text not in known:
                known[text] = (builder.frame(_frame(text)), _line(text))
            frame, line = known[text]
            path.append(frame)
            lines.append(line)
        labels = {"thread_name": thread_name, "state": state}
        builder.sample(
            builder.stack(path, lines),
            weight,
            time=int(now),
            thread=thread or None,
            labels={label: value for label, value in labels.items() if value},
        )
    missed = fields.number(document, "duration", default=0.0) * 1e9 - (now - start * 1e9)
    if missed > 1e7:
        builder.note(f"{missed / 1e9:.2f} s of the session have no sample.")
    return [builder.build()]


def _own_frames(stack: list[object]) -> int:
    """How many outer frames are those of pyinstrument's command, which starts the program."""
    files = [str(text).split("\x00")[1:2] for text in stack[:16]]
    outer = [index for index, file in enumerate(files[:8]) if file and file[0].endswith(_MAIN)]
    cut = outer[-1] + 1 if outer else 0
    while outer and cut < len(files) and files[cut] and files[cut][0].endswith(_RUNNERS):
        cut += 1
    return cut


def _frame(text: str) -> Frame:
    identifier, _, attributes = text.partition("\x01")
    name, _, rest = identifier.partition("\x00")
    file, _, written = rest.partition("\x00")
    line = int(written) if written.isdecimal() and len(written) < 10 else 0
    for attribute in attributes.split("\x01"):
        if attribute.startswith(_CLASS):
            name = f"{attribute[1:]}.{name}"
    return places.frame(name, file, line)


def _line(text: str) -> int:
    for attribute in text.partition("\x01")[2].split("\x01"):
        if attribute.startswith(_LINE) and attribute[1:].isdecimal() and len(attribute) < 10:
            return int(attribute[1:])
    return 0
