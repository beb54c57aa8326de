"""A process that looks after a spool when its recorder is gone, however that ended.

Recorded processes may outlive the recorder, and their samplers go on appending. The guard waits
for the end of its stdin, which the recorder holds open, then empties the files as long as
somebody writes them, and at last removes the folder. Run by path, standard library only.
"""

from __future__ import annotations

import os
import shutil
import sys
import time
from pathlib import Path

EVERY = 2.0  # seconds between two looks


def written(file: Path) -> bool:
    """Whether the process that the file is named after has it open, or may have."""
    process = Path("/proc") / file.name.partition("-")[0] / "fd"
    try:
        opened = list(process.iterdir())
    except PermissionError:
        return True
    except OSError:
        return False
    for each in opened:
        try:
            if os.path.samefile(each, file):
                return True
        except OSError:
            continue
    return False


def main(folder: Path) -> None:
    sys.stdin.buffer.read()
    time.sleep(EVERY)  # a process that was just forked has not opened its file yet
    while True:
        writers = [file for file in folder.glob("*.jsonl") if written(file)]
        if not writers:
            break
        for file in writers:
            os.truncate(file, 0)  # the sampler appends, so that its next line is the first
        time.sleep(EVERY)
    shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
