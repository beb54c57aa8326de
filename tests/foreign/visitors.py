"""Visitors of the services that speak HTTP: open arrivals, seeded, bounded in time.

python visitors.py SERVICE URL SECONDS SEED
"""

from __future__ import annotations

import contextlib
import json
import random
import sys
import threading
import time
import urllib.request
from collections.abc import Callable

WORDS = ("anchor", "basin", "copper", "dredge", "estuary", "ferry", "gull", "harbour", "inlet")
Ask = tuple[str, str, object]
"""Method, path, and what is sent as JSON (None: nothing)."""


def bookshop(chance: random.Random) -> Ask:
    if chance.random() < 0.6:
        return "GET", f"/search/w{chance.randrange(900)}", None
    return "GET", f"/buy/{chance.randrange(2500)}?copies={chance.randrange(1, 4)}", None


def orders(chance: random.Random) -> Ask:
    kind = chance.random()
    if kind < 0.25:
        return "GET", f"/customers/{chance.randrange(200)}/orders", None
    if kind < 0.45:
        return "GET", f"/articles/A-{chance.randrange(150_000):06}", None
    return "POST", f"/orders/{chance.randrange(1, 2400)}/invoice", {}


def assistant(chance: random.Random) -> Ask:
    return "POST", "/ask", {"question": " ".join(chance.sample(WORDS, 5))}


SERVICES: dict[str, tuple[Callable[[random.Random], Ask], float]] = {
    "bookshop": (bookshop, 12.0),
    "orders": (orders, 14.0),
    "assistant": (assistant, 6.0),
}
"""What visitors ask, and how many come in a second."""


def visit(url: str, ask: Ask) -> None:
    method, path, content = ask
    body = None if content is None else json.dumps(content).encode()
    request = urllib.request.Request(url + path, body, method=method)
    if body is not None:
        request.add_header("Content-Type", "application/json")
    # A visitor of a service that a busy machine does not get to gives up, and says nothing.
    with contextlib.suppress(OSError), urllib.request.urlopen(request, timeout=60) as answer:
        answer.read()


def main(service: str, url: str, seconds: float, seed: int) -> int:
    """Visit for `seconds`; returns the number of visits, each in a thread of its own."""
    chance = random.Random(seed)
    asks, rate = SERVICES[service]
    start = time.monotonic()
    due, visits = 0.0, []
    while (due := due + chance.expovariate(rate)) < seconds:
        time.sleep(max(0.0, start + due - time.monotonic()))
        visits.append(threading.Thread(target=visit, args=(url, asks(chance))))
        visits[-1].start()
    for thread in visits:
        thread.join()
    return len(visits)


if __name__ == "__main__":
    print(main(sys.argv[1], sys.argv[2], float(sys.argv[3]), int(sys.argv[4])))
