"""Cuts a Gecko profile to the process of the page and to what its samples use."""

from __future__ import annotations

import json
import sys
from typing import Any


def used(thread: dict[str, Any]) -> dict[str, Any]:
    """The thread with the rows of its tables that samples point at, renumbered."""
    samples, stacks = thread["samples"], thread["stackTable"]
    prefix, frame = stacks["schema"]["prefix"], stacks["schema"]["frame"]
    column = samples["schema"]["stack"]
    wanted: set[int] = set()
    for row in samples["data"]:
        node = row[column]
        while node is not None and node not in wanted:
            wanted.add(node)
            node = stacks["data"][node][prefix]
    nodes = {old: new for new, old in enumerate(sorted(wanted))}
    frames = {old: new for new, old in enumerate(sorted({stacks["data"][n][frame] for n in nodes}))}
    strings: dict[int, int] = {}
    location = thread["frameTable"]["schema"]["location"]
    rows = []
    for old in frames:
        row = list(thread["frameTable"]["data"][old])
        row[location] = strings.setdefault(row[location], len(strings))
        rows.append(row)
    new_stacks = []
    for old in nodes:
        row = list(stacks["data"][old])
        row[prefix] = None if row[prefix] is None else nodes[row[prefix]]
        row[frame] = frames[row[frame]]
        new_stacks.append(row)
    for row in samples["data"]:
        row[column] = None if row[column] is None else nodes[row[column]]
    return {
        **thread,
        "samples": samples,
        "markers": {**thread["markers"], "data": []},
        "stackTable": {**stacks, "data": new_stacks},
        "frameTable": {**thread["frameTable"], "data": rows},
        "stringTable": [thread["stringTable"][old] for old in strings],
    }


def main(source: str, target: str) -> None:
    with open(source, encoding="utf-8") as file:
        document = json.load(file)
    content = next(
        process
        for process in document["processes"]
        if any("file:" in (thread["processName"] or "") for thread in process["threads"])
    )
    content["meta"].pop("markerSchema", None)
    content["meta"]["CPUName"] = ""
    content["threads"] = [used(thread) for thread in content["threads"]]
    content |= {"libs": [], "pages": [], "sources": {**content["sources"], "data": []}}
    document["meta"] = {**document["meta"], "markerSchema": [], "CPUName": ""}
    document |= {"threads": [], "libs": [], "pages": [], "processes": [content]}
    document.pop("profilingLog", None)
    content.pop("profilingLog", None)
    with open(target, "w", encoding="utf-8") as file:
        json.dump(document, file, separators=(",", ":"))


if __name__ == "__main__":
    main(*sys.argv[1:])
