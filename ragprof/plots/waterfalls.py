"""One trace as a waterfall, its critical path highlighted."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from ragprof.plots.picture import Picture, box, empty, fit, keys, label, line
from ragprof.plots.scales import linear, ms_text, ticks


def waterfall(
    spans: pd.DataFrame,
    critical: pd.DataFrame | None = None,
    title: str = "The slowest trace",
    *,
    rows: int = 50,
) -> Picture:
    """Spans in tree order as bars; what the critical path passes through in the accent colour.

    ``spans``: span_id, depth, service, name, start_ms, duration_ms, status, in the order to be
    drawn. ``critical``: span_id, start_ms, duration_ms, part (self, edge, async tail), the pieces
    of the critical path. Of more than ``rows`` spans those with the most critical time, then the
    longest, are drawn, and how many are not is said.
    """
    if not len(spans):
        return empty(title, "The trace has no spans.")
    pieces: dict[str, list[dict[str, Any]]] = {}
    if critical is not None:
        for piece in critical.to_dict("records"):
            pieces.setdefault(str(piece["span_id"]), []).append(
                {str(k): v for k, v in piece.items()}
            )
    on_path = {span: sum(float(p["duration_ms"]) for p in parts) for span, parts in pieces.items()}
    shown = spans
    if len(spans) > rows:
        weight = (
            spans["span_id"].map(lambda span: on_path.get(str(span), 0.0)).to_numpy(dtype=float)
        )
        order = np.lexsort((-spans["duration_ms"].to_numpy(dtype=float), -weight))
        shown = spans.iloc[np.sort(order[:rows])]
    hidden = len(spans) - len(shown)
    low = float(spans["start_ms"].min())
    high = float((spans["start_ms"] + spans["duration_ms"]).max())
    records = shown.to_dict("records")
    names = {str(row["span_id"]): str(row["name"]) for row in spans.to_dict("records")}
    longest = sorted(on_path.items(), key=lambda item: -item[1])[:3]
    text = f"{len(spans)} spans over {ms_text(high - low)}. " + (
        "Most of the critical path: "
        + ", ".join(f"{names.get(span, span)} {ms_text(own)}" for span, own in longest)
        + "."
        if longest
        else ""
    )

    def draw(width: int) -> tuple[str, float]:
        wide = width > 600
        step = 22 if wide else 34
        left, right = (310.0, width - 76.0) if wide else (12.0, width - 12.0)
        x = linear(low, max(high, low + 1e-6), left, right)
        out = [label(12, 24, title, "t")]
        entries = [("f-slow", "on the critical path"), ("f-other", "span")]
        parts = {piece.get("part") for group in pieces.values() for piece in group}
        if "edge" in parts:
            entries.insert(1, ("f-warn", "between services (edge)"))
        legend, y = keys(12, 44, entries, width)
        out.append(legend)
        top = y + 30.0
        bottom = top + step * len(records)
        for mark in ticks(0.0, high - low, 6 if wide else 3):
            out.append(line(x(low + mark), top - 6, x(low + mark), bottom, "s-grid"))
            out.append(label(x(low + mark), top - 10, ms_text(mark), "m n c" if mark else "m n"))
        for index, span in enumerate(records):
            out.extend(_row(span, pieces, on_path, x, top + index * step, wide, left, right))
        if hidden:
            note = f"{hidden} shorter spans are not drawn"
            out.append(label(12, bottom + 18, note, "m n"))
        return "".join(out), bottom + (30 if hidden else 14)

    return Picture(title, text.strip(), draw)


def _row(
    span: dict[Any, Any],
    pieces: dict[str, list[dict[str, Any]]],
    on_path: dict[str, float],
    x: Any,
    y: float,
    wide: bool,
    left: float,
    right: float,
) -> list[str]:
    start, duration = float(span["start_ms"]), float(span["duration_ms"])
    own = on_path.get(str(span["span_id"]), 0.0)
    indent = min(int(span["depth"]), 12) * (11 if wide else 7)
    failed = str(span.get("status", "")) == "error"
    name = f"{span['name']}{' (error)' if failed else ''}"
    service = str(span.get("service", ""))
    style = "h" if own > 0 else "m"
    bold = 0.9 if own > 0 else 1.0
    tip = f"{service}: {name}\n{ms_text(duration)}, {ms_text(own)} on the critical path"
    shown = ms_text(duration)
    bar = y + 5 if wide else y + 17
    out = []
    if wide:
        room = left - 24 - indent
        out.append(label(12 + indent, y + 15, fit(name, room * bold), style))
        rest = room - len(name) * 7.2 - 12
        if rest > 40:
            out.append(label(left - 12, y + 15, fit(service, rest), "m n e"))
        out.append(label(right + 68, y + 15, shown, f"{style} n e"))
    else:
        out.append(label(12 + indent, y + 13, fit(name, (right - 90 - indent) * bold), style))
        out.append(label(right, y + 13, shown, f"{style} n e"))
    tall = 12 if wide else 10
    size = max(1.5, x(start + duration) - x(start))
    out.append(box(x(start), bar, size, tall, "f-other", tip, 'rx="2"'))
    for piece in pieces.get(str(span["span_id"]), []):
        begin, length = float(piece["start_ms"]), float(piece["duration_ms"])
        colour = "f-warn" if piece.get("part") == "edge" else "f-slow"
        more = f"{tip}\nthis piece ({piece.get('part', 'self')}): {ms_text(length)}"
        out.append(box(x(begin), bar, max(1.0, x(begin + length) - x(begin)), tall, colour, more))
    return out
