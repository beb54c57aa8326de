"""Visitors of the book shop: open arrivals, seeded, bounded in time.

python visitors.py URL SECONDS SEED
"""

from __future__ import annotations

import random
import sys
import threading
import time
import urllib.request


def visit(url: str) -> None:
    with urllib.request.urlopen(url, timeout=20) as answer:
        answer.read()


def main(base: str, seconds: float, seed: int, rate: float = 12.0) -> int:
    """Visit for `seconds`; returns the number of visits, each in a thread of its own."""
    chance = random.Random(seed)
    start = time.monotonic()
    due, visits = 0.0, []
    while (due := due + chance.expovariate(rate)) < seconds:
        time.sleep(max(0.0, start + due - time.monotonic()))
        path = (
            f"/search/w{chance.randrange(900)}"
            if chance.random() < 0.6
            else f"/buy/{chance.randrange(2500)}?copies={chance.randrange(1, 4)}"
        )
        visits.append(threading.Thread(target=visit, args=(base + path,)))
        visits[-1].start()
    for thread in visits:
        thread.join()
    return len(visits)


if __name__ == "__main__":
    print(main(sys.argv[1], float(sys.argv[2]), int(sys.argv[3])))
