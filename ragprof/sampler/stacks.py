"""The dictionaries of frames and stacks: each is numbered when it is first seen."""

from __future__ import annotations

import os
import sysconfig
from types import CodeType, FrameType
from typing import Any

MAX_DEPTH = 200
_MAX_KEYS = 50_000  # beyond this the look-up tables start afresh; ids stay unique

_HERE = os.path.dirname(os.path.abspath(__file__))
_STDLIB = tuple(
    {os.path.abspath(sysconfig.get_path(name)) + os.sep for name in ("stdlib", "platstdlib")}
)
_LIBRARY = (f"{os.sep}site-packages{os.sep}", f"{os.sep}dist-packages{os.sep}")


def origin_of(file: str) -> str:
    """Where a source file comes from: app, library or stdlib."""
    if any(part in file for part in _LIBRARY):
        return "library"
    if file.startswith("<frozen") or file.startswith(_STDLIB):
        return "stdlib"
    return "app"


def is_sampler(code: CodeType) -> bool:
    """Whether code is that of this folder."""
    return os.path.dirname(code.co_filename) == _HERE


class StackTable:
    """Numbers frames and stacks and keeps what the spool has not stored yet."""

    def __init__(self) -> None:
        self.new_frames: list[list[Any]] = []
        self.new_stacks: list[list[Any]] = []
        self._frames: dict[int, tuple[int, CodeType]] = {}  # the code keeps its id() taken
        self._by_location: dict[tuple[int, ...], int] = {}
        self._by_line: dict[tuple[tuple[int, ...], tuple[int, ...]], int] = {}
        self._frame_count = 0
        self._stack_count = 0

    def of_frame(self, frame: FrameType | None, stop: set[int], stop_frame: int = 0) -> int:
        """Stack id of a frame and its callers.

        The walk ends below a frame whose code's id is in `stop` and at the frame with the id
        `stop_frame`: what runs an event loop is no part of a task's stack.
        """
        innermost = frame
        key: list[int] = []
        depth = 0
        while frame is not None and depth < MAX_DEPTH:
            code_id = id(frame.f_code)
            if code_id in stop or id(frame) == stop_frame:
                break
            key += (code_id, frame.f_lasti)
            depth += 1
            frame = frame.f_back
        location = tuple(key)
        known = self._by_location.get(location)
        if known is not None:
            return known
        frames: list[FrameType] = []
        frame = innermost
        while frame is not None and len(frames) < depth:
            frames.append(frame)
            frame = frame.f_back
        frames.reverse()
        lines = tuple(frame.f_lineno or 0 for frame in frames)
        if tuple(n for f in reversed(frames) for n in (id(f.f_code), f.f_lasti)) != location:
            return 0  # another thread, which has gone on between the two looks
        return self._number(location, frames, lines)

    def of_chain(self, frames: list[FrameType]) -> int:
        """Stack id of suspended frames, the outermost first."""
        key: list[int] = []
        for frame in frames:
            key.append(id(frame.f_code))
            key.append(frame.f_lasti)
        key.append(-1)
        location = tuple(key)
        known = self._by_location.get(location)
        if known is not None:
            return known
        return self._number(location, frames, tuple(frame.f_lineno or 0 for frame in frames))

    def retell(self) -> None:
        """Number and tell anew what is seen from now on, under ids that were never used."""
        self._frames.clear()
        self._by_location.clear()
        self._by_line.clear()

    def forget(self) -> None:
        """Start afresh: another process writes another spool file."""
        self.__init__()  # type: ignore[misc]

    def _number(self, key: tuple[int, ...], frames: list[FrameType], at: tuple[int, ...]) -> int:
        ids: list[int] = []
        lines: list[int] = []
        for frame, line in zip(frames, at, strict=True):
            number = self._frame_id(frame)
            if number:
                ids.append(number)
                lines.append(line)
        content = (tuple(ids), tuple(lines))
        stack = self._by_line.get(content)
        if stack is None:
            self._stack_count += 1
            stack = self._stack_count
            self.new_stacks.append([stack, ids, lines])
            if len(self._by_line) > _MAX_KEYS:
                self._by_line.clear()
            self._by_line[content] = stack
        if len(self._by_location) > _MAX_KEYS:
            self._by_location.clear()
        self._by_location[key] = stack
        return stack

    def _frame_id(self, frame: FrameType) -> int:
        code = frame.f_code
        known = self._frames.get(id(code))
        if known is not None:
            return known[0]
        file = code.co_filename
        if is_sampler(code):
            self._frames[id(code)] = (0, code)
            return 0
        self._frame_count += 1
        module = frame.f_globals.get("__name__")
        self.new_frames.append(
            [
                self._frame_count,
                module if isinstance(module, str) else "",
                code.co_qualname,
                file,
                code.co_firstlineno,
                origin_of(file),
            ]
        )
        self._frames[id(code)] = (self._frame_count, code)
        return self._frame_count
