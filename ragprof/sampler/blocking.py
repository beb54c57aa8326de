"""What a blocked stack waits on: told from the primitive that it is in, never from names.

Two readings. A primitive written in Python is recognised by its code object (`queue.Queue.get`).
One written in C has no frame: the call that the innermost frame is at is resolved to the object
that it calls (`time.sleep`, the `acquire` of a lock), by reading the bytecode and looking the
names up in module, local and instance dictionaries; no descriptor of the application runs.
"""

from __future__ import annotations

import builtins
import dis
import os
import select
import sys
import time
import types
from collections.abc import Callable, Iterable, Iterator
from types import CodeType, FrameType
from typing import Any

_ROOTS = {
    "LOAD_GLOBAL": "global",
    "LOAD_NAME": "global",
    "LOAD_FAST": "local",
    "LOAD_FAST_CHECK": "local",
    "LOAD_DEREF": "local",
    "LOAD_CLASSDEREF": "local",
    "LOAD_FROM_DICT_OR_DEREF": "local",
}
_CALLS = {"CALL", "PRECALL", "CALL_KW", "CALL_FUNCTION_EX", "BEFORE_WITH"}
_PURE = {"builtins", "time", "math", "cmath", "itertools", "_json", "_struct", "_functools", "_re"}
_MISSING = object()

Chain = tuple[str, tuple[str, ...]]  # ("global" or "local", the name and its attributes)


def function_code(module: str, path: str) -> CodeType | None:
    """Code of a function of a loaded module; None when there is no such thing."""
    found: Any = sys.modules.get(module)
    for name in path.split("."):
        found = getattr(found, name, None)
    found = getattr(found, "__func__", found)  # a class method
    found = getattr(found, "__wrapped__", found)
    return found.__code__ if isinstance(found, types.FunctionType) else None


# Primitives written in Python: (module, function, what it waits on).
PYTHON_PRIMITIVES = [
    ("threading", "Condition.wait", "lock"),
    ("threading", "Condition.wait_for", "lock"),
    ("threading", "Event.wait", "lock"),
    ("threading", "Semaphore.acquire", "lock"),
    ("threading", "Barrier.wait", "lock"),
    ("threading", "_RLock.acquire", "lock"),
    ("threading", "Thread.join", "lock"),
    ("threading", "Thread._wait_for_tstate_lock", "lock"),
    ("queue", "Queue.get", "queue"),
    ("queue", "Queue.put", "queue"),
    ("queue", "Queue.join", "queue"),
    ("concurrent.futures._base", "Future.result", "executor"),
    ("concurrent.futures._base", "Future.exception", "executor"),
    ("concurrent.futures._base", "wait", "executor"),
    ("concurrent.futures._base", "as_completed", "executor"),
    ("socket", "SocketIO.readinto", "io"),
    ("socket", "SocketIO.write", "io"),
    ("socket", "create_connection", "io"),
    ("socket", "getaddrinfo", "io"),
    ("socket", "socket.accept", "io"),
    ("socket", "socket.sendfile", "io"),
    ("ssl", "SSLSocket.read", "io"),
    ("ssl", "SSLSocket.write", "io"),
    ("ssl", "SSLSocket.recv", "io"),
    ("ssl", "SSLSocket.recv_into", "io"),
    ("ssl", "SSLSocket.send", "io"),
    ("ssl", "SSLSocket.sendall", "io"),
    ("ssl", "SSLSocket.do_handshake", "io"),
    ("selectors", "EpollSelector.select", "io"),
    ("selectors", "PollSelector.select", "io"),
    ("selectors", "SelectSelector.select", "io"),
    ("selectors", "KqueueSelector.select", "io"),
    ("subprocess", "Popen.wait", "io"),
    ("subprocess", "Popen._wait", "io"),
    ("subprocess", "Popen.communicate", "io"),
    ("multiprocessing.connection", "Connection._recv", "io"),
    ("multiprocessing.connection", "Connection._send", "io"),
    ("multiprocessing.connection", "wait", "io"),
]

# Types whose C methods wait: (module, type, methods, what they wait on).
_C_METHODS = [
    ("_thread", "LockType", ("acquire", "acquire_lock", "__enter__"), "lock"),
    ("_thread", "RLock", ("acquire", "__enter__"), "lock"),
    ("_queue", "SimpleQueue", ("get",), "queue"),
    (
        "_socket",
        "socket",
        (
            *("recv", "recv_into", "recvfrom", "recvfrom_into", "recvmsg", "recvmsg_into"),
            *("send", "sendall", "sendto", "sendmsg", "connect", "connect_ex", "_accept"),
        ),
        "io",
    ),
    ("_ssl", "_SSLSocket", ("read", "write", "do_handshake", "shutdown"), "io"),
    ("_io", "FileIO", ("read", "readinto", "readall", "write"), "io"),
    ("_io", "BufferedReader", ("read", "read1", "readinto", "readline", "peek"), "io"),
    ("_io", "BufferedRandom", ("read", "write", "flush"), "io"),
    ("_io", "BufferedWriter", ("write", "flush"), "io"),
    ("_io", "TextIOWrapper", ("read", "readline", "write", "flush"), "io"),
    ("sqlite3", "Connection", ("execute", "executemany", "commit", "rollback"), "io"),
    ("sqlite3", "Cursor", ("execute", "executemany", "fetchone", "fetchall", "fetchmany"), "io"),
]

_C_FUNCTIONS: list[tuple[Any, str, str]] = [
    (time, "sleep", "sleep"),
    (select, "select", "io"),
    *((os, name, "io") for name in ("read", "write", "pread", "pwrite", "readv", "writev")),
    *((os, name, "io") for name in ("open", "fsync", "fdatasync", "stat", "listdir", "scandir")),
    *((os, name, "io") for name in ("waitpid", "wait", "wait3", "wait4", "waitid", "system")),
    (builtins, "open", "io"),
]


class Blocking:
    """Recognises waits; holds the tables of the primitives that are loaded."""

    def __init__(self) -> None:
        self.python: dict[int, str] = {}
        self._kept: list[Any] = []  # what the ids in the tables belong to
        self._objects: dict[int, str] = {}
        self._chains: dict[tuple[int, int], Chain | None] = {}
        self._codes: dict[int, CodeType] = {}
        self._modules = 0
        for module, name, wait in _C_FUNCTIONS:
            self._add(self._objects, getattr(module, name, None), wait)
        for name in ("poll", "epoll"):
            self._add(self._objects, getattr(getattr(select, name, None), "poll", None), "io")
        poller = type(select.poll()) if hasattr(select, "poll") else None
        self._add(self._objects, getattr(poller, "poll", None), "io")

    def refresh(self) -> None:
        """Take in the primitives of modules that have been loaded since."""
        if len(sys.modules) == self._modules:
            return
        self._modules = len(sys.modules)
        for module, path, wait in PYTHON_PRIMITIVES:
            code = function_code(module, path)
            if code is not None and id(code) not in self.python:
                self._add(self.python, code, wait)
        for module, type_name, methods, wait in _C_METHODS:
            class_ = getattr(sys.modules.get(module), type_name, None)
            for name in methods:
                self._add(self._objects, getattr(class_, "__dict__", {}).get(name), wait)
        self._add(
            self._objects,
            getattr(sys.modules.get("_socket"), "getaddrinfo", None),
            "io",
        )

    def skip(self, codes: Iterable[CodeType]) -> None:
        """Codes of wrappers around primitives: they wait on nothing themselves."""
        for code in codes:
            self._add(self.python, code, "")

    def _add(self, table: dict[int, str], found: Any, wait: str) -> None:
        if found is not None and id(found) not in table:
            table[id(found)] = wait
            self._kept.append(found)

    def primitive(self, frame: FrameType | None) -> str:
        """What the outermost of the Python primitives at the end of a stack waits on, or ""."""
        wait = ""
        while frame is not None:
            found = self.python.get(id(frame.f_code))
            if found is None:
                return wait
            wait = found or wait
            frame = frame.f_back
        return wait

    def call(self, frame: FrameType) -> str | None:
        """What the C function waits on that a frame is calling.

        "" for a call that may wait; None when the frame is not at a call, or at one of the
        standard library that never waits.
        """
        code = frame.f_code
        key = (id(code), frame.f_lasti)
        if key in self._chains:
            chain = self._chains[key]
        else:
            if len(self._chains) > 10_000:
                self._chains.clear()
                self._codes.clear()
            self._codes[id(code)] = code
            chain = self._chains[key] = _callee(code, frame.f_lasti)
        if chain is None:
            return None
        found = _look_up(frame, chain)
        wait = self._objects.get(id(found))
        if wait is None:
            return None if _never_waits(found) else ""
        return wait

    def entered(self, frame: FrameType) -> str:
        """What the `with` waited on that a frame, or the caller of one that begins, has entered."""
        code = frame.f_code
        begins = next((i for i in dis.get_instructions(code) if i.opname == "RESUME"), None)
        if begins is not None and frame.f_lasti <= begins.offset and frame.f_back is not None:
            frame = frame.f_back
        chain = _entered_before(frame.f_code, frame.f_lasti)
        return "" if chain is None else self._objects.get(id(_look_up(frame, chain)), "")


def _entered_before(code: CodeType, offset: int) -> Chain | None:
    """What the last `with` entered, when nothing was called between it and `offset`.

    Entering is the one call after which the interpreter does not look for signals: a signal that
    came while a lock was awaited is handled at the next instruction that does.
    """
    before = [i for i in dis.get_instructions(code) if i.offset <= offset]
    for index in range(len(before) - 2, 0, -1):
        if before[index].opname == "BEFORE_WITH":
            return _callee(code, before[index].offset)
        here = before[index].opname == "PRECALL" and index == len(before) - 2
        if not here and (before[index].opname in _CALLS or "JUMP_BACKWARD" in before[index].opname):
            return None
    return None


def _never_waits(found: Any) -> bool:
    if isinstance(found, types.MethodDescriptorType):
        return found.__objclass__.__module__ in _PURE
    if isinstance(found, type):  # `range(500)`: what code it runs has frames of its own
        return found.__module__ in _PURE
    return isinstance(found, types.BuiltinFunctionType) and found.__module__ in _PURE


def _callee(code: CodeType, offset: int) -> Chain | None:
    """Names of what the instruction at `offset` calls; ("", ()) when they cannot be told.

    The callee's instructions are those that start at the same place in the source as the call.
    """
    before: list[dis.Instruction] = []
    at: dis.Instruction | None = None
    for instruction in dis.get_instructions(code):
        if instruction.offset > offset:
            break
        before.append(instruction)
        at = instruction
    if at is None or at.opname not in _CALLS or at.positions is None:
        return None
    # A `with` has its own place in the source; what it enters was loaded just before.
    origin = before[-2] if at.opname == "BEFORE_WITH" and len(before) > 1 else at
    if origin.positions is None:
        return "", ()
    start = (origin.positions.lineno, origin.positions.col_offset)
    names: list[str] = []
    for instruction in reversed(before[:-1]):
        positions = instruction.positions
        if positions is None or (positions.lineno, positions.col_offset) != start:
            continue
        if instruction.opname in ("LOAD_ATTR", "LOAD_METHOD"):
            names.append(instruction.argval)
        elif instruction.opname in _ROOTS:
            names.append(instruction.argval)
            path = tuple(reversed(names))
            if at.opname == "BEFORE_WITH":
                path = (*path, "__enter__")
            return _ROOTS[instruction.opname], path
        elif instruction.opname not in ("PRECALL", "PUSH_NULL", "CACHE", "KW_NAMES", "NOP"):
            break
    return "", ()


def _look_up(frame: FrameType, chain: Chain) -> Any:
    scope, path = chain
    if not path:
        return _MISSING
    if scope == "global":
        found = frame.f_globals.get(path[0], _MISSING)
        if found is _MISSING:
            found = frame.f_builtins.get(path[0], _MISSING)
    else:
        found = frame.f_locals.get(path[0], _MISSING)
    for name in path[1:]:
        if found is _MISSING:
            return _MISSING
        found = _attribute(found, name)
    return found


def _attribute(owner: Any, name: str) -> Any:
    """An attribute without running code of the application: dictionaries and slots only."""
    if isinstance(owner, types.ModuleType):
        return owner.__dict__.get(name, _MISSING)
    try:
        own: Any = object.__getattribute__(owner, "__dict__")
    except AttributeError:
        own = None
    if isinstance(own, dict) and name in own:
        found = own[name]
        # A bound method of a C type, kept in an instance: `self.acquire = lock.acquire`.
        if isinstance(found, types.BuiltinMethodType) and found.__self__ is not None:
            return _in_type(type(found.__self__), found.__name__)
        return found
    found = _in_type(type(owner), name)
    if isinstance(found, types.MemberDescriptorType):
        try:
            return found.__get__(owner)
        except AttributeError:
            return _MISSING
    return found


def _in_type(class_: type, name: str) -> Any:
    for base in _bases(class_):
        found = base.__dict__.get(name, _MISSING)
        if found is not _MISSING:
            return found
    return _MISSING


def _bases(class_: type) -> Iterator[type]:
    mro: Callable[[type], tuple[type, ...]] = type.__dict__["__mro__"].__get__
    yield from mro(class_)
