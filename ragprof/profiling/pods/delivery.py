"""Which py-spy goes into a container, and whether the memory there allows it."""

from __future__ import annotations

import struct
from pathlib import Path

from ragprof.profiling import pyspy
from ragprof.profiling.pods.request import RungFailed
from ragprof.profiling.pods.target import Facts

MIB = 1 << 20
NEED = 24 * MIB
"""What py-spy may take while it reads a Python program, with the shell that runs it.

Seen: 9 MiB; it grows with the size of the target's interpreter and libraries."""
NEED_NATIVE = 256 * MIB
"""With --native it reads the symbols of every library as well."""
NEED_PYTHON = 12 * MIB
"""A Python that keeps py-spy in memory."""

# e_machine of ELF, by the names of `uname -m`.
_MACHINES = {"x86_64": 62, "aarch64": 183, "armv7l": 40, "i686": 3}


def binary(machine: str) -> bytes:
    """This environment's py-spy for a Linux machine. Raises `RungFailed` when it has another."""
    found = pyspy.program()
    if found is None:
        raise RungFailed('py-spy is not installed here: pip install "ragprof[lab]"')
    content = Path(found).read_bytes()
    expected = _MACHINES.get(machine)
    if content[:4] != b"\x7fELF" or (
        expected is not None and struct.unpack_from("<H", content, 18)[0] != expected
    ):
        raise RungFailed(
            f"the container is Linux on {machine}, and the py-spy here ({found}) is for another "
            "system: use --image with one that has py-spy"
        )
    return content


def check_memory(facts: Facts, *, native: bool, in_memory: int, python: bool) -> None:
    """Refuse where the limit is near: what runs by exec is charged to the container, and the
    kernel may end the service instead of py-spy. ``in_memory``: bytes of files kept in memory."""
    headroom = facts.headroom
    need = (NEED_NATIVE if native else NEED) + in_memory + (NEED_PYTHON if python else 0)
    if headroom is not None and headroom < need:
        assert facts.memory_limit is not None
        raise RungFailed(
            f"the container has {headroom / MIB:.0f} MiB left of its memory limit of "
            f"{facts.memory_limit / MIB:.0f} MiB, and py-spy may need {need / MIB:.0f} MiB: the "
            "kernel could end the service",
            f"a memory limit at least {(need - headroom) / MIB:.0f} MiB higher",
        )


def in_memory(facts: Facts, place: str) -> bool:
    """Whether files in this folder are memory of the container (tmpfs)."""
    path = Path(place)
    return any(str(each) in facts.in_memory for each in (path, *path.parents) if str(each) != "/")
