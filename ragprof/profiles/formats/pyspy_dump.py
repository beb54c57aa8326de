"""``py-spy dump --json``: the stack of every thread at one moment."""

from __future__ import annotations

from typing import Any

from ragprof.profiles import fields, places
from ragprof.profiles.content import Content
from ragprof.profiles.model import Profile, ProfileBuilder
from ragprof.profiles.quantities import SAMPLES

TITLE = "a py-spy dump"
LOOKS_FOR = "a JSON array of threads with thread_id, active and frames"
SUFFIXES = (".dump.json",)


def recognises(content: Content) -> bool:
    """A JSON array of py-spy's threads."""
    document = content.document
    return (
        isinstance(document, list)
        and bool(document)
        and all(
            isinstance(thread, dict) and {"frames", "thread_id", "active"} <= thread.keys()
            for thread in document[:100]
        )
    )


def read(content: Content) -> list[Profile]:
    """One sample of weight 1 per thread, with the label ``state``: running or waiting.

    The values of local variables, which a dump may have, are not kept. Raises `ProfileError`
    naming the thread at fault.
    """
    builder = ProfileBuilder([SAMPLES])
    for number, thread in enumerate(content.document):
        frames, lines = [], []
        for index, entry in enumerate(fields.field(thread, "frames", list, f"[{number}]")):
            name = fields.field(entry, "name", str, f"[{number}].frames[{index}]")
            frames.append(builder.frame(places.frame(name, fields.text(entry, "filename"))))
            lines.append(max(0, fields.whole(entry, "line")))
        builder.sample(
            builder.stack(frames[::-1], lines[::-1]),
            1.0,
            thread=fields.whole(thread, "os_thread_id") or fields.whole(thread, "thread_id"),
            labels=_labels(thread),
        )
    return [builder.build()]


def _labels(thread: dict[str, Any]) -> dict[str, str]:
    labels = {
        "process": fields.text(thread, "pid"),
        "thread_name": fields.text(thread, "thread_name"),
        "state": "running" if thread.get("active") else "waiting",
        "wait": "",
    }
    return {name: text for name, text in labels.items() if text}
