"""The document that every shipper writes into Elasticsearch: one index template for all."""

from __future__ import annotations

from typing import Any

NAME = "rag-system"
PREFIX = "rag-system"
"""Daily indices are ``rag-system-YYYY.MM.DD``."""

_KEYWORD = {"type": "keyword", "ignore_above": 1024}
_IDS = (
    "trace_id", "span_id", "request_id", "document_id", "query_id", "level", "logger",
    "filename", "func_name", "method", "path", "client_host", "strategy", "embedding_model",
    "stream",
)  # fmt: skip
_KUBERNETES = ("namespace_name", "pod_name", "container_name", "host", "pod_id")
_NUMBERS = {
    "lineno": "integer", "status_code": "short", "duration_ms": "double",
    "processing_time_ms": "double", "total_time_ms": "double", "chunks_created": "integer",
    "results_count": "integer", "avg_score": "double",
}  # fmt: skip


def template() -> dict[str, Any]:
    """The body of ``PUT _index_template/rag-system``, for Elasticsearch 8 and 9.

    Ids are keywords, times date_nanos, texts text. A field of another type than mapped is kept
    in the source and left out of the index, so that no line is refused.
    """
    properties: dict[str, Any] = {
        "@timestamp": {"type": "date_nanos"},
        "timestamp": {"type": "date_nanos"},
        "event": {"type": "text", "fields": {"keyword": _KEYWORD}},
        "message": {"type": "text"},
        "query_text": {"type": "text"},
        "exception": {
            "properties": {
                "exc_type": _KEYWORD,
                "exc_value": {"type": "text"},
                "frames": {"type": "object", "enabled": False},
            }
        },
        "kubernetes": {
            "properties": dict.fromkeys(_KUBERNETES, _KEYWORD),
        },
        **{name: dict(_KEYWORD) for name in _IDS},
        **{name: {"type": type_, "ignore_malformed": True} for name, type_ in _NUMBERS.items()},
    }
    return {
        "index_patterns": [f"{PREFIX}-*"],
        "priority": 200,
        "template": {
            "settings": {
                "index": {
                    "number_of_shards": 1,
                    "number_of_replicas": 1,
                    "refresh_interval": "5s",
                    "mapping": {
                        "ignore_malformed": True,
                        "total_fields": {"limit": 500, "ignore_dynamic_beyond_limit": True},
                    },
                }
            },
            "mappings": {
                "dynamic": True,
                "date_detection": False,
                "dynamic_templates": [
                    {
                        "texts_are_keywords": {
                            "match_mapping_type": "string",
                            "mapping": _KEYWORD,
                        }
                    }
                ],
                "properties": properties,
            },
        },
        "_meta": {"description": "Log lines of the RAG service, by ragprof monitoring export"},
    }
