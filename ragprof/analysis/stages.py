"""RAG stages of spans, normalised over the conventions in use; others get where they work.

Read in this order: `openinference.span.kind` (OpenInference), `gen_ai.operation.name`
(OpenTelemetry semantic conventions for generative AI), then the plain span name, on words that the
field uses. A span without a stage of its own belongs to the nearest enclosing RAG stage; outside
of all it is database, cache, http or jobs by its attributes and kind, else request.
"""

from __future__ import annotations

import re
from collections.abc import Callable

import numpy as np
import pyarrow as pa

from ragprof.analysis.columns import Attributes, Bools, Ints, attribute_codes, attributes
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


def stages(forest: Forest, spans: pa.Table, given: Attributes | None = None) -> Ints:
    """Stage of each span of the forest, as codes into `STAGES`. given: the attributes of the
    spans, if they are encoded already."""
    given = attributes(spans["attributes"]) if given is None else given
    by_name = np.array([_code(stage_of_name(name)) for name in forest.names] or [-1])
    # Also exit and entry spans: a name is "GET" or a route there, not a step of the pipeline.
    plain = ~(forest.exit | forest.entry)
    own = np.where(plain, by_name[forest.name], -1)
    own = _overlay(own, forest, given, "gen_ai.operation.name", _GEN_AI.get)
    own = _overlay(
        own, forest, given, "openinference.span.kind", lambda text: _OPENINFERENCE.get(text.upper())
    )
    rag = _inherit(own, forest)

    http = _has_any(given, _HTTP)[forest.row]
    elsewhere = np.where(http & (forest.exit | (forest.parent >= 0)), _code("http"), -1)
    messages = _where(given, ("messaging.system", "messaging.operation.type"), bool)[forest.row]
    elsewhere = np.where(messages, _code("jobs"), elsewhere)
    elsewhere = np.where(_where(given, _DATABASES, bool)[forest.row], _code("database"), elsewhere)
    is_cache = _where(given, _DATABASES, _CACHES.__contains__)[forest.row]
    elsewhere = np.where(is_cache, _code("cache"), elsewhere)
    elsewhere = _inherit(elsewhere, forest)
    return np.where(rag >= 0, rag, np.where(elsewhere >= 0, elsewhere, _code("request")))


def _code(stage: str) -> int:
    return STAGES.index(stage) if stage else -1


def _overlay(
    own: Ints,
    forest: Forest,
    given: Attributes,
    attribute: str,
    stage_of: Callable[[str], str | None],
) -> Ints:
    numbers, values = attribute_codes(given, attribute)
    stage = np.array([_code(stage_of(text) or "") for text in values])[numbers[forest.row]]
    return np.where(stage >= 0, stage, own)


def _where(given: Attributes, names: tuple[str, ...], holds: Callable[[str], bool]) -> Bools:
    """Rows for whose first attribute of these something holds."""
    numbers, values = attribute_codes(given, *names)
    found: Bools = np.array([holds(text) for text in values], dtype=bool)[numbers]
    return found


def _has_any(given: Attributes, names: tuple[str, ...]) -> Bools:
    found = np.zeros(given.count, dtype=bool)
    for name in names:
        found[given.row[given.pairs(name)]] = True
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
