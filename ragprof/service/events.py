"""The domain events of a RAG service as log lines."""

from __future__ import annotations

import math

import structlog

QUERY_TEXT_LIMIT = 100


class EventLogger:
    """The domain events of a RAG service, one method each.

    The call site in the line is that of the caller. With `log_query_text` off, `query_text` is
    empty: questions may be personal data.
    """

    def __init__(self, name: str = "ragprof.service.events", log_query_text: bool = True) -> None:
        self.log: structlog.stdlib.BoundLogger = structlog.stdlib.get_logger(name)
        self.log_query_text = log_query_text

    def log_document_processed(
        self,
        document_id: str,
        chunks_created: int,
        processing_time_ms: float,
        embedding_model: str,
    ) -> None:
        """A document became chunks with embeddings."""
        self.log.info(
            "document_processed",
            document_id=document_id,
            chunks_created=chunks_created,
            processing_time_ms=_rounded(processing_time_ms, 3),
            embedding_model=embedding_model,
        )

    def log_search_performed(
        self,
        query_id: str,
        query_text: str,
        strategy: str,
        results_count: int,
        avg_score: float,
        total_time_ms: float,
    ) -> None:
        """A search was answered; the text is cut to 100 characters, or left out by choice."""
        self.log.info(
            "search_performed",
            query_id=query_id,
            query_text=query_text[:QUERY_TEXT_LIMIT] if self.log_query_text else "",
            strategy=strategy,
            results_count=results_count,
            avg_score=_rounded(avg_score, 4),
            total_time_ms=_rounded(total_time_ms, 3),
        )


def _rounded(value: float, digits: int) -> float | None:
    """None for what JSON cannot say: the mean score of no results."""
    return round(float(value), digits) if math.isfinite(value) else None
