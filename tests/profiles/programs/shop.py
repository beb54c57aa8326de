"""A small shop: two threads that compute, one recursion, one name with markup in it."""

from __future__ import annotations

import sys
import threading
import time

SECONDS = float(sys.argv[1]) if len(sys.argv) > 1 else 1.0


def price(item: int) -> float:
    return sum(item / (index + 1) for index in range(3_000))


def discount(depth: int, item: int) -> float:
    if depth == 0:
        return price(item)
    return discount(depth - 1, item)


def basket(until: float) -> float:
    total = 0.0
    while time.perf_counter() < until:
        total += price(3) + discount(4, 5)
    return total


def index(until: float) -> int:
    words = 0
    while time.perf_counter() < until:
        words += len(sorted(str(number) for number in range(2_000)))
    return words


def main() -> None:
    until = time.perf_counter() + SECONDS
    worker = threading.Thread(target=index, args=(until,), name="indexer; <b>")
    worker.start()
    basket(until)
    worker.join()


if __name__ == "__main__":
    main()
