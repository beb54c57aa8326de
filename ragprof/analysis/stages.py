"""RAG stages of spans, normalised over the conventions in use; others get where they work.

Read in this order: `openinference.span.kind` (OpenInference), `gen_ai.operation.name`
(OpenTelemetry semantic conventions for generative AI), then the plain span name, on words that the
field uses. A span without a stage of its own belongs to the nearest enclosing RAG stage; outside
of all it is database, cache, http or jobs by its attributes and kind, else request.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

import numpy as np
import pyarrow as pa

from ragprof.analysis.columns import Ints, attribute, attribute_rows
from ragprof.analysis.forest import Forest

STAGES = (
    "embed", "retrieve", "rerank", "prompt", "queue", "prefill", "decode", "generate", "tool",
    "guardrail", "cache", "database", "http", "jobs", "request",
)  # fmt: skip
RAG_STAGES = STAGES[:10]

_OPENINFERENCE = {
    "EMBEDDING": "embed",
    "RETRIEVER": "retrieve",
    "RERANKER": "rerank",
    "PROMPT": "prompt",
    "LLM": "generate",
    "TOOL": "tool",
    "GUARDRAIL": "guardrail",
}
_GEN_AI = {
    "embeddings": "embed",
    "chat": "generate",
    "text_completion": "generate",
    "generate_content": "generate",
    "execute_tool": "tool",
    "retrieval": "retrieve",
}
# Words of span names; a span of kind client or server is never named into a stage.
_WORDS = {
    "embed": ("embed", "embedding", "embeddings", "embedder", "encode"),
    "retrieve": ("retrieve", "retrieval", "retriever", "vector_search", "similarity_search"),
    "rerank": ("rerank", "reranking", "reranker"),
    "prompt": ("prompt", "prompt_builder", "build_prompt"),
    "queue": ("llm_queue", "queue_wait"),
    "prefill": ("prefill",),
    "decode": ("decode", "decoding"),
    "generate": ("generate", "generation", "generator", "completion", "llm"),
    "tool": ("tool", "execute_tool"),
    "guardrail": ("guardrail", "guardrails", "moderation"),
}
_STAGE_OF_WORD = {word: stage for stage, words in _WORDS.items() for word in words}
_HTTP = ("http.request.method", "http.method", "url.full", "http.url", "url.path")
_DATABASES = ("db.system", "db.system.name")
_CACHES = frozenset({"redis", "memcached", "valkey"})


def stage_of_name(name: str) -> str:
    """The RAG stage that a plain span name speaks of, or ""."""
    lowered = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()
    if lowered in _STAGE_OF_WORD:
        return _STAGE_OF_WORD[lowered]
    for part in re.split(r"[.:/ ]+", lowered):
        if part in _STAGE_OF_WORD:
            return _STAGE_OF_WORD[part]
    for word in re.split(r"[^a-z0-9]+", lowered):
        if word in _STAGE_OF_WORD:
            return _STAGE_OF_WORD[word]
    return ""


def stages(forest: Forest, spans: pa.Table) -> Ints:
    """Stage of each span of the forest, as codes into `STAGES`."""
    column = spans["attributes"]
    kinds = attribute(column, "openinference.span.kind")[forest.row]
    operations = attribute(column, "gen_ai.operation.name")[forest.row]
    databases = attribute(column, *_DATABASES)[forest.row]
    messages = attribute(column, "messaging.system", "messaging.operation.type")[forest.row]
    http = _has_any(column, _HTTP)[forest.row]
    by_name = np.array([_code(stage_of_name(name)) for name in forest.names] or [-1])
    # Also exit and entry spans: a name is "GET" or a route there, not a step of the pipeline.
    plain = ~(forest.exit | forest.entry)
    own = np.where(plain, by_name[forest.name], -1)
    own = _overlay(own, (_GEN_AI.get(text, "") for text in operations))
    own = _overlay(own, (_OPENINFERENCE.get(text.upper(), "") for text in kinds))
    rag = _inherit(own, forest)

    elsewhere = np.where(http & (forest.exit | (forest.parent >= 0)), _code("http"), -1)
    elsewhere = np.where(messages != "", _code("jobs"), elsewhere)
    is_cache = np.array([text in _CACHES for text in databases], dtype=bool)
    elsewhere = np.where(databases != "", _code("database"), elsewhere)
    elsewhere = np.where(is_cache, _code("cache"), elsewhere)
    elsewhere = _inherit(elsewhere, forest)
    return np.where(rag >= 0, rag, np.where(elsewhere >= 0, elsewhere, _code("request")))


def _code(stage: str) -> int:
    return STAGES.index(stage) if stage else -1


def _overlay(own: Ints, found: Iterable[str]) -> Ints:
    numbers = np.fromiter((_code(stage) for stage in found), dtype=np.int64, count=len(own))
    return np.where(numbers >= 0, numbers, own)


def _has_any(
    column: pa.ChunkedArray, names: tuple[str, ...]
) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    rows, keys, _ = attribute_rows(column)
    found = np.zeros(len(column), dtype=bool)
    wanted = np.asarray(pa.compute.is_in(keys, value_set=pa.array(list(names))))
    found[rows[wanted]] = True
    return found


def _inherit(own: Ints, forest: Forest) -> Ints:
    """Each span's own value, else that of its nearest ancestor that has one (pointer jumping)."""
    value = own.copy()
    top = np.where(forest.parent < 0, np.arange(len(own)), forest.parent)
    for _ in range(len(own).bit_length()):
        missing = value < 0
        if not missing.any():
            break
        value = np.where(missing, value[top], value)
        further = np.where(missing, top[top], top)
        if np.array_equal(further, top):
            break
        top = further
    return value
