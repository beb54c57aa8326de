"""Answers: extractive by default (sentences of the sources, nothing invented), or a real LLM.

With `RAGPROF_DEMO_LLM_URL` set, any OpenAI-compatible chat endpoint writes the answer.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import httpx

from ragprof.demo.index import words

SENTENCE = re.compile(r"(?<=[.!?])\s+")
EXTRACTIVE = "extractive"


@dataclass(frozen=True)
class Answer:
    """What was generated: its text, the model's name and the tokens in and out."""

    text: str
    model: str
    prompt_tokens: int
    completion_tokens: int


def extract_answer(
    question: str,
    passages: Sequence[str],
    idf: Mapping[str, float],
    count_tokens: Callable[[str], int],
    sentences: int = 2,
) -> Answer:
    """The sentences of the passages that share the rarest words with the question."""
    wanted = set(words(question))
    ranked: dict[str, float] = {}
    for position, passage in enumerate(passages):
        for sentence in SENTENCE.split(passage):
            if sentence.endswith("?"):
                continue
            shared = wanted.intersection(words(sentence))
            score = sum(idf.get(word, 0.0) for word in shared) / (1 + position)
            ranked[sentence] = max(score, ranked.get(sentence, 0.0))
    best = sorted(ranked, key=lambda sentence: -ranked[sentence])[:sentences]
    text = " ".join(best)
    prompt = count_tokens(question) + sum(len(words(passage)) for passage in passages)
    return Answer(text, EXTRACTIVE, prompt, count_tokens(text))


async def ask_model(client: httpx.AsyncClient, question: str, passages: Sequence[str]) -> Answer:
    """The answer of an OpenAI-compatible chat endpoint; raises httpx.HTTPError when it fails."""
    model = os.environ.get("RAGPROF_DEMO_LLM_MODEL", "default")
    sources = "\n".join(f"[{n}] {passage}" for n, passage in enumerate(passages, 1))
    headers = {}
    if key := os.environ.get("RAGPROF_DEMO_LLM_KEY"):
        headers["Authorization"] = f"Bearer {key}"
    response = await client.post(
        os.environ["RAGPROF_DEMO_LLM_URL"].rstrip("/") + "/chat/completions",
        headers=headers,
        json={
            "model": model,
            "messages": [
                {"role": "system", "content": "Answer from the numbered sources and cite them."},
                {"role": "user", "content": f"{sources}\n\n{question}"},
            ],
        },
        timeout=60,
    )
    response.raise_for_status()
    body: dict[str, Any] = response.json()
    usage = body.get("usage") or {}
    return Answer(
        str(body["choices"][0]["message"]["content"]),
        str(body.get("model", model)),
        int(usage.get("prompt_tokens", 0)),
        int(usage.get("completion_tokens", 0)),
    )
