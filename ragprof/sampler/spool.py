"""The spool file: one JSON object per line, appended whole, so that a kill loses one line."""

from __future__ import annotations

import contextlib
import json
import os
from typing import Any

_encode = json.JSONEncoder(separators=(",", ":"), check_circular=False).encode


class Spool:
    """Append-only file `PID-STARTNS.jsonl` in a folder."""

    def __init__(self, folder: str, pid: int, start_ns: int) -> None:
        os.makedirs(folder, exist_ok=True)
        self.path = os.path.join(folder, f"{pid}-{start_ns}.jsonl")
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
        self._file = os.open(self.path, flags, 0o600)
        self._identity = self._stat()[:2]

    def _stat(self) -> tuple[int, int, int]:
        found = os.fstat(self._file)
        return found.st_dev, found.st_ino, found.st_size

    def write(self, lines: list[dict[str, Any]]) -> bool:
        """Append the lines; False when the disk did not take them, and then none is left."""
        data = "".join(_encode(line) + "\n" for line in lines).encode()
        try:
            # A daemon closes all descriptors, and then the number is somebody else's file.
            *identity, before = self._stat()
            if tuple(identity) != self._identity:
                return False
            written = os.write(self._file, data)
        except OSError:
            return False
        if written == len(data):
            return True
        with contextlib.suppress(OSError):
            os.ftruncate(self._file, before)
        return False

    def close(self) -> None:
        with contextlib.suppress(OSError):
            if self._stat()[:2] == self._identity:
                os.close(self._file)
