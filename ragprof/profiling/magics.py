"""`%load_ext ragprof`: `%%ragprof` and `%ragprof STATEMENT`, also with top-level `await`.

IPython hands a magic its text, and a magic cannot await. So both are rewritten before IPython looks
at the cell: `%ragprof f()` becomes a `with` of one line, and `%%ragprof` a first line that begins a
session, which ends when the cell has run. The cell itself stays what it is.
"""

from __future__ import annotations

import argparse
import asyncio
import re
import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ragprof.profiles.model import Frame, Profile
from ragprof.profiling.engine import SessionError
from ragprof.profiling.session import ENGINES, Session, profile
from ragprof.profiling.trimming import rooted

_OPTIONS = re.compile(r"\s*((?:(?:--engine|--hz|-o)(?:\s+|=)\S+\s*)*)")
_CELL_FILE = re.compile(r"/ipykernel_\d+/|^<ipython-input")
_CELL = "ragprof"
_BEGIN, _AROUND = "ragprof_begin", "ragprof_around"
_KERNEL = (
    "IPython", "ipykernel", "ipykernel_launcher", "jupyter_client", "traitlets", "tornado", "zmq",
)  # fmt: skip


class Magics:
    """The magics of one IPython shell."""

    def __init__(self, shell: Any) -> None:
        self.shell = shell
        self._session: Session | None = None
        self._variable = ""

    def begin(self, line: str) -> None:
        """Begin a session that ends with the cell."""
        options = _options(line)
        self._end(None)
        self._variable = options.o
        self._session = _session(options)
        self._session._start(task=_in_loop())

    @contextmanager
    def around(self, line: str) -> Iterator[None]:
        """A session around one statement."""
        options = _options(line)
        session = _session(options)
        session._start(task=_in_loop())
        try:
            yield
        finally:
            self._show(session.stop(), options.o)

    def line(self, line: str) -> None:
        """`%ragprof` where it could not be rewritten: in code that is made at run time."""
        options, statement = split(line)
        if not statement:
            raise SessionError(
                "%ragprof wants a statement, such as `%ragprof answer(question)`; "
                "%%ragprof profiles a whole cell"
            )
        with self.around(options):
            self.shell.ex(statement)

    def cell(self, line: str, cell: str) -> None:
        """`%%ragprof` where it could not be rewritten."""
        with self.around(line):
            self.shell.run_cell(cell)

    def after_cell(self, result: Any = None) -> None:
        """The cell has run, well or not."""
        self._end(result)

    def _end(self, result: Any) -> None:
        session, self._session = self._session, None
        if session is not None:
            self._show(session.stop(), self._variable)

    def _show(self, session: Session, variable: str) -> None:
        found = of_cells(session)
        if variable:
            self.shell.user_ns[variable] = found
        from IPython.display import display

        display(found)  # type: ignore[no-untyped-call]
        for note in found.notes:
            print(note)


def of_cells(whole: Profile) -> Profile:
    """What the user's code did: stacks begin at the cell, the kernel's own work is left out.

    Threads and tasks that the user's code has begun stay, whole.
    """
    cells = np.array([is_cell(frame) for frame in whole.frames], dtype=bool)
    kernel = np.array(
        [frame.module.partition(".")[0] in _KERNEL for frame in whole.frames], dtype=bool
    )
    foreign = ~kernel & np.array([frame.origin != "stdlib" for frame in whole.frames], dtype=bool)
    has_cell, has_kernel, has_foreign = (
        _stacks_with(whole, wanted) for wanted in (cells, kernel, foreign)
    )
    keep = has_cell | (has_foreign & ~has_kernel)
    return rooted(whole.filter(keep[whole.sample_stacks]), cells).named(whole.name or "cell")


def _stacks_with(profile: Profile, wanted: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """For each stack whether one of its frames is wanted (a boolean per frame)."""
    owners = np.repeat(np.arange(profile.stack_count), np.diff(profile.stack_offsets))
    found = np.zeros(profile.stack_count, dtype=bool)
    if len(wanted):
        found[owners[wanted[profile.stack_frames]]] = True
    return found


def is_cell(frame: Frame) -> bool:
    """Whether a frame is code of a notebook cell or of IPython's prompt."""
    return bool(_CELL_FILE.search(frame.file))


def rewrite(lines: list[str]) -> list[str]:
    """A cell with `%%ragprof` and `%ragprof` made plain Python; everything else stays."""
    if not lines:
        return lines
    first = re.match(r"%%ragprof(?:[ \t]+(.*))?$", lines[0].rstrip())
    if first:
        begin = f"get_ipython().run_line_magic({_BEGIN!r}, {(first[1] or '')!r})\n"
        return [begin, *rewrite(lines[1:])]
    if lines[0].startswith("%%") or not any("%ragprof" in line for line in lines):
        return lines
    from IPython.core.inputtransformer2 import make_tokens_by_line

    lines = list(lines)
    for tokens in make_tokens_by_line(lines):
        words = [token for token in tokens if token.string.strip()][:2]
        if [word.string for word in words] != ["%", _CELL]:  # also not inside a string
            continue
        row, column = words[0].start
        end = words[1].end[1]
        options, statement = split(lines[row - 1][end:])
        if statement and words[1].start[1] == column + 1:
            around = f"get_ipython().run_line_magic({_AROUND!r}, {options!r})"
            lines[row - 1] = f"{lines[row - 1][:column]}with {around}: {statement}\n"
    return lines


def split(line: str) -> tuple[str, str]:
    """The options at the beginning of a line, and the statement after them."""
    found = _OPTIONS.match(line)
    assert found is not None
    return found[1].strip(), line[found.end() :].strip()


def load(shell: Any) -> None:
    """Register the magics with an IPython shell; once is enough."""
    if getattr(shell, "_ragprof_magics", None) is not None:
        return
    magics = shell._ragprof_magics = Magics(shell)
    shell.register_magic_function(magics.line, "line", _CELL)
    shell.register_magic_function(magics.cell, "cell", _CELL)
    shell.register_magic_function(magics.begin, "line", _BEGIN)
    shell.register_magic_function(magics.around, "line", _AROUND)
    shell.input_transformers_cleanup.append(rewrite)
    shell.events.register("post_run_cell", magics.after_cell)


def unload(shell: Any) -> None:
    """Take them off again."""
    magics = getattr(shell, "_ragprof_magics", None)
    if magics is None:
        return
    shell._ragprof_magics = None
    shell.input_transformers_cleanup.remove(rewrite)
    shell.events.unregister("post_run_cell", magics.after_cell)
    for kind, names in (("line", (_CELL, _BEGIN, _AROUND)), ("cell", (_CELL,))):
        for name in names:
            shell.magics_manager.magics[kind].pop(name, None)


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> Any:
        raise SessionError(f"%ragprof: {message}; options are --engine, --hz and -o NAME")


def _options(line: str) -> argparse.Namespace:
    parser = _Parser(prog="%ragprof", add_help=False)
    parser.add_argument("--engine", choices=ENGINES, default="sampler")
    parser.add_argument("--hz", type=float, default=100.0)
    parser.add_argument("-o", default="", metavar="NAME")
    options = parser.parse_args(shlex.split(line))
    if options.o and not options.o.isidentifier():
        raise SessionError(f"-o {options.o!r} is no name of a variable; give one such as -o prof")
    return options


def _session(options: argparse.Namespace) -> Session:
    return profile(engine=options.engine, hz=options.hz, name="cell")


def _in_loop() -> bool:
    return asyncio._get_running_loop() is not None
