"""Recordings with a planted cause: spans, samples and metrics written through the Journal."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ragprof import recording
from ragprof.journal import Journal
from ragprof.recording import Recording

BEGIN = 1_800_000_000_000_000_000
MS = 1_000_000
Trace = Callable[["Tree", random.Random, bool], None]
ASK, LOOP, WORKER = "POST /ask", 11, 12


class Tree:
    """One trace under construction; times in ms from its start."""

    def __init__(self, number: int, start: int, say: Callable[[str], str]) -> None:
        self.trace = f"{number:032x}"
        self.start, self.say = start, say
        self.spans: list[dict[str, Any]] = []
        self.samples: list[dict[str, Any]] = []

    def span(
        self, name: str, at: float, took: float, parent: str = "", *, kind: str = "internal",
        service: str = "api", status: str = "unset", **attributes: str,
    ) -> str:  # fmt: skip
        own = f"{int(self.trace, 16) * 1000 + len(self.spans) + 1:016x}"
        self.spans.append(
            {
                "trace_id": self.trace,
                "span_id": own,
                "parent_span_id": parent,
                "service": self.say(service),
                "name": name,
                "kind": kind,
                "start": self.start + int(at * MS),
                "duration_ns": int(took * MS),
                "status": status,
                "attributes": {key.replace("__", "."): value for key, value in attributes.items()},
            }
        )
        return own

    def sample(
        self, span: str, at: float, took: float, stack: int, state: str = "running",
        wait: str = "", task: int = 1, service: str = "api",
    ) -> None:  # fmt: skip
        self.samples.append(
            {
                "time": self.start + int(at * MS),
                "weight_ns": int(took * MS),
                "stack_id": stack,
                "service": self.say(service),
                "process": 1,
                "thread": LOOP if task else WORKER,
                "task": task,
                "state": state,
                "wait": wait,
                "trace_id": self.trace,
                "span_id": span,
            }
        )


def record(
    path: Path, trace: Trace, *, requests: int = 240, seed: int = 1,
    say: Callable[[str], str] = str, metrics: Callable[[bool], dict[str, float]] | None = None,
    deploy: str = "",
) -> Recording:  # fmt: skip
    """Ten requests a second; the second half is the faulty one. Stacks 1 to 4 end in f1 to f4.

    metrics: one value a second of each name: gauges; of `*.pause` an event; of `*.time` a counter,
    by how much it grows. deploy: marked half a second before the faulty half.
    """
    draw = random.Random(seed)
    with Journal(path) as journal:
        frames = [("app:main", "app"), *((f"app:f{n}", "app") for n in range(1, 5))]
        journal.append(
            "frames",
            [
                {"frame_id": n, "function": say(name), "module": "app", "file": say("app.py"),
                 "line": n * 10, "origin": origin}
                for n, (name, origin) in enumerate(frames)
            ],
        )  # fmt: skip
        journal.append(
            "stacks", [{"stack_id": n, "frame_ids": [0, n], "lines": [1, n]} for n in range(1, 5)]
        )
        for number in range(requests):
            tree = Tree(number + 1, BEGIN + number * 100 * MS, say)
            trace(tree, draw, number >= requests // 2)
            journal.append("spans", tree.spans)
            if tree.samples:
                journal.append("samples", tree.samples)
        if deploy:
            at = BEGIN + (requests // 2 * 100 - 500) * MS
            journal.append(
                "changes",
                [{"time": at, "kind": "deploy", "service": say("api"), "text": deploy}],
            )
        if metrics is not None:
            names = sorted(metrics(False))
            journal.append(
                "series",
                [{"series_id": n, "name": name, "type": kind(name), "unit": "s",
                  "labels": {"pool_name": "main", "service": say("api")}}
                 for n, name in enumerate(names)],
            )  # fmt: skip
            grown = dict.fromkeys(names, 0.0)
            for second in range(requests // 10):
                values = metrics(second >= requests // 20)
                grown = {name: grown[name] + values[name] for name in names}
                values = {
                    name: grown[name] if kind(name) == "counter" else values[name] for name in names
                }
                journal.append(
                    "metrics",
                    [{"series_id": n, "time": BEGIN + second * 1000 * MS, "value": values[name]}
                     for n, name in enumerate(names)],
                )  # fmt: skip
    return recording.open(path)


def kind(name: str) -> str:
    """The type of a planted series, by the end of its name."""
    if name.endswith(".pause"):
        return "event"
    return "counter" if name.endswith("time") else "gauge"
