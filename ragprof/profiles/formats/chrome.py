"""Chrome trace events (Trace Event Format), of chrome://tracing, Perfetto, py-spy, viztracer.

Slices that nest become stacks: what is open on a thread, or in an asynchronous track, weighs the
time until something opens or closes. Flows, counters and instants carry no time and are counted.
"""

from __future__ import annotations

import json
import re
from typing import Any

from ragprof.profiles import fields, places, pyspy_names, quantities
from ragprof.profiles.content import Content
from ragprof.profiles.formats.collapsed import NO_STACK
from ragprof.profiles.model import Frame, Profile, ProfileBuilder, ProfileError, ValueType
from ragprof.profiles.slices import Mark, Slice, Track, add_tracks, merged

TITLE = "Chrome trace events"
LOOKS_FOR = "a JSON array of events with 'ph', or an object with traceEvents"
SUFFIXES = (".trace.json", ".chrometrace", ".chrome.json")
CARRIES = frozenset({"files", "times", "start_times", "threads", "tasks", "labels"})

EXPORTER = "ragprof"
_DURATION = {"B", "E", "X"}
_ASYNC_BEGIN, _ASYNC_END = {"b", "S"}, {"e", "F"}
_PASSED_OVER = {
    "s": "flows", "t": "flows", "f": "flows", "C": "counters", "i": "instants", "I": "instants",
    "R": "marks", "n": "instants", "T": "instants", "p": "instants",
    "N": "objects", "O": "objects", "D": "objects", "P": "samples", "v": "dumps", "V": "dumps",
    "c": "clock marks",
}  # fmt: skip
_PHASE = re.compile(r'"ph"\s*:')
_LABELS = ("trace_id", "span_id", "state", "wait", "service")


def recognises(content: Content) -> bool:
    """Events with a phase, in an array or under ``traceEvents``; the end may be cut off."""
    if content.has("traceEvents"):
        return isinstance(content.document["traceEvents"], list)
    if isinstance(content.document, list):
        return any(isinstance(event, dict) and "ph" in event for event in content.document[:100])
    begins = content.start.lstrip()
    return bool(content.json_fault) and (
        '"traceEvents"' in begins
        or (begins[:1] == "[" and re.search(r'"ph"\s*:', begins) is not None)
    )


def read(content: Content) -> list[Profile]:
    """One profile of wall time; thread, process and their names are in the samples.

    Asynchronous slices are of no thread: each track is a task, with the label ``state`` = async.
    As in Chrome, a missing end of the file or a comma too many is no fault, an end without a
    beginning is passed over, and what was not closed ends with the trace; all are noted. Raises
    `ProfileError` naming the event at fault.
    """
    events, other, cut = _events(content)
    tracks: dict[tuple[object, ...], Track] = {}
    names: dict[tuple[str, int], str] = {}
    passed: dict[str, int] = {}
    own = other.get("exporter") == EXPORTER
    for number, event in enumerate(events):
        if not isinstance(event, dict):
            raise ProfileError(f"event {number} is not an object.")
        phase = event.get("ph")
        if phase == "M":
            _name(event, names)
        elif phase in _DURATION or phase in _ASYNC_BEGIN or phase in _ASYNC_END:
            _add(event, phase, number, tracks, own)
        elif isinstance(phase, str) and phase in _PASSED_OVER:
            passed[_PASSED_OVER[phase]] = passed.get(_PASSED_OVER[phase], 0) + 1
        else:
            raise ProfileError(f"event {number} has the phase {phase!r}, which is none.")
    if not tracks:
        raise ProfileError("no event of it lasts: there are no slices to make stacks of.")
    for track in tracks.values():
        _name_track(track, names, other if own else {})
    kind, clock, start, timed = quantities.WALL, "start", 0, True
    if own:
        kind = ValueType(
            fields.text(other, "type", kind.type), fields.text(other, "unit", kind.unit)
        )
        clock = fields.text(other, "clock")
        start, timed = fields.whole(other, "start_ns"), bool(other.get("timed"))
    builder = ProfileBuilder([kind], clock="utc" if clock == "utc" else "start")
    factor = 1e3 if quantities.is_time(kind) else 1.0  # other units are written as microseconds
    faults = add_tracks(
        builder,
        list(tracks.values()),
        lambda microseconds: quantities.scaled(microseconds, factor),
        start=start,
        timed=timed,
    )
    if cut:
        faults.append(f"The file ends in the middle, after {len(events)} events.")
    faults += [
        f"{count} {what} carry no time and were passed over." for what, count in passed.items()
    ]
    for fault in faults:
        builder.note(fault)
    return [builder.build()]


def _events(content: Content) -> tuple[list[Any], dict[str, Any], bool]:
    document = content.document
    if isinstance(document, list):
        return document, {}, False
    if isinstance(document, dict):
        other = document.get("otherData")
        events = fields.field(document, "traceEvents", list)
        return events, other if isinstance(other, dict) else {}, False
    return _lenient(content.text), {}, True


def _lenient(text: str) -> list[Any]:
    """The events of an array that is cut off or has commas too many, as Chrome reads it."""
    at = text.find("[", text.find('"traceEvents"') if text.lstrip()[:1] == "{" else 0) + 1
    decoder = json.JSONDecoder()
    space = re.compile(r"[\s,]*")
    events: list[Any] = []
    while True:
        gap = space.match(text, at)
        at = gap.end() if gap else at
        if at >= len(text) or text[at] == "]":
            return events
        try:
            event, at = decoder.raw_decode(text, at)
        except json.JSONDecodeError as error:
            if error.pos >= len(text) - 1 or "\n" not in text[at:].strip() or not _closes(text, at):
                return events  # the event that was being written
            raise ProfileError(f"event {len(events)} is no JSON: {error}.") from None
        events.append(event)


def _closes(text: str, at: int) -> bool:
    """Whether a later event begins, so that the fault is not the end of the file."""
    return re.search(r"\}\s*,\s*\{", text[at:]) is not None


def _add(
    event: dict[str, Any],
    phase: str,
    number: int,
    tracks: dict[tuple[object, ...], Track],
    own: bool,
) -> None:
    where = f"event {number}"
    process, thread = _id(event.get("pid")), _id(event.get("tid"))
    begin = fields.number(event, "ts", where)
    if phase in _DURATION:
        key: tuple[object, ...] = (process, thread)
        track = tracks.get(key) or tracks.setdefault(key, Track(process, thread))
    else:
        name = event.get("id", event.get("id2"))
        key = ("async", process, fields.text(event, "cat"), fields.text(event, "scope"), str(name))
        track = tracks.get(key) or tracks.setdefault(
            key, Track(process, 0, task=len(tracks) + 1, labels={"state": "async"})
        )
    if phase in ("E", *_ASYNC_END):
        track.marks.append(Mark(begin, number, fields.text(event, "name"), None))
        return
    frame, line = _frame(event, own)
    labels = _labels(event, own)
    if phase == "X":
        end = begin + fields.weight(event.get("dur", 0.0), f"{where}.dur")
        track.slices.append(Slice(begin, end, number, frame, line, labels))
    else:
        one = Slice(begin, begin, number, frame, line, labels)
        track.marks.append(Mark(begin, number, "", one))


def _frame(event: dict[str, Any], own: bool) -> tuple[Frame | None, int]:
    name = fields.text(event, "name") or "(unnamed)"
    args = event.get("args")
    if own and name == NO_STACK and not (isinstance(args, dict) and "file" in args):
        return None, 0
    file, first, line = "", 0, 0
    if isinstance(args, dict) and isinstance(args.get("filename"), str):
        file, line = args["filename"], max(0, fields.whole(args, "line"))
    elif isinstance(args, dict) and isinstance(args.get("file"), str):
        file, first = args["file"], max(0, fields.whole(args, "first_line"))
    else:
        name, file, first = pyspy_names.place(name) or (name, "", 0)  # as viztracer writes it
    return places.frame(name, file, first), line


def _labels(event: dict[str, Any], own: bool) -> dict[str, str]:
    args = event.get("args")
    if not isinstance(args, dict):
        return {}
    if own:
        labels = args.get("labels")
        return {str(k): str(v) for k, v in labels.items()} if isinstance(labels, dict) else {}
    return {name: args[name] for name in _LABELS if isinstance(args.get(name), str)}


def _id(value: object) -> int:
    """A process or thread as a number; a text that is none is told apart by a hash of it."""
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) < 1 << 62:
        return value
    if value is None:
        return 0
    text = str(value)
    if text.lstrip("-").isdecimal() and len(text) < 18:
        return int(text)
    return int.from_bytes(text.encode("utf-8", "replace")[:7], "big")


def _name(event: dict[str, Any], names: dict[tuple[str, int], str]) -> None:
    args = event.get("args")
    kind = event.get("name")
    if isinstance(args, dict) and kind in ("thread_name", "process_name"):
        key = (str(kind), _id(event.get("tid" if kind == "thread_name" else "pid")))
        names[key] = fields.text(args, "name")


def _name_track(track: Track, names: dict[tuple[str, int], str], other: dict[str, Any]) -> None:
    if other:
        tracks = other.get("tracks")
        pair = tracks.get(str(track.thread)) if isinstance(tracks, dict) else None
        if isinstance(pair, list) and len(pair) == 2:
            track.thread, track.task = _id(pair[0]), _id(pair[1])
        return
    if track.process:
        track.labels["process"] = str(track.process)
    for kind, number in (("process_name", track.process), ("thread_name", track.thread)):
        if number and names.get((kind, number)):
            track.labels[kind] = names[kind, number]
    root = track.outermost()
    whose = pyspy_names.thread_of(root)
    if whose.thread:  # py-spy has the thread as the outermost frame
        hidden = places.frame(root)
        track.slices = [
            one._replace(frame=None) if one.frame == hidden else one for one in track.slices
        ]
        track.marks = [
            mark._replace(one=mark.one._replace(frame=None), name="")
            if mark.one and mark.one.frame == hidden
            else mark._replace(name="")
            if mark.name == root
            else mark
            for mark in track.marks
        ]
        track.thread = whose.thread
        track.labels |= whose.labels()


def write(profile: Profile) -> bytes:
    """Slices of every thread and task; samples with equal outer frames that touch are one slice.

    A sample lies at its time and lasts as long as it weighs; where samples of one thread would
    overlap, the later one starts when the earlier ends. Without times they lie one after another.
    Units that are no times are written as microseconds. Only the first value type is written.
    """
    kind = profile.value_types[0]
    slices, start = merged(profile, 1.0 if quantities.is_time(kind) else 1e3)
    tracks: dict[tuple[int, int], int] = {}
    events: list[dict[str, Any]] = []
    for one in slices:
        key = (one.thread, one.task)
        if key not in tracks:
            tracks[key] = len(tracks) + 1
            events.append(_named_track(tracks[key], *key))
        event = {
            "name": NO_STACK,
            "ph": "X",
            "ts": _microseconds(one.begin),
            "dur": _microseconds(one.end - one.begin),
            "pid": 1,
            "tid": tracks[key],
        }
        args: dict[str, Any] = {"labels": one.labels} if one.labels else {}
        if one.frame >= 0:
            frame = profile.frames[one.frame]
            event["name"] = frame.function
            args |= {"file": frame.file, "first_line": frame.line} if frame.file else {}
        events.append({**event, "args": args} if args else event)
    other = {
        "exporter": EXPORTER,
        "type": kind.type,
        "unit": kind.unit,
        "clock": profile.clock,
        "start_ns": start,
        "timed": profile.times is not None,
        "tracks": {str(number): list(key) for key, number in tracks.items()},
    }
    document = {"traceEvents": events, "displayTimeUnit": "ms", "otherData": other}
    text = json.dumps(document, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return text.encode("utf-8", "replace")


def _named_track(number: int, thread: int, task: int) -> dict[str, Any]:
    name = f"thread {thread}" if thread or not task else ""
    name += f" task {task}" if task else ""
    return {
        "name": "thread_name",
        "ph": "M",
        "pid": 1,
        "tid": number,
        "args": {"name": name.strip()},
    }


def _microseconds(nanoseconds: float) -> float | int:
    value = nanoseconds / 1e3
    return int(value) if value.is_integer() else value
