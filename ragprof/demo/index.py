"""The search index: vectors and BM25 over all chunks, and its cache on disk."""

from __future__ import annotations

import math
import os
import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ragprof.demo.embedder import WORD, Embedder, Embedding
from ragprof.demo.minilm import Floats

K1, B = 1.2, 0.75
RECIPROCAL_RANK_OFFSET = 60


@dataclass(frozen=True)
class Hit:
    """A chunk found: its number in the index and the fused score (higher is better)."""

    chunk: int
    score: float


class Index:
    """Hybrid search over a fixed list of texts; read-only after construction.

    BM25 after Robertson and Zaragoza, "The Probabilistic Relevance Framework" (2009); fusion by
    reciprocal rank after Cormack, Clarke and Büttcher (2009).
    """

    def __init__(self, texts: Sequence[str], embeddings: Sequence[Embedding]) -> None:
        self.vectors: Floats = np.stack([each.vector for each in embeddings])
        self.tokens: list[Floats] = [each.tokens for each in embeddings]
        counts = [Counter(words(text)) for text in texts]
        lengths = np.array([sum(count.values()) for count in counts], np.float32)
        frequency: Counter[str] = Counter(word for count in counts for word in count)
        total = len(texts)
        self.idf = {
            word: math.log(1 + (total - n + 0.5) / (n + 0.5)) for word, n in frequency.items()
        }
        norm = K1 * (1 - B + B * lengths / lengths.mean())
        self.weights: dict[str, Floats] = {word: np.zeros(total, np.float32) for word in frequency}
        for row, count in enumerate(counts):
            for word, n in count.items():
                self.weights[word][row] = self.idf[word] * n * (K1 + 1) / (n + norm[row])

    def vector_scores(self, vector: Floats) -> Floats:
        """Cosine of each chunk to the query, (chunks,)."""
        scores: Floats = self.vectors @ vector
        return scores

    def keyword_scores(self, text: str) -> Floats:
        """BM25 of each chunk, (chunks,)."""
        scores = np.zeros(len(self.vectors), np.float32)
        for word in words(text):
            if word in self.weights:
                scores += self.weights[word]
        return scores

    def search(self, vector: Floats, text: str, limit: int, strategy: str = "hybrid") -> list[Hit]:
        """The best `limit` chunks by `strategy`: hybrid, vector or keyword."""
        rankings = []
        if strategy in ("hybrid", "vector"):
            rankings.append(np.argsort(-self.vector_scores(vector), kind="stable"))
        if strategy in ("hybrid", "keyword"):
            rankings.append(np.argsort(-self.keyword_scores(text), kind="stable"))
        fused = np.zeros(len(self.vectors))
        for ranking in rankings:
            fused[ranking] += 1 / (RECIPROCAL_RANK_OFFSET + np.arange(1, len(ranking) + 1))
        best = np.argsort(-fused, kind="stable")[:limit]
        return [Hit(int(chunk), float(fused[chunk])) for chunk in best]


def words(text: str) -> list[str]:
    """Lower-case words."""
    return WORD.findall(text.lower())


def cache_folder() -> Path:
    """The platform's cache folder for ragprof (`XDG_CACHE_HOME`, else `~/.cache`)."""
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(base) / "ragprof"


def build_index(texts: Sequence[str], embedder: Embedder, fingerprint: str) -> Index:
    """The index of the texts; their embeddings are computed once and then kept on disk.

    `fingerprint` names the texts; the file is written under another name and moved, so that two
    starts at once do no harm. An unwritable cache folder costs only time.
    """
    path = cache_folder() / f"demo-{embedder.name}-{fingerprint}.npz"
    embeddings = _load(path, len(texts))
    if embeddings is None:
        embeddings = embedder.embed(texts)
        _save(path, embeddings)
    return Index(texts, embeddings)


def _load(path: Path, expected: int) -> list[Embedding] | None:
    try:
        with np.load(path, allow_pickle=False) as stored:
            vectors = stored["vectors"]
            tokens = stored["tokens"].astype(np.float32)
            ends = stored["ends"]
    except (OSError, ValueError, KeyError):  # absent, damaged, or of another version
        return None
    if len(vectors) != expected:
        return None
    parts = np.split(tokens, ends[:-1])
    return [Embedding(vector, part) for vector, part in zip(vectors, parts, strict=True)]


def _save(path: Path, embeddings: Sequence[Embedding]) -> None:
    tokens = [each.tokens for each in embeddings]
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent, suffix=".npz", delete=False) as file:
            np.savez(
                file,
                vectors=np.stack([each.vector for each in embeddings]),
                tokens=np.concatenate(tokens).astype(np.float16),
                ends=np.cumsum([len(each) for each in tokens]),
            )
        os.replace(file.name, path)
    except OSError:
        return
