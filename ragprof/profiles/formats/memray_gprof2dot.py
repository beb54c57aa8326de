"""What ``memray transform gprof2dot`` writes: JSON of functions, and call chains with their cost.

The form is gprof2dot's own JSON, version 0, https://github.com/jrfonseca/gprof2dot.
"""

from __future__ import annotations

import numpy as np

from ragprof.profiles import fields, places, quantities
from ragprof.profiles.content import Content
from ragprof.profiles.model import Floats, Profile, ProfileBuilder, ProfileError, ValueType

TITLE = "gprof2dot's JSON (memray transform)"
LOOKS_FOR = "a JSON object with costs, functions and events"
SUFFIXES = (".gprof2dot.json", ".gprof2dot")


def recognises(content: Content) -> bool:
    """A JSON object with the fields of that form."""
    return content.has("costs", "functions", "events")


def read(content: Content) -> list[Profile]:
    """One sample per call chain, the innermost function of which comes first in the file.

    Raises `ProfileError` naming the event at fault.
    """
    document = content.document
    kinds = []
    for index, cost in enumerate(fields.field(document, "costs", list)):
        unit = fields.field(cost, "unit", str, f"costs[{index}]")
        name = fields.text(cost, "description") or "cost"
        name = "alloc_space" if (name, unit) == ("Memory", "bytes") else name.lower()
        kinds.append(quantities.in_nanoseconds(ValueType(name, unit)))
    builder = ProfileBuilder([kind for kind, _ in kinds])
    frames = [
        builder.frame(
            places.frame(
                fields.field(function, "name", str, f"functions[{index}]"),
                fields.text(function, "module"),
            )
        )
        for index, function in enumerate(fields.field(document, "functions", list))
    ]
    stacks = []
    values: Floats = np.zeros((len(fields.field(document, "events", list)), len(kinds)))
    for index, event in enumerate(document["events"]):
        where = f"events[{index}]"
        chain = fields.field(event, "callchain", list, where)
        if any(type(one) is not int or not 0 <= one < len(frames) for one in chain):
            raise ProfileError(f"{where}.callchain names a function outside functions.")
        cost = fields.field(event, "cost", list, where)
        if len(cost) != len(kinds):
            raise ProfileError(f"{where} has {len(cost)} costs, and costs has {len(kinds)}.")
        stacks.append(builder.stack([frames[one] for one in reversed(chain)]))
        values[index] = [
            fields.weight(one, f"{where}.cost") * factor
            for one, (_, factor) in zip(cost, kinds, strict=True)
        ]
    builder.samples(stacks, values)
    return [builder.build()]
