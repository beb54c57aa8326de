"""Letters for the queue that digests.py reads: open arrivals, seeded, bounded in time.

python letters.py QUEUE.db SECONDS SEED

Returns when all of them have been answered.
"""

from __future__ import annotations

import json
import random
import sqlite3
import sys
import time

WORDS = [f"{a}{b}" for a in ("al", "be", "cor", "du", "el", "fi") for b in ("ma", "ne", "ro", "ti")]
PATIENCE = 60.0


def letter(chance: random.Random) -> str:
    """A hundred sentences or so."""
    count = chance.randrange(90, 130)
    parts = [" ".join(chance.choices(WORDS, k=9)) for _ in range(count)]
    return json.dumps({"sender": chance.randrange(500), "text": ". ".join(parts)})


def main(queue: str, seconds: float, seed: int, rate: float = 9.0) -> int:
    """Write letters for `seconds`, each as part of a trace of its own; returns their number."""
    chance = random.Random(seed)
    table = sqlite3.connect(queue, timeout=30, isolation_level=None)
    table.execute("PRAGMA journal_mode = WAL")
    table.execute(
        "CREATE TABLE IF NOT EXISTS letters (id INTEGER PRIMARY KEY, headers TEXT, body TEXT, "
        "taken INTEGER DEFAULT 0, digest TEXT)"
    )
    start = time.monotonic()
    due, written = 0.0, 0
    while (due := due + chance.expovariate(rate)) < seconds:
        time.sleep(max(0.0, start + due - time.monotonic()))
        parent = f"00-{chance.getrandbits(128):032x}-{chance.getrandbits(64):016x}-01"
        table.execute(
            "INSERT INTO letters (headers, body) VALUES (?, ?)",
            (json.dumps({"traceparent": parent}), letter(chance)),
        )
        written += 1
    end = time.monotonic() + PATIENCE
    while table.execute("SELECT count(*) FROM letters WHERE digest IS NULL").fetchone()[0]:
        if time.monotonic() > end:
            raise SystemExit("The letters are not answered.")
        time.sleep(0.05)
    return written


if __name__ == "__main__":
    print(main(sys.argv[1], float(sys.argv[2]), int(sys.argv[3])))
