"""Two threads that stand still at known places, so that every recording sees the same stacks."""

from __future__ import annotations

import sys
import threading
import time

SECONDS = float(sys.argv[1])


def wait_for_orders() -> None:
    time.sleep(SECONDS)


def write_index(depth: int, done: threading.Event) -> None:
    if depth:
        write_index(depth - 1, done)
    else:
        done.wait(SECONDS)


def main() -> None:
    worker = threading.Thread(target=write_index, args=(2, threading.Event()), name="indexer; <b>")
    worker.start()
    wait_for_orders()
    worker.join()


if __name__ == "__main__":
    main()
