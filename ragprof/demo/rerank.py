"""Late interaction (ColBERT, Khattab and Zaharia 2020): each query token takes its best match.

Passage tokens are encoded when a document comes in, so a query costs one product per passage.
"""

from __future__ import annotations

from collections.abc import Sequence

from ragprof.demo.minilm import Floats


def late_interaction(query: Floats, passages: Sequence[Floats]) -> list[float]:
    """Scores from -1 to 1 of passages (tokens, d) for a query (tokens, d): mean of the maxima."""
    return [float((query @ passage.T).max(axis=1).mean()) for passage in passages]
