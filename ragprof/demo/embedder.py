"""Texts → vectors: MiniLM when its weights are installed, else a hashing embedder."""

from __future__ import annotations

import functools
import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from ragprof.demo.minilm import Floats, MiniLM
from ragprof.demo.weights import MODEL_NAME, find_weights

WORD = re.compile(r"[^\W_]+")


@dataclass(frozen=True)
class Embedding:
    """One text: `vector` (dimensions,) for search, `tokens` (n, dimensions) for late interaction.

    All of unit length.
    """

    vector: Floats
    tokens: Floats


class Embedder(Protocol):
    """What the service needs of an embedding model."""

    name: str
    dimensions: int

    def embed(self, texts: Sequence[str]) -> list[Embedding]: ...

    def count_tokens(self, text: str) -> int: ...


class MiniLMEmbedder:
    """Mean-pooled MiniLM vectors; texts of equal length share a batch, so nothing is padded."""

    name = MODEL_NAME
    batch = 16

    def __init__(self, model: MiniLM) -> None:
        self.model = model
        self.dimensions = model.dimensions

    def embed(self, texts: Sequence[str]) -> list[Embedding]:
        ids = [self.model.tokenize(text) for text in texts]
        by_length: dict[int, list[int]] = {}
        for index, tokens in enumerate(ids):
            by_length.setdefault(len(tokens), []).append(index)
        found: dict[int, Embedding] = {}
        for members in by_length.values():
            for start in range(0, len(members), self.batch):
                part = members[start : start + self.batch]
                states = self.model.encode(np.array([ids[index] for index in part]))
                for index, state in zip(part, states, strict=True):
                    found[index] = Embedding(_unit(state.mean(axis=0)), _unit(state))
        return [found[index] for index in range(len(ids))]

    def count_tokens(self, text: str) -> int:
        return len(self.model.tokenize(text))


class HashingEmbedder:
    """A word is a fixed random direction: finds shared words and knows no meaning."""

    name = "hashing"
    dimensions = 384

    def embed(self, texts: Sequence[str]) -> list[Embedding]:
        result = []
        for text in texts:
            words = WORD.findall(text.lower())[:512] or [""]
            tokens = np.stack([_direction(word) for word in words])
            result.append(Embedding(_unit(tokens.mean(axis=0)), tokens))
        return result

    def count_tokens(self, text: str) -> int:
        return len(WORD.findall(text))


@functools.lru_cache(maxsize=50_000)
def _direction(word: str) -> Floats:
    seed = int.from_bytes(hashlib.blake2b(word.encode(), digest_size=8).digest(), "little")
    return _unit(np.random.default_rng(seed).standard_normal(HashingEmbedder.dimensions))


def _unit(x: np.ndarray) -> Floats:
    scaled: Floats = (x / np.linalg.norm(x, axis=-1, keepdims=True)).astype(np.float32)
    return scaled


def load_embedder() -> Embedder:
    """MiniLM if its weights are installed, else the hashing embedder."""
    folder = find_weights()
    return MiniLMEmbedder(MiniLM(folder)) if folder else HashingEmbedder()
