"""pstats, the statistics of cProfile: own and cumulative time of every function, by caller.

The file is marshal data, which can crash the reader, so it is read only when it is trusted. It has
no stacks; they are told from the shares that callers have of their callees, exact for one level and
likely above it. The own times are those of the file, and sum to its total whatever calls whom.
"""

from __future__ import annotations

import heapq
import marshal
import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ragprof.profiles import places, quantities
from ragprof.profiles.calls import NOBODY, CallTree
from ragprof.profiles.content import Content
from ragprof.profiles.model import Profile, ProfileBuilder, ProfileError

TITLE = "pstats"
LOOKS_FOR = "a marshal dictionary whose keys are (file, line, function)"
SUFFIXES = (".pstats", ".cprof")
NEEDS_TRUST = True

MOST_CALLS = 200_000
"""Nodes of the call tree that are told apart; the heaviest come first."""

# A dictionary, with or without a reference; a tuple of three; a text or a number follows.
_DICTIONARY, _TUPLE = (0x7B, 0xFB), (0x29, 0xA9, 0x28, 0xA8)

Function = tuple[str, int, str]


def recognises(content: Content) -> bool:
    """The first bytes are those of such a dictionary."""
    data = content.data
    return len(data) > 3 and data[0] in _DICTIONARY and data[1] in _TUPLE and data[2] == 3


@dataclass
class _Statistics:
    """A function: its own seconds, and its callers with their shares of its time."""

    own: float
    callers: dict[int, _Edge] = field(default_factory=dict)
    inclusive: float = 0.0


@dataclass
class _Edge:
    """How much of a callee a caller has: of its own seconds, and of what is below it."""

    own: float
    weight: float
    flow: float = 0.0


def read(content: Content) -> list[Profile]:
    """One sample per path of calls that has own time, in nanoseconds of the profiler's clock.

    Recursion is cut where a function calls one that is already on the path, so no path is endless
    and no function has more than the total. Raises `ProfileError` naming the function at fault.
    """
    functions, statistics = _loaded(content.data)
    order = _without_cycles(statistics)
    children = _flows(statistics, order)
    builder = ProfileBuilder([quantities.WALL])
    frames = [builder.frame(_frame(function)) for function in functions]
    nodes, weights, folded = _expanded(CallTree(builder), frames, statistics, children, builder)
    total = sum(one.own for one in statistics)
    if folded and total:
        builder.note(
            f"{folded / total:.2%} of the time lies in paths too light to tell apart; it is that "
            "of the functions they begin with."
        )
    builder.note("Stacks are told from callers and callees: pstats does not record them.")
    builder.samples(nodes, quantities.scaled(np.array(weights, dtype=np.float64), 1e9))
    return [builder.build()]


def _loaded(data: bytes) -> tuple[list[Function], list[_Statistics]]:
    try:
        table = marshal.loads(data)  # noqa: S302 - only files that the user trusts come here
    except (EOFError, ValueError, TypeError) as error:
        raise ProfileError(f"the data is cut short or damaged: {error}.") from error
    if not isinstance(table, dict):
        raise ProfileError("the data is no dictionary of functions.")
    functions = [function for function in table if _is_function(function)]
    if len(functions) != len(table):
        raise ProfileError("a key is not (file, line, function).")
    number = {function: index for index, function in enumerate(functions)}
    statistics = []
    for function in functions:
        entry = table[function]
        if not isinstance(entry, tuple) or len(entry) != 5 or not isinstance(entry[4], dict):
            raise ProfileError(f"{function[2]} has no times and callers.")
        statistics.append(_Statistics(_seconds(entry[2], function)))
        for caller, share in entry[4].items():
            if caller not in number:
                if not _is_function(caller):
                    raise ProfileError(f"{function[2]} has a caller that is no function.")
                continue
            statistics[-1].callers[number[caller]] = _edge(share, function)
    return functions, statistics


def _is_function(key: object) -> bool:
    return (
        isinstance(key, tuple)
        and len(key) == 3
        and isinstance(key[0], str)
        and isinstance(key[1], int)
        and isinstance(key[2], str)
    )


def _edge(share: Any, function: Function) -> _Edge:
    if isinstance(share, tuple) and len(share) == 4:
        cumulative = _seconds(share[3], function)
        return _Edge(_seconds(share[2], function), cumulative or 1e-12 * max(1, abs(int(share[1]))))
    if isinstance(share, int):  # the old profiler counts calls only
        return _Edge(math.nan, float(max(0, share)))
    raise ProfileError(f"{function[2]} has a caller without times.")


def _seconds(value: Any, function: Function) -> float:
    if not isinstance(value, int | float) or not math.isfinite(value):
        raise ProfileError(f"{function[2]} has the time {value!r}.")
    if value < 0 and value > -1e-3:  # clocks that step back by a little
        return 0.0
    if value < 0:
        raise ProfileError(f"{function[2]} has the time {value!r}: times are not negative.")
    return float(value)


def _frame(function: Function) -> Any:
    file, line, name = function
    if file == "~":  # built in
        return places.frame(name.strip("<>"), "", 0)
    return places.frame(name, file, max(0, line))


def _without_cycles(statistics: list[_Statistics]) -> list[int]:
    """Takes out the calls that close a cycle; returns the functions, callers before callees."""
    callees: list[list[int]] = [[] for _ in statistics]
    for callee, one in enumerate(statistics):
        for caller in one.callers:
            callees[caller].append(callee)
    roots = [index for index, one in enumerate(statistics) if not set(one.callers) - {index}]
    state = [0] * len(statistics)  # 1: on the path, 2: done
    order: list[int] = []
    for root in [*roots, *range(len(statistics))]:
        if state[root]:
            continue
        path: list[tuple[int, Iterator[int]]] = [(root, iter(callees[root]))]
        state[root] = 1
        while path:
            function, rest = path[-1]
            callee = next(rest, -1)
            if callee < 0:
                path.pop()
                state[function] = 2
                order.append(function)
            elif state[callee] == 1:
                statistics[callee].callers.pop(function, None)
            elif state[callee] == 0:
                state[callee] = 1
                path.append((callee, iter(callees[callee])))
    return order[::-1]


def _flows(statistics: list[_Statistics], order: list[int]) -> list[list[int]]:
    """Gives every call its share of the callee's time; returns the callees of every function."""
    children: list[list[int]] = [[] for _ in statistics]
    for callee in reversed(order):
        one = statistics[callee]
        below = sum(statistics[child].callers[callee].flow for child in children[callee])
        one.inclusive = one.own + below
        if not one.callers:
            continue
        known = sum(edge.own for edge in one.callers.values())
        whole = sum(edge.weight for edge in one.callers.values())
        for caller, edge in one.callers.items():
            share = edge.weight / whole if whole > 0 else 1 / len(one.callers)
            own = one.own * (edge.own / known if known > 0 else share)
            edge.own, edge.flow = own, own + below * share
            children[caller].append(callee)
    return children


def _expanded(
    tree: CallTree,
    frames: list[int],
    statistics: list[_Statistics],
    children: list[list[int]],
    builder: ProfileBuilder,
) -> tuple[Any, list[float], float]:
    """The paths, the heaviest first: stacks, own seconds, and the seconds not told apart."""
    nodes: list[int] = []
    weights: list[float] = []
    folded = 0.0
    waiting: list[tuple[float, int, int, int, float]] = []
    for index, one in enumerate(statistics):
        if not one.callers and one.inclusive > 0:
            node = tree.call(NOBODY, frames[index])
            heapq.heappush(waiting, (-one.inclusive, len(waiting), index, node, one.own))
    count = len(waiting)
    while waiting:
        mass, _, index, node, own = heapq.heappop(waiting)
        below = -mass - own
        if count >= MOST_CALLS or below <= 0:
            folded += max(0.0, below)
            nodes.append(node)
            weights.append(max(0.0, -mass))
            continue
        if own > 0:
            nodes.append(node)
            weights.append(own)
        all_below = statistics[index].inclusive - statistics[index].own
        for callee in children[index]:
            edge = statistics[callee].callers[index]
            if edge.flow <= 0:
                continue
            part = below / all_below
            count += 1
            entry = (-edge.flow * part, count, callee, tree.call(node, frames[callee]))
            heapq.heappush(waiting, (*entry, edge.own * part))
    return tree.stacks(nodes), weights, folded
