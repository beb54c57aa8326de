"""A fault for the alarm's test: the reranker asks a slow remote service, in a worker thread."""

from __future__ import annotations

import time
from typing import Any

SECONDS = 2.4


def fetch_remote_scores(passages: Any) -> None:
    """Waits for somebody else, as a synchronous client does."""
    time.sleep(SECONDS)


def slow_scores(service: Any) -> None:
    """The fault: `rerank` calls the remote service first."""
    rerank = service.rerank

    def rerank_remotely(query: Any, passages: Any) -> Any:
        fetch_remote_scores(passages)
        return rerank(query, passages)

    service.rerank = rerank_remotely
