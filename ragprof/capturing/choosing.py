"""Which requests a capture fetches whole: the slow ones, and a fair sample of the others.

Slow is slow for its operation (service and name of the root span). The others are chosen by a hash
of their trace id, so that the choice knows nothing of them and is the same when it is made again.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa

from ragprof.capturing.config import duration
from ragprof.sources.settings import ConfigError

LEAST_BASELINE = 200  # traces of an operation
BASELINE_PER_SLOW = 2
MOST_SLOW = 2000  # traces of an operation


@dataclass
class Choice:
    """`trace_ids` to fetch; `operations` says how many were slow, kept and seen, for people."""

    trace_ids: list[str] = field(default_factory=list)
    operations: list[dict[str, Any]] = field(default_factory=list)


def choose(roots: pa.Table, slow: str) -> Choice:
    """Choose among requests by `slow`: "p95" (of its operation) or a duration such as "750ms".

    `roots` has the columns trace_id, service, name, duration_ns. Where more than MOST_SLOW are
    slow, the slowest half and a fair sample of the rest of them are kept. Raises ConfigError.
    """
    ids: list[str] = roots.column("trace_id").to_pylist()
    lengths = roots.column("duration_ns").to_numpy()
    names = [
        f"{service} {name}"
        for service, name in zip(
            roots.column("service").to_pylist(), roots.column("name").to_pylist(), strict=True
        )
    ]
    choice = Choice()
    operations, members = np.unique(np.array(names, dtype=object).astype(str), return_inverse=True)
    for number, operation in enumerate(operations.tolist()):
        rows = np.flatnonzero(members == number)
        limit = threshold(slow, lengths[rows])
        is_slow = lengths[rows] >= limit
        taken = _slow_ones(rows[is_slow], ids, lengths)
        wanted = max(LEAST_BASELINE, BASELINE_PER_SLOW * len(taken))
        others = sorted(rows[~is_slow].tolist(), key=lambda row: _draw(ids[row]))[:wanted]
        choice.trace_ids += [ids[row] for row in [*taken, *others]]
        choice.operations.append(
            {
                "operation": operation,
                "threshold_ms": round(float(limit) / 1e6, 3),
                "requests": len(rows),
                "slow": int(is_slow.sum()),
                "slow_kept": len(taken),
                "baseline_kept": len(others),
            }
        )
    choice.trace_ids = sorted(set(choice.trace_ids))
    return choice


def threshold(slow: str, lengths: Any) -> float:
    """The duration (ns) from which a request is slow; raises ConfigError."""
    percentile = re.fullmatch(r"p(\d{1,2}(?:\.\d+)?)", slow.strip().lower())
    if percentile:
        return float(np.quantile(lengths, float(percentile[1]) / 100)) if len(lengths) else 0.0
    try:
        return float(duration(slow))
    except ConfigError:
        raise ConfigError(
            f'--slow is {slow!r}; write a percentile such as "p95" or a duration such as "750ms".'
        ) from None


def _slow_ones(rows: Any, ids: Any, lengths: Any) -> list[int]:
    order = rows[np.argsort(-lengths[rows], kind="stable")].tolist()
    if len(order) <= MOST_SLOW:
        return list(order)
    slowest, rest = order[: MOST_SLOW // 2], order[MOST_SLOW // 2 :]
    return [*slowest, *sorted(rest, key=lambda row: _draw(ids[row]))[: MOST_SLOW // 2]]


def _draw(trace_id: str) -> bytes:
    return hashlib.blake2b(trace_id.encode(), digest_size=8).digest()
